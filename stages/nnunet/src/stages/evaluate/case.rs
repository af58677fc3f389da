//! What is measured of one case.

use std::collections::BTreeMap;

use nnflow_io::json::float;
use nnflow_io::summary::CaseMetrics;
use nnflow_kernels::geometry::Spacing;
use nnflow_kernels::metrics::{Confusion, Counts, LabelPair, SurfaceDistances};
use nnflow_stage::StageError;
use serde::{Deserialize, Serialize};

use super::measures::Targets;
use super::table::{Measure, Values};

/// The percentile of the robust Hausdorff distance.
const PERCENTILE: f64 = 95.0;

/// What a distance is where only one side has the structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OneSided {
    /// The largest distance that the image has room for.
    Diagonal,
    /// No number: the case does not count.
    LeaveOut,
}

/// The parameters that measuring reads.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct CaseSettings {
    surfaces: bool,
    tolerances: Vec<f64>,
    one_sided: OneSided,
}

impl CaseSettings {
    /// The tolerance of each of `count` structures in mm.
    fn tolerances(&self, count: usize) -> Result<Vec<f64>, StageError> {
        match self.tolerances.as_slice() {
            [one] => Ok(vec![*one; count]),
            several if several.len() == count => Ok(several.to_vec()),
            several => Err(StageError::input(format!(
                "`tolerances` has {} numbers, but the dataset has {count} foreground labels or regions",
                several.len()
            ))
            .with_hint("give one number for all of them, or one for each in the order of `dataset.json`")),
        }
    }
}

/// `measures.json`: all that was measured of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MeasuredCase {
    /// What enters `summary.json`.
    pub(crate) overlap: CaseMetrics,
    /// What nnU-Net does not measure, by label or region.
    pub(crate) further: BTreeMap<String, Further>,
}

/// Volume and surface of one structure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Further {
    /// Volume of the prediction less that of the reference, in mm³.
    #[serde(with = "float")]
    volume_error: f64,
    /// The same as a share of the reference's volume.
    #[serde(with = "float")]
    relative_volume_error: f64,
    /// Distances of surfaces, if they were measured.
    surface: Option<Surface>,
}

/// How far the surfaces of a structure are from each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Surface {
    #[serde(with = "float")]
    hd: f64,
    #[serde(with = "float")]
    hd95: f64,
    #[serde(with = "float")]
    assd: f64,
    #[serde(with = "float")]
    nsd: f64,
}

/// Measures what nnU-Net does not, by label or region.
pub(crate) fn measure(
    pair: &LabelPair<'_>,
    confusion: &Confusion,
    targets: &Targets,
    settings: &CaseSettings,
    voxel_volume: f64,
) -> Result<BTreeMap<String, Further>, StageError> {
    let tolerances = settings.tolerances(targets.targets.len())?;
    let structures = targets.targets.iter().zip(tolerances);
    let measured = structures.map(|(target, tolerance)| {
        let counts = confusion.counts(&target.labels);
        let surface = settings.surfaces.then(|| {
            Surface::of(&pair.surface_distances(&target.labels), tolerance, settings.one_sided, pair.diagonal())
        });
        (target.name.clone(), Further::of(&counts, surface, voxel_volume))
    });
    Ok(measured.collect())
}

/// The volume of a voxel in mm³; an axis with a single voxel has no extent, so that of a picture is an area in mm².
pub(crate) fn voxel_volume(shape: [usize; 3], spacing: Spacing) -> f64 {
    let lengths = shape.iter().zip(spacing.values());
    lengths.map(|(extent, step)| if *extent == 1 { 1.0 } else { step }).product()
}

impl Further {
    fn of(counts: &Counts, surface: Option<Surface>, voxel_volume: f64) -> Self {
        let excess = counts.predicted() as f64 - counts.reference() as f64;
        let relative = match counts.reference() {
            0 => f64::NAN,
            reference => excess / reference as f64,
        };
        // A structure that is on neither side counts for no measure.
        let is_absent = counts.predicted() + counts.reference() == 0;
        let volume_error = if is_absent { f64::NAN } else { excess * voxel_volume };
        Self { volume_error, relative_volume_error: relative, surface }
    }
}

impl Surface {
    fn of(distances: &SurfaceDistances, tolerance: f64, one_sided: OneSided, diagonal: f64) -> Self {
        let finite = |distance: f64| match (distance.is_infinite(), one_sided) {
            (false, _) => distance,
            (true, OneSided::Diagonal) => diagonal,
            (true, OneSided::LeaveOut) => f64::NAN,
        };
        Self {
            hd: finite(distances.hausdorff()),
            hd95: finite(distances.hausdorff_at(PERCENTILE)),
            assd: finite(distances.mean()),
            nsd: distances.within(tolerance),
        }
    }
}

impl MeasuredCase {
    /// All measures of each label or region.
    pub(crate) fn values(&self) -> BTreeMap<String, Values> {
        let structures = self.overlap.metrics.iter();
        let values = structures.map(|(name, metrics)| {
            let further = self.further.get(name);
            let surface = further.and_then(|further| further.surface);
            let value = |measure| match measure {
                Measure::Dice => Some(metrics.dice),
                Measure::Iou => Some(metrics.iou),
                Measure::Nsd => surface.map(|surface| surface.nsd),
                Measure::Hd95 => surface.map(|surface| surface.hd95),
                Measure::Hd => surface.map(|surface| surface.hd),
                Measure::Assd => surface.map(|surface| surface.assd),
                Measure::VolumeError => further.map(|further| further.volume_error),
                Measure::RelativeVolumeError => further.map(|further| further.relative_volume_error),
            };
            (name.clone(), Values::from_fn(|measure| value(measure).unwrap_or(f64::NAN)))
        });
        values.collect()
    }
}
