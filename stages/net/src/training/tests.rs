mod together;

use std::path::{Path, PathBuf};

use ndarray::Array4;
use nnflow_kernels::augment::{Augmentation, AugmentationSettings, DUMMY_2D_ABOVE, Dimension, Drawn, Sample};
use nnflow_kernels::random::CounterRandom;
use serde_json::json;

use super::*;
use crate::architecture::{Architecture, Description, NetworkKind, Pooling};
use crate::checkpoint::CheckpointError;
use crate::loss::Target;
use crate::testing::parameters;

const LEARNING_RATE: f64 = 0.01;

/// Voxels of a sample: as many as make a piece of their own.
const VOXELS: usize = 64 * 128;

fn architecture() -> Architecture {
    Architecture::try_from(Description {
        kind: NetworkKind::PlainConvUNet,
        input_channels: 1,
        outputs: 2,
        features_per_stage: vec![4, 6, 8],
        kernel_sizes: vec![vec![3; 2]; 3],
        strides: vec![vec![1; 2], vec![2; 2], vec![2; 2]],
        units_per_stage: vec![1; 3],
        convolutions_per_decoder_stage: vec![1; 2],
        convolution_bias: true,
        norm_epsilon: 1e-5,
        pooling: Pooling::StridedConvolution,
        deep_supervision: true,
    })
    .expect("a network")
}

fn options(batch_dice: bool) -> TrainingOptions {
    let loss = Loss::nnunet(Target::Labels { ignore: None }, batch_dice);
    TrainingOptions {
        loss,
        optimizer: OptimizerOptions::nnunet(),
        clip_norm: Some(12.0),
        precision: Precision::Float32,
    }
}

fn trainer(threads: usize, options: TrainingOptions) -> Trainer {
    let network = Network::new(&architecture(), 3, Device::Cpu { threads }).expect("it fits into memory");
    Trainer::new(network, options).expect("it fits into memory")
}

/// Samples of 64x128 voxels: a wave, and where it is above 0.
struct Samples {
    count: usize,
    image: Vec<f32>,
    labels: Vec<i16>,
}

impl Samples {
    fn new() -> Self {
        Self::of(3)
    }

    fn of(count: usize) -> Self {
        let wave = |index: usize| (index as f32 * 0.037).sin() + (index as f32 * 0.000_3).cos() * 0.3;
        let image: Vec<f32> = (0..count * VOXELS).map(wave).collect();
        let labels = image.iter().map(|&value| i16::from(value > 0.0)).collect();
        Self { count, image, labels }
    }

    fn batch(&self) -> Batch<'_> {
        self.part(0..self.count)
    }

    fn part(&self, samples: std::ops::Range<usize>) -> Batch<'_> {
        let voxels = samples.start * VOXELS..samples.end * VOXELS;
        let shape = vec![samples.len(), 1, 64, 128];
        Batch { shape, image: &self.image[voxels.clone()], labels: vec![&self.labels[voxels]] }
    }
}

fn weights(trainer: &Trainer) -> Vec<u32> {
    let values: Vec<f32> = Vec::try_from(trainer.network().buffer()).expect("floats on the CPU");
    values.into_iter().map(f32::to_bits).collect()
}

fn train(trainer: &mut Trainer, steps: usize) {
    let samples = Samples::new();
    for _ in 0..steps {
        trainer.step(&samples.batch(), LEARNING_RATE).expect("the batch fits");
    }
}

fn trained(threads: usize, steps: usize) -> Vec<u32> {
    let mut trainer = trainer(threads, options(true));
    train(&mut trainer, steps);
    weights(&trainer)
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let one = trained(1, 3);
    assert_eq!(one, trained(2, 3));
    assert_eq!(one, trained(5, 3));
}

/// The gradient of one batch: what a step of length 1 without momentum takes away.
fn gradient(precision: Precision) -> Tensor {
    let plain = OptimizerOptions::Sgd { momentum: 0.0, weight_decay: 0.0 };
    let mut trainer = trainer(1, TrainingOptions { optimizer: plain, clip_norm: None, precision, ..options(false) });
    let before = trainer.network().buffer().copy();
    trainer.step(&Samples::new().batch(), 1.0).expect("the batch fits");
    before - trainer.network().buffer()
}

/// bfloat16 has 8 bits, so that a product is off by 2^-9 of itself at most, 0.2 %; some dozen of them follow each other.
#[test]
fn a_gradient_in_bfloat16_is_that_in_32_bits_but_for_its_rounding() {
    let (exact, rounded) = (gradient(Precision::Float32), gradient(Precision::Bfloat16));
    let share = ((&rounded - &exact).norm() / exact.norm()).double_value(&[]);
    assert!(share > 1e-5 && share < 0.05, "{share}");
}

