//! Collection: keeping a store within a size and an age.
//!
//! Manifests are the roots. They are kept newest use first until the limits are reached; objects that no kept
//! manifest names are swept. Nothing waits for a collection, so each removal looks twice: a file that was
//! marked as used, or claimed, between the decision and the removal is put back.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;

use crate::claim::Claimed;
use crate::digest::Digest;
use crate::error::{IoContext, StoreError, if_present};
use crate::key::Key;
use crate::lease::read_lease;
use crate::manifest::Manifest;
use crate::process::{Liveness, ProcessIdentity};
use crate::staging::OWNER_FILE;
use crate::store::Store;
use crate::walk::{Leaf, entries, leaves, summarize_tree};
use crate::work::{Attempt, parse_attempt, remove_tree};

/// A process that cannot be looked at is taken for gone when nothing was heard of it for so long. Long,
/// because here a mistake costs computed results, while patience costs only disk space.
const FOREIGN_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What a collection may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcOptions {
    /// Objects of kept manifests may take this many bytes together.
    pub max_bytes: Option<u64>,
    /// Results that were not used for so long are dropped.
    pub max_age: Option<Duration>,
    /// Keys whose results are kept whatever their age and size.
    pub pins: Vec<Key>,
    /// Whatever was made or used within this time is kept. It must be longer than a publication takes and
    /// than clocks of hosts that share the store differ.
    pub grace: Duration,
    /// Work folders of dead processes whose key has no result are kept for so long: they hold checkpoints.
    pub work_age: Duration,
    /// Report what would be removed, and remove nothing.
    pub dry_run: bool,
}

impl Default for GcOptions {
    /// No limit of size or age, an hour of grace, and 30 days for checkpoints.
    fn default() -> Self {
        Self {
            max_bytes: None,
            max_age: None,
            pins: Vec::new(),
            grace: Duration::from_secs(3600),
            work_age: Duration::from_secs(30 * 24 * 3600),
            dry_run: false,
        }
    }
}

/// What a collection kept and removed, or would have removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Manifests that stay.
    pub kept_manifests: u64,
    /// Bytes of the objects that stay.
    pub kept_bytes: u64,
    /// Manifests that go.
    pub dropped_manifests: u64,
    /// Objects that go.
    pub dropped_objects: u64,
    /// Bytes of the objects that go.
    pub dropped_bytes: u64,
    /// Work folders that go.
    pub dropped_attempts: u64,
    /// Bytes of the work folders that go.
    pub dropped_attempt_bytes: u64,
    /// Staging folders of dead processes that go.
    pub dropped_staging: u64,
    /// Bytes of the staging folders that go.
    pub dropped_staging_bytes: u64,
    /// Leases of dead processes that go.
    pub dropped_leases: u64,
}

/// A manifest as a collection sees it.
struct Root {
    leaf: Leaf,
    /// `None` if the manifest cannot be read.
    key: Option<Key>,
    objects: Vec<(Digest, u64)>,
    protected: bool,
}

struct Collection<'store> {
    store: &'store Store,
    options: &'store GcOptions,
    now: SystemTime,
    /// What living processes use.
    claimed: Claimed,
    report: GcReport,
}

