//! Label images on their way between stages, and the references that they are held against.
//!
//! The artifact `labels` of a case is one file, `labels.nii.gz` or with another ending; as a stored object it has no
//! ending, so the name within the artifact tells the format.

use ndarray::{Array3, Axis};
use nnflow_io::image::{Geometry, read_header, read_labels, write_labels};
use nnflow_io::json;
use nnflow_stage::{Artifact, FileRef, InputValue, OutputWriter, ResourceQuery, StageError};
use serde::Serialize;

use crate::case::{CaseRecord, LABEL, RECORD, open, small_record};

/// What the name of a label image begins with; its ending follows.
const STEM: &str = "labels";
/// Voxels for each byte of a compressed label image, where nothing better is known of its size.
const VOXELS_A_BYTE: u64 = 64;

/// A label image.
#[derive(Debug, Clone)]
pub(crate) struct Segmentation {
    /// Labels `[z, y, x]`.
    pub(crate) labels: Array3<i16>,
    /// The grid of the file.
    pub(crate) geometry: Geometry,
}

impl Segmentation {
    /// Reads the label image of a case.
    pub(crate) fn read(artifact: &Artifact, case: &str) -> Result<Self, StageError> {
        let file = label_file(artifact, case)?;
        let (labels, geometry) = read_labels(&file.path, &file.name).map_err(|error| {
            StageError::input(format!("the label image `{}` of case `{case}` cannot be used", file.name))
                .with_source(error)
        })?;
        Ok(Self { labels, geometry })
    }
}

/// The ending of the label image of a case, with its dot.
pub(crate) fn ending_of<'a>(artifact: &'a Artifact, case: &str) -> Result<&'a str, StageError> {
    let name = &label_file(artifact, case)?.name;
    Ok(name.strip_prefix(STEM).unwrap_or(name))
}

fn label_file<'a>(artifact: &'a Artifact, case: &str) -> Result<&'a FileRef, StageError> {
    artifact
        .files_under(STEM)
        .next()
        .ok_or_else(|| StageError::input(format!("case `{case}` has no label image: expected a file `{STEM}.nii.gz`")))
}

/// Writes labels `[z, y, x]` in the format of `ending`, onto the grid of the image they belong to.
pub(crate) fn write_segmentation(
    writer: &mut OutputWriter<'_>,
    labels: Array3<i16>,
    geometry: &Geometry,
    ending: &str,
) -> Result<(), StageError> {
    let path = writer.file(&format!("{STEM}{ending}"))?;
    let unsigned = unsigned(labels)?;
    write_labels(&path, unsigned.view(), geometry, ending)
        .map_err(|error| StageError::storage("the label image cannot be written").with_source(error))
}

/// Labels as label images hold them. The numbers are of the same size, so that collecting them needs no memory of its own.
fn unsigned(labels: Array3<i16>) -> Result<Array3<u16>, StageError> {
    let labels = if labels.is_standard_layout() { labels } else { labels.as_standard_layout().into_owned() };
    let shape = labels.raw_dim();
    let (values, _) = labels.into_raw_vec_and_offset();
    let values = values.into_iter().map(|label| u16::try_from(label).map_err(|_| negative(label)));
    let values = values.collect::<Result<Vec<u16>, StageError>>()?;
    Ok(Array3::from_shape_vec(shape, values).expect("invariant: the labels were in C order and as many"))
}

fn negative(label: i16) -> StageError {
    StageError::input(format!("label `{label}` cannot be written to a label image: expected labels of at least 0"))
        .with_hint("labels below 0 have no meaning in `dataset.json`; find out where the label image got them from")
}

/// The labels `[z, y, x]` that somebody drew for a case, and the case's record.
///
/// They are what `ingest` has made of a dataset, or label images as they are, which have a record without channels.
pub(crate) fn read_reference(artifact: &Artifact, case: &str) -> Result<(Array3<i16>, CaseRecord), StageError> {
    if artifact.file(RECORD).is_none() && artifact.files_under(STEM).next().is_some() {
        return read_label_image(artifact, case);
    }
    let record = CaseRecord::read(artifact)?;
    if !record.labelled {
        return Err(StageError::input(format!("case `{case}` has no reference labels"))
            .with_hint("references are what `ingest` makes of a dataset with `labels = \"required\"`"));
    }
    let labels = open(artifact, LABEL)?.read_all::<i16>().map_err(|error| {
        StageError::storage(format!("the reference labels of case `{case}` cannot be used")).with_source(error)
    })?;
    Ok((labels.index_axis_move(Axis(0), 0), record))
}

fn read_label_image(artifact: &Artifact, case: &str) -> Result<(Array3<i16>, CaseRecord), StageError> {
    let Segmentation { labels, geometry } = Segmentation::read(artifact, case)?;
    let file_ending = ending_of(artifact, case)?.to_owned();
    let identifier = case.to_owned();
    Ok((labels, CaseRecord { identifier, channels: 0, file_ending, labelled: true, geometry, prepared: None }))
}

/// Writes a document that may hold NaN, as Python writes it.
pub(crate) fn write_document<T: Serialize>(
    writer: &mut OutputWriter<'_>,
    name: &str,
    document: &T,
) -> Result<(), StageError> {
    let text = json::to_vec(document)
        .map_err(|error| StageError::internal(format!("`{name}` cannot be written as JSON: {error}")))?;
    writer.bytes(name, &text)
}

/// Voxels of the largest case at a port of cases or label images, where a task's memory is estimated.
pub(crate) fn largest_case(query: &ResourceQuery<'_>, port: &str) -> u64 {
    let members = query.inputs.get(port).into_iter().flatten();
    let artifacts = members.flat_map(|member| match &member.value {
        InputValue::One(artifact) => vec![artifact],
        InputValue::Items(items) => items.values().collect(),
        InputValue::Document(_) => Vec::new(),
    });
    artifacts.filter_map(voxels_in).max().unwrap_or_else(|| query.input_bytes.saturating_mul(VOXELS_A_BYTE))
}

fn voxels_in(artifact: &Artifact) -> Option<u64> {
    if let Some(record) = small_record(artifact) {
        return Some(voxels_of(&record.geometry));
    }
    let file = artifact.files_under(STEM).next()?;
    read_header(&file.path, &file.name).ok().map(|header| voxels_of(&header.geometry))
}

/// Voxels of an image.
pub(crate) fn voxels_of(geometry: &Geometry) -> u64 {
    geometry.shape.iter().fold(1, |voxels, extent| voxels.saturating_mul(*extent as u64))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn labels_keep_their_places_whatever_their_order_in_memory() {
        let labels = array![[[0_i16, 1], [2, 3]]].permuted_axes([2, 1, 0]);
        assert_eq!(unsigned(labels).ok(), Some(array![[[0_u16], [2]], [[1], [3]]]));
    }

    #[test]
    fn a_negative_label_is_refused_and_not_taken_for_background() {
        let error = unsigned(array![[[1_i16, -1]]]).expect_err("a negative label");
        assert!(error.report().message.starts_with("label `-1` cannot be written"), "{error}");
    }
}
