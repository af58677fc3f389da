//! A store: its folder, its layout and its format.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use crate::claim::Claims;
use crate::digest::Digest;
use crate::durable::{sync_files, sync_folders};
use crate::error::{IoContext, StoreError, if_present};
use crate::fault::{FaultHook, PublishStep};
use crate::key::Key;
use crate::staging::Staging;

/// The format of the stores that this crate reads and writes.
pub const STORE_VERSION: u32 = 1;

const VERSION_FILE: &str = "VERSION";
const CACHE_TAG_FILE: &str = "CACHEDIR.TAG";
const IGNORE_FILE: &str = ".gitignore";

const FOLDERS: [&str; 8] = ["objects", "manifests", "work", "runs", "history", "leases", "index", "tmp"];

/// Backup programs leave out a folder that has a file with this first line
/// (<https://bford.info/cachedir/>).
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # All that is in this folder was computed by nnflow and can be computed again.\n";

/// An open store. Threads may share it, and any number of processes may open the same folder.
pub struct Store {
    root: PathBuf,
    writable: bool,
    staging: OnceLock<Staging>,
    /// What this process has claimed, if it claims what it uses.
    pub(crate) claims: OnceLock<Claims>,
    /// Objects of which this process has seen every byte.
    pub(crate) sound: Mutex<HashSet<Digest>>,
    hook: Option<FaultHook>,
}

