//! The files that an answer becomes.

use ndarray::{Array3, Array4, Axis};
use nnflow_io::array::{ArrayOptions, write_array};
use nnflow_stage::{Context, StageError};

use crate::case::unreadable;
use crate::train::patches::NEXT_STAGE;

/// Probabilities of all classes, `f32` `[class, z, y, x]` on the image's own grid.
pub const PROBABILITIES: &str = "probabilities.nna";

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
