//! The numbers of a run: looked up in the documents that nodes made, and held against what a workflow expects.

use nnflow_stage::ErrorReport;
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::{Port, Slot, State, Status, UnitState};
use crate::diagnostic::Severity;
use crate::workflow::Expectation;

/// The metric that every node has: how long it took, when it ran.
pub const WALL_SECONDS: &str = "wall_seconds";

/// A number that a workflow expects something of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The metric with its node: `evaluate.foreground_mean.dice`.
    pub name: String,
    /// The number; absent where the node has none.
    pub value: Option<f64>,
    /// What is expected: `>= 0.88`.
    pub expected: String,
    /// Whether it is met.
    pub met: bool,
    /// Whether falling short fails the run.
    pub required: bool,
}

impl State<'_> {
    /// Holds the results against what the workflow expects.
    ///
    /// # Errors
    /// If a document cannot be read.
    pub fn check_expectations(&self, expectations: &[Expectation]) -> Result<Vec<Checked>, ErrorReport> {
        let mut checked = Vec::new();
        for expectation in expectations {
            let nodes = self.graph.find(&expectation.node.value.to_string()).unwrap_or_default();
            for node in nodes.into_iter().filter(|node| self.wanted.contains(node)) {
                let value = self.metric(node, &expectation.metric)?;
                let bounds: Vec<_> = expectation.bounds.iter().map(ToString::to_string).collect();
                checked.push(Checked {
                    name: format!("{}.{}", self.graph.node(node).name, expectation.metric.join(".")),
                    value,
                    expected: bounds.join(" and "),
                    met: value.is_some_and(|value| expectation.met_by(value)),
                    required: expectation.severity == Severity::Error,
                });
            }
        }
        Ok(checked)
    }

    /// A number of a node, by its path in one of the documents that the node made; upper and lower case are the same.
    ///
    /// # Errors
    /// If a document cannot be read.
    pub fn metric(&self, node: NodeIndex, path: &[String]) -> Result<Option<f64>, ErrorReport> {
        if self.nodes[node.index()].status != Status::Done {
            return Ok(None);
        }
        if path == [WALL_SECONDS] {
            return Ok(Some(self.wall_seconds(node)));
        }
        for port in self.graph.node(node).spec.outputs.iter().filter(|port| port.document.is_some()) {
            let Some(Port::One(Slot::Made(held))) = self.nodes[node.index()].ports.get(port.name) else { continue };
            let document = self.document(port, held)?;
            if let Some(number) = number_at(&document, path) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// How long the units of a node took when they ran, added up.
    #[must_use]
    pub fn wall_seconds(&self, node: NodeIndex) -> f64 {
        let phases = self.nodes[node.index()].phases.iter().filter_map(|phase| phase.units.as_ref());
        let seconds = phases.flat_map(|units| units.values()).filter_map(|unit| {
            let UnitState::Done { key, .. } = unit else { return None };
            self.store.lookup(key).ok()?.hit()?.stats.get(WALL_SECONDS)?.as_f64()
        });
        seconds.sum()
    }
}

fn number_at(document: &Value, path: &[String]) -> Option<f64> {
    let mut value = document;
    for step in path {
        let object = value.as_object()?;
        value = object
            .get(step)
            .or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(step)).map(|(_, value)| value))?;
    }
    value.as_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_found_whatever_its_case() {
        let document = json!({"foreground_mean": {"Dice": 0.5}});
        let path = ["foreground_mean".to_owned(), "dice".to_owned()];
        assert_eq!(number_at(&document, &path), Some(0.5));
    }

    #[test]
    fn what_is_not_a_number_is_not_found() {
        assert_eq!(number_at(&json!({"a": "b"}), &["a".to_owned()]), None);
    }
}
