//! The tests that look at nnflow from outside: one binary, one module a subject.

mod augmentation;
mod challenge;
mod cluster;
mod commands;
mod compare;
mod crash;
mod crowd;
mod dataset;
mod explain;
mod faults;
mod finetune;
mod foreign;
mod keys;
mod kills;
mod lock;
mod misuse;
mod predict;
mod reuse;
mod roles;
#[path = "../../shared/tests/it/s3_server.rs"]
mod s3_server;
mod sharing;
mod slurm;
mod slurm_states;
mod support;
mod tidy;
mod together;
mod watching;
mod worker;