impl Store {
    /// Opens the store in a folder, and makes one there if the folder is empty or absent.
    ///
    /// # Errors
    /// - [`StoreError::Version`] if the store has another format;
    /// - [`StoreError::NotAStore`] if the folder holds other things;
    /// - [`StoreError::Io`] if the folder cannot be read or made.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let store = Self::at(root.as_ref(), true)?;
        let version = store.read_version()?;
        if version.is_none() {
            store.refuse_foreign_folder()?;
        }
        store.create_folders()?;
        if version.is_none() {
            store.create_files()?;
        }
        Ok(store)
    }

    /// Opens an existing store and never writes to it, not even to note that a result was used.
    ///
    /// # Errors
    /// As [`Store::open`], and [`StoreError::NotAStore`] if there is no store.
    pub fn open_read_only(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let store = Self::at(root.as_ref(), false)?;
        match store.read_version()? {
            Some(()) => Ok(store),
            None => Err(StoreError::NotAStore { root: store.root, entry: None }),
        }
    }

    /// Calls `hook` before every step of a publication; for tests of crashes and full disks.
    #[must_use]
    pub fn with_fault_hook(mut self, hook: FaultHook) -> Self {
        self.hook = Some(hook);
        self
    }

    /// The store's folder, as an absolute path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the engine keeps one folder for each run.
    pub fn runs_folder(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Where the engine keeps one folder for each job that it hands to a cluster.
    pub fn jobs_folder(&self) -> PathBuf {
        self.work_folder().join("jobs")
    }

    /// Where an object lies if it is in the store.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        let (folder, file) = fan_out(digest);
        self.objects_folder().join(folder).join(file)
    }

    /// Where the manifest of a key lies if it is in the store.
    pub fn manifest_path(&self, key: &Key) -> PathBuf {
        let (folder, file) = fan_out(key.digest());
        self.manifests_folder().join(folder).join(file + ".json")
    }

    pub(crate) fn objects_folder(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(crate) fn manifests_folder(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(crate) fn work_folder(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(crate) fn leases_folder(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn history_folder(&self) -> PathBuf {
        self.root.join("history")
    }

    pub(crate) fn index_folder(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn tmp_folder(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// This process's staging folder; made at the first use, so that a store can be read without writing.
    pub(crate) fn staging(&self) -> Result<&Staging, StoreError> {
        if !self.writable {
            return Err(StoreError::ReadOnly { root: self.root.clone() });
        }
        if let Some(staging) = self.staging.get() {
            return staging.ensure().map(|()| staging);
        }
        let made = Staging::create(&self.tmp_folder())?;
        Ok(self.staging.get_or_init(|| made))
    }

    pub(crate) fn step(&self, step: PublishStep, path: &Path) -> Result<(), StoreError> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(step)).at("write", path)
    }

    fn at(root: &Path, writable: bool) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).at("resolve", root)?;
        Ok(Self {
            root,
            writable,
            staging: OnceLock::new(),
            claims: OnceLock::new(),
            sound: Mutex::default(),
            hook: None,
        })
    }

    /// `None` if the folder has no version, an error if it has another one.
    fn read_version(&self) -> Result<Option<()>, StoreError> {
        let path = self.root.join(VERSION_FILE);
        let Some(bytes) = if_present(fs::read(&path)).at("read", &path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        if text.trim() == STORE_VERSION.to_string() {
            return Ok(Some(()));
        }
        let found = text.trim().chars().take(40).collect();
        Err(StoreError::Version { root: self.root.clone(), found })
    }

    /// A store that was never finished holds nothing but the store's own folders, unless another process is finishing it in
    /// this moment; whatever else is in the folder belongs to someone who did not mean to put a store there.
    fn refuse_foreign_folder(&self) -> Result<(), StoreError> {
        let Some(entries) = if_present(fs::read_dir(&self.root)).at("list", &self.root)? else { return Ok(()) };
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        let names: Vec<OsString> = names.collect::<io::Result<_>>().at("list", &self.root)?;
        let own = [&FOLDERS[..], &[CACHE_TAG_FILE, IGNORE_FILE, VERSION_FILE]].concat();
        match names.into_iter().find(|name| own.iter().all(|own| name != own)) {
            Some(name) => {
                let entry = Some(name.to_string_lossy().into_owned());
                Err(StoreError::NotAStore { root: self.root.clone(), entry })
            }
            None => Ok(()),
        }
    }

    fn create_folders(&self) -> Result<(), StoreError> {
        FOLDERS.iter().try_for_each(|name| create_folder(&self.root.join(name)))
    }

    /// The version comes last: with it, the store is complete.
    fn create_files(&self) -> Result<(), StoreError> {
        let version = format!("{STORE_VERSION}\n");
        for (name, text) in [(CACHE_TAG_FILE, CACHE_TAG), (IGNORE_FILE, "*\n"), (VERSION_FILE, version.as_str())] {
            let staged = self.staging()?.write(text.as_bytes())?;
            sync_files(&[staged.path().to_owned()])?;
            staged.place(&self.root.join(name))?;
        }
        sync_folders(std::slice::from_ref(&self.root))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("root", &self.root).field("writable", &self.writable).finish()
    }
}

/// The folder and the rest of the file name of a digest.
fn fan_out(digest: &Digest) -> (String, String) {
    let mut folder = digest.to_hex();
    let file = folder.split_off(2);
    (folder, file)
}

/// Makes a folder unless it is there.
pub(crate) fn create_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).at("create the folder", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Hint;

    #[test]
    fn a_new_store_carries_its_version_and_both_tags() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep/.nnflow");
        Store::open(&root).unwrap();
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert_eq!((read("VERSION"), read(".gitignore")), ("1\n".to_owned(), "*\n".to_owned()));
        assert!(read("CACHEDIR.TAG").starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"));
    }

    #[test]
    fn another_version_is_refused_with_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("VERSION"), "7\n").unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("store `{}` has format `7`, expected `1`", folder.path().display()));
        assert_eq!(error.hint(), Some(Hint::Version));
    }

    #[test]
    fn a_folder_with_other_things_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` is not a store: it holds `thesis.tex`", folder.path().display()));
    }

    #[test]
    fn a_store_whose_making_was_interrupted_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("objects")).unwrap();
        Store::open(folder.path()).unwrap();
        assert!(folder.path().join("manifests").is_dir() && folder.path().join("VERSION").is_file());
    }

    #[test]
    fn a_store_that_another_process_finishes_meanwhile_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        // What `open` does where it found no version a moment ago.
        store.refuse_foreign_folder().unwrap();
        store.create_files().unwrap();
        assert_eq!(store.read_version().unwrap(), Some(()));
    }

    #[test]
    fn reading_makes_no_store() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("absent");
        assert!(matches!(Store::open_read_only(&root), Err(StoreError::NotAStore { entry: None, .. })));
        assert!(!root.exists());
    }

    #[test]
    fn a_dropped_store_leaves_no_staging_folder() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn an_object_lies_where_the_layout_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let path = store.object_path(&Digest::from_bytes([0xab; 32]));
        assert_eq!(path, folder.path().join("objects/ab").join("ab".repeat(31)));
    }
}
