//! The rules of nnU-Net v2: as large a patch as fits a budget of activations.

use super::batch::batch;
use super::design::{Design, Grid, LowResolution, coarsen, padded_and_shrunk, resized, whole_voxels};
use super::facts::Facts;
use super::network::NetworkSize;
use super::patch::{Excess, shrink};
use super::reasons::{extents, large, millimetres};
use super::settings::{PlannerSettings, RankSettings};
use super::topology::{PoolingLimits, Topology};
use super::{PlannerError, pooling_limits};

/// Patch, topology and batch for a grid.
///
/// Equal to `get_plans_for_configuration` of `ExperimentPlanner` and of the planners of the residual encoders, nnU-Net
/// 2.8.1.
pub(super) fn design(
    name: &str,
    grid: Grid,
    facts: &Facts,
    settings: &PlannerSettings,
) -> Result<Design, PlannerError> {
    grid.check(name)?;
    let rank = settings.of_rank(grid.rank());
    let budget = Budget::new(settings, &rank);
    let limits: PoolingLimits = pooling_limits(settings, &rank);
    let elements =
        |topology: &Topology| NetworkSize::planned(settings, topology).conv_elements(&topology.patch, facts.n_labels);
    let start = initial_patch(&grid, &rank);
    let topology_of = |size: &[f64]| Topology::by_spacing(&grid.spacing, size, &limits);
    let excess = |topology: &Topology| limited(topology, &rank).or_else(|| budget.excess(elements(topology)));
    let fit = shrink(&start, &grid.median, topology_of, excess).map_err(|patch| PlannerError::Patch {
        configuration: name.to_owned(),
        patch,
        budget: format!("{} activations in {} GB", large(budget.elements), settings.gpu_memory_target),
    })?;
    let demand = elements(&fit.topology);
    let affordable = (budget.elements / demand * budget.batch).round_ties_even();
    let batch = batch(affordable, grid.dataset_voxels, fit.topology.voxels(), rank.max_batch_size, settings);
    let why_patch = format!(
        "starts at {} voxels (isotropic in millimetres, within the median shape), {}: {} activations of a sample fit the \
         {} that {} GB hold for a batch of {}",
        extents(&start),
        padded_and_shrunk(&fit),
        large(demand),
        large(budget.elements / budget.fit_batch * budget.batch),
        settings.gpu_memory_target,
        budget.fit_batch,
    );
    let why_budget = format!(
        "{} GB hold {} activations of a sample {} times, this patch has {}",
        settings.gpu_memory_target,
        large(budget.elements),
        budget.batch,
        large(demand)
    );
    Ok(Design { grid, fit, batch, why_patch, why_budget })
}

/// The resolution at which a patch sees enough of a case, if the full one does not.
///
/// Equal to the loop of `plan_experiment` of nnU-Net 2.8.1.
pub(super) fn low_resolution(
    name: &str,
    full: &Design,
    facts: &Facts,
    settings: &PlannerSettings,
) -> Result<LowResolution, PlannerError> {
    let full_voxels: f64 = full.grid.median.iter().product();
    let seen = full.patch_voxels() / full_voxels;
    let threshold = settings.lowres_threshold;
    let share = format!("a patch of the full resolution covers {:.1} % of the median case", seen * 100.0);
    let mut spacing = full.grid.spacing.clone();
    let (mut voxels, mut patch_voxels, mut found) = (full_voxels, full.patch_voxels(), None);
    while patch_voxels / voxels < threshold {
        coarsen(&mut spacing, settings.lowres_spacing_factor, |ratio| ratio > settings.lowres_axis_ratio);
        let shape = resized(&full.grid.spacing, &spacing, &full.grid.median);
        voxels = shape.iter().product();
        let dataset_voxels = voxels * facts.n_training as f64;
        let grid = Grid { spacing: spacing.clone(), median: whole_voxels(&shape), dataset_voxels };
        let design = design(name, grid, facts, settings)?;
        patch_voxels = design.patch_voxels();
        found = Some(design);
    }
    let Some(design) = found else {
        return Ok(LowResolution::Omitted(format!("{share}, at least the {} % that it has to", threshold * 100.0)));
    };
    let reduction = full_voxels / voxels;
    let least = settings.lowres_min_reduction;
    if reduction < least {
        return Ok(LowResolution::Omitted(format!(
            "{share}, but the resolution at which it covers {} % has only {reduction:.2} times fewer voxels, less than \
             {least} times",
            threshold * 100.0
        )));
    }
    let why = format!(
        "{share}, less than {} %: the spacing grew in steps of {} (axes more than {} times finer than the coarsest \
         first) to {}, where it covers {:.1} %",
        threshold * 100.0,
        settings.lowres_spacing_factor,
        settings.lowres_axis_ratio,
        millimetres(&spacing),
        patch_voxels / voxels * 100.0,
    );
    Ok(LowResolution::Planned(Box::new(design), why))
}

/// How many activations there is memory for.
struct Budget {
    /// Activations of one sample with which `batch` samples fit.
    elements: f64,
    /// Samples that go with `elements`.
    batch: f64,
    /// Samples with which a patch has to fit.
    fit_batch: f64,
}

impl Budget {
    fn new(settings: &PlannerSettings, rank: &RankSettings) -> Self {
        Self {
            elements: rank.reference_elements * (settings.gpu_memory_target / settings.reference_gpu_memory),
            batch: rank.reference_batch_size as f64,
            fit_batch: rank.fit_batch_size as f64,
        }
    }

    fn excess(&self, elements: f64) -> Option<Excess> {
        (elements / self.batch * self.fit_batch > self.elements).then_some(Excess::Volume)
    }
}

/// A patch that is a cube in millimetres with the initial number of voxels, within the median shape.
fn initial_patch(grid: &Grid, rank: &RankSettings) -> Vec<f64> {
    let density: Vec<f64> = grid.spacing.iter().map(|distance| 1.0 / distance).collect();
    let scale = (rank.initial_patch_voxels / density.iter().product::<f64>()).powf(1.0 / density.len() as f64);
    let sides = density.iter().zip(&grid.median);
    let sides = sides.map(|(density, median)| (density * scale).round_ties_even().min(*median).max(1.0));
    match &rank.max_patch {
        Some(largest) => sides.zip(largest).map(|(side, &largest)| side.min(largest as f64)).collect(),
        None => sides.collect(),
    }
}

/// What of the limits of a workflow a patch exceeds; padding may bring it above what it started with.
pub(super) fn limited(topology: &Topology, rank: &RankSettings) -> Option<Excess> {
    let largest = rank.max_patch.iter().flatten();
    let too_long = topology.patch.iter().zip(largest).position(|(extent, largest)| extent > largest);
    let too_large = rank.max_patch_voxels.is_some_and(|largest| topology.voxels() > largest as f64);
    too_long.map(Excess::Axis).or(too_large.then_some(Excess::Volume))
}
