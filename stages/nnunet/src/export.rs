//! From what a network says on its own grid back to the image's grid: labels, probabilities, and a cascade's next input.
//!
//! The image's grid is made slab by slab, and within a slab class after class, so that memory does not grow with the
//! number of classes: scores of all classes on the image's grid never exist. Labels are written where they belong at once,
//! in the axes of the file and around what was cropped. No result depends on the slabs.

mod memory;
mod plan;
mod ports;
mod scores;
mod write;

use std::ops::Range;

use ndarray::{Array3, Array4, ArrayViewMut3, Axis, Slice, s};
use nnflow_io::array::{ArrayOptions, write_array_in_slabs};
use nnflow_kernels::geometry::{BoundingBox, GeometryError, Spacing};
use nnflow_kernels::resample::{
    Activation, Decision, LabelRule, Limits, Regrid, ResampleError, Rule, ScorePlanes, class_probabilities, new_shape,
    resample_labels,
};
use nnflow_stage::{Context, StageError};
use serde::Deserialize;

use crate::case::{CaseRecord, PreparedGrid, unreadable};
use crate::documents::TargetSpacing;
use crate::segmentation::write_segmentation;
use crate::train::slices::Classes;
pub use memory::{ExportSize, slab_bytes};
pub use plan::{ExportPlan, Resampling};
pub(crate) use ports::{OUTPUTS, PLAN};
pub use scores::{LOGITS_NNA, LOGITS_NPY, ScoreKind, ScoreSource, StoredScores};
pub use write::{PROBABILITIES, write_probabilities};

/// The probability above which a voxel belongs to a region.
const REGION_THRESHOLD: f32 = 0.5;

/// A network's answer for a case.
#[derive(Clone, Copy)]
pub struct Scores<'a> {
    /// What the values are.
    pub kind: ScoreKind,
    /// Where they are.
    pub values: &'a dyn ScoreSource,
}

/// What the segmentation for a cascade's next stage is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NextStageFrom {
    /// Scores, resampled: nnU-Net 2.8.1 `resample_and_save`, which gives the next stage its input in training.
    Logits,
    /// Labels on the image's grid, resampled: what nnU-Net does when it predicts.
    Labels,
}

/// What is to be made of an answer besides labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Whether the probabilities of all classes are kept.
    pub probabilities: bool,
    /// How a cascade's next stage gets its input, where the plan has one.
    pub next_stage: NextStageFrom,
}

/// Brings the answer for one case back to the image's grid.
pub struct Exporter<'a> {
    /// The case.
    pub record: &'a CaseRecord,
    /// The grid of the answer.
    pub grid: &'a PreparedGrid,
    /// What the classes stand for.
    pub classes: &'a Classes,
    /// How it is resampled.
    pub plan: &'a ExportPlan,
    /// Bytes of scores that may be read at a time, besides those that a source holds anyway; one plane of all classes is
    /// read at least.
    pub slab_bytes: u64,
}

/// What a softmax needs of each voxel: the largest score, and the sum over all classes, `[a0, a1, a2]` of what cropping
/// left.
type Sums = [Array3<f32>; 2];

