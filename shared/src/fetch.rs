//! Fetching: results of the shared store become results of the local one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use nnflow_cache::{Digest, FileEntry, Key, Manifest, Store, StoreError};
use rayon::prelude::*;

use crate::connection::Connection;
use crate::error::SharedError;
use crate::flaw::Flaw;
use crate::store::SharedStore;

/// How many small questions are under way at a time.
pub(crate) const ASKED_TOGETHER: usize = 64;

/// How many files are under way at a time.
pub(crate) const MOVED_TOGETHER: usize = 8;

/// How many objects are fetched before they are published together, unless they are large: what is published is not fetched
/// again after the run was stopped.
const MOST_OBJECTS: usize = 256;

/// Objects of more bytes than this are published before more are fetched.
const MOST_BYTES: u64 = 1 << 30;

/// Objects to fetch, each with its length.
type Wanted = BTreeMap<Digest, u64>;

/// Objects that did not come, each with what is wrong with it, unless nobody knows.
type Lost = HashMap<Digest, Option<Flaw>>;

/// A result that the shared store has, and whose key it is for.
struct Found {
    place: usize,
    manifest: Manifest,
}

impl SharedStore {
    /// Fetches the results of keys into the local store; returns the manifests that stand there now, in the order of the keys.
    ///
    /// A key without a usable result is `None`, whatever the reason; [`SharedStore::take_warnings`] tells what was wrong.
    pub fn fetch(&self, local: &Store, keys: &[Key]) -> Vec<Option<Manifest>> {
        let mut answers = vec![None; keys.len()];
        if keys.is_empty() || self.rests() {
            return answers;
        }
        if let Err(error) = self.fetch_into(local, keys, &mut answers) {
            self.note(&error);
        }
        answers
    }

    fn fetch_into(&self, local: &Store, keys: &[Key], answers: &mut [Option<Manifest>]) -> Result<(), SharedError> {
        let connection = self.connection()?;
        let found = connection.wait(self.find(&connection, keys));
        let wanted = missing_here(local, &found);
        if !wanted.is_empty() {
            self.announce(wanted.len(), wanted.values().sum());
        }
        let lost = self.fetch_objects(&connection, local, wanted)?;
        let mut whole = Vec::new();
        for one in found {
            let missing = one.manifest.objects().find_map(|file| lost.get(&file.digest));
            match missing {
                None => whole.push(one),
                Some(None) => {}
                Some(Some(flaw)) => self.note_flaw(&one.manifest.key(), flaw),
            }
        }
        let batch = |one: &Found| {
            let batch = local.batch();
            batch.add_manifest(one.manifest.clone());
            batch
        };
        let ends = local.commit_together(whole.iter().map(batch).collect());
        for (one, end) in whole.iter().zip(ends) {
            match end {
                Ok(mut published) => {
                    self.counters().fetched.fetch_add(1, Ordering::Relaxed);
                    answers[one.place] = published.pop().map(|published| published.manifest);
                }
                Err(error) => self.note(&error.into()),
            }
        }
        Ok(())
    }

    /// The manifests of those keys that have one.
    async fn find(&self, connection: &Connection, keys: &[Key]) -> Vec<Found> {
        let ask = |(place, key): (usize, Key)| async move {
            if self.rests() {
                return None;
            }
            match self.manifest_of(connection, &key).await {
                Ok(Some(Ok(manifest))) => return Some(Found { place, manifest }),
                Ok(Some(Err(flaw))) => self.note_flaw(&key, &flaw),
                Ok(None) => {}
                Err(error) => self.note(&error),
            }
            None
        };
        let asked = futures_util::stream::iter(keys.iter().copied().enumerate()).map(ask);
        asked.buffered(ASKED_TOGETHER).filter_map(std::future::ready).collect().await
    }

    /// The manifest of a key, or what is wrong with it; `None` if there is none.
    pub(crate) async fn manifest_of(
        &self,
        connection: &Connection,
        key: &Key,
    ) -> Result<Option<Result<Manifest, Flaw>>, SharedError> {
        let bytes = connection.read(&connection.manifest(key)).await?;
        Ok(bytes.map(|bytes| judge(key, &bytes)))
    }

