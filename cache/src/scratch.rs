//! Folders for work that nobody would go on with.
//!
//! Most work is done again from its beginning when its process dies, so that its folder needs no name that another process
//! could find. Such folders lie in the staging folder of the process, and are used one after the other: file systems
//! are slow at making and removing folders (ext4 keeps the number of a removed one back for seconds and searches on past
//! all of these), which for thousands of small results takes longer than the results.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{IoContext, StoreError};
use crate::process::{Liveness, ProcessIdentity};
use crate::staging::{OWNER_FILE, Staging};
use crate::store::Store;
use crate::walk::entries;
use crate::work::remove_tree;

/// A folder with more folders in it than this is not used again: looking through it would cost more than it saves.
const MOST_FOLDERS: usize = 32;

/// A folder for work under way, without files; goes with all that is in it when dropped.
#[derive(Debug)]
pub struct Scratch<'store> {
    staging: &'store Staging,
    folder: PathBuf,
}

impl Store {
    /// A folder for work whose unfinished part is of no use to anybody. It may hold empty folders.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Io`].
    pub fn scratch(&self) -> Result<Scratch<'_>, StoreError> {
        let staging = self.staging()?;
        let free = {
            let mut pool = staging.scratch_pool();
            if pool.is_none() {
                // Nobody else removes what a killed run had made before a collection, which may be years away.
                self.remove_dead_staging()?;
            }
            pool.get_or_insert_default().pop()
        };
        let folder = free.unwrap_or_else(|| staging.reserve_folder());
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.at("create the folder", &folder)?,
        }
        Ok(Scratch { staging, folder })
    }

    fn remove_dead_staging(&self) -> Result<(), StoreError> {
        for folder in entries(&self.tmp_folder())? {
            let owner = ProcessIdentity::read(&folder.join(OWNER_FILE));
            if owner.is_some_and(|owner| owner.liveness() == Liveness::Dead) {
                remove_tree(&folder)?;
            }
        }
        Ok(())
    }
}

impl Scratch<'_> {
    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        match remove_files(&self.folder, &mut 0) {
            Ok(()) => self.staging.scratch_pool().get_or_insert_default().push(std::mem::take(&mut self.folder)),
            // What cannot be removed now is removed with the staging folder.
            Err(_) => remove_tree(&self.folder).unwrap_or_default(),
        }
    }
}

/// Leaves nothing but empty folders; fails if those are too many.
fn remove_files(folder: &Path, folders: &mut usize) -> io::Result<()> {
    *folders += 1;
    if *folders > MOST_FOLDERS {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => remove_files(&entry.path(), folders)?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn a_folder_is_used_again_without_the_files_of_before() {
        let (_folder, store) = store();
        let first = store.scratch().unwrap();
        let place = first.folder().to_owned();
        fs::create_dir(place.join("output")).unwrap();
        fs::write(place.join("output/image"), "voxels").unwrap();
        drop(first);
        let second = store.scratch().unwrap();
        assert_eq!((second.folder(), second.folder().join("output/image").exists()), (&*place, false));
    }

    #[test]
    fn two_at_a_time_have_different_folders() {
        let (_folder, store) = store();
        let (first, second) = (store.scratch().unwrap(), store.scratch().unwrap());
        assert_ne!(first.folder(), second.folder());
    }

    #[test]
    fn a_folder_with_very_many_folders_is_removed() {
        let (_folder, store) = store();
        let first = store.scratch().unwrap();
        let place = first.folder().to_owned();
        (0..MOST_FOLDERS).for_each(|number| fs::create_dir(place.join(number.to_string())).unwrap());
        drop(first);
        assert!(!place.exists());
    }

    #[test]
    fn nothing_is_left_when_the_store_is_dropped() {
        let (folder, store) = store();
        fs::write(store.scratch().unwrap().folder().join("image"), "voxels").unwrap();
        drop(store);
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    /// The staging folder of a process that has such an identity.
    fn staging_of(store: &Store, owner: &ProcessIdentity) -> PathBuf {
        let folder = store.tmp_folder().join("other");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(OWNER_FILE), owner.to_json()).unwrap();
        folder
    }

    #[test]
    fn what_a_killed_run_had_made_is_removed_by_the_next() {
        let (_folder, store) = store();
        let other = staging_of(&store, &ProcessIdentity { started: Some(1), ..ProcessIdentity::current().clone() });
        store.scratch().unwrap();
        assert!(!other.exists());
    }

    #[test]
    fn what_another_host_is_making_is_left_to_it() {
        let (_folder, store) = store();
        let other =
            staging_of(&store, &ProcessIdentity { host: "elsewhere".into(), ..ProcessIdentity::current().clone() });
        store.scratch().unwrap();
        assert!(other.is_dir());
    }
}
