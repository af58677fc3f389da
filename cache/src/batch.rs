//! What is about to be published: objects and manifests, staged but without their final names.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::{Digest, hash_bytes, hash_file};
use crate::error::{IoContext, StoreError};
use crate::fault::PublishStep;
use crate::manifest::Manifest;
use crate::staging::{PUBLISHED_MODE, Staged};
use crate::store::Store;

/// Files up to this size are read once into memory instead of being hashed, copied and hashed again.
const SMALL_FILE_BYTES: u64 = 1024 * 1024;

/// Objects and manifests on their way into a store. Threads may fill one batch together.
///
/// Nothing is visible before [`Batch::commit`]; a batch that is dropped leaves the store as it was, and
/// adopted files where they were.
#[derive(Debug)]
pub struct Batch<'store> {
    store: &'store Store,
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: Vec<(Digest, Staged)>,
    pub(crate) adopted: Vec<PathBuf>,
    pub(crate) manifests: Vec<Manifest>,
}

impl Store {
    /// An empty batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch { store: self, contents: Mutex::default() }
    }
}

impl<'store> Batch<'store> {
    /// Adds some bytes; returns their digest and number.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Io`].
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(Digest, u64), StoreError> {
        let staging = self.store.staging()?;
        let (digest, length) = (hash_bytes(bytes), bytes.len() as u64);
        if !self.store.refresh_object(&digest, length) {
            self.store.step(PublishStep::StageObject, &self.store.object_path(&digest))?;
            let staged = staging.write(bytes)?;
            self.contents().objects.push((digest, staged));
        }
        Ok((digest, length))
    }

    /// Adds a copy of a file; returns the digest and number of its bytes.
    ///
    /// # Errors
    /// As [`Batch::put_bytes`], and [`StoreError::SourceChanged`] if someone wrote to the file meanwhile.
    pub fn put_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        self.store.staging()?;
        if regular_file(path)?.len() <= SMALL_FILE_BYTES {
            return self.put_bytes(&fs::read(path).at("read", path)?);
        }
        let (digest, length) = hash_file(path)?;
        if !self.store.refresh_object(&digest, length) {
            let staged = self.copy(path, digest)?;
            self.contents().objects.push((digest, staged));
        }
        Ok((digest, length))
    }

    /// Adds a file that the caller gives up; see [`Store::adopt_file`]. It is removed from where it was when
    /// the batch is committed.
    ///
    /// # Errors
    /// As [`Batch::put_file`].
    pub fn adopt_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        self.store.staging()?;
        regular_file(path)?;
        let (digest, length) = hash_file(path)?;
        self.adopt(path, digest, length)?;
        Ok((digest, length))
    }

    /// As [`Batch::adopt_file`] for a file that must have the digest that somebody says it has.
    ///
    /// # Errors
    /// As [`Batch::adopt_file`], and [`StoreError::WrongObject`] if it has another one; the batch is then as before.
    pub fn adopt_expected(&self, path: &Path, expected: &Digest) -> Result<(), StoreError> {
        self.store.staging()?;
        regular_file(path)?;
        let (found, length) = hash_file(path)?;
        if found != *expected {
            return Err(StoreError::WrongObject { digest: *expected, found });
        }
        self.adopt(path, found, length)
    }

    fn adopt(&self, path: &Path, digest: Digest, length: u64) -> Result<(), StoreError> {
        if !self.store.refresh_object(&digest, length) {
            self.store.step(PublishStep::StageObject, &self.store.object_path(&digest))?;
            let staged = match self.link(path) {
                Some(staged) => staged,
                None => self.copy(path, digest)?,
            };
            self.contents().objects.push((digest, staged));
        }
        self.contents().adopted.push(path.to_owned());
        Ok(())
    }

    /// Adds a manifest whose objects are in this batch or in the store.
    pub fn add_manifest(&self, manifest: Manifest) {
        self.contents().manifests.push(manifest);
    }

    /// A second name for the file in the staging folder, so that the first one stays until all is done.
    ///
    /// `None` where the file must be copied: it is on another file system, belongs to someone else, or has
    /// another name somewhere, through which it could be written to after it was published.
    fn link(&self, path: &Path) -> Option<Staged> {
        let metadata = fs::symlink_metadata(path).ok()?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return None;
        }
        let staged = self.store.staging().ok()?.reserve();
        fs::hard_link(path, staged.path()).ok()?;
        fs::set_permissions(staged.path(), Permissions::from_mode(PUBLISHED_MODE)).ok()?;
        Some(staged)
    }

    /// A copy of the file in the staging folder, sharing its blocks where the file system can.
    fn copy(&self, path: &Path, digest: Digest) -> Result<Staged, StoreError> {
        self.store.step(PublishStep::StageObject, &self.store.object_path(&digest))?;
        let staged = self.store.staging()?.reserve();
        fs::copy(path, staged.path()).at("copy into the store", path)?;
        fs::set_permissions(staged.path(), Permissions::from_mode(PUBLISHED_MODE)).at("protect", staged.path())?;
        let (copied, _) = hash_file(staged.path())?;
        if copied != digest {
            return Err(StoreError::SourceChanged { path: path.to_owned() });
        }
        Ok(staged)
    }

    pub(crate) fn store(&self) -> &'store Store {
        self.store
    }

    pub(crate) fn into_contents(self) -> Contents {
        self.contents.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A thread that panicked while it held the lock had pushed its element or had not.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metadata of a file, or an error if it is a folder, a pipe or a device: reading it may never end.
fn regular_file(path: &Path) -> Result<fs::Metadata, StoreError> {
    let metadata = fs::metadata(path).at("look at", path)?;
    if metadata.is_file() {
        return Ok(metadata);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")).at("store", path)
}
