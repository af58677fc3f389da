//! The header of a NIfTI file as its own bytes.
//!
//! Both versions hold the same fields at other places and in other widths; a table says where. Keeping the bytes instead
//! of a struct of values is what lets a label image carry fields that nnflow gives no meaning to.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::image::error::ReadErrorKind;
use crate::image::source::Source;

/// Length of a NIfTI-1 header, which is also its first field.
const LENGTH_1: usize = 348;
/// Length of a NIfTI-2 header, which is also its first field.
const LENGTH_2: usize = 540;

/// Version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// Width and meaning of a field's numbers.
#[derive(Debug, Clone, Copy)]
enum Number {
    U8,
    I16,
    I32,
    I64,
    F32,
    F64,
}

/// Where a field stands in the two versions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    one: (usize, Number),
    two: (usize, Number),
}

macro_rules! fields {
    ($($name:ident = $text:literal, $one:literal $one_kind:ident, $two:literal $two_kind:ident;)*) => {
        $(pub(super) const $name: Field =
            Field { name: $text, one: ($one, Number::$one_kind), two: ($two, Number::$two_kind) };)*
    };
}

fields! {
    DIM = "dim", 40 I16, 16 I64;
    INTENT_CODE = "intent_code", 68 I16, 504 I32;
    DATATYPE = "datatype", 70 I16, 12 I16;
    BITPIX = "bitpix", 72 I16, 14 I16;
    PIXDIM = "pixdim", 76 F32, 104 F64;
    VOX_OFFSET = "vox_offset", 108 F32, 168 I64;
    SCL_SLOPE = "scl_slope", 112 F32, 176 F64;
    SCL_INTER = "scl_inter", 116 F32, 184 F64;
    XYZT_UNITS = "xyzt_units", 123 U8, 500 I32;
    CAL_MAX = "cal_max", 124 F32, 192 F64;
    CAL_MIN = "cal_min", 128 F32, 200 F64;
    QFORM_CODE = "qform_code", 252 I16, 344 I32;
    SFORM_CODE = "sform_code", 254 I16, 348 I32;
    QUATERN = "quatern", 256 F32, 352 F64;
    QOFFSET = "qoffset", 268 F32, 376 F64;
    SROW = "srow", 280 F32, 400 F64;
}

/// The header of a NIfTI file, byte by byte; a string of hexadecimal digits in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NiftiHeader {
    bytes: Vec<u8>,
    pub(super) version: Version,
    pub(super) big_endian: bool,
}

impl NiftiHeader {
    /// A little-endian NIfTI-1 header of zeros but for what makes it one.
    pub(super) fn empty() -> Self {
        let mut header = Self { bytes: vec![0; LENGTH_1], version: Version::One, big_endian: false };
        header.bytes[..4].copy_from_slice(&(LENGTH_1 as u32).to_le_bytes());
        header.bytes[344..348].copy_from_slice(b"n+1\0");
        header
    }

    /// Reads the header at the start of a file.
    pub(super) fn read(source: &mut Source) -> Result<Self, ReadErrorKind> {
        let mut bytes = Vec::with_capacity(LENGTH_2);
        source.take(LENGTH_1 as u64).read_to_end(&mut bytes)?;
        let second = bytes.first_chunk().is_some_and(|first| matches!(version_of(*first), Some((Version::Two, _))));
        if second {
            source.take((LENGTH_2 - LENGTH_1) as u64).read_to_end(&mut bytes)?;
        }
        Self::from_bytes(bytes)
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, ReadErrorKind> {
        let refuse = |expected: &str, found: String| ReadErrorKind::NotThisFormat {
            format: "NIfTI",
            expected: expected.to_owned(),
            found,
        };
        let Some((version, big_endian)) = bytes.first_chunk().and_then(|first| version_of(*first)) else {
            let first = &bytes[..bytes.len().min(4)];
            return Err(refuse("348 or 540 as its first number", format!("bytes {first:02x?}")));
        };
        let (length, magic) = match version {
            Version::One => (LENGTH_1, 344..348),
            Version::Two => (LENGTH_2, 4..8),
        };
        if bytes.len() != length {
            return Err(refuse(&format!("a header of {length} bytes"), format!("{} bytes", bytes.len())));
        }
        match (version, &bytes[magic]) {
            (Version::One, b"n+1\0" | b"ni1\0") | (Version::Two, b"n+2\0" | b"ni2\0") => {}
            (Version::One, [0, ..]) => {
                return Err(ReadErrorKind::Unsupported {
                    what: "Analyze 7.5".to_owned(),
                    hint: "it cannot tell left from right: convert it to NIfTI with the program that wrote it",
                });
            }
            (_, other) => return Err(refuse("the magic `n+1`, `ni1`, `n+2` or `ni2`", format!("bytes {other:02x?}"))),
        }
        Ok(Self { bytes, version, big_endian })
    }

    /// The header's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Turns it into the header of a single file, whichever it was.
    pub(super) fn make_single_file(&mut self) {
        let magic = match self.version {
            Version::One => 344,
            Version::Two => 4,
        };
        self.bytes[magic + 1] = b'+';
    }

    /// Place and kind of a number, and its bytes in little-endian order, padded with zeros.
    fn number(&self, field: Field, index: usize) -> (Number, [u8; 8]) {
        let (offset, number) = self.place(field, index);
        let width = width(number);
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&self.bytes[offset..][..width]);
        if self.big_endian {
            bytes[..width].reverse();
        }
        (number, bytes)
    }

