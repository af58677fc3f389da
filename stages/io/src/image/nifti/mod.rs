//! NIfTI-1 and NIfTI-2.
//!
//! The `nifti` crate (0.18) parses the headers of NIfTI-1 and knows the codes of both versions: data types, units,
//! transforms. Around it stands own code, because files in the wild are compressed in several members, compressed without
//! saying so in their name, scaled by `NaN`, of the second version, or of Analyze 7.5, the format before NIfTI, which is
//! refused: it cannot tell left from right. Own code are:
//!
//! - Voxels. The crate keeps the raw volume beside the numbers made of it (for a CT of 126 MB a peak of 372 MB instead of
//!   250 MB, and no faster), asks for as much memory as the header says before it has seen a byte, takes a voxel's size
//!   from `bitpix`, which may contradict the data type, and scales in single precision.
//! - Files that are written. The crate's writer chooses the file's name itself and cuts `case.001` to `case`, counts
//!   extents modulo 65536, and drops the error of a disk that fills up with the last block. It does not give out a
//!   header's bytes; what a label image needs is the image's header to the last bit.
//! - The way from transforms to ITK's geometry ([`orientation`]), which is not that of the standard.

mod first;
mod header;
mod orientation;
mod read;
mod second;
mod write;

pub use header::NiftiHeader;
pub(super) use read::{read_header, read_image, read_pair, read_pair_header};
pub(super) use write::{header_for, write};
