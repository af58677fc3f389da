//! The numerics of nnflow: pure functions of arrays.
//!
//! Nothing here reads a clock, a file, the environment or a global generator, and no result depends on the number of
//! threads: what a kernel returns is a function of its arguments alone, which is what lets a stage's result be addressed
//! by the content of its inputs.
//!
//! Arrays are `[c, z, y, x]` or `[z, y, x]`, spacings are in millimetres in the same order.

pub mod augment;
pub mod components;
pub mod crop;
pub mod decision;
pub mod distance;
pub mod filter;
pub mod geometry;
pub mod intensity;
pub mod metrics;
pub mod morphology;
pub mod phantom;
pub mod random;
pub mod resample;
pub mod spatial;
pub mod statistics;
pub mod tiling;
