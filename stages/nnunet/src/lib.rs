//! The stages of nnU-Net, in the order of its pipeline, and what they share.
//!
//! Every stage is one file in [`stages`] and one row in [`registry::STAGES`]; its declaration there is what the graph is
//! checked against, what `nnflow stage show` prints and what enters its keys. Planning ([`planner`]) and folds
//! ([`split_rules`]) are pure functions that stages call. A [`workbench`] runs stages without the engine.

pub mod case;
pub mod documents;
pub mod export;
pub mod foreign;
pub mod locations;
pub mod phantom;
pub mod planner;
pub mod registry;
pub(crate) mod segmentation;
pub mod sources;
pub mod split_rules;
pub mod stages;
pub mod train;
pub mod workbench;

use serde_json::Value;

/// Reads a JSON document as Python may have written it, with bare `NaN` and `Infinity`, which become null.
///
/// # Errors
/// If it is no JSON.
pub fn read_json(bytes: &[u8]) -> Result<Value, nnflow_io::json::JsonError> {
    nnflow_io::json::from_slice(bytes, std::path::Path::new("document"))
}
