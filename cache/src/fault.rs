//! Places where a test can make publication fail or the process die.
//!
//! That a store survives a crash at any instant is a promise, so it must be possible to crash at each of
//! them. The hook is an `Option` that is looked at once before every operation on the disk; that costs
//! nothing beside the operation itself, so that tests run the code that users run.

use std::io;
use std::sync::Arc;

/// The operations of a publication, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PublishStep {
    /// Before the bytes of an object are written to the staging folder.
    StageObject,
    /// Before the staged objects of a batch are flushed to the disk.
    SyncObjects,
    /// Before an object gets its final name.
    PlaceObject,
    /// Before the folders of the new objects are flushed to the disk.
    SyncObjectFolders,
    /// Before a manifest is written to the staging folder.
    StageManifest,
    /// Before the staged manifests of a batch are flushed to the disk.
    SyncManifests,
    /// Before a manifest gets its final name.
    PlaceManifest,
    /// Before the folders of the new manifests are flushed to the disk.
    SyncManifestFolders,
    /// Before the files that were given up to the store are removed from where they were.
    RemoveAdopted,
}

/// Called before each [`PublishStep`]; an error makes the step fail as if the disk had said so.
pub type FaultHook = Arc<dyn Fn(PublishStep) -> io::Result<()> + Send + Sync>;
