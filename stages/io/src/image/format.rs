//! Image formats and their endings.

use super::error::ReadErrorKind;

/// A format of image files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageFormat {
    /// NIfTI-1 or NIfTI-2 in one file.
    Nifti,
    /// NIfTI-1 or NIfTI-2 with header and voxels in two files.
    NiftiPair,
    /// MetaImage, header and voxels in one file or two.
    MetaImage,
    /// NRRD, header and voxels in one file or two.
    Nrrd,
    /// TIFF, one page a slice.
    Tiff,
    /// PNG.
    Png,
    /// Windows bitmap.
    Bmp,
}

/// Every ending with its format; a name has the format of the first ending that fits.
const ENDINGS: [(&str, ImageFormat); 14] = [
    (".nii", ImageFormat::Nifti),
    (".nii.gz", ImageFormat::Nifti),
    (".hdr", ImageFormat::NiftiPair),
    (".hdr.gz", ImageFormat::NiftiPair),
    (".img", ImageFormat::NiftiPair),
    (".img.gz", ImageFormat::NiftiPair),
    (".mha", ImageFormat::MetaImage),
    (".mhd", ImageFormat::MetaImage),
    (".nrrd", ImageFormat::Nrrd),
    (".nhdr", ImageFormat::Nrrd),
    (".tif", ImageFormat::Tiff),
    (".tiff", ImageFormat::Tiff),
    (".png", ImageFormat::Png),
    (".bmp", ImageFormat::Bmp),
];

impl ImageFormat {
    /// The format of a file with this name, or with this ending alone.
    ///
    /// # Errors
    /// [`ReadErrorKind::Ending`] for an ending of no format.
    pub fn of(name: &str) -> Result<Self, ReadErrorKind> {
        let name = name.to_ascii_lowercase();
        let known = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending));
        known.map(|(_, format)| *format).ok_or_else(|| ReadErrorKind::Ending {
            expected: ENDINGS.map(|(ending, _)| format!("`{ending}`")).join(", "),
        })
    }
}
