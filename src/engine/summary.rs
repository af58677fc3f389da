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