    fn place(&self, field: Field, index: usize) -> (usize, Number) {
        let (offset, number) = match self.version {
            Version::One => field.one,
            Version::Two => field.two,
        };
        (offset + index * width(number), number)
    }

    /// The `index`-th number of a field.
    pub(super) fn real(&self, field: Field, index: usize) -> f64 {
        let (number, bytes) = self.number(field, index);
        match number {
            Number::F32 => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            Number::F64 => f64::from_le_bytes(bytes),
            _ => self.integer(field, index) as f64,
        }
    }

    /// The `index`-th number of a field, rounded towards zero.
    pub(super) fn integer(&self, field: Field, index: usize) -> i64 {
        let (number, bytes) = self.number(field, index);
        match number {
            Number::U8 => i64::from(bytes[0]),
            Number::I16 => i64::from(i16::from_le_bytes([bytes[0], bytes[1]])),
            Number::I32 => i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            Number::I64 => i64::from_le_bytes(bytes),
            Number::F32 | Number::F64 => self.real(field, index) as i64,
        }
    }

    /// Sets the `index`-th number of a field; a value beyond its range ends at the range's limit.
    pub(super) fn set(&mut self, field: Field, index: usize, value: f64) {
        let (offset, number) = self.place(field, index);
        let mut bytes = [0; 8];
        let width = width(number);
        match number {
            Number::U8 => bytes[0] = value as u8,
            Number::I16 => bytes[..2].copy_from_slice(&(value as i16).to_le_bytes()),
            Number::I32 => bytes[..4].copy_from_slice(&(value as i32).to_le_bytes()),
            Number::I64 => bytes = (value as i64).to_le_bytes(),
            Number::F32 => bytes[..4].copy_from_slice(&(value as f32).to_le_bytes()),
            Number::F64 => bytes = value.to_le_bytes(),
        }
        if self.big_endian {
            bytes[..width].reverse();
        }
        self.bytes[offset..][..width].copy_from_slice(&bytes[..width]);
    }

    /// Largest extent that a header of this version can hold.
    pub(super) fn largest_extent(&self) -> usize {
        match self.version {
            Version::One => i16::MAX as usize,
            Version::Two => i64::MAX as usize,
        }
    }
}

/// Version and whether the file is big endian, by its first number.
fn version_of(first: [u8; 4]) -> Option<(Version, bool)> {
    let versions = [(LENGTH_1, Version::One), (LENGTH_2, Version::Two)];
    versions.into_iter().find_map(|(length, version)| {
        let length = length as u32;
        if u32::from_le_bytes(first) == length {
            return Some((version, false));
        }
        (u32::from_be_bytes(first) == length).then_some((version, true))
    })
}

fn width(number: Number) -> usize {
    match number {
        Number::U8 => 1,
        Number::I16 => 2,
        Number::I32 | Number::F32 => 4,
        Number::I64 | Number::F64 => 8,
    }
}

impl From<NiftiHeader> for String {
    fn from(header: NiftiHeader) -> Self {
        header.bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        Self::from_bytes(bytes).map_err(|error| error.to_string())
    }
}
