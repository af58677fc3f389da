//! nnU-Net as a declared graph: one TOML file a dataset, every result addressed by its content.
//!
//! A good place to start is [`workflow`], which turns a file into a graph of nodes; then [`session`], which opens it with
//! its sources and its store; then [`engine`], which runs it. [`cli`] is the command line and [`report`] what it shows.

pub mod cli;
pub mod diagnostic;
pub mod engine;
pub mod recipes;
pub mod report;
pub mod session;
pub mod workflow;
