//! The components of the golden vectors: one file and one row each.

mod augment;
mod evaluate;
mod export;
mod fingerprint;
mod infer;
mod loss;
mod model;
mod network;
mod planner;
mod postprocess;
mod preprocess;
mod resample;
mod schedule;
mod splits;

use crate::{Folder, Problem, Surroundings, Vector};

/// Finds the vectors in the folder of a component and compares each.
pub type Compare = fn(&Folder, &Surroundings) -> Result<Vec<Vector>, Problem>;

/// Whether a component can be compared.
#[derive(Debug, Clone, Copy)]
pub enum Coverage {
    /// It can; a set of vectors without it is incomplete.
    Compared(Compare),
    /// It can, but sets of vectors that are older than it lack it.
    IfThere(Compare),
    /// It cannot yet, for this reason.
    NotYet(&'static str),
}

/// A component of the golden vectors.
#[derive(Debug, Clone, Copy)]
pub struct Component {
    /// The name of its folder.
    pub name: &'static str,
    /// Whether it can be compared, and how.
    pub coverage: Coverage,
}

/// Every component, in the order of nnU-Net's pipeline.
pub const COMPONENTS: [Component; 14] = [
    Component { name: "fingerprint", coverage: Coverage::Compared(fingerprint::compare) },
    Component { name: "planner", coverage: Coverage::Compared(planner::compare) },
    Component { name: "splits", coverage: Coverage::Compared(splits::compare) },
    Component { name: "resample", coverage: Coverage::Compared(resample::compare) },
    Component { name: "preprocess", coverage: Coverage::Compared(preprocess::compare) },
    Component { name: "augment", coverage: Coverage::Compared(augment::compare) },
    Component { name: "network", coverage: Coverage::Compared(network::compare) },
    Component { name: "loss", coverage: Coverage::Compared(loss::compare) },
    Component { name: "schedule", coverage: Coverage::Compared(schedule::compare) },
    Component { name: "infer", coverage: Coverage::Compared(infer::compare) },
    Component { name: "export", coverage: Coverage::IfThere(export::compare) },
    Component { name: "evaluate", coverage: Coverage::Compared(evaluate::compare) },
    Component { name: "postprocess", coverage: Coverage::Compared(postprocess::compare) },
    Component { name: "model", coverage: Coverage::Compared(model::compare) },
];
