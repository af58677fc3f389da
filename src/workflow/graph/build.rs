//! Builds the graph: multiplies the stages along their axes and joins the nodes.

use std::collections::{BTreeMap, BTreeSet};

use nnflow_stage::Axes;
use petgraph::graph::{DiGraph, NodeIndex};

use super::check::{self, CheckedInput, CheckedProducer, CheckedStage};
use super::join::{Join, Layout};
use super::{EdgeKind, Graph, Node, NodeInput, NodeSource, Producer, SourceSpec, StageTable, cycle};
use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::workflow::condition::Members;
use crate::workflow::model::{AxisOrigin, Workflow};

/// More nodes than this were not meant, and would fill the memory.
const MOST_NODES: usize = 50_000;

/// More edges than this were not meant, and would fill the memory.
const MOST_EDGES: usize = 500_000;

/// Builds the graph of what fits; the result is meant only if nothing was reported.
pub(in crate::workflow) fn build(
    workflow: &Workflow,
    stages: &dyn StageTable,
    sources: &[SourceSpec],
    diagnostics: &mut Diagnostics,
) -> Graph {
    let checked = check::check(workflow, stages, sources, diagnostics);
    let mut builder = Builder::new(checked, diagnostics);
    if builder.axes_are_known(workflow) && builder.multiply(workflow) {
        builder.join_all();
    }
    let Builder { nodes, reference_places, .. } = builder;
    let order = cycle::order(&nodes, &reference_places, diagnostics);
    let over = workflow
        .stages
        .iter()
        .map(|stage| (stage.name.clone(), stage.over.iter().map(|axis| axis.value.clone()).collect()));
    let graph = Graph { nodes, order, over: over.collect() };
    check_expectations(workflow, &graph, diagnostics);
    graph
}

fn check_expectations(workflow: &Workflow, graph: &Graph, diagnostics: &mut Diagnostics) {
    if diagnostics.has_errors() {
        // A node may be missing only because its stage could not be understood.
        let known =
            |expectation: &&crate::workflow::Expectation| !graph.over.contains_key(&expectation.node.value.stage);
        let unknown: Vec<_> = workflow.expectations.iter().filter(known).collect();
        diagnostics.extend(unknown.into_iter().filter_map(|expectation| graph.matching(&expectation.node).err()));
        return;
    }
    let expectations = workflow.expectations.iter();
    diagnostics.extend(expectations.filter_map(|expectation| graph.matching(&expectation.node).err()));
}

struct Builder<'w, 'd> {
    checked: Vec<Option<CheckedStage<'w>>>,
    layouts: Vec<Option<Layout<'w>>>,
    nodes: DiGraph<Node, EdgeKind>,
    /// For each edge the reference that it comes from.
    reference_places: Vec<&'w Place>,
    reported: BTreeSet<(usize, &'static str)>,
    diagnostics: &'d mut Diagnostics,
}

impl<'w, 'd> Builder<'w, 'd> {
    fn new(checked: Vec<Option<CheckedStage<'w>>>, diagnostics: &'d mut Diagnostics) -> Self {
        Self {
            checked,
            layouts: Vec::new(),
            nodes: DiGraph::new(),
            reference_places: Vec::new(),
            reported: BTreeSet::new(),
            diagnostics,
        }
    }

    /// Whether all axes have their values; an axis without any was reported where it is declared, unless the model has
    /// to give them.
    fn axes_are_known(&mut self, workflow: &Workflow) -> bool {
        let mut known = workflow.axes_complete;
        for axis in workflow.axes.iter().filter(|axis| axis.values.is_empty()) {
            match &axis.origin {
                AxisOrigin::Listed => known = false,
                // One value gives no pair, which is fine.
                AxisOrigin::Pairs { of } => known &= workflow.axis(of).is_some_and(|base| !base.values.is_empty()),
                // A model that is named gives its values later.
                AxisOrigin::Model if workflow.model.is_some() => known = false,
                AxisOrigin::Model => {
                    known = false;
                    self.diagnostics.push(
                        Diagnostic::error(format!("the values of axis `{}` are not known", axis.name))
                            .at(&axis.place, "the model decides them")
                            .hint("name the model: a table `[model]` with `path`"),
                    );
                }
            }
        }
        known
    }

