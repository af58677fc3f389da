//! The files that an answer becomes.

use ndarray::{Array3, Array4, Axis};
use nnflow_io::array::{ArrayOptions, write_array};
use nnflow_io::image::write_labels;
use nnflow_stage::{Context, StageError};

use crate::case::{CaseRecord, unreadable};
use crate::train::patches::NEXT_STAGE;

/// Probabilities of all classes, `f32` `[class, z, y, x]` on the image's own grid.
pub const PROBABILITIES: &str = "probabilities.nna";

/// Writes labels as the artifact `labels` of a case, in the format of the dataset.
///
/// # Errors
/// If the labels do not fit the format, or the file cannot be written.
pub fn write_label_image(
    context: &mut Context<'_>,
    record: &CaseRecord,
    labels: Array3<i16>,
) -> Result<(), StageError> {
    let path = context.output("labels").file(&format!("labels{}", record.file_ending))?;
    let unsigned = unsigned(labels);
    write_labels(&path, unsigned.view(), &record.geometry, &record.file_ending)
        .map_err(|error| StageError::storage("the label image cannot be written").with_source(error))
}

/// Labels as label images hold them; none of them is negative.
///
/// The numbers are of the same size, so that collecting them needs no memory of its own.
fn unsigned(labels: Array3<i16>) -> Array3<u16> {
    let labels = if labels.is_standard_layout() { labels } else { labels.as_standard_layout().into_owned() };
    let shape = labels.raw_dim();
    let (values, _) = labels.into_raw_vec_and_offset();
    let values = values.into_iter().map(|label| u16::try_from(label).unwrap_or(0)).collect();
    Array3::from_shape_vec(shape, values).expect("invariant: the labels were in C order and as many")
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
pub(super) fn write_next_stage(context: &mut Context<'_>, labels: &Array3<i16>) -> Result<(), StageError> {
    let path = context.output("next_stage").file(NEXT_STAGE)?;
    let labels = labels.view().insert_axis(Axis(0));
    write_array(&path, labels, &ArrayOptions::default()).map_err(unreadable)
}
