//! How far a graph has come: which results are at hand, what is ready to run, and what everything else waits for.
//!
//! The state is settled before anything runs, and again after each unit that ends: cached results flow through the graph
//! until only units remain that must run or that wait for one that must. A dry run is nothing but the first settling.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use nnflow_cache::{Artifact, Digest, Key, Manifest, PortValue, Store};
use nnflow_stage::{ErrorReport, Phase, PhaseKind, Stage};
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;
use serde_json::Value;

use super::gather::Gathered;
use super::history::History;
use super::record::KeyRecord;
use super::sources::Sources;
use crate::workflow::Graph;

/// One unit of work: a phase of a node, as a whole or for one case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId {
    /// The node.
    pub node: NodeIndex,
    /// The phase's place in the stage.
    pub phase: usize,
    /// The case, in a per-case phase.
    pub item: Option<Arc<str>>,
}

/// An artifact that is at hand.
#[derive(Debug, PartialEq)]
pub struct Held {
    /// Its files.
    pub artifact: Artifact,
    /// The digest of what is not incidental in it.
    pub digest: Digest,
}

impl Held {
    /// An artifact with its digest.
    pub fn new(artifact: Artifact) -> Arc<Self> {
        let digest = artifact.digest();
        Arc::new(Self { artifact, digest })
    }
}

/// What a port has for one case, or as a whole.
#[derive(Debug, Clone)]
pub enum Slot {
    /// Not yet made.
    Pending,
    /// At hand.
    Made(Arc<Held>),
    /// An optional output that the stage left out.
    Absent,
    /// Never to come, because the unit that makes it failed or cannot run.
    Lost,
}

/// What a port has.
#[derive(Debug)]
pub enum Port {
    /// One artifact.
    One(Slot),
    /// One artifact a case; `None` until it is known which cases there are.
    Items(Option<BTreeMap<Arc<str>, Slot>>),
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// It is not yet known whether it will run at all.
    Waiting,
    /// It takes part; some of its units may have ended.
    Active,
    /// Everything that it makes is at hand.
    Done,
    /// Its condition is false, or nothing arrives at an input that it needs.
    Skipped(String),
    /// At least one of its units failed, and the others have ended.
    Failed,
    /// A node before it failed.
    Blocked(String),
}

impl Status {
    /// Whether nothing more will come of the node.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Active)
    }
}

/// How a unit stands.
#[derive(Debug)]
pub enum UnitState {
    /// Something that it reads is not at hand.
    Waiting,
    /// It must run, for the reason given.
    Ready(String),
    /// Its result is at hand; `hit` where it was found and not made.
    Done {
        /// Its key.
        key: Key,
        /// Whether it was found.
        hit: bool,
    },
    /// It failed.
    Failed(ErrorReport),
    /// A unit before it failed.
    Blocked,
}

/// A phase of a node.
#[derive(Debug, Default)]
pub struct PhaseState {
    /// Its units, once it is known which there are.
    pub units: Option<BTreeMap<Option<Arc<str>>, UnitState>>,
    /// How many of them have not ended.
    pub open: usize,
    /// The key under which the results of all its cases are remembered together.
    pub summary_key: Option<(Key, Value)>,
}

/// A node.
pub struct NodeState {
    /// How it stands.
    pub status: Status,
    /// Its phases.
    pub phases: Vec<PhaseState>,
    /// What its output ports have.
    pub ports: BTreeMap<&'static str, Port>,
    /// What it was last seen waiting for.
    pub waits_for: Option<String>,
}

/// A unit that must run, with all that was gathered for it.
#[derive(Debug)]
pub struct ReadyUnit {
    /// The unit.
    pub id: UnitId,
    /// Its key.
    pub key: Key,
    /// The pre-image of its key.
    pub record: KeyRecord,
    /// What arrived at its ports.
    pub inputs: BTreeMap<String, Vec<Gathered>>,
    /// Why it must run.
    pub reason: String,
}

/// What a state begins with, besides the graph and the store.
pub struct Start {
    /// The nodes that are asked for.
    pub wanted: BTreeSet<NodeIndex>,
    /// The nodes that must run whether or not their results are at hand.
    pub forced: Forced,
    /// The stage of each node.
    pub stages: Vec<&'static dyn Stage>,
    /// The seed of the workflow.
    pub seed: u64,
    /// What the workflow's sources hold.
    pub sources: Sources,
    /// The keys of the last time.
    pub history: History,
}

