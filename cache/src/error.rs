//! What can go wrong with a store, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::store::STORE_VERSION;

/// An operation of the store that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused an operation.
    #[error("cannot {operation} `{}`", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The store was made by another version of this program.
    #[error("store `{}` has format `{found}`, expected `{STORE_VERSION}`", root.display())]
    Version {
        /// The store's folder.
        root: PathBuf,
        /// What its `VERSION` says.
        found: String,
    },
    /// The folder holds other things than a store, or nothing at all where a store must exist.
    #[error("`{}` is not a store{}", root.display(), entry.as_ref().map(|name| format!(": it holds `{name}`")).unwrap_or_default())]
    NotAStore {
        /// The folder.
        root: PathBuf,
        /// An entry that does not belong to a store, if there is one.
        entry: Option<String>,
    },
    /// Something was to be written to a store that was opened for reading.
    #[error("store `{}` is open for reading only", root.display())]
    ReadOnly {
        /// The store's folder.
        root: PathBuf,
    },
    /// A source file changed while its digest was computed or while it was copied.
    #[error("`{}` changed while it was read", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// An object that is needed is not in the store, or not with all its bytes.
    #[error("object `{digest}` is not in the store")]
    MissingObject {
        /// The object's name.
        digest: Digest,
    },
    /// The bytes of an object are not those that its name promises.
    #[error("object `{digest}` is damaged: its content has the digest `{found}`")]
    WrongObject {
        /// The object's name.
        digest: Digest,
        /// The digest of the bytes on disk.
        found: Digest,
    },
}

/// What a user can do about a [`StoreError`]; its text is one sentence in the imperative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// The disk or the user's share of it is full.
    DiskFull,
    /// The file system or the store does not accept writes.
    ReadOnly,
    /// The file belongs to someone else.
    Permission,
    /// The store has another format.
    Version,
    /// The folder is not a store.
    NotAStore,
    /// A source file is still being written.
    SourceChanged,
    /// Objects are missing or damaged.
    Damaged,
}

impl StoreError {
    /// What to do about the error, where that is known.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Io { source, .. } => io_hint(source.kind()),
            Self::Version { .. } => Some(Hint::Version),
            Self::NotAStore { .. } => Some(Hint::NotAStore),
            Self::ReadOnly { .. } => Some(Hint::ReadOnly),
            Self::SourceChanged { .. } => Some(Hint::SourceChanged),
            Self::MissingObject { .. } | Self::WrongObject { .. } => Some(Hint::Damaged),
        }
    }
}

fn io_hint(kind: io::ErrorKind) -> Option<Hint> {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Hint::DiskFull),
        io::ErrorKind::ReadOnlyFilesystem => Some(Hint::ReadOnly),
        io::ErrorKind::PermissionDenied => Some(Hint::Permission),
        _ => None,
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::DiskFull => {
                "free some space, for instance with `nnflow cache gc`, or put the store elsewhere with `--store`"
            }
            Self::ReadOnly => "put the store where it can be written with `--store`",
            Self::Permission => "ask the owner for access, or use a store of your own with `--store`",
            Self::Version => "use the version of nnflow that made the store, or another store with `--store`",
            Self::NotAStore => "name an empty or new folder, or an existing store, with `--store`",
            Self::SourceChanged => "wait until the file is written, then run again",
            Self::Damaged => "run `nnflow cache verify --repair`, then run again",
        })
    }
}

/// Adds what was tried, and on which path, to an error of the file system.
pub(crate) trait IoContext<T> {
    /// `operation` is a verb that follows "cannot".
    fn at(self, operation: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { operation, path: path.to_owned(), source })
    }
}

/// Turns "it is not there" into `None`.
pub(crate) fn if_present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: io::ErrorKind, expected: Option<Hint>) {
        let error = Err::<(), _>(io::Error::from(kind)).at("write", Path::new("/store/objects/ab")).unwrap_err();
        assert_eq!(error.hint(), expected);
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        check(io::ErrorKind::StorageFull, Some(Hint::DiskFull));
    }

    #[test]
    fn a_used_up_quota_counts_as_a_full_disk() {
        check(io::ErrorKind::QuotaExceeded, Some(Hint::DiskFull));
    }

    #[test]
    fn a_read_only_file_system_is_told_apart() {
        check(io::ErrorKind::ReadOnlyFilesystem, Some(Hint::ReadOnly));
    }

    #[test]
    fn missing_permission_is_told_apart() {
        check(io::ErrorKind::PermissionDenied, Some(Hint::Permission));
    }

    #[test]
    fn an_unknown_error_has_no_hint() {
        check(io::ErrorKind::Other, None);
    }
}
