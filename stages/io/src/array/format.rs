//! Header and index of an array file.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::codec::most_decoded;
use super::element::ElementKind;
use crate::atomic::WriteError;

/// Bytes before the index.
pub(super) const HEADER_BYTES: usize = 96;
/// Bytes of one entry of the index.
const ENTRY_BYTES: usize = 16;
/// Bytes of the header that its checksum covers.
const CHECKED_BYTES: usize = 88;
const MAGIC: &[u8; 8] = b"nnf-nna\n";
const VERSION: u32 = 1;
/// Largest chunk in bytes; keeps sizes within `u32` and one decoding within reason.
const LARGEST_CHUNK: usize = 1 << 30;

/// An array file that could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot use array `{}`: {kind}", path.display())]
pub struct ArrayError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub kind: ArrayErrorKind,
}

/// What is wrong with an array file, or with what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayErrorKind {
    /// The file system failed while reading.
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    /// The file system failed while writing.
    #[error("the file cannot be written")]
    Write(#[from] WriteError),
    /// The file does not start as an array file does.
    #[error("not an array file: expected it to start with `nnf-nna`")]
    NotAnArray,
    /// A version of the format that this program does not know.
    #[error("expected version {VERSION} of the format, found {found}")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// The header or the index contradicts itself or the file's length.
    #[error("the header is corrupt: expected {expected}, found {found}")]
    Header {
        /// What had to be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The bytes of a chunk are not those that were written.
    #[error("chunk {chunk} is corrupt: {problem}")]
    Chunk {
        /// Number of the chunk in the index, from 0.
        chunk: usize,
        /// What shows it.
        problem: String,
    },
    /// The elements are of another kind than asked for.
    #[error("expected elements of kind {expected}, found {found}")]
    Kind {
        /// The kind asked for.
        expected: ElementKind,
        /// The kind in the file.
        found: ElementKind,
    },
    /// Channels that the array does not have.
    #[error("expected channels within 0..{channels}, found {start}..{stop}")]
    Channels {
        /// Channels in the file.
        channels: usize,
        /// First channel asked for.
        start: usize,
        /// One past the last channel asked for.
        stop: usize,
    },
    /// An array or chunk that is too large for the memory or the format.
    #[error("{what} of shape `{shape:?}` is too large")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its shape, `[c, z, y, x]`.
        shape: [usize; 4],
    },
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) size: u32,
    pub(super) checksum: u32,
}

/// What the first bytes of a file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: ElementKind,
    pub(super) shape: [usize; 4],
    pub(super) chunk: [usize; 4],
}

impl Header {
    /// Number of chunks along each axis.
    pub(super) fn grid(&self) -> [usize; 4] {
        std::array::from_fn(|axis| self.shape[axis].div_ceil(self.chunk[axis]))
    }

    /// Number of chunks; `None` if that exceeds `usize`.
    pub(super) fn chunks(&self) -> Option<usize> {
        checked_product(self.grid())
    }

    /// First element and shape of the chunk at a place of the grid.
    pub(super) fn block(&self, place: [usize; 4]) -> ([usize; 4], [usize; 4]) {
        let start: [usize; 4] = std::array::from_fn(|axis| place[axis] * self.chunk[axis]);
        let shape = std::array::from_fn(|axis| self.chunk[axis].min(self.shape[axis] - start[axis]));
        (start, shape)
    }

    /// Number of the chunk at a place of the grid.
    pub(super) fn number(&self, place: [usize; 4]) -> usize {
        self.grid().iter().zip(place).fold(0, |number, (extent, index)| number * extent + index)
    }

    /// Place in the grid of the chunk with a number.
    pub(super) fn place(&self, number: usize) -> [usize; 4] {
        let mut rest = number;
        let mut place = [0; 4];
        for (axis, extent) in self.grid().into_iter().enumerate().rev() {
            place[axis] = rest % extent;
            rest /= extent;
        }
        place
    }

    /// Checks that sizes stay within the format's limits.
    pub(super) fn check(&self) -> Result<(), ArrayErrorKind> {
        let width = self.kind.width();
        let fits = |shape, limit| {
            checked_product(shape).and_then(|count| count.checked_mul(width)).is_some_and(|bytes| bytes <= limit)
        };
        if !fits(self.chunk, LARGEST_CHUNK) {
            return Err(ArrayErrorKind::TooLarge { what: "a chunk", shape: self.chunk });
        }
        if !fits(self.shape, isize::MAX as usize) || self.chunks().is_none() {
            return Err(ArrayErrorKind::TooLarge { what: "an array", shape: self.shape });
        }
        Ok(())
    }

