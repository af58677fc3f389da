//! The last key and record of every node of every workflow, so that a miss can be explained.
//!
//! A node whose parameter changed has a new key, under which nothing is known. What it is to be compared
//! with stands here. The files are hints: losing one makes an explanation poorer and nothing wrong.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::hash_bytes;
use crate::error::{IoContext, StoreError, if_present};
use crate::key::Key;
use crate::store::Store;

/// Longest file name that is spelled out; file systems allow 255 bytes with the ending and some spare.
const LONGEST_NAME: usize = 150;

/// What is remembered of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryEntry {
    /// The node's name in its workflow, for instance `train[3d_fullres,0]`.
    pub node: String,
    /// The key of its last result.
    pub key: Key,
    /// The record that the key was made of.
    pub record: Value,
}

impl Store {
    /// Remembers the last result of a node of a workflow.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Io`].
    pub fn remember(&self, workflow: &str, entry: &HistoryEntry) -> Result<(), StoreError> {
        let staging = self.staging()?;
        let path = self.history_path(workflow, &entry.node);
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).at("create the folder", folder)?;
        let text = serde_json::to_vec(entry).expect("invariant: an entry is made of JSON values and texts");
        // Not flushed: a hint that a loss of power takes is not worth a wait for the disk.
        staging.write(&text)?.place(&path)
    }

    /// The last result of a node of a workflow; `None` if none is known or the file cannot be understood.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be read.
    pub fn recall(&self, workflow: &str, node: &str) -> Result<Option<HistoryEntry>, StoreError> {
        let path = self.history_path(workflow, node);
        let bytes = if_present(fs::read(&path)).at("read", &path)?;
        let entry: Option<HistoryEntry> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(entry.filter(|entry| entry.node == node))
    }

    fn history_path(&self, workflow: &str, node: &str) -> PathBuf {
        self.history_folder().join(file_name(workflow)).join(file_name(node) + ".json")
    }
}

/// A file name for any text: letters, digits and `-_[],=` stay, all else is escaped as `%41`, and a long
/// name ends in a digest instead of its tail.
pub(crate) fn file_name(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'[' | b']' | b',' | b'=' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    if name.is_empty() {
        return "%".to_owned();
    }
    if name.len() > LONGEST_NAME {
        name.truncate(LONGEST_NAME);
        name.push('%');
        name.push_str(&hash_bytes(text.as_bytes()).short());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(node: &str) -> HistoryEntry {
        let record = json!({ "epochs": 250 });
        HistoryEntry { node: node.into(), key: Key::of(&record), record }
    }

    #[test]
    fn the_last_entry_of_a_node_is_recalled() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let later = HistoryEntry { record: json!({ "epochs": 300 }), ..entry("train[3d_fullres,0]") };
        store.remember("hippocampus", &entry("train[3d_fullres,0]")).unwrap();
        store.remember("hippocampus", &later).unwrap();
        assert_eq!(store.recall("hippocampus", "train[3d_fullres,0]").unwrap(), Some(later));
    }

    #[test]
    fn another_workflow_knows_nothing_of_a_node() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.remember("hippocampus", &entry("plan")).unwrap();
        assert_eq!(store.recall("spleen", "plan").unwrap(), None);
    }

    #[test]
    fn a_file_cut_short_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.remember("hippocampus", &entry("plan")).unwrap();
        fs::remove_file(store.history_path("hippocampus", "plan")).unwrap();
        fs::write(store.history_path("hippocampus", "plan"), "{\"node\":").unwrap();
        assert_eq!(store.recall("hippocampus", "plan").unwrap(), None);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        assert_eq!(file_name("../a/.."), "%2e%2e%2fa%2f%2e%2e");
    }

    #[test]
    fn long_names_with_one_beginning_stay_apart() {
        let (a, b) = ("x".repeat(300) + "a", "x".repeat(300) + "b");
        assert_ne!(file_name(&a), file_name(&b));
    }

    #[test]
    fn different_names_have_different_files() {
        arbtest::arbtest(|u| {
            let (a, b): (String, String) = (u.arbitrary()?, u.arbitrary()?);
            assert_eq!(a == b, file_name(&a) == file_name(&b), "{a:?} {b:?}");
            Ok(())
        });
    }
}
