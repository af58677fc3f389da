//! The crate against nnU-Net's own results.

mod bad_data;
mod datasets;
mod harness;
mod planner;
mod preprocess;
mod splits;
mod vectors;
