//! The rules of the method of 2018: the median shape within a number of voxels.
//!
//! The paper (Isensee et al., arXiv 1809.10486, section 2) starts from a patch and a batch that are known to work, 128³
//! voxels with 2 samples or 256² pixels with 42, and keeps the number of voxels while it adapts the shape. What it
//! leaves open follows nnU-Net's first public code: axes that are pooled less often are pooled late, shares are
//! rounded.

use super::batch::batch;
use super::design::{Design, Grid, LowResolution, coarsen, padded_and_shrunk, resized, whole_voxels};
use super::facts::Facts;
use super::patch::shrink;
use super::reasons::{extents, large, millimetres};
use super::settings::PlannerSettings;
use super::topology::Topology;
use super::v2::limited;
use super::{PlannerError, pooling_limits};

/// Patch, topology and batch for a grid.
///
/// The patch is the median shape, shrunk on the axis that is longest relative to it until it is within the limits, so
/// that its aspect ratio stays that of the median as far as the poolings allow. The batch has as many voxels as the
/// reference, at most a share of the dataset.
///
/// # Errors
/// [`PlannerError::Patch`] if no patch is within the limits, [`PlannerError::Vanished`] if there is nothing to cut one from.
pub(super) fn design(name: &str, grid: Grid, settings: &PlannerSettings) -> Result<Design, PlannerError> {
    grid.check(name)?;
    let rank = settings.of_rank(grid.rank());
    let limits = pooling_limits(settings, &rank);
    let start: Vec<f64> = match &rank.max_patch {
        Some(largest) => grid.median.iter().zip(largest).map(|(median, &largest)| median.min(largest as f64)).collect(),
        None => grid.median.clone(),
    };
    let fit =
        shrink(&start, &grid.median, |size| Topology::pool_late(size, &limits), |topology| limited(topology, &rank))
            .map_err(|patch| PlannerError::Patch {
                configuration: name.to_owned(),
                patch,
                budget: "`max_patch_*` and `max_patch_voxels_*`".to_owned(),
            })?;
    let reference = rank.reference_patch_voxels as f64;
    let affordable = (reference * rank.reference_batch_size as f64 / fit.topology.voxels()).floor();
    let batch = batch(affordable, grid.dataset_voxels, fit.topology.voxels(), rank.max_batch_size, settings);
    let bound = match (&rank.max_patch, rank.max_patch_voxels) {
        (None, None) => "no limit".to_owned(),
        (Some(largest), None) => format!("at most {} voxels on its axes", extents(largest)),
        (None, Some(voxels)) => format!("at most {} voxels", large(voxels as f64)),
        (Some(largest), Some(voxels)) => {
            format!("at most {} voxels on its axes and {} in all", extents(largest), large(voxels as f64))
        }
    };
    let why_patch = format!("the median shape {} with {bound}, {}", extents(&grid.median), padded_and_shrunk(&fit));
    let why_budget = format!(
        "the reference of {} samples with {} voxels leaves room for {:.0} samples of this patch",
        rank.reference_batch_size,
        large(reference),
        affordable
    );
    Ok(Design { grid, fit, batch, why_patch, why_budget })
}

/// The resolution, halved as often as necessary, at which a case has few enough voxels for a patch to see its share.
///
/// # Errors
/// As [`design`].
pub(super) fn low_resolution(
    name: &str,
    full: &Design,
    facts: &Facts,
    settings: &PlannerSettings,
) -> Result<LowResolution, PlannerError> {
    let capacity = capacity(settings);
    let largest = capacity / settings.lowres_threshold;
    let mut voxels: f64 = full.grid.median.iter().product();
    let comparison = format!(
        "the median case has {} voxels, a patch can hold {}, {:.1} times fewer",
        large(voxels),
        large(capacity),
        voxels / capacity
    );
    let times = 1.0 / settings.lowres_threshold;
    if voxels <= largest {
        return Ok(LowResolution::Omitted(format!("{comparison}, not more than {times} times")));
    }
    let (mut spacing, mut shape) = (full.grid.spacing.clone(), full.grid.median.clone());
    while voxels > largest {
        coarsen(&mut spacing, settings.lowres_spacing_factor, |ratio| ratio >= settings.lowres_axis_ratio);
        shape = resized(&full.grid.spacing, &spacing, &full.grid.median);
        voxels = shape.iter().product();
    }
    let why = format!(
        "{comparison}, more than {times} times: the spacing grew by {} (axes of higher resolution first until they \
         match, then all) to {}, where the case has {} voxels",
        settings.lowres_spacing_factor,
        millimetres(&spacing),
        large(voxels)
    );
    let dataset_voxels = voxels * facts.n_training as f64;
    let grid = Grid { spacing, median: whole_voxels(&shape), dataset_voxels };
    Ok(LowResolution::Planned(Box::new(design(name, grid, settings)?), why))
}

/// Voxels of the largest patch that the settings allow.
fn capacity(settings: &PlannerSettings) -> f64 {
    let reference = settings.max_patch_voxels_3d.unwrap_or(settings.reference_patch_voxels_3d) as f64;
    let longest = settings.max_patch_3d.map(|patch| patch.iter().map(|&extent| extent as f64).product());
    longest.unwrap_or(f64::INFINITY).min(reference)
}