impl Store {
    /// Removes what no limit allows to stay, what no manifest names, and what dead processes left.
    ///
    /// Never removed: what was made or used within the grace time, what is pinned, what a living lease works
    /// on or reads, and folders of processes that may be alive.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a folder cannot be listed or a file not removed; [`StoreError::ReadOnly`] unless
    /// it is a dry run.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport, StoreError> {
        let now = match options.dry_run {
            true => SystemTime::now(),
            false => self.staging()?.file_system_now()?,
        };
        let mut claimed = Claimed::default();
        claimed.refresh(self, FOREIGN_PATIENCE)?;
        let mut collection = Collection { store: self, options, now, claimed, report: GcReport::default() };
        let protected = collection.sweep_leases()?;
        let mut kept = collection.sweep_manifests(&protected)?;
        if !options.dry_run {
            kept.extend(self.named_objects()?);
        }
        collection.sweep_objects(&kept)?;
        collection.sweep_work(&protected)?;
        collection.sweep_staging()?;
        Ok(collection.report)
    }

    /// The objects of all manifests that are there now. One that was placed since the manifests were listed may name objects that
    /// are older, such as those of a result that is remembered under another key as well; and by now the process that placed it
    /// may have ended, and another one have found it.
    fn named_objects(&self) -> Result<HashSet<Digest>, StoreError> {
        let roots = self.gc_roots(|_| true)?;
        Ok(roots.into_iter().flat_map(|root| root.objects).map(|(digest, _)| digest).collect())
    }

    fn gc_roots(&self, protected: impl Fn(&Leaf) -> bool + Sync) -> Result<Vec<Root>, StoreError> {
        let leaves = leaves(&self.manifests_folder(), ".json")?;
        let read = |leaf: Leaf| {
            let Some(bytes) = if_present(fs::read(&leaf.path)).at("read", &leaf.path)? else { return Ok(None) };
            let manifest = Manifest::from_bytes(&bytes).ok();
            let manifest =
                manifest.filter(|manifest| leaf.digest.is_some_and(|digest| digest == *manifest.key().digest()));
            let objects = manifest.iter().flat_map(Manifest::objects).map(|file| (file.digest, file.bytes)).collect();
            let key = manifest.map(|manifest| manifest.key());
            Ok(Some(Root { protected: protected(&leaf), key, objects, leaf }))
        };
        let roots: Vec<Option<Root>> = leaves.into_par_iter().map(read).collect::<Result<_, StoreError>>()?;
        Ok(roots.into_iter().flatten().collect())
    }
}

