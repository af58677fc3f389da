//! Losses and counts that stay on the device until they are read.

use tch::Tensor;

use crate::error::{TorchError, done};

/// The loss of a batch.
#[derive(Debug)]
pub struct BatchLoss(pub(super) Tensor);

/// What a batch of validation gives.
#[derive(Debug)]
pub struct Evaluation {
    /// Its loss.
    pub loss: BatchLoss,
    /// `[3, class]`: true positives, false positives, false negatives.
    pub(super) counts: Tensor,
}

/// How often a class was found rightly, found wrongly and missed, in voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassCounts {
    /// Voxels that are of the class and were found.
    pub true_positive: u64,
    /// Voxels that were found and are not of the class.
    pub false_positive: u64,
    /// Voxels that are of the class and were not found.
    pub false_negative: u64,
}

/// The mean loss of several batches.
#[derive(Debug, Default)]
pub struct RunningLoss {
    sum: Option<Tensor>,
    batches: u32,
}

/// The mean loss and the summed counts of several batches.
#[derive(Debug, Default)]
pub struct RunningEvaluation {
    loss: RunningLoss,
    counts: Option<Tensor>,
}

impl BatchLoss {
    /// Reads the loss; waits until the device has computed it.
    ///
    /// # Errors
    /// [`TorchError`] where the device failed meanwhile.
    pub fn read(&self) -> Result<f64, TorchError> {
        Ok(self.0.f_double_value(&[])?)
    }
}

impl ClassCounts {
    /// `2 TP / (2 TP + FP + FN)`; none where the class is neither there nor found.
    #[must_use]
    pub fn dice(&self) -> Option<f64> {
        let both = 2 * self.true_positive;
        let all = both + self.false_positive + self.false_negative;
        (all > 0).then(|| both as f64 / all as f64)
    }
}

impl RunningLoss {
    /// Adds the loss of a batch.
    ///
    /// # Errors
    /// [`TorchError`] where the device failed.
    pub fn add(&mut self, loss: &BatchLoss) -> Result<(), TorchError> {
        add(&mut self.sum, &loss.0)?;
        self.batches += 1;
        Ok(())
    }

    /// Reads the mean; none before the first batch.
    ///
    /// # Errors
    /// [`TorchError`] where the device failed meanwhile.
    pub fn mean(&self) -> Result<Option<f64>, TorchError> {
        let Some(sum) = &self.sum else { return Ok(None) };
        Ok(Some(sum.f_double_value(&[])? / f64::from(self.batches)))
    }
}

impl RunningEvaluation {
    /// Adds what a batch gave.
    ///
    /// # Errors
    /// [`TorchError`] where the device failed.
    pub fn add(&mut self, evaluation: &Evaluation) -> Result<(), TorchError> {
        self.loss.add(&evaluation.loss)?;
        add(&mut self.counts, &evaluation.counts)
    }

    /// Reads the mean loss; none before the first batch.
    ///
    /// # Errors
    /// [`TorchError`] where the device failed meanwhile.
    pub fn mean_loss(&self) -> Result<Option<f64>, TorchError> {
        self.loss.mean()
    }

    /// Reads the counts of each foreground class, or of each region.
    ///
    /// # Errors
    /// [`TorchError`] where the device failed meanwhile.
    pub fn counts(&self) -> Result<Vec<ClassCounts>, TorchError> {
        let Some(counts) = &self.counts else { return Ok(Vec::new()) };
        let classes = counts.size()[1];
        let count = |row: i64, class: i64| -> Result<u64, TorchError> {
            Ok(u64::try_from(counts.f_int64_value(&[row, class])?).unwrap_or(0))
        };
        let class = |class| {
            Ok(ClassCounts {
                true_positive: count(0, class)?,
                false_positive: count(1, class)?,
                false_negative: count(2, class)?,
            })
        };
        (0..classes).map(class).collect()
    }
}

fn add(sum: &mut Option<Tensor>, term: &Tensor) -> Result<(), TorchError> {
    let sum = match sum {
        Some(sum) => sum,
        None => sum.insert(term.f_zeros_like()?),
    };
    done(sum.f_add_(term))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(true_positive: u64, false_positive: u64, false_negative: u64) -> ClassCounts {
        ClassCounts { true_positive, false_positive, false_negative }
    }

    #[test]
    fn dice_is_twice_the_overlap_over_both_volumes() {
        assert_eq!(counts(3, 1, 1).dice(), Some(0.75));
        assert_eq!(counts(0, 2, 0).dice(), Some(0.0));
    }

    #[test]
    fn a_class_that_is_nowhere_has_no_dice() {
        assert_eq!(counts(0, 0, 0).dice(), None);
    }

    #[test]
    fn the_running_loss_is_the_mean() {
        let mut running = RunningLoss::default();
        for loss in [1.0_f32, 2.0, 6.0] {
            running.add(&BatchLoss(Tensor::from(loss))).expect("on the CPU");
        }
        assert_eq!(running.mean().expect("on the CPU"), Some(3.0));
    }

    #[test]
    fn no_batch_has_no_mean() {
        assert_eq!(RunningLoss::default().mean().expect("nothing to read"), None);
    }
}
