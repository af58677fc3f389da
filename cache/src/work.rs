//! Work under way that can be gone on with: a folder for each attempt at a key.
//!
//! Every attempt has a folder of its own, because the process of an earlier one may still be running: a
//! cluster that believes a node dead starts the job again elsewhere. An attempt that dies leaves its folder,
//! where a later one finds its checkpoints.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{IoContext, StoreError};
use crate::key::Key;
use crate::process::{Liveness, ProcessIdentity, unique_name};
use crate::store::Store;
use crate::walk::entries;

/// How often an attempt is begun while other processes remove the folder around it.
const OWNER_ATTEMPTS: usize = 16;

/// One attempt at the work of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// 1 for the first attempt. Two that start at the same time may have the same number.
    pub number: u32,
    /// The folder; only this attempt writes there.
    pub folder: PathBuf,
}

impl Attempt {
    /// Whether the process of this attempt still runs, as far as this process can see.
    pub fn liveness(&self) -> Liveness {
        ProcessIdentity::read(&self.owner_path()).map_or(Liveness::Unknown, |owner| owner.liveness())
    }

    /// Whether it is an attempt of this process, or of one that has ended.
    fn is_free_to_remove(&self) -> bool {
        ProcessIdentity::read(&self.owner_path())
            .is_some_and(|owner| owner == *ProcessIdentity::current() || owner.liveness() == Liveness::Dead)
    }

    /// Stands beside the folder, so that the folder holds nothing but what the work puts there.
    pub(crate) fn owner_path(&self) -> PathBuf {
        self.folder.with_extension("json")
    }

    /// Removes the folder and all that is in it.
    ///
    /// # Errors
    /// [`StoreError::Io`] if something cannot be removed.
    pub fn remove(&self) -> Result<(), StoreError> {
        remove_tree(&self.folder)?;
        let owner = self.owner_path();
        crate::error::if_present(fs::remove_file(&owner)).at("remove", &owner).map(|_| ())
    }
}

impl Store {
    /// Makes a folder for a new attempt at a key.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Io`].
    pub fn new_attempt(&self, key: &Key) -> Result<Attempt, StoreError> {
        if !self.is_writable() {
            return Err(StoreError::ReadOnly { root: self.root().to_owned() });
        }
        let number = self.attempts(key)?.first().map_or(1, |latest| latest.number.saturating_add(1));
        let folder = self.work_path(key).join(format!("attempt-{number}-{}", unique_name()));
        let attempt = Attempt { number, folder };
        // The owner comes first: a folder without one would look abandoned.
        self.write_owner(key, &attempt)?;
        fs::create_dir(&attempt.folder).at("create the folder", &attempt.folder)?;
        Ok(attempt)
    }

    fn write_owner(&self, key: &Key, attempt: &Attempt) -> Result<(), StoreError> {
        let (folder, owner) = (self.work_path(key), attempt.owner_path());
        for _ in 1..OWNER_ATTEMPTS {
            fs::create_dir_all(&folder).at("create the folder", &folder)?;
            match fs::write(&owner, ProcessIdentity::current().to_json()) {
                // Another process has published the key and removed the folder while it was empty.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                written => return written.at("write", &owner),
            }
        }
        Err(io::Error::from(io::ErrorKind::ResourceBusy)).at("write", &owner)
    }

    /// The attempts at a key whose folders are still there, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be listed.
    pub fn attempts(&self, key: &Key) -> Result<Vec<Attempt>, StoreError> {
        let mut attempts: Vec<Attempt> = entries(&self.work_path(key))?.into_iter().filter_map(parse_attempt).collect();
        attempts.sort_by(|a, b| b.cmp(a));
        Ok(attempts)
    }

    /// Removes the attempts at a key; for after its publication.
    ///
    /// An attempt of another process that may still run is left to it: it would fail without its folder, and its own
    /// publication adopts the one that stands.
    ///
    /// # Errors
    /// [`StoreError::Io`] if something cannot be removed.
    pub fn remove_work(&self, key: &Key) -> Result<(), StoreError> {
        for attempt in self.attempts(key)?.iter().filter(|attempt| attempt.is_free_to_remove()) {
            attempt.remove()?;
        }
        let folder = self.work_path(key);
        match fs::remove_dir(&folder) {
            // It stays for as long as another process has an attempt in it, which may also have removed it by now.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
            removed => removed.at("remove the folder", &folder),
        }
    }

    fn work_path(&self, key: &Key) -> PathBuf {
        self.work_folder().join(key.to_string())
    }
}

/// Removes a folder with all that is in it; not being there is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    crate::error::if_present(fs::remove_dir_all(path)).at("remove", path).map(|_| ())
}

pub(crate) fn parse_attempt(folder: PathBuf) -> Option<Attempt> {
    let (number, _) = folder.file_name()?.to_str()?.strip_prefix("attempt-")?.split_once('-')?;
    let number = number.parse().ok()?;
    folder.is_dir().then_some(Attempt { number, folder })
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

    #[test]
    fn attempts_are_listed_newest_first_beyond_nine() {
        let (_folder, store, key) = store();
        let made: Vec<Attempt> = (0..11).map(|_| store.new_attempt(&key).unwrap()).collect();
        assert_eq!(store.attempts(&key).unwrap(), made.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_new_attempt_has_an_empty_folder_of_its_own() {
        let (_folder, store, key) = store();
        let (a, b) = (store.new_attempt(&key).unwrap(), store.new_attempt(&key).unwrap());
        assert_ne!(a.folder, b.folder);
        assert_eq!(fs::read_dir(&b.folder).unwrap().count(), 0);
    }

    #[test]
    fn an_attempt_of_this_process_is_alive() {
        let (_folder, store, key) = store();
        assert_eq!(store.new_attempt(&key).unwrap().liveness(), Liveness::Alive);
    }

    /// Makes an attempt look as if another process had begun it.
    fn give_to(attempt: &Attempt, owner: &ProcessIdentity) {
        fs::write(attempt.owner_path(), owner.to_json()).unwrap();
    }

    #[test]
    fn an_attempt_of_another_process_that_may_still_run_is_left_to_it() {
        let (_folder, store, key) = store();
        let (own, other) = (store.new_attempt(&key).unwrap(), store.new_attempt(&key).unwrap());
        give_to(&other, &ProcessIdentity { host: "elsewhere".into(), ..ProcessIdentity::current().clone() });
        store.remove_work(&key).unwrap();
        assert_eq!(store.attempts(&key).unwrap(), [other]);
        assert!(!own.owner_path().exists());
    }

    #[test]
    fn an_attempt_of_a_process_that_has_ended_is_removed() {
        let (_folder, store, key) = store();
        let other = store.new_attempt(&key).unwrap();
        give_to(&other, &ProcessIdentity { started: Some(1), ..ProcessIdentity::current().clone() });
        store.remove_work(&key).unwrap();
        assert_eq!(store.attempts(&key).unwrap(), []);
    }

    #[test]
    fn removing_the_work_removes_checkpoints() {
        let (_folder, store, key) = store();
        let attempt = store.new_attempt(&key).unwrap();
        fs::write(attempt.folder.join("checkpoint"), "weights").unwrap();
        store.remove_work(&key).unwrap();
        assert_eq!(store.attempts(&key).unwrap(), []);
    }
}
