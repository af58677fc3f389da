//! Times a training step on the CPU, for networks of the size of the quickstart.
//!
//! `cargo run --release -p nnflow-net --example training_step [THREADS]`

use std::error::Error;
use std::time::{Duration, Instant};

use nnflow_net::architecture::{Architecture, Description, NetworkKind, Pooling};
use nnflow_net::device::DeviceChoice;
use nnflow_net::loss::{Loss, Target};
use nnflow_net::network::Network;
use nnflow_net::optimizer::OptimizerOptions;
use nnflow_net::training::{Batch, Trainer, TrainingOptions};

/// The fastest of this many steps counts: on a shared machine the others measure the neighbours.
const STEPS: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(2), |count| count.parse())?;
    for (features, shape) in [
        (vec![8, 16, 32], vec![2, 1, 40, 56, 40]),
        (vec![16, 32, 64], vec![2, 1, 40, 56, 40]),
        (vec![16, 32, 64, 128], vec![8, 1, 64, 64]),
        (vec![32, 64, 128, 256], vec![8, 1, 64, 64]),
    ] {
        let fastest = fastest_step(&features, &shape, threads)?;
        println!("features {features:?}, batch {shape:?}, {threads} threads: {} ms", fastest.as_millis());
    }
    Ok(())
}

fn fastest_step(features: &[usize], shape: &[usize], threads: usize) -> Result<Duration, Box<dyn Error>> {
    let architecture = architecture(features, shape.len() - 2)?;
    let device = DeviceChoice::Cpu.resolve(threads)?;
    let options = TrainingOptions {
        loss: Loss::nnunet(Target::Labels { ignore: None }, false),
        optimizer: OptimizerOptions::nnunet(),
        clip_norm: Some(12.0),
    };
    let mut trainer = Trainer::new(Network::new(&architecture, 1, device)?, options)?;
    let image: Vec<f32> = (0..shape.iter().product()).map(|index: usize| (index as f32).sin()).collect();
    let supervised = architecture.supervised_shapes(&shape[2..]);
    let labels: Vec<Vec<i16>> =
        supervised.iter().map(|extents| vec![1; shape[0] * extents.iter().product::<usize>()]).collect();
    let mut fastest = Duration::MAX;
    for _ in 0..STEPS {
        let labels = labels.iter().map(Vec::as_slice).collect();
        let start = Instant::now();
        trainer.step(&Batch { shape: shape.to_vec(), image: &image, labels }, 0.01)?.read()?;
        fastest = fastest.min(start.elapsed());
    }
    Ok(fastest)
}

fn architecture(features: &[usize], dimension: usize) -> Result<Architecture, Box<dyn Error>> {
    let stages = features.len();
    Ok(Architecture::try_from(Description {
        kind: NetworkKind::PlainConvUNet,
        input_channels: 1,
        outputs: 3,
        features_per_stage: features.to_vec(),
        kernel_sizes: vec![vec![3; dimension]; stages],
        strides: (0..stages).map(|stage| vec![if stage == 0 { 1 } else { 2 }; dimension]).collect(),
        units_per_stage: vec![2; stages],
        convolutions_per_decoder_stage: vec![2; stages - 1],
        convolution_bias: true,
        norm_epsilon: 1e-5,
        pooling: Pooling::StridedConvolution,
        deep_supervision: true,
    })?)
}
