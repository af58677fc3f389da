//! A case on its way from the file to the network: the record that goes with its voxels, and how both are loaded.
//!
//! Two kinds of artifact hold a case. `cases` is what `ingest` makes: the voxels of the file. `prepared` is what
//! `normalize` and `resample` make, in either order: cropped, with the axes in the order of the plan. Whichever of the two
//! comes first meets raw cases and has to crop and transpose them, the other one does not. [`PreparedCase::load`] hides
//! the difference, so that the order is the workflow's to choose.

use ndarray::{Array3, Array4, ArrayView3, Axis, Zip};
use nnflow_io::array::{ArrayError, ArrayFile, ArrayOptions, write_array};
use nnflow_io::image::Geometry;
use nnflow_io::json;
use nnflow_kernels::geometry::{BoundingBox, Spacing, Transpose};
use nnflow_stage::{Artifact, Context, InputValue, OutputWriter, ResourceQuery, StageError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The record of a case, a [`CaseRecord`].
pub const RECORD: &str = "case.json";
/// Intensities, `f32` `[c, z, y, x]`.
pub const IMAGE: &str = "image.nna";
/// Labels, `i16` `[1, z, y, x]`; in a prepared case -1 outside the nonzero region.
pub const LABEL: &str = "label.nna";
/// The record of a cropping, a [`CropRecord`].
pub const CROP: &str = "crop.json";
/// The nonzero region within its box, `u8` `[1, z, y, x]`.
pub const MASK: &str = "mask.nna";
/// Label of voxels outside the nonzero region.
pub const OUTSIDE: i16 = -1;
/// Bytes of a record that is read to estimate memory; a larger one is none of ours.
const LARGEST_RECORD: u64 = 1 << 20;

/// What is known of a case besides its voxels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseRecord {
    /// Name of the case.
    pub identifier: String,
    /// Number of channels of the image.
    pub channels: usize,
    /// Ending of the dataset's files, with its dot; label images are written with it.
    pub file_ending: String,
    /// Whether there is a label image.
    pub labelled: bool,
    /// The grid of the image file.
    pub geometry: Geometry,
    /// The grid of the arrays, once they are no longer those of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PreparedGrid>,
}

impl CaseRecord {
    /// The record in the artifact of a case.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn read(artifact: &Artifact) -> Result<Self, StageError> {
        read_json(artifact, RECORD)
    }

    /// The grid of the arrays of a case that is preprocessed.
    ///
    /// # Errors
    /// If it is not.
    pub fn prepared_grid(&self) -> Result<&PreparedGrid, StageError> {
        self.prepared.as_ref().ok_or_else(|| {
            StageError::input(format!("case `{}` is not preprocessed", self.identifier))
                .with_hint("connect `cases` to the last stage of preprocessing")
        })
    }
}

/// The grid of a case's arrays after cropping; axis `i` is axis `transpose_forward[i]` of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedGrid {
    /// From the axes of the file to those of the arrays.
    pub transpose_forward: Transpose,
    /// What was cut out of the image, with the axes of the arrays: nnU-Net's `bbox_used_for_cropping`. Its extents are
    /// `shape_after_cropping_and_before_resampling`.
    pub cropped_to: BoundingBox,
    /// Voxels along each axis of the arrays.
    pub shape: [usize; 3],
    /// Distance between voxels of the arrays in millimetres.
    pub spacing: Spacing,
}

impl PreparedGrid {
    /// The spacing before resampling in millimetres, with the axes of the arrays.
    #[must_use]
    pub fn original_spacing(&self, geometry: &Geometry) -> Spacing {
        self.transpose_forward.apply_spacing(geometry.spacing)
    }

    /// The shape before cropping, with the axes of the arrays: nnU-Net's `shape_before_cropping`.
    #[must_use]
    pub fn shape_before_cropping(&self, geometry: &Geometry) -> [usize; 3] {
        self.transpose_forward.apply(geometry.shape)
    }
}

/// Where the nonzero region of a case is, with the axes of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CropRecord {
    /// The smallest box around the region.
    #[serde(rename = "box")]
    pub region: BoundingBox,
    /// Voxels along each axis of the file.
    pub shape_before: [usize; 3],
    /// Voxels along each axis of the box.
    pub shape_after: [usize; 3],
}

/// A case that is cropped and has the axes of the plan.
#[derive(Debug, Clone)]
pub struct PreparedCase {
    /// The record; its `prepared` is set.
    pub record: CaseRecord,
    /// Where the arrays lie.
    pub grid: PreparedGrid,
    /// Intensities `[c, a0, a1, a2]`.
    pub image: Array4<f32>,
    /// Labels `[a0, a1, a2]`, -1 where a voxel outside the nonzero region has label 0. A case without labels has 0 inside
    /// and -1 outside.
    pub label: Array3<i16>,
}