/// Which nodes must run whether or not their results are at hand.
pub type Forced = BTreeSet<NodeIndex>;

/// Something that has happened to a node's outputs, of which its consumers must hear.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Touch {
    /// Anything may have changed.
    Node(NodeIndex),
    /// Only this case has.
    Item(NodeIndex, Arc<str>),
}

/// The state of a graph.
pub struct State<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// The nodes that are asked for; others are never looked at.
    pub wanted: BTreeSet<NodeIndex>,
    /// The nodes, by their index.
    pub nodes: Vec<NodeState>,
    /// The stage of each node.
    pub stages: Vec<&'static dyn Stage>,
    /// The seed of the workflow.
    pub seed: u64,
    /// What the workflow's sources hold.
    pub sources: Sources,
    /// The store.
    pub store: &'g Store,
    /// Where bytes lie that are not in the store: source files, and results on their way to the next stage.
    pub locations: HashMap<Digest, PathBuf>,
    /// Which unit can make bytes again that were not kept.
    pub transient: HashMap<Digest, UnitId>,
    /// Documents that have been read, by their digest.
    pub documents: RefCell<HashMap<Digest, Arc<Value>>>,
    /// What went wrong without making a result wrong, until somebody tells it.
    pub warnings: Vec<String>,
    /// Units that failed before they could run, since their stage cannot use what they read; until somebody tells it.
    pub refused: Vec<(UnitId, ErrorReport)>,
    forced: Forced,
    history: History,
    queue: VecDeque<Touch>,
    queued: BTreeSet<Touch>,
    ready: Vec<ReadyUnit>,
    consumers: Vec<Vec<NodeIndex>>,
    ranks: Vec<i64>,
}

impl<'g> State<'g> {
    /// The state before anything is known.
    pub fn new(graph: &'g Graph, store: &'g Store, start: Start) -> Self {
        let Start { wanted, forced, stages, seed, sources, history } = start;
        let nodes = graph.inner().node_weights().map(NodeState::new).collect();
        let locations = sources.locations();
        let mut consumers = vec![Vec::new(); graph.len()];
        for edge in graph.inner().edge_references() {
            if !consumers[edge.source().index()].contains(&edge.target()) {
                consumers[edge.source().index()].push(edge.target());
            }
        }
        let ranks = ranks(graph);
        let mut state = Self {
            graph,
            wanted,
            nodes,
            stages,
            seed,
            sources,
            store,
            locations,
            transient: HashMap::new(),
            documents: RefCell::default(),
            warnings: Vec::new(),
            refused: Vec::new(),
            forced,
            history,
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            ready: Vec::new(),
            consumers,
            ranks,
        };
        for index in graph.order() {
            state.touch(Touch::Node(*index));
        }
        state
    }

    /// Lets everything that is known flow through the graph, and returns the units that were found to have to run.
    pub fn settle(&mut self) -> Vec<ReadyUnit> {
        while let Some(touch) = self.queue.pop_front() {
            self.queued.remove(&touch);
            match touch {
                Touch::Node(node) => self.advance(node, None),
                Touch::Item(node, item) => self.advance(node, Some(&item)),
            }
        }
        std::mem::take(&mut self.ready)
    }

    /// Takes the result of a unit that has run, or was found.
    pub fn complete(&mut self, unit: &UnitId, manifest: &Manifest, hit: bool) {
        self.take(unit, manifest.key(), &manifest.outputs, manifest.stored, hit);
    }

    fn take(&mut self, unit: &UnitId, key: Key, outputs: &BTreeMap<String, PortValue>, stored: bool, hit: bool) {
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

    fn refuse(&mut self, unit: &UnitId, report: ErrorReport) {
        self.refused.push((unit.clone(), report.clone()));
        self.fail(unit, report);
    }

    /// The keys of the last time, with those of this run so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    fn touch(&mut self, touch: Touch) {
        let node = match &touch {
            Touch::Node(node) | Touch::Item(node, _) => *node,
        };
        if self.wanted.contains(&node) && self.queued.insert(touch.clone()) {
            self.queue.push_back(touch);
        }
    }

