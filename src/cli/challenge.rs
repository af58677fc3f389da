//! `nnflow cache challenge`: runs a node again beside the store and tells whether it makes the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use nnflow_cache::{Artifact, FileEntry, Key, Manifest, PortValue, Store};
use nnflow_stage::{ErrorKind, ErrorReport};
use petgraph::graph::NodeIndex;
use serde_json::Value;

use super::machine::MachineArguments;
use super::outcome::{Exit, Failed, print};
use super::run::{RunOptions, drive};
use super::{Opening, target};
use crate::engine::events::Listeners;
use crate::engine::record::value_difference;
use crate::engine::state::{State, Status, UnitState};
use crate::report::Plain;
use crate::session::Session;

/// What `nnflow cache challenge` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ChallengeArguments {
    /// The node or nodes, such as `plan` or `train[2d,0]`.
    node: String,
    /// The workflow's file; `workflow.toml`, or the only workflow in this folder, by default.
    #[arg(long, short, value_name = "FILE")]
    workflow: Option<PathBuf>,
    #[command(flatten)]
    opening: Opening,
    #[command(flatten)]
    machine: MachineArguments,
}

/// Runs nodes again; their results stay as they are, whatever comes of it.
pub(crate) fn challenge(arguments: &ChallengeArguments) -> Result<Exit, Failed> {
    let path = target::workflow_path(arguments.workflow.as_deref())?;
    let session = Session::open(&path, &arguments.opening.options())?;
    let nodes = target::nodes(&session.graph, &arguments.node)?;
    session.store.claim_what_is_used()?;
    let published = published(&session, &nodes)?;
    let folder = tempfile::Builder::new().prefix("challenge-").tempdir_in(session.store.root())?;
    let scratch = Store::open(folder.path())?;
    let forced: BTreeSet<NodeIndex> = nodes.iter().copied().collect();
    let mut state = session.state(session.sources()?, session.graph.ancestors(&nodes), forced);
    let ready = state.settle();
    let mut listeners = Listeners(vec![Box::new(Plain::new(std::io::stderr()))]);
    // What depends on bytes that came out otherwise cannot run; all the other cases still tell something.
    let options = RunOptions { machine: arguments.machine.clone(), keep_going: true, ..RunOptions::default() };
    let end = drive(&session, &scratch, &mut state, ready, &mut listeners, &options)?;
    let mut differences = String::new();
    let mut missing = String::new();
    for (unit, (key, old)) in &published {
        let Some(new) = scratch.lookup(key)?.hit() else {
            missing.push_str(&format!("{unit}: not made again\n"));
            continue;
        };
        if let Some(difference) = difference(&Sides { old: (&session.store, old), new: (&scratch, &new) }) {
            differences.push_str(&format!("{unit}: {difference}\n"));
        }
    }
    if end.interrupted {
        return Ok(Exit::Interrupted);
    }
    if !differences.is_empty() {
        print(&differences);
        return Ok(Exit::StageFailed);
    }
    if let Some(failure) = end.failures.into_iter().next() {
        return Err(Failed::Report(failure.report));
    }
    if !missing.is_empty() {
        print(&missing);
        return Ok(Exit::StageFailed);
    }
    let units = if published.len() == 1 { "1 unit".to_owned() } else { format!("{} units", published.len()) };
    print(&format!("{}: made again, the same bytes ({units})\n", arguments.node));
    Ok(Exit::Done)
}

/// The manifest of each unit of the nodes, all of which must have run.
fn published(session: &Session, nodes: &[NodeIndex]) -> Result<BTreeMap<String, (Key, Manifest)>, Failed> {
    let state = session.settled()?;
    let mut found = BTreeMap::new();
    for node in nodes {
        let name = &session.graph.node(*node).name;
        if let Status::Skipped(_) = state.nodes[node.index()].status {
            continue;
        }
        for (unit, key) in units(&state, *node).ok_or_else(|| unfinished(name))? {
            let manifest = session.store.lookup(&key)?.hit().ok_or_else(|| unfinished(name))?;
            found.insert(format!("{name}{unit}"), (key, manifest));
        }
    }
    Ok(found)
}

fn unfinished(node: &str) -> Failed {
    Failed::Report(ErrorReport {
        hint: Some("run it first".to_owned()),
        ..ErrorReport::new(ErrorKind::Input, format!("there is no result of `{node}` to hold a new one against"))
    })
}

