//! Looking up what is known of a key.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;

use crate::digest::Digest;
use crate::error::{IoContext, StoreError, if_present};
use crate::key::Key;
use crate::manifest::{FileEntry, Manifest, ManifestError};
use crate::store::Store;

/// The use of a manifest is noted when the last note is older than this: often enough for a collection
/// that counts in hours, and seldom enough that a warm run of thousands of nodes writes almost nothing.
const NOTE_USE_AFTER: Duration = Duration::from_secs(600);

/// The answer to a look-up.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// The outputs are known and, unless they are transient, all there.
    Hit(Box<Manifest>),
    /// The work has to be done.
    Miss(MissReason),
}

/// Why there is no usable manifest for a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MissReason {
    /// The work was never done, or its result was collected.
    #[error("there is no result for this key")]
    Absent,
    /// The manifest's file was cut short or altered.
    #[error(transparent)]
    Damaged(#[from] ManifestError),
    /// The file holds the manifest of another key.
    #[error("the manifest is that of key `{found}`")]
    Misplaced {
        /// The key in the manifest.
        found: Key,
    },
    /// An object is not in the store.
    #[error("the bytes of `{name}` (object `{digest}`) are not in the store")]
    MissingObject {
        /// The file's name in its artifact.
        name: String,
        /// The object.
        digest: Digest,
    },
    /// An object was cut short or has grown.
    #[error("`{name}` (object `{digest}`) has {found} bytes, expected {expected}")]
    WrongSize {
        /// The file's name in its artifact.
        name: String,
        /// The object.
        digest: Digest,
        /// The size that the manifest says.
        expected: u64,
        /// The size on disk.
        found: u64,
    },
    /// An object has other bytes than its name says; only [`Store::verify`] finds this.
    #[error("the bytes of `{name}` (object `{digest}`) are damaged")]
    DamagedObject {
        /// The file's name in its artifact.
        name: String,
        /// The object.
        digest: Digest,
    },
    /// The key is not that of the record; only [`Store::verify`] finds this.
    #[error("the manifest's key is not that of its record")]
    Inconsistent,
}

impl Lookup {
    /// The manifest, if there is a usable one.
    pub fn hit(self) -> Option<Manifest> {
        match self {
            Self::Hit(manifest) => Some(*manifest),
            Self::Miss(_) => None,
        }
    }
}

impl Store {
    /// What is known of a key. Whatever is wrong with a manifest or its objects makes it a miss.
    ///
    /// # Errors
    /// [`StoreError::Io`] only if the file system refuses to say.
    pub fn lookup(&self, key: &Key) -> Result<Lookup, StoreError> {
        // Before the look, so that no collection can take what is found: see `claim`.
        self.claim(key);
        let path = self.manifest_path(key);
        let Some(mut file) = if_present(File::open(&path)).at("open", &path)? else {
            return Ok(Lookup::Miss(MissReason::Absent));
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).at("read", &path)?;
        let answer = self.judge(key, &bytes)?;
        if matches!(answer, Lookup::Hit(_)) {
            self.note_use(&file);
        }
        Ok(answer)
    }

    /// What is known of many keys, in their order; looks them up in parallel.
    ///
    /// # Errors
    /// As [`Store::lookup`].
    pub fn lookup_many(&self, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        keys.par_iter().map(|key| self.lookup(key)).collect()
    }

    /// Decides whether the bytes of a manifest's file are a hit for a key.
    pub(crate) fn judge(&self, key: &Key, bytes: &[u8]) -> Result<Lookup, StoreError> {
        let manifest = match Manifest::from_bytes(bytes) {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Lookup::Miss(error.into())),
        };
        if manifest.key() != *key {
            return Ok(Lookup::Miss(MissReason::Misplaced { found: manifest.key() }));
        }
        for file in manifest.objects() {
            if let Some(reason) = self.object_problem(file)? {
                return Ok(Lookup::Miss(reason));
            }
        }
        Ok(Lookup::Hit(Box::new(manifest)))
    }

    fn object_problem(&self, file: &FileEntry) -> Result<Option<MissReason>, StoreError> {
        let (name, digest, expected) = (|| file.name.clone(), file.digest, file.bytes);
        Ok(match self.object_bytes(&digest)? {
            Some(found) if found == expected => None,
            Some(found) => Some(MissReason::WrongSize { name: name(), digest, expected, found }),
            None => Some(MissReason::MissingObject { name: name(), digest }),
        })
    }

    /// Moves the manifest to the young end of the order in which results are collected.
    fn note_use(&self, file: &File) {
        if !self.is_writable() {
            return;
        }
        let age = file.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
        if matches!(age, Ok(Ok(age)) if age > NOTE_USE_AFTER) {
            // A manifest of another user keeps the time of its making; nothing but its order of collection
            // depends on it.
            file.set_modified(SystemTime::now()).ok();
        }
    }
}
