//! Several processes make the steps of one: here each is a thread; `tests/it/together.rs` does it with processes.

use super::*;
use crate::collective::Collective;
use crate::testing::on_ranks;

const CPU: Device = Device::Cpu { threads: 1 };

/// What each of so many processes makes of a training on batches of so many samples.
fn on_processes<R: Send>(
    ranks: usize,
    samples: usize,
    options: &TrainingOptions,
    work: impl Fn(&mut Trainer) -> R + Sync,
) -> Vec<R> {
    on_ranks(ranks, |exchange| {
        let collective = Collective::among(exchange, CPU).expect("a CPU needs no NCCL");
        work(&mut trainer(1, options.clone()).together(collective, samples))
    })
}

/// The part of a batch that a process gets.
fn share<'a>(trainer: &Trainer, samples: &'a Samples) -> Batch<'a> {
    let collective = trainer.collective();
    samples.part(Division::new(CPU, samples.count, VOXELS).share(collective.rank(), collective.ranks()))
}

fn steps(trainer: &mut Trainer, samples: &Samples, count: usize) {
    for _ in 0..count {
        trainer.step(&share(trainer, samples), LEARNING_RATE).expect("the share fits");
    }
}

/// The weights of one process after steps with whole batches.
fn alone(samples: usize, options: &TrainingOptions, count: usize) -> Vec<u32> {
    let mut trainer = trainer(1, options.clone());
    steps(&mut trainer, &Samples::of(samples), count);
    weights(&trainer)
}

/// The step of length 1 without momentum is the gradient. Three processes have 2, 2 and 1 of 5 samples.
#[test]
fn the_gradient_of_all_processes_is_that_of_one_with_the_whole_batch() {
    for batch_dice in [false, true] {
        let optimizer = OptimizerOptions::Sgd { momentum: 0.0, weight_decay: 0.0 };
        let options = TrainingOptions { optimizer, clip_norm: None, ..options(batch_dice) };
        for samples in [3, 4, 5] {
            let expected = alone(samples, &options, 1);
            for ranks in [2, 3] {
                let found = on_processes(ranks, samples, &options, |trainer| {
                    steps(trainer, &Samples::of(samples), 1);
                    weights(trainer)
                });
                assert!(found.iter().all(|found| *found == expected), "{samples} samples on {ranks} processes");
            }
        }
    }
}

#[test]
fn the_weights_of_all_processes_are_those_of_one_to_the_bit() {
    let adam = OptimizerOptions::Adam { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 3e-5, amsgrad: true };
    for optimizer in [OptimizerOptions::nnunet(), adam] {
        let options = TrainingOptions { optimizer, ..options(true) };
        let found = on_processes(3, 4, &options, |trainer| {
            steps(trainer, &Samples::of(4), 5);
            weights(trainer)
        });
        assert_eq!(found, vec![alone(4, &options, 5); 3]);
    }
}

#[test]
fn regions_with_voxels_to_ignore_are_trained_on_as_by_one_process() {
    let target = Target::Regions { regions: vec![vec![1], vec![0, 1]], ignore: Some(2) };
    let options = TrainingOptions { loss: Loss::nnunet(target, true), ..options(true) };
    let mut samples = Samples::of(3);
    // One process has half of its voxels ignored, the other none, so that the mean over voxels is of unequal parts.
    samples.labels[..VOXELS / 2].fill(2);
    let mut one = trainer(1, options.clone());
    steps(&mut one, &samples, 2);
    let found = on_processes(2, 3, &options, |trainer| {
        steps(trainer, &samples, 2);
        weights(trainer)
    });
    assert_eq!(found, vec![weights(&one); 2]);
}

#[test]
fn validation_goes_over_the_samples_of_all_processes() {
    let samples = Samples::of(5);
    let evaluated = |trainer: &Trainer| {
        let mut running = RunningEvaluation::default();
        running.add(&trainer.evaluate(&share(trainer, &samples)).expect("the share fits")).expect("on the CPU");
        (running.mean_loss().expect("on the CPU"), running.counts().expect("on the CPU"))
    };
    let options = options(true);
    let expected = evaluated(&trainer(1, options.clone()));
    assert_eq!(on_processes(3, 5, &options, |trainer| evaluated(trainer)), vec![expected; 3]);
}

#[test]
fn every_process_has_the_loss_of_the_whole_batch() {
    let options = options(true);
    let expected = trainer(1, options.clone()).step(&Samples::of(3).batch(), LEARNING_RATE).expect("it fits");
    let found = on_processes(2, 3, &options, |trainer| {
        let loss = trainer.step(&share(trainer, &Samples::of(3)), LEARNING_RATE).expect("the share fits");
        loss.read().expect("on the CPU")
    });
    assert_eq!(found, vec![expected.read().expect("on the CPU"); 2]);
}

#[test]
fn an_overflow_in_one_process_is_one_for_all() {
    let options = TrainingOptions { precision: Precision::Float16, ..options(false) };
    let untouched = weights(&trainer(1, options.clone()));
    let found = on_processes(2, 3, &options, |trainer| {
        let value = if trainer.collective().rank() == 1 { f64::INFINITY } else { 1.0 };
        let gradient = trained_part(trainer.network()).expect("the buffer is whole").full_like(value);
        let gradient = trainer.collective.sum(vec![gradient]).expect("both are there");
        trainer.descend(gradient, 0.1).expect("a gradient of this length");
        let scale = trainer.loss_scale.as_ref().expect("16 bits need one").state().double_value(&[0]);
        (weights(trainer), scale)
    });
    assert_eq!(found, vec![(untouched, 32768.0); 2]);
}

#[test]
fn a_training_goes_on_with_another_number_of_processes() {
    let options = options(true);
    let expected = alone(4, &options, 4);
    for (before, after) in [(2, 2), (2, 1), (1, 3), (3, 2)] {
        let folder = folder();
        on_processes(before, 4, &options, |trainer| {
            steps(trainer, &Samples::of(4), 2);
            if trainer.collective().is_first() {
                trainer.checkpoint(&folder.checkpoint, &json!({})).expect("the folder is there");
            }
        });
        let found = on_processes(after, 4, &options, |trainer| {
            // What they have learnt before does not count.
            steps(trainer, &Samples::of(4), 1);
            if trainer.collective().is_first() {
                trainer.resume(&folder.checkpoint).expect("it was just written");
            }
            trainer.align().expect("all are there");
            steps(trainer, &Samples::of(4), 2);
            (weights(trainer), trainer.steps())
        });
        assert_eq!(found, vec![(expected.clone(), 4); after], "from {before} to {after} processes");
    }
}

#[test]
fn a_share_of_another_size_is_refused() {
    let errors = on_processes(2, 3, &options(true), |trainer| {
        trainer.step(&Samples::of(3).batch(), LEARNING_RATE).expect_err("the whole batch").to_string()
    });
    assert_eq!(errors[0], "the batch has 3 samples, expected 1, which are the share of this process");
}
