//! Objects: files named by the digest of their bytes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::digest::{Digest, hash_file};
use crate::error::{IoContext, StoreError, if_present};
use crate::store::Store;

impl Store {
    /// Whether an object is in the store. One look at the file system; the bytes are not read.
    pub fn has(&self, digest: &Digest) -> bool {
        fs::metadata(self.object_path(digest)).is_ok_and(|metadata| metadata.is_file())
    }

    /// Stores some bytes; returns their digest and number. See [`crate::Batch`] for many at a time.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Io`]; the store is then as before.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(Digest, u64), StoreError> {
        let batch = self.batch();
        let stored = batch.put_bytes(bytes)?;
        batch.commit().map(|_| stored)
    }

    /// Stores a copy of a file; returns the digest and number of its bytes.
    ///
    /// # Errors
    /// As [`Store::put_bytes`], and [`StoreError::SourceChanged`] if someone wrote to the file meanwhile.
    pub fn put_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let batch = self.batch();
        let stored = batch.put_file(path)?;
        batch.commit().map(|_| stored)
    }

    /// Moves a file into the store; returns the digest and number of its bytes.
    ///
    /// The caller gives the file up: nobody may write to it any more, and it is gone afterwards. Nothing is
    /// copied where the file lies on the store's file system and belongs to this user alone.
    ///
    /// # Errors
    /// As [`Store::put_file`]; the file is then still where it was.
    pub fn adopt_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let batch = self.batch();
        let stored = batch.adopt_file(path)?;
        batch.commit().map(|_| stored)
    }

    /// Reads an object from end to end and checks that its bytes have its digest.
    ///
    /// # Errors
    /// [`StoreError::MissingObject`], [`StoreError::WrongObject`], or [`StoreError::Io`] if it cannot be read.
    pub fn verify_object(&self, digest: &Digest) -> Result<(), StoreError> {
        if !self.has(digest) {
            return Err(StoreError::MissingObject { digest: *digest });
        }
        let (found, _) = hash_file(&self.object_path(digest))?;
        if found != *digest {
            return Err(StoreError::WrongObject { digest: *digest, found });
        }
        Ok(())
    }

    /// Checks that objects have the bytes that their digests promise, each once: what this process has written itself, or
    /// has checked before, is not read again.
    ///
    /// # Errors
    /// As [`Store::verify_object`], for the first one that is wrong.
    pub fn check_sound(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let unseen: Vec<Digest> = {
            let sound = self.sound();
            digests.iter().filter(|digest| !sound.contains(*digest)).copied().collect()
        };
        let checked: Vec<Result<(), StoreError>> = unseen.par_iter().map(|digest| self.verify_object(digest)).collect();
        for (digest, checked) in unseen.iter().zip(checked) {
            checked?;
            self.has_seen(*digest);
        }
        Ok(())
    }

    /// Remembers that this process has seen every byte of an object.
    pub(crate) fn has_seen(&self, digest: Digest) {
        self.sound().insert(digest);
    }

    fn sound(&self) -> MutexGuard<'_, HashSet<Digest>> {
        // A thread that panicked while it held the lock had inserted its digest or had not.
        self.sound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an object a name outside the store, without a copy where the file system allows it.
    ///
    /// The new file is read-only and may share its bytes with the object, so it must not be written to. It
    /// stays valid when the object is collected. The folder must exist, and the name must be free.
    ///
    /// # Errors
    /// [`StoreError::MissingObject`], or [`StoreError::Io`] if the file cannot be made.
    pub fn materialize(&self, digest: &Digest, destination: &Path) -> Result<(), StoreError> {
        let object = self.object_path(digest);
        if fs::hard_link(&object, destination).is_ok() {
            return Ok(());
        }
        if !self.has(digest) {
            return Err(StoreError::MissingObject { digest: *digest });
        }
        // Another file system, or too many links. The system copies by itself, which shares the blocks where the file
        // system can; the copy must not replace a file that is there.
        let mut source = File::open(&object).at("open", &object)?;
        let mut copy = File::create_new(destination).at("create", destination)?;
        std::io::copy(&mut source, &mut copy).at("write", destination)?;
        let permissions = source.metadata().at("look at", &object)?.permissions();
        copy.set_permissions(permissions).at("protect", destination)
    }

    /// The number of bytes of an object; `None` if it is not in the store.
    pub(crate) fn object_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.object_path(digest);
        let metadata = if_present(fs::metadata(&path)).at("look at", &path)?;
        Ok(metadata.filter(fs::Metadata::is_file).map(|metadata| metadata.len()))
    }

    /// Marks an object that is about to be published again as young, so that no collection takes it;
    /// `false` if it has to be written: it is absent, has another size, or belongs to someone else.
    pub(crate) fn refresh_object(&self, digest: &Digest, bytes: u64) -> bool {
        let path = self.object_path(digest);
        let Ok(file) = File::open(&path) else { return false };
        let Ok(found) = file.metadata() else { return false };
        // A collection may have moved the file aside between the two, and removes it if it did not see the new time.
        let is_there = || fs::metadata(&path).is_ok_and(|now| now.ino() == found.ino());
        found.is_file() && found.len() == bytes && file.set_modified(SystemTime::now()).is_ok() && is_there()
    }
}
