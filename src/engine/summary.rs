//! The results of all cases of a phase, remembered together.
//!
//! A per-case phase of a thousand cases has a thousand manifests. Beside them stands one summary, whose key is made of
//! the digests of the phase's inputs as a whole, so that a run with nothing to do looks once instead of a thousand times.
//! It holds nothing that the cases' own manifests do not, and losing it costs only time.

use std::collections::BTreeMap;

use nnflow_cache::{Key, Manifest, PortValue};
use petgraph::graph::NodeIndex;
use serde_json::{Value, json};

use super::state::{Port, Slot, State, UnitState};

/// The keys of the cases that a summary holds.
pub(crate) fn unit_keys(summary: &Manifest) -> Option<BTreeMap<String, Key>> {
    serde_json::from_value(summary.stats.get("keys")?.clone()).ok()
}

/// What one case made.
pub(crate) fn unit_outputs(summary: &Manifest, item: &str) -> BTreeMap<String, PortValue> {
    let outputs = summary.outputs.iter().filter_map(|(port, value)| match value {
        PortValue::Items(items) => Some((port.clone(), PortValue::One(items.get(item)?.clone()))),
        PortValue::One(_) => None,
    });
    outputs.collect()
}

/// The summary of a phase all of whose cases have ended well.
pub(crate) fn build(state: &State<'_>, node: NodeIndex, phase: usize, record: Value) -> Manifest {
    let node_state = &state.nodes[node.index()];
    let units = node_state.phases[phase].units.as_ref();
    let keys: BTreeMap<String, Key> = units
        .into_iter()
        .flatten()
        .filter_map(|(item, unit)| match (item, unit) {
            (Some(item), UnitState::Done { key, .. }) => Some((item.to_string(), *key)),
            _ => None,
        })
        .collect();
    let outputs = state.phase(node, phase).makes.iter().filter_map(|port| {
        let Port::Items(Some(slots)) = node_state.ports.get(port)? else { return None };
        let items = slots.iter().filter_map(|(item, slot)| match slot {
            Slot::Made(held) => Some((item.to_string(), held.artifact.clone())),
            _ => None,
        });
        Some(((*port).to_owned(), PortValue::Items(items.collect())))
    });
    let mut manifest = Manifest::new(record, outputs.collect());
    manifest.stored = state.graph.node(node).store;
    manifest.stats = json!({ "keys": keys });
    manifest
}

#[cfg(test)]
mod tests {
    use nnflow_cache::{Artifact, FileEntry, hash_bytes};

    use super::*;

    fn artifact(text: &str) -> Artifact {
        let digest = hash_bytes(text.as_bytes());
        let file = FileEntry { name: "labels.nii.gz".to_owned(), digest, bytes: text.len() as u64, incidental: false };
        Artifact::new(vec![file]).expect("a plain name")
    }

    fn summary() -> Manifest {
        let items = BTreeMap::from([("a".to_owned(), artifact("of a")), ("b".to_owned(), artifact("of b"))]);
        let outputs = BTreeMap::from([
            ("labels".to_owned(), PortValue::Items(items)),
            ("probabilities".to_owned(), PortValue::Items(BTreeMap::new())),
        ]);
        let mut summary = Manifest::new(json!({}), outputs);
        summary.stats = json!({ "keys": { "a": Key::of(&json!(1)) } });
        summary
    }

    #[test]
    fn a_case_gets_what_it_made_and_no_port_that_it_left_out() {
        let expected = BTreeMap::from([("labels".to_owned(), PortValue::One(artifact("of b")))]);
        assert_eq!(unit_outputs(&summary(), "b"), expected);
    }

    #[test]
    fn the_keys_of_the_cases_are_read_back() {
        assert_eq!(unit_keys(&summary()), Some(BTreeMap::from([("a".to_owned(), Key::of(&json!(1)))])));
    }

    #[test]
    fn a_manifest_of_one_unit_is_no_summary() {
        assert_eq!(unit_keys(&Manifest::new(json!({}), BTreeMap::new())), None);
    }
}
