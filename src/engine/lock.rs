//! The lock of a workflow: what a run was made of and what came of it, so that a later run can promise to be the same.
//!
//! A lock holds the digests of the sources, and for each node its stage, version, parameters, the digest of its keys and
//! those of its outputs. Keys follow from all of these, so a difference is told where it begins: in a source, in a
//! parameter, or in a node that made other bytes of the same inputs.

use std::collections::BTreeMap;
use std::path::Path;

use nnflow_cache::derive_digest;
use nnflow_stage::{ErrorKind, ErrorReport};
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::record::value_difference;
use super::state::{Port, Slot, State, Status, UnitState};

/// The version of the lock's form.
pub const LOCK_VERSION: u32 = 1;
/// What keeps digests of several keys or artifacts apart from other digests.
const LOCK_CONTEXT: &str = "nnflow-lock-v1";
/// What a lock says about itself to whoever opens it.
const HEAD: &str =
    "# What this workflow's last complete run was made of. `nnflow run --locked` refuses whatever differs.\n\n";

/// What a complete run of a workflow was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// [`LOCK_VERSION`].
    pub version: u32,
    /// The workflow's name.
    pub workflow: String,
    /// Numbers that the run ended with, by node and name.
    pub metrics: BTreeMap<String, f64>,
    /// For each port of a source the digests of what it holds, by case; a document has the case `""`.
    pub sources: BTreeMap<String, BTreeMap<String, String>>,
    /// The nodes, by name.
    pub nodes: BTreeMap<String, LockedNode>,
}

/// A node of a complete run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedNode {
    /// The stage that it runs.
    pub stage: String,
    /// The stage's version.
    pub version: u32,
    /// The workflow's seed, if the stage draws random numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Why it did not take part, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The key, or the digest of the keys of all its cases and phases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The digest of what it made at each port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// All parameters, those left at their defaults too; those without a value are left out.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
}

impl Lock {
    /// The lock of a run as far as it has come; `metrics` are the numbers to remember.
    #[must_use]
    pub fn of(state: &State<'_>, workflow: &str, metrics: BTreeMap<String, f64>) -> Self {
        let nodes = state.graph.order().iter();
        let nodes = nodes.map(|index| (state.graph.node(*index).name.clone(), LockedNode::of(state, *index)));
        Self {
            version: LOCK_VERSION,
            workflow: workflow.to_owned(),
            metrics,
            sources: state.sources.digests(),
            nodes: nodes.collect(),
        }
    }

    /// Reads a lock.
    ///
    /// # Errors
    /// If there is none, or it cannot be understood.
    pub fn read(path: &Path) -> Result<Self, ErrorReport> {
        let text = fs_err::read_to_string(path).map_err(|error| missing(path, &error))?;
        let unusable = |problem: String| ErrorReport {
            hint: Some("run once without `--locked` to write a new one".to_owned()),
            ..ErrorReport::new(ErrorKind::Input, format!("`{}` is no lock: {problem}", path.display()))
        };
        let lock: Self = toml::from_str(&text).map_err(|error| unusable(error.message().to_owned()))?;
        if lock.version != LOCK_VERSION {
            return Err(unusable(format!("it has version {}, expected {LOCK_VERSION}", lock.version)));
        }
        Ok(lock)
    }

    /// Writes the lock whole or not at all, and only if it differs from what is there.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let body = toml::to_string(self).map_err(std::io::Error::other)?;
        let text = format!("{HEAD}{body}");
        if fs_err::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".lock-").tempfile_in(folder)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// How `state` differs from the lock, as phrases, those that explain others first; what is not known yet is no
    /// difference.
    #[must_use]
    pub fn differences(&self, state: &State<'_>) -> Vec<String> {
        let now = Self::of(state, &self.workflow, BTreeMap::new());
        let mut found = source_differences(&self.sources, &now.sources);
        for index in state.graph.order() {
            let name = &state.graph.node(*index).name;
            let (Some(old), Some(new)) = (self.nodes.get(name), now.nodes.get(name)) else {
                found.push(format!("node `{name}` is not in the lock"));
                continue;
            };
            found.extend(old.difference(new).map(|difference| format!("`{name}`: {difference}")));
        }
        let gone = self.nodes.keys().filter(|name| !now.nodes.contains_key(*name));
        found.extend(gone.map(|name| format!("node `{name}` of the lock is not in the workflow")));
        found
    }
}

impl LockedNode {
    fn of(state: &State<'_>, index: NodeIndex) -> Self {
        let (node, held) = (state.graph.node(index), &state.nodes[index.index()]);
        let skipped = match &held.status {
            Status::Skipped(reason) => Some(reason.clone()),
            _ => None,
        };
        Self {
            stage: node.uses.to_owned(),
            version: node.spec.version,
            seed: node.spec.draws.then_some(state.seed),
            skipped,
            key: keys(state, index),
            outputs: held
                .ports
                .iter()
                .filter_map(|(port, value)| Some(((*port).to_owned(), digest_of(value)?)))
                .collect(),
            parameters: without_nulls(&node.parameters.0),
        }
    }