    /// Fetches objects into the local store; returns those that did not come.
    fn fetch_objects(&self, connection: &Connection, local: &Store, wanted: Wanted) -> Result<Lost, SharedError> {
        let mut lost = Lost::new();
        let mut wanted = wanted.into_iter().peekable();
        while wanted.peek().is_some() {
            let mut bytes = 0;
            let mut group = Wanted::new();
            while let Some((digest, length)) = wanted.next_if(|_| bytes < MOST_BYTES && group.len() < MOST_OBJECTS) {
                bytes += length;
                group.insert(digest, length);
            }
            lost.extend(self.fetch_group(connection, local, group)?);
        }
        Ok(lost)
    }

    fn fetch_group(&self, connection: &Connection, local: &Store, group: Wanted) -> Result<Lost, SharedError> {
        let scratch = local.scratch()?;
        let file = |digest: &Digest| scratch.folder().join(digest.to_hex());
        let download = |(digest, bytes): (Digest, u64)| {
            let to = file(&digest);
            async move {
                if self.rests() {
                    return (digest, Err(None));
                }
                let end = match connection.download(digest, bytes, &to).await {
                    Ok(end) => end.map_err(Some),
                    Err(error) => {
                        self.note(&error);
                        Err(None)
                    }
                };
                (digest, end)
            }
        };
        let downloads = futures_util::stream::iter(group.clone()).map(download).buffer_unordered(MOVED_TOGETHER);
        let ended: HashMap<Digest, Result<(), Option<Flaw>>> = connection.wait(downloads.collect());
        let objects = local.batch();
        let adopt = |(digest, end): (Digest, Result<(), Option<Flaw>>)| {
            let adopted = end.and_then(|()| {
                objects.adopt_expected(&file(&digest), &digest).map_err(|error| match error {
                    StoreError::WrongObject { .. } => Some(Flaw::WrongBytes { digest }),
                    error => {
                        self.note(&error.into());
                        None
                    }
                })
            });
            adopted.err().map(|flaw| (digest, flaw))
        };
        let lost: Lost = ended.into_par_iter().filter_map(adopt).collect();
        objects.commit()?;
        let moved = group.iter().filter(|(digest, _)| !lost.contains_key(digest)).map(|(_, bytes)| bytes).sum();
        self.counters().fetched_bytes.fetch_add(moved, Ordering::Relaxed);
        Ok(lost)
    }

    /// Which of the keys the shared store has a manifest of; nothing is fetched.
    ///
    /// # Errors
    /// [`SharedError`] if the store cannot be asked.
    pub fn has(&self, keys: &[Key]) -> Result<Vec<bool>, SharedError> {
        let connection = self.connection()?;
        let ask = |key: &Key| {
            let path = connection.manifest(key);
            let connection = &connection;
            async move { connection.length(&path).await.map(|length| length.is_some()) }
        };
        let asked = futures_util::stream::iter(keys).map(ask).buffered(ASKED_TOGETHER);
        let answers: Vec<Result<bool, SharedError>> = connection.wait(asked.collect());
        answers.into_iter().collect()
    }
}

/// Decides whether the bytes of a manifest's file can be used for a key. The objects are another matter.
fn judge(key: &Key, bytes: &[u8]) -> Result<Manifest, Flaw> {
    let manifest = Manifest::from_bytes(bytes)?;
    if manifest.key() != *key {
        return Err(Flaw::Misplaced { found: manifest.key() });
    }
    if !manifest.is_consistent() {
        return Err(Flaw::Inconsistent);
    }
    Ok(manifest)
}

/// The objects that manifests name and the local store has not, or not with all their bytes.
fn missing_here(local: &Store, found: &[Found]) -> Wanted {
    let is_here = |file: &FileEntry| {
        fs::metadata(local.object_path(&file.digest)).is_ok_and(|metadata| metadata.len() == file.bytes)
    };
    let mut seen = HashSet::new();
    let named = found.iter().flat_map(|one| one.manifest.objects());
    let missing = named.filter(|file| seen.insert(file.digest) && !is_here(file));
    missing.map(|file| (file.digest, file.bytes)).collect()
}
