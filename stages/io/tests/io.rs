//! Readers against files that other programs wrote, and against what those programs make of them.

use std::path::{Path, PathBuf};

mod odd_nifti;
mod real_datasets;

/// A folder of files that are no part of the repository: under what the environment variable names, by default under
/// `../shared` beside the checkout. `None`, with a message, where it is absent.
fn outside(variable: &str, default: &str, name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(default);
    let folder = std::env::var_os(variable).map_or(beside, PathBuf::from).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no folder `{}`; set {variable} to its parent", folder.display());
    None
}
