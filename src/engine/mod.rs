//! The engine: what has to run, in which order, with what, and what became of it.
//!
//! - [`state`] knows how far the graph has come, `settle` and `results` move it on; `gather` decides what enters a key; [`record`] tells two keys apart.
//! - [`schedule`] decides what starts next; [`drive`] is the loop around it.
//! - [`perform`] runs a job here ([`native`]) or in a [`worker`], in a `workplace` of its own, and publishes what jobs have made.
//! - [`limits`] are what ends work before its own end.
//! - [`shared`] asks the shared store for what the local one has not, and puts there what a run has made.
//! - [`elsewhere`] is what the loop and an executor say to each other that runs units elsewhere; [`slurm`] is one.
//! - [`lock`] is what a later run can promise to be the same as.
//! - [`events`] are what everybody else hears of it.

pub mod alone;
pub mod drive;
pub mod elsewhere;
pub mod events;
pub mod fit;
pub mod gather;
pub mod gpus;
pub mod history;
pub mod job;
pub mod limits;
pub mod lock;
pub mod metrics;
pub mod native;
pub mod perform;
pub mod record;
mod results;
pub mod schedule;
mod settle;
pub mod shared;
pub mod slurm;
pub mod sources;
pub mod state;
mod summary;
pub mod usage;
pub mod worker;
mod workplace;