    /// Makes the nodes of all stages; false if there are too many.
    fn multiply(&mut self, workflow: &'w Workflow) -> bool {
        for position in 0..self.checked.len() {
            let Some(stage) = &self.checked[position] else {
                self.layouts.push(None);
                continue;
            };
            let first = self.nodes.node_count();
            let layout = Layout::new(workflow, stage.declaration, first);
            let Some(layout) = layout.filter(|layout| first + layout.count <= MOST_NODES) else {
                let message =
                    format!("stage `{}` multiplied along its axes gives too many nodes", stage.declaration.name);
                let diagnostic =
                    Diagnostic::error(message).at(&stage.declaration.place, format!("more than {MOST_NODES}"));
                self.diagnostics.push(diagnostic);
                return false;
            };
            for number in 0..layout.count {
                let node = node(stage, &layout, number);
                self.nodes.add_node(node);
            }
            self.layouts.push(Some(layout));
        }
        true
    }

    fn join_all(&mut self) {
        let checked = std::mem::take(&mut self.checked);
        let layouts = std::mem::take(&mut self.layouts);
        for (position, (stage, layout)) in checked.iter().zip(&layouts).enumerate() {
            let (Some(stage), Some(layout)) = (stage, layout) else { continue };
            for input in &stage.inputs {
                let joined = InputJoin::new(input, layout, &layouts);
                for number in 0..layout.count {
                    if self.reference_places.len() > MOST_EDGES {
                        let message = format!("the workflow has more than {MOST_EDGES} connections");
                        self.diagnostics.push(Diagnostic::error(message).at(&stage.declaration.place, "given up here"));
                        return;
                    }
                    self.connect(position, stage, &joined, layout, number);
                }
            }
        }
    }

    /// Connects one input of one node.
    fn connect(
        &mut self,
        position: usize,
        stage: &CheckedStage<'w>,
        joined: &InputJoin<'_, 'w>,
        layout: &Layout<'w>,
        number: usize,
    ) {
        let index = NodeIndex::new(layout.first + number);
        let digits = layout.digits(number);
        let mut sources: Vec<NodeSource> = Vec::new();
        let mut places = Vec::new();
        for (checked, join) in joined.input.references.iter().zip(&joined.joins) {
            let counts = checked.reference.condition.as_ref().map(|when| when.value.decided(&self.nodes[index].axes));
            if counts == Some(Some(false)) {
                continue;
            }
            match found(checked.producer, join.as_ref(), &digits) {
                Ok(found) => {
                    for (producer, axes) in found {
                        let same =
                            |other: &NodeSource| other.producer == producer && other.port.name == checked.port.name;
                        if checked.reference.condition.is_none() || !sources.iter().any(same) {
                            sources.push(NodeSource { producer, port: checked.port, axes });
                            places.push(&checked.reference.place);
                        }
                    }
                }
                Err(diagnostic) => return self.diagnostics.push(diagnostic),
            }
        }
        if let Some(diagnostic) = self.objection(index, stage, joined, &sources) {
            if self.reported.insert((position, joined.input.port.name)) {
                self.diagnostics.push(diagnostic);
            }
            return;
        }
        self.add(index, joined.input, sources, &places);
    }

    /// What speaks against these sources of an input.
    fn objection(
        &self,
        index: NodeIndex,
        stage: &CheckedStage<'w>,
        joined: &InputJoin<'_, 'w>,
        sources: &[NodeSource],
    ) -> Option<Diagnostic> {
        let port = joined.input.port;
        let node = &self.nodes[index];
        let itself = sources.iter().any(|source| source.producer == Producer::Node(index));
        let reference = joined.input.references.first().map(|checked| checked.reference)?;
        if itself {
            let message = format!("`{}` reads what it makes itself", node.name);
            return Some(
                Diagnostic::error(message)
                    .at(&reference.place, "leads back to the same node")
                    .hint("give the input a `when` that leaves this node out"),
            );
        }
        if sources.is_empty() && !port.optional && joined.complete && !node.never_runs() {
            let message = format!("nothing arrives at input `{}` of `{}`", port.name, node.name);
            return Some(Diagnostic::error(message).at(&reference.place, "gives nothing for these values on the axes"));
        }
        if sources.len() > 1 && !port.many && !port.per_case {
            return Some(self.too_many(node, stage, joined, sources));
        }
        None
    }