    /// The first difference to a node as it is now.
    fn difference(&self, now: &Self) -> Option<String> {
        if (&self.stage, self.version) != (&now.stage, now.version) {
            return Some(format!("stage `{}` {} instead of `{}` {}", now.stage, now.version, self.stage, self.version));
        }
        let parameters = |node: &Self| Value::Object(node.parameters.clone());
        if let Some(found) = value_difference("", &parameters(self), &parameters(now)) {
            return Some(format!("parameter {found}"));
        }
        if self.seed != now.seed {
            return Some("another seed".to_owned());
        }
        if now.skipped.is_some() && self.skipped != now.skipped {
            return Some(format!("it is skipped: {}", now.skipped.as_deref().unwrap_or_default()));
        }
        if let (None, Some(reason), Some(_)) = (&now.skipped, &self.skipped, &now.key) {
            return Some(format!("it takes part; in the lock it is skipped: {reason}"));
        }
        if let Some(port) = self.outputs.keys().find(|port| now.key.is_some() && !now.outputs.contains_key(*port)) {
            return Some(format!("output `{port}` is not made"));
        }
        let changed =
            now.outputs.iter().find(|(port, digest)| self.outputs.get(*port).is_some_and(|old| old != *digest));
        changed.map(|(port, digest)| {
            let old = self.outputs.get(port).map_or("", String::as_str);
            format!("output `{port}` is another one ({} → {})", short(old), short(digest))
        })
    }
}

fn short(digest: &str) -> &str {
    digest.get(..8).unwrap_or(digest)
}

fn missing(path: &Path, error: &std::io::Error) -> ErrorReport {
    ErrorReport {
        hint: Some("a complete run without `--locked`, `--set` and `--until` writes it".to_owned()),
        ..ErrorReport::new(ErrorKind::Input, format!("the lock `{}` cannot be read: {error}", path.display()))
    }
}

/// The keys of a node all of whose units have ended well.
fn keys(state: &State<'_>, index: NodeIndex) -> Option<String> {
    let held = &state.nodes[index.index()];
    if held.status != Status::Done {
        return None;
    }
    let mut all = BTreeMap::new();
    for (number, phase) in held.phases.iter().enumerate() {
        for (item, unit) in phase.units.iter().flatten() {
            let UnitState::Done { key, .. } = unit else { return None };
            all.insert(format!("{number}/{}", item.as_deref().unwrap_or_default()), key.to_string());
        }
    }
    let single = all.len() == 1;
    all.values().next().filter(|_| single).cloned().or_else(|| Some(digest(&json!(all))))
}

/// The digest of what a port holds; nothing as long as something is to come.
fn digest_of(port: &Port) -> Option<String> {
    match port {
        Port::One(Slot::Made(held)) => Some(held.digest.to_string()),
        Port::One(_) | Port::Items(None) => None,
        Port::Items(Some(slots)) => {
            let mut all = BTreeMap::new();
            for (item, slot) in slots {
                match slot {
                    Slot::Made(held) => all.insert(item.to_string(), held.digest.to_string()),
                    Slot::Absent => None,
                    Slot::Pending | Slot::Lost => return None,
                };
            }
            (!all.is_empty()).then(|| digest(&json!(all)))
        }
    }
}

fn digest(value: &Value) -> String {
    derive_digest(LOCK_CONTEXT, value).to_string()
}

/// TOML has no null; a parameter without a value is left out.
fn without_nulls(parameters: &Map<String, Value>) -> Map<String, Value> {
    let kept = parameters.iter().filter(|(_, value)| !value.is_null());
    kept.map(|(name, value)| (name.clone(), plain(value))).collect()
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Object(table) => Value::Object(without_nulls(table)),
        Value::Array(values) => Value::Array(values.iter().map(plain).collect()),
        // Lists may hold "nothing" at one of their places, which the workflow language writes the same way.
        Value::Null => Value::String("none".to_owned()),
        other => other.clone(),
    }
}

type SourceDigests = BTreeMap<String, BTreeMap<String, String>>;

