//! Medical and natural images: voxels as `[c, z, y, x]`, and the geometry that leads back to the file's own grid.
//!
//! nnU-Net reads images through SimpleITK, so what SimpleITK makes of a file is what is right here: spacing and order of
//! axes, scaling of stored numbers, 2-D images as one slice with a dummy spacing. The first axis of a file's voxels
//! varies fastest, which is the last axis of an array in C order; no reader moves a voxel.
//!
//! Formats are told by the ending of a *name* that is given beside the path, because stored objects have names that are
//! digests. Whether a file is compressed is told by its first bytes.

mod ascii;
mod error;
mod format;
mod geometry;
mod metaimage;
mod natural;
mod nifti;
mod nrrd;
mod paged;
mod source;
mod text;
mod voxels;

use std::path::Path;

use ndarray::{Array3, Array4, ArrayView3, ArrayView4, Axis};

use crate::atomic;

pub use error::{ImageWriteError, ReadError, ReadErrorKind};
pub use format::ImageFormat;
pub use geometry::{Geometry, GridDifference};
pub use nifti::NiftiHeader;
pub use voxels::StoredKind;

/// Value of a label image from which on its voxels no longer fit what nnU-Net writes as 8 bits.
const LEAST_WIDE_LABEL: u16 = 255;

/// An image in memory.
#[derive(Debug, Clone)]
pub struct Image {
    /// Intensities `[c, z, y, x]`, scaled as the file says.
    pub voxels: Array4<f32>,
    /// Where the voxels lie.
    pub geometry: Geometry,
    /// How the file stores a voxel.
    pub kind: StoredKind,
    /// True if stored numbers were multiplied by a slope or shifted by an intercept.
    pub scaled: bool,
}

/// What the header of an image file says.
#[derive(Debug, Clone)]
pub struct ImageHeader {
    /// Number of channels: volumes of a 4-D file, colours of a natural image.
    pub channels: usize,
    /// Where the voxels lie.
    pub geometry: Geometry,
    /// How the file stores a voxel.
    pub kind: StoredKind,
    /// True if stored numbers are to be multiplied by a slope or shifted by an intercept.
    pub scaled: bool,
}

/// Reads an image; the format is told by the ending of `name`.
///
/// # Errors
/// [`ReadError`] if the file is missing, malformed, of a kind that is not supported, or too large for the memory.
pub fn read_image(path: &Path, name: &str) -> Result<Image, ReadError> {
    let read = || match ImageFormat::of(name)? {
        ImageFormat::Nifti => nifti::read_image(path),
        ImageFormat::NiftiPair => nifti::read_pair(path),
        ImageFormat::MetaImage => text::read_image(path, metaimage::parse),
        ImageFormat::Nrrd => text::read_image(path, nrrd::parse),
        ImageFormat::Tiff => paged::read_image(path),
        ImageFormat::Png | ImageFormat::Bmp => natural::read_image(path, name),
    };
    read().map_err(|kind| ReadError::new(path, name, kind))
}

/// Reads what the header of an image says, and no voxel.
///
/// # Errors
/// [`ReadError`] if the file is missing, malformed or of a kind that is not supported.
pub fn read_header(path: &Path, name: &str) -> Result<ImageHeader, ReadError> {
    let read = || match ImageFormat::of(name)? {
        ImageFormat::Nifti => nifti::read_header(path),
        ImageFormat::NiftiPair => nifti::read_pair_header(path),
        ImageFormat::MetaImage => text::read_header(path, metaimage::parse),
        ImageFormat::Nrrd => text::read_header(path, nrrd::parse),
        ImageFormat::Tiff => paged::read_header(path),
        ImageFormat::Png | ImageFormat::Bmp => natural::read_header(path, name),
    };
    read().map_err(|kind| ReadError::new(path, name, kind))
}

/// Reads a label image `[z, y, x]`; the format is told by the ending of `name`.
///
/// # Errors
/// [`ReadError`] as for an image, and if the file has several channels or a voxel that is no whole number from -32768 to
/// 32767.
pub fn read_labels(path: &Path, name: &str) -> Result<(Array3<i16>, Geometry), ReadError> {
    let image = read_image(path, name)?;
    let labels = labels_of(&image.voxels).map_err(|kind| ReadError::new(path, name, kind))?;
    Ok((labels, image.geometry))
}

