//! The kernels against what the real nnU-Net computed, and against what must hold for any input.

mod arbitrary;
mod components;
mod geometry;
mod golden;
mod intensity;
mod metrics;
mod morphology;
mod random;
mod resample;
mod resize;
mod tiling;
