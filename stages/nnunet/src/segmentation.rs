//! Label images on their way between stages, and the references that they are held against.
//!
//! The artifact `labels` of a case is one file, `labels.nii.gz` or with another ending; as a stored object it has no
//! ending, so the name within the artifact tells the format.

use ndarray::{Array3, ArrayView3, Axis};
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
    labels: ArrayView3<'_, i16>,
    geometry: &Geometry,
    ending: &str,
) -> Result<(), StageError> {
    let path = writer.file(&format!("{STEM}{ending}"))?;
    let unsigned = labels.mapv(|label| u16::try_from(label).unwrap_or(0));
    write_labels(&path, unsigned.view(), geometry, ending)
        .map_err(|error| StageError::storage("the label image cannot be written").with_source(error))
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