fn source_differences(old: &SourceDigests, new: &SourceDigests) -> Vec<String> {
    let mut found = Vec::new();
    for (port, old) in old {
        let empty = BTreeMap::new();
        let new = new.get(port).unwrap_or(&empty);
        let at = |case: &str| if case.is_empty() { format!("`{port}`") } else { format!("case `{case}` of `{port}`") };
        found.extend(old.keys().filter(|case| !new.contains_key(*case)).map(|case| format!("{} is gone", at(case))));
        for (case, digest) in new {
            match old.get(case) {
                None => found.push(format!("{} is new", at(case))),
                Some(was) if was != digest => {
                    found.push(format!("{} changed ({} → {})", at(case), short(was), short(digest)));
                }
                Some(_) => {}
            }
        }
    }
    found.extend(new.keys().filter(|port| !old.contains_key(*port)).map(|port| format!("`{port}` is new")));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> LockedNode {
        let text = r#"{ "stage": "train", "version": 1, "seed": 7, "key": "aa",
            "outputs": { "model": "1234567890" }, "parameters": { "epochs": 9 } }"#;
        serde_json::from_str(text).expect("a locked node")
    }

    fn lock() -> Lock {
        Lock {
            version: LOCK_VERSION,
            workflow: "tiny".to_owned(),
            metrics: BTreeMap::from([("evaluate.foreground_mean.dice".to_owned(), 0.875)]),
            sources: BTreeMap::from([(
                "dataset.files".to_owned(),
                BTreeMap::from([("a".to_owned(), "00".to_owned())]),
            )]),
            nodes: BTreeMap::from([("train[2d,0]".to_owned(), node())]),
        }
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("tiny.lock");
        lock().write(&path).expect("the lock can be written");
        assert_eq!(Lock::read(&path), Ok(lock()));
    }

    #[test]
    fn a_lock_of_another_version_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("tiny.lock");
        Lock { version: 2, ..lock() }.write(&path).expect("the lock can be written");
        let message = Lock::read(&path).expect_err("another version").message;
        assert!(message.ends_with("it has version 2, expected 1"), "{message}");
    }

    #[test]
    fn a_parameter_is_told_before_what_follows_from_it() {
        let mut now = node();
        now.parameters.insert("epochs".to_owned(), json!(10));
        now.outputs.insert("model".to_owned(), "abcdefghij".to_owned());
        assert_eq!(node().difference(&now).as_deref(), Some("parameter `epochs` changed (9 → 10)"));
    }

    #[test]
    fn other_bytes_of_the_same_inputs_are_a_difference() {
        let now = LockedNode { outputs: BTreeMap::from([("model".to_owned(), "abcdefghij".to_owned())]), ..node() };
        let expected = "output `model` is another one (12345678 → abcdefgh)";
        assert_eq!(node().difference(&now).as_deref(), Some(expected));
    }

    #[test]
    fn another_stage_or_version_is_a_difference() {
        let other = LockedNode { stage: "train_fast".to_owned(), ..node() };
        assert_eq!(node().difference(&other).as_deref(), Some("stage `train_fast` 1 instead of `train` 1"));
        let newer = LockedNode { version: 2, ..node() };
        assert_eq!(node().difference(&newer).as_deref(), Some("stage `train` 2 instead of `train` 1"));
    }

    #[test]
    fn another_seed_is_a_difference() {
        assert_eq!(node().difference(&LockedNode { seed: Some(8), ..node() }).as_deref(), Some("another seed"));
    }

    fn skipped(reason: &str) -> LockedNode {
        let reason = Some(reason.to_owned());
        LockedNode { skipped: reason, key: None, outputs: BTreeMap::new(), ..node() }
    }

    #[test]
    fn a_node_that_no_longer_takes_part_is_a_difference() {
        let now = skipped("`3d_lowres` is not planned");
        assert_eq!(node().difference(&now).as_deref(), Some("it is skipped: `3d_lowres` is not planned"));
    }

    #[test]
    fn a_node_that_is_skipped_for_another_reason_is_a_difference() {
        let found = skipped("one").difference(&skipped("another"));
        assert_eq!(found.as_deref(), Some("it is skipped: another"));
    }

    #[test]
    fn a_node_that_is_skipped_as_before_is_none() {
        assert_eq!(skipped("one").difference(&skipped("one")), None);
    }

    #[test]
    fn a_node_that_takes_part_now_is_a_difference_once_it_has_run() {
        let expected = "it takes part; in the lock it is skipped: one";
        assert_eq!(skipped("one").difference(&node()).as_deref(), Some(expected));
        let waiting = LockedNode { key: None, outputs: BTreeMap::new(), ..node() };
        assert_eq!(skipped("one").difference(&waiting), None);
    }

    #[test]
    fn an_output_that_the_lock_does_not_know_is_no_difference() {
        let mut now = node();
        now.outputs.insert("curve".to_owned(), "abcdefghij".to_owned());
        assert_eq!(node().difference(&now), None);
    }

    #[test]
    fn an_output_of_the_lock_that_is_not_made_is_a_difference_once_the_node_has_run() {
        let now = LockedNode { outputs: BTreeMap::new(), ..node() };
        assert_eq!(node().difference(&now).as_deref(), Some("output `model` is not made"));
    }

    #[test]
    fn what_is_not_made_yet_is_no_difference() {
        let now = LockedNode { outputs: BTreeMap::new(), key: None, ..node() };
        assert_eq!(node().difference(&now), None);
    }

    #[test]
    fn each_case_that_differs_is_named() {
        let port = |cases: &[(&str, &str)]| {
            let cases = cases.iter().map(|(case, digest)| ((*case).to_owned(), (*digest).to_owned()));
            BTreeMap::from([("dataset.files".to_owned(), cases.collect())])
        };
        let found = source_differences(&port(&[("a", "0"), ("b", "1")]), &port(&[("b", "2"), ("c", "3")]));
        let expected = [
            "case `a` of `dataset.files` is gone",
            "case `b` of `dataset.files` changed (1 → 2)",
            "case `c` of `dataset.files` is new",
        ];
        assert_eq!(found, expected);
    }
}