impl Exporter<'_> {
    /// Makes and writes all outputs of a case: `labels`, and where they are wanted `probabilities` and `next_stage`.
    ///
    /// # Errors
    /// If the scores are not those of the case, or cannot be had or resampled; if a file cannot be written.
    pub fn export(&self, context: &mut Context<'_>, scores: Scores<'_>, wanted: Wanted) -> Result<(), StageError> {
        self.check(scores)?;
        let regrid = self.regrid(self.grid.cropped_to.shape(), self.original_spacing())?;
        let needs_sums = wanted.probabilities && scores.kind == ScoreKind::Logits && self.classes.regions.is_none();
        let empty = || Array3::zeros(regrid.to());
        let mut sums = needs_sums.then(|| [empty(), empty()]);
        let labels = self.labels(context, &regrid, scores, sums.as_mut())?;
        if wanted.probabilities {
            self.write_probabilities(context, &regrid, scores, sums.as_ref())?;
        }
        drop(sums);
        if let Some(target) = self.plan.next_stage {
            let next = match wanted.next_stage {
                NextStageFrom::Logits => self.next_stage_from_scores(context, target, scores)?,
                NextStageFrom::Labels => self.next_stage_from_labels(target, &labels)?,
            };
            write::write_next_stage(context, &next)?;
        }
        let record = self.record;
        write_segmentation(&mut context.output("labels"), labels, &record.geometry, &record.file_ending)
    }

    /// The labels on the image's own grid, `[z, y, x]`; 0 outside of what was cropped.
    fn labels(
        &self,
        context: &Context<'_>,
        regrid: &Regrid,
        scores: Scores<'_>,
        sums: Option<&mut Sums>,
    ) -> Result<Array3<i16>, StageError> {
        let mut whole = Array3::zeros(self.record.geometry.shape);
        let within = whole.view_mut().permuted_axes(self.grid.transpose_forward.axes());
        let cropped = self.grid.cropped_to.crop_mut(within).map_err(misplaced)?;
        self.decide(context, regrid, scores, cropped, sums)?;
        Ok(self.classes.label_values(whole))
    }

    /// Writes the class of each voxel of the grid into `target`, or the label where there are regions.
    fn decide(
        &self,
        context: &Context<'_>,
        regrid: &Regrid,
        scores: Scores<'_>,
        mut target: ArrayViewMut3<'_, i16>,
        mut sums: Option<&mut Sums>,
    ) -> Result<(), StageError> {
        let rule = match (&self.classes.regions, scores.kind) {
            (None, _) => Rule::Largest,
            (Some(_), ScoreKind::Logits) => Rule::Regions { labels: self.classes.region_order()?, threshold: 0.0 },
            (Some(_), ScoreKind::Probabilities) => {
                Rule::Regions { labels: self.classes.region_order()?, threshold: REGION_THRESHOLD }
            }
        };
        let limits = self.limits(regrid, scores)?;
        let decision = Decision { regrid, rule, limits: &limits };
        for part in regrid.slabs(self.planes_at_once(scores)) {
            context.check_cancelled()?;
            let planes = regrid.source_planes(&part);
            let values = scores.values.read(0..self.classes.outputs(), planes.clone())?;
            let planes = ScorePlanes { values: values.view(), first: planes.start };
            let labels = target.slice_axis_mut(Axis(0), Slice::from(part.clone()));
            match &mut sums {
                None => decision.labels(planes, &part, labels),
                Some([largest, sum]) => {
                    let within = Slice::from(part.clone());
                    let sums = [largest.slice_axis_mut(Axis(0), within), sum.slice_axis_mut(Axis(0), within)];
                    decision.with_sums(planes, &part, labels, sums);
                }
            }
        }
        Ok(())
    }

    /// Writes the probabilities of all classes on the image's own grid, class after class and slab by slab.
    ///
    /// Outside of what was cropped the background has probability 1, or, where there are regions, each of them 0.
    fn write_probabilities(
        &self,
        context: &mut Context<'_>,
        regrid: &Regrid,
        scores: Scores<'_>,
        sums: Option<&Sums>,
    ) -> Result<(), StageError> {
        let path = context.output("probabilities").file(PROBABILITIES)?;
        let activation = match (scores.kind, sums) {
            (ScoreKind::Probabilities, _) => Activation::None,
            (ScoreKind::Logits, Some([largest, sum])) => {
                Activation::Softmax { largest: largest.view(), sum: sum.view() }
            }
            (ScoreKind::Logits, None) => Activation::Sigmoid,
        };
        let mut one = ClassVolume { exporter: self, regrid, scores, class: None };
        let [depth, height, width] = self.record.geometry.shape;
        let shape = [self.classes.outputs(), depth, height, width];
        write_array_in_slabs(&path, shape, &ArrayOptions::default(), |classes, slices| {
            context.check_cancelled().map_err(SlabError::Stage)?;
            let mut slab = Array4::zeros((classes.len(), slices.len(), height, width));
            for (class, target) in classes.zip(slab.axis_iter_mut(Axis(0))) {
                one.write(class, &activation, slices.clone(), target).map_err(SlabError::Stage)?;
            }
            Ok(slab)
        })
        .map_err(SlabError::into_stage)
    }

    /// The labels on the grid of the cascade's next stage, `[a0, a1, a2]`, from scores.
    fn next_stage_from_scores(
        &self,
        context: &Context<'_>,
        target: TargetSpacing,
        scores: Scores<'_>,
    ) -> Result<Array3<i16>, StageError> {
        let (shape, spacing) = self.target(target)?;
        let regrid = self.regrid(shape, spacing)?;
        let mut labels = Array3::zeros(shape);
        self.decide(context, &regrid, scores, labels.view_mut(), None)?;
        Ok(self.classes.label_values(labels))
    }

    /// The labels on the grid of the cascade's next stage, `[a0, a1, a2]`, from labels (`[z, y, x]` of the image).
    fn next_stage_from_labels(&self, target: TargetSpacing, labels: &Array3<i16>) -> Result<Array3<i16>, StageError> {
        let (shape, spacing) = self.target(target)?;
        let transposed = self.grid.transpose_forward.apply_array(labels.view()).map_err(misplaced)?;
        let cropped = self.grid.cropped_to.crop(transposed).map_err(misplaced)?;
        let options = self.plan.labels.options()?;
        let current = self.original_spacing();
        resample_labels(cropped, shape, current, spacing, &options, LabelRule::ArgmaxNearestTie).map_err(unusable)
    }

    /// What the probabilities of each class may not exceed, where they are interpolated by splines.
    fn limits(&self, regrid: &Regrid, scores: Scores<'_>) -> Result<Vec<Limits>, StageError> {
        let classes = if regrid.needs_limits() { self.classes.outputs() } else { 0 };
        let limits = (0..classes).map(|class| {
            let values = scores.values.read(class..class + 1, 0..regrid.from()[0])?;
            Ok(regrid.limits(values.index_axis(Axis(0), 0)))
        });
        limits.collect()
    }

    /// Planes of the answer that may be read at a time.
    fn planes_at_once(&self, scores: Scores<'_>) -> usize {
        let [classes, _, height, width] = scores.values.shape();
        let plane = (classes * height * width * size_of::<f32>()).max(1) as u64;
        usize::try_from(self.slab_bytes / plane).unwrap_or(usize::MAX)
    }

    fn check(&self, scores: Scores<'_>) -> Result<(), StageError> {
        let [depth, height, width] = self.grid.shape;
        let (expected, found) = ([self.classes.outputs(), depth, height, width], scores.values.shape());
        if found == expected {
            return Ok(());
        }
        Err(StageError::input(format!(
            "the scores of case `{}` have the shape `{found:?}`, expected `{expected:?}`: the outputs of the network, and the axes of the prepared case",
            self.record.identifier
        )))
    }

    fn regrid(&self, shape: [usize; 3], spacing: Spacing) -> Result<Regrid, StageError> {
        Regrid::new(self.grid.shape, shape, self.grid.spacing, spacing, &self.plan.scores.options()?).map_err(unusable)
    }

    fn original_spacing(&self) -> Spacing {
        self.grid.original_spacing(&self.record.geometry)
    }

    fn target(&self, target: TargetSpacing) -> Result<([usize; 3], Spacing), StageError> {
        let current = self.original_spacing();
        let spacing = target.of_case(current)?;
        Ok((new_shape(self.grid.cropped_to.shape(), current, spacing), spacing))
    }
}