/// The keys of a node's units, if all have ended well.
fn units(state: &State<'_>, node: NodeIndex) -> Option<Vec<(String, Key)>> {
    let phases = state.graph.node(node).spec.phases.iter().zip(&state.nodes[node.index()].phases);
    let mut found = Vec::new();
    for (phase, held) in phases {
        for (item, unit) in held.units.as_ref()? {
            let UnitState::Done { key, .. } = unit else { return None };
            let case = item.as_ref().map_or_else(String::new, |case| format!(", case `{case}`"));
            found.push((format!(" ({}{case})", phase.name), *key));
        }
    }
    Some(found)
}

/// Two results of one key, with the stores that hold their bytes.
struct Sides<'a> {
    old: (&'a Store, &'a Manifest),
    new: (&'a Store, &'a Manifest),
}

/// The first difference; what is incidental does not count.
fn difference(sides: &Sides<'_>) -> Option<String> {
    let (old, new) = (&sides.old.1.outputs, &sides.new.1.outputs);
    let ports = old.keys().chain(new.keys().filter(|port| !old.contains_key(*port)));
    for port in ports {
        let (Some(old), Some(new)) = (old.get(port), new.get(port)) else {
            return Some(format!("output `{port}` is made only one of the two times"));
        };
        if let Some(found) = value_of_port(sides, port, old, new) {
            return Some(found);
        }
    }
    None
}

fn value_of_port(sides: &Sides<'_>, port: &str, old: &PortValue, new: &PortValue) -> Option<String> {
    let by_case = |value: &PortValue| -> BTreeMap<String, Artifact> {
        value.artifacts().map(|(case, artifact)| (case.unwrap_or_default().to_owned(), artifact.clone())).collect()
    };
    let (old, new) = (by_case(old), by_case(new));
    if old.keys().ne(new.keys()) {
        return Some(format!("output `{port}` has other cases"));
    }
    let mut pairs = old.values().zip(new.values());
    pairs.find_map(|(old, new)| files(sides, port, old, new))
}

fn files(sides: &Sides<'_>, port: &str, old: &Artifact, new: &Artifact) -> Option<String> {
    let lasting = |artifact: &Artifact| -> BTreeMap<String, FileEntry> {
        let files = artifact.files().iter().filter(|file| !file.incidental);
        files.map(|file| (file.name.clone(), file.clone())).collect()
    };
    let (old, new) = (lasting(old), lasting(new));
    if old.keys().ne(new.keys()) {
        return Some(format!("output `{port}` has other files"));
    }
    let (old, new) = old.values().zip(new.values()).find(|(old, new)| old.digest != new.digest)?;
    let where_ = content_difference(sides, old, new);
    Some(format!("`{}` of output `{port}` differs{where_}", new.name))
}

