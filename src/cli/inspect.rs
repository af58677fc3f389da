//! Commands that only look: `status`, `graph`, `expand`, `check`, `show`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nnflow_cache::{Artifact, Store};
use petgraph::graph::NodeIndex;
use serde_json::Value;

use super::outcome::{Exit, Failed, complain, print};
use super::run::describe;
use super::{Opening, target};
use crate::engine::slurm;
use crate::engine::state::{Port, Slot, State};
use crate::report::{Live, RunFolder, list_cases, size};
use crate::session::{Registry, Session};
use crate::workflow;

/// A command about one workflow.
#[derive(Debug, clap::Args)]
pub(crate) struct WorkflowArguments {
    /// The workflow's file; `workflow.toml`, or the only workflow in this folder, by default.
    workflow: Option<PathBuf>,
    #[command(flatten)]
    opening: Opening,
}

/// What `nnflow status` takes.
pub(crate) type StatusArguments = WorkflowArguments;

/// What `nnflow graph` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct GraphArguments {
    /// The workflow's file; `workflow.toml`, or the only workflow in this folder, by default.
    workflow: Option<PathBuf>,
    /// The form of the drawing.
    #[arg(long, value_parser = ["dot", "mermaid", "svg"], default_value = "mermaid")]
    format: String,
    #[command(flatten)]
    opening: Opening,
}

/// What `nnflow show` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArguments {
    /// The node, such as `plan` or `train[3d_fullres,0]`, or several.
    node: String,
    /// Write what the node has made to this folder.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only this port of the node.
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Of a plan, tell for every number why it is so.
    #[arg(long)]
    why: bool,
    /// The workflow's file; `workflow.toml`, or the only workflow in this folder, by default.
    #[arg(long, short, value_name = "FILE")]
    workflow: Option<PathBuf>,
    #[command(flatten)]
    opening: Opening,
}

fn open(path: Option<&Path>, opening: &Opening) -> Result<Session, Failed> {
    Ok(Session::open(&target::workflow_path(path)?, &opening.options())?)
}

/// Tells for each node whether its result is at hand, or how far a run that is under way has come with it.
pub(crate) fn status(arguments: &StatusArguments) -> Result<Exit, Failed> {
    let session = open(arguments.workflow.as_deref(), &arguments.opening)?;
    let state = session.settled()?;
    let live = under_way(&session)?;
    let mut text = String::new();
    let jobs = slurm::status::of_nodes(&session.store).unwrap_or_else(|error| {
        complain(&format!("warning: how jobs of Slurm stand is not known: {error}"));
        BTreeMap::new()
    });
    for index in session.graph.order() {
        let name = &session.graph.node(*index).name;
        let job = jobs.get(name).filter(|_| !state.nodes[index.index()].status.is_final());
        let job = job.map_or_else(String::new, |job| format!(" ({job})"));
        let standing = live.describe(name).unwrap_or_else(|| describe(&state, *index));
        text.push_str(&format!("{name:<40} {standing}{job}\n"));
    }
    print(&text);
    Ok(Exit::Done)
}

/// How a run of the workflow that is under way stands, which is told first.
fn under_way(session: &Session) -> Result<Live, Failed> {
    let Some(run) = RunFolder::under_way(&session.store, &session.workflow.name)? else { return Ok(Live::default()) };
    print(&format!("a run is under way: {}, {}", run.runner(), run.path().display()));
    Ok(Live::of(run.events()?))
}

/// Draws the graph.
pub(crate) fn graph(arguments: &GraphArguments) -> Result<Exit, Failed> {
    let session = open(arguments.workflow.as_deref(), &arguments.opening)?;
    print(&match arguments.format.as_str() {
        "dot" => session.graph.to_dot(),
        "svg" => session.graph.to_svg(),
        _ => session.graph.to_mermaid(),
    });
    Ok(Exit::Done)
}

/// Prints a workflow with all that it inherits.
pub(crate) fn expand(arguments: &WorkflowArguments) -> Result<Exit, Failed> {
    let session = open(arguments.workflow.as_deref(), &arguments.opening)?;
    print(&workflow::expand(&session.workflow, &Registry));
    Ok(Exit::Done)
}

/// Checks a workflow and lists its sources.
pub(crate) fn check(arguments: &WorkflowArguments) -> Result<Exit, Failed> {
    let session = open(arguments.workflow.as_deref(), &arguments.opening)?;
    let sources = session.sources()?;
    for warning in &sources.warnings {
        super::outcome::complain(&format!("warning: {warning}"));
    }
    if !sources.problems.is_empty() {
        return Err(Failed::input(format!("the dataset is incomplete\n  {}", sources.problems.join("\n  "))));
    }
    print(&format!("`{}` is right: {} nodes, {} cases", session.workflow.name, session.graph.len(), sources.n_cases));
    Ok(Exit::Done)
}

/// Shows what a node has made, or writes it to a folder.
pub(crate) fn show(arguments: &ShowArguments) -> Result<Exit, Failed> {
    let session = open(arguments.workflow.as_deref(), &arguments.opening)?;
    let nodes = target::nodes(&session.graph, &arguments.node)?;
    let state = session.settled()?;
    let several = nodes.len() > 1;
    for node in nodes {
        let ports = made_by(&state, node, arguments.port.as_deref());
        let name = &session.graph.node(node).name;
        if ports.is_empty() {
            return Err(Failed::input(format!("`{name}` has made nothing yet: {}", describe(&state, node))));
        }
        match &arguments.output {
            Some(folder) => {
                let folder = if several { folder.join(name) } else { folder.clone() };
                write_ports(&session.store, &ports, &folder)?;
                print(&format!("wrote `{name}` to {}", folder.display()));
            }
            None if arguments.why => print(&why(&session.store, &ports)?),
            None => print(&render(&session.store, name, &ports)),
        }
    }
    Ok(Exit::Done)
}

