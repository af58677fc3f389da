//! Collection: keeping a shared store within an age.
//!
//! A shared store is not told when its results are used, so what counts is when they were pushed. Manifests go first, then the
//! objects that no manifest names. Nobody waits for a collection: an object that a push found in place may be taken before
//! the manifest that names it appears. That manifest is then a miss, and the next push mends it; the grace time makes
//! it rare, because only objects go that were already unused for so long.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use nnflow_cache::{Digest, Key, Manifest};

use crate::connection::{Connection, Listed};
use crate::error::SharedError;
use crate::fetch::ASKED_TOGETHER;
use crate::store::SharedStore;

/// What a collection may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedGcOptions {
    /// Results that were pushed longer ago are dropped; `None` keeps all results.
    pub max_age: Option<Duration>,
    /// Keys whose results are kept whatever their age.
    pub pins: HashSet<Key>,
    /// Whatever was written within this time is kept. It must be longer than a push takes and than clocks differ.
    pub grace: Duration,
    /// Report what would be removed, and remove nothing.
    pub dry_run: bool,
}

impl Default for SharedGcOptions {
    /// No limit of age, and a day of grace.
    fn default() -> Self {
        Self { max_age: None, pins: HashSet::new(), grace: Duration::from_secs(24 * 3600), dry_run: false }
    }
}

/// What a collection kept and removed, or would have removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedGcReport {
    /// Results that stay.
    pub kept_results: u64,
    /// Bytes of the objects that stay.
    pub kept_bytes: u64,
    /// Results that go, and manifests that are none.
    pub dropped_results: u64,
    /// Objects that go.
    pub dropped_objects: u64,
    /// Bytes of the objects that go.
    pub dropped_bytes: u64,
}

/// The manifests of a store, sorted into those that stay and those that go.
#[derive(Default)]
struct Sorted {
    seen: HashSet<Digest>,
    going: Vec<Listed>,
    /// The objects of those that stay.
    named: HashSet<Digest>,
    kept: u64,
}

impl SharedStore {
    /// Removes results that were pushed too long ago, and objects that no result names.
    ///
    /// # Errors
    /// [`SharedError`] if the store cannot be listed, read or changed: then nothing is removed that a manifest might name which
    /// could not be read.
    pub fn gc(&self, options: &SharedGcOptions) -> Result<SharedGcReport, SharedError> {
        let connection = self.connection()?;
        connection.wait(collect(&connection, options))
    }
}

async fn collect(connection: &Connection, options: &SharedGcOptions) -> Result<SharedGcReport, SharedError> {
    let now = SystemTime::now();
    // The objects are listed before the manifests, so that the objects of a push that ends meanwhile are not in this list.
    let objects = connection.list("objects").await?;
    let mut sorted = Sorted::default();
    sorted.take(connection, options, now).await?;
    if !options.dry_run {
        connection.remove(sorted.going.iter().map(|one| one.path.clone()).collect()).await?;
        // A push that found its objects in place has published by now, or will find them gone.
        sorted.take(connection, options, now).await?;
    }
    let mut report = SharedGcReport {
        kept_results: sorted.kept,
        dropped_results: sorted.going.len() as u64,
        ..SharedGcReport::default()
    };
    let mut going = Vec::new();
    for object in objects {
        let Some(digest) = object.digest else { continue };
        if sorted.named.contains(&digest) || !is_older(&object, options.grace, now) {
            report.kept_bytes += object.bytes;
        } else {
            report.dropped_objects += 1;
            report.dropped_bytes += object.bytes;
            going.push(object.path);
        }
    }
    if !options.dry_run {
        connection.remove(going).await?;
    }
    Ok(report)
}

impl Sorted {
    /// Sorts the manifests that were not there the last time.
    async fn take(
        &mut self,
        connection: &Connection,
        options: &SharedGcOptions,
        now: SystemTime,
    ) -> Result<(), SharedError> {
        let listed = connection.list("manifests").await?.into_iter();
        let new: HashMap<Digest, Listed> = listed
            .filter_map(|one| Some((one.digest?, one)))
            .filter(|(digest, _)| !self.seen.contains(digest))
            .collect();
        self.seen.extend(new.keys());
        let is_old = |digest: &Digest, one: &Listed| {
            options.max_age.is_some_and(|age| is_older(one, age.max(options.grace), now))
                && !options.pins.contains(&Key::from_digest(*digest))
        };
        let (old, young): (Vec<_>, Vec<_>) = new.into_iter().partition(|(digest, one)| is_old(digest, one));
        self.going.extend(old.into_iter().map(|(_, one)| one));
        let read = |(_, one): (Digest, Listed)| async move { (connection.read(&one.path).await, one) };
        let mut read = futures_util::stream::iter(young).map(read).buffer_unordered(ASKED_TOGETHER);
        while let Some((bytes, one)) = read.next().await {
            let manifest = bytes?.and_then(|bytes| Manifest::from_bytes(&bytes).ok());
            match manifest {
                Some(manifest) => {
                    self.kept += 1;
                    self.named.extend(manifest.objects().map(|file| file.digest));
                }
                None if is_older(&one, options.grace, now) => self.going.push(one),
                None => self.kept += 1,
            }
        }
        Ok(())
    }
}

/// Whether something was written longer ago than an age; what seems to come from the future was not.
fn is_older(one: &Listed, age: Duration, now: SystemTime) -> bool {
    now.duration_since(one.modified).is_ok_and(|since| since > age)
}