impl PreparedCase {
    /// Loads the case at the ports `cases` and `crop`: a raw one is cropped and transposed, a prepared one is as it is.
    ///
    /// # Errors
    /// If a file is missing or damaged, a raw case comes without its crop, or a prepared one has other axes than the plan.
    pub fn load(context: &Context<'_>, transpose: Transpose) -> Result<Self, StageError> {
        let artifact = context.artifact("cases")?;
        let record = CaseRecord::read(artifact)?;
        if record.prepared.is_some() {
            return Self::from_prepared(artifact, record, transpose);
        }
        let crop = context.optional_artifact("crop")?.ok_or_else(|| {
            StageError::input(format!(
                "case `{}` is not cropped yet, and nothing arrived at input `crop`",
                record.identifier
            ))
            .with_hint("connect `crop` to the stage that crops: `inputs = { crop = \"crop\" }`")
        })?;
        Self::from_raw(artifact, record, crop, transpose)
    }

    fn from_prepared(artifact: &Artifact, record: CaseRecord, transpose: Transpose) -> Result<Self, StageError> {
        let grid =
            record.prepared.clone().ok_or_else(|| StageError::internal("a raw case was taken for a prepared one"))?;
        if grid.transpose_forward != transpose {
            return Err(StageError::input(format!(
                "case `{}` was prepared with the order of axes `{:?}`, the plan has `{:?}`",
                record.identifier,
                grid.transpose_forward.axes(),
                transpose.axes()
            ))
            .with_hint("connect both preparing stages to the same plan"));
        }
        let image = read_array::<f32>(artifact, IMAGE)?;
        let label = first_channel(read_array::<i16>(artifact, LABEL)?);
        let case = Self { record, grid, image, label };
        case.checked()
    }

    fn from_raw(
        artifact: &Artifact,
        record: CaseRecord,
        crop: &Artifact,
        transpose: Transpose,
    ) -> Result<Self, StageError> {
        let RawRegion { crop, image, label, mask } = RawRegion::read(artifact, &record, crop)?;
        let label = with_outside(label, mask.view());
        let grid = PreparedGrid {
            transpose_forward: transpose,
            cropped_to: transpose.apply_box(crop.region),
            shape: transpose.apply(crop.shape_after),
            spacing: transpose.apply_spacing(record.geometry.spacing),
        };
        let [slice, row, column] = transpose.axes();
        let image = image.permuted_axes([0, slice + 1, row + 1, column + 1]);
        let label = label.permuted_axes([slice, row, column]);
        // The kernels are fastest on arrays in C order.
        let image = if image.is_standard_layout() { image } else { image.as_standard_layout().into_owned() };
        let label = if label.is_standard_layout() { label } else { label.as_standard_layout().into_owned() };
        Self { record, grid, image, label }.checked()
    }

    fn checked(self) -> Result<Self, StageError> {
        let shape = self.grid.shape;
        let expected = [self.record.channels, shape[0], shape[1], shape[2]];
        if self.image.shape() != expected || self.label.shape() != shape {
            return Err(StageError::storage(format!(
                "the arrays of case `{}` do not fit its record: expected an image of shape `{expected:?}`, found `{:?}`, and labels of shape `{shape:?}`, found `{:?}`",
                self.record.identifier,
                self.image.shape(),
                self.label.shape()
            )));
        }
        Ok(self)
    }

    /// The nonzero region as nnU-Net has it from here on: labelled voxels count as inside.
    #[must_use]
    pub fn mask(&self) -> Array3<bool> {
        self.label.mapv(|label| label != OUTSIDE)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_record(&self, writer: &mut OutputWriter<'_>) -> Result<(), StageError> {
        let record = CaseRecord { prepared: Some(self.grid.clone()), ..self.record.clone() };
        writer.json(RECORD, &record)
    }

    /// Writes image and labels.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_arrays(&self, writer: &mut OutputWriter<'_>, options: &ArrayOptions) -> Result<(), StageError> {
        self.write_image(writer, options)?;
        write_label(writer, self.label.view(), options)
    }

    /// Writes the image.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_image(&self, writer: &mut OutputWriter<'_>, options: &ArrayOptions) -> Result<(), StageError> {
        write_array(&writer.file(IMAGE)?, self.image.view(), options).map_err(unreadable)
    }
}

/// The part of a raw case that cropping leaves, with the axes of the file.
pub(crate) struct RawRegion {
    /// Where it was.
    pub(crate) crop: CropRecord,
    /// Intensities `[c, z, y, x]`.
    pub(crate) image: Array4<f32>,
    /// Labels `[z, y, x]`; 0 everywhere in a case without labels.
    pub(crate) label: Array3<i16>,
    /// The nonzero region.
    pub(crate) mask: Array3<bool>,
}

