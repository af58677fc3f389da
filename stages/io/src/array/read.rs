//! Reading of array files: whole arrays, or boxes of them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use ndarray::{Array4, ArrayViewMut4, Axis, s};
use rayon::prelude::*;

use super::codec::unshuffle;
use super::element::{Element, ElementKind};
use super::format::{ArrayError, ArrayErrorKind, Entry, Header, checked_product, crc32};
use crate::mapped;

/// An open array file.
///
/// Header and index are checked when it is opened; the bytes of a chunk are checked whenever it is decoded.
#[derive(Debug)]
pub struct ArrayFile {
    path: PathBuf,
    bytes: Mmap,
    header: Header,
    index: Vec<Entry>,
}

impl ArrayFile {
    /// Opens a file and checks its header and index against its length.
    ///
    /// # Errors
    /// [`ArrayError`] if the file cannot be mapped into memory or is not a sound array file.
    pub fn open(path: &Path) -> Result<Self, ArrayError> {
        let failed = |kind| ArrayError { path: path.to_path_buf(), kind };
        let bytes = mapped::open(path).map_err(|error| failed(ArrayErrorKind::Read(error)))?;
        let (header, index) = Header::decode(&bytes).map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), bytes, header, index })
    }

    /// Extents of the axes, `[c, z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        self.header.shape
    }

    /// Shape of a chunk, `[c, z, y, x]`.
    #[must_use]
    pub fn chunk(&self) -> [usize; 4] {
        self.header.chunk
    }

    /// Kind of the elements.
    #[must_use]
    pub fn kind(&self) -> ElementKind {
        self.header.kind
    }

    /// Reads the whole array, `[c, z, y, x]`.
    ///
    /// # Errors
    /// [`ArrayError`] if `T` is not the kind of the file's elements, or a chunk is corrupt.
    pub fn read_all<T: Element>(&self) -> Result<Array4<T>, ArrayError> {
        let [channels, depth, height, width] = self.shape();
        self.read_box(0..channels, [0; 3], [depth, height, width], T::zeroed())
    }

    /// Reads a box of `shape` voxels from `start` on (`[z, y, x]`), for a range of channels.
    ///
    /// The box may run past the borders of the array; voxels there are `fill`. Only the chunks that it touches are
    /// decoded, in parallel where there are several along `c` or `z`.
    ///
    /// # Errors
    /// [`ArrayError`] if `T` is not the kind of the file's elements, a channel does not exist, the result does not fit
    /// into memory, or a chunk is corrupt.
    pub fn read_box<T: Element>(
        &self,
        channels: Range<usize>,
        start: [isize; 3],
        shape: [usize; 3],
        fill: T,
    ) -> Result<Array4<T>, ArrayError> {
        self.read_checked(channels, start, shape, fill).map_err(|kind| ArrayError { path: self.path.clone(), kind })
    }

    fn read_checked<T: Element>(
        &self,
        channels: Range<usize>,
        start: [isize; 3],
        shape: [usize; 3],
        fill: T,
    ) -> Result<Array4<T>, ArrayErrorKind> {
        if T::KIND != self.kind() {
            return Err(ArrayErrorKind::Kind { expected: T::KIND, found: self.kind() });
        }
        let available = self.shape()[0];
        if channels.start > channels.end || channels.end > available {
            let Range { start, end: stop } = channels;
            return Err(ArrayErrorKind::Channels { channels: available, start, stop });
        }
        let mut target = filled([channels.len(), shape[0], shape[1], shape[2]], fill)?;
        let spans: [Span; 3] = std::array::from_fn(|axis| Span::new(start[axis], shape[axis], self.shape()[axis + 1]));
        let [z, y, x] = spans.clone().map(|span| span.target);
        let inside = target.slice_mut(s![.., z, y, x]);
        let [z, y, x] = spans.map(|span| span.source);
        self.fill(inside, [channels, z, y, x])?;
        Ok(target)
    }

    /// Fills `target` with the elements at `source`, which lies within the array.
    fn fill<T: Element>(&self, target: ArrayViewMut4<'_, T>, source: [Range<usize>; 4]) -> Result<(), ArrayErrorKind> {
        let [channels, depth, rows, columns] = source;
        let mut slabs = Vec::new();
        for (part, channels) in cut(target, 0, channels, self.header.chunk[0]) {
            for (part, depth) in cut(part, 1, depth.clone(), self.header.chunk[1]) {
                slabs.push((part, [channels.clone(), depth, rows.clone(), columns.clone()]));
            }
        }
        if slabs.len() == 1 {
            // A small patch is not worth waking another thread.
            return slabs.into_iter().try_for_each(|(part, source)| self.fill_slab(part, source, &mut Vec::new()));
        }
        slabs.into_par_iter().try_for_each_init(Vec::new, |buffer, (part, source)| self.fill_slab(part, source, buffer))
    }

    /// Fills a part of the target that lies in one layer of chunks along `c` and `z`.
    fn fill_slab<T: Element>(
        &self,
        target: ArrayViewMut4<'_, T>,
        source: [Range<usize>; 4],
        buffer: &mut Vec<u8>,
    ) -> Result<(), ArrayErrorKind> {
        let [channels, depth, rows, columns] = source;
        for (part, rows) in cut(target, 2, rows, self.header.chunk[2]) {
            for (part, columns) in cut(part, 3, columns.clone(), self.header.chunk[3]) {
                self.fill_from_chunk(part, [channels.start, depth.start, rows.start, columns.start], buffer)?;
            }
        }
        Ok(())
    }

    /// Fills a part of the target that lies in one chunk; `first` is the element of the array at its corner.
    fn fill_from_chunk<T: Element>(
        &self,
        mut target: ArrayViewMut4<'_, T>,
        first: [usize; 4],
        buffer: &mut Vec<u8>,
    ) -> Result<(), ArrayErrorKind> {
        if target.is_empty() {
            return Ok(());
        }
        let place = std::array::from_fn(|axis| first[axis] / self.header.chunk[axis]);
        let (start, shape) = self.header.block(place);
        let planes = self.decode(self.header.number(place), buffer)?;
        let [c, z, y, x]: [usize; 4] = std::array::from_fn(|axis| first[axis] - start[axis]);
        for ((channel, slice, row), mut line) in
            ndarray::indices((target.dim().0, target.dim().1, target.dim().2)).into_iter().zip(target.rows_mut())
        {
            let element = (((c + channel) * shape[1] + z + slice) * shape[2] + y + row) * shape[3] + x;
            let line = line.as_slice_mut().expect("invariant: the rows of a new array are contiguous");
            unshuffle(planes, element, line);
        }
        Ok(())
    }

    /// The shuffled bytes of a chunk.
    fn decode<'a>(&'a self, number: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], ArrayErrorKind> {
        let corrupt = |problem| ArrayErrorKind::Chunk { chunk: number, problem };
        let entry = self.index[number];
        let stored = &self.bytes[entry.offset as usize..][..entry.size as usize];
        let checksum = crc32(stored);
        if checksum != entry.checksum {
            return Err(corrupt(format!("expected checksum {:#010x}, found {checksum:#010x}", entry.checksum)));
        }
        let raw = self.header.raw_bytes(number);
        if stored.len() == raw {
            return Ok(stored);
        }
        buffer.resize(raw, 0);
        let decoded = lz4_flex::block::decompress_into(stored, buffer).map_err(|error| corrupt(error.to_string()))?;
        if decoded != raw {
            return Err(corrupt(format!("expected {raw} bytes, found {decoded}")));
        }
        Ok(buffer)
    }
}