    fn tell_consumers(&mut self, node: NodeIndex, item: Option<&Arc<str>>) {
        for consumer in self.consumers[node.index()].clone() {
            self.touch(match item {
                Some(item) => Touch::Item(consumer, item.clone()),
                None => Touch::Node(consumer),
            });
        }
    }

    fn advance(&mut self, node: NodeIndex, item: Option<&Arc<str>>) {
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
    fn admit(&mut self, node: NodeIndex) {
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
    fn expand(&mut self, node: NodeIndex, phase: usize) {
        let items = match self.items_of(node, phase) {
            Ok(items) => items,
            Err(super::gather::NotReady::Pending(waits_for)) => {
                self.wait_for(node, waits_for);
                return;
            }
            Err(super::gather::NotReady::Blocked(by)) => {
                self.nodes[node.index()].status = Status::Blocked(format!("`{by}` before it failed"));
                self.lose_all(node);
                self.tell_consumers(node, None);
                return;
            }
            Err(super::gather::NotReady::Invalid(report)) => {
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

    fn try_units(&mut self, node: NodeIndex, phase: usize, item: Option<&Arc<str>>) {
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

    fn try_unit(&mut self, unit: &UnitId) {
        match self.gather(unit) {
            Ok((record, inputs)) => self.look_up(unit, record, inputs),
            Err(super::gather::NotReady::Pending(waits_for)) => self.wait_for(unit.node, waits_for),
            Err(super::gather::NotReady::Blocked(_)) => {
                self.lose_ports(unit);
                self.end_unit(unit, UnitState::Blocked);
            }
            Err(super::gather::NotReady::Invalid(report)) => self.refuse(unit, report),
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
    fn wait_for(&mut self, node: NodeIndex, name: String) {
        if self.graph.node(node).name != name {
            self.nodes[node.index()].waits_for = Some(name);
        }
    }

    fn look_up(&mut self, unit: &UnitId, record: KeyRecord, inputs: BTreeMap<String, Vec<Gathered>>) {
        let key = Key::of(&record.to_value());
        let forced = self.forced.contains(&unit.node);
        let found = if forced { None } else { self.find(&key) };
        if let Some(manifest) = found {
            self.complete(unit, &manifest, true);
            return;
        }
        let reason = if forced { "it was asked for with --force".to_owned() } else { self.reason(unit, &key, &record) };
        self.set_unit(unit, UnitState::Ready(reason.clone()));
        self.ready.push(ReadyUnit { id: unit.clone(), key, record, inputs, reason });
    }

    /// Why a unit must run, from the record of the last time that the same unit of this workflow ran.
    fn reason(&mut self, unit: &UnitId, key: &Key, record: &KeyRecord) -> String {
        let name = &self.graph.node(unit.node).name;
        let Some(last) = self.history.last(self.store, name, unit.item.as_deref(), unit.phase) else {
            return "it has not run before".to_owned();
        };
        if last == *key {
            return "its result is no longer in the store".to_owned();
        }
        let Some(old) = super::history::record_of(self.store, &last) else {
            return "it changed, and what it was before is no longer in the store".to_owned();
        };
        serde_json::from_value::<KeyRecord>(old)
            .ok()
            .and_then(|old| record.difference(&old))
            .unwrap_or_else(|| "it changed, though no difference was found in what it reads".to_owned())
    }

    /// Takes the results of all cases of a phase at once, where they are remembered together.
    fn recall(&mut self, node: NodeIndex, phase: usize) -> bool {
        if self.forced.contains(&node) {
            return false;
        }
        let Some((key, value)) = self.summary_of(node, phase) else { return false };
        self.nodes[node.index()].phases[phase].summary_key = Some((key, value));
        let Some(manifest) = self.find(&key) else { return false };
        let Some(keys) = super::summary::unit_keys(&manifest) else { return false };
        let units = self.nodes[node.index()].phases[phase].units.as_ref();
        let expected: Vec<Arc<str>> = units.into_iter().flat_map(|units| units.keys().flatten().cloned()).collect();
        if expected.len() != keys.len() || !expected.iter().all(|item| keys.contains_key(&**item)) {
            return false;
        }
        for item in expected {
            let (key, outputs) = (keys[&*item], super::summary::unit_outputs(&manifest, &item));
            self.take(&UnitId { node, phase, item: Some(item) }, key, &outputs, manifest.stored, true);
        }
        true
    }

    /// What the store holds under a key; a store that cannot be read is told of and taken for empty.
    fn find(&mut self, key: &Key) -> Option<Manifest> {
        match self.store.lookup(key) {
            Ok(lookup) => lookup.hit(),
            Err(error) => {
                self.warnings.push(error.to_string());
                None
            }
        }
    }

    fn remember_transient(&mut self, unit: &UnitId, outputs: &BTreeMap<String, PortValue>) {
        let artifacts = outputs.values().flat_map(PortValue::artifacts);
        for file in artifacts.flat_map(|(_, artifact)| artifact.files()) {
            self.transient.insert(file.digest, unit.clone());
        }
    }

    fn fill_ports(&mut self, unit: &UnitId, outputs: &BTreeMap<String, PortValue>) {
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

    fn lose_ports(&mut self, unit: &UnitId) {
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

    fn lose_all(&mut self, node: NodeIndex) {
        for port in self.nodes[node.index()].ports.values_mut() {
            *port = Port::One(Slot::Lost);
        }
    }

    fn end_unit(&mut self, unit: &UnitId, end: UnitState) {
        self.set_unit(unit, end);
        let phase = &mut self.nodes[unit.node.index()].phases[unit.phase];
        phase.open = phase.open.saturating_sub(1);
        let finished = phase.open == 0;
        self.touch(Touch::Node(unit.node));
        self.tell_consumers(unit.node, if finished { None } else { unit.item.as_ref() });
    }

    fn set_unit(&mut self, unit: &UnitId, to: UnitState) {
        if let Some(units) = &mut self.nodes[unit.node.index()].phases[unit.phase].units {
            units.insert(unit.item.clone(), to);
        }
    }

    /// Ends a node all of whose units have ended.
    fn conclude(&mut self, node: NodeIndex) {
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
    fn summarize(&mut self, node: NodeIndex) {
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
            let manifest = super::summary::build(self, node, phase, value);
            if let Err(error) = self.store.publish(manifest) {
                // The summary only saves time; the run is right without it.
                self.warnings.push(format!(
                    "the cases of `{}` could not be remembered together: {error}",
                    self.graph.node(node).name
                ));
            }
        }
    }

    /// The place of a node's stage in the order of the graph; later ones are preferred, so that a case goes through to the
    /// end before the next one begins and little is kept on the way.
    #[must_use]
    pub fn rank(&self, node: NodeIndex) -> i64 {
        self.ranks[node.index()]
    }

    /// The nodes that read what a node makes and are asked for.
    #[must_use]
    pub fn consumers_of(&self, node: NodeIndex) -> BTreeSet<NodeIndex> {
        self.consumers[node.index()].iter().copied().filter(|consumer| self.wanted.contains(consumer)).collect()
    }

    /// Puts a unit back to where it was before it ran.
    pub fn wait_again(&mut self, unit: &UnitId) {
        self.set_unit(unit, UnitState::Waiting);
        self.touch(Touch::Node(unit.node));
    }

    /// The declaration of a phase.
    pub fn phase(&self, node: NodeIndex, phase: usize) -> &'static Phase {
        &self.stages[node.index()].spec().phases[phase]
    }

    /// Who makes what arrives at an input port of a node, or at an output port that a later phase of it reads.
    pub(super) fn origins(&self, node: NodeIndex, port: &str) -> Vec<super::gather::Origin> {
        let graph_node = self.graph.node(node);
        let spec = self.stages[node.index()].spec();
        if let (None, Some(own)) = (spec.input(port), spec.output(port)) {
            return vec![super::gather::Origin::own(node, own)];
        }
        let connected = graph_node.inputs.iter().filter(|input| input.port.name == port);
        connected
            .flat_map(|input| &input.sources)
            .map(|source| super::gather::Origin {
                producer: source.producer.clone(),
                port: source.port,
                axes: source.axes.clone(),
            })
            .collect()
    }
}

/// Nodes of one stage have the same rank, so that among them the first one goes first.
fn ranks(graph: &Graph) -> Vec<i64> {
    let mut stages: HashMap<&str, i64> = HashMap::new();
    let mut ranks = vec![0; graph.len()];
    for index in graph.order() {
        let next = i64::try_from(stages.len()).unwrap_or(i64::MAX);
        ranks[index.index()] = *stages.entry(&graph.node(*index).stage).or_insert(next);
    }
    ranks
}