#[test]
fn weights_stay_in_32_bits() {
    let mut trainer = trainer(1, TrainingOptions { precision: Precision::Bfloat16, ..options(false) });
    train(&mut trainer, 1);
    assert_eq!(trainer.network().buffer().kind(), Kind::Float);
}

#[test]
fn the_scale_of_a_loss_survives_a_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("checkpoint");
    let half = || trainer(1, TrainingOptions { precision: Precision::Float16, ..options(false) });
    let (mut first, mut second) = (half(), half());
    let overflow = Tensor::from(false);
    first.loss_scale.as_mut().expect("16 bits need one").update(&overflow).expect("two numbers");
    first.checkpoint(&path, &json!({})).expect("the folder is there");
    second.resume(&path).expect("it was just written");
    let state = |trainer: &Trainer| trainer.loss_scale.as_ref().expect("16 bits need one").state().double_value(&[0]);
    assert_eq!((state(&first), state(&second)), (32768.0, 32768.0));
}

#[test]
fn a_step_against_an_overflow_changes_neither_weights_nor_momentum() {
    let mut trainer = trainer(1, TrainingOptions { precision: Precision::Float16, ..options(false) });
    let all = |trainer: &Trainer| {
        let state = trainer.optimizer.state().map(|(_, state)| state.copy());
        state.chain([trainer.network().buffer().copy()]).collect::<Vec<_>>()
    };
    let before = all(&trainer);
    let gradient = trained_part(trainer.network()).expect("the buffer is whole").full_like(f64::INFINITY);
    trainer.descend(gradient, 0.1).expect("a gradient of this length");
    assert_eq!(all(&trainer), before);
}

#[test]
fn the_pieces_of_a_batch_give_the_gradient_of_the_whole() {
    for batch_dice in [false, true] {
        let samples = Samples::new();
        let mut options = options(batch_dice);
        options.optimizer = OptimizerOptions::Sgd { momentum: 0.0, weight_decay: 0.0 };
        options.clip_norm = None;
        let mut trainer = trainer(2, options.clone());
        let before = trainer.network().buffer().copy();
        trainer.step(&samples.batch(), 1.0).expect("the batch fits");

        let network = Network::new(&architecture(), 3, Device::Cpu { threads: 1 }).expect("it fits into memory");
        let image = Tensor::from_slice(&samples.image).view([3, 1, 64, 128]);
        let labels = Tensor::from_slice(&samples.labels).view([3, 1, 64, 128]).to_kind(Kind::Int64);
        let parameters = parameters(&network);
        let outputs = network.topology().forward(&parameters, &image, 1).expect("the shapes fit");
        let sums = options.loss.sums(&outputs[0], &labels).expect("the shapes fit");
        let loss = options.loss.of_sums(&sums).expect("the shapes fit");
        let used = &parameters[..network.topology().n_used(1)];
        let gradients = Tensor::run_backward(&[loss], used, false, false);
        let gradient = network.layout().gather(&gradients).expect("all on the CPU");

        let length = gradient.numel() as i64;
        let step = before.narrow(0, 0, length) - trainer.network().buffer().narrow(0, 0, length);
        let deviation = (step - &gradient).abs().max().double_value(&[]);
        assert!(deviation < 1e-5 * gradient.abs().max().double_value(&[]), "{deviation:e}");
    }
}

#[test]
fn training_learns_what_can_be_learnt() {
    let samples = Samples::new();
    let mut trainer = trainer(2, options(false));
    let first = trainer.step(&samples.batch(), LEARNING_RATE).expect("the batch fits").read().expect("on the CPU");
    train(&mut trainer, 30);
    let mut running = RunningEvaluation::default();
    running.add(&trainer.evaluate(&samples.batch()).expect("the batch fits")).expect("on the CPU");
    let last = running.mean_loss().expect("on the CPU").expect("one batch");
    let dice = running.counts().expect("on the CPU")[0].dice().expect("the class is there");
    assert!(last < first - 0.5 && dice > 0.9, "loss {first} to {last}, dice {dice}");
}

#[test]
fn validation_has_the_loss_of_the_next_step() {
    let samples = Samples::new();
    let mut trainer = trainer(1, options(true));
    let evaluation = trainer.evaluate(&samples.batch()).expect("the batch fits");
    let step = trainer.step(&samples.batch(), LEARNING_RATE).expect("the batch fits");
    assert_eq!(evaluation.loss.read().expect("on the CPU"), step.read().expect("on the CPU"));
}

