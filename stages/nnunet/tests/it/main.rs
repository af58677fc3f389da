//! The crate against nnU-Net's own results.

mod bad_data;
mod bundle;
mod datasets;
mod ensemble;
mod evaluate;
mod harness;
mod labelled;
mod planner;
mod postprocess;
mod preprocess;
mod select;
mod splits;
mod vectors;
