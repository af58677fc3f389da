//! Running units somewhere else than in this process: what the run loop and an executor such as Slurm say to each other.

use crossbeam_channel::Receiver;
use nnflow_cache::{Key, Manifest};
use nnflow_stage::{ErrorReport, Resources, StageEvent};

use super::job::Job;
use super::state::UnitId;
use super::usage::Usage;
use crate::workflow::{Node, ResourceRequest};

/// A unit that is to be run elsewhere.
pub struct Order {
    /// The job. None of its paths leads into a folder of this process, which the job may outlive.
    pub job: Job,
    /// The stage as the workflow names it.
    pub stage: String,
    /// What the stage thinks that it needs.
    pub estimate: Resources,
    /// What the workflow asks for.
    pub asked: ResourceRequest,
}

/// What an executor tells.
pub enum Told {
    /// Something is odd without being wrong.
    Warning(String),
    /// A unit tells something.
    Event(UnitId, StageEvent),
    /// A unit has ended.
    Ended(Box<Returned>),
}

impl Told {
    /// The key whose result has come into the store.
    #[must_use]
    pub fn published(&self) -> Option<Key> {
        match self {
            Self::Ended(returned) if returned.result.is_ok() => Some(returned.job.key),
            Self::Ended(_) | Self::Warning(_) | Self::Event(..) => None,
        }
    }
}

/// A unit that has ended elsewhere.
pub struct Returned {
    /// The job.
    pub job: Job,
    /// Its manifest, which is in the store, and what it took; or why there is none.
    pub result: Result<(Manifest, Usage), ErrorReport>,
}

/// Somewhere else to run units, which publish what they make themselves.
///
/// A unit that fails for lack of a resource is ordered again by the run loop, as it would be here.
pub trait Elsewhere: Sync {
    /// Whether the units of a node are run there.
    fn takes(&self, node: &Node) -> bool;

    /// Takes groups of orders, and tells what becomes of each, until nobody can order any more. Units of one group became
    /// ready together.
    fn serve(&self, orders: &Receiver<Vec<Order>>, tell: &dyn Fn(Told));
}
