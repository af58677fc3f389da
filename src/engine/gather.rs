//! Gathers what a unit reads: the part of the state that decides what enters a key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nnflow_cache::{Digest, Key, StoreError, derive_digest, hash_bytes};
use nnflow_stage::{Axes, ErrorKind, ErrorReport, InputPort, OutputPort, PhaseKind, Read};
use petgraph::graph::NodeIndex;
use serde_json::Value;

use super::perform::storage;
use super::record::{ContentRecord, InputRecord, KEY_SCHEMA, KeyRecord};
use super::state::{Held, NodeState, PhaseState, Port, Slot, State, Status, UnitId};
use crate::workflow::{Facts, Node, Producer, Verdict};

/// Why something cannot be gathered.
#[derive(Debug)]
pub(crate) enum NotReady {
    /// It waits for the node named.
    Pending(String),
    /// The node named failed, so that it will never come.
    Blocked(String),
    /// The stage cannot use what is there.
    Invalid(ErrorReport),
}

/// A producer of a port.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The node or source.
    pub producer: Producer,
    /// Its port.
    pub port: &'static OutputPort,
    /// Its values on the axes that were gathered or picked.
    pub axes: Axes,
}

impl Origin {
    /// An output port that a later phase of the same node reads.
    pub(crate) fn own(node: NodeIndex, port: &'static OutputPort) -> Self {
        Self { producer: Producer::Node(node), port, axes: Axes::new() }
    }
}

/// What arrived from one producer.
#[derive(Debug, Clone)]
pub struct Gathered {
    /// The producer's values on the axes that were gathered or picked.
    pub axes: Axes,
    /// What it made.
    pub content: Content,
}

/// What one producer made.
#[derive(Debug, Clone)]
pub enum Content {
    /// One artifact; in a per-case phase, this case's.
    One(Arc<Held>),
    /// One artifact a case.
    Items(BTreeMap<Arc<str>, Arc<Held>>),
    /// The slice of a document.
    Document(Value),
}

/// How a port is read: the declaration of an input port, or of an output port that a later phase reads.
#[derive(Debug, Clone, Copy)]
struct Reading {
    read: Read,
    per_case: bool,
    many: bool,
    optional: bool,
}

impl NodeState {
    /// A node of which nothing is known yet.
    pub fn new(node: &Node) -> Self {
        let ports = node
            .spec
            .outputs
            .iter()
            .map(|port| (port.name, if port.per_case { Port::Items(None) } else { Port::One(Slot::Pending) }));
        Self {
            status: Status::Waiting,
            phases: node.spec.phases.iter().map(|_| PhaseState::default()).collect(),
            ports: ports.collect(),
            waits_for: None,
        }
    }
}