impl Collection<'_> {
    /// Removes dead leases; returns the keys that pins and living leases protect.
    fn sweep_leases(&mut self) -> Result<HashSet<Key>, StoreError> {
        let mut protected: HashSet<Key> = self.options.pins.iter().copied().collect();
        for path in entries(&self.store.leases_folder())? {
            let Some(held) = read_lease(&path)? else { continue };
            if let Some(record) = held.record.as_ref().filter(|_| held.lives(self.now, FOREIGN_PATIENCE)) {
                protected.insert(record.key);
                protected.extend(&record.reads);
                continue;
            }
            self.report.dropped_leases += 1;
            if !self.options.dry_run {
                self.store.staging()?.displace(&path, |aside| Ok(fs::read(aside)? == held.bytes))?;
            }
        }
        Ok(protected)
    }

    /// Drops the manifests that go beyond the limits; returns the objects that the others name.
    fn sweep_manifests(&mut self, protected: &HashSet<Key>) -> Result<HashSet<Digest>, StoreError> {
        let pinned = |leaf: &Leaf| {
            let key = leaf.digest.map(Key::from_digest);
            key.is_some_and(|key| protected.contains(&key) || self.claimed.contains(&key))
        };
        let mut roots = self.store.gc_roots(|leaf| pinned(leaf) || self.is_young(leaf.modified))?;
        // Protected ones first, so that they count before anything else is kept; then the newest use first.
        roots.sort_by(|a, b| {
            let newest = b.leaf.modified.cmp(&a.leaf.modified).then_with(|| a.leaf.path.cmp(&b.leaf.path));
            b.protected.cmp(&a.protected).then(newest)
        });
        let mut kept = HashSet::new();
        for root in roots {
            let added: u64 = unique_bytes(&root.objects, &kept);
            if self.keeps(&root, added) || !self.remove_if_unused(&root.leaf, root.key)? {
                self.report.kept_manifests += 1;
                self.report.kept_bytes += added;
                kept.extend(root.objects.iter().map(|(digest, _)| *digest));
            } else {
                self.report.dropped_manifests += 1;
            }
        }
        Ok(kept)
    }

    fn keeps(&self, root: &Root, added: u64) -> bool {
        let fits = self.options.max_bytes.is_none_or(|limit| self.report.kept_bytes.saturating_add(added) <= limit);
        let fresh = self.options.max_age.is_none_or(|limit| self.age(root.leaf.modified) <= limit);
        root.protected || (root.key.is_some() && fits && fresh)
    }

    fn sweep_objects(&mut self, kept: &HashSet<Digest>) -> Result<(), StoreError> {
        self.claimed.refresh(self.store, FOREIGN_PATIENCE)?;
        for leaf in leaves(&self.store.objects_folder(), "")? {
            // A file that is no object was put there by someone; it is not this program's to remove.
            let unneeded = leaf.digest.is_some_and(|digest| !kept.contains(&digest));
            let is_young = self.is_young(leaf.modified) || self.claimed.covers(leaf.modified);
            if unneeded && !is_young && self.remove_if_unused(&leaf, None)? {
                self.report.dropped_objects += 1;
                self.report.dropped_bytes += leaf.bytes;
            }
        }
        Ok(())
    }

    fn sweep_work(&mut self, protected: &HashSet<Key>) -> Result<(), StoreError> {
        for folder in entries(&self.store.work_folder())? {
            let key: Option<Key> = folder.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(key) = key.filter(|key| !protected.contains(key)) else { continue };
            let published = self.store.manifest_path(&key).exists();
            for attempt in entries(&folder)?.into_iter().filter_map(parse_attempt) {
                self.sweep_attempt(&attempt, published)?;
            }
            if !self.options.dry_run {
                // Fails, as it should, while an attempt is left.
                fs::remove_dir(&folder).ok();
            }
        }
        Ok(())
    }

    fn sweep_attempt(&mut self, attempt: &Attempt, published: bool) -> Result<(), StoreError> {
        let Some(summary) = summarize_tree(&attempt.folder)? else { return Ok(()) };
        let age = self.age(summary.modified);
        let gone = self.is_gone(attempt.liveness(), age);
        if !gone || !(published || age >= self.options.work_age) {
            return Ok(());
        }
        self.report.dropped_attempts += 1;
        self.report.dropped_attempt_bytes += summary.bytes;
        if self.options.dry_run { Ok(()) } else { attempt.remove() }
    }

    fn sweep_staging(&mut self) -> Result<(), StoreError> {
        for folder in entries(&self.store.tmp_folder())? {
            let owner = ProcessIdentity::read(&folder.join(OWNER_FILE));
            let liveness = owner.map_or(Liveness::Unknown, |owner| owner.liveness());
            let Some(summary) = summarize_tree(&folder)? else { continue };
            if !self.is_gone(liveness, self.age(summary.modified)) {
                continue;
            }
            self.report.dropped_staging += 1;
            self.report.dropped_staging_bytes += summary.bytes;
            if !self.options.dry_run {
                remove(&folder)?;
            }
        }
        Ok(())
    }

    fn is_gone(&self, liveness: Liveness, age: Duration) -> bool {
        match liveness {
            Liveness::Alive => false,
            Liveness::Dead => true,
            Liveness::Unknown => age > FOREIGN_PATIENCE,
        }
    }

    /// What was written since the collection began may belong to a process that began later still.
    fn is_young(&self, modified: SystemTime) -> bool {
        modified >= self.now || self.age(modified) < self.options.grace
    }

    /// A time in the future is no age at all.
    fn age(&self, modified: SystemTime) -> Duration {
        self.now.duration_since(modified).unwrap_or_default()
    }

    /// Removes a file unless it was used since it was listed, or is the manifest of a key that was claimed since then; `true`
    /// also where a dry run would remove it.
    fn remove_if_unused(&mut self, leaf: &Leaf, key: Option<Key>) -> Result<bool, StoreError> {
        if self.options.dry_run {
            return Ok(true);
        }
        let is_unused = |path: &Path| -> std::io::Result<bool> { Ok(fs::metadata(path)?.modified()? == leaf.modified) };
        // Whoever needs the file would miss it while it is aside.
        if matches!(if_present(is_unused(&leaf.path)).at("look at", &leaf.path)?, Some(false)) {
            return Ok(false);
        }
        let (store, claimed) = (self.store, &mut self.claimed);
        store.staging()?.displace(&leaf.path, |aside| {
            let Some(key) = key else { return is_unused(aside) };
            claimed.refresh(store, FOREIGN_PATIENCE).map_err(std::io::Error::other)?;
            Ok(is_unused(aside)? && !claimed.contains(&key))
        })
    }
}

/// Bytes of the objects that are not counted yet.
fn unique_bytes(objects: &[(Digest, u64)], counted: &HashSet<Digest>) -> u64 {
    let mut own = HashSet::new();
    let new = objects.iter().filter(|(digest, _)| !counted.contains(digest) && own.insert(*digest));
    new.map(|(_, bytes)| bytes).sum()
}

fn remove(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() { remove_tree(path) } else { if_present(fs::remove_file(path)).at("remove", path).map(|_| ()) }
}
