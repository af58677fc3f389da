//! Claims: which results a process uses, so that no collection takes them from under it.
//!
//! A run may need today what it found days ago. So it claims every key before it looks it up, by a line in a file of its
//! staging folder, and a collection leaves alone what a living process has claimed. Nobody waits for anybody: a collection
//! moves a manifest aside and then looks at the claims again. A process that has found the manifest had claimed its key
//! before, so the manifest is put back; one that claims later does not find it, and does the work again.
//!
//! What is about to be named by a manifest cannot be claimed by a key. A collection therefore leaves every object alone
//! that was written, or marked as used, since the first of these processes began.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::error::{IoContext, StoreError, if_present};
use crate::key::Key;
use crate::process::{Liveness, ProcessIdentity};
use crate::staging::OWNER_FILE;
use crate::store::Store;
use crate::walk::entries;

/// The file of a staging folder with the keys that its process has claimed, one a line.
const CLAIMS_FILE: &str = "claims";

/// The keys that this process has claimed.
#[derive(Debug)]
pub(crate) struct Claims {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    keys: HashSet<Key>,
}

impl Store {
    /// Claims from now on what this process looks up, until the store is dropped or the process ends.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Io`].
    pub fn claim_what_is_used(&self) -> Result<(), StoreError> {
        let path = self.staging()?.path_of(CLAIMS_FILE);
        if self.claims.get().is_none() {
            let file = File::options().create(true).append(true).open(&path).at("create", &path)?;
            self.claims.get_or_init(|| Claims { path, open: Mutex::new(Open { file, keys: HashSet::new() }) });
        }
        Ok(())
    }

    /// Says that this process still uses what it has claimed; to be called every few minutes, because processes on other
    /// hosts cannot look whether it lives.
    ///
    /// # Errors
    /// [`StoreError::Io`] if that cannot be written down.
    pub fn renew_claims(&self) -> Result<(), StoreError> {
        let Some(claims) = self.claims.get() else { return Ok(()) };
        self.staging()?;
        claims.renew().at("write", &claims.path)
    }

    /// Claims a key, if this process claims what it uses.
    pub(crate) fn claim(&self, key: &Key) {
        if let Some(claims) = self.claims.get() {
            // On a full disk what is at hand can still be used. If it is collected meanwhile, whoever reads it says so.
            claims.add(key).ok();
        }
    }
}

impl Claims {
    fn add(&self, key: &Key) -> std::io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.keys.insert(*key) {
            open.file.write_all(format!("{key}\n").as_bytes())?;
        }
        Ok(())
    }

    fn renew(&self) -> std::io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.path.exists() {
            // A collection on another host took this process for dead.
            open.file = File::options().create(true).append(true).open(&self.path)?;
            let lines: String = open.keys.iter().map(|key| format!("{key}\n")).collect();
            open.file.write_all(lines.as_bytes())?;
        }
        open.file.set_modified(SystemTime::now())
    }
}

/// What all living processes have claimed, as a collection sees it.
#[derive(Debug, Default)]
pub(crate) struct Claimed {
    keys: HashSet<Key>,
    /// How much of each file was read.
    read: HashMap<PathBuf, u64>,
    /// When the first of the living processes began.
    since: Option<SystemTime>,
}

impl Claimed {
    /// Whether a living process has claimed a key.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// Whether something was written while a process that claims was living.
    pub(crate) fn covers(&self, modified: SystemTime) -> bool {
        self.since.is_some_and(|since| modified >= since)
    }

    /// Reads what was claimed since the last time; a process of which nothing was heard for as long as `patience` is gone.
    pub(crate) fn refresh(&mut self, store: &Store, patience: Duration) -> Result<(), StoreError> {
        for folder in entries(&store.tmp_folder())? {
            let path = folder.join(CLAIMS_FILE);
            let Some(metadata) = if_present(fs::metadata(&path)).at("look at", &path)? else { continue };
            if self.read.get(&path) == Some(&metadata.len()) {
                continue;
            }
            let owner = folder.join(OWNER_FILE);
            let heard = metadata.modified().at("look at", &path)?;
            if !lives(&owner, heard, patience) {
                continue;
            }
            let Some(began) = if_present(fs::metadata(&owner)).at("look at", &owner)? else { continue };
            let began = began.modified().at("look at", &owner)?;
            self.since = Some(self.since.map_or(began, |since| since.min(began)));
            self.read_on(path)?;
        }
        Ok(())
    }

