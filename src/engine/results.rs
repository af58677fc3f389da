//! Taking results: what a unit has made fills the ports of its node, what failed leaves them empty for good.

use std::collections::BTreeMap;
use std::sync::Arc;

use nnflow_cache::{Artifact, Key, Manifest, PortValue};
use nnflow_stage::{ErrorReport, PhaseKind};
use petgraph::graph::NodeIndex;

use super::state::{Held, Port, Slot, State, Status, Touch, UnitId, UnitState};
use super::summary;

impl State<'_> {
    /// Takes the result of a unit that has run, or was found.
    pub fn complete(&mut self, unit: &UnitId, manifest: &Manifest, hit: bool) {
        self.take(unit, manifest.key(), &manifest.outputs, manifest.stored, hit);
    }

    pub(super) fn take(
        &mut self,
        unit: &UnitId,
        key: Key,
        outputs: &BTreeMap<String, PortValue>,
        stored: bool,
        hit: bool,
    ) {
        if !stored {
            self.remember_transient(unit, outputs);
        }
        self.fill_ports(unit, outputs);
        self.end_unit(unit, UnitState::Done { key, hit });
        self.history.remember(&self.graph.node(unit.node).name, unit.item.as_deref(), unit.phase, key);
    }

    /// Takes the failure of a unit.
    pub fn fail(&mut self, unit: &UnitId, report: ErrorReport) {
        self.lose_ports(unit);
        self.end_unit(unit, UnitState::Failed(report));
    }

    pub(super) fn refuse(&mut self, unit: &UnitId, report: ErrorReport) {
        self.refused.push((unit.clone(), report.clone()));
        self.fail(unit, report);
    }

    pub(super) fn remember_transient(&mut self, unit: &UnitId, outputs: &BTreeMap<String, PortValue>) {
        let artifacts = outputs.values().flat_map(PortValue::artifacts);
        for file in artifacts.flat_map(|(_, artifact)| artifact.files()) {
            self.transient.insert(file.digest, unit.clone());
        }
    }

    pub(super) fn fill_ports(&mut self, unit: &UnitId, outputs: &BTreeMap<String, PortValue>) {
        let spec = self.phase(unit.node, unit.phase);
        for name in spec.makes {
            let made = outputs.get(*name);
            let Some(port) = self.nodes[unit.node.index()].ports.get_mut(name) else { continue };
            match (port, &unit.item, made) {
                (Port::Items(Some(slots)), Some(item), Some(PortValue::One(artifact))) => {
                    slots.insert(item.clone(), Slot::Made(Held::new(artifact.clone())));
                }
                (Port::Items(Some(slots)), Some(item), _) => {
                    slots.insert(item.clone(), Slot::Absent);
                }
                (Port::Items(slots), None, Some(PortValue::Items(items))) => {
                    let held = |artifact: &Artifact| Slot::Made(Held::new(artifact.clone()));
                    *slots =
                        Some(items.iter().map(|(item, artifact)| (Arc::from(item.as_str()), held(artifact))).collect());
                }
                (Port::Items(slots), None, _) => *slots = Some(BTreeMap::new()),
                (Port::One(slot), _, Some(PortValue::One(artifact))) => {
                    *slot = Slot::Made(Held::new(artifact.clone()));
                }
                (Port::One(slot), _, _) => *slot = Slot::Absent,
                (Port::Items(None), Some(_), _) => {}
            }
        }
    }

    pub(super) fn lose_ports(&mut self, unit: &UnitId) {
        let spec = self.phase(unit.node, unit.phase);
        for name in spec.makes {
            match (self.nodes[unit.node.index()].ports.get_mut(name), &unit.item) {
                (Some(Port::Items(Some(slots))), Some(item)) => {
                    slots.insert(item.clone(), Slot::Lost);
                }
                (Some(port), _) => *port = Port::One(Slot::Lost),
                (None, _) => {}
            }
        }
    }

    pub(super) fn lose_all(&mut self, node: NodeIndex) {
        for port in self.nodes[node.index()].ports.values_mut() {
            *port = Port::One(Slot::Lost);
        }
    }

    pub(super) fn end_unit(&mut self, unit: &UnitId, end: UnitState) {
        self.set_unit(unit, end);
        let phase = &mut self.nodes[unit.node.index()].phases[unit.phase];
        phase.open = phase.open.saturating_sub(1);
        let finished = phase.open == 0;
        self.touch(Touch::Node(unit.node));
        self.tell_consumers(unit.node, if finished { None } else { unit.item.as_ref() });
    }

    pub(super) fn set_unit(&mut self, unit: &UnitId, to: UnitState) {
        if let Some(units) = &mut self.nodes[unit.node.index()].phases[unit.phase].units {
            units.insert(unit.item.clone(), to);
        }
    }

    /// Ends a node all of whose units have ended.
    pub(super) fn conclude(&mut self, node: NodeIndex) {
        let state = &mut self.nodes[node.index()];
        if state.status != Status::Active || !state.phases.iter().all(|phase| phase.units.is_some() && phase.open == 0)
        {
            return;
        }
        let units = || state.phases.iter().filter_map(|phase| phase.units.as_ref()).flat_map(BTreeMap::values);
        state.status = if units().any(|unit| matches!(unit, UnitState::Failed(_))) {
            Status::Failed
        } else if units().any(|unit| matches!(unit, UnitState::Blocked)) {
            Status::Blocked("a case of a node before it failed".to_owned())
        } else {
            Status::Done
        };
        let done = state.status == Status::Done;
        if done {
            self.summarize(node);
        }
        self.tell_consumers(node, None);
    }

    /// Remembers the results of all cases together, so that the next run needs one look instead of one a case.
    pub(super) fn summarize(&mut self, node: NodeIndex) {
        for phase in 0..self.nodes[node.index()].phases.len() {
            if self.phase(node, phase).kind != PhaseKind::PerCase {
                continue;
            }
            let Some((key, value)) =
                self.nodes[node.index()].phases[phase].summary_key.take().or_else(|| self.summary_of(node, phase))
            else {
                continue;
            };
            if self.find(&key).is_some() {
                continue;
            }
            let manifest = summary::build(self, node, phase, value);
            match self.store.publish(manifest) {
                Ok(_) => self.unshared.push(key),
                // The summary only saves time; the run is right without it.
                Err(error) => self.warnings.push(format!(
                    "the cases of `{}` could not be remembered together: {error}",
                    self.graph.node(node).name
                )),
            }
        }
    }

    /// Puts a unit back to where it was before it ran.
    pub fn wait_again(&mut self, unit: &UnitId) {
        self.set_unit(unit, UnitState::Waiting);
        self.touch(Touch::Node(unit.node));
    }
}