    fn too_many(
        &self,
        node: &Node,
        stage: &CheckedStage<'w>,
        joined: &InputJoin<'_, 'w>,
        sources: &[NodeSource],
    ) -> Diagnostic {
        const SHOWN: usize = 3;
        let port = joined.input.port;
        let name = |source: &NodeSource| match &source.producer {
            Producer::Node(index) => format!("`{}`", self.nodes[*index].name),
            Producer::Source(name) => format!("`{name}`"),
        };
        let mut names: Vec<_> = sources.iter().take(SHOWN).map(name).collect();
        if sources.len() > SHOWN {
            names.push("…".to_owned());
        }
        let input = format!("{}.{}", stage.declaration.name, port.name);
        let message = format!(
            "`{input}` takes one artifact, but {} arrive at `{}`: {}",
            sources.len(),
            node.name,
            names.join(", ")
        );
        let gathering = joined.input.references.iter().zip(&joined.joins).find_map(|(checked, join)| {
            let axis = join.as_ref()?.gathered().first().map(|axis| (*axis).to_owned())?;
            Some((checked.reference, axis))
        });
        match gathering {
            Some((reference, axis)) => {
                Diagnostic::error(message).at(&reference.place, format!("gathers over `{axis}`")).hint(format!(
                    "pick one with `[{axis}=VALUE]`, or add \"{axis}\" to `stages.{}.over`",
                    stage.declaration.name
                ))
            }
            None => Diagnostic::error(message).at(&stage.declaration.place, "in this stage"),
        }
    }

    fn add(&mut self, index: NodeIndex, input: &CheckedInput<'w>, sources: Vec<NodeSource>, places: &[&'w Place]) {
        if sources.is_empty() {
            return;
        }
        for (source, place) in sources.iter().zip(places) {
            if let Producer::Node(producer) = source.producer {
                self.nodes.add_edge(producer, index, EdgeKind { output: source.port, input: input.port });
                self.reference_places.push(place);
            }
        }
        self.nodes[index].inputs.push(NodeInput { port: input.port, sources });
    }
}

/// An input of a stage and how each of its references is joined.
struct InputJoin<'j, 'w> {
    input: &'j CheckedInput<'w>,
    /// For each reference; absent for sources and for stages that could not be understood.
    joins: Vec<Option<Join<'j, 'w>>>,
    /// Whether all references lead somewhere, so that it can be told whether something is missing.
    complete: bool,
}

impl<'j, 'w> InputJoin<'j, 'w> {
    fn new(input: &'j CheckedInput<'w>, consumer: &Layout<'w>, layouts: &'j [Option<Layout<'w>>]) -> Self {
        let mut complete = input.complete;
        let joins = input.references.iter().map(|checked| match checked.producer {
            CheckedProducer::Source(_) => None,
            CheckedProducer::Stage(position) => {
                let layout = layouts.get(position).and_then(Option::as_ref);
                complete &= layout.is_some();
                layout.map(|layout| Join::new(checked, consumer, layout))
            }
        });
        Self { joins: joins.collect(), input, complete }
    }
}

fn found(
    producer: CheckedProducer,
    join: Option<&Join<'_, '_>>,
    digits: &[usize],
) -> Result<Vec<(Producer, Axes)>, Diagnostic> {
    match (producer, join) {
        (CheckedProducer::Source(name), _) => Ok(vec![(Producer::Source(name.to_owned()), Axes::new())]),
        (CheckedProducer::Stage(_), None) => Ok(Vec::new()),
        (CheckedProducer::Stage(_), Some(join)) => {
            let found = join.producers(digits)?.into_iter();
            Ok(found.map(|(node, axes)| (Producer::Node(NodeIndex::new(node)), axes)).collect())
        }
    }
}

fn node(stage: &CheckedStage<'_>, layout: &Layout<'_>, number: usize) -> Node {
    let declaration = stage.declaration;
    let digits = layout.digits(number);
    let mut axes = Axes::new();
    let mut members: Members = BTreeMap::new();
    let mut names = Vec::with_capacity(digits.len());
    for (axis, digit) in layout.axes.iter().zip(digits) {
        let value = &axis.values[digit];
        names.push(value.name.as_str());
        axes.insert(axis.name.clone(), value.name.clone());
        if !value.members.is_empty() {
            members.insert(axis.name.clone(), value.members.clone());
        }
    }
    let name =
        if names.is_empty() { declaration.name.clone() } else { format!("{}[{}]", declaration.name, names.join(",")) };
    let condition = declaration.condition.as_ref().map(|when| &when.condition);
    let condition = condition.filter(|condition| condition.decided(&axes) != Some(true));
    Node {
        name,
        stage: declaration.name.clone(),
        uses: stage.spec.name,
        spec: stage.spec,
        condition: condition.cloned(),
        axes,
        members,
        parameters: stage.parameters.clone(),
        inputs: Vec::with_capacity(stage.inputs.len()),
        store: declaration.store,
        resources: declaration.resources.clone(),
        place: Some(declaration.place.clone()),
    }
}
