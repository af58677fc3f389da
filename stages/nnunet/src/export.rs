//! From what a network says on its own grid back to the image's grid: labels, probabilities, and a cascade's next input.
//!
//! Classes come one at a time, so that a segmentation of a hundred classes needs a few volumes and not a hundred; only
//! where probabilities are asked for are all of them held at once.

use ndarray::{Array, Array3, Array4, ArrayView, Axis, Dimension, Zip};
use nnflow_io::array::{ArrayOptions, write_array};
use nnflow_io::plans::{Configuration, ResamplingArguments};
use nnflow_kernels::decision::{argmax, paint_regions};
use nnflow_kernels::geometry::{GeometryError, Spacing};
use nnflow_kernels::resample::{
    LabelRule, Order, ResampleError, ResampleOptions, new_shape, resample_argmax, resample_image, resample_labels,
    resample_regions,
};
use nnflow_stage::{Axes, Context, StageError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{CaseRecord, PreparedGrid, unreadable};
use crate::documents::{PlannedConfiguration, TargetSpacing, slice};
use crate::segmentation::write_segmentation;
use crate::train::patches::NEXT_STAGE;
use crate::train::slices::Classes;

/// Probabilities of all classes, `f32` `[class, z, y, x]` on the image's own grid.
pub const PROBABILITIES: &str = "probabilities.nna";

/// How scores or labels are resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resampling {
    order: u8,
    order_z: u8,
    force_separate_z: Option<bool>,
}

impl From<&ResamplingArguments> for Resampling {
    fn from(arguments: &ResamplingArguments) -> Self {
        Self { order: arguments.order, order_z: arguments.order_z, force_separate_z: arguments.force_separate_z }
    }
}

impl Resampling {
    fn options(self) -> Result<ResampleOptions, StageError> {
        let order = |order: u8| Order::try_from(order).map_err(|error| StageError::input(error.to_string()));
        Ok(ResampleOptions {
            order: order(self.order)?,
            order_z: order(self.order_z)?,
            force_separate_z: self.force_separate_z,
        })
    }
}

/// What prediction reads of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportPlan {
    /// Name of the configuration; a bundle holds the models of several.
    pub configuration: String,
    /// How scores are resampled.
    pub scores: Resampling,
    /// How labels are resampled.
    pub labels: Resampling,
    /// The grid of the cascade's next stage, if there is one.
    pub next_stage: Option<TargetSpacing>,
}

impl ExportPlan {
    /// The slice of a plan for the node's configuration.
    ///
    /// # Errors
    /// If the plan lacks the configuration, or that of the next stage.
    pub fn slice(document: &Value, axes: &Axes) -> Result<Value, StageError> {
        let planned = PlannedConfiguration::new(document, axes)?;
        let next_stage = match next_stage(&planned.configuration) {
            None => None,
            Some(name) => {
                let next = Axes::from([(crate::documents::CONFIGURATION.to_owned(), name)]);
                Some(PlannedConfiguration::new(document, &next)?.target_spacing()?)
            }
        };
        slice(&Self {
            configuration: planned.name.clone(),
            scores: (&planned.configuration.resampling_fn_probabilities_kwargs).into(),
            labels: (&planned.configuration.resampling_fn_seg_kwargs).into(),
            next_stage,
        })
    }
}

/// nnU-Net writes one name, or a list of them.
fn next_stage(configuration: &Configuration) -> Option<String> {
    match configuration.next_stage.as_ref()? {
        Value::String(name) => Some(name.clone()),
        Value::Array(names) => names.first()?.as_str().map(str::to_owned),
        _ => None,
    }
}

/// What the values of a network's answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreKind {
    /// Logits.
    Logits,
    /// Probabilities.
    Probabilities,
}

/// A network's answer for a case, class by class on the grid that it was prepared on.
pub struct Scores<'a> {
    /// What the values are.
    pub kind: ScoreKind,
    /// The values of one class, `[a0, a1, a2]`.
    pub class: &'a dyn Fn(usize) -> Result<Array3<f32>, StageError>,
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
}

