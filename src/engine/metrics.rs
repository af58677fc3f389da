//! The numbers of a run: looked up in the documents that nodes made, and held against what a workflow expects.

use std::fmt;

use nnflow_stage::ErrorReport;
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::{Port, Slot, State, Status, UnitState};
use super::usage::Usage;
use crate::diagnostic::Severity;
use crate::workflow::Expectation;

/// The metrics that every node has: what its units took when they ran, as [`Usage`] names it.
pub const TAKEN: [&str; 4] = ["wall_seconds", "cpu_seconds", "peak_memory_bytes", "gpu_peak_memory_bytes"];

/// The key of a table that stands for one number: the number itself.
const MEAN: &str = "mean";
/// The key of its interval of confidence, a list of two numbers.
const INTERVAL: &str = "interval";

/// A number of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The number.
    pub value: f64,
    /// Its interval of confidence, if the node gives one.
    pub interval: Option<[f64; 2]>,
}

impl From<f64> for Metric {
    fn from(value: f64) -> Self {
        Self { value, interval: None }
    }
}

/// As people read it: `0.8902 [0.8871, 0.8930]`.
impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.4}", self.value)?;
        self.interval.map_or(Ok(()), |[low, high]| write!(formatter, " [{low:.4}, {high:.4}]"))
    }
}

/// A number that a workflow expects something of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The metric with its node: `evaluate.foreground_mean.dice`.
    pub name: String,
    /// The number; absent where the node has none.
    pub value: Option<f64>,
    /// The number's interval of confidence, if the node gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
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
                let metric = self.metric(node, &expectation.metric)?;
                let value = metric.map(|metric| metric.value);
                let bounds: Vec<_> = expectation.bounds.iter().map(ToString::to_string).collect();
                checked.push(Checked {
                    name: format!("{}.{}", self.graph.node(node).name, expectation.metric.join(".")),
                    value,
                    interval: metric.and_then(|metric| metric.interval),
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
    /// A table with a number `mean` stands for that number; a list `interval` in it is the number's interval. Of several
    /// documents with the number the first one counts, in the order of the stage's ports.
    ///
    /// # Errors
    /// If a document cannot be read.
    pub fn metric(&self, node: NodeIndex, path: &[String]) -> Result<Option<Metric>, ErrorReport> {
        if self.nodes[node.index()].status != Status::Done {
            return Ok(None);
        }
        if let [name] = path
            && TAKEN.contains(&name.as_str())
        {
            return Ok(json!(self.taken(node)).get(name).and_then(Value::as_f64).map(Metric::from));
        }
        for port in self.graph.node(node).spec.outputs.iter().filter(|port| port.document.is_some()) {
            let Some(Port::One(Slot::Made(held))) = self.nodes[node.index()].ports.get(port.name) else { continue };
            let (_, document) = self.document(port, held)?;
            if let Some(metric) = metric_at(&document, path) {
                return Ok(Some(metric));
            }
        }
        Ok(None)
    }

    /// What the units of a node took when they ran, together.
    #[must_use]
    pub fn taken(&self, node: NodeIndex) -> Usage {
        let phases = self.nodes[node.index()].phases.iter().filter_map(|phase| phase.units.as_ref());
        let manifests = phases.flat_map(|units| units.values()).filter_map(|unit| {
            let UnitState::Done { key, .. } = unit else { return None };
            self.store.lookup(key).ok()?.hit()
        });
        let mut taken = Usage::default();
        manifests.for_each(|manifest| taken.add(&Usage::from_stats(&manifest.stats)));
        taken
    }
}

fn metric_at(document: &Value, path: &[String]) -> Option<Metric> {
    let mut value = document;
    for step in path {
        let object = value.as_object()?;
        value = object
            .get(step)
            .or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(step)).map(|(_, value)| value))?;
    }
    if let Some(number) = value.as_f64() {
        return Some(number.into());
    }
    let interval = match value.get(INTERVAL)?.as_array().map(Vec::as_slice) {
        Some([low, high]) => low.as_f64().zip(high.as_f64()).map(<[f64; 2]>::from),
        _ => None,
    };
    Some(Metric { value: value.get(MEAN)?.as_f64()?, interval })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(document: &Value, path: &[&str]) -> Option<Metric> {
        metric_at(document, &path.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_number_is_found_whatever_its_case() {
        let document = json!({"foreground_mean": {"Dice": 0.5}});
        assert_eq!(at(&document, &["foreground_mean", "dice"]), Some(0.5.into()));
    }

    #[test]
    fn what_is_not_a_number_is_not_found() {
        assert_eq!(at(&json!({"a": "b"}), &["a"]), None);
    }

    #[test]
    fn a_mean_is_found_with_its_interval() {
        let document = json!({"dice": {"mean": 0.5, "interval": [0.25, 0.75], "median": 0.625}});
        assert_eq!(
            at(&document, &["dice"]).map(|metric| metric.to_string()).as_deref(),
            Some("0.5000 [0.2500, 0.7500]")
        );
        assert_eq!(at(&document, &["dice", "median"]), Some(0.625.into()));
    }

    #[test]
    fn a_mean_may_have_no_interval() {
        assert_eq!(at(&json!({"dice": {"mean": 0.5, "interval": null}}), &["dice"]), Some(0.5.into()));
    }

    #[test]
    fn a_table_of_numbers_is_no_number() {
        assert_eq!(at(&json!({"mean": {"1": 0.5}}), &["mean"]), None);
    }
}
