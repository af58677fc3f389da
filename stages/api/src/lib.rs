//! The contract between nnflow's engine and its stages.
//!
//! A stage is what the graph runs: it declares itself in a [`StageSpec`] (ports, parameters with defaults and units,
//! phases, documentation) and does its work in [`Stage::run`], given a [`Context`]. The engine knows stages through this
//! crate only, and stages know nothing of the engine: not where results are stored, nor which executor runs them.
//!
//! The central rule is that **a stage sees no more than its key covers**. A document such as a plan reaches the stage as
//! the slice that [`Stage::slice`] cut out of it, and the digest of that slice is what enters the key. What a stage does
//! not read cannot make it run again, and what it reads cannot change unnoticed.
//!
//! A [`Task`] is one unit of work (a node as a whole, or one case of it) in plain data, so that it can be run in this
//! process, by a worker over a pipe, or by a job on a cluster alike.

mod context;
mod error;
mod outcome;
mod parameters;
mod process;
mod progress;
mod spec;
mod task;
mod worker;

pub use context::{Context, Host, OutputWriter, SilentHost};
pub use error::{ErrorKind, ErrorReport, StageError};
pub use outcome::{Outcome, OutputFile, OutputSource, ProducedArtifact};
pub use parameters::{Parameter, ParameterKind, ParameterProblem, Parameters, Step, effective_parameters};
pub use process::{ending, obituary};
pub use progress::{Progress, StageEvent};
pub use spec::{
    Axes, InputPort, Kind, OutputPort, Phase, PhaseKind, Read, ResourceQuery, Resources, Runner, Stage, StageSpec,
};
pub use task::{Artifact, FileRef, InputValue, Member, Task, TaskResources};
pub use worker::{Reply, Request, WORKER_PROTOCOL};
