//! The keys under which each unit of a workflow was last found or made: what a miss is explained against.
//!
//! They lie in the store, one entry a node, and are read only when something has to run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use nnflow_cache::{HistoryEntry, Key, Manifest, Store, StoreError};
use serde_json::{Value, json};

/// The last keys of one node's units, by phase and case.
type Units = BTreeMap<String, Key>;

/// The last keys of a workflow's units.
#[derive(Debug, Clone, Default)]
pub struct History {
    workflow: String,
    before: HashMap<String, Units>,
    now: HashMap<String, Units>,
}

impl History {
    /// The history of the workflow of this name; nothing is read yet.
    #[must_use]
    pub fn of(workflow: &str) -> Self {
        Self { workflow: workflow.to_owned(), ..Self::default() }
    }

    /// The key of a unit the last time.
    pub fn last(&mut self, store: &Store, node: &str, item: Option<&str>, phase: usize) -> Option<Key> {
        let workflow = &self.workflow;
        let before = self.before.entry(node.to_owned()).or_insert_with(|| read(store, workflow, node));
        before.get(&unit(item, phase)).copied()
    }

    /// Remembers the key of a unit.
    pub fn remember(&mut self, node: &str, item: Option<&str>, phase: usize, key: Key) {
        self.now.entry(node.to_owned()).or_default().insert(unit(item, phase), key);
    }

    /// Writes what has changed of the given nodes.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn save(&self, store: &Store, nodes: &BTreeSet<String>) -> Result<(), StoreError> {
        for (node, units) in self.now.iter().filter(|(node, _)| nodes.contains(*node)) {
            let mut all = read(store, &self.workflow, node);
            all.extend(units.iter().map(|(unit, key)| (unit.clone(), *key)));
            let record = json!(all);
            store.remember(&self.workflow, &HistoryEntry { node: node.clone(), key: Key::of(&record), record })?;
        }
        Ok(())
    }
}

/// The pre-image of a key whose manifest is still there, even if its bytes are not.
#[must_use]
pub fn record_of(store: &Store, key: &Key) -> Option<Value> {
    let bytes = fs_err::read(store.manifest_path(key)).ok()?;
    Some(Manifest::from_bytes(&bytes).ok()?.record().clone())
}

/// What cannot be read is not known; an explanation is poorer for it and nothing else.
fn read(store: &Store, workflow: &str, node: &str) -> Units {
    let entry = store.recall(workflow, node).ok().flatten();
    entry.and_then(|entry| serde_json::from_value(entry.record).ok()).unwrap_or_default()
}

fn unit(item: Option<&str>, phase: usize) -> String {
    item.map_or_else(|| phase.to_string(), |item| format!("{phase}/{item}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(of: &str) -> Key {
        Key::of(&json!(of))
    }

    /// Remembers a key for one unit of `split` and one case of `crop`, and saves `split` only.
    fn saved() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let store = Store::open(folder.path().join("store")).expect("a store can be made");
        let mut history = History::of("tiny");
        history.remember("split", None, 0, key("split"));
        history.remember("crop", Some("case"), 0, key("crop"));
        history.save(&store, &BTreeSet::from(["split".to_owned()])).expect("the history can be saved");
        (folder, store)
    }

    #[test]
    fn the_last_key_is_known_to_the_next_run() {
        let (_folder, store) = saved();
        assert_eq!(History::of("tiny").last(&store, "split", None, 0), Some(key("split")));
    }

    #[test]
    fn a_node_that_is_not_saved_is_not_known() {
        let (_folder, store) = saved();
        assert_eq!(History::of("tiny").last(&store, "crop", Some("case"), 0), None);
    }

    #[test]
    fn another_workflow_has_a_history_of_its_own() {
        let (_folder, store) = saved();
        assert_eq!(History::of("other").last(&store, "split", None, 0), None);
    }

    #[test]
    fn what_is_saved_adds_to_what_was_saved_before() {
        let (_folder, store) = saved();
        let mut history = History::of("tiny");
        history.remember("split", None, 1, key("second phase"));
        history.save(&store, &BTreeSet::from(["split".to_owned()])).expect("the history can be saved");
        assert_eq!(History::of("tiny").last(&store, "split", None, 0), Some(key("split")));
    }
}
