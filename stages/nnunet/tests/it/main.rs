//! The stages together, and by hand. `nnflow-conformance` holds them against nnU-Net.

mod bad_data;
mod bundle;
mod datasets;
mod ensemble;
mod evaluate;
mod export;
mod harness;
mod labelled;
mod planner;
mod postprocess;
mod preprocess;
mod select;
mod tiff;
mod vectors;
