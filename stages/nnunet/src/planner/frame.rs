//! The grid of the full resolution: target spacing, order of the axes, median shape.

use nnflow_kernels::geometry::Transpose;

use super::facts::Facts;
use super::reasons::Reasons;
use super::settings::PlannerSettings;
use super::statistics::{median, percentile};

/// The full resolution of a dataset, in the plan's order of the axes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    /// From the axes of an image to those of the plan.
    pub(super) transpose: Transpose,
    /// Spacing in millimetres.
    pub(super) spacing: [f64; 3],
    /// Median over the cases of the shape after resampling, in voxels; halves where there are two in the middle.
    pub(super) median: [f64; 3],
    /// Median spacing of the cases as they are, in millimetres.
    pub(super) original_spacing: [f64; 3],
    /// Median shape of the cropped cases as they are, in voxels.
    pub(super) original_shape: [usize; 3],
    /// Why the spacing is so.
    pub(super) why_spacing: String,
}

impl Frame {
    /// Derives the full resolution and says why it is so.
    ///
    /// Equal to `determine_fullres_target_spacing`, `determine_transpose` and the first lines of `plan_experiment` of
    /// nnU-Net 2.8.1.
    pub(super) fn new(facts: &Facts, settings: &PlannerSettings, reasons: &mut Reasons) -> Self {
        let (target, why) = target_spacing(facts, settings);
        let transpose = coarsest_first(target, settings.transpose);
        let resampled = facts.spacings.iter().zip(&facts.shapes).map(|(spacing, shape)| {
            std::array::from_fn(|axis| (spacing[axis] / target[axis] * shape[axis]).round_ties_even())
        });
        let original_shape = per_axis(facts.shapes.iter().copied(), median);
        let frame = Self {
            transpose,
            spacing: transpose.apply(target),
            median: transpose.apply(per_axis(resampled, median)),
            original_spacing: transpose.apply(per_axis(facts.spacings.iter().copied(), median)),
            original_shape: transpose.apply(original_shape.map(|extent| extent.round_ties_even() as usize)),
            why_spacing: why,
        };
        frame.explain(facts, settings, reasons);
        frame
    }

    /// Whether the cases are single slices.
    pub(super) fn is_flat(&self) -> bool {
        self.median[0] == 1.0
    }

    /// Number of voxels of the median case.
    pub(super) fn voxels(&self) -> f64 {
        self.median.iter().product()
    }

    fn explain(&self, facts: &Facts, settings: &PlannerSettings, reasons: &mut Reasons) {
        let cases = format!("of the {} training cases before resampling, for reference", facts.spacings.len());
        reasons.add("original_median_spacing_after_transp", format!("median spacing {cases}"));
        reasons.add("original_median_shape_after_transp", format!("median shape after cropping {cases}"));
        let reader = "the reader that dataset.json names, else nnU-Net's first for the file ending";
        reasons.add("image_reader_writer", reader);
        let order = match (settings.transpose, self.transpose == Transpose::IDENTITY) {
            (false, _) => "the axes keep their order because `transpose` is off".to_owned(),
            (true, true) => "the axes keep their order because the first has the largest target spacing".to_owned(),
            (true, false) => format!(
                "axis {} has the largest target spacing ({} mm) and comes first, so that slices are taken where the \
                 resolution is highest",
                self.transpose.axes()[0],
                self.spacing[0]
            ),
        };
        reasons.add("transpose_forward", order);
        reasons.add("transpose_backward", "undoes `transpose_forward`");
        reasons.add("foreground_intensity_properties_per_channel", "taken over from the fingerprint");
    }
}

/// Target spacing in the order of the images, and why it is so.
fn target_spacing(facts: &Facts, settings: &PlannerSettings) -> ([f64; 3], String) {
    if let Some(spacing) = settings.target_spacing {
        return (spacing, "the spacing that `target_spacing` asks for".to_owned());
    }
    let percent = settings.spacing_percentile;
    let mut target = per_axis(facts.spacings.iter().copied(), |values| percentile(values, percent));
    let shape = per_axis(facts.shapes.iter().copied(), |values| percentile(values, percent));
    let name = if percent == 50.0 { "median".to_owned() } else { format!("{percent}th percentile") };
    let mut why = format!("the {name} of the training cases' spacings on each axis");
    let coarsest = first_largest(target);
    let others = [0, 1, 2].into_iter().filter(|&axis| axis != coarsest);
    let (finer, shortest) = others.fold((f64::NEG_INFINITY, f64::INFINITY), |(spacing, extent), axis| {
        (spacing.max(target[axis]), extent.min(shape[axis]))
    });
    let threshold = settings.anisotropy_threshold;
    let is_coarse = target[coarsest] > threshold * finer && shape[coarsest] * threshold < shortest;
    if let Some(percent) = settings.anisotropic_spacing_percentile.filter(|_| is_coarse) {
        let before = target[coarsest];
        target[coarsest] = finer_spacing(facts, coarsest, percent, finer);
        why = format!(
            "{why}, but on axis {coarsest} the {percent}th percentile instead of {before} mm, because that axis is \
             more than {threshold} times as coarse and has less than 1/{threshold} of the voxels of the others: \
             resampling thinner slices to the median would blur them"
        );
    }
    (target, why)
}

/// The spacing of a coarse axis, which stays coarser than the others by a hair so that it is still the coarsest.
fn finer_spacing(facts: &Facts, axis: usize, percent: f64, others: f64) -> f64 {
    const HAIR: f64 = 1e-5;
    let spacing = percentile(facts.spacings.iter().map(|spacing| spacing[axis]), percent);
    if spacing < others { others + HAIR } else { spacing }
}

fn coarsest_first(spacing: [f64; 3], transpose: bool) -> Transpose {
    let coarsest = if transpose { first_largest(spacing) } else { 0 };
    let order = match coarsest {
        0 => [0, 1, 2],
        1 => [1, 0, 2],
        _ => [2, 0, 1],
    };
    Transpose::new(order).expect("invariant: each order above names every axis once")
}

fn first_largest(values: [f64; 3]) -> usize {
    (1..3).fold(0, |largest, axis| if values[axis] > values[largest] { axis } else { largest })
}

fn per_axis(values: impl Iterator<Item = [f64; 3]>, statistic: impl Fn(Vec<f64>) -> f64) -> [f64; 3] {
    let values: Vec<[f64; 3]> = values.collect();
    std::array::from_fn(|axis| statistic(values.iter().map(|value| value[axis]).collect()))
}
