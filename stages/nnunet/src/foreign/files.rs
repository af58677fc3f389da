//! The files of a model, in a folder or in a zip.

use std::path::{Path, PathBuf};

use nnflow_io::archive::{Archive, ArchiveError};
use nnflow_stage::StageError;

use super::{DESCRIPTION, FINGERPRINT, INFERENCE, PLANS, SUMMARY};

/// The largest document that is read; a `summary.json` of thousands of cases has some 10 MB.
const LARGEST_DOCUMENT: u64 = 256 << 20;
/// From the folder of all results down to a checkpoint: dataset, configuration, fold, file.
const DEPTH: usize = 4;

/// The files of a model.
pub(super) enum Files {
    Folder(PathBuf),
    Zip(Archive),
}

/// Whether a path is a model in nnU-Net's form: a zip, or a folder that has no `bundle.json` and a checkpoint within.
#[must_use]
pub fn is_foreign(path: &Path) -> bool {
    if path.is_dir() {
        let has_checkpoint =
            || Files::Folder(path.to_path_buf()).names().is_ok_and(|names| names.iter().any(is_checkpoint));
        return !path.join("bundle.json").is_file() && has_checkpoint();
    }
    let mut start = [0; 4];
    let read = fs_err::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start == *b"PK\x03\x04"
}

impl Files {
    /// A model's folder or zip.
    pub(super) fn open(path: &Path) -> Result<Self, StageError> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        if !path.is_file() {
            return Err(StageError::input(format!("there is no model `{}`", path.display()))
                .with_hint("name a folder of nnU-Net's results, or a zip that nnU-Net has exported"));
        }
        Archive::open(path).map(Self::Zip).map_err(unusable)
    }

    /// Where they lie.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Zip(archive) => archive.path(),
        }
    }

    /// Names of those files that a model may be made of, with slashes, ascending.
    pub(super) fn names(&self) -> Result<Vec<String>, StageError> {
        let mut names = Vec::new();
        match self {
            Self::Folder(folder) => names_below(folder, "", DEPTH, &mut names)?,
            Self::Zip(archive) => names.extend(archive.names().iter().filter(|name| is_wanted(name)).cloned()),
        }
        names.sort();
        Ok(names)
    }

    /// A document.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, StageError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let size = fs_err::metadata(&path)?.len();
                if size > LARGEST_DOCUMENT {
                    let message = format!("`{}` has {size} bytes: expected a document", path.display());
                    return Err(StageError::input(message));
                }
                Ok(fs_err::read(path)?)
            }
            Self::Zip(archive) => archive.read(name, LARGEST_DOCUMENT).map_err(unusable),
        }
    }

    /// A file to be mapped into memory; out of a zip it is first written to the folder `scratch`.
    pub(super) fn local(&self, name: &str, scratch: &Path) -> Result<PathBuf, StageError> {
        match self {
            Self::Folder(folder) => Ok(folder.join(name)),
            Self::Zip(archive) => {
                let path = scratch.join("member");
                archive.extract(name, &path).map_err(unusable)?;
                Ok(path)
            }
        }
    }
}

/// What the archive's error says, for whoever named the archive.
fn unusable(error: ArchiveError) -> StageError {
    match error {
        ArchiveError::Write(error) => StageError::storage(error.to_string()).with_source(error),
        other => StageError::input(other.to_string()).with_source(other),
    }
}

fn names_below(folder: &Path, below: &str, depth: usize, names: &mut Vec<String>) -> Result<(), StageError> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        // A file whose name is no Unicode is none of nnU-Net's.
        let Some(name) = file_name.to_str() else { continue };
        let path = entry.path();
        if path.is_dir() {
            // Cases that were predicted are of no interest, and there may be thousands.
            if depth > 0 && name != "validation" && !name.starts_with('.') {
                names_below(&path, &format!("{below}{name}/"), depth - 1, names)?;
            }
        } else if is_wanted(name) {
            names.push(format!("{below}{name}"));
        }
    }
    Ok(())
}

fn is_wanted(name: &str) -> bool {
    const DOCUMENTS: [&str; 7] =
        [PLANS, DESCRIPTION, FINGERPRINT, INFERENCE, SUMMARY, "postprocessing.json", "postprocessing.pkl"];
    let file = name.rsplit('/').next().unwrap_or(name);
    (is_checkpoint(name) || DOCUMENTS.contains(&file)) && !name.contains("/validation/")
}

fn is_checkpoint(name: impl AsRef<str>) -> bool {
    let name = name.as_ref();
    name.rsplit('/').next().unwrap_or(name).starts_with("checkpoint_") && name.ends_with(".pth")
}
