//! Batches, made ahead of the device so that it does not wait, and handed over in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nnflow_kernels::augment::{AugmentError, Augmentation, Drawn, PendingSample, Sample, deep_supervision_targets};
use nnflow_kernels::random::CounterRandom;
use nnflow_stage::StageError;

use super::patches::{Patches, is_on_foreground};

/// Streams of random numbers that never meet: one for training samples, one for validation samples.
const TRAINING_STREAM: u32 = 0;
const VALIDATION_STREAM: u32 = 1;

/// What a network learns from in one step; all in C order.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedBatch {
    /// Extents of the image: `[sample, channel, (z,) y, x]`.
    pub shape: Vec<usize>,
    /// The voxels of the image.
    pub image: Vec<f32>,
    /// The labels for each supervised output, from the full resolution down.
    pub labels: Vec<Vec<i16>>,
}

/// How batches are made.
#[derive(Debug)]
pub struct BatchMaker<'a> {
    /// Cases to train on.
    pub training: &'a Patches,
    /// Cases to validate on.
    pub validation: &'a Patches,
    /// The augmentation of training samples.
    pub augmentation: &'a Augmentation,
    /// The shape that the network sees.
    pub patch: [usize; 3],
    /// Whether the network sees slices.
    pub is_2d: bool,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Those of them that are made here; others make the rest. A sample does not depend on who makes it.
    pub share: Range<usize>,
    /// The share of samples that are centred on foreground.
    pub oversample_foreground: f64,
    /// The scale of each supervised output.
    pub scales: Vec<[f64; 3]>,
    /// The workflow's seed.
    pub seed: u64,
}

impl BatchMaker<'_> {
    /// A training batch of an epoch: augmented.
    ///
    /// # Errors
    /// If a case's file is damaged.
    pub fn training_batch(&self, epoch: u32, batch: usize) -> Result<LoadedBatch, StageError> {
        self.batch(|index| {
            let (drawn, sample) = self.drawn_sample(epoch, batch, index)?;
            self.augmentation.apply(&drawn, sample, self.patch).map_err(refused)
        })
    }

    /// The samples of a training batch of an epoch, for another device to augment: the same as in
    /// [`training_batch`](Self::training_batch).
    ///
    /// # Errors
    /// If a case's file is damaged.
    pub fn training_samples(&self, epoch: u32, batch: usize) -> Result<Vec<PendingSample>, StageError> {
        let sample = |index| {
            let (drawn, sample) = self.drawn_sample(epoch, batch, index)?;
            self.augmentation.defer(drawn, sample, self.patch).map_err(refused)
        };
        self.share.clone().map(sample).collect()
    }

    /// A sample as it was read, and what is to be done to it.
    fn drawn_sample(&self, epoch: u32, batch: usize, index: usize) -> Result<(Drawn, Sample), StageError> {
        let mut random = self.stream(epoch, batch, index, TRAINING_STREAM);
        let place = self.training.place(&mut random, self.on_foreground(index));
        let drawn = self.augmentation.draw(&random.fork(1), place.channels());
        // Most samples are neither rotated nor scaled, and need no more than what the network sees.
        let sample = place.read(drawn.window(place.shape(), self.patch))?;
        Ok((drawn, sample))
    }

    /// A validation batch of an epoch: as it is.
    ///
    /// # Errors
    /// If a case's file is damaged.
    pub fn validation_batch(&self, epoch: u32, batch: usize) -> Result<LoadedBatch, StageError> {
        self.batch(|index| {
            let mut random = self.stream(epoch, batch, index, VALIDATION_STREAM);
            let place = self.validation.place(&mut random, self.on_foreground(index));
            let sample = place.read(place.shape())?;
            self.augmentation.prepare_validation(sample).map_err(refused)
        })
    }

    fn on_foreground(&self, index: usize) -> bool {
        is_on_foreground(index, self.batch_size, self.oversample_foreground)
    }

    fn stream(&self, epoch: u32, batch: usize, index: usize, stream: u32) -> CounterRandom {
        let sample = u32::try_from(batch * self.batch_size + index).unwrap_or(u32::MAX);
        CounterRandom::new(self.seed, [epoch, sample, stream])
    }

    fn batch(&self, sample: impl Fn(usize) -> Result<Sample, StageError>) -> Result<LoadedBatch, StageError> {
        let [z, y, x] = self.patch;
        let mut image = Vec::new();
        let mut labels = vec![Vec::new(); self.scales.len()];
        let mut channels = 0;
        for index in self.share.clone() {
            let sample = sample(index)?;
            channels = sample.image.shape()[0];
            image.extend(sample.image.iter());
            let targets = deep_supervision_targets(sample.labels.view(), &self.scales);
            for (labels, target) in labels.iter_mut().zip(targets) {
                labels.extend(target.iter());
            }
        }
        let mut shape = vec![self.share.len(), channels, z, y, x];
        if self.is_2d {
            shape.remove(2);
        }
        Ok(LoadedBatch { shape, image, labels })
    }
}

