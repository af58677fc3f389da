//! Publication: objects first, manifests last, each of them all at once or not at all.
//!
//! A run publishes thousands of small results. Flushing files and folders one by one would take most of
//! the time, so everything is written, all files are flushed, renamed, and each folder is flushed once: for one
//! batch, and for several that are ready at the same time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::batch::{Batch, Contents};
use crate::durable::{sync_files, sync_folders};
use crate::error::{IoContext, StoreError, if_present};
use crate::fault::PublishStep;
use crate::lookup::Lookup;
use crate::manifest::Manifest;
use crate::staging::Staged;
use crate::store::{Store, create_folder};

/// How often a manifest that cannot be trusted is taken away before giving up. Each time, another process
/// has put another broken one in its place, so more than one is already strange.
const PLACE_ATTEMPTS: usize = 16;

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

impl Batch<'_> {
    /// Puts everything into the store; returns what became of the manifests, in the order they were added.
    ///
    /// # Errors
    /// [`StoreError::MissingObject`] if a manifest names an object that is nowhere; [`StoreError::Io`]. Some
    /// objects and manifests of the batch may then be in the store, each of them whole and usable.
    pub fn commit(self) -> Result<Vec<Published>, StoreError> {
        let mut ends = self.store().commit_together(vec![self]);
        ends.pop().expect("invariant: each batch comes to an end")
    }
}

/// A batch on its way.
struct Commit {
    contents: Contents,
    /// Where the staged files lie, then the folders of what was placed: what is to be flushed next.
    unflushed: Vec<PathBuf>,
    staged: Vec<StagedManifest>,
    /// What became of its manifests, or why they stop halfway.
    end: Result<Vec<Published>, StoreError>,
}

struct StagedManifest {
    manifest: Manifest,
    bytes: Vec<u8>,
    file: Staged,
    path: PathBuf,
}

impl Commit {
    /// Takes a step, unless an earlier one has failed.
    fn step(&mut self, step: impl FnOnce(&mut Self, &mut Vec<Published>) -> Result<(), StoreError>) {
        let end = std::mem::replace(&mut self.end, Ok(Vec::new()));
        self.end = end.and_then(|mut published| step(self, &mut published).map(|()| published));
    }
}

impl Store {
    /// Publishes one manifest, whose objects are in the store already, unless its key has one.
    ///
    /// # Errors
    /// [`StoreError::MissingObject`] if an object is not there; [`StoreError::ReadOnly`], [`StoreError::Io`].
    pub fn publish(&self, manifest: Manifest) -> Result<Published, StoreError> {
        self.staging()?;
        let batch = self.batch();
        batch.add_manifest(manifest);
        let mut published = batch.commit()?;
        Ok(published.pop().expect("invariant: every manifest of a batch is published or the batch fails"))
    }

    /// As [`Batch::commit`] for each of several batches of this store, with one flush of the disk for all of them
    /// where each would need its own.
    ///
    /// What fails for one batch leaves the others alone.
    pub fn commit_together(&self, batches: Vec<Batch<'_>>) -> Vec<Result<Vec<Published>, StoreError>> {
        let begin = |batch: Batch<'_>| {
            let contents = batch.into_contents();
            let unflushed = contents.objects.iter().map(|(_, staged)| staged.path().to_owned()).collect();
            Commit { contents, unflushed, staged: Vec::new(), end: Ok(Vec::new()) }
        };
        let mut commits: Vec<Commit> = batches.into_iter().map(begin).collect();
        self.flush(&mut commits, PublishStep::SyncObjects, sync_files);
        commits.iter_mut().for_each(|commit| commit.step(|commit, _| self.place_objects(commit)));
        self.flush(&mut commits, PublishStep::SyncObjectFolders, sync_folders);
        commits.iter_mut().for_each(|commit| commit.step(|commit, _| self.stage_manifests(commit)));
        self.flush(&mut commits, PublishStep::SyncManifests, sync_files);
        commits.iter_mut().for_each(|commit| commit.step(|commit, published| self.place_manifests(commit, published)));
        self.flush(&mut commits, PublishStep::SyncManifestFolders, sync_folders);
        commits.iter_mut().for_each(|commit| commit.step(|commit, _| self.remove_adopted(commit)));
        commits.into_iter().map(|commit| commit.end).collect()
    }

    /// Flushes what belongs to all batches at once. Where that fails, each is flushed by itself, so that one whose files
    /// are gone does not take the others with it.
    fn flush(&self, commits: &mut [Commit], step: PublishStep, sync: fn(&[PathBuf]) -> Result<(), StoreError>) {
        let sync = |paths: &[PathBuf]| match paths {
            [] => Ok(()),
            paths => self.step(step, self.root()).and_then(|()| sync(paths)),
        };
        let mut open: Vec<&mut Commit> = commits.iter_mut().filter(|commit| commit.end.is_ok()).collect();
        let all: BTreeSet<PathBuf> = open.iter().flat_map(|commit| commit.unflushed.clone()).collect();
        match (sync(&Vec::from_iter(all)), &mut *open) {
            (Ok(()), _) => {}
            (Err(error), [alone]) => alone.step(|_, _| Err(error)),
            (Err(_), several) => several.iter_mut().for_each(|one| one.step(|commit, _| sync(&commit.unflushed))),
        }
        commits.iter_mut().for_each(|commit| commit.unflushed.clear());
    }

    fn place_objects(&self, commit: &mut Commit) -> Result<(), StoreError> {
        for (digest, staged) in std::mem::take(&mut commit.contents.objects) {
            let path = self.object_path(&digest);
            self.step(PublishStep::PlaceObject, &path)?;
            commit.unflushed.extend(leaf_folders(&path)?);
            staged.place(&path)?;
            self.has_seen(digest);
        }
        Ok(())
    }

    fn stage_manifests(&self, commit: &mut Commit) -> Result<(), StoreError> {
        let manifests = std::mem::take(&mut commit.contents.manifests);
        manifests.iter().try_for_each(|manifest| self.check_objects(manifest))?;
        for manifest in manifests {
            let path = self.manifest_path(&manifest.key());
            self.step(PublishStep::StageManifest, &path)?;
            let bytes = manifest.to_bytes();
            let file = self.staging()?.write(&bytes)?;
            commit.unflushed.push(file.path().to_owned());
            commit.staged.push(StagedManifest { manifest, bytes, file, path });
        }
        Ok(())
    }

    fn check_objects(&self, manifest: &Manifest) -> Result<(), StoreError> {
        for file in manifest.objects() {
            if self.object_bytes(&file.digest)? != Some(file.bytes) {
                return Err(StoreError::MissingObject { digest: file.digest });
            }
        }
        Ok(())
    }

    fn place_manifests(&self, commit: &mut Commit, published: &mut Vec<Published>) -> Result<(), StoreError> {
        for staged in std::mem::take(&mut commit.staged) {
            commit.unflushed.extend(leaf_folders(&staged.path)?);
            published.push(self.place_manifest(staged)?);
        }
        Ok(())
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

    fn remove_adopted(&self, commit: &mut Commit) -> Result<(), StoreError> {
        let adopted = std::mem::take(&mut commit.contents.adopted);
        if !adopted.is_empty() {
            self.step(PublishStep::RemoveAdopted, self.root())?;
        }
        for path in adopted {
            // The bytes are safe. What cannot be removed lies in a work folder, which goes as a whole.
            fs::remove_file(&path).ok();
        }
        Ok(())
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
