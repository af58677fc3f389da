//! Publication: objects first, manifests last, each of them all at once or not at all.
//!
//! A run publishes thousands of small results. Flushing files and folders one by one would take most of
//! the time, so a batch writes everything, flushes all files, renames them, and flushes each folder once.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::{Digest, hash_bytes, hash_file};
use crate::durable::{sync_files, sync_folders};
use crate::error::{IoContext, StoreError, if_present};
use crate::fault::PublishStep;
use crate::lookup::Lookup;
use crate::manifest::Manifest;
use crate::staging::{PUBLISHED_MODE, Staged};
use crate::store::{Store, create_folder};

/// Files up to this size are read once into memory instead of being hashed, copied and hashed again.
const SMALL_FILE_BYTES: u64 = 1024 * 1024;

/// How often a manifest that cannot be trusted is taken away before giving up. Each time, another process
/// has put another broken one in its place, so more than one is already strange.
const PLACE_ATTEMPTS: usize = 16;

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
struct Contents {
    objects: Vec<(Digest, Staged)>,
    adopted: Vec<PathBuf>,
    manifests: Vec<Manifest>,
}

/// What became of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The manifest that stands in the store now: this one, or that of an earlier publisher.
    pub manifest: Manifest,
    /// How it came to stand there.
    pub outcome: Outcome,
}

/// How a manifest came to stand in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was none for its key.
    New,
    /// Another publisher was first, and its manifest stays.
    Existing,
    /// It took the place of one that was damaged or had lost its objects.
    Repaired,
    /// It took the place of one whose bytes had not been kept.
    Upgraded,
}

impl Store {
    /// An empty batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch { store: self, contents: Mutex::default() }
    }

    /// Publishes one manifest, whose objects are in the store already, unless its key has one.
    ///
    /// # Errors
    /// [`StoreError::MissingObject`] if an object is not there; [`StoreError::ReadOnly`], [`StoreError::Io`].
    pub fn publish(&self, manifest: Manifest) -> Result<Published, StoreError> {
        self.staging()?;
        self.check_objects(&manifest)?;
        let mut published = self.place_manifests(vec![manifest])?;
        Ok(published.pop().expect("invariant: every manifest of a batch is published or the batch fails"))
    }

    fn check_objects(&self, manifest: &Manifest) -> Result<(), StoreError> {
        for file in manifest.objects() {
            if self.object_bytes(&file.digest)? != Some(file.bytes) {
                return Err(StoreError::MissingObject { digest: file.digest });
            }
        }
        Ok(())
    }

    fn place_objects(&self, objects: Vec<(Digest, Staged)>) -> Result<(), StoreError> {
        if objects.is_empty() {
            return Ok(());
        }
        self.step(PublishStep::SyncObjects, self.root())?;
        sync_files(&objects.iter().map(|(_, staged)| staged.path()).collect::<Vec<_>>())?;
        let mut folders = BTreeSet::new();
        for (digest, staged) in objects {
            let path = self.object_path(&digest);
            self.step(PublishStep::PlaceObject, &path)?;
            folders.extend(leaf_folders(&path)?);
            staged.place(&path)?;
        }
        self.step(PublishStep::SyncObjectFolders, self.root())?;
        sync_folders(folders)
    }

    fn place_manifests(&self, manifests: Vec<Manifest>) -> Result<Vec<Published>, StoreError> {
        if manifests.is_empty() {
            return Ok(Vec::new());
        }
        let staged = manifests.into_iter().map(|manifest| self.stage_manifest(manifest));
        let staged: Vec<StagedManifest> = staged.collect::<Result<_, _>>()?;
        self.step(PublishStep::SyncManifests, self.root())?;
        sync_files(&staged.iter().map(|manifest| manifest.file.path()).collect::<Vec<_>>())?;
        let mut folders = BTreeSet::new();
        for manifest in &staged {
            folders.extend(leaf_folders(&manifest.path)?);
        }
        let published = staged.into_iter().map(|manifest| self.place_manifest(manifest));
        let published = published.collect::<Result<Vec<_>, _>>()?;
        self.step(PublishStep::SyncManifestFolders, self.root())?;
        sync_folders(folders)?;
        Ok(published)
    }

    fn stage_manifest(&self, manifest: Manifest) -> Result<StagedManifest, StoreError> {
        let path = self.manifest_path(&manifest.key());
        self.step(PublishStep::StageManifest, &path)?;
        let bytes = manifest.to_bytes();
        let file = self.staging()?.write(&bytes)?;
        Ok(StagedManifest { manifest, bytes, file, path })
    }

    /// Puts a manifest where there is none. One that stands there wins if it is a hit and its bytes were
    /// kept, or if this one's were not kept either.
    fn place_manifest(&self, staged: StagedManifest) -> Result<Published, StoreError> {
        let StagedManifest { manifest, bytes, file, path } = staged;
        let mut outcome = Outcome::New;
        for _ in 0..PLACE_ATTEMPTS {
            self.step(PublishStep::PlaceManifest, &path)?;
            if put_if_absent(&file, &bytes, &path).at("create", &path)? {
                return Ok(Published { manifest, outcome });
            }
            let Some(existing) = if_present(fs::read(&path)).at("read", &path)? else { continue };
            // A network file system may repeat a link that succeeded and then report that the name exists.
            if existing == bytes {
                return Ok(Published { manifest, outcome });
            }
            outcome = match self.judge(&manifest.key(), &existing)? {
                Lookup::Hit(winner) if winner.stored || !manifest.stored => {
                    return Ok(Published { manifest: *winner, outcome: Outcome::Existing });
                }
                Lookup::Hit(_) => Outcome::Upgraded,
                Lookup::Miss(_) => Outcome::Repaired,
            };
            self.staging()?.displace(&path, |aside| Ok(fs::read(aside)? == existing))?;
        }
        Err(io::Error::from(io::ErrorKind::ResourceBusy)).at("replace", &path)
    }
}

