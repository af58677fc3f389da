//! Leases: who is working on a key.
//!
//! A lease keeps two processes from training the same network at the same time. It is an efficiency and
//! never a lock: results are right without it, since publication is put-if-absent. So a lease is taken over
//! as soon as its holder seems gone, and being wrong about that costs time, not correctness.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::{IoContext, StoreError, if_present};
use crate::key::Key;
use crate::process::{Liveness, ProcessIdentity, unique_name};
use crate::store::Store;

/// How often the holder of a lease shall call [`Lease::renew`].
const HEARTBEAT: Duration = Duration::from_secs(60);

/// A holder that cannot be looked at is taken for gone after three heartbeats that did not come.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs());

/// How often a lease is tried while other processes take and release it.
const ACQUIRE_ATTEMPTS: usize = 16;

/// What a lease's file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRecord {
    /// The key that is worked on.
    pub key: Key,
    /// The process that works on it.
    pub owner: ProcessIdentity,
    /// Keys whose outputs the work reads; a collection leaves them alone while the lease lives.
    pub reads: Vec<Key>,
    /// Tells this lease from an earlier one of the same process.
    token: String,
}

/// The answer to [`Store::acquire_lease`].
#[derive(Debug)]
pub enum Acquired {
    /// The key is this process's to work on.
    Lease(Lease),
    /// Another process works on it.
    Held(LeaseRecord),
}

/// A lease that this process holds; released when dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    record: LeaseRecord,
}

impl Lease {
    /// How often [`Lease::renew`] shall be called.
    pub const HEARTBEAT: Duration = HEARTBEAT;

    /// Says that the work is still going on; `false` if another process has taken the lease over.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the lease's file cannot be written.
    pub fn renew(&self, store: &Store) -> Result<bool, StoreError> {
        if !self.is_mine()? {
            return Ok(false);
        }
        // Written anew, so that the heartbeat is a time of the file system's clock and not of this host's.
        store.staging()?.write(&self.record.to_bytes())?.place(&self.path).map(|()| true)
    }

    /// Gives the key up, so that others need not wait.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the lease's file cannot be removed.
    pub fn release(self) -> Result<(), StoreError> {
        self.remove()
    }

    fn remove(&self) -> Result<(), StoreError> {
        if self.is_mine()? {
            if_present(fs::remove_file(&self.path)).at("remove", &self.path)?;
        }
        Ok(())
    }

    fn is_mine(&self) -> Result<bool, StoreError> {
        let held = read_lease(&self.path)?.and_then(|held| held.record);
        Ok(held.is_some_and(|record| record.token == self.record.token))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A lease that stays behind is taken over when this process has ended.
        self.remove().ok();
    }
}

impl LeaseRecord {
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: a lease is made of texts and numbers")
    }
}

impl Store {
    /// Takes the lease of a key, unless another process that seems to live holds it.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Io`].
    pub fn acquire_lease(&self, key: &Key, reads: &[Key]) -> Result<Acquired, StoreError> {
        let owner = ProcessIdentity::current().clone();
        let record = LeaseRecord { key: *key, owner, reads: reads.to_vec(), token: unique_name() };
        let path = self.leases_folder().join(format!("{key}.json"));
        let staging = self.staging()?;
        let staged = staging.write(&record.to_bytes())?;
        let mut holder = None;
        for _ in 0..ACQUIRE_ATTEMPTS {
            match fs::hard_link(staged.path(), &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => {
                    result.at("create", &path)?;
                    return Ok(Acquired::Lease(Lease { path, record }));
                }
            }
            let Some(held) = read_lease(&path)? else { continue };
            let lives = held.lives(staging.file_system_now()?, TAKE_OVER_AFTER);
            holder = held.record;
            match holder {
                Some(living) if lives => return Ok(Acquired::Held(living)),
                _ => staging.displace(&path, |aside| Ok(fs::read(aside)? == held.bytes))?,
            };
        }
        holder.map(Acquired::Held).ok_or(io::Error::from(io::ErrorKind::ResourceBusy)).at("acquire", &path)
    }
}

/// A lease's file as it was read.
#[derive(Debug)]
pub(crate) struct HeldLease {
    pub(crate) bytes: Vec<u8>,
    /// `None` if the file cannot be understood.
    pub(crate) record: Option<LeaseRecord>,
    heartbeat: SystemTime,
}

