//! Arrays of preprocessed cases, made for reading patches.
//!
//! Training reads random patches from every case, thousands of times. A `.nna` file is memory-mapped and cut into chunks
//! that are compressed on their own, so that a patch costs the chunks it touches and no more, and no process holds a case
//! in memory. The same array always gives the same bytes, whatever the number of threads, because files are addressed by
//! their content.
//!
//! # Format, version 1
//!
//! All numbers are little endian. An array has four axes, `[c, z, y, x]`, in C order; one of lower rank has leading axes
//! of extent 1.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0..8 | `nnf-nna\n` |
//! | 8..12 | version, `u32`: 1 |
//! | 12 | kind of element: 0 u8, 1 i8, 2 u16, 3 i16, 4 u32, 5 i32, 6 f16, 7 f32 |
//! | 13 | codec: 0, bytes shuffled and LZ4 blocks |
//! | 14..16 | zero |
//! | 16..48 | shape, 4 × `u64` |
//! | 48..80 | shape of a chunk, 4 × `u64`, each at least 1; chunks at the far end of an axis are cut short, not padded |
//! | 80..88 | number of chunks, `u64`; a zero extent makes it 0 |
//! | 88..92 | CRC-32 (as in gzip) of bytes 0..88 and of the index |
//! | 92..96 | zero |
//! | 96.. | index: for each chunk, in C order of the grid of chunks, offset `u64`, size `u32`, CRC-32 of its bytes `u32` |
//! | then | the chunks, in the order of the index, each right behind the one before; the file ends with the last |
//!
//! A chunk is first shuffled: the lowest bytes of all its elements, then the second lowest, and so on, which groups the
//! sign and exponent bytes of neighbouring voxels. It is then compressed as one LZ4 block (no frame, no prefix), or left
//! as it is where that saves less than a sixteenth; a chunk whose size is that of its elements is stored in the second
//! way.

mod codec;
mod element;
mod format;
mod read;
mod write;

pub use element::{Element, ElementKind};
pub use format::{ArrayError, ArrayErrorKind};
pub use read::ArrayFile;
pub use write::{ArrayOptions, write_array, write_array_in_slabs};

#[cfg(test)]
mod tests;
