//! Writing of array files.

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use ndarray::{Array4, ArrayView4, s};
use rayon::prelude::*;

use super::codec::encode;
use super::element::Element;
use super::format::{ArrayError, ArrayErrorKind, Entry, Header, crc32};
use crate::atomic::{self, FileWriter};

/// Edge of a chunk of a large volume. A patch of 128³ voxels at a random place decodes 125 chunks of 32³, twice its own
/// volume, but 27 chunks of 64³, more than three times; single slices gain more. Files grow by one percent.
const EDGE: usize = 32;
/// Chunks that are compressed before the first of them is written; bounds the memory of writing.
const CHUNKS_AT_ONCE: usize = 64;

/// How an array is cut up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArrayOptions {
    /// Shape of a chunk, `[c, z, y, x]`; by default one channel of about 32 x 32 x 32 voxels, longer along some axes
    /// where others are shorter. Slices of volumes are read fastest from chunks of one slice.
    pub chunk: Option<[usize; 4]>,
}

/// Writes an array `[c, z, y, x]` to `path`, whole or not at all.
///
/// Chunks are compressed in parallel; the bytes of the file depend on the array and the options alone.
///
/// # Errors
/// [`ArrayError`] if a chunk exceeds 1 GiB or the file system fails.
pub fn write_array<T: Element>(
    path: &Path,
    array: ArrayView4<'_, T>,
    options: &ArrayOptions,
) -> Result<(), ArrayError> {
    let failed = |kind| ArrayError { path: path.to_path_buf(), kind };
    let (channels, depth, height, width) = array.dim();
    let header = header::<T>([channels, depth, height, width], options).map_err(failed)?;
    atomic::write_unsynced_with(path, |file| write_chunks(file, &header, array))
        .map_err(|error| failed(ArrayErrorKind::Write(error)))
}

/// Writes an array of `shape` (`[c, z, y, x]`) to `path`, whole or not at all, without ever holding it whole.
///
/// `slab` is asked for a range of channels and one of the first spatial axis, `[c, z, y, x]` with all of the other two
/// axes, in C order: one chunk thick each, which by default is one channel and about 32 slices. The file is the one that
/// [`write_array`] makes of the same array.
///
/// # Errors
/// What `slab` fails with; [`ArrayError`] if a chunk exceeds 1 GiB or the file system fails.
///
/// # Panics
/// If a slab has another shape than was asked for.
pub fn write_array_in_slabs<T: Element, E: From<ArrayError>>(
    path: &Path,
    shape: [usize; 4],
    options: &ArrayOptions,
    mut slab: impl FnMut(Range<usize>, Range<usize>) -> Result<Array4<T>, E>,
) -> Result<(), E> {
    let failed = |kind| ArrayError { path: path.to_path_buf(), kind };
    let header = header::<T>(shape, options).map_err(failed)?;
    // The file's own errors are of another type than those of whoever makes the slabs.
    let mut not_made = None;
    let written = atomic::write_unsynced_with(path, |file| {
        write_slabs(file, &header, |channels, slices| {
            slab(channels, slices).map_err(|error| {
                not_made = Some(error);
                io::Error::other("a slab was not made")
            })
        })
    });
    match (not_made, written) {
        (Some(error), _) => Err(error),
        (None, written) => written.map_err(|error| failed(ArrayErrorKind::Write(error)).into()),
    }
}

fn header<T: Element>(shape: [usize; 4], options: &ArrayOptions) -> Result<Header, ArrayErrorKind> {
    let chunk = options.chunk.map_or_else(|| default_chunk(shape), |chunk| clip_chunk(chunk, shape));
    let header = Header { kind: T::KIND, shape, chunk };
    header.check()?;
    Ok(header)
}

/// The chunk that was asked for, within the array and with at least one element.
fn clip_chunk(chunk: [usize; 4], shape: [usize; 4]) -> [usize; 4] {
    std::array::from_fn(|axis| chunk[axis].clamp(1, shape[axis].max(1)))
}

/// One channel of about 32 x 32 x 32 voxels; axes shorter than that leave their share to the others.
fn default_chunk(shape: [usize; 4]) -> [usize; 4] {
    let mut chunk = [1; 4];
    let mut axes = [1, 2, 3];
    axes.sort_by_key(|&axis| shape[axis]);
    let mut budget = (EDGE * EDGE * EDGE) as f64;
    for (done, axis) in axes.into_iter().enumerate() {
        let share = budget.powf(1.0 / (axes.len() - done) as f64).round() as usize;
        let extent = shape[axis].max(1);
        // Equal parts instead of full ones and a sliver.
        chunk[axis] = extent.div_ceil(extent.div_ceil(share.max(1)));
        budget /= chunk[axis] as f64;
    }
    chunk
}

