//! The rules of a postprocessing, and their application.

use nnflow_stage::{Artifact, StageError};
use serde::{Deserialize, Serialize};

use super::label_map::LabelMap;
use crate::case::read_json;
use crate::stages::evaluate::measures::Means;

/// The rules, a [`Rules`].
pub(crate) const RULES: &str = "postprocessing.json";
/// The version of their form.
const RULES_VERSION: u32 = 1;

/// What is done to a label map, step after step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    version: u32,
    /// The steps in their order.
    pub(crate) steps: Vec<Step>,
    /// How good the label maps were that the rules were found on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Means>,
    /// How good they are with the rules applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Means>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// The labels whose union it is about.
    pub(crate) labels: Vec<i16>,
    rule: RuleKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RuleKind {
    /// All but the largest component becomes background.
    KeepLargestComponent,
}

impl Step {
    /// Keeps the largest component of the union of these labels.
    pub(crate) fn keep_largest(labels: &[i16]) -> Self {
        Self { labels: labels.to_vec(), rule: RuleKind::KeepLargestComponent }
    }

    /// Whether there was anything to change.
    fn apply(&self, map: &mut LabelMap) -> bool {
        match self.rule {
            RuleKind::KeepLargestComponent => map.keep_largest(&self.labels),
        }
    }
}

/// Applies steps in their order; whether there was anything to change.
pub(crate) fn apply_all(steps: &[Step], map: &mut LabelMap) -> bool {
    steps.iter().fold(false, |changed, step| step.apply(map) | changed)
}

impl Rules {
    /// Rules of which is not known how much they help.
    pub(crate) fn unproven(steps: Vec<Step>) -> Self {
        Self { version: RULES_VERSION, steps, before: None, after: None }
    }

    /// Rules that change the means as told.
    pub(crate) fn proven(steps: Vec<Step>, before: Means, after: Means) -> Self {
        Self { version: RULES_VERSION, steps, before: Some(before), after: Some(after) }
    }

    /// The rules in an artifact.
    pub(crate) fn read(artifact: &Artifact) -> Result<Self, StageError> {
        let rules: Self = read_json(artifact, RULES)?;
        if rules.version != RULES_VERSION {
            let found = rules.version;
            return Err(StageError::input(format!("`{RULES}` has version {found}, expected {RULES_VERSION}")));
        }
        Ok(rules)
    }
}
