//! The shared store in a run: what the local store has not is looked for there, and what the run makes is put there.
//!
//! A look over the network takes as long as thousands of looks at a disk, so nothing is asked for by itself: while results flow
//! through the graph, what was missed is put aside, and when nothing flows any more, all of it is asked for together. A key
//! is asked for once a run, and none that the local store has. What a run makes is pushed by a thread of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;
use nnflow_cache::{Key, Manifest, Store};
use nnflow_shared::{SharedStore, Unpushed};
use nnflow_stage::PhaseKind;
use petgraph::graph::NodeIndex;

use super::state::{ReadyUnit, State, Touch, UnitId, UnitState};
use super::summary;

/// How many results are pushed together at most.
const MOST_TOGETHER: usize = 256;

/// Something that the local store has not and the shared one was not asked for.
#[derive(Debug)]
pub(super) enum Unasked {
    /// The result of a unit.
    Unit(Box<ReadyUnit>),
    /// The results of all cases of a phase together.
    Cases {
        /// The node.
        node: NodeIndex,
        /// The phase's place in the stage.
        phase: usize,
        /// The key under which they are remembered.
        key: Key,
    },
}

impl Unasked {
    fn key(&self) -> Key {
        match self {
            Self::Unit(unit) => unit.key,
            Self::Cases { key, .. } => *key,
        }
    }
}

impl State<'_> {
    /// Whether the shared store shall be asked for a key: it was not yet.
    pub(super) fn may_be_shared(&self, key: &Key) -> bool {
        self.shared.is_some() && !self.asked.contains(key)
    }

    /// Asks the shared store for all that was put aside; `false` if that was nothing.
    pub(super) fn ask_shared(&mut self) -> bool {
        let asked = std::mem::take(&mut self.unasked);
        let Some(shared) = self.shared.filter(|_| !asked.is_empty()) else { return false };
        // Units that would do the same work have one key.
        let keys: Vec<Key> = asked.iter().map(Unasked::key).filter(|key| self.asked.insert(*key)).collect();
        let found = keys.iter().copied().zip(shared.fetch(self.store, &keys));
        let found: HashMap<Key, Manifest> = found.filter_map(|(key, found)| Some((key, found?))).collect();
        // The cases' own results belong to what remembers them together. Their bytes are here already.
        let cases = found.values().filter_map(summary::unit_keys).flat_map(BTreeMap::into_values);
        let cases: BTreeSet<Key> = cases.filter(|key| self.find(key).is_none()).collect();
        shared.fetch(self.store, &Vec::from_iter(cases));
        self.warnings.extend(shared.take_warnings());
        for asked in asked {
            let answer = found.get(&asked.key());
            self.answer(asked, answer);
        }
        true
    }

    fn answer(&mut self, asked: Unasked, answer: Option<&Manifest>) {
        match (asked, answer) {
            // Something else may have brought the result meanwhile.
            (Unasked::Unit(unit), _) if !self.is_open(&unit.id) => {}
            (Unasked::Unit(unit), Some(manifest)) => self.complete(&unit.id, manifest, true),
            (Unasked::Unit(unit), None) => self.ready.push(*unit),
            (Unasked::Cases { node, phase, .. }, Some(manifest)) if self.take_cases(node, phase, manifest) => {}
            (Unasked::Cases { node, .. }, _) => self.touch(Touch::Node(node)),
        }
    }

    /// The keys of all results that are at hand, also of those that remember the cases of a phase together.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = BTreeSet::new();
        for node in &self.wanted {
            for (phase, state) in self.nodes[node.index()].phases.iter().enumerate() {
                keys.extend(state.units.iter().flat_map(BTreeMap::values).filter_map(|unit| match unit {
                    UnitState::Done { key, .. } => Some(*key),
                    _ => None,
                }));
                let together = self.phase(*node, phase).kind == PhaseKind::PerCase && state.open == 0;
                let summary = together.then(|| self.summary_of(*node, phase)).flatten();
                keys.extend(summary.map(|(key, _)| key).filter(|key| self.store.manifest_path(key).is_file()));
            }
        }
        keys.into_iter().collect()
    }

    /// Whether a unit has not ended.
    pub(super) fn is_open(&self, unit: &UnitId) -> bool {
        let units = self.nodes[unit.node.index()].phases[unit.phase].units.as_ref();
        let unit = units.and_then(|units| units.get(&unit.item));
        matches!(unit, Some(UnitState::Waiting | UnitState::Ready(_)))
    }
}

/// Results that were not put into the shared store.
#[derive(Debug, Default)]
pub(super) struct Unshared {
    keys: Vec<Key>,
    /// Why the first of them was not.
    reason: Option<String>,
}

/// Pushes what is published, until nothing more is.
///
/// What fails is tried once more at the end, since a run may take longer than a network is down. After the run was asked to stop,
/// nothing more is sent.
pub(super) fn push(shared: &SharedStore, store: &Store, published: &Receiver<Key>, cancel: &AtomicBool) -> Unshared {
    let mut unshared = Unshared::default();
    while let Ok(first) = published.recv() {
        let group = std::iter::once(first).chain(published.try_iter().take(MOST_TOGETHER - 1)).collect();
        unshared.push(shared, store, group, cancel);
    }
    if !unshared.keys.is_empty() && !cancel.load(Ordering::Relaxed) {
        let again = std::mem::take(&mut unshared);
        shared.wake();
        unshared.push(shared, store, again.keys, cancel);
    }
    unshared
}

impl Unshared {
    fn push(&mut self, shared: &SharedStore, store: &Store, keys: Vec<Key>, cancel: &AtomicBool) {
        if cancel.load(Ordering::Relaxed) {
            self.keys.extend(keys);
            self.reason.get_or_insert_with(|| "the run was stopped".to_owned());
            return;
        }
        match shared.push(store, &keys) {
            Ok(report) => {
                for Unpushed { key, error } in report.unpushed {
                    self.keys.push(key);
                    self.reason = self.reason.take().or_else(|| error.map(|error| error.to_string()));
                }
            }
            Err(error) => {
                self.keys.extend(keys);
                self.reason.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// A sentence about what was not pushed, if anything was not.
    pub(super) fn warning(self, shared: &SharedStore) -> Option<String> {
        let count = self.keys.len();
        let reason = self.reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let results = if count == 1 { "1 result is".to_owned() } else { format!("{count} results are") };
        (count > 0).then(|| {
            format!(
                "{results} not in the shared store `{}`, only in the local one{reason}; `nnflow cache push` puts them there",
                shared.address()
            )
        })
    }
}
