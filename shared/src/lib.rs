//! A store that several machines share, behind the local store of each: a folder, S3, GCS, or HTTP.
//!
//! It keeps the same two kinds of thing as a local store ([`nnflow_cache`]), in the same places below its address:
//!
//! ```text
//! VERSION                    the format
//! objects/ab/cdef…           files, named by the BLAKE3 digest of their bytes
//! manifests/ab/cdef….json    key → outputs
//! ```
//!
//! So the folder of a local store can be read as a shared one, also through a plain web server.
//!
//! # What holds
//!
//! 1. **Objects first, the manifest last.** Whoever sees a manifest finds its objects. A push that is killed anywhere leaves
//!    objects that no manifest names, which [`SharedStore::gc`] removes.
//! 2. **The first publisher of a key wins.** Manifests are put if absent; one that is damaged, or whose objects are gone, is
//!    replaced by the next push.
//! 3. **Nothing of it is believed.** The length and the digest of each object are checked before it enters the local store, a
//!    manifest by its checksum and its key. What is wrong is a miss that is told once, never an error and never a result.
//! 4. **It is never needed.** A shared store that does not answer is told of once and left alone for a while; nothing that is
//!    asked for here fails for it, except where a person asked for nothing else.
//! 5. **What is fetched is published** into the local store as everything is ([`nnflow_cache::Batch`]), so that all promises
//!    of that hold.
//!
//! Nothing touches the network before the first question, and no caller sees that it is asked asynchronously.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking"))]

mod address;
mod connection;
mod error;
mod fetch;
mod flaw;
mod gc;
mod push;
mod store;
mod transfer;

pub use address::{Address, AddressError, Bucket};
pub use error::{Hint, SharedError};
pub use flaw::Flaw;
pub use gc::{SharedGcOptions, SharedGcReport};
pub use push::{PushReport, Unpushed};
pub use store::{Mode, SharedStore, Tally};
