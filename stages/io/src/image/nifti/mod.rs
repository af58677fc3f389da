//! NIfTI-1 and NIfTI-2.
//!
//! Own code, because what a label image needs is the image's header to the last bit, and because files in the wild are
//! big-endian, compressed in several members, compressed without saying so in their name, scaled by `NaN`, or of the
//! second version. Analyze 7.5, the format before NIfTI, is refused: it cannot tell left from right.

mod header;
mod orientation;
mod read;
mod write;

pub use header::NiftiHeader;
pub(super) use read::{read_header, read_image, read_pair, read_pair_header};
pub(super) use write::{header_for, write};
