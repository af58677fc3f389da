//! Random numbers: NumPy's legacy stream, and a counter-based one of our own.
//!
//! [`MersenneTwister`] exists because nnU-Net's folds, sampled intensities and class locations are what NumPy's legacy
//! `RandomState` draws; being equal to nnU-Net means drawing the same numbers. [`CounterRandom`] is for all that we draw
//! ourselves: its numbers follow from a key and a counter alone, so a patch gets the same augmentation no matter which
//! worker makes it, or when.

mod counter;
mod mersenne;

pub use counter::{CounterRandom, philox};
pub use mersenne::MersenneTwister;
