//! Listing what lies in a store's folders.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::digest::Digest;
use crate::error::{IoContext, StoreError, if_present};

/// A file in a folder that is spread over 256 folders.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// The digest that its place and name spell; `None` if they spell none, so that it does not belong here.
    pub(crate) digest: Option<Digest>,
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// When it was last written or marked as used.
    pub(crate) modified: SystemTime,
}

/// Size and age of a folder with all that is in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TreeSummary {
    pub(crate) bytes: u64,
    /// The latest time at which anything in it was written.
    pub(crate) modified: SystemTime,
}

/// All files of a folder that is spread over 256 folders, sorted by path. Files that vanish meanwhile are
/// left out.
pub(crate) fn leaves(folder: &Path, suffix: &str) -> Result<Vec<Leaf>, StoreError> {
    let parts = entries(folder)?;
    let nested: Vec<Vec<Leaf>> = parts.par_iter().map(|part| part_leaves(part, suffix)).collect::<Result<_, _>>()?;
    let mut all: Vec<Leaf> = nested.into_iter().flatten().collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

/// What lies directly in a folder, sorted; nothing if there is no such folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let Some(entries) = if_present(fs::read_dir(folder)).at("list", folder)? else { return Ok(Vec::new()) };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>().at("list", folder)?;
    paths.sort();
    Ok(paths)
}

/// Size and age of a file or a folder; symbolic links are not followed. `None` if it is gone.
pub(crate) fn summarize_tree(path: &Path) -> Result<Option<TreeSummary>, StoreError> {
    let Some(metadata) = if_present(fs::symlink_metadata(path)).at("look at", path)? else { return Ok(None) };
    let modified = metadata.modified().at("look at", path)?;
    if !metadata.is_dir() {
        return Ok(Some(TreeSummary { bytes: metadata.len(), modified }));
    }
    let mut summary = TreeSummary { bytes: 0, modified };
    for entry in entries(path)? {
        if let Some(inner) = summarize_tree(&entry)? {
            summary.bytes += inner.bytes;
            summary.modified = summary.modified.max(inner.modified);
        }
    }
    Ok(Some(summary))
}

fn part_leaves(part: &Path, suffix: &str) -> Result<Vec<Leaf>, StoreError> {
    if !part.is_dir() {
        return leaf(part.to_owned(), None).map(|leaf| leaf.into_iter().collect());
    }
    let leaves = entries(part)?.into_iter().map(|path| {
        let digest = spelled_digest(part, &path, suffix);
        leaf(path, digest)
    });
    leaves.filter_map(Result::transpose).collect()
}

fn leaf(path: PathBuf, digest: Option<Digest>) -> Result<Option<Leaf>, StoreError> {
    let Some(metadata) = if_present(fs::symlink_metadata(&path)).at("look at", &path)? else { return Ok(None) };
    let digest = digest.filter(|_| metadata.is_file());
    let modified = metadata.modified().at("look at", &path)?;
    Ok(Some(Leaf { path, digest, bytes: metadata.len(), modified }))
}

fn spelled_digest(part: &Path, path: &Path, suffix: &str) -> Option<Digest> {
    let first = part.file_name()?.to_str()?;
    let rest = path.file_name()?.to_str()?.strip_suffix(suffix)?;
    format!("{first}{rest}").parse().ok().filter(|_| first.len() == 2)
}
