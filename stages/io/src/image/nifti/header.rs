//! The header of a NIfTI file: bytes to whoever keeps it, typed fields to the reader and the writer.
//!
//! A label image gets the header of the image it belongs to, with all the fields that nnflow gives no meaning to. Both
//! versions therefore go back to the bytes they came from, to the last bit.

use std::io::Read;

use ::nifti::{Endianness, NiftiType, Unit};
use serde::{Deserialize, Serialize};

use super::first;
use super::second::{self, Second};
use crate::image::error::ReadErrorKind;
use crate::image::source::Source;

/// Bytes behind the header that say that no extension follows.
pub(super) const NO_EXTENSION: [u8; 4] = [0; 4];

/// The header of a NIfTI file; a string of hexadecimal digits in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NiftiHeader(Version);

/// A header of either version of the format.
#[derive(Debug, Clone)]
enum Version {
    One(Box<::nifti::NiftiHeader>),
    Two(Box<Second>),
}

/// What the reader needs to know of a header, in numbers wide enough for both versions.
pub(super) struct Fields {
    /// Number of axes, then the extents of seven of them, the one that varies fastest first.
    pub(super) dim: [i64; 8],
    /// Code of the voxels' type.
    pub(super) datatype: i16,
    /// What that code stands for; `None` if for nothing.
    pub(super) data_type: Option<NiftiType>,
    pub(super) pixdim: [f64; 8],
    pub(super) vox_offset: i64,
    pub(super) scl_slope: f64,
    pub(super) scl_inter: f64,
    /// Unit of the distances; `None` for a code that stands for nothing.
    pub(super) unit: Option<Unit>,
    pub(super) qform_code: i32,
    pub(super) sform_code: i32,
    /// Quaternion `b, c, d`.
    pub(super) quatern: [f64; 3],
    pub(super) qoffset: [f64; 3],
    /// Rows of the affine map.
    pub(super) srow: [[f64; 4]; 3],
}

/// What the header of a file that is written says of its voxels.
pub(super) struct Contents {
    /// As in [`Fields`]; no extent is above [`NiftiHeader::largest_extent`].
    pub(super) dim: [usize; 8],
    pub(super) data_type: NiftiType,
}

impl Contents {
    /// Bits of a voxel.
    pub(super) fn bits(&self) -> i16 {
        8 * self.data_type.size_of() as i16
    }
}

impl NiftiHeader {
    /// Reads the header at the start of a file.
    pub(super) fn read(source: &mut Source) -> Result<Self, ReadErrorKind> {
        let mut bytes = Vec::with_capacity(second::LENGTH);
        source.take(first::LENGTH as u64).read_to_end(&mut bytes)?;
        if matches!(version_of(&bytes), Some((second::LENGTH, _))) {
            source.take((second::LENGTH - first::LENGTH) as u64).read_to_end(&mut bytes)?;
        }
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, ReadErrorKind> {
        let version = match version_of(bytes) {
            Some((first::LENGTH, order)) => Version::One(Box::new(first::parse(whole(bytes)?, order)?)),
            Some((_, order)) => Version::Two(Box::new(Second::parse(*whole(bytes)?, order)?)),
            None => {
                let found = format!("bytes {:02x?}", &bytes[..bytes.len().min(4)]);
                return Err(no_nifti("348 or 540 as its first number", found));
            }
        };
        Ok(Self(version))
    }

    /// The bytes that a file begins with.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match &self.0 {
            Version::One(header) => first::bytes(header),
            Version::Two(header) => header.bytes().to_vec(),
        }
    }

    /// Number of its bytes.
    pub(super) fn length(&self) -> usize {
        match self.0 {
            Version::One(_) => first::LENGTH,
            Version::Two(_) => second::LENGTH,
        }
    }

    /// True if the numbers of header and voxels have their highest byte first.
    pub(super) fn is_big_endian(&self) -> bool {
        let order = match &self.0 {
            Version::One(header) => header.endianness,
            Version::Two(header) => header.order(),
        };
        order == Endianness::Big
    }

    /// What it says.
    pub(super) fn fields(&self) -> Fields {
        match &self.0 {
            Version::One(header) => first::fields(header),
            Version::Two(header) => header.fields(),
        }
    }

    /// Makes it the header of a single file of these voxels, unscaled and without extensions.
    pub(super) fn describe(&mut self, contents: &Contents) {
        match &mut self.0 {
            Version::One(header) => first::describe(header, contents),
            Version::Two(header) => header.describe(contents),
        }
    }

    /// Largest extent that a header of this version can hold.
    pub(super) fn largest_extent(&self) -> usize {
        match self.0 {
            Version::One(_) => i16::MAX as usize,
            Version::Two(_) => i64::MAX as usize,
        }
    }
}

/// Length of the header and byte order of the file, both by its first number.
fn version_of(bytes: &[u8]) -> Option<(usize, Endianness)> {
    let first = *bytes.first_chunk()?;
    let orders = [(u32::from_le_bytes(first), Endianness::Little), (u32::from_be_bytes(first), Endianness::Big)];
    let lengths = orders.map(|(length, order)| (length as usize, order));
    lengths.into_iter().find(|(length, _)| [first::LENGTH, second::LENGTH].contains(length))
}

/// The bytes, if they are exactly a header's.
fn whole<const LENGTH: usize>(bytes: &[u8]) -> Result<&[u8; LENGTH], ReadErrorKind> {
    let refuse = |_| no_nifti(&format!("a header of {LENGTH} bytes"), format!("{} bytes", bytes.len()));
    bytes.try_into().map_err(refuse)
}

/// The error of a file that is none of this format.
pub(super) fn no_nifti(expected: &str, found: String) -> ReadErrorKind {
    ReadErrorKind::NotThisFormat { format: "NIfTI", expected: expected.to_owned(), found }
}

/// The error of a wrong field `dim`.
pub(super) fn wrong_dim(expected: &str, found: String) -> ReadErrorKind {
    ReadErrorKind::Header { field: "dim", expected: expected.to_owned(), found }
}

/// The error of a number of axes that no file has.
pub(super) fn wrong_rank(found: i64) -> ReadErrorKind {
    wrong_dim("2 to 7 axes", found.to_string())
}

/// Bytes are compared: a field that is no number differs from itself.
impl PartialEq for NiftiHeader {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for NiftiHeader {}

impl From<::nifti::NiftiHeader> for NiftiHeader {
    fn from(header: ::nifti::NiftiHeader) -> Self {
        Self(Version::One(Box::new(header)))
    }
}

impl From<NiftiHeader> for String {
    fn from(header: NiftiHeader) -> Self {
        header.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for NiftiHeader {
    type Error = String;

    fn try_from(digits: String) -> Result<Self, String> {
        let pairs = digits.as_bytes().chunks(2);
        let bytes = pairs.map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        let bytes: Option<Vec<u8>> = bytes.collect();
        let bytes = bytes.ok_or("expected the header of a NIfTI file as pairs of hexadecimal digits")?;
        Self::from_bytes(&bytes).map_err(|error| error.to_string())
    }
}