    /// Header and index as bytes.
    pub(super) fn encode(&self, index: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + index.len() * ENTRY_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[self.kind.code(), 0, 0, 0]);
        for extent in self.shape.into_iter().chain(self.chunk).chain([index.len()]) {
            bytes.extend_from_slice(&(extent as u64).to_le_bytes());
        }
        bytes.extend_from_slice(&[0; HEADER_BYTES - CHECKED_BYTES]);
        for entry in index {
            bytes.extend_from_slice(&entry.offset.to_le_bytes());
            bytes.extend_from_slice(&entry.size.to_le_bytes());
            bytes.extend_from_slice(&entry.checksum.to_le_bytes());
        }
        let checksum = header_checksum(&bytes);
        bytes[CHECKED_BYTES..][..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads header and index of a file and checks them against its length.
    pub(super) fn decode(file: &[u8]) -> Result<(Self, Vec<Entry>), ArrayErrorKind> {
        if !file.starts_with(MAGIC) {
            return Err(ArrayErrorKind::NotAnArray);
        }
        if file.len() < HEADER_BYTES {
            return Err(corrupt(format!("at least {HEADER_BYTES} bytes"), file.len()));
        }
        let version = read_u32(file, 8);
        if version != VERSION {
            return Err(ArrayErrorKind::Version { found: version });
        }
        let header = Self::decode_fixed(file)?;
        let chunks = header.chunks().unwrap_or(usize::MAX);
        if read_extent(file, 80) != Some(chunks) {
            return Err(corrupt(format!("{chunks} chunks for this shape"), read_u64(file, 80)));
        }
        let index_end = chunks.checked_mul(ENTRY_BYTES).and_then(|bytes| bytes.checked_add(HEADER_BYTES));
        let Some(index) = index_end.and_then(|end| file.get(..end)) else {
            return Err(corrupt(format!("an index of {chunks} chunks"), format!("a file of {} bytes", file.len())));
        };
        let checksum = read_u32(file, CHECKED_BYTES);
        if checksum != header_checksum(index) {
            return Err(corrupt("the checksum of header and index", format!("{checksum:#010x}")));
        }
        let entries: Vec<Entry> = index[HEADER_BYTES..].chunks_exact(ENTRY_BYTES).map(decode_entry).collect();
        header.check_index(&entries, index.len(), file.len())?;
        Ok((header, entries))
    }

    /// The fields before the number of chunks.
    fn decode_fixed(file: &[u8]) -> Result<Self, ArrayErrorKind> {
        let [kind, codec, reserved @ ..] = [file[12], file[13], file[14], file[15]];
        let kind = ElementKind::from_code(kind).ok_or_else(|| corrupt("an element kind of 0 to 7", kind))?;
        if codec != 0 {
            return Err(corrupt("codec 0", codec));
        }
        if reserved != [0, 0] || file[CHECKED_BYTES + 4..HEADER_BYTES] != [0; 4] {
            return Err(corrupt("zeros in the reserved bytes", format!("{reserved:?}")));
        }
        let extents = |offset: usize| -> Result<[usize; 4], ArrayErrorKind> {
            let mut extents = [0; 4];
            for (axis, extent) in extents.iter_mut().enumerate() {
                let place = offset + 8 * axis;
                *extent = read_extent(file, place).ok_or_else(|| corrupt("an extent", read_u64(file, place)))?;
            }
            Ok(extents)
        };
        let header = Self { kind, shape: extents(16)?, chunk: extents(48)? };
        if header.chunk.contains(&0) {
            return Err(corrupt("chunks of at least one element", format!("{:?}", header.chunk)));
        }
        header.check()?;
        Ok(header)
    }

    /// Checks that the chunks follow each other up to the end of the file and can hold what they stand for.
    fn check_index(&self, entries: &[Entry], first: usize, length: usize) -> Result<(), ArrayErrorKind> {
        let mut end = first as u64;
        for (number, entry) in entries.iter().enumerate() {
            if entry.offset != end {
                return Err(corrupt(format!("chunk {number} at byte {end}"), format!("byte {}", entry.offset)));
            }
            let raw = self.raw_bytes(number);
            let size = entry.size as usize;
            if size > raw || most_decoded(size) < raw {
                return Err(corrupt(format!("a size for {raw} bytes in chunk {number}"), size));
            }
            end += u64::from(entry.size);
        }
        if end == length as u64 { Ok(()) } else { Err(corrupt(format!("a file of {end} bytes"), length)) }
    }

    /// Bytes of the elements of a chunk; cannot overflow after [`Header::check`].
    pub(super) fn raw_bytes(&self, number: usize) -> usize {
        let (_, shape) = self.block(self.place(number));
        shape.iter().product::<usize>() * self.kind.width()
    }
}

pub(super) fn checked_product(factors: [usize; 4]) -> Option<usize> {
    factors.into_iter().try_fold(1_usize, usize::checked_mul)
}

/// CRC-32 as in gzip.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Checksum of header and index, over all their bytes but those of the checksum itself.
fn header_checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[..CHECKED_BYTES]);
    crc.update(&bytes[HEADER_BYTES..]);
    crc.sum()
}

fn corrupt(expected: impl Into<String>, found: impl fmt::Display) -> ArrayErrorKind {
    ArrayErrorKind::Header { expected: expected.into(), found: found.to_string() }
}

fn decode_entry(bytes: &[u8]) -> Entry {
    Entry { offset: read_u64(bytes, 0), size: read_u32(bytes, 8), checksum: read_u32(bytes, 12) }
}

fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[offset + index]))
}

fn read_u64(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[offset + index]))
}

fn read_extent(bytes: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(read_u64(bytes, offset)).ok()
}