struct StagedManifest {
    manifest: Manifest,
    bytes: Vec<u8>,
    file: Staged,
    path: PathBuf,
}

impl Batch<'_> {
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
        if !self.store.refresh_object(&digest, length) {
            self.store.step(PublishStep::StageObject, &self.store.object_path(&digest))?;
            let staged = match self.link(path) {
                Some(staged) => staged,
                None => self.copy(path, digest)?,
            };
            self.contents().objects.push((digest, staged));
        }
        self.contents().adopted.push(path.to_owned());
        Ok((digest, length))
    }

    /// Adds a manifest whose objects are in this batch or in the store.
    pub fn add_manifest(&self, manifest: Manifest) {
        self.contents().manifests.push(manifest);
    }

    /// Puts everything into the store; returns what became of the manifests, in the order they were added.
    ///
    /// # Errors
    /// [`StoreError::MissingObject`] if a manifest names an object that is nowhere; [`StoreError::Io`]. Some
    /// objects and manifests of the batch may then be in the store, each of them whole and usable.
    pub fn commit(self) -> Result<Vec<Published>, StoreError> {
        let store = self.store;
        let contents = self.contents.into_inner().unwrap_or_else(PoisonError::into_inner);
        store.place_objects(contents.objects)?;
        contents.manifests.iter().try_for_each(|manifest| store.check_objects(manifest))?;
        let published = store.place_manifests(contents.manifests)?;
        if !contents.adopted.is_empty() {
            store.step(PublishStep::RemoveAdopted, store.root())?;
        }
        for path in contents.adopted {
            // The bytes are safe. What cannot be removed lies in a work folder, which goes as a whole.
            fs::remove_file(&path).ok();
        }
        Ok(published)
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

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A thread that panicked while it held the lock had pushed its element or had not.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folders in which a new object or manifest, and its folder, get their names; makes the inner one if need
/// be. Both are flushed, because another process may have made the inner one and not flushed it yet.
fn leaf_folders(path: &Path) -> Result<impl Iterator<Item = PathBuf>, StoreError> {
    let folders = path.ancestors().skip(1).take(2);
    folders.clone().take(1).try_for_each(create_folder)?;
    Ok(folders.map(Path::to_owned))
}

/// Creates a file that another staged file holds the content of; `false` if the name exists.
fn put_if_absent(staged: &Staged, bytes: &[u8], path: &Path) -> io::Result<bool> {
    let created = match fs::hard_link(staged.path(), path) {
        // A file system without hard links: a process killed in the middle leaves a manifest cut short, which
        // is a miss, and the next publisher replaces it.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
            File::create_new(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        }
        result => result,
    };
    match created {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
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