/// The scores of one class, which are kept until the next one is asked for.
struct ClassVolume<'a> {
    exporter: &'a Exporter<'a>,
    regrid: &'a Regrid,
    scores: Scores<'a>,
    class: Option<(usize, Array3<f32>, Limits)>,
}

impl ClassVolume<'_> {
    /// Writes the probabilities of a class in some slices of the image's own grid.
    fn write(
        &mut self,
        class: usize,
        activation: &Activation<'_>,
        slices: Range<usize>,
        mut target: ArrayViewMut3<'_, f32>,
    ) -> Result<(), StageError> {
        let Exporter { grid, classes, .. } = self.exporter;
        if class == 0 && classes.regions.is_none() {
            target.fill(1.0);
        }
        let Some((part, place)) = cropped_part(grid, &slices) else { return Ok(()) };
        self.load(class)?;
        let Some((_, values, limits)) = &self.class else { return Ok(()) };
        let target = target.permuted_axes(grid.transpose_forward.axes());
        let target = place.crop_mut(target).map_err(misplaced)?;
        class_probabilities(self.regrid, values.view(), limits, activation, &part, target);
        Ok(())
    }

    fn load(&mut self, class: usize) -> Result<(), StageError> {
        if self.class.as_ref().is_some_and(|(loaded, ..)| *loaded == class) {
            return Ok(());
        }
        // What is held is given back first, so that both are never in memory.
        self.class = None;
        let values = self.scores.values.read(class..class + 1, 0..self.regrid.from()[0])?;
        let values = values.into_owned().slice_move(s![0, .., .., ..]);
        let limits = self.regrid.limits(values.view());
        self.class = Some((class, values, limits));
        Ok(())
    }
}

/// Of some slices of the file the part that lies in the cropped box: within the box, and within these slices, both with
/// the axes of the arrays.
fn cropped_part(grid: &PreparedGrid, slices: &Range<usize>) -> Option<(BoundingBox, BoundingBox)> {
    let axis = grid.transpose_forward.inverse().axes()[0];
    let (mut start, mut stop) = (grid.cropped_to.start(), grid.cropped_to.stop());
    start[axis] = start[axis].max(slices.start);
    stop[axis] = stop[axis].min(slices.end);
    if start[axis] >= stop[axis] {
        return None;
    }
    let shifted = |corner: [usize; 3], by: [usize; 3]| [0, 1, 2].map(|axis| corner[axis] - by[axis]);
    let mut first_slice = [0; 3];
    first_slice[axis] = slices.start;
    let moved = |by| BoundingBox::new(shifted(start, by), shifted(stop, by)).ok();
    Some((moved(grid.cropped_to.start())?, moved(first_slice)?))
}

/// What goes wrong while probabilities are written.
enum SlabError {
    Array(nnflow_io::array::ArrayError),
    Stage(StageError),
}

impl From<nnflow_io::array::ArrayError> for SlabError {
    fn from(error: nnflow_io::array::ArrayError) -> Self {
        Self::Array(error)
    }
}

impl SlabError {
    fn into_stage(self) -> StageError {
        match self {
            Self::Array(error) => unreadable(error),
            Self::Stage(error) => error,
        }
    }
}

fn misplaced(error: GeometryError) -> StageError {
    StageError::internal(format!("the prediction does not fit the case that it was made of: {error}"))
}

fn unusable(error: ResampleError) -> StageError {
    StageError::input(format!("the prediction cannot be brought to the image's grid: {error}"))
}