/// What one port holds, for a person.
struct MadePort<'s> {
    name: &'static str,
    artifacts: Vec<(Option<&'s str>, &'s Artifact)>,
}

fn made_by<'s>(state: &'s State<'_>, node: NodeIndex, only: Option<&str>) -> Vec<MadePort<'s>> {
    let ports = state.nodes[node.index()].ports.iter().filter(|(name, _)| only.is_none_or(|only| **name == only));
    let made = ports.map(|(name, port)| {
        let artifacts = match port {
            Port::One(Slot::Made(held)) => vec![(None, &held.artifact)],
            Port::Items(Some(slots)) => slots
                .iter()
                .filter_map(|(item, slot)| match slot {
                    Slot::Made(held) => Some((Some(&**item), &held.artifact)),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        MadePort { name, artifacts }
    });
    made.filter(|port| !port.artifacts.is_empty()).collect()
}

fn render(store: &Store, node: &str, ports: &[MadePort<'_>]) -> String {
    let mut text = format!("{node}\n");
    for port in ports {
        match port.artifacts.as_slice() {
            [(None, artifact)] => {
                for file in artifact.files() {
                    let place = if store.has(&file.digest) {
                        store.object_path(&file.digest).display().to_string()
                    } else {
                        "not kept".to_owned()
                    };
                    text.push_str(&format!(
                        "  {:<14} {:<28} {:>10}  {place}\n",
                        port.name,
                        file.name,
                        size(file.bytes)
                    ));
                }
            }
            cases => {
                let names: Vec<&str> = cases.iter().filter_map(|(case, _)| *case).collect();
                let bytes = cases.iter().flat_map(|(_, artifact)| artifact.files()).map(|file| file.bytes).sum();
                text.push_str(&format!(
                    "  {:<14} {} cases ({})  {}\n",
                    port.name,
                    names.len(),
                    list_cases(&names),
                    size(bytes)
                ));
            }
        }
    }
    text
}

/// Files of one artifact lie in the folder itself, those of cases in a folder a case, or as `CASE.ending` where a case has
/// but one file.
fn write_ports(store: &Store, ports: &[MadePort<'_>], folder: &Path) -> Result<(), Failed> {
    let several = ports.len() > 1;
    for port in ports {
        let folder = if several { folder.join(port.name) } else { folder.to_path_buf() };
        for (case, artifact) in &port.artifacts {
            write_artifact(store, artifact, *case, &folder)?;
        }
    }
    Ok(())
}

/// Writes the files of an artifact.
pub(crate) fn write_artifact(
    store: &Store,
    artifact: &Artifact,
    case: Option<&str>,
    folder: &Path,
) -> Result<(), Failed> {
    for file in artifact.files() {
        let path = match (case, artifact.files()) {
            (None, _) => folder.join(&file.name),
            (Some(case), [only]) => {
                let ending = only.name.split_once('.').map_or(String::new(), |(_, ending)| format!(".{ending}"));
                folder.join(format!("{case}{ending}"))
            }
            (Some(case), _) => folder.join(case).join(&file.name),
        };
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        if path.exists() {
            fs_err::remove_file(&path)?;
        }
        fs_err::copy(store.object_path(&file.digest), &path)?;
        // Objects are read-only so that nobody alters them; the user's copy is the user's.
        let mut permissions = fs_err::metadata(&path)?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        fs_err::set_permissions(&path, permissions)?;
    }
    Ok(())
}

/// The file of an artifact that says why its document is as it is: a sentence for each place, its keys joined by dots.
const REASONS: &str = "reasons.json";

fn why(store: &Store, ports: &[MadePort<'_>]) -> Result<String, Failed> {
    let files: Vec<_> = ports.iter().flat_map(|port| &port.artifacts).flat_map(|(_, made)| made.files()).collect();
    let read = |wanted: &dyn Fn(&str) -> bool| -> Result<Option<Value>, Failed> {
        let Some(file) = files.iter().find(|file| wanted(&file.name)) else { return Ok(None) };
        let bytes = fs_err::read(store.object_path(&file.digest))?;
        Ok(Some(serde_json::from_slice(&bytes).map_err(std::io::Error::from)?))
    };
    let Some(Value::Object(reasons)) = read(&|name| name == REASONS)? else {
        return Err(Failed::input_with_hint(
            "this node gives no reasons",
            "`--why` is for a plan: `nnflow show plan --why`",
        ));
    };
    let document = read(&|name| name != REASONS && name.ends_with(".json"))?.unwrap_or_default();
    let told = reasons.iter().filter_map(|(place, reason)| {
        let value = document.pointer(&format!("/{}", place.replace('.', "/"))).and_then(shown);
        let value = value.map_or_else(String::new, |value| format!(" = {value}"));
        Some(format!("{place}{value}\n    {}\n", reason.as_str()?))
    });
    Ok(told.collect())
}

/// A value that fits on a line; none for what is long.
fn shown(value: &Value) -> Option<String> {
    const LONGEST: usize = 100;
    let text = value.to_string().replace(',', ", ");
    (!value.is_object() && text.len() <= LONGEST).then_some(text)
}