/// Where two files differ, as far as their bytes are at hand.
fn content_difference(sides: &Sides<'_>, old: &FileEntry, new: &FileEntry) -> String {
    let read = |store: &Store, file: &FileEntry| fs_err::read(store.object_path(&file.digest));
    let (Ok(old), Ok(new)) = (read(sides.old.0, old), read(sides.new.0, new)) else { return String::new() };
    let document = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let told = document(&old).zip(document(&new)).and_then(|(old, new)| value_difference("", &old, &new));
    if let Some(told) = told {
        return format!(": {told}");
    }
    let first = old.iter().zip(&new).position(|(old, new)| old != new).unwrap_or(old.len().min(new.len()));
    format!(" from byte {first} on ({} and {} bytes)", old.len(), new.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Both times, each in a store of its own, with what is not the same in them.
    struct Times {
        folder: tempfile::TempDir,
    }

    impl Times {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a temporary folder can be made") }
        }

        /// The first difference between what was made the first and the second time.
        fn difference(&self, old: impl Fn(&Store) -> Ports, new: impl Fn(&Store) -> Ports) -> Option<String> {
            let [old, new]: [(Store, Manifest); 2] =
                [("old", &old as &dyn Fn(&Store) -> Ports), ("new", &new)].map(|(name, ports)| {
                    let store = Store::open(self.folder.path().join(name)).expect("a store can be made");
                    let manifest = Manifest::new(json!("work"), ports(&store));
                    (store, manifest)
                });
            difference(&Sides { old: (&old.0, &old.1), new: (&new.0, &new.1) })
        }
    }

    type Ports = BTreeMap<String, PortValue>;

    fn file(store: &Store, name: &str, text: &str) -> FileEntry {
        let (digest, bytes) = store.put_bytes(text.as_bytes()).expect("bytes can be stored");
        FileEntry { name: name.to_owned(), digest, bytes, incidental: name.ends_with(".log") }
    }

    fn artifact(store: &Store, files: &[(&str, &str)]) -> Artifact {
        Artifact::new(files.iter().map(|(name, text)| file(store, name, text)).collect()).expect("plain names")
    }

    /// The port `model` with these files.
    fn model(files: &'static [(&str, &str)]) -> impl Fn(&Store) -> Ports {
        move |store| BTreeMap::from([("model".to_owned(), PortValue::One(artifact(store, files)))])
    }

    /// The port `labels` with a file for each of these cases.
    fn labels(cases: &'static [(&str, &str)]) -> impl Fn(&Store) -> Ports {
        move |store| {
            let cases = cases.iter().map(|(case, text)| ((*case).to_owned(), artifact(store, &[("labels", text)])));
            BTreeMap::from([("labels".to_owned(), PortValue::Items(cases.collect()))])
        }
    }

    #[test]
    fn the_same_bytes_are_no_difference() {
        let made = || model(&[("weights", "0123"), ("model.json", "{}")]);
        assert_eq!(Times::new().difference(made(), made()), None);
    }

    #[test]
    fn the_first_byte_that_differs_is_told() {
        let found = Times::new().difference(model(&[("weights", "0123")]), model(&[("weights", "0193456")]));
        assert_eq!(found.as_deref(), Some("`weights` of output `model` differs from byte 2 on (4 and 7 bytes)"));
    }

    #[test]
    fn bytes_that_only_follow_are_told_by_where_they_begin() {
        let found = Times::new().difference(model(&[("weights", "0123")]), model(&[("weights", "01234")]));
        assert_eq!(found.as_deref(), Some("`weights` of output `model` differs from byte 4 on (4 and 5 bytes)"));
    }

    #[test]
    fn documents_differ_in_a_value() {
        let found = Times::new()
            .difference(model(&[("model.json", r#"{"epochs":1}"#)]), model(&[("model.json", r#"{"epochs":2}"#)]));
        assert_eq!(found.as_deref(), Some("`model.json` of output `model` differs: `epochs` changed (1 → 2)"));
    }

    #[test]
    fn what_is_incidental_does_not_count() {
        let found = Times::new().difference(
            model(&[("weights", "0"), ("a.log", "1 s")]),
            model(&[("weights", "0"), ("a.log", "2 s"), ("b.log", "")]),
        );
        assert_eq!(found, None);
    }

    #[test]
    fn other_files_are_a_difference() {
        let found = Times::new().difference(model(&[("weights", "0")]), model(&[("weights", "0"), ("more", "")]));
        assert_eq!(found.as_deref(), Some("output `model` has other files"));
    }

    #[test]
    fn other_cases_are_a_difference() {
        let found = Times::new().difference(labels(&[("a", "0")]), labels(&[("b", "0")]));
        assert_eq!(found.as_deref(), Some("output `labels` has other cases"));
    }

    #[test]
    fn any_case_may_differ() {
        let found = Times::new().difference(labels(&[("a", "0"), ("b", "1")]), labels(&[("a", "0"), ("b", "2")]));
        assert!(found.is_some_and(|found| found.starts_with("`labels` of output `labels` differs")));
    }

    #[test]
    fn an_output_that_is_made_once_is_a_difference_in_either_order() {
        let (none, one) = (|_: &Store| Ports::new(), model(&[("weights", "0")]));
        let expected = Some("output `model` is made only one of the two times");
        assert_eq!(Times::new().difference(none, &one).as_deref(), expected);
        assert_eq!(Times::new().difference(one, none).as_deref(), expected);
    }

    #[test]
    fn bytes_that_are_not_kept_differ_without_a_place() {
        let times = Times::new();
        let lost = |store: &Store| {
            let ports = model(&[("weights", "0")])(store);
            let digest = store.put_bytes(b"0").expect("bytes can be stored").0;
            fs_err::remove_file(store.object_path(&digest)).expect("the object can be removed");
            ports
        };
        let found = times.difference(lost, model(&[("weights", "1")]));
        assert_eq!(found.as_deref(), Some("`weights` of output `model` differs"));
    }
}
