//! Readers and writers: what enters nnflow from a file, and what leaves it.
//!
//! Files are never trusted. Every reader checks what a file declares against what it holds before it allocates, and a
//! malformed file ends in a typed error that names the file, what was expected and what was found. Writers publish a
//! file whole or not at all ([`atomic`]).
//!
//! - [`dataset`]: `dataset.json` and the raw layout of nnU-Net.
//! - [`image`]: medical and natural images, with the geometry needed to write labels back onto the same grid.
//! - [`array`]: preprocessed arrays, made for reading patches.
//! - [`fingerprint`], [`plans`], [`splits`], [`summary`]: the JSON files that nnU-Net's users know.
//! - [`tensors`]: weights as safetensors.
//! - [`json`]: JSON as Python writes it, bare `NaN` included.

pub mod array;
pub mod atomic;
pub mod dataset;
pub mod fingerprint;
pub mod image;
pub mod json;
mod mapped;
pub mod plans;
pub mod splits;
pub mod summary;
pub mod tensors;
