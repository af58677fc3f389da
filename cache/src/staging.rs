//! The folder where a process writes files before they get their final names.
//!
//! It lies in the store, hence on the same file system, so that a rename is enough to publish. Each process
//! has a folder of its own that says whose it is: what a dead process left can then be removed at once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::error::{IoContext, StoreError};
use crate::process::{ProcessIdentity, unique_name};

/// The file of a staging folder that says whose it is.
pub(crate) const OWNER_FILE: &str = "owner.json";

/// Mode of everything that gets a final name: nobody writes to it again.
pub(crate) const PUBLISHED_MODE: u32 = 0o444;

/// This process's staging folder; removed with all that is left in it when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    next: AtomicU64,
    /// Folders in it that wait for their next use; none before the first use.
    scratch: Mutex<Option<Vec<PathBuf>>>,
}

/// A file in the staging folder; removed when dropped, unless it was placed.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    placed: bool,
}

impl Staging {
    /// Creates a folder of its own under `tmp`.
    pub(crate) fn create(tmp: &Path) -> Result<Self, StoreError> {
        let folder = tmp.join(format!("{}-{}", ProcessIdentity::current().pid, unique_name()));
        fs::create_dir(&folder).at("create the folder", &folder)?;
        let staging = Self { folder, next: AtomicU64::new(0), scratch: Mutex::default() };
        staging.write_owner()?;
        Ok(staging)
    }

    /// Makes the folder again if a collection on another host took this process for dead.
    pub(crate) fn ensure(&self) -> Result<(), StoreError> {
        if self.folder.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).at("create the folder", &self.folder)?;
        self.write_owner()
    }

    fn write_owner(&self) -> Result<(), StoreError> {
        let path = self.folder.join(OWNER_FILE);
        fs::write(&path, ProcessIdentity::current().to_json()).at("write", &path)
    }

    /// A new name in the folder; nothing is there yet.
    pub(crate) fn reserve(&self) -> Staged {
        Staged { path: self.next_path(""), placed: false }
    }

    /// A new name for a folder in the folder.
    pub(crate) fn reserve_folder(&self) -> PathBuf {
        self.next_path("scratch-")
    }

    /// A file or folder in the folder that has a name of its own.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn scratch_pool(&self) -> MutexGuard<'_, Option<Vec<PathBuf>>> {
        // A thread that panicked while it held the lock had taken its folder or had not.
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_path(&self, prefix: &str) -> PathBuf {
        self.folder.join(format!("{prefix}{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new file with these bytes, already with the mode of published files.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<Staged, StoreError> {
        let staged = self.reserve();
        // The mode holds for later opens only, so that this one may still write.
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(PUBLISHED_MODE).open(&staged.path);
        file.and_then(|mut file| io::Write::write_all(&mut file, bytes)).at("write", &staged.path)?;
        Ok(staged)
    }

    /// The time by the clock of the file system, which on a network disk is the server's.
    pub(crate) fn file_system_now(&self) -> Result<SystemTime, StoreError> {
        let probe = self.write(b"")?;
        fs::metadata(&probe.path).and_then(|metadata| metadata.modified()).at("look at", &probe.path)
    }

    /// Takes away the file at `path` if it is still the one that was `judged`; `false` if it is another.
    ///
    /// Between judging and removing, another process may have put a good file in its place. The file is
    /// therefore moved aside first and looked at again, and put back if it is not the one that was meant.
    pub(crate) fn displace(
        &self,
        path: &Path,
        judged: impl FnOnce(&Path) -> io::Result<bool>,
    ) -> Result<bool, StoreError> {
        let aside = self.reserve();
        match fs::rename(path, &aside.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            result => result.at("move aside", path)?,
        }
        let verdict = judged(&aside.path).at("look at", &aside.path);
        if matches!(verdict, Ok(true)) {
            return Ok(true);
        }
        match fs::hard_link(&aside.path, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at("put back", path),
            _ => verdict,
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next collection.
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl Staged {
    /// Where the file lies for now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name, in place of whatever has it.
    pub(crate) fn place(mut self, destination: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, destination).at("create", destination)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // It may never have been created; what cannot be removed now is removed by the next collection.
            fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Staging) {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::create(folder.path()).unwrap();
        (folder, staging)
    }

    #[test]
    fn a_dropped_file_is_gone() {
        let (_folder, staging) = folder();
        let staged = staging.write(b"x").unwrap();
        let path = staged.path().to_owned();
        drop(staged);
        assert!(!path.exists());
    }

    #[test]
    fn displacing_a_file_that_was_replaced_puts_it_back() {
        let (folder, staging) = folder();
        let path = folder.path().join("file");
        fs::write(&path, "good").unwrap();
        assert!(!staging.displace(&path, |aside| Ok(fs::read(aside)? == b"bad")).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"good");
    }

    #[test]
    fn displacing_a_file_that_cannot_be_judged_puts_it_back() {
        let (folder, staging) = folder();
        let path = folder.path().join("file");
        fs::write(&path, "good").unwrap();
        staging.displace(&path, |_| Err(io::Error::other("the disk is gone"))).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"good");
    }

    #[test]
    fn displacing_the_judged_file_removes_it() {
        let (folder, staging) = folder();
        let path = folder.path().join("file");
        fs::write(&path, "bad").unwrap();
        assert!(staging.displace(&path, |aside| Ok(fs::read(aside)? == b"bad")).unwrap());
        assert!(!path.exists());
    }
}
