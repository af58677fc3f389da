//! Distances between the voxels of TIFF volumes, which stand in files of their own.
//!
//! `CASE.json` with `{"spacing": [z, y, x]}` (mm) beside `CASE_0000.tif` and beside the label image `CASE.tif`, as `Tiff3DIO`
//! of nnU-Net 2.8.1 reads and writes them.

use std::path::{Path, PathBuf};

use nnflow_kernels::geometry::Spacing;
use serde::Deserialize;

use super::scan::{CHANNEL_DIGITS, file_name};
use crate::image::ImageFormat;
use crate::json::{self, JsonError};

/// Content of such a file; nnU-Net reads one key of it.
#[derive(Deserialize)]
struct Content {
    spacing: Spacing,
}

/// The spacing file of an image, if there is one.
///
/// `has_channel` tells whether the image's name ends in the number of a channel.
#[must_use]
pub fn spacing_file(image: &Path, ending: &str, has_channel: bool) -> Option<PathBuf> {
    let stem = file_name(image)?.strip_suffix(ending).filter(|_| is_tiff(ending))?;
    let channel = if has_channel { 1 + CHANNEL_DIGITS } else { 0 };
    let identifier = stem.get(..stem.len().checked_sub(channel)?)?;
    Some(image.with_file_name(format!("{identifier}.json"))).filter(|file| file.is_file())
}

/// Reads a spacing file.
///
/// # Errors
/// [`JsonError`] unless the file has three distances above 0.
pub fn read_spacing(path: &Path) -> Result<Spacing, JsonError> {
    json::read::<Content>(path).map(|content| content.spacing)
}

/// Whether images of this ending are TIFF files.
pub(super) fn is_tiff(ending: &str) -> bool {
    matches!(ImageFormat::of(ending), Ok(ImageFormat::Tiff))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(image: &str, ending: &str, has_channel: bool) -> Option<PathBuf> {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("a.json"), r#"{"spacing": [3, 0.5, 0.5]}"#).expect("writes");
        let file = spacing_file(&folder.path().join(image), ending, has_channel)?;
        assert_eq!(read_spacing(&file).expect("three distances").values(), [3.0, 0.5, 0.5]);
        file.file_name().map(PathBuf::from)
    }

    #[test]
    fn all_channels_and_the_label_image_share_the_name() {
        assert_eq!(found("a_0000.tif", ".tif", true), Some("a.json".into()));
        assert_eq!(found("a.tiff", ".tiff", false), Some("a.json".into()));
    }

    #[test]
    fn other_formats_know_their_spacing() {
        assert_eq!(found("a_0000.nii.gz", ".nii.gz", true), None);
    }

    #[test]
    fn a_distance_of_zero_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a.json");
        std::fs::write(&path, r#"{"spacing": [0, 1, 1]}"#).expect("writes");
        assert!(read_spacing(&path).is_err());
    }
}