impl HeldLease {
    /// Whether the holder seems to live; one that cannot be looked at gets `patience` between heartbeats.
    pub(crate) fn lives(&self, now: SystemTime, patience: Duration) -> bool {
        match self.record.as_ref().map(|record| record.owner.liveness()) {
            Some(Liveness::Alive) => true,
            Some(Liveness::Unknown) => now.duration_since(self.heartbeat).is_ok_and(|age| age <= patience),
            Some(Liveness::Dead) | None => false,
        }
    }
}

/// Reads a lease's file; `None` if there is none.
pub(crate) fn read_lease(path: &Path) -> Result<Option<HeldLease>, StoreError> {
    let read = || {
        let bytes = fs::read(path)?;
        let heartbeat = fs::metadata(path)?.modified()?;
        Ok(HeldLease { record: serde_json::from_slice(&bytes).ok(), bytes, heartbeat })
    };
    if_present(read()).at("read", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn store() -> (tempfile::TempDir, Store, Key) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store, Key::of(&json!("train")))
    }

    fn acquire(store: &Store, key: &Key) -> Option<Lease> {
        match store.acquire_lease(key, &[]).unwrap() {
            Acquired::Lease(lease) => Some(lease),
            Acquired::Held(_) => None,
        }
    }

    /// Writes a lease of a process that is not this one, with a heartbeat of some time ago.
    fn foreign_lease(store: &Store, key: &Key, owner: ProcessIdentity, age: Duration) {
        let record = LeaseRecord { key: *key, owner, reads: Vec::new(), token: "other".into() };
        let path = store.leases_folder().join(format!("{key}.json"));
        fs::write(&path, record.to_bytes()).unwrap();
        fs::File::open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    fn on_another_host() -> ProcessIdentity {
        ProcessIdentity { host: "elsewhere".into(), ..ProcessIdentity::current().clone() }
    }

    #[test]
    fn a_held_lease_is_not_given_twice() {
        let (_folder, store, key) = store();
        let _lease = acquire(&store, &key).unwrap();
        assert!(acquire(&store, &key).is_none());
    }

    #[test]
    fn a_released_lease_is_free() {
        let (_folder, store, key) = store();
        acquire(&store, &key).unwrap().release().unwrap();
        assert!(acquire(&store, &key).is_some());
    }

    #[test]
    fn a_dropped_lease_is_free() {
        let (_folder, store, key) = store();
        drop(acquire(&store, &key).unwrap());
        assert!(acquire(&store, &key).is_some());
    }

    #[test]
    fn a_lease_of_a_dead_process_is_taken_over_at_once() {
        let (_folder, store, key) = store();
        // Two processes can have one number, but not one number and one start.
        let dead = ProcessIdentity { started: Some(1), ..ProcessIdentity::current().clone() };
        foreign_lease(&store, &key, dead, Duration::ZERO);
        assert!(acquire(&store, &key).is_some());
    }

    #[test]
    fn a_lease_of_another_host_holds_while_its_heart_beats() {
        let (_folder, store, key) = store();
        foreign_lease(&store, &key, on_another_host(), HEARTBEAT);
        assert!(acquire(&store, &key).is_none());
    }

    #[test]
    fn a_lease_of_another_host_without_heartbeat_is_taken_over() {
        let (_folder, store, key) = store();
        foreign_lease(&store, &key, on_another_host(), 4 * HEARTBEAT);
        assert!(acquire(&store, &key).is_some());
    }

    #[test]
    fn a_lease_that_cannot_be_understood_is_taken_over() {
        let (_folder, store, key) = store();
        fs::write(store.leases_folder().join(format!("{key}.json")), "{").unwrap();
        assert!(acquire(&store, &key).is_some());
    }

    #[test]
    fn a_lease_that_was_taken_over_cannot_be_renewed() {
        let (_folder, store, key) = store();
        let lease = acquire(&store, &key).unwrap();
        foreign_lease(&store, &key, on_another_host(), Duration::ZERO);
        assert!(!lease.renew(&store).unwrap());
    }

    #[test]
    fn releasing_a_lease_that_was_taken_over_leaves_the_new_one() {
        let (_folder, store, key) = store();
        let lease = acquire(&store, &key).unwrap();
        foreign_lease(&store, &key, on_another_host(), Duration::ZERO);
        lease.release().unwrap();
        assert!(acquire(&store, &key).is_none());
    }

    #[test]
    fn of_many_threads_one_gets_the_lease_of_a_dead_process() {
        let (_folder, store, key) = store();
        let dead = ProcessIdentity { started: Some(1), ..ProcessIdentity::current().clone() };
        foreign_lease(&store, &key, dead, Duration::ZERO);
        let leases: Vec<Option<Lease>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| acquire(&store, &key))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(leases.into_iter().flatten().count(), 1);
    }
}
