//! Where the reference vectors lie.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A folder of vectors: below `$NNFLOW_GOLDEN`, or below the repository's own copy.
pub(crate) fn folder(component: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    std::env::var_os("NNFLOW_GOLDEN").map_or(own, PathBuf::from).join(component)
}

/// The contents of a JSON file.
pub(crate) fn json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