impl Exporter<'_> {
    /// The labels on the image's own grid, `[z, y, x]`.
    ///
    /// # Errors
    /// If the scores cannot be had or resampled.
    pub fn labels(&self, scores: &Scores<'_>) -> Result<Array3<i16>, StageError> {
        self.uncrop(&self.cropped_labels(scores)?)
    }

    /// The labels and the probabilities of all classes on the image's own grid, `[z, y, x]` and `[class, z, y, x]`.
    ///
    /// Outside of what was cropped the background has probability 1, or, where there are regions, each of them 0.
    ///
    /// # Errors
    /// If the scores cannot be had or resampled.
    pub fn labels_and_probabilities(&self, scores: &Scores<'_>) -> Result<(Array3<i16>, Array4<f32>), StageError> {
        let shape = self.grid.cropped_to.shape();
        let [z, y, x] = shape;
        let mut values = Array4::zeros((self.classes.outputs(), z, y, x));
        let options = self.plan.scores.options()?;
        for (class, mut volume) in values.axis_iter_mut(Axis(0)).enumerate() {
            let class = (scores.class)(class)?.insert_axis(Axis(0));
            let resampled = resample_image(class.view(), shape, self.grid.spacing, self.original_spacing(), &options)
                .map_err(unusable)?;
            volume.assign(&resampled.index_axis(Axis(0), 0));
        }
        let labels = match (&self.classes.regions, scores.kind) {
            (None, _) => self.classes.label_values(argmax(values.view())),
            (Some(_), ScoreKind::Probabilities) => paint_regions(values.view(), self.classes.region_order()?),
            (Some(_), ScoreKind::Logits) => {
                sigmoid(&mut values);
                paint_regions(values.view(), self.classes.region_order()?)
            }
        };
        if self.classes.regions.is_none() && scores.kind == ScoreKind::Logits {
            softmax(&mut values);
        }
        Ok((self.uncrop(&labels)?, self.uncrop_probabilities(&values)?))
    }

    /// The labels on the grid of the cascade's next stage, from resampled scores.
    ///
    /// nnU-Net 2.8.1 `resample_and_save`, which gives the next stage its input in training.
    ///
    /// # Errors
    /// If the scores cannot be had or resampled.
    pub fn next_stage_from_scores(
        &self,
        target: TargetSpacing,
        scores: &Scores<'_>,
    ) -> Result<Array3<i16>, StageError> {
        let (shape, spacing) = self.target(target)?;
        self.decide(shape, spacing, scores)
    }

    /// The labels on the grid of the cascade's next stage, from labels (`[z, y, x]` of the image), as nnU-Net predicts.
    ///
    /// # Errors
    /// If the labels cannot be resampled.
    pub fn next_stage_from_labels(
        &self,
        target: TargetSpacing,
        labels: &Array3<i16>,
    ) -> Result<Array3<i16>, StageError> {
        let (shape, spacing) = self.target(target)?;
        let transposed = self.grid.transpose_forward.apply_array(labels.view()).map_err(misplaced)?;
        let cropped = self.grid.cropped_to.crop(transposed).map_err(misplaced)?;
        let options = self.plan.labels.options()?;
        let current = self.original_spacing();
        resample_labels(cropped, shape, current, spacing, &options, LabelRule::ArgmaxNearestTie).map_err(unusable)
    }

    fn cropped_labels(&self, scores: &Scores<'_>) -> Result<Array3<i16>, StageError> {
        self.decide(self.grid.cropped_to.shape(), self.original_spacing(), scores)
    }

    /// Resamples class after class, and decides.
    fn decide(&self, shape: [usize; 3], spacing: Spacing, scores: &Scores<'_>) -> Result<Array3<i16>, StageError> {
        let (current, options) = (self.grid.spacing, self.plan.scores.options()?);
        let classes = self.classes.outputs();
        if self.classes.regions.is_none() {
            let class = |class| (scores.class)(class).map_err(Failed::Stage);
            let labels =
                resample_argmax(classes, shape, current, spacing, &options, class).map_err(StageError::from)?;
            return Ok(self.classes.label_values(labels));
        }
        // A region is painted where its logit is above 0; a probability above one half is the same after a shift.
        let shift = if scores.kind == ScoreKind::Probabilities { 0.5 } else { 0.0 };
        let region = |region| Ok((scores.class)(region).map_err(Failed::Stage)?.mapv_into(|value| value - shift));
        resample_regions(self.classes.region_order()?, shape, current, spacing, &options, region).map_err(Failed::into)
    }

    fn original_spacing(&self) -> Spacing {
        self.grid.original_spacing(&self.record.geometry)
    }

    fn target(&self, target: TargetSpacing) -> Result<([usize; 3], Spacing), StageError> {
        let current = self.original_spacing();
        let spacing = target.of_case(current)?;
        Ok((new_shape(self.grid.cropped_to.shape(), current, spacing), spacing))
    }

    fn uncrop(&self, cropped: &Array3<i16>) -> Result<Array3<i16>, StageError> {
        let mut whole = Array3::zeros(self.grid.shape_before_cropping(&self.record.geometry));
        self.put_back(cropped.view(), &mut whole)
    }

    fn uncrop_probabilities(&self, cropped: &Array4<f32>) -> Result<Array4<f32>, StageError> {
        let [z, y, x] = self.grid.shape_before_cropping(&self.record.geometry);
        let mut whole = Array4::zeros((cropped.len_of(Axis(0)), z, y, x));
        if self.classes.regions.is_none() {
            whole.index_axis_mut(Axis(0), 0).fill(1.0);
        }
        self.put_back(cropped.view(), &mut whole)
    }

    /// Writes what was cropped into the whole, and gives the axes the order of the file again.
    fn put_back<T: Clone, D: Dimension>(
        &self,
        cropped: ArrayView<'_, T, D>,
        whole: &mut Array<T, D>,
    ) -> Result<Array<T, D>, StageError> {
        self.grid.cropped_to.paste(cropped, whole.view_mut()).map_err(misplaced)?;
        let backward = self.grid.transpose_forward.inverse();
        Ok(backward.apply_array(whole.view()).map_err(misplaced)?.as_standard_layout().into_owned())
    }
}

