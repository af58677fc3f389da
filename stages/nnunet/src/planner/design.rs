//! What a method works out for one configuration.

use super::PlannerError;
use super::batch::Batch;
use super::patch::Fit;
use super::reasons::extents;

/// The grid of a configuration; two or three axes in the plan's order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    /// Spacing in millimetres.
    pub(super) spacing: Vec<f64>,
    /// Median shape of the resampled cases in voxels.
    pub(super) median: Vec<f64>,
    /// Voxels of the median case times the number of cases, what a batch is measured by.
    pub(super) dataset_voxels: f64,
}

impl Grid {
    /// Number of axes: 2 or 3.
    pub(super) fn rank(&self) -> usize {
        self.spacing.len()
    }

    /// Checks that the median case has a voxel on each axis.
    ///
    /// # Errors
    /// [`PlannerError::Vanished`].
    pub(super) fn check(&self, configuration: &str) -> Result<(), PlannerError> {
        if !self.median.contains(&0.0) {
            return Ok(());
        }
        Err(PlannerError::Vanished {
            configuration: configuration.to_owned(),
            spacing: self.spacing.clone(),
            shape: self.median.clone(),
        })
    }
}

/// A configuration before it is written down.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Design {
    /// The grid.
    pub(super) grid: Grid,
    /// Patch and topology.
    pub(super) fit: Fit,
    /// The batch.
    pub(super) batch: Batch,
    /// Why the patch is as large as it is.
    pub(super) why_patch: String,
    /// What the budget for the batch is.
    pub(super) why_budget: String,
}

impl Design {
    /// Number of voxels in the patch.
    pub(super) fn patch_voxels(&self) -> f64 {
        self.fit.topology.voxels()
    }
}

/// What padding and shrinking did to a patch, for a sentence.
pub(super) fn padded_and_shrunk(fit: &Fit) -> String {
    let padded = format!("padded to {} for the poolings", extents(&fit.first));
    match fit.steps {
        0 => padded,
        1 => format!("{padded} and shrunk in one step on the axis that is longest relative to the median"),
        steps => {
            format!("{padded} and shrunk in {steps} steps, each on the axis that is longest relative to the median")
        }
    }
}

/// A low resolution, or why there is none.
pub(super) enum LowResolution {
    /// There is one, for this reason.
    Planned(Box<Design>, String),
    /// There is none, for this reason.
    Omitted(String),
}

/// Grows the spacing of the axes that are much finer than the coarsest one; of all axes where none is.
pub(super) fn coarsen(spacing: &mut [f64], factor: f64, is_much_finer: impl Fn(f64) -> bool) {
    let coarsest = spacing.iter().copied().fold(0.0, f64::max);
    let finer: Vec<bool> = spacing.iter().map(|&distance| is_much_finer(coarsest / distance)).collect();
    let all = !finer.contains(&true);
    for (distance, finer) in spacing.iter_mut().zip(finer) {
        if all || finer {
            *distance *= factor;
        }
    }
}

/// The shape that a case of `median` voxels at `full` spacing has at `low` spacing, in voxels, not rounded.
pub(super) fn resized(full: &[f64], low: &[f64], median: &[f64]) -> Vec<f64> {
    full.iter().zip(low).zip(median).map(|((full, low), median)| full / low * median).collect()
}

/// Whole voxels, half to even.
pub(super) fn whole_voxels(shape: &[f64]) -> Vec<f64> {
    shape.iter().map(|extent| extent.round_ties_even()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_finer_axes_grow_alone() {
        let mut spacing = [2.5, 0.8, 0.8];
        coarsen(&mut spacing, 2.0, |ratio| ratio >= 2.0);
        assert_eq!(spacing, [2.5, 1.6, 1.6]);
    }

    #[test]
    fn similar_axes_grow_together() {
        let mut spacing = [2.5, 1.6, 1.6];
        coarsen(&mut spacing, 2.0, |ratio| ratio >= 2.0);
        assert_eq!(spacing, [5.0, 3.2, 3.2]);
    }
}