impl RawRegion {
    /// Reads only what lies inside the box.
    pub(crate) fn read(cases: &Artifact, record: &CaseRecord, crop: &Artifact) -> Result<Self, StageError> {
        let found: CropRecord = read_json(crop, CROP)?;
        if found.shape_before != record.geometry.shape || found.region.shape() != found.shape_after {
            return Err(StageError::input(format!(
                "the crop of case `{}` is that of an image of shape `{:?}`, the case has shape `{:?}`",
                record.identifier, found.shape_before, record.geometry.shape
            ))
            .with_hint("connect `crop` to a stage that reads the same cases"));
        }
        let image = open(cases, IMAGE)?;
        let label = if record.labelled {
            first_channel(read_region::<i16>(&open(cases, LABEL)?, &found.region)?)
        } else {
            Array3::zeros(found.shape_after)
        };
        let mask = first_channel(read_array::<u8>(crop, MASK)?).mapv(|inside| inside != 0);
        if mask.shape() != found.shape_after {
            return Err(StageError::storage(format!("the mask of case `{}` does not fill its box", record.identifier)));
        }
        let image = read_region::<f32>(&image, &found.region)?;
        Ok(Self { crop: found, image, label, mask })
    }
}

/// Sets label 0 outside the nonzero region to -1; other labels stay, also outside (nnU-Net 2.8.1 `crop_to_nonzero`).
fn with_outside(mut label: Array3<i16>, mask: ArrayView3<'_, bool>) -> Array3<i16> {
    Zip::from(&mut label).and(mask).par_for_each(|label, &inside| {
        if *label == 0 && !inside {
            *label = OUTSIDE;
        }
    });
    label
}

/// Writes labels `[z, y, x]` as the file that every case has.
pub(crate) fn write_label(
    writer: &mut OutputWriter<'_>,
    label: ArrayView3<'_, i16>,
    options: &ArrayOptions,
) -> Result<(), StageError> {
    write_array(&writer.file(LABEL)?, label.insert_axis(Axis(0)), options).map_err(unreadable)
}

/// A JSON file of an artifact.
///
/// # Errors
/// If it is missing or does not hold a `T`.
pub fn read_json<T: DeserializeOwned>(artifact: &Artifact, name: &str) -> Result<T, StageError> {
    let file = artifact.file(name).ok_or_else(|| missing(name))?;
    json::read(&file.path).map_err(|error| StageError::storage(format!("`{name}` cannot be used")).with_source(error))
}

/// An array file of an artifact.
///
/// # Errors
/// If it is missing or damaged.
pub fn open(artifact: &Artifact, name: &str) -> Result<ArrayFile, StageError> {
    let file = artifact.file(name).ok_or_else(|| missing(name))?;
    ArrayFile::open(&file.path).map_err(unreadable)
}

fn read_array<T: nnflow_io::array::Element>(artifact: &Artifact, name: &str) -> Result<Array4<T>, StageError> {
    open(artifact, name)?.read_all().map_err(unreadable)
}

fn read_region<T: nnflow_io::array::Element>(file: &ArrayFile, region: &BoundingBox) -> Result<Array4<T>, StageError> {
    let start = region.start().map(|first| first as isize);
    file.read_box(0..file.shape()[0], start, region.shape(), T::zeroed()).map_err(unreadable)
}

fn first_channel<T: Clone>(array: Array4<T>) -> Array3<T> {
    array.index_axis_move(Axis(0), 0)
}

fn missing(name: &str) -> StageError {
    StageError::input(format!("the artifact of the case has no file `{name}`"))
}

/// A damaged or unwritable array file as an error of the stage.
pub(crate) fn unreadable(error: ArrayError) -> StageError {
    StageError::storage("an array file cannot be used").with_source(error)
}

/// Number of values of the image at the port `cases`, and its record, where a task's memory is estimated.
///
/// Array files are compressed, so their sizes say little of the memory that they need; the record is small and says it
/// all. `None` where there is no record to be read.
pub(crate) fn size_of_case(query: &ResourceQuery<'_>) -> Option<(u64, CaseRecord)> {
    let artifact = query.inputs.get("cases")?.iter().find_map(|member| match &member.value {
        InputValue::One(artifact) => Some(artifact),
        _ => None,
    })?;
    let record = small_record(artifact)?;
    let shape = record.prepared.as_ref().map_or(record.geometry.shape, |grid| grid.shape);
    let values = shape.iter().try_fold(record.channels as u64, |values, &extent| values.checked_mul(extent as u64))?;
    Some((values, record))
}

/// The record of a case where a task's memory is estimated; `None` where there is none to be read.
pub(crate) fn small_record(artifact: &Artifact) -> Option<CaseRecord> {
    let small = artifact.file(RECORD).is_some_and(|file| file.bytes <= LARGEST_RECORD);
    small.then(|| CaseRecord::read(artifact).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn only_background_outside_the_region_becomes_outside() {
        let label = array![[[0, 0, 2, 2]]];
        let mask = array![[[true, false, true, false]]];
        assert_eq!(with_outside(label, mask.view()), array![[[0, -1, 2, 2]]]);
    }

    #[test]
    fn a_record_with_a_field_that_is_unknown_is_refused() {
        let text = r#"{"box":{"start":[0,0,0],"stop":[1,1,1]},"shape_before":[1,1,1],"shape_after":[1,1,1],"more":1}"#;
        assert!(serde_json::from_str::<CropRecord>(text).is_err());
    }
}
