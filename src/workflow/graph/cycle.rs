//! The order of the nodes, and the loops that keep them from having one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use petgraph::Direction;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::{EdgeKind, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, SourceKind};

/// All nodes, every producer before its consumers; among those that could come next, the one declared first.
///
/// Nodes in a loop, or behind one, are left out, and the loop is reported. `places` has the reference of each edge.
pub(super) fn order(
    nodes: &DiGraph<Node, EdgeKind>,
    places: &[&Place],
    diagnostics: &mut Diagnostics,
) -> Vec<NodeIndex> {
    let mut waiting: Vec<usize> =
        nodes.node_indices().map(|node| nodes.edges_directed(node, Direction::Incoming).count()).collect();
    let ready = nodes.node_indices().filter(|node| waiting[node.index()] == 0);
    let mut ready: BinaryHeap<_> = ready.map(|node| Reverse(node.index())).collect();
    let mut order = Vec::with_capacity(nodes.node_count());
    while let Some(Reverse(next)) = ready.pop() {
        let node = NodeIndex::new(next);
        order.push(node);
        for edge in nodes.edges_directed(node, Direction::Outgoing) {
            let target = edge.target().index();
            waiting[target] -= 1;
            if waiting[target] == 0 {
                ready.push(Reverse(target));
            }
        }
    }
    if order.len() < nodes.node_count() {
        report_loops(nodes, places, diagnostics);
    }
    order
}

/// Reports one loop for each set of stages that form any.
fn report_loops(nodes: &DiGraph<Node, EdgeKind>, places: &[&Place], diagnostics: &mut Diagnostics) {
    let mut components: Vec<BTreeSet<NodeIndex>> =
        kosaraju_scc(nodes).into_iter().filter(|nodes| nodes.len() > 1).map(BTreeSet::from_iter).collect();
    components.sort();
    let mut told: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    for component in components {
        let stages = component.iter().map(|node| nodes[*node].stage.as_str()).collect();
        if told.insert(stages) {
            let circle = shortest_loop(nodes, &component);
            diagnostics.push(describe(nodes, places, &circle));
        }
    }
}

/// The shortest way from the first node of a component back to itself.
fn shortest_loop(nodes: &DiGraph<Node, EdgeKind>, component: &BTreeSet<NodeIndex>) -> Vec<NodeIndex> {
    let Some(start) = component.first().copied() else { return Vec::new() };
    let mut before: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        let mut targets: Vec<_> = nodes.neighbors_directed(node, Direction::Outgoing).collect();
        targets.sort();
        for target in targets {
            if component.contains(&target) && !before.contains_key(&target) {
                before.insert(target, node);
                if target == start {
                    return walk_back(&before, start);
                }
                queue.push_back(target);
            }
        }
    }
    Vec::new()
}

fn walk_back(before: &BTreeMap<NodeIndex, NodeIndex>, start: NodeIndex) -> Vec<NodeIndex> {
    let mut circle = vec![start];
    let mut node = before[&start];
    while node != start {
        circle.push(node);
        node = before[&node];
    }
    circle.push(start);
    circle.reverse();
    circle
}

fn describe(nodes: &DiGraph<Node, EdgeKind>, places: &[&Place], circle: &[NodeIndex]) -> Diagnostic {
    let names: Vec<_> = circle.iter().map(|node| format!("`{}`", nodes[*node].name)).collect();
    let mut diagnostic = Diagnostic::error(format!("the stages form a loop: {}", names.join(" → ")));
    let mut steps: Vec<(&Place, String)> = Vec::new();
    for pair in circle.windows(2) {
        let edge = nodes.edges_connecting(pair[0], pair[1]).map(|edge| edge.id()).min();
        let Some(place) = edge.and_then(|edge| places.get(edge.index())) else { continue };
        steps.push((place, format!("`{}` needs `{}`", nodes[pair[1]].stage, nodes[pair[0]].stage)));
    }
    // What a person wrote goes before what a recipe says.
    steps.sort_by_key(|(place, _)| matches!(place.source().kind(), SourceKind::Recipe(_)));
    for (number, (place, text)) in steps.into_iter().enumerate() {
        diagnostic = if number == 0 { diagnostic.at(place, text) } else { diagnostic.context(place, text) };
    }
    diagnostic
}
