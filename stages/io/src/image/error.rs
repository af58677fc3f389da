//! Errors of image files.

use std::io;
use std::path::{Path, PathBuf};

use crate::atomic::WriteError;

/// An image that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read image `{name}`: {kind}")]
pub struct ReadError {
    /// The name it was asked for by.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub kind: ReadErrorKind,
}

impl ReadError {
    pub(super) fn new(path: &Path, name: &str, kind: ReadErrorKind) -> Self {
        Self { name: name.to_owned(), path: path.to_path_buf(), kind }
    }
}

/// What is wrong with an image file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The file system failed, or compressed data are corrupt.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// No format has this ending.
    #[error("no format has this ending: expected one of {expected}")]
    Ending {
        /// The endings that are known.
        expected: String,
    },
    /// The content is not what the ending says.
    #[error("not a {format} file: expected {expected}, found {found}")]
    NotThisFormat {
        /// The format that the ending names.
        format: &'static str,
        /// What had to be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A field of the header has a value that cannot be.
    #[error("header field `{field}`: expected {expected}, found `{found}`")]
    Header {
        /// The field, as the format calls it.
        field: &'static str,
        /// What had to be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Something that the format allows and this reader does not know.
    #[error("{what} is not supported; {hint}")]
    Unsupported {
        /// What was found.
        what: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The file ends before its last voxel.
    #[error("the file is cut short: expected {expected} bytes of voxels, found {found}")]
    Truncated {
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that are there, or that can be there at most where the file is compressed.
        found: u64,
    },
    /// The voxels do not fit into the memory.
    #[error("an image of {voxels} voxels does not fit into the memory")]
    Memory {
        /// Number of voxels, all channels together.
        voxels: usize,
    },
    /// The second file of a pair is not there.
    #[error("its voxels are not there: expected `{}`", expected.display())]
    Partner {
        /// Where it had to be.
        expected: PathBuf,
    },
    /// A label image with several channels.
    #[error("a label image has one channel, found {found}")]
    LabelChannels {
        /// Channels found.
        found: usize,
    },
    /// A voxel of a label image that is no label.
    #[error("labels are whole numbers from -32768 to 32767, found `{value}` at voxel {position:?} (z, y, x)")]
    LabelValue {
        /// The first such value.
        value: f32,
        /// Where it stands.
        position: [usize; 3],
    },
}

impl From<io::Error> for ReadErrorKind {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// An image that could not be written; whatever stood at its path before is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageWriteError {
    /// The format cannot hold the image.
    #[error("cannot write image `{}`: {reason}", path.display())]
    Unsupported {
        /// The file that was to be written.
        path: PathBuf,
        /// What the format lacks.
        reason: String,
    },
    /// The file system failed.
    #[error(transparent)]
    Write(WriteError),
}
