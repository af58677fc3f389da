//! Readers and writers: what enters nnflow from a file, and what leaves it.
//!
//! Files are never trusted. Every reader checks what a file declares against what it holds before it allocates, and a
//! malformed file ends in a typed error that names the file, what was expected and what was found. Writers publish a
//! file whole or not at all ([`atomic`]).
//!
//! - [`dataset`]: `dataset.json` and the raw layout of nnU-Net.
//! - [`image`]: medical and natural images, with the geometry needed to write labels back onto the same grid.
//! - [`mod@array`]: preprocessed arrays, made for reading patches.
//! - [`npy`]: scores that something else computed.
//! - [`fingerprint`], [`plans`], [`splits`], [`summary`]: the JSON files that nnU-Net's users know.
//! - [`tensors`]: weights as safetensors.
//! - [`torch_file`], [`pickle`], [`archive`], [`state_dict`]: nnU-Net's own checkpoints, read without running anything in
//!   them.
//! - [`json`]: JSON as Python writes it, bare `NaN` included.

pub mod archive;
pub mod array;
pub mod atomic;
pub mod dataset;
pub mod fingerprint;
pub mod image;
pub mod json;
mod mapped;
pub mod npy;
pub mod pickle;
pub mod plans;
pub mod splits;
pub mod state_dict;
pub mod summary;
pub mod tensors;
pub mod torch_file;
