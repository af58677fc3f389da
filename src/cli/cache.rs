//! `nnflow cache`: looks after the store.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use nnflow_cache::{GcOptions, Store};

use super::challenge::{ChallengeArguments, challenge};
use super::outcome::{Exit, Failed, print};
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
    /// Remove results that were not used for long, or until the store is small enough.
    Gc {
        #[command(flatten)]
        place: Place,
        /// Keep at most this many GiB, the most recently used first.
        #[arg(long, value_name = "GIB")]
        max_size: Option<f64>,
        /// Remove what was not used for this many days.
        #[arg(long, value_name = "DAYS")]
        max_age: Option<f64>,
        /// Only tell what would be removed.
        #[arg(long, short = 'n')]
        dry_run: bool,
    },
}

/// Where the store is.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The workflow whose store is meant; the one in this folder by default.
    workflow: Option<PathBuf>,
    /// The store's folder, if it does not lie beside a workflow.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Place {
    fn open(&self) -> Result<Store, Failed> {
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
        CacheCommand::Gc { place, max_size, max_age, dry_run } => {
            let options = GcOptions {
                max_bytes: max_size.map(gibibytes),
                max_age: max_age.map(days).transpose()?,
                dry_run: *dry_run,
                ..GcOptions::default()
            };
            gc(&place.open()?, &options)
        }
    }
}

fn gibibytes(count: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
    let bytes = (count.max(0.0) * f64::from(1 << 30)) as u64;
    bytes
}

fn days(count: f64) -> Result<Duration, Failed> {
    const SECONDS_A_DAY: f64 = 86_400.0;
    Duration::try_from_secs_f64(count * SECONDS_A_DAY)
        .map_err(|_| Failed::input(format!("`--max-age {count}`: expected a number of days of at least 0")))
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

fn gc(store: &Store, options: &GcOptions) -> Result<Exit, Failed> {
    let report = store.gc(options)?;
    let verb = if options.dry_run { "would remove" } else { "removed" };
    print(&format!(
        "{verb} {} results with {} objects ({}), {} folders of abandoned work ({}), {} of abandoned publications\n\
         kept {} results ({})\n",
        report.dropped_manifests,
        report.dropped_objects,
        size(report.dropped_bytes),
        report.dropped_attempts,
        size(report.dropped_attempt_bytes),
        size(report.dropped_staging_bytes),
        report.kept_manifests,
        size(report.kept_bytes),
    ));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_given_in_units_of_people() {
        assert_eq!(gibibytes(1.5), 3 << 29);
        assert_eq!(gibibytes(-1.0), 0);
        assert_eq!(days(0.5).ok(), Some(Duration::from_secs(12 * 3600)));
    }

    #[test]
    fn an_age_below_zero_is_refused() {
        assert!(days(-1.0).is_err());
    }
}
