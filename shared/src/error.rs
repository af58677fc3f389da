//! What can go wrong with a shared store.

use std::fmt;
use std::time::Duration;

use nnflow_cache::{Digest, StoreError};

/// Something that was asked of a shared store and did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedError {
    /// The store's client cannot be set up with what the environment says.
    #[error("the shared store `{address}` cannot be used: {message}")]
    Setup {
        /// Where the store is.
        address: String,
        /// What is wrong.
        message: String,
    },
    /// The store did not answer, or refused.
    #[error("the shared store `{address}` cannot be reached: cannot {operation}: {}", one_line(source))]
    Unreachable {
        /// Where the store is.
        address: String,
        /// What was tried, as a verb.
        operation: &'static str,
        /// What the store or the network said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Nothing was heard of the store.
    #[error("the shared store `{address}` has not answered for {} s: cannot {operation}", patience.as_secs())]
    Silent {
        /// Where the store is.
        address: String,
        /// What was tried, as a verb.
        operation: &'static str,
        /// For how long it was waited.
        patience: Duration,
    },
    /// It failed a moment ago, so it is not asked now.
    #[error(
        "the shared store `{address}` is not asked any more, or failed a short while ago and is not asked again yet"
    )]
    Resting {
        /// Where the store is.
        address: String,
    },
    /// The store was made by another version of this program.
    #[error("the shared store `{address}` has format `{found}`, expected `{}`", nnflow_cache::STORE_VERSION)]
    Version {
        /// Where the store is.
        address: String,
        /// What its `VERSION` says.
        found: String,
    },
    /// The store is only read from.
    #[error("the shared store `{address}` is only read from")]
    ReadOnly {
        /// Where the store is.
        address: String,
    },
    /// An object of the local store has other bytes than its name says, and is not passed on.
    #[error("the local object `{digest}` is damaged and was not passed on")]
    DamagedHere {
        /// The object.
        digest: Digest,
    },
    /// A result is not in the local store.
    #[error("the result is not in the local store")]
    NotHere,
    /// A file of this machine cannot be read or written.
    #[error("cannot {operation} `{path}`")]
    File {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        path: String,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// The local store failed.
    #[error(transparent)]
    Local(#[from] StoreError),
}

/// What a user can do about a [`SharedError`]; its text is one sentence in the imperative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// The address, the network or the rights are wrong.
    Access,
    /// The store has another format.
    Version,
    /// The store takes nothing.
    ReadOnly,
    /// The local store is damaged.
    Damaged,
    /// The local store has a hint of its own.
    Local(nnflow_cache::Hint),
}

impl SharedError {
    /// What to do about the error, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Setup { .. } | Self::Unreachable { .. } | Self::Silent { .. } | Self::Resting { .. } => {
                Some(Hint::Access)
            }
            Self::Version { .. } => Some(Hint::Version),
            Self::ReadOnly { .. } => Some(Hint::ReadOnly),
            Self::DamagedHere { .. } => Some(Hint::Damaged),
            Self::Local(error) => error.hint().map(Hint::Local),
            Self::NotHere | Self::File { .. } => None,
        }
    }

    /// Whether asking for something else would most likely fail as well.
    pub(crate) fn concerns_everything(&self) -> bool {
        !matches!(self, Self::DamagedHere { .. } | Self::NotHere | Self::File { .. } | Self::Local(_))
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access => {
                formatter.write_str("check its address, and the variables that give access to it (`AWS_…`, `GOOGLE_…`)")
            }
            Self::Version => formatter.write_str("use the version of nnflow that made it, or another prefix"),
            Self::ReadOnly => formatter.write_str("use `read-write`, and an address that takes results"),
            Self::Damaged => formatter.write_str("run `nnflow cache verify --repair`, then run again"),
            Self::Local(hint) => hint.fmt(formatter),
        }
    }
}

/// Answers of servers are pages; their first line says enough.
fn one_line(error: &object_store::Error) -> String {
    const LONGEST: usize = 300;
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(LONGEST).collect()
}
