//! Where the reference vectors lie.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A folder of vectors: below `$NNFLOW_GOLDEN`, or below the repository's own copy.
pub(crate) fn folder(component: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    std::env::var_os("NNFLOW_GOLDEN").map_or(own, PathBuf::from).join(component)
}

/// A folder of vectors that are no part of the repository: also looked for beside it.
pub(crate) fn foreign_folder(component: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden").join(component);
    let given = folder(component);
    if given.is_dir() || !beside.is_dir() { given } else { beside }
}

/// The folders inside a folder, sorted; none if it does not exist.
pub(crate) fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort_unstable();
    folders
}

/// The contents of a JSON file.
pub(crate) fn json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
