//! Finding nodes: by pattern, and by what they need or are needed for.

use std::collections::BTreeSet;

use nnflow_stage::Axes;
use petgraph::Direction;
use petgraph::graph::NodeIndex;

use super::Graph;
use crate::diagnostic::{Diagnostic, Located, Place, Source, SourceKind, listed, suggestion};
use crate::workflow::pattern::{NodePattern, Selector};
use crate::workflow::tree::shortened;

impl Graph {
    /// The nodes that a pattern names, in the order of [`Graph::order`]: `train`, `train[3d_fullres,*]`, `train[fold=0]`.
    ///
    /// # Errors
    /// If the pattern cannot be read, or names no node.
    pub fn find(&self, pattern: &str) -> Result<Vec<NodeIndex>, Diagnostic> {
        let source = Source::new("node", pattern, SourceKind::Argument("node"));
        let place = Place::new(&source, 0..pattern.len());
        let parsed = NodePattern::parse(pattern).map_err(|expected| {
            Diagnostic::error(format!("`{}` does not name nodes", shortened(pattern)))
                .at(&place, expected)
                .hint("for example `train`, `train[3d_fullres,*]` or `train[fold=0]`")
        })?;
        self.matching(&Located::new(parsed, place))
    }

    /// The nodes that a pattern names, in the order of [`Graph::order`].
    ///
    /// # Errors
    /// If it names none.
    pub fn matching(&self, pattern: &Located<NodePattern>) -> Result<Vec<NodeIndex>, Diagnostic> {
        let stage = &pattern.value.stage;
        let Some(over) = self.over.get(stage) else {
            return Err(Diagnostic::error(format!("there is no stage `{}`", shortened(stage)))
                .at(&pattern.place, "unknown stage")
                .maybe_hint(suggestion(stage, self.over.keys().map(String::as_str))));
        };
        let selectors = resolved(pattern, over)?;
        let takes = |axes: &Axes| {
            selectors.iter().all(|(axis, selector)| axes.get(*axis).is_some_and(|value| selector.takes(value)))
        };
        let found: Vec<_> = self.of_stage(stage).filter(|node| takes(&self.nodes[*node].axes)).collect();
        if found.is_empty() { Err(self.nothing(pattern, &selectors)) } else { Ok(found) }
    }

    fn of_stage<'g>(&'g self, stage: &'g str) -> impl Iterator<Item = NodeIndex> + 'g {
        self.order.iter().copied().filter(move |node| self.nodes[*node].stage == stage)
    }

    fn nothing(&self, pattern: &Located<NodePattern>, selectors: &[(&str, &Selector)]) -> Diagnostic {
        let stage = &pattern.value.stage;
        let diagnostic =
            Diagnostic::error(format!("there is no node `{}`", pattern.value)).at(&pattern.place, "no such node");
        for (axis, selector) in selectors {
            let values: BTreeSet<&str> =
                self.of_stage(stage).filter_map(|node| self.nodes[node].axes.get(*axis)).map(String::as_str).collect();
            if !values.iter().any(|value| selector.takes(value)) {
                return diagnostic.hint(format!("axis `{axis}` has {}", listed(values)));
            }
        }
        diagnostic
    }

    /// The given nodes and all that they need, directly or not.
    #[must_use]
    pub fn ancestors(&self, nodes: &[NodeIndex]) -> BTreeSet<NodeIndex> {
        self.reachable(nodes, Direction::Incoming)
    }

    /// The given nodes and all that need them, directly or not.
    #[must_use]
    pub fn descendants(&self, nodes: &[NodeIndex]) -> BTreeSet<NodeIndex> {
        self.reachable(nodes, Direction::Outgoing)
    }

    fn reachable(&self, nodes: &[NodeIndex], direction: Direction) -> BTreeSet<NodeIndex> {
        let mut found: BTreeSet<NodeIndex> = BTreeSet::new();
        let mut open = nodes.to_vec();
        while let Some(node) = open.pop() {
            if found.insert(node) {
                open.extend(self.nodes.neighbors_directed(node, direction));
            }
        }
        found
    }
}

/// The axis of each selector.
fn resolved<'p>(
    pattern: &'p Located<NodePattern>,
    over: &'p [String],
) -> Result<Vec<(&'p str, &'p Selector)>, Diagnostic> {
    let stage = &pattern.value.stage;
    let runs = || match over {
        [] => format!("`{stage}` runs over no axis"),
        _ => format!("`{stage}` runs over {}", listed(over.iter().map(String::as_str))),
    };
    let named = |(position, selector): (usize, &'p Selector)| match &selector.axis {
        Some(axis) => over.iter().find(|name| *name == axis).map(|name| (name.as_str(), selector)),
        None => over.get(position).map(|name| (name.as_str(), selector)),
    };
    let found: Option<Vec<_>> = pattern.value.selectors.iter().enumerate().map(named).collect();
    found.ok_or_else(|| {
        Diagnostic::error(format!("`{}` does not fit the axes of `{stage}`", pattern.value)).at(&pattern.place, runs())
    })
}
