//! Settling: lets what is known flow through the graph until only units remain that must run or that wait for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use nnflow_cache::{Key, Manifest};
use nnflow_stage::PhaseKind;
use petgraph::graph::NodeIndex;

use super::gather::{Gathered, NotReady};
use super::record::KeyRecord;
use super::shared::Unasked;
use super::state::{Port, ReadyUnit, Slot, State, Status, Touch, UnitId, UnitState};
use super::{history, summary};

impl State<'_> {
    /// Lets everything that is known flow through the graph, and returns the units that were found to have to run.
    pub fn settle(&mut self) -> Vec<ReadyUnit> {
        loop {
            while let Some(touch) = self.queue.pop_front() {
                self.queued.remove(&touch);
                match touch {
                    Touch::Node(node) => self.advance(node, None),
                    Touch::Item(node, item) => self.advance(node, Some(&item)),
                }
            }
            if !self.ask_shared() {
                return std::mem::take(&mut self.ready);
            }
        }
    }

    pub(super) fn touch(&mut self, touch: Touch) {
        let node = match &touch {
            Touch::Node(node) | Touch::Item(node, _) => *node,
        };
        if self.wanted.contains(&node) && self.queued.insert(touch.clone()) {
            self.queue.push_back(touch);
        }
    }

    pub(super) fn tell_consumers(&mut self, node: NodeIndex, item: Option<&Arc<str>>) {
        for consumer in self.consumers[node.index()].clone() {
            self.touch(match item {
                Some(item) => Touch::Item(consumer, item.clone()),
                None => Touch::Node(consumer),
            });
        }
    }

    pub(super) fn advance(&mut self, node: NodeIndex, item: Option<&Arc<str>>) {
        if self.nodes[node.index()].status == Status::Waiting {
            self.admit(node);
        }
        if self.nodes[node.index()].status != Status::Active {
            return;
        }
        for phase in 0..self.nodes[node.index()].phases.len() {
            if self.nodes[node.index()].phases[phase].units.is_none() {
                self.expand(node, phase);
            }
            self.try_units(node, phase, item);
        }
        self.conclude(node);
    }

    /// Decides whether a node takes part.
    pub(super) fn admit(&mut self, node: NodeIndex) {
        let status = match self.admission(node) {
            Ok(status) => status,
            Err(waits_for) => {
                self.nodes[node.index()].waits_for = Some(waits_for);
                return;
            }
        };
        let blocked = matches!(status, Status::Blocked(_));
        self.nodes[node.index()].status = status;
        self.nodes[node.index()].waits_for = None;
        if blocked {
            self.lose_all(node);
        }
        // Consumers that gather from this node may have waited to hear whether it takes part.
        self.tell_consumers(node, None);
    }

    /// Finds out which units a phase has.
    pub(super) fn expand(&mut self, node: NodeIndex, phase: usize) {
        let items = match self.items_of(node, phase) {
            Ok(items) => items,
            Err(NotReady::Pending(waits_for)) => {
                self.wait_for(node, waits_for);
                return;
            }
            Err(NotReady::Blocked(by)) => {
                self.nodes[node.index()].status = Status::Blocked(format!("`{by}` before it failed"));
                self.lose_all(node);
                self.tell_consumers(node, None);
                return;
            }
            Err(NotReady::Invalid(report)) => {
                let unit = UnitId { node, phase, item: None };
                self.nodes[node.index()].phases[phase].units = Some(BTreeMap::from([(None, UnitState::Waiting)]));
                self.nodes[node.index()].phases[phase].open = 1;
                self.refuse(&unit, report);
                return;
            }
        };
        let spec = self.phase(node, phase);
        let state = &mut self.nodes[node.index()];
        state.phases[phase].open = items.len();
        for port in spec.makes {
            if let (Some(Port::Items(slots @ None)), PhaseKind::PerCase) = (state.ports.get_mut(port), spec.kind) {
                *slots = Some(items.iter().flatten().map(|item| (item.clone(), Slot::Pending)).collect());
            }
        }
        state.phases[phase].units = Some(items.into_iter().map(|item| (item, UnitState::Waiting)).collect());
        self.tell_consumers(node, None);
    }

    pub(super) fn try_units(&mut self, node: NodeIndex, phase: usize, item: Option<&Arc<str>>) {
        let spec = self.phase(node, phase);
        let per_case = spec.kind == PhaseKind::PerCase;
        let Some(units) = &self.nodes[node.index()].phases[phase].units else { return };
        let is_waiting = |unit: &UnitState| matches!(unit, UnitState::Waiting);
        let waiting: Vec<Option<Arc<str>>> = match item {
            Some(item) if per_case => units
                .get_key_value(&Some(item.clone()))
                .filter(|(_, unit)| is_waiting(unit))
                .map(|(item, _)| item.clone())
                .into_iter()
                .collect(),
            _ => units.iter().filter(|(_, unit)| is_waiting(unit)).map(|(item, _)| item.clone()).collect(),
        };
        if per_case && item.is_none() && waiting.len() > 1 && waiting.len() == units.len() && self.recall(node, phase) {
            return;
        }
        for item in waiting {
            self.try_unit(&UnitId { node, phase, item });
        }
    }

    pub(super) fn try_unit(&mut self, unit: &UnitId) {
        match self.gather(unit) {
            Ok((record, inputs)) => self.look_up(unit, record, inputs),
            Err(NotReady::Pending(waits_for)) => self.wait_for(unit.node, waits_for),
            Err(NotReady::Blocked(_)) => {
                self.lose_ports(unit);
                self.end_unit(unit, UnitState::Blocked);
            }
            Err(NotReady::Invalid(report)) => self.refuse(unit, report),
        }
    }

    /// Looks again for the result of a unit that was to run: the same work may have been done under another name.
    pub fn find_again(&mut self, unit: &ReadyUnit) -> bool {
        if self.forced.contains(&unit.id.node) {
            return false;
        }
        let Some(manifest) = self.find(&unit.key) else { return false };
        self.complete(&unit.id, &manifest, true);
        true
    }

    /// Remembers what a node waits for; that a later phase of it waits for an earlier one tells nobody anything.
    pub(super) fn wait_for(&mut self, node: NodeIndex, name: String) {
        if self.graph.node(node).name != name {
            self.nodes[node.index()].waits_for = Some(name);
        }
    }

    pub(super) fn look_up(&mut self, unit: &UnitId, record: KeyRecord, inputs: BTreeMap<String, Vec<Gathered>>) {
        let key = Key::of(&record.to_value());
        let forced = self.forced.contains(&unit.node);
        let found = if forced { None } else { self.find(&key) };
        if let Some(manifest) = found {
            self.complete(unit, &manifest, true);
            return;
        }
        let reason = if forced { "it was asked for with --force".to_owned() } else { self.reason(unit, &key, &record) };
        self.set_unit(unit, UnitState::Ready(reason.clone()));
        let unit = ReadyUnit { id: unit.clone(), key, record, inputs, reason };
        if !forced && self.may_be_shared(&key) {
            self.unasked.push(Unasked::Unit(Box::new(unit)));
        } else {
            self.ready.push(unit);
        }
    }

    /// Why a unit must run, from the record of the last time that the same unit of this workflow ran.
    pub(super) fn reason(&mut self, unit: &UnitId, key: &Key, record: &KeyRecord) -> String {
        let name = &self.graph.node(unit.node).name;
        let Some(last) = self.history.last(self.store, name, unit.item.as_deref(), unit.phase) else {
            return "it has not run before".to_owned();
        };
        if last == *key {
            return "its result is no longer in the store".to_owned();
        }
        let Some(old) = history::record_of(self.store, &last) else {
            return "it changed, and what it was before is no longer in the store".to_owned();
        };
        serde_json::from_value::<KeyRecord>(old)
            .ok()
            .and_then(|old| record.difference(&old))
            .unwrap_or_else(|| "it changed, though no difference was found in what it reads".to_owned())
    }

    /// Takes the results of all cases of a phase at once, where they are remembered together.
    pub(super) fn recall(&mut self, node: NodeIndex, phase: usize) -> bool {
        if self.forced.contains(&node) {
            return false;
        }
        let Some((key, value)) = self.summary_of(node, phase) else { return false };
        self.nodes[node.index()].phases[phase].summary_key = Some((key, value));
        if let Some(manifest) = self.find(&key) {
            return self.take_cases(node, phase, &manifest);
        }
        if !self.may_be_shared(&key) {
            return false;
        }
        self.unasked.push(Unasked::Cases { node, phase, key });
        true
    }

    /// Takes the results of all cases that have not ended from what remembers them together; `false` if it does not fit.
    pub(super) fn take_cases(&mut self, node: NodeIndex, phase: usize, manifest: &Manifest) -> bool {
        let Some(keys) = summary::unit_keys(manifest) else { return false };
        let units = self.nodes[node.index()].phases[phase].units.as_ref();
        let expected: Vec<Arc<str>> = units.into_iter().flat_map(|units| units.keys().flatten().cloned()).collect();
        if expected.len() != keys.len() || !expected.iter().all(|item| keys.contains_key(&**item)) {
            return false;
        }
        for item in expected {
            let (key, outputs) = (keys[&*item], summary::unit_outputs(manifest, &item));
            let unit = UnitId { node, phase, item: Some(item) };
            if self.is_open(&unit) {
                self.take(&unit, key, &outputs, manifest.stored, true);
            }
        }
        true
    }

    /// What the store holds under a key; a store that cannot be read is told of and taken for empty.
    pub(super) fn find(&mut self, key: &Key) -> Option<Manifest> {
        match self.store.lookup(key) {
            Ok(lookup) => lookup.hit(),
            Err(error) => {
                self.warnings.push(error.to_string());
                None
            }
        }
    }
}
