//! `nnflow cache gc`: makes room, in the local store or in the shared one.

use std::time::Duration;

use nnflow_cache::{GcOptions, Key, Store};
use nnflow_shared::{Address, Mode, SharedGcOptions, SharedStore};

use super::cache::Place;
use super::outcome::{Exit, Failed, print};
use super::{sharing, target};
use crate::report::size;
use crate::session::{OpenOptions, Session};

/// What `nnflow cache gc` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct GcArguments {
    #[command(flatten)]
    place: Place,
    /// Collect this shared store instead: a folder, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`.
    #[arg(long, value_name = "URL", conflicts_with = "max_size")]
    shared_store: Option<Address>,
    /// Keep at most this many GiB, the most recently used first.
    #[arg(long, value_name = "GIB")]
    max_size: Option<f64>,
    /// Remove what was not used for this many days; in a shared store, what was pushed so many days ago.
    #[arg(long, value_name = "DAYS")]
    max_age: Option<f64>,
    /// Keep what was made or used within this many hours, whatever else is said; 1 by default, 24 in a shared store.
    #[arg(long, value_name = "HOURS")]
    grace: Option<f64>,
    /// Keep the results of this key, or of this node of the workflow and of what it needs; may be given several times.
    #[arg(long, value_name = "NODE|KEY")]
    pin: Vec<String>,
    /// Only tell what would be removed.
    #[arg(long, short = 'n')]
    dry_run: bool,
}

/// Removes what no limit allows to stay.
pub(crate) fn gc(arguments: &GcArguments) -> Result<Exit, Failed> {
    let max_age = arguments.max_age.map(|days| time("--max-age", days, 24.0)).transpose()?;
    let grace = arguments.grace.map(|hours| time("--grace", hours, 1.0)).transpose()?;
    let pins = pinned(arguments)?;
    if let Some(address) = &arguments.shared_store {
        let defaults = SharedGcOptions::default();
        let options = SharedGcOptions {
            max_age,
            pins: pins.into_iter().collect(),
            grace: grace.unwrap_or(defaults.grace),
            dry_run: arguments.dry_run,
        };
        return gc_shared(address, &options);
    }
    let defaults = GcOptions::default();
    let options = GcOptions {
        max_bytes: arguments.max_size.map(gibibytes),
        max_age,
        pins,
        grace: grace.unwrap_or(defaults.grace),
        dry_run: arguments.dry_run,
        ..defaults
    };
    gc_local(&arguments.place.open()?, &options)
}

/// The keys that are pinned: those that are given, and those of the nodes that are.
fn pinned(arguments: &GcArguments) -> Result<Vec<Key>, Failed> {
    let (keys, nodes): (Vec<_>, Vec<_>) =
        arguments.pin.iter().map(|pin| pin.parse::<Key>().map_err(|_| pin.clone())).partition(Result::is_ok);
    let mut pins: Vec<Key> = keys.into_iter().flatten().collect();
    let nodes: Vec<String> = nodes.into_iter().filter_map(Result::err).collect();
    if !nodes.is_empty() {
        let path = target::workflow_path(arguments.place.workflow.as_deref())?;
        let options = OpenOptions { store: arguments.place.store.clone(), ..OpenOptions::default() };
        let session = Session::open(&path, &options)?;
        pins.extend(sharing::keys_of(&session, &nodes)?);
    }
    Ok(pins)
}

fn gibibytes(count: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
    let bytes = (count.max(0.0) * f64::from(1 << 30)) as u64;
    bytes
}

/// A number of units of so many hours.
fn time(option: &str, count: f64, hours: f64) -> Result<Duration, Failed> {
    const SECONDS_AN_HOUR: f64 = 3_600.0;
    Duration::try_from_secs_f64(count * hours * SECONDS_AN_HOUR)
        .map_err(|_| Failed::input(format!("`{option} {count}`: expected a number of at least 0")))
}

fn verb(dry_run: bool) -> &'static str {
    if dry_run { "would remove" } else { "removed" }
}

fn gc_local(store: &Store, options: &GcOptions) -> Result<Exit, Failed> {
    let report = store.gc(options)?;
    print(&format!(
        "{} {} results with {} objects ({}), {} folders of abandoned work ({}), {} of abandoned publications\n\
         kept {} results ({})\n",
        verb(options.dry_run),
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

fn gc_shared(address: &Address, options: &SharedGcOptions) -> Result<Exit, Failed> {
    let mode = if options.dry_run { Mode::ReadOnly } else { Mode::ReadWrite };
    let address = sharing::from_here(address.clone())?;
    let report = SharedStore::new(address, mode)?.gc(options)?;
    print(&format!(
        "{} {} results with {} objects ({})\nkept {} results ({})\n",
        verb(options.dry_run),
        report.dropped_results,
        report.dropped_objects,
        size(report.dropped_bytes),
        report.kept_results,
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
        assert_eq!(time("--max-age", 0.5, 24.0).ok(), Some(Duration::from_secs(12 * 3600)));
    }

    #[test]
    fn a_time_below_zero_is_refused() {
        assert!(time("--grace", -1.0, 1.0).is_err());
    }
}
