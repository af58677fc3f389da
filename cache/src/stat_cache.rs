//! Digests of source files that were not touched since they were last read.
//!
//! A warm run must not read a dataset of 100 GB to learn that nothing changed. The cache remembers the digest
//! of a file under everything that the file system changes when the file's content changes: device, inode,
//! size, and the times of modification and of status change in nanoseconds. No path is part of it, so a
//! dataset that was moved is still known.
//!
//! A modification time alone never decides that something must run again; it only decides whether a file has
//! to be read to find that out.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use crate::digest::{Digest, hash_bytes, hash_reader};
use crate::error::{IoContext, StoreError, if_present};
use crate::store::Store;

/// First bytes of the cache's file; another format is another text.
const MAGIC: &[u8; 16] = b"nnflow-stat-1\n\n\n";

/// Bytes of one entry: six numbers of 8 bytes and a digest.
const ENTRY_BYTES: usize = 6 * 8 + 32;

/// A file that changed within this time before it was read may change again without a change of its times,
/// because file systems count time in ticks (git calls such an entry racy; some count whole seconds).
const RACY: Duration = Duration::from_secs(2);

/// Entries that were not used for so many days are forgotten.
const KEEP_DAYS: u64 = 90;

/// The digest of a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceDigest {
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// Number of the file's bytes.
    pub bytes: u64,
}

/// What the file system says of a file; it changes whenever the content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: i64,
    changed: i64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    digest: Digest,
    /// Days since 1970 at the last use.
    used: u64,
}

type Entries = HashMap<Fingerprint, Entry>;

/// The digests of source files that a store remembers; threads may share it.
#[derive(Debug)]
pub struct StatCache<'store> {
    store: &'store Store,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: Entries,
    changed: bool,
}

impl Store {
    /// Loads the digests of source files. A file that is absent or damaged is an empty cache.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file is there and cannot be read.
    pub fn stat_cache(&self) -> Result<StatCache<'_>, StoreError> {
        let entries = self.read_stat_cache()?;
        Ok(StatCache { store: self, state: Mutex::new(State { entries, changed: false }) })
    }

    fn read_stat_cache(&self) -> Result<Entries, StoreError> {
        let path = self.stat_cache_path();
        let bytes = if_present(fs::read(&path)).at("read", &path)?;
        Ok(bytes.and_then(|bytes| decode(&bytes)).unwrap_or_default())
    }

    fn stat_cache_path(&self) -> PathBuf {
        self.index_folder().join("stat-cache")
    }
}

