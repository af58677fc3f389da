//! Re-reading everything: the proof that a hit can be trusted.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::digest::{Digest, hash_reader};
use crate::error::{IoContext, StoreError, if_present};
use crate::key::Key;
use crate::lookup::{Lookup, MissReason};
use crate::store::Store;
use crate::walk::{Leaf, leaves};

/// What [`Store::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Objects that were read.
    pub objects: u64,
    /// Bytes that were read.
    pub object_bytes: u64,
    /// Manifests that were read.
    pub manifests: u64,
    /// Objects whose bytes are not those that their names promise.
    pub wrong_objects: Vec<WrongObject>,
    /// Manifests that are no hits, or would be wrong ones.
    pub bad_manifests: Vec<BadManifest>,
    /// Files that are neither objects nor manifests; they are left alone.
    pub strays: Vec<PathBuf>,
    /// Whether the wrong objects and bad manifests were removed.
    pub repaired: bool,
}

/// An object that is not what its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongObject {
    /// Its name.
    pub digest: Digest,
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: ObjectProblem,
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectProblem {
    /// Its bytes have another digest.
    #[error("its content has the digest `{found}`")]
    Content {
        /// The digest of its bytes.
        found: Digest,
    },
    /// The disk does not give its bytes.
    #[error("it cannot be read: {message}")]
    Unreadable {
        /// What the file system said.
        message: String,
        /// Whether it may merely be protected from this user. Such an object is reported and not removed.
        forbidden: bool,
    },
}

/// A manifest that is no hit, or would be a wrong one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadManifest {
    /// The key under which it lies.
    pub key: Key,
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: MissReason,
}

impl VerifyReport {
    /// Whether every object and every manifest is as it should be.
    pub fn is_clean(&self) -> bool {
        self.wrong_objects.is_empty() && self.bad_manifests.is_empty()
    }
}

impl Store {
    /// Reads every object and every manifest and reports those that are wrong; `repair` removes them, so that
    /// the work that made them is done again.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a folder cannot be listed or a wrong file cannot be removed;
    /// [`StoreError::ReadOnly`] if a read-only store shall be repaired.
    pub fn verify(&self, repair: bool) -> Result<VerifyReport, StoreError> {
        if repair {
            self.staging()?;
        }
        let objects = leaves(&self.objects_folder(), "")?;
        let manifests = leaves(&self.manifests_folder(), ".json")?;
        let wrong_objects: Vec<_> = objects.par_iter().filter_map(wrong_object).collect();
        let wrong: HashSet<Digest> = wrong_objects.iter().map(|object| object.digest).collect();
        let bad = manifests.par_iter().map(|leaf| self.bad_manifest(leaf, &wrong));
        let bad: Vec<Option<(BadManifest, Vec<u8>)>> = bad.collect::<Result<_, _>>()?;
        let bad: Vec<(BadManifest, Vec<u8>)> = bad.into_iter().flatten().collect();
        if repair {
            // Manifests first: at no time does one promise an object that was removed.
            bad.iter().try_for_each(|(manifest, bytes)| self.remove_manifest(&manifest.path, bytes))?;
            wrong_objects.iter().try_for_each(|object| self.remove_wrong_object(object))?;
        }
        let strays = objects.iter().chain(&manifests).filter(|leaf| leaf.digest.is_none());
        let strays: Vec<PathBuf> = strays.map(|leaf| leaf.path.clone()).collect();
        let named = |leaves: &[Leaf]| leaves.iter().filter(|leaf| leaf.digest.is_some()).count() as u64;
        Ok(VerifyReport {
            objects: named(&objects),
            object_bytes: objects.iter().filter(|leaf| leaf.digest.is_some()).map(|leaf| leaf.bytes).sum(),
            manifests: named(&manifests),
            strays,
            wrong_objects,
            bad_manifests: bad.into_iter().map(|(manifest, _)| manifest).collect(),
            repaired: repair,
        })
    }

    /// The manifest with its bytes if it is bad.
    fn bad_manifest(&self, leaf: &Leaf, wrong: &HashSet<Digest>) -> Result<Option<(BadManifest, Vec<u8>)>, StoreError> {
        let Some(key) = leaf.digest.map(Key::from_digest) else { return Ok(None) };
        let Some(bytes) = if_present(fs::read(&leaf.path)).at("read", &leaf.path)? else { return Ok(None) };
        let reason = match self.judge(&key, &bytes)? {
            Lookup::Miss(reason) => Some(reason),
            Lookup::Hit(manifest) if !manifest.is_consistent() => Some(MissReason::Inconsistent),
            Lookup::Hit(manifest) => manifest
                .objects()
                .find(|file| wrong.contains(&file.digest))
                .map(|file| MissReason::DamagedObject { name: file.name.clone(), digest: file.digest }),
        };
        Ok(reason.map(|reason| (BadManifest { key, path: leaf.path.clone(), reason }, bytes)))
    }

    fn remove_manifest(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.staging()?.displace(path, |aside| Ok(fs::read(aside)? == bytes)).map(|_| ())
    }

    fn remove_wrong_object(&self, object: &WrongObject) -> Result<(), StoreError> {
        if matches!(object.problem, ObjectProblem::Unreadable { forbidden: true, .. }) {
            return Ok(());
        }
        // Someone may have published the right bytes meanwhile.
        let still_wrong = |aside: &Path| Ok(problem_of(&object.digest, aside).is_some());
        self.staging()?.displace(&object.path, still_wrong).map(|_| ())
    }
}

fn wrong_object(leaf: &Leaf) -> Option<WrongObject> {
    let digest = leaf.digest?;
    let problem = problem_of(&digest, &leaf.path)?;
    Some(WrongObject { digest, path: leaf.path.clone(), problem })
}

/// `None` also for an object that was collected meanwhile.
fn problem_of(digest: &Digest, path: &Path) -> Option<ObjectProblem> {
    let digest_on_disk = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        hash_reader(&mut file, length)
    };
    match digest_on_disk() {
        Ok((found, _)) if found == *digest => None,
        Ok((found, _)) => Some(ObjectProblem::Content { found }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(ObjectProblem::Unreadable {
            message: error.to_string(),
            forbidden: error.kind() == io::ErrorKind::PermissionDenied,
        }),
    }
}
