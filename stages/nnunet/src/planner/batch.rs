//! How many samples go into a batch.

use super::settings::PlannerSettings;

/// What decided the size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decider {
    /// The budget of memory, or of voxels.
    Budget,
    /// The share of the dataset that a batch may see.
    Coverage,
    /// The smallest batch.
    Minimum,
    /// The largest batch.
    Maximum,
}

/// The size of a batch and what led to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    /// Samples.
    pub(super) size: usize,
    /// Samples that the budget allows.
    pub(super) affordable: usize,
    /// Samples with as many voxels as a batch may see of the dataset.
    pub(super) covering: usize,
    /// Which of the bounds the size is.
    pub(super) decider: Decider,
}

/// As many samples as the budget allows, within the share of the dataset and the smallest and largest batch.
///
/// `dataset_voxels` and `patch_voxels` are counts at the configuration's spacing. The share is rounded half to even, as
/// by all published versions of nnU-Net, so a batch can see a little more.
pub(super) fn batch(
    affordable: f64,
    dataset_voxels: f64,
    patch_voxels: f64,
    largest: Option<usize>,
    settings: &PlannerSettings,
) -> Batch {
    let affordable = affordable as usize;
    let covering = (dataset_voxels * settings.max_dataset_covered / patch_voxels).round_ties_even() as usize;
    let (mut size, mut decider) =
        if covering < affordable { (covering, Decider::Coverage) } else { (affordable, Decider::Budget) };
    if size < settings.min_batch_size {
        (size, decider) = (settings.min_batch_size, Decider::Minimum);
    }
    if let Some(largest) = largest.filter(|&largest| size > largest) {
        (size, decider) = (largest, Decider::Maximum);
    }
    Batch { size, affordable, covering, decider }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(affordable: f64, dataset_voxels: f64, largest: Option<usize>) -> (usize, Decider) {
        let batch = batch(affordable, dataset_voxels, 1000.0, largest, &PlannerSettings::default());
        (batch.size, batch.decider)
    }

    #[test]
    fn a_batch_sees_at_most_a_twentieth_of_the_dataset() {
        // 0.05 · 180 000 / 1000 = 9.
        assert_eq!(decide(46.0, 180_000.0, None), (9, Decider::Coverage));
    }

    #[test]
    fn half_a_sample_is_rounded_to_even() {
        assert_eq!(decide(46.0, 170_000.0, None).0, 8);
        assert_eq!(decide(46.0, 190_000.0, None).0, 10);
    }

    #[test]
    fn a_batch_has_at_least_two_samples() {
        assert_eq!(decide(46.0, 1000.0, None), (2, Decider::Minimum));
    }

    #[test]
    fn the_largest_batch_wins_over_the_smallest() {
        assert_eq!(decide(1.0, 1e9, Some(1)), (1, Decider::Maximum));
    }

    #[test]
    fn a_large_dataset_leaves_the_budget_to_decide() {
        assert_eq!(decide(46.0, 1e9, Some(50)), (46, Decider::Budget));
    }
}
