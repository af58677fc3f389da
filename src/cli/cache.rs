//! `nnflow cache`: looks after the store.

use std::path::PathBuf;

use clap::Subcommand;
use nnflow_cache::Store;

use super::challenge::{ChallengeArguments, challenge};
use super::collect::{self, GcArguments};
use super::outcome::{Exit, Failed, print};
use super::sharing::{self, ExchangeArguments};
use super::target;
use crate::report::size;

/// What `nnflow cache` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Tell how much the store holds.
    Stats(Place),
    /// Hash everything in the store again and tell what is wrong.
    Verify {
        #[command(flatten)]
        place: Place,
        /// Drop what is wrong, so that it is made again.
        #[arg(long)]
        repair: bool,
    },
    /// Run a node again beside the store, and tell whether it makes the same bytes.
    Challenge(ChallengeArguments),
    /// Put what the store holds of a workflow into the shared store.
    Push(ExchangeArguments),
    /// Fetch what a workflow needs from the shared store, and run nothing.
    Pull(ExchangeArguments),
    /// Remove results that were not used for long, or until the store is small enough.
    Gc(GcArguments),
}

/// Where the store is.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The workflow whose store is meant; the one in this folder by default.
    pub(super) workflow: Option<PathBuf>,
    /// The store's folder, if it does not lie beside a workflow.
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
}

impl Place {
    pub(super) fn open(&self) -> Result<Store, Failed> {
        let folder = match &self.store {
            Some(folder) => folder.clone(),
            None => {
                let path = target::workflow_path(self.workflow.as_deref())?;
                let folder = fs_err::canonicalize(&path)?;
                folder.parent().unwrap_or(&folder).join(".nnflow")
            }
        };
        if !folder.is_dir() {
            return Err(Failed::input(format!("there is no store `{}`", folder.display())));
        }
        Ok(Store::open(folder)?)
    }
}

/// Looks after the store.
pub(crate) fn cache(command: &CacheCommand) -> Result<Exit, Failed> {
    match command {
        CacheCommand::Stats(place) => stats(&place.open()?),
        CacheCommand::Verify { place, repair } => verify(&place.open()?, *repair),
        CacheCommand::Challenge(arguments) => challenge(arguments),
        CacheCommand::Push(arguments) => sharing::push(arguments),
        CacheCommand::Pull(arguments) => sharing::pull(arguments),
        CacheCommand::Gc(arguments) => collect::gc(arguments),
    }
}

fn stats(store: &Store) -> Result<Exit, Failed> {
    let stats = store.stats()?;
    let rows = [
        ("objects", Some(stats.objects), stats.object_bytes),
        ("manifests", Some(stats.manifests), stats.manifest_bytes),
        ("work under way", Some(stats.work), stats.work_bytes),
        ("records of runs", None, stats.run_bytes),
        ("being published", None, stats.staged_bytes),
    ];
    let mut text = format!("{}\n", store.root().display());
    for (name, count, bytes) in rows {
        let count = count.map_or_else(String::new, |count| count.to_string());
        text.push_str(&format!("  {name:<16} {count:>8} {:>10}\n", size(bytes)));
    }
    print(&text);
    Ok(Exit::Done)
}

fn verify(store: &Store, repair: bool) -> Result<Exit, Failed> {
    let report = store.verify(repair)?;
    let mut text = format!(
        "{} objects ({}) and {} manifests were read\n",
        report.objects,
        size(report.object_bytes),
        report.manifests
    );
    for wrong in &report.wrong_objects {
        text.push_str(&format!("  object {}: {}\n", wrong.digest, wrong.problem));
    }
    for bad in &report.bad_manifests {
        text.push_str(&format!("  manifest {}: {}\n", bad.key, bad.reason));
    }
    for stray in &report.strays {
        text.push_str(&format!("  not part of a store: {}\n", stray.display()));
    }
    let clean = report.is_clean();
    text.push_str(match (clean, report.repaired) {
        (true, _) => "all of it is as it was published\n",
        (false, true) => "what was wrong was dropped; the next run makes it again\n",
        (false, false) => "hint: `nnflow cache verify --repair` drops what is wrong, and the next run makes it again\n",
    });
    print(&text);
    Ok(if clean || report.repaired { Exit::Done } else { Exit::Storage })
}
