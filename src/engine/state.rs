//! How far a graph has come: which results are at hand, what is ready to run, and what everything else waits for.
//!
//! The state is settled before anything runs, and again after each unit that ends: cached results flow through the graph
//! until only units remain that must run or that wait for one that must. A dry run is nothing but the first settling.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use nnflow_cache::{Artifact, Digest, Key, Store};
use nnflow_shared::SharedStore;
use nnflow_stage::{ErrorReport, Phase, Stage};
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;
use serde_json::Value;

use super::gather::Gathered;
use super::history::History;
use super::record::KeyRecord;
use super::shared::Unasked;
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
pub(super) enum Touch {
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
    /// The store that is asked for what this one has not.
    pub shared: Option<&'g SharedStore>,
    /// What was published besides the results of units, until somebody takes it to share it.
    pub unshared: Vec<Key>,
    /// Where bytes lie that are not in the store: source files, and results on their way to the next stage.
    pub locations: HashMap<Digest, PathBuf>,
    /// Which unit can make bytes again that were not kept.
    pub transient: HashMap<Digest, UnitId>,
    /// Documents that have been read, by their digest.
    pub documents: RefCell<HashMap<Digest, Arc<Value>>>,
    /// What the ports of nodes read of documents, by the documents' digests.
    pub(super) slices: RefCell<HashMap<(NodeIndex, String, Digest), Value>>,
    /// What went wrong without making a result wrong, until somebody tells it.
    pub warnings: Vec<String>,
    /// Units that failed before they could run, since their stage cannot use what they read; until somebody tells it.
    pub refused: Vec<(UnitId, ErrorReport)>,
    pub(super) forced: Forced,
    pub(super) history: History,
    pub(super) queue: VecDeque<Touch>,
    pub(super) queued: BTreeSet<Touch>,
    pub(super) ready: Vec<ReadyUnit>,
    pub(super) unasked: Vec<Unasked>,
    pub(super) asked: HashSet<Key>,
    pub(super) consumers: Vec<Vec<NodeIndex>>,
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
            shared: None,
            unshared: Vec::new(),
            locations,
            transient: HashMap::new(),
            documents: RefCell::default(),
            slices: RefCell::default(),
            warnings: Vec::new(),
            refused: Vec::new(),
            forced,
            history,
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            ready: Vec::new(),
            unasked: Vec::new(),
            asked: HashSet::new(),
            consumers,
            ranks,
        };
        for index in graph.order() {
            state.touch(Touch::Node(*index));
        }
        state
    }

    /// The keys of the last time, with those of this run so far.
    pub fn history(&self) -> &History {
        &self.history
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