impl StatCache<'_> {
    /// The digest of a file, read only if the file may have changed since it was last read.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be read; [`StoreError::SourceChanged`] if someone writes to it.
    pub fn digest_of(&self, path: &Path) -> Result<SourceDigest, StoreError> {
        self.digest_at(path, SystemTime::now())
    }

    /// The digests of many files, in their order; reads them in parallel.
    pub fn digests_of<P: AsRef<Path> + Sync>(&self, paths: &[P]) -> Vec<Result<SourceDigest, StoreError>> {
        paths.par_iter().map(|path| self.digest_of(path.as_ref())).collect()
    }

    /// Writes what was learnt to the store, together with what other processes wrote meanwhile.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Io`].
    pub fn save(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        if !state.changed {
            return Ok(());
        }
        let mut merged = self.store.read_stat_cache()?;
        merged.extend(&state.entries);
        let today = days_since_1970(SystemTime::now());
        merged.retain(|_, entry| entry.used.saturating_add(KEEP_DAYS) >= today);
        // Not flushed: what a loss of power takes is only read again.
        self.store.staging()?.write(&encode(&merged))?.place(&self.store.stat_cache_path())?;
        *state = State { entries: merged, changed: false };
        Ok(())
    }

    /// How many files are remembered.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether no file is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn digest_at(&self, path: &Path, now: SystemTime) -> Result<SourceDigest, StoreError> {
        let metadata = fs::metadata(path).at("look at", path)?;
        let fingerprint = Fingerprint::of(&metadata);
        if let Some(digest) = self.recall(&fingerprint, days_since_1970(now)) {
            return Ok(SourceDigest { digest, bytes: fingerprint.bytes });
        }
        let (digest, bytes) = read_unchanged(path, &fingerprint)?;
        if !fingerprint.is_racy(now) {
            let mut state = self.state();
            state.entries.insert(fingerprint, Entry { digest, used: days_since_1970(now) });
            state.changed = true;
        }
        Ok(SourceDigest { digest, bytes })
    }

    fn recall(&self, fingerprint: &Fingerprint, today: u64) -> Option<Digest> {
        let mut state = self.state();
        let entry = state.entries.get_mut(fingerprint)?;
        let digest = entry.digest;
        let old_note = entry.used != today;
        entry.used = today;
        state.changed |= old_note;
        Some(digest)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the map is one insertion; a panic cannot leave half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fingerprint {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file may change after `now` and keep its times.
    fn is_racy(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let last = self.modified.max(self.changed);
        i128::from(last) + i128::try_from(RACY.as_nanos()).unwrap_or(i128::MAX) >= i128::try_from(now).unwrap_or(0)
    }
}

/// Reads the file and checks that it is, before and after, the one that was looked at.
fn read_unchanged(path: &Path, expected: &Fingerprint) -> Result<(Digest, u64), StoreError> {
    let mut file = File::open(path).at("open", path)?;
    let found = hash_reader(&mut file, expected.bytes).at("read", path)?;
    let after = Fingerprint::of(&file.metadata().at("look at", path)?);
    if after != *expected || found.1 != expected.bytes {
        return Err(StoreError::SourceChanged { path: path.to_owned() });
    }
    Ok(found)
}

/// Nanoseconds since 1970; 64 bits reach the year 2262.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn days_since_1970(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / (24 * 3600)
}

/// The cache's file: the magic bytes, the entries in a fixed order, and the digest of all that.
fn encode(entries: &Entries) -> Vec<u8> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_unstable_by_key(|(fingerprint, _)| **fingerprint);
    let mut bytes = Vec::with_capacity(MAGIC.len() + ENTRY_BYTES * sorted.len() + 32);
    bytes.extend(MAGIC);
    for (fingerprint, entry) in sorted {
        for number in [fingerprint.device, fingerprint.inode, fingerprint.bytes, entry.used] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(fingerprint.modified.to_le_bytes());
        bytes.extend(fingerprint.changed.to_le_bytes());
        bytes.extend(entry.digest.as_bytes());
    }
    let checksum = hash_bytes(&bytes);
    bytes.extend(checksum.as_bytes());
    bytes
}

/// `None` if the bytes are not a cache's file of this format, whole and unaltered.
fn decode(bytes: &[u8]) -> Option<Entries> {
    let (body, checksum) = bytes.split_last_chunk::<32>()?;
    if hash_bytes(body).as_bytes() != checksum {
        return None;
    }
    let (entries, rest) = body.strip_prefix(MAGIC)?.as_chunks::<ENTRY_BYTES>();
    rest.is_empty().then(|| entries.iter().map(decode_entry).collect())
}

fn decode_entry(bytes: &[u8; ENTRY_BYTES]) -> (Fingerprint, Entry) {
    let (numbers, _) = bytes.as_chunks::<8>();
    let number = |index: usize| u64::from_le_bytes(numbers[index]);
    let time = |index: usize| i64::from_le_bytes(numbers[index]);
    let mut digest = [0; 32];
    digest.copy_from_slice(&bytes[6 * 8..]);
    let fingerprint =
        Fingerprint { device: number(0), inode: number(1), bytes: number(2), modified: time(4), changed: time(5) };
    (fingerprint, Entry { digest: Digest::from_bytes(digest), used: number(3) })
}

#[cfg(test)]
mod tests;