#[test]
fn counts_cover_every_voxel_of_the_class() {
    let samples = Samples::new();
    let mut running = RunningEvaluation::default();
    let evaluation = trainer(2, options(true)).evaluate(&samples.batch()).expect("the batch fits");
    running.add(&evaluation).expect("on the CPU");
    running.add(&evaluation).expect("on the CPU");
    let counts = running.counts().expect("on the CPU")[0];
    let voxels = 2 * samples.labels.iter().filter(|&&label| label == 1).count() as u64;
    assert_eq!(counts.true_positive + counts.false_negative, voxels);
}

#[test]
fn a_head_without_weight_is_left_alone() {
    let mut trainer = trainer(1, options(true));
    let start = trainer.network().layout().len_of_first(trainer.network().topology().n_used(1));
    let before = weights(&trainer)[start..].to_vec();
    assert!(!before.is_empty());
    train(&mut trainer, 2);
    assert_eq!(weights(&trainer)[start..], before);
}

#[test]
fn a_loss_of_other_regions_than_the_network_has_is_refused() {
    let target = Target::Regions { regions: vec![vec![1]], ignore: None };
    let network = Network::new(&architecture(), 3, Device::Cpu { threads: 1 }).expect("it fits into memory");
    let options = TrainingOptions { loss: Loss::nnunet(target, true), ..options(true) };
    let error = Trainer::new(network, options).expect_err("one region, two outputs").to_string();
    assert_eq!(error, "the network has 2 outputs, expected 1, one a region");
}

#[test]
fn regions_are_learnt_from_labels() {
    let target = Target::Regions { regions: vec![vec![1], vec![0, 1]], ignore: Some(2) };
    let options = TrainingOptions { loss: Loss::nnunet(target, true), ..options(true) };
    let mut trainer = trainer(2, options);
    train(&mut trainer, 20);
    let mut running = RunningEvaluation::default();
    running.add(&trainer.evaluate(&Samples::new().batch()).expect("the batch fits")).expect("on the CPU");
    let dice: Vec<_> = running.counts().expect("on the CPU").iter().filter_map(ClassCounts::dice).collect();
    assert!(dice.len() == 2 && dice.iter().all(|&dice| dice > 0.9), "{dice:?}");
}

struct Folder {
    _guard: tempfile::TempDir,
    checkpoint: PathBuf,
}

fn folder() -> Folder {
    let guard = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = guard.path().join("checkpoint.safetensors");
    Folder { _guard: guard, checkpoint }
}

fn resume_error(path: &Path, options: TrainingOptions) -> CheckpointError {
    trainer(1, options).resume(path).expect_err("the file is of another training")
}

#[test]
fn a_resumed_training_is_the_same_to_the_bit() {
    let adam = OptimizerOptions::Adam { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 3e-5, amsgrad: true };
    for optimizer in [OptimizerOptions::nnunet(), adam] {
        let options = TrainingOptions { optimizer, ..options(true) };
        let mut straight = trainer(1, options.clone());
        train(&mut straight, 4);
        let mut stopped = trainer(2, options.clone());
        train(&mut stopped, 2);
        let folder = folder();
        stopped.checkpoint(&folder.checkpoint, &json!({"epoch": 7})).expect("the folder is there");
        let mut resumed = trainer(1, options);
        assert_eq!(resumed.resume(&folder.checkpoint).expect("it was just written"), json!({"epoch": 7}));
        train(&mut resumed, 2);
        assert_eq!((weights(&resumed), resumed.steps()), (weights(&straight), 4));
    }
}

#[test]
fn a_checkpoint_of_another_optimiser_is_refused() {
    let folder = folder();
    trainer(1, options(true)).checkpoint(&folder.checkpoint, &json!(null)).expect("the folder is there");
    let optimizer = OptimizerOptions::Adam { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.0, amsgrad: false };
    let error = resume_error(&folder.checkpoint, TrainingOptions { optimizer, ..options(true) });
    assert!(matches!(error, CheckpointError::Missing { .. }), "{error}");
}

#[test]
fn a_file_of_weights_is_no_checkpoint() {
    let folder = folder();
    trainer(1, options(true)).network().save(&folder.checkpoint).expect("the folder is there");
    let error = resume_error(&folder.checkpoint, options(true));
    assert!(error.to_string().contains("it may be a file of weights only"), "{error}");
}

#[test]
fn a_refused_checkpoint_leaves_the_training_as_it_was() {
    let folder = folder();
    let mut trainer = trainer(1, options(true));
    train(&mut trainer, 1);
    let before = weights(&trainer);
    std::fs::write(&folder.checkpoint, b"not a checkpoint").expect("the folder is there");
    assert!(trainer.resume(&folder.checkpoint).is_err());
    assert_eq!(weights(&trainer), before);
}

#[test]
fn a_diverged_training_is_not_written() {
    let samples = Samples::new();
    let mut trainer = trainer(1, options(true));
    trainer.step(&samples.batch(), f64::INFINITY).expect("the step itself can be made");
    let folder = folder();
    let error = trainer.checkpoint(&folder.checkpoint, &json!(null)).expect_err("weights are infinite");
    assert!(matches!(error, CheckpointError::NotFinite { .. }), "{error}");
    assert!(!folder.checkpoint.exists());
}

