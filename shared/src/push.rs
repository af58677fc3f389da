//! Pushing: results of the local store become results of the shared one, objects first and the manifest last.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use nnflow_cache::{Digest, Key, Manifest, Store};

use crate::connection::Connection;
use crate::error::SharedError;
use crate::fetch::{ASKED_TOGETHER, MOVED_TOGETHER};
use crate::flaw::Flaw;
use crate::store::{Mode, SharedStore};

/// How many results are pushed together.
const MOST_RESULTS: usize = 256;

/// What became of results that were to be pushed.
#[derive(Debug, Default)]
pub struct PushReport {
    /// Results that the shared store has now and had not before.
    pub pushed: u64,
    /// Results that it had already.
    pub present: u64,
    /// Results that it has not, and why.
    pub unpushed: Vec<Unpushed>,
}

/// A result that was not pushed.
#[derive(Debug)]
pub struct Unpushed {
    /// Its key.
    pub key: Key,
    /// Why; `None` for one that was not tried because another one failed.
    pub error: Option<SharedError>,
}

/// A result on its way.
struct Outgoing {
    manifest: Manifest,
    /// Whether the shared store has a manifest for its key that must make way.
    replaces: bool,
}

/// What became of an object: nothing is said of those that were not tried.
type Objects = HashMap<Digest, Option<Result<(), SharedError>>>;

impl SharedStore {
    /// Puts results of the local store into the shared one.
    ///
    /// # Errors
    /// [`SharedError::ReadOnly`]; [`SharedError`] if the store cannot be asked at all. What fails for one result is in the
    /// report.
    pub fn push(&self, local: &Store, keys: &[Key]) -> Result<PushReport, SharedError> {
        if self.mode() == Mode::ReadOnly {
            return Err(SharedError::ReadOnly { address: self.address().to_string() });
        }
        let connection = self.connection()?;
        let mut report = PushReport::default();
        if keys.is_empty() {
            return Ok(report);
        }
        connection.wait(connection.write_version())?;
        for group in keys.chunks(MOST_RESULTS) {
            connection.wait(self.push_group(&connection, local, group, &mut report));
        }
        Ok(report)
    }

    async fn push_group(&self, connection: &Connection, local: &Store, keys: &[Key], report: &mut PushReport) {
        let decide = |key: Key| async move { (key, self.decide(connection, local, &key).await) };
        let decisions = futures_util::stream::iter(keys.iter().copied()).map(decide).buffered(ASKED_TOGETHER);
        let mut outgoing = Vec::new();
        for (key, decision) in decisions.collect::<Vec<_>>().await {
            match decision {
                Ok(None) => report.present += 1,
                Ok(Some(result)) => outgoing.push(result),
                Err(error) => self.fail(key, Some(error), report),
            }
        }
        let mut objects = self.push_objects(connection, local, &outgoing).await;
        let (ready, lost): (Vec<_>, Vec<_>) = outgoing.into_iter().partition(|one| {
            one.manifest.objects().all(|file| matches!(objects.get(&file.digest), Some(Some(Ok(())))))
        });
        for one in lost {
            // Of several results that want the same object, the first one tells what is wrong with it.
            let failed = one.manifest.objects().find_map(|file| match objects.get_mut(&file.digest)?.take() {
                Some(Err(error)) => Some(error),
                Some(Ok(())) => {
                    objects.insert(file.digest, Some(Ok(())));
                    None
                }
                None => None,
            });
            self.fail(one.manifest.key(), failed, report);
        }
        let publish = |one: Outgoing| async move { (one.manifest.key(), self.publish(connection, &one).await) };
        let published = futures_util::stream::iter(ready).map(publish).buffered(ASKED_TOGETHER);
        for (key, end) in published.collect::<Vec<_>>().await {
            match end {
                Ok(true) => {
                    report.pushed += 1;
                    self.counters().pushed.fetch_add(1, Ordering::Relaxed);
                }
                Ok(false) => report.present += 1,
                Err(error) => self.fail(key, Some(error), report),
            }
        }
    }

    fn fail(&self, key: Key, error: Option<SharedError>, report: &mut PushReport) {
        if let Some(error) = error.as_ref().filter(|error| error.concerns_everything()) {
            self.note(error);
        }
        report.unpushed.push(Unpushed { key, error });
    }

    /// What has to be sent for a result: nothing where another publisher was first and all of its objects are there.
    async fn decide(&self, connection: &Connection, local: &Store, key: &Key) -> Result<Option<Outgoing>, SharedError> {
        if self.rests() {
            return Err(SharedError::Resting { address: self.address().to_string() });
        }
        let Some(manifest) = local.lookup(key)?.hit() else { return Err(SharedError::NotHere) };
        let replaces = match self.manifest_of(connection, key).await? {
            None => false,
            Some(Err(_)) => true,
            Some(Ok(theirs)) => {
                let keeps_less = manifest.stored && !theirs.stored;
                if !keeps_less && self.flaw_of(connection, &theirs).await?.is_none() {
                    return Ok(None);
                }
                true
            }
        };
        Ok(Some(Outgoing { manifest, replaces }))
    }

    /// What is wrong with the objects of a manifest in the shared store, as far as that can be seen without reading them.
    async fn flaw_of(&self, connection: &Connection, manifest: &Manifest) -> Result<Option<Flaw>, SharedError> {
        for file in manifest.objects() {
            let (digest, expected) = (file.digest, file.bytes);
            match connection.length(&connection.object(&digest)).await? {
                None => return Ok(Some(Flaw::MissingObject { digest })),
                Some(found) if found != expected => {
                    return Ok(Some(Flaw::WrongLength { digest, expected, found }));
                }
                Some(_) if self.is_suspect(&digest) => return Ok(Some(Flaw::WrongBytes { digest })),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    async fn push_objects(&self, connection: &Connection, local: &Store, outgoing: &[Outgoing]) -> Objects {
        let named = outgoing.iter().flat_map(|one| one.manifest.objects());
        let objects: BTreeMap<Digest, u64> = named.map(|file| (file.digest, file.bytes)).collect();
        let send = |(digest, bytes): (Digest, u64)| async move {
            if self.rests() {
                return (digest, None);
            }
            let sent = self.push_object(connection, local, digest, bytes).await;
            if let Some(error) = sent.as_ref().err().filter(|error| error.concerns_everything()) {
                self.note(error);
            }
            (digest, Some(sent))
        };
        futures_util::stream::iter(objects).map(send).buffer_unordered(MOVED_TOGETHER).collect().await
    }

    /// Puts an object where it belongs, unless it is there with all its bytes.
    async fn push_object(
        &self,
        connection: &Connection,
        local: &Store,
        digest: Digest,
        bytes: u64,
    ) -> Result<(), SharedError> {
        let is_there = connection.length(&connection.object(&digest)).await? == Some(bytes);
        if is_there && !self.is_suspect(&digest) {
            return Ok(());
        }
        connection.upload(digest, bytes, &local.object_path(&digest)).await?;
        self.clear_suspect(&digest);
        self.counters().pushed_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Puts the manifest of a result whose objects are all there; `false` if another publisher was first.
    async fn publish(&self, connection: &Connection, one: &Outgoing) -> Result<bool, SharedError> {
        let path = connection.manifest(&one.manifest.key());
        if one.replaces {
            connection.put(&path, one.manifest.to_bytes()).await?;
            return Ok(true);
        }
        connection.put_if_absent(&path, one.manifest.to_bytes()).await
    }
}
