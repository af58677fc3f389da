//! What a stage tells while it works.

use serde::{Deserialize, Serialize};

/// How far a stage has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, where known.
    pub total: Option<u64>,
    /// What a unit is: `epoch`, `window`, …
    pub unit: String,
    /// A few words for the end of the line, such as `dice 0.884  1.3 s/epoch`.
    pub message: String,
}

/// An event that a stage sends to whoever runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StageEvent {
    /// The stage has come further.
    Progress(Progress),
    /// A line for the node's log.
    Log {
        /// The line, without its end.
        line: String,
    },
}