fn refused(error: AugmentError) -> StageError {
    StageError::internal(error.to_string())
}

/// What the threads share.
struct Shelf<B> {
    made: BTreeMap<usize, Result<B, StageError>>,
    next_to_make: usize,
    taken: usize,
    stopped: bool,
}

/// Makes `count` things in `threads` threads, at most `ahead` before they are needed, and hands them over in order.
///
/// `take` gets each thing with the time that was spent waiting for it. What is made does not depend on the threads, as long
/// as `make` depends on its argument alone.
///
/// # Errors
/// The first error of `make` or `take`, in the order of the things.
pub fn in_order<B: Send>(
    count: usize,
    threads: usize,
    ahead: usize,
    make: &(dyn Fn(usize) -> Result<B, StageError> + Sync),
    mut take: impl FnMut(usize, B, Duration) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let shelf = Mutex::new(Shelf { made: BTreeMap::new(), next_to_make: 0, taken: 0, stopped: false });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| work(&shelf, &changed, count, ahead.max(1), make));
        }
        let result = (0..count).try_for_each(|index| {
            let start = Instant::now();
            let thing = fetch(&shelf, &changed, index)?;
            take(index, thing, start.elapsed())
        });
        lock(&shelf).stopped = true;
        changed.notify_all();
        result
    })
}

fn work<B>(
    shelf: &Mutex<Shelf<B>>,
    changed: &Condvar,
    count: usize,
    ahead: usize,
    make: &(dyn Fn(usize) -> Result<B, StageError> + Sync),
) {
    loop {
        let mut held = lock(shelf);
        while !held.stopped && held.next_to_make < count && held.next_to_make >= held.taken + ahead {
            held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        if held.stopped || held.next_to_make >= count {
            return;
        }
        let index = held.next_to_make;
        held.next_to_make += 1;
        drop(held);
        let thing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| make(index))).unwrap_or_else(|_| {
            Err(StageError::internal(format!("batch {index} could not be made: a thread panicked")))
        });
        lock(shelf).made.insert(index, thing);
        changed.notify_all();
    }
}

fn fetch<B>(shelf: &Mutex<Shelf<B>>, changed: &Condvar, index: usize) -> Result<B, StageError> {
    let mut held = lock(shelf);
    loop {
        if let Some(thing) = held.made.remove(&index) {
            held.taken = index + 1;
            changed.notify_all();
            return thing;
        }
        held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(threads: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        in_order(50, threads, 3, &|index| Ok(index * index), |_, thing, _| {
            taken.push(thing);
            Ok(())
        })
        .expect("nothing fails");
        taken
    }

    #[test]
    fn things_arrive_in_order_whatever_the_number_of_threads() {
        let expected: Vec<usize> = (0..50).map(|index| index * index).collect();
        assert_eq!((collect(1), collect(4)), (expected.clone(), expected));
    }

    #[test]
    fn an_error_arrives_in_its_turn() {
        let make = |index| if index == 3 { Err(StageError::input("three")) } else { Ok(index) };
        let mut taken = Vec::new();
        let result = in_order(10, 2, 8, &make, |index, _, _| {
            taken.push(index);
            Ok(())
        });
        assert_eq!((taken, result.expect_err("three fails").to_string()), (vec![0, 1, 2], "three".to_owned()));
    }

    #[test]
    fn a_panic_is_an_error() {
        let result = in_order::<usize>(2, 1, 1, &|_| panic!("for the test"), |_, _, _| Ok(()));
        assert!(result.is_err());
    }

    #[test]
    fn an_error_of_the_taker_ends_the_threads() {
        let result = in_order(1000, 2, 4, &Ok, |_, _, _| Err(StageError::interrupted()));
        assert_eq!(result.expect_err("stopped").kind(), nnflow_stage::ErrorKind::Interrupted);
    }
}