/// Writes the chunks of an array that is held whole.
fn write_chunks<T: Element>(file: &mut FileWriter<'_>, header: &Header, array: ArrayView4<'_, T>) -> io::Result<()> {
    let mut chunks = Chunks::begin(file, header)?;
    let count = header.chunks().unwrap_or(0);
    for first in (0..count).step_by(CHUNKS_AT_ONCE) {
        let numbers = first..(first + CHUNKS_AT_ONCE).min(count);
        let blocks = numbers.map(|number| header.block(header.place(number)));
        chunks.write(array, &blocks.collect::<Vec<_>>())?;
    }
    chunks.finish(header)
}

/// Writes the chunks of an array that comes slab by slab.
fn write_slabs<T: Element>(
    file: &mut FileWriter<'_>,
    header: &Header,
    mut slab: impl FnMut(Range<usize>, Range<usize>) -> io::Result<Array4<T>>,
) -> io::Result<()> {
    let mut chunks = Chunks::begin(file, header)?;
    let grid = header.grid();
    for (channel, depth) in (0..grid[0]).flat_map(|channel| (0..grid[1]).map(move |depth| (channel, depth))) {
        let ([first_channel, first_slice, ..], [channels, slices, ..]) = header.block([channel, depth, 0, 0]);
        let values = slab(first_channel..first_channel + channels, first_slice..first_slice + slices)?;
        let places = (0..grid[2]).flat_map(|row| (0..grid[3]).map(move |column| [channel, depth, row, column]));
        let within_slab = |place| {
            let ([_, _, row, column], shape) = header.block(place);
            ([0, 0, row, column], shape)
        };
        let blocks: Vec<_> = places.map(within_slab).collect();
        for blocks in blocks.chunks(CHUNKS_AT_ONCE) {
            chunks.write(values.view(), blocks)?;
        }
    }
    chunks.finish(header)
}

/// A file whose chunks come one after the other, behind the place of the index.
struct Chunks<'a, 'b> {
    file: &'a mut FileWriter<'b>,
    index: Vec<Entry>,
    offset: u64,
}

/// First element and shape of a chunk.
type Block = ([usize; 4], [usize; 4]);

impl<'a, 'b> Chunks<'a, 'b> {
    fn begin(file: &'a mut FileWriter<'b>, header: &Header) -> io::Result<Self> {
        let count = header.chunks().unwrap_or(0);
        let placeholder = header.encode(&vec![Entry { offset: 0, size: 0, checksum: 0 }; count]);
        file.write_all(&placeholder)?;
        Ok(Self { file, index: Vec::with_capacity(count), offset: placeholder.len() as u64 })
    }

    /// Compresses the next chunks in parallel and writes them.
    fn write<T: Element>(&mut self, array: ArrayView4<'_, T>, blocks: &[Block]) -> io::Result<()> {
        let stored: Vec<Vec<u8>> = blocks.par_iter().map(|block| encode_chunk(array, block)).collect();
        for bytes in stored {
            self.file.write_all(&bytes)?;
            self.index.push(Entry { offset: self.offset, size: bytes.len() as u32, checksum: crc32(&bytes) });
            self.offset += bytes.len() as u64;
        }
        Ok(())
    }

    fn finish(self, header: &Header) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header.encode(&self.index))
    }
}

fn encode_chunk<T: Element>(array: ArrayView4<'_, T>, (start, shape): &Block) -> Vec<u8> {
    let [c, z, y, x]: [_; 4] = std::array::from_fn(|axis| start[axis]..start[axis] + shape[axis]);
    let block = array.slice(s![c, z, y, x]);
    let mut elements = Vec::with_capacity(block.len());
    for row in block.rows() {
        match row.as_slice() {
            Some(row) => elements.extend_from_slice(row),
            None => elements.extend(row.iter().copied()),
        }
    }
    encode(&elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_volume_gets_cubes() {
        assert_eq!(default_chunk([4, 128, 256, 512]), [1, 32, 32, 32]);
    }

    /// 65 is cut into 3 parts of 22, which leaves 1489 of 32³ elements a slice: 17 parts of 38 on each axis.
    #[test]
    fn extents_are_cut_into_equal_parts() {
        assert_eq!(default_chunk([1, 640, 640, 65]), [1, 38, 38, 22]);
    }

    #[test]
    fn a_flat_image_gets_larger_squares() {
        assert_eq!(default_chunk([3, 1, 1024, 1024]), [1, 1, 171, 171]);
    }

    #[test]
    fn a_small_volume_is_one_chunk() {
        assert_eq!(default_chunk([2, 20, 50, 30]), [1, 20, 50, 30]);
    }

    #[test]
    fn a_list_of_positions_is_cut_along_its_length() {
        assert_eq!(default_chunk([1, 1, 100_000, 4]), [1, 1, 7693, 4]);
    }
}
