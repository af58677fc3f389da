//! Times a planned network by itself: training steps on a batch of noise, the augmentation of such a batch by the network's
//! device, or the prediction of an image of noise.
//!
//! `cargo run --release -p nnflow-net --example steps -- train|augment|predict PLANS CONFIGURATION CHANNELS OUTPUTS COUNT
//! [THREADS]`
//!
//! A GPU is used where there is one. `augment` reads nothing and computes no network: it is the copy of the samples to the
//! device and all that is drawn for them. `predict` takes an image that two patches cover, with all mirrored forms.

use std::error::Error;
use std::time::Instant;

use ndarray::Array4;
use nnflow_kernels::augment::{Augmentation, AugmentationSettings, DUMMY_2D_ABOVE, Dimension, Sample};
use nnflow_kernels::random::CounterRandom;
use nnflow_net::architecture::Architecture;
use nnflow_net::augment::Augmenter;
use nnflow_net::device::{Device, DeviceChoice};
use nnflow_net::inference::{Average, InferenceOptions, PrecisionOfSums, predict};
use nnflow_net::loss::{Loss, Target};
use nnflow_net::network::Network;
use nnflow_net::optimizer::OptimizerOptions;
use nnflow_net::precision::Precision;
use nnflow_net::probe::augment_and_drop;
use nnflow_net::training::{Batch, Trainer, TrainingOptions};
use serde::Deserialize;
use serde_json::Value;

/// Batches that are augmented in turn.
const BATCHES_OF_SAMPLES: u32 = 10;

/// Slices of the image that a network of slices predicts.
const SLICES: usize = 8;

/// What is read of a configuration in plans.json.
#[derive(Deserialize)]
struct Configuration {
    patch_size: Vec<usize>,
    batch_size: usize,
    batch_dice: bool,
    architecture: Value,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, plans, configuration, channels, outputs, count, threads @ ..] = &arguments[..] else {
        return Err("expected train|augment|predict PLANS CONFIGURATION CHANNELS OUTPUTS COUNT [THREADS]".into());
    };
    let plans: Value = serde_json::from_slice(&std::fs::read(plans)?)?;
    let planned = Configuration::deserialize(&plans["configurations"][configuration])?;
    let architecture = Architecture::from_plans(&planned.architecture, channels.parse()?, outputs.parse()?, true)?;
    let available = std::thread::available_parallelism()?.get();
    let device = DeviceChoice::Auto.resolve(threads.first().map_or(Ok(available), |count| count.parse())?)?;
    let network = Network::new(&architecture, 1, device)?;
    let count = count.parse()?;
    let seconds = match what.as_str() {
        "train" => train(network, &planned, count)?,
        "augment" => augmented(&network, &planned, count)?,
        "predict" => predicted(network, &planned, count)?,
        other => return Err(format!("`{other}` is none of `train`, `augment` and `predict`").into()),
    };
    println!("{{\"wall_seconds\": {seconds}}}");
    Ok(())
}

fn train(network: Network, planned: &Configuration, count: u32) -> Result<f64, Box<dyn Error>> {
    let (architecture, device) = (network.architecture().clone(), network.device());
    let options = TrainingOptions {
        loss: Loss::nnunet(Target::Labels { ignore: None }, planned.batch_dice),
        optimizer: OptimizerOptions::nnunet(),
        clip_norm: Some(12.0),
        precision: precision(device),
    };
    let mut trainer = Trainer::new(network, options)?;
    let shape = [&[planned.batch_size, architecture.input_channels], planned.patch_size.as_slice()].concat();
    let image = noise(shape.iter().product());
    let supervised = architecture.supervised_shapes(&planned.patch_size);
    let labels: Vec<Vec<i16>> = supervised.iter().map(|extents| labels(planned, &architecture, extents)).collect();
    mean_seconds(device, count, || {
        let labels = labels.iter().map(Vec::as_slice).collect();
        trainer.step(&Batch { shape: shape.clone(), image: &image, labels }, 0.01)?;
        Ok(())
    })
}