fn step_error(change: impl Fn(&mut Batch<'_>)) -> String {
    let samples = Samples::new();
    let mut batch = samples.batch();
    change(&mut batch);
    trainer(1, options(true)).step(&batch, LEARNING_RATE).expect_err("the batch is wrong").to_string()
}

#[test]
fn a_patch_that_cannot_be_halved_often_enough_is_refused() {
    let error = step_error(|batch| batch.shape = vec![3, 1, 66, 128]);
    assert_eq!(error, "batch of shape `[3, 1, 66, 128]` does not fit the network, expected `[samples, 1, n·4, n·4]`");
}

#[test]
fn an_image_of_another_size_is_refused() {
    assert_eq!(
        step_error(|batch| batch.image = &batch.image[1..]),
        "the image of the batch has 24575 values, expected 24576"
    );
}

#[test]
fn labels_of_another_size_are_refused() {
    let error = step_error(|batch| batch.labels[0] = &batch.labels[0][1..]);
    assert_eq!(error, "the labels of output 0 of the batch has 24575 values, expected 24576");
}

#[test]
fn a_label_without_an_output_is_refused() {
    let labels = vec![2_i16; 3 * 64 * 128];
    let samples = Samples::new();
    let batch = Batch { labels: vec![&labels], ..samples.batch() };
    let error = trainer(1, options(true)).step(&batch, LEARNING_RATE).expect_err("there is no label 2").to_string();
    assert_eq!(error, "the labels of output 0 contain `2`, expected 0 to 1 or the label to ignore");
}

/// The samples of [`Samples`], still to be augmented; `draws` says whether anything is drawn for them.
fn pending(draws: bool) -> Vec<PendingSample> {
    let (samples, patch) = (Samples::new(), [1, 64, 128]);
    let settings = AugmentationSettings::nnunet_v2(Dimension::Two, patch, DUMMY_2D_ABOVE);
    let augmentation = Augmentation::new(settings).expect("nnU-Net's own");
    let part = |index: usize| index * 64 * 128..(index + 1) * 64 * 128;
    let sample = |index: usize| {
        let shape = (1, 1, 64, 128);
        let image = Array4::from_shape_vec(shape, samples.image[part(index)].to_vec()).expect("one sample");
        let labels = Array4::from_shape_vec(shape, samples.labels[part(index)].to_vec()).expect("one sample");
        let random = CounterRandom::new(1, [0, index as u32, 0]);
        let drawn = if draws { augmentation.draw(&random, 1) } else { Drawn::default() };
        augmentation.defer(drawn, Sample { image, labels }, patch).expect("the sample fits")
    };
    (0..3).map(sample).collect()
}

fn augmenter() -> Augmenter {
    let patch = [1, 64, 128];
    let settings = AugmentationSettings::nnunet_v2(Dimension::Two, patch, DUMMY_2D_ABOVE);
    Augmenter::new(settings, patch, true, vec![[1.0; 3]])
}

#[test]
fn a_step_on_samples_that_nothing_was_drawn_for_is_that_on_the_batch() {
    let mut trainer = trainer(1, options(true));
    trainer.step_augmented(&pending(false), &augmenter(), LEARNING_RATE).expect("the samples fit");
    assert_eq!(weights(&trainer), trained(1, 1));
}

#[test]
fn the_number_of_threads_changes_no_bit_where_the_device_augments() {
    let trained = |threads: usize| {
        let mut trainer = trainer(threads, options(true));
        for _ in 0..2 {
            trainer.step_augmented(&pending(true), &augmenter(), LEARNING_RATE).expect("the samples fit");
        }
        weights(&trainer)
    };
    let one = trained(1);
    assert_eq!(one, trained(2));
    assert_eq!(one, trained(5));
}

#[test]
fn a_label_without_an_output_is_refused_before_it_is_augmented() {
    let mut samples = pending(false);
    samples[1].labels[[0, 0, 3, 4]] = 2;
    let mut trainer = trainer(1, options(true));
    let error = trainer.step_augmented(&samples, &augmenter(), LEARNING_RATE).expect_err("there is no label 2");
    assert_eq!(error.to_string(), "the labels of output 0 contain `2`, expected 0 to 1 or the label to ignore");
}

#[test]
fn no_sample_is_no_batch() {
    let error = trainer(1, options(true)).step_augmented(&[], &augmenter(), LEARNING_RATE).expect_err("nothing to do");
    assert!(error.to_string().starts_with("batch of shape `[0, 0, 64, 128]` does not fit"), "{error}");
}