fn labels_of(voxels: &Array4<f32>) -> Result<Array3<i16>, ReadErrorKind> {
    let channels = voxels.dim().0;
    if channels != 1 {
        return Err(ReadErrorKind::LabelChannels { found: channels });
    }
    let volume = voxels.index_axis(Axis(0), 0);
    let whole = |&value: &f32| f32::from(value as i16) == value;
    if let Some((position, &value)) = volume.indexed_iter().find(|(_, value)| !whole(value)) {
        return Err(ReadErrorKind::LabelValue { value, position: position.into() });
    }
    Ok(volume.mapv(|value| value as i16))
}

/// Writes labels `[z, y, x]` in the format of `ending`, onto the grid of the image they belong to.
///
/// As nnU-Net does: 8 bits a voxel if all labels are below 255, else 16. Where the image was a NIfTI file and labels are
/// written as one, they get its header, so that their geometry is the image's to the last bit.
///
/// # Errors
/// [`ImageWriteError`] if the format cannot hold the labels or the file system fails; the file appears whole or not at
/// all.
pub fn write_labels(
    path: &Path,
    labels: ArrayView3<'_, u16>,
    geometry: &Geometry,
    ending: &str,
) -> Result<(), ImageWriteError> {
    let refuse = |reason: String| ImageWriteError::Unsupported { path: path.to_path_buf(), reason };
    geometry.check_shape(labels.shape()).map_err(refuse)?;
    let wide = labels.iter().any(|&label| label >= LEAST_WIDE_LABEL);
    let kind = if wide { StoredKind::U16 } else { StoredKind::U8 };
    let voxels = labels.insert_axis(Axis(0));
    let content = encode(voxels, kind, geometry, ending).map_err(refuse)?;
    atomic::write_unsynced_with(path, content).map_err(ImageWriteError::Write)
}

/// Writes intensities `[c, z, y, x]` in the format of `ending`; several channels make a 4-D file or a colour image.
///
/// Values are rounded to `kind`, half to even, and end at its limits.
///
/// # Errors
/// [`ImageWriteError`] if the format cannot hold the voxels or the file system fails; the file appears whole or not at
/// all.
pub fn write_image(
    path: &Path,
    voxels: ArrayView4<'_, f32>,
    geometry: &Geometry,
    kind: StoredKind,
    ending: &str,
) -> Result<(), ImageWriteError> {
    let refuse = |reason: String| ImageWriteError::Unsupported { path: path.to_path_buf(), reason };
    geometry.check_shape(&voxels.shape()[1..]).map_err(refuse)?;
    let content = encode(voxels, kind, geometry, ending).map_err(refuse)?;
    atomic::write_unsynced_with(path, content).map_err(ImageWriteError::Write)
}

/// What writes the content of a file.
type Content<'a> = Box<dyn FnOnce(&mut atomic::FileWriter<'_>) -> std::io::Result<()> + 'a>;

/// What writes the content of a file, or why the format cannot hold it.
fn encode<'a, T: voxels::Voxel>(
    voxels: ArrayView4<'a, T>,
    kind: StoredKind,
    geometry: &Geometry,
    ending: &str,
) -> Result<Content<'a>, String> {
    match ImageFormat::of(ending).map_err(|error| error.to_string())? {
        ImageFormat::Nifti => {
            let compressed = ending.ends_with(".gz");
            let header = nifti::header_for(geometry, voxels.dim().0, kind)?;
            Ok(Box::new(move |file| nifti::write(file, &header, voxels, kind, compressed)))
        }
        ImageFormat::NiftiPair => Err("expected one file: write `.nii` or `.nii.gz` instead".to_owned()),
        ImageFormat::MetaImage if !ending.ends_with("mha") => Err("expected one file: write `.mha` instead".to_owned()),
        ImageFormat::Nrrd if !ending.ends_with("nrrd") => Err("expected one file: write `.nrrd` instead".to_owned()),
        ImageFormat::MetaImage => {
            let geometry = geometry.clone();
            Ok(Box::new(move |file| metaimage::write(file, &geometry, voxels, kind)))
        }
        ImageFormat::Nrrd => {
            let geometry = geometry.clone();
            Ok(Box::new(move |file| nrrd::write(file, &geometry, voxels, kind)))
        }
        ImageFormat::Tiff => {
            let bytes = paged::encode(voxels, kind)?;
            Ok(Box::new(move |file| std::io::Write::write_all(file, &bytes)))
        }
        ImageFormat::Png | ImageFormat::Bmp => {
            let bytes = natural::encode(voxels, kind, ending)?;
            Ok(Box::new(move |file| std::io::Write::write_all(file, &bytes)))
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod text_tests;
