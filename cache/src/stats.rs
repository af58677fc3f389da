//! How much of what lies in a store.

use crate::error::StoreError;
use crate::store::Store;
use crate::walk::{entries, leaves, summarize_tree};

/// Counts and sizes; sizes are of file contents in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Number of objects.
    pub objects: u64,
    /// Bytes of all objects.
    pub object_bytes: u64,
    /// Number of manifests.
    pub manifests: u64,
    /// Bytes of all manifests.
    pub manifest_bytes: u64,
    /// Number of keys with work under way or abandoned.
    pub work: u64,
    /// Bytes of all work folders.
    pub work_bytes: u64,
    /// Bytes of the runs' folders.
    pub run_bytes: u64,
    /// Bytes of staged files.
    pub staged_bytes: u64,
    /// Number of leases, living or not.
    pub leases: u64,
}

impl Store {
    /// Counts what lies in the store. Reads no contents.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a folder cannot be listed.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let bytes = |path| summarize_tree(path).map(|summary| summary.map_or(0, |summary| summary.bytes));
        let objects = leaves(&self.objects_folder(), "")?;
        let manifests = leaves(&self.manifests_folder(), ".json")?;
        Ok(StoreStats {
            objects: objects.len() as u64,
            object_bytes: objects.iter().map(|leaf| leaf.bytes).sum(),
            manifests: manifests.len() as u64,
            manifest_bytes: manifests.iter().map(|leaf| leaf.bytes).sum(),
            work: entries(&self.work_folder())?.len() as u64,
            work_bytes: bytes(&self.work_folder())?,
            run_bytes: bytes(&self.runs_folder())?,
            staged_bytes: bytes(&self.tmp_folder())?,
            leases: entries(&self.leases_folder())?.len() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_objects_are_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for text in ["abc", "abc", "defgh"] {
            store.put_bytes(text.as_bytes()).unwrap();
        }
        let stats = store.stats().unwrap();
        assert_eq!((stats.objects, stats.object_bytes), (2, 8));
    }
}
