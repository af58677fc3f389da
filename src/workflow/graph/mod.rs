//! The graph of nodes: every stage multiplied along its axes, every input connected.

mod build;
mod check;
mod cycle;
mod draw;
mod find;
mod join;
mod parameters;
mod svg;

use std::collections::BTreeMap;

use nnflow_stage::{Axes, InputPort, OutputPort, Parameters, Stage, StageSpec};
use petgraph::graph::{DiGraph, NodeIndex};

use super::condition::{Condition, Facts, Members, Verdict};
use super::model::ResourceRequest;
use crate::diagnostic::Place;

pub(super) use build::build;

/// The stages that there are.
pub trait StageTable: Sync {
    /// The stage of this name.
    fn stage(&self, name: &str) -> Option<&'static dyn Stage>;

    /// The names of all stages.
    fn names(&self) -> Vec<&'static str>;
}

/// Something that gives artifacts without being a stage of the workflow, such as the dataset.
#[derive(Debug, Clone, Copy)]
pub struct SourceSpec {
    /// The name that references use.
    pub name: &'static str,
    /// What it gives.
    pub outputs: &'static [OutputPort],
}

/// A stage at one place on its axes.
#[derive(Debug, Clone)]
pub struct Node {
    /// The name that people see: the stage's, with the values on the axes in the order of `over`: `train[3d_fullres,0]`.
    pub name: String,
    /// The name of the stage's table in the workflow.
    pub stage: String,
    /// The stage that it runs.
    pub uses: &'static str,
    /// The declaration of the stage that it runs.
    pub spec: &'static StageSpec,
    /// The values on the axes.
    pub axes: Axes,
    /// The members of those values that belong to a derived axis.
    pub members: Members,
    /// Every parameter, defaults filled in.
    pub parameters: Parameters,
    /// What arrives, in the order of the stage's input ports; unconnected ports are absent.
    pub inputs: Vec<NodeInput>,
    /// When it runs; absent if always.
    pub condition: Option<Condition>,
    /// Whether its results are kept in the store.
    pub store: bool,
    /// What it asks of the machine.
    pub resources: ResourceRequest,
    /// Where the stage is declared.
    pub place: Option<Place>,
}

/// A connected input port.
#[derive(Debug, Clone)]
pub struct NodeInput {
    /// The port.
    pub port: &'static InputPort,
    /// What arrives at it, in the order of the references and of the producers' values on their axes.
    pub sources: Vec<NodeSource>,
}

/// One producer of an input.
#[derive(Debug, Clone)]
pub struct NodeSource {
    /// Who makes it.
    pub producer: Producer,
    /// The producer's port.
    pub port: &'static OutputPort,
    /// The producer's values on the axes that were gathered or picked.
    pub axes: Axes,
}

/// Who makes what arrives at an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Producer {
    /// A node.
    Node(NodeIndex),
    /// A source of this name.
    Source(String),
}

/// What an edge of the graph stands for: an output port that feeds an input port.
#[derive(Debug, Clone, Copy)]
pub struct EdgeKind {
    /// The producer's port.
    pub output: &'static OutputPort,
    /// The consumer's port.
    pub input: &'static InputPort,
}

/// The graph of all nodes; it has no cycles.
#[derive(Debug, Clone)]
pub struct Graph {
    pub(super) nodes: DiGraph<Node, EdgeKind>,
    pub(super) order: Vec<NodeIndex>,
    pub(super) over: BTreeMap<String, Vec<String>>,
}

impl Node {
    /// Whether the node runs, given what arrived at its inputs.
    ///
    /// # Errors
    /// Whatever `facts` cannot find out.
    pub fn verdict<F: Facts>(&self, facts: &F) -> Result<Verdict, F::Error> {
        match &self.condition {
            Some(condition) => condition.verdict(&self.axes, &self.members, facts),
            None => Ok(Verdict::Run),
        }
    }

    /// Whether the values on the axes alone keep the node from running.
    #[must_use]
    pub fn never_runs(&self) -> bool {
        self.condition.as_ref().is_some_and(|condition| condition.decided(&self.axes) == Some(false))
    }

    /// The input of this name, if it is connected.
    #[must_use]
    pub fn input(&self, port: &str) -> Option<&NodeInput> {
        self.inputs.iter().find(|input| input.port.name == port)
    }
}

impl Graph {
    /// The underlying graph; its edges lead from producers to consumers.
    #[must_use]
    pub fn inner(&self) -> &DiGraph<Node, EdgeKind> {
        &self.nodes
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The node of this index.
    ///
    /// # Panics
    /// If the index is of another graph.
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> &Node {
        &self.nodes[index]
    }

    /// All nodes, every producer before its consumers; among those that could come next, the one declared first.
    #[must_use]
    pub fn order(&self) -> &[NodeIndex] {
        &self.order
    }
}