/// Which part of an axis of a box lies inside the array.
#[derive(Clone)]
struct Span {
    source: Range<usize>,
    target: Range<usize>,
}

impl Span {
    fn new(start: isize, length: usize, extent: usize) -> Self {
        let before = start.min(0).unsigned_abs().min(length);
        let first = start.max(0).unsigned_abs().min(extent);
        let count = (length - before).min(extent - first);
        Self { source: first..first + count, target: before..before + count }
    }
}

/// Cuts a view of `range` along an axis where chunks of this extent meet.
fn cut<T>(
    mut view: ArrayViewMut4<'_, T>,
    axis: usize,
    range: Range<usize>,
    chunk: usize,
) -> Vec<(ArrayViewMut4<'_, T>, Range<usize>)> {
    let mut parts = Vec::new();
    let mut first = range.start;
    while first < range.end {
        let stop = ((first / chunk + 1) * chunk).min(range.end);
        let (part, rest) = view.split_at(Axis(axis), stop - first);
        parts.push((part, first..stop));
        view = rest;
        first = stop;
    }
    parts
}

/// A new array, or an error where the memory for it is not to be had.
fn filled<T: Element>(shape: [usize; 4], fill: T) -> Result<Array4<T>, ArrayErrorKind> {
    let too_large = || ArrayErrorKind::TooLarge { what: "a box", shape };
    let count = checked_product(shape).ok_or_else(too_large)?;
    let mut elements = Vec::new();
    elements.try_reserve_exact(count).map_err(|_| too_large())?;
    elements.resize(count, fill);
    Array4::from_shape_vec(shape, elements).map_err(|_| too_large())
}