impl State<'_> {
    /// Whether a node takes part: its condition holds and something arrives at every input that it needs.
    ///
    /// # Errors
    /// The name of the node that must run before this can be told.
    pub(super) fn admission(&self, node: NodeIndex) -> Result<Status, String> {
        match self.graph.node(node).verdict(&Asked { state: self, node }) {
            Ok(Verdict::Run) => {}
            Ok(Verdict::Skip { reason }) => return Ok(Status::Skipped(reason)),
            Err(NotReady::Pending(name)) => return Err(name),
            Err(NotReady::Blocked(name)) => return Ok(Status::Blocked(format!("`{name}` before it failed"))),
            Err(NotReady::Invalid(report)) => return Ok(Status::Blocked(report.message)),
        }
        for input in &self.graph.node(node).inputs {
            if let Some(status) = self.admission_of_input(node, input)? {
                return Ok(status);
            }
        }
        Ok(Status::Active)
    }

    fn admission_of_input(
        &self,
        node: NodeIndex,
        input: &crate::workflow::NodeInput,
    ) -> Result<Option<Status>, String> {
        let mut present = 0;
        let mut skipped = None;
        for origin in self.origins(node, input.port.name) {
            let Producer::Node(producer) = origin.producer else {
                present += 1;
                continue;
            };
            let name = &self.graph.node(producer).name;
            match &self.nodes[producer.index()].status {
                Status::Waiting => return Err(name.clone()),
                Status::Skipped(_) => skipped = Some(name.clone()),
                Status::Blocked(_) if !input.port.per_case || self.is_lost(&origin) => {
                    return Ok(Some(Status::Blocked(format!("`{name}` before it could not run"))));
                }
                Status::Failed if !input.port.per_case || self.is_lost(&origin) => {
                    return Ok(Some(Status::Blocked(format!("`{name}` before it failed"))));
                }
                // What is there of some cases will do for these cases.
                Status::Blocked(_) | Status::Failed | Status::Active | Status::Done => present += 1,
            }
        }
        match (present, skipped) {
            (0, Some(name)) if !input.port.optional => {
                Ok(Some(Status::Skipped(format!("`{name}`, which it reads, was skipped"))))
            }
            _ => Ok(None),
        }
    }

    /// The units of a phase.
    pub(super) fn items_of(&self, node: NodeIndex, phase: usize) -> Result<Vec<Option<Arc<str>>>, NotReady> {
        let spec = self.phase(node, phase);
        if spec.kind == PhaseKind::Whole {
            return Ok(vec![None]);
        }
        let mut documents = BTreeMap::new();
        let mut available: Option<BTreeSet<Arc<str>>> = None;
        for port in spec.reads {
            let reading = self.reading(node, port);
            if reading.read != Read::Whole {
                let gathered = self.gather_port(node, port, None)?;
                if let Some(Gathered { content: Content::Document(document), .. }) = gathered.into_iter().next() {
                    documents.insert((*port).to_owned(), document);
                }
            } else if reading.per_case && available.is_none() {
                available = Some(self.names_at(node, port)?);
            }
        }
        let available: Vec<String> = available.unwrap_or_default().iter().map(|name| name.to_string()).collect();
        let stage = self.stages[node.index()];
        let items =
            stage.items(spec.name, &available, &documents).map_err(|error| NotReady::Invalid(error.report()))?;
        Ok(items.into_iter().map(|item| Some(Arc::from(item))).collect())
    }

    /// Everything that a unit reads, and the pre-image of its key.
    pub(super) fn gather(&self, unit: &UnitId) -> Result<(KeyRecord, BTreeMap<String, Vec<Gathered>>), NotReady> {
        let spec = self.phase(unit.node, unit.phase);
        let mut inputs = BTreeMap::new();
        for port in spec.reads {
            let gathered = self.gather_port(unit.node, port, unit.item.as_ref())?;
            let reading = self.reading(unit.node, port);
            if gathered.is_empty() && !reading.optional {
                let item = unit.item.as_deref().unwrap_or("any");
                let message = format!("input `{port}` has nothing for case `{item}`");
                return Err(NotReady::Invalid(ErrorReport::new(ErrorKind::Input, message)));
            }
            if !gathered.is_empty() {
                inputs.insert((*port).to_owned(), gathered);
            }
        }
        Ok((self.record(unit.node, unit.phase, &inputs), inputs))
    }

    /// The key under which the results of all cases of a phase are remembered together, once all its inputs are there.
    pub(super) fn summary_of(&self, node: NodeIndex, phase: usize) -> Option<(Key, Value)> {
        let spec = self.phase(node, phase);
        let mut inputs = BTreeMap::new();
        for port in spec.reads {
            let reading = self.reading(node, port);
            let gathered = if reading.read == Read::Whole && reading.per_case {
                self.gather_whole(node, port).ok()?
            } else {
                self.gather_port(node, port, None).ok()?
            };
            inputs.insert((*port).to_owned(), gathered);
        }
        let mut value = self.record(node, phase, &inputs).to_value();
        let digests: Vec<String> =
            inputs.iter().map(|(port, gathered)| format!("{port}:{}", digest_of(gathered))).collect();
        if let Some(record) = value.as_object_mut() {
            // The pre-image of a summary names digests only: the records of the cases hold what a person reads.
            record.insert("schema".to_owned(), Value::from(format!("{KEY_SCHEMA}-cases")));
            record.insert("inputs".to_owned(), Value::from(digests));
            if let Some(units) = &self.nodes[node.index()].phases[phase].units {
                let names: Vec<&str> = units.keys().flatten().map(|name| &**name).collect();
                record.insert("cases".to_owned(), Value::from(derive_digest("cases", &Value::from(names)).to_hex()));
            }
        }
        Some((Key::of(&value), value))
    }

    fn record(&self, node: NodeIndex, phase: usize, inputs: &BTreeMap<String, Vec<Gathered>>) -> KeyRecord {
        let graph_node = self.graph.node(node);
        let spec = self.phase(node, phase);
        let parameters = match spec.parameters {
            Some(names) => graph_node.parameters.only(names),
            None => graph_node.parameters.clone(),
        };
        let inputs = inputs.iter().map(|(port, gathered)| {
            let many = self.reading(node, port).many;
            (port.clone(), gathered.iter().map(|one| one.record(many)).collect())
        });
        KeyRecord {
            schema: KEY_SCHEMA.to_owned(),
            stage: graph_node.spec.name.to_owned(),
            version: graph_node.spec.version,
            phase: spec.name.to_owned(),
            parameters: parameters.0,
            seed: graph_node.spec.draws.then_some(self.seed),
            inputs: inputs.collect(),
        }
    }

    fn reading(&self, node: NodeIndex, port: &str) -> Reading {
        let spec = self.graph.node(node).spec;
        match (spec.input(port), spec.output(port)) {
            (Some(InputPort { read, per_case, many, optional, .. }), _) => {
                Reading { read: *read, per_case: *per_case, many: *many, optional: *optional }
            }
            (None, Some(OutputPort { per_case, optional, .. })) => {
                Reading { read: Read::Whole, per_case: *per_case, many: false, optional: *optional }
            }
            (None, None) => Reading { read: Read::Whole, per_case: false, many: false, optional: true },
        }
    }

    /// What arrives at a port, for one case in a per-case phase and as a whole otherwise.
    fn gather_port(&self, node: NodeIndex, port: &str, item: Option<&Arc<str>>) -> Result<Vec<Gathered>, NotReady> {
        match (self.reading(node, port), item) {
            (Reading { read: Read::Document, .. }, _) => self.gather_documents(node, port),
            (Reading { read: Read::Names, .. }, _) => self.gather_names(node, port),
            (Reading { per_case: true, .. }, Some(item)) => self.gather_case(node, port, item),
            (Reading { .. }, _) => self.gather_whole(node, port),
        }
    }

    fn gather_whole(&self, node: NodeIndex, port: &str) -> Result<Vec<Gathered>, NotReady> {
        let mut gathered = Vec::new();
        for origin in self.present_origins(node, port) {
            let content = match self.port_of(&origin) {
                Port::One(slot) => match self.held(&origin, slot)? {
                    Some(held) => Content::One(held),
                    None => continue,
                },
                Port::Items(None) => return Err(self.pending(&origin)),
                Port::Items(Some(slots)) => {
                    let mut items = BTreeMap::new();
                    for (item, slot) in slots {
                        if let Some(held) = self.held(&origin, slot)? {
                            items.insert(item.clone(), held);
                        }
                    }
                    Content::Items(items)
                }
            };
            gathered.push(Gathered { axes: origin.axes, content });
        }
        Ok(gathered)
    }

    fn gather_case(&self, node: NodeIndex, port: &str, item: &Arc<str>) -> Result<Vec<Gathered>, NotReady> {
        let mut gathered = Vec::new();
        for origin in self.present_origins(node, port) {
            let slot = match self.port_of(&origin) {
                Port::Items(Some(slots)) => slots.get(item),
                Port::Items(None) => return Err(self.pending(&origin)),
                Port::One(slot) => Some(slot),
            };
            let held = slot.map_or(Ok(None), |slot| self.held(&origin, slot))?;
            gathered.extend(held.map(|held| Gathered { axes: origin.axes.clone(), content: Content::One(held) }));
        }
        if gathered.len() > 1 && !self.reading(node, port).many {
            let message = format!("{} producers of input `{port}` have the case `{item}`", gathered.len());
            return Err(NotReady::Invalid(ErrorReport::new(ErrorKind::Input, message)));
        }
        Ok(gathered)
    }

    fn gather_documents(&self, node: NodeIndex, port: &str) -> Result<Vec<Gathered>, NotReady> {
        let mut gathered = Vec::new();
        for (axes, digest, document) in self.gather_whole_documents(node, port)? {
            // Every case of a node reads the same slice.
            let slot = (node, port.to_owned(), digest);
            let known = self.slices.borrow().get(&slot).cloned();
            let slice = match known {
                Some(slice) => slice,
                None => {
                    let slice = self.slice(node, port, &document)?;
                    self.slices.borrow_mut().insert(slot, slice.clone());
                    slice
                }
            };
            gathered.push(Gathered { axes, content: Content::Document(slice) });
        }
        Ok(gathered)
    }

    fn gather_whole_documents(&self, node: NodeIndex, port: &str) -> Result<Vec<(Axes, Digest, Arc<Value>)>, NotReady> {
        let mut documents = Vec::new();
        for origin in self.present_origins(node, port) {
            let held = match self.port_of(&origin) {
                Port::One(slot) => self.held(&origin, slot)?,
                Port::Items(_) => None,
            };
            if let Some(held) = held {
                let (digest, document) = self.document(origin.port, &held).map_err(NotReady::Invalid)?;
                documents.push((origin.axes, digest, document));
            }
        }
        Ok(documents)
    }

    fn gather_names(&self, node: NodeIndex, port: &str) -> Result<Vec<Gathered>, NotReady> {
        let names = self.names_at(node, port)?;
        let names = Value::from(names.iter().map(|name| Value::from(&**name)).collect::<Vec<_>>());
        let document = self.slice(node, port, &names)?;
        Ok(vec![Gathered { axes: Axes::new(), content: Content::Document(document) }])
    }

    fn slice(&self, node: NodeIndex, port: &str, document: &Value) -> Result<Value, NotReady> {
        let graph_node = self.graph.node(node);
        self.stages[node.index()]
            .slice(port, document, &graph_node.axes, &graph_node.parameters)
            .map_err(|error| NotReady::Invalid(error.report()))
    }

    fn names_at(&self, node: NodeIndex, port: &str) -> Result<BTreeSet<Arc<str>>, NotReady> {
        let mut names = BTreeSet::new();
        for origin in self.present_origins(node, port) {
            match self.port_of(&origin) {
                Port::Items(Some(slots)) => {
                    names.extend(
                        slots.iter().filter(|(_, slot)| !matches!(slot, Slot::Absent)).map(|(name, _)| name.clone()),
                    );
                }
                Port::Items(None) => return Err(self.pending(&origin)),
                Port::One(Slot::Lost) => return Err(NotReady::Blocked(self.name_of(&origin))),
                Port::One(_) => {}
            }
        }
        Ok(names)
    }

    /// The producers of a port that were not skipped.
    fn present_origins(&self, node: NodeIndex, port: &str) -> Vec<Origin> {
        let mut origins = self.origins(node, port);
        origins.retain(|origin| match origin.producer {
            Producer::Node(index) => !matches!(self.nodes[index.index()].status, Status::Skipped(_)),
            Producer::Source(_) => true,
        });
        origins
    }

    fn port_of(&self, origin: &Origin) -> &Port {
        const LOST: &Port = &Port::One(Slot::Lost);
        match &origin.producer {
            Producer::Node(index) => self.nodes[index.index()].ports.get(origin.port.name).unwrap_or(LOST),
            Producer::Source(name) => self.sources.port(name, origin.port.name).unwrap_or(LOST),
        }
    }

    /// Whether nothing will ever come of a port, for no case.
    fn is_lost(&self, origin: &Origin) -> bool {
        matches!(self.port_of(origin), Port::One(Slot::Lost))
    }

    fn held(&self, origin: &Origin, slot: &Slot) -> Result<Option<Arc<Held>>, NotReady> {
        match slot {
            Slot::Pending => Err(self.pending(origin)),
            Slot::Made(held) => Ok(Some(held.clone())),
            Slot::Absent => Ok(None),
            Slot::Lost => Err(NotReady::Blocked(self.name_of(origin))),
        }
    }

    fn pending(&self, origin: &Origin) -> NotReady {
        NotReady::Pending(self.name_of(origin))
    }

    fn name_of(&self, origin: &Origin) -> String {
        match &origin.producer {
            Producer::Node(index) => self.graph.node(*index).name.clone(),
            Producer::Source(name) => name.clone(),
        }
    }

    /// The JSON document of an artifact, with the digest of its text.
    pub(super) fn document(&self, port: &'static OutputPort, held: &Held) -> Result<(Digest, Arc<Value>), ErrorReport> {
        let invalid = |message: String| ErrorReport::new(ErrorKind::Storage, message);
        let name = port.document.ok_or_else(|| {
            ErrorReport::new(ErrorKind::Internal, format!("output `{}` declares no document", port.name))
        })?;
        let file = held.artifact.file(name).ok_or_else(|| invalid(format!("`{}` has no file `{name}`", port.name)))?;
        if let Some(document) = self.documents.borrow().get(&file.digest) {
            return Ok((file.digest, document.clone()));
        }
        let path = self.locations.get(&file.digest).cloned().unwrap_or_else(|| self.store.object_path(&file.digest));
        let bytes = fs_err::read(&path).map_err(|error| invalid(error.to_string()))?;
        let found = hash_bytes(&bytes);
        if found != file.digest {
            return Err(storage(&match self.locations.contains_key(&file.digest) {
                true => StoreError::SourceChanged { path },
                false => StoreError::WrongObject { digest: file.digest, found },
            }));
        }
        let document = nnflow_nnunet::read_json(&bytes)
            .map_err(|error| ErrorReport::new(ErrorKind::Input, format!("`{name}` is not valid JSON: {error}")))?;
        let document = Arc::new(document);
        self.documents.borrow_mut().insert(file.digest, document.clone());
        Ok((file.digest, document))
    }
}

