//! What can be wrong with a result that a shared store has.

use nnflow_cache::{Digest, Key, ManifestError};

/// Why a result of a shared store is a miss although there is a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The manifest was cut short or altered.
    #[error(transparent)]
    Damaged(#[from] ManifestError),
    /// The manifest is that of another key.
    #[error("the manifest is that of key `{found}`")]
    Misplaced {
        /// The key in the manifest.
        found: Key,
    },
    /// The manifest's key is not that of its record.
    #[error("the manifest's key is not that of its record")]
    Inconsistent,
    /// An object that the manifest names is not there.
    #[error("object `{digest}` is not there")]
    MissingObject {
        /// The object.
        digest: Digest,
    },
    /// An object was cut short or has grown.
    #[error("object `{digest}` has {found} bytes, expected {expected}")]
    WrongLength {
        /// The object.
        digest: Digest,
        /// The size that the manifest says.
        expected: u64,
        /// The size that was found.
        found: u64,
    },
    /// An object has other bytes than its name says.
    #[error("object `{digest}` has other bytes than its name says")]
    WrongBytes {
        /// The object.
        digest: Digest,
    },
}

impl Flaw {
    /// The object that is wrong, if it is one.
    pub(crate) fn object(&self) -> Option<Digest> {
        match self {
            Self::MissingObject { digest } | Self::WrongLength { digest, .. } | Self::WrongBytes { digest } => {
                Some(*digest)
            }
            Self::Damaged(_) | Self::Misplaced { .. } | Self::Inconsistent => None,
        }
    }
}