    fn read_on(&mut self, path: PathBuf) -> Result<(), StoreError> {
        let done = self.read.get(&path).copied().unwrap_or(0);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(done))?;
            file.read_to_end(&mut bytes)
        });
        // Its process may have ended in this moment.
        if if_present(read).at("read", &path)?.is_none() {
            return Ok(());
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        self.keys.extend(lines.filter_map(|line| line.parse::<Key>().ok()));
        self.read.insert(path, done + whole as u64);
        Ok(())
    }
}

fn lives(owner: &Path, heard: SystemTime, patience: Duration) -> bool {
    match ProcessIdentity::read(owner).map(|owner| owner.liveness()) {
        Some(Liveness::Alive) => true,
        // A clock that runs ahead is no sign of death.
        Some(Liveness::Unknown) | None => heard.elapsed().map_or(true, |age| age <= patience),
        Some(Liveness::Dead) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn key(name: &str) -> Key {
        Key::of(&json!(name))
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.claim_what_is_used().unwrap();
        (folder, store)
    }

    /// Whether keys are claimed, as seen by a new collection.
    fn claimed<const N: usize>(store: &Store, names: [&str; N]) -> [bool; N] {
        let mut claimed = Claimed::default();
        claimed.refresh(store, DAY).unwrap();
        names.map(|name| claimed.contains(&key(name)))
    }

    /// Makes the claims look as if another process had made them, which was last heard of some time ago.
    fn give_to(store: &Store, owner: &ProcessIdentity, age: Duration) {
        let claims = store.claims.get().unwrap();
        fs::write(claims.path.with_file_name(OWNER_FILE), owner.to_json()).unwrap();
        File::open(&claims.path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    fn on_another_host() -> ProcessIdentity {
        ProcessIdentity { host: "elsewhere".into(), ..ProcessIdentity::current().clone() }
    }

    #[test]
    fn what_is_looked_up_is_claimed_whether_or_not_it_is_there() {
        let (_folder, store) = store();
        store.lookup(&key("plan")).unwrap();
        assert_eq!(claimed(&store, ["plan", "crop"]), [true, false]);
    }

    #[test]
    fn a_process_that_does_not_say_so_claims_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.lookup(&key("plan")).unwrap();
        assert_eq!(claimed(&store, ["plan"]), [false]);
    }

    #[test]
    fn a_collection_under_way_learns_of_later_claims() {
        let (_folder, store) = store();
        store.lookup(&key("plan")).unwrap();
        let mut claimed = Claimed::default();
        claimed.refresh(&store, DAY).unwrap();
        store.lookup(&key("crop")).unwrap();
        claimed.refresh(&store, DAY).unwrap();
        assert!(claimed.contains(&key("plan")) && claimed.contains(&key("crop")));
    }

    #[test]
    fn a_line_that_is_being_written_is_read_when_it_is_whole() {
        let (_folder, store) = store();
        let claims = store.claims.get().unwrap();
        let line = format!("{}\n", key("plan"));
        let mut claimed = Claimed::default();
        for part in [&line[..10], &line[10..]] {
            assert!(!claimed.contains(&key("plan")));
            claims.open.lock().unwrap().file.write_all(part.as_bytes()).unwrap();
            claimed.refresh(&store, DAY).unwrap();
        }
        assert!(claimed.contains(&key("plan")));
    }

    #[test]
    fn claims_of_a_dead_process_are_void() {
        let (_folder, store) = store();
        store.lookup(&key("plan")).unwrap();
        give_to(&store, &ProcessIdentity { started: Some(1), ..ProcessIdentity::current().clone() }, Duration::ZERO);
        assert_eq!(claimed(&store, ["plan"]), [false]);
    }

    #[test]
    fn claims_of_another_host_hold_while_they_are_renewed() {
        let (_folder, store) = store();
        store.lookup(&key("plan")).unwrap();
        give_to(&store, &on_another_host(), 2 * DAY);
        assert_eq!(claimed(&store, ["plan"]), [false]);
        store.renew_claims().unwrap();
        assert_eq!(claimed(&store, ["plan"]), [true]);
    }

    #[test]
    fn claims_that_were_removed_are_written_again() {
        let (_folder, store) = store();
        store.lookup(&key("plan")).unwrap();
        fs::remove_dir_all(store.claims.get().unwrap().path.parent().unwrap()).unwrap();
        store.renew_claims().unwrap();
        assert_eq!(claimed(&store, ["plan"]), [true]);
    }

    #[test]
    fn what_was_written_since_the_process_began_is_covered() {
        let (_folder, store) = store();
        let mut claimed = Claimed::default();
        claimed.refresh(&store, DAY).unwrap();
        let now = store.staging().unwrap().file_system_now().unwrap();
        assert_eq!((claimed.covers(now), claimed.covers(now - DAY)), (true, false));
    }
}
