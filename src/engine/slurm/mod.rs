//! Slurm: hands units to a cluster and hears what becomes of them.
//!
//! Two ways lead there. A run with `--executor slurm` stays and looks: [`Slurm`] is its executor, `watch` what it knows of
//! its jobs, `verdict` what is done about one that ended without a word, and [`queue`] how Slurm says that they stand.
//! `nnflow submit` hands over the whole [`plan`] and ends. Both write a [`folder`] for each job and [`submit`] it; on the
//! cluster, [`work`] does what the folder says. [`status`] is for those who look from elsewhere.
//!
//! **What is true.** Results are published by the job itself, so the store comes first, then the report that a job leaves
//! for each unit, and only then what Slurm says. A job that Slurm has forgotten and that has left nothing is waited for a
//! little, since a file on a network may be late, and then taken for lost. A job that was taken for lost may still run: it
//! has a folder of its own, its attempt has one, and of two that publish the same key the first one wins.
//!
//! **What nnflow keeps in memory is nothing that it needs.** A run that starts finds the jobs of an earlier one in the
//! queue, and what each of them does in its folder, and waits for those instead of submitting the same work again.

mod command;
mod error;
pub mod folder;
mod group;
pub mod plan;
pub mod queue;
mod settings;
pub mod status;
pub mod submit;
mod verdict;
mod watch;
pub mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use nnflow_cache::Store;

use self::watch::Watch;
use super::elsewhere::{Elsewhere, Order, Told};
use crate::workflow::Node;

pub use error::SlurmError;
pub use settings::{Request, SlurmSettings, SlurmWishes};

/// How often a run that is to stop is noticed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Slurm as the executor of a run.
pub struct Slurm<'a> {
    /// The store, which every node of the cluster sees under the same path.
    pub store: &'a Store,
    /// What is asked of Slurm.
    pub settings: SlurmSettings,
    /// Set when the run is to stop.
    pub cancel: &'a AtomicBool,
}

impl Elsewhere for Slurm<'_> {
    fn takes(&self, node: &Node) -> bool {
        self.settings.takes(&node.stage, node.spec)
    }

    fn serve(&self, orders: &Receiver<Vec<Order>>, tell: &dyn Fn(Told)) {
        let mut watch = Watch::new(self, tell);
        let mut last_look = Instant::now();
        loop {
            match orders.recv_timeout(LOOK_AGAIN) {
                Ok(group) => watch.take(group),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.cancel.load(Ordering::Relaxed) {
                watch.stop();
            } else if last_look.elapsed() >= self.settings.poll {
                watch.look();
                last_look = Instant::now();
            }
        }
    }
}