/// Writes labels as the artifact `labels` of a case, in the format of the dataset.
///
/// # Errors
/// If the labels do not fit the format, or the file cannot be written.
pub fn write_label_image(
    context: &mut Context<'_>,
    record: &CaseRecord,
    labels: &Array3<i16>,
) -> Result<(), StageError> {
    write_segmentation(&mut context.output("labels"), labels.view(), &record.geometry, &record.file_ending)
}

/// Writes probabilities as the artifact `probabilities` of a case.
///
/// # Errors
/// If the file cannot be written.
pub fn write_probabilities(context: &mut Context<'_>, probabilities: &Array4<f32>) -> Result<(), StageError> {
    let path = context.output("probabilities").file(PROBABILITIES)?;
    write_array(&path, probabilities.view(), &ArrayOptions::default()).map_err(unreadable)
}

/// Writes a cascade's next input as the artifact `next_stage` of a case.
///
/// # Errors
/// If the file cannot be written.
pub fn write_next_stage(context: &mut Context<'_>, labels: &Array3<i16>) -> Result<(), StageError> {
    let path = context.output("next_stage").file(NEXT_STAGE)?;
    let labels = labels.view().insert_axis(Axis(0));
    write_array(&path, labels, &ArrayOptions::default()).map_err(unreadable)
}

/// Makes probabilities of logits, over the classes of each voxel.
pub fn softmax(values: &mut Array4<f32>) {
    Zip::from(values.lanes_mut(Axis(0))).par_for_each(|mut lane| {
        let largest = lane.fold(f32::NEG_INFINITY, |largest, value| largest.max(*value));
        lane.mapv_inplace(|value| (value - largest).exp());
        let sum = lane.sum();
        lane.mapv_inplace(|value| value / sum);
    });
}

fn sigmoid(values: &mut Array4<f32>) {
    values.par_mapv_inplace(|value| 1.0 / (1.0 + (-value).exp()));
}

fn misplaced(error: GeometryError) -> StageError {
    StageError::internal(format!("the prediction does not fit the case that it was made of: {error}"))
}

fn unusable(error: ResampleError) -> StageError {
    StageError::input(format!("the prediction cannot be brought to the image's grid: {error}"))
}

/// What goes wrong while classes are resampled one by one.
enum Failed {
    Resample(ResampleError),
    Stage(StageError),
}

impl From<ResampleError> for Failed {
    fn from(error: ResampleError) -> Self {
        Self::Resample(error)
    }
}

impl From<Failed> for StageError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Resample(error) => unusable(error),
            Failed::Stage(error) => error,
        }
    }
}
