//! Why a vector could not be compared.

use std::error::Error;
use std::path::PathBuf;

/// Why a vector, or a whole component, could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A component without vectors.
    #[error("there are no vectors in `{}`", folder.display())]
    Missing {
        /// Where they were looked for.
        folder: PathBuf,
    },
    /// A file that cannot be read as what it should be.
    #[error("cannot use `{}`: {message}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A vector of a kind that nothing here knows how to compare.
    #[error("`{}` is not understood: {what}", path.display())]
    NotUnderstood {
        /// The file or folder.
        path: PathBuf,
        /// What about it is not known.
        what: String,
    },
    /// nnflow refused what nnU-Net accepted.
    #[error("nnflow refuses: {message}")]
    Refused {
        /// The error with its causes.
        message: String,
    },
}

impl Problem {
    pub(crate) fn missing(folder: PathBuf) -> Self {
        Self::Missing { folder }
    }

    pub(crate) fn unreadable(path: impl Into<PathBuf>, message: impl ToString) -> Self {
        Self::Unreadable { path: path.into(), message: message.to_string() }
    }

    pub(crate) fn not_understood(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::NotUnderstood { path: path.into(), what: what.into() }
    }

    /// An error of the code under test, with its causes.
    pub(crate) fn refused(error: impl Error) -> Self {
        Self::Refused { message: with_causes(&error) }
    }
}

/// What an error says, and what caused it.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    message
}

impl From<nnflow_stage::StageError> for Problem {
    fn from(error: nnflow_stage::StageError) -> Self {
        Self::refused(error)
    }
}
