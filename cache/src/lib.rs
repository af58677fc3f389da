//! The content-addressed store: bytes in, bytes out.
//!
//! The store keeps two kinds of thing and knows nothing of stages. An *object* is a file named by the
//! BLAKE3 digest of its bytes, so it can never be out of date, and equal files are kept once. A *manifest*
//! says which objects came out of the work that a *key* stands for; the key is the digest of everything
//! that the work read. Everything else in the store is either work under way or an index that may be
//! deleted at any time.
//!
//! ```text
//! .nnflow/
//!   VERSION  CACHEDIR.TAG  .gitignore
//!   objects/ab/cdef…              immutable, mode 0444, named by content
//!   manifests/ab/cdef….json       key → outputs, put if absent, with the key's readable pre-image
//!   work/<key>/attempt-N-<unique>/   a folder for each attempt that a later one could go on from: checkpoints live here
//!   work/jobs/                    what was handed to a cluster, one folder a job; belongs to the engine
//!   runs/                         one folder a run; belongs to the engine
//!   history/<workflow>/<node>.json   the last key and record of a node, for explanations
//!   leases/<key>.json             who is working on a key; an efficiency, never a lock
//!   index/stat-cache              digests of source files by (device, inode, size, mtime, ctime)
//!   tmp/<process>/                staging, scratch and claims, one folder for each process
//! ```
//!
//! # What holds at every instant
//!
//! 1. A file appears under its final name only when it is complete and on disk. Objects are staged, synced
//!    and renamed, their folders are synced, and only then are the manifests that name them linked into
//!    place. A process killed anywhere in between leaves staged files and unreferenced objects, which
//!    [`Store::gc`] removes.
//! 2. No reader and no writer takes a lock. Equal objects may replace each other, because their bytes are
//!    equal; of two manifests for one key the first one wins and both publishers get the winner's.
//! 3. A manifest that cannot be trusted (damaged, misplaced, or naming an object that is missing or has
//!    another size) is a miss with a [`MissReason`], never an error and never a hit, and the next
//!    publisher replaces it.
//! 4. [`Store::verify`] re-reads every byte, because points 1 to 3 cannot see a flipped bit; and [`Store::check_sound`]
//!    those of the objects that somebody is about to read.
//! 5. A collection takes nothing that a living process has claimed ([`Store::claim_what_is_used`]).

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking"))]

mod batch;
mod canonical;
mod claim;
mod commit;
mod digest;
mod durable;
mod error;
mod fault;
mod gc;
mod history;
mod key;
mod lease;
mod lookup;
mod manifest;
mod object;
mod process;
mod scratch;
mod staging;
mod stat_cache;
mod stats;
mod store;
mod verify;
mod walk;
mod work;

pub use batch::Batch;
pub use canonical::canonical_json;
pub use commit::{Outcome, Published};
pub use digest::{Digest, DigestError, hash_bytes, hash_file};
pub use error::{Hint, StoreError};
pub use fault::{FaultHook, PublishStep};
pub use gc::{GcOptions, GcReport};
pub use history::HistoryEntry;
pub use key::{KEY_CONTEXT, Key, derive_digest};
pub use lease::{Acquired, Lease, LeaseRecord};
pub use lookup::{Lookup, MissReason};
pub use manifest::{Artifact, FileEntry, Manifest, ManifestError, NameError, PortValue};
pub use process::{Liveness, ProcessIdentity};
pub use scratch::Scratch;
pub use stat_cache::{SourceDigest, StatCache};
pub use stats::StoreStats;
pub use store::{STORE_VERSION, Store};
pub use verify::{BadManifest, ObjectProblem, VerifyReport, WrongObject};
pub use work::Attempt;
