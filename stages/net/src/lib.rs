//! The networks of nnflow: topology, losses, optimisers, checkpoints, training steps and sliding windows.
//!
//! This is the only crate that knows libtorch. What it takes and returns are slices, arrays and plain data, so that a
//! stage that trains or predicts is written without a tensor.

pub mod architecture;
pub mod augment;
pub mod checkpoint;
pub mod collective;
pub mod device;
mod error;
pub mod inference;
pub mod loss;
pub mod network;
pub mod optimizer;
mod parallel;
pub mod precision;
pub mod probe;
pub mod shim;
#[cfg(test)]
mod testing;
pub mod training;

pub use error::TorchError;