impl Gathered {
    fn record(&self, with_axes: bool) -> InputRecord {
        let content = match &self.content {
            Content::One(held) => {
                let files = held.artifact.files().iter().filter(|file| !file.incidental);
                ContentRecord::Files(files.map(|file| (file.name.clone(), file.digest.to_hex())).collect())
            }
            Content::Items(items) => ContentRecord::Items(
                items.iter().map(|(item, held)| (item.to_string(), held.digest.to_hex())).collect(),
            ),
            Content::Document(document) => ContentRecord::Document(document.clone()),
        };
        InputRecord { axes: if with_axes { self.axes.clone() } else { Axes::new() }, content }
    }
}

fn digest_of(gathered: &[Gathered]) -> String {
    let records: Vec<_> =
        gathered.iter().map(|one| serde_json::to_value(one.record(true)).unwrap_or_default()).collect();
    derive_digest("input", &Value::from(records)).to_hex()
}

/// Answers the questions of a node's condition.
struct Asked<'s, 'g> {
    state: &'s State<'g>,
    node: NodeIndex,
}

impl Facts for Asked<'_, '_> {
    type Error = NotReady;

    /// A plan names its configurations; any other document names the keys at its top.
    fn names(&self, input: &str, value: &str) -> Result<bool, NotReady> {
        let documents = self.state.gather_whole_documents(self.node, input)?;
        let named = |document: &Value| document.get("configurations").unwrap_or(document).get(value).is_some();
        Ok(documents.iter().any(|(_, _, document)| named(document)))
    }

    fn every(&self, input: &str) -> Result<bool, NotReady> {
        let mut every = true;
        for origin in self.state.origins(self.node, input) {
            if let Producer::Node(index) = origin.producer {
                match self.state.nodes[index.index()].status {
                    Status::Waiting => return Err(self.state.pending(&origin)),
                    Status::Skipped(_) => every = false,
                    _ => {}
                }
            }
        }
        Ok(every)
    }
}