/// The mean time of a batch, over batches of samples that all differ in what was drawn for them.
fn augmented(network: &Network, planned: &Configuration, count: u32) -> Result<f64, Box<dyn Error>> {
    let (dimension, patch) = match planned.patch_size[..] {
        [y, x] => (Dimension::Two, [1, y, x]),
        [z, y, x] => (Dimension::Three, [z, y, x]),
        _ => return Err("expected a patch of two or three axes".into()),
    };
    let settings = AugmentationSettings::nnunet_v2(dimension, patch, DUMMY_2D_ABOVE);
    let augmentation = Augmentation::new(settings.clone())?;
    let architecture = network.architecture();
    let sample = |number: u32| {
        let drawn = augmentation.draw(&CounterRandom::new(1, [0, number, 0]), architecture.input_channels);
        let [z, y, x] = drawn.window(settings.initial_patch(patch), patch);
        let image = noise(architecture.input_channels * z * y * x);
        let image = Array4::from_shape_vec((architecture.input_channels, z, y, x), image)?;
        let labels =
            Array4::from_shape_fn((1, z, y, x), |(_, z, y, x)| ((z / 8 + y / 8 + x / 8) % architecture.outputs) as i16);
        Ok(augmentation.defer(drawn, Sample { image, labels }, patch)?)
    };
    let samples = (0..BATCHES_OF_SAMPLES * planned.batch_size as u32).map(sample);
    let samples = samples.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let mut batches = samples.chunks_exact(planned.batch_size).cycle();
    let supervised = architecture.supervised_shapes(&planned.patch_size);
    let scale = |extents: &Vec<usize>| {
        let first = 3 - extents.len();
        let scale = |axis: usize| axis.checked_sub(first).map_or(1.0, |own| extents[own] as f64 / patch[axis] as f64);
        [0, 1, 2].map(scale)
    };
    let is_2d = dimension == Dimension::Two;
    let augmenter = Augmenter::new(settings.clone(), patch, is_2d, supervised.iter().map(scale).collect());
    mean_seconds(network.device(), count, || {
        let Some(batch) = batches.next() else { return Err("expected a batch of at least one sample".into()) };
        Ok(augment_and_drop(&augmenter, batch, network.device())?)
    })
}

/// Labels without a pattern that a network could see.
fn labels(planned: &Configuration, architecture: &Architecture, extents: &[usize]) -> Vec<i16> {
    let voxels = planned.batch_size * extents.iter().product::<usize>();
    (0..voxels).map(|voxel| (voxel * 7 % architecture.outputs) as i16).collect()
}

fn predicted(network: Network, planned: &Configuration, count: u32) -> Result<f64, Box<dyn Error>> {
    let device = network.device();
    let mut shape = vec![network.architecture().input_channels];
    shape.extend((planned.patch_size.len() == 2).then_some(SLICES));
    shape.extend(planned.patch_size.iter().copied());
    if let Some(last) = shape.last_mut() {
        *last = *last * 3 / 2;
    }
    let shape: [usize; 4] = shape.try_into().map_err(|_| "expected a patch of two or three axes")?;
    let image = Array4::from_shape_vec(shape, noise(shape.iter().product()))?;
    let options = InferenceOptions {
        patch: planned.patch_size.clone(),
        step: 0.5,
        mirror_axes: (0..planned.patch_size.len()).collect(),
        gaussian: true,
        average: Average::Logits,
        precision: precision(device),
        sums: PrecisionOfSums::Float32,
        batch: 1,
        device_memory: 8 << 30,
    };
    let networks = [network];
    mean_seconds(device, count, || {
        predict(&networks, image.view(), &options)?;
        Ok(())
    })
}

/// What nnU-Net computes in by default.
fn precision(device: Device) -> Precision {
    match device {
        Device::Cpu { .. } => Precision::Float32,
        Device::Cuda(_) => Precision::Float16,
    }
}

/// The mean time of `count` calls after one that nobody times.
fn mean_seconds(
    device: Device,
    count: u32,
    mut step: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    step()?;
    device.synchronize();
    let start = Instant::now();
    (0..count).try_for_each(|_| step())?;
    device.synchronize();
    Ok(start.elapsed().as_secs_f64() / f64::from(count))
}

fn noise(count: usize) -> Vec<f32> {
    let mut random = CounterRandom::new(3, [0, 0, 0]);
    (0..count).map(|_| random.normal() as f32).collect()
}
