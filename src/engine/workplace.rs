//! Where a job does its work, and what becomes of the place.

use std::path::{Path, PathBuf};

use nnflow_cache::{Attempt, Key, Scratch, Store, StoreError};

/// The folder of a job. It stays until it is [removed](Workplace::remove), or dropped if nobody could go on from it.
#[derive(Debug)]
pub enum Workplace<'store> {
    /// A folder that outlives the job, so that a later attempt can go on from it.
    Attempt {
        /// The attempt.
        attempt: Attempt,
        /// Earlier attempts, newest first.
        earlier: Vec<Attempt>,
    },
    /// A folder that ends with the job.
    Scratch(Scratch<'store>),
}

impl<'store> Workplace<'store> {
    /// A place for the work of a key.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(store: &'store Store, key: &Key, resumes: bool) -> Result<Self, StoreError> {
        if !resumes {
            return store.scratch().map(Self::Scratch);
        }
        let earlier = store.attempts(key)?;
        Ok(Self::Attempt { attempt: store.new_attempt(key)?, earlier })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        match self {
            Self::Attempt { attempt, .. } => &attempt.folder,
            Self::Scratch(scratch) => scratch.folder(),
        }
    }

    /// Where the stage keeps what a later attempt could go on from.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        work_of(self.folder())
    }

    /// Where earlier attempts have kept such things, newest first.
    #[must_use]
    pub fn earlier(&self) -> Vec<PathBuf> {
        match self {
            Self::Attempt { earlier, .. } => earlier.iter().map(|attempt| work_of(&attempt.folder)).collect(),
            Self::Scratch(_) => Vec::new(),
        }
    }

    /// Removes the folder, and those of earlier attempts at the key.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(self, store: &Store, key: &Key) -> Result<(), StoreError> {
        match self {
            Self::Attempt { .. } => store.remove_work(key),
            Self::Scratch(_) => Ok(()),
        }
    }
}

fn work_of(folder: &Path) -> PathBuf {
    folder.join("work")
}
