//! Writing of array files.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use ndarray::{ArrayView4, s};
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
    let shape = [channels, depth, height, width];
    let chunk = options.chunk.map_or_else(|| default_chunk(shape), |chunk| clip_chunk(chunk, shape));
    let header = Header { kind: T::KIND, shape, chunk };
    header.check().map_err(failed)?;
    atomic::write_with(path, |file| write_chunks(file, &header, array))
        .map_err(|error| failed(ArrayErrorKind::Write(error)))
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

/// Writes the chunks behind the place of the index, then the index.
fn write_chunks<T: Element>(file: &mut FileWriter<'_>, header: &Header, array: ArrayView4<'_, T>) -> io::Result<()> {
    let count = header.chunks().unwrap_or(0);
    let mut index = vec![Entry { offset: 0, size: 0, checksum: 0 }; count];
    let placeholder = header.encode(&index);
    file.write_all(&placeholder)?;
    let mut offset = placeholder.len() as u64;
    for (batch, entries) in index.chunks_mut(CHUNKS_AT_ONCE).enumerate() {
        let first = batch * CHUNKS_AT_ONCE;
        let numbers = first..first + entries.len();
        let stored: Vec<Vec<u8>> = numbers.into_par_iter().map(|number| encode_chunk(header, array, number)).collect();
        for (entry, bytes) in entries.iter_mut().zip(stored) {
            file.write_all(&bytes)?;
            *entry = Entry { offset, size: bytes.len() as u32, checksum: crc32(&bytes) };
            offset += bytes.len() as u64;
        }
    }
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header.encode(&index))
}

fn encode_chunk<T: Element>(header: &Header, array: ArrayView4<'_, T>, number: usize) -> Vec<u8> {
    let (start, shape) = header.block(header.place(number));
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
