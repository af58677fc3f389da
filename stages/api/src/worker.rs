//! What an engine and a worker say to each other: one JSON object a line, over the worker's standard input and output.
//!
//! A worker says [`Reply::Ready`] first, then takes one task after another. When its standard input ends, whoever
//! started it is gone, and it exits at once; what it left in the task's work folder is where the next attempt goes on.

use serde::{Deserialize, Serialize};

use crate::{ErrorReport, Outcome, StageEvent, Task};

/// The version of this protocol; engine and worker must have the same.
pub const WORKER_PROTOCOL: u32 = 1;

/// What an engine asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Run a task.
    Run {
        /// The task.
        task: Box<Task>,
    },
    /// Leave a checkpoint and end the task under way as interrupted.
    Cancel,
}

/// What a worker answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The worker has started.
    Ready {
        /// [`WORKER_PROTOCOL`] of the worker.
        protocol: u32,
        /// The worker's version.
        version: String,
        /// The device that it will use, in words.
        device: String,
    },
    /// Something that the stage tells while it works.
    Event {
        /// What it tells.
        event: StageEvent,
    },
    /// The task has ended well.
    Done {
        /// What it has made.
        outcome: Outcome,
    },
    /// The task has failed.
    Failed {
        /// Why.
        report: ErrorReport,
    },
}
