//! The kernels against what must hold for any input. The package `nnflow-conformance` holds them against nnU-Net.

mod arbitrary;
mod components;
mod distance;
mod geometry;
mod intensity;
mod metrics;
mod morphology;
mod random;
mod resize;
mod surface;
mod tiling;
