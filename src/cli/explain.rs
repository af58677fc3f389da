//! `nnflow explain`: why a node would run, or that it would not.

use std::path::PathBuf;

use petgraph::graph::NodeIndex;

use super::outcome::{Exit, Failed, print};
use super::run::describe;
use super::{Opening, target};
use crate::engine::state::{State, Status, UnitState};
use crate::session::Session;

/// What `nnflow explain` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArguments {
    /// The node or nodes, such as `train[3d_fullres,0]` or `train`.
    node: String,
    /// Only this case of a per-case node.
    #[arg(long, value_name = "CASE")]
    case: Option<String>,
    /// The workflow's file; `workflow.toml`, or the only workflow in this folder, by default.
    #[arg(long, short, value_name = "FILE")]
    workflow: Option<PathBuf>,
    #[command(flatten)]
    opening: Opening,
}

/// Tells in one sentence a node, or in one a case.
pub(crate) fn explain(arguments: &ExplainArguments) -> Result<Exit, Failed> {
    let path = target::workflow_path(arguments.workflow.as_deref())?;
    let session = Session::open(&path, &arguments.opening.options())?;
    let nodes = target::nodes(&session.graph, &arguments.node)?;
    let state = session.settled()?;
    let mut text = String::new();
    for node in nodes {
        let name = &session.graph.node(node).name;
        match &arguments.case {
            None => text.push_str(&format!("{name}: {}\n", sentence(&state, node))),
            Some(case) => text.push_str(&format!("{name}, case `{case}`: {}\n", case_sentence(&state, node, case)?)),
        }
    }
    print(&text);
    Ok(Exit::Done)
}

fn sentence(state: &State<'_>, node: NodeIndex) -> String {
    match state.nodes[node.index()].status {
        Status::Done => "cached: nothing that it reads has changed".to_owned(),
        _ => describe(state, node).replacen("will run", "would run", 1),
    }
}

fn case_sentence(state: &State<'_>, node: NodeIndex, case: &str) -> Result<String, Failed> {
    let phases = state.nodes[node.index()].phases.iter().filter_map(|phase| phase.units.as_ref());
    let mut found = phases.flat_map(|units| units.iter()).filter(|(item, _)| item.as_deref() == Some(case));
    let Some((_, unit)) = found.next() else {
        let name = &state.graph.node(node).name;
        return Err(Failed::input(format!("`{name}` has no case `{case}`, or it is not yet known which cases it has")));
    };
    Ok(match unit {
        UnitState::Done { .. } => "cached: nothing that it reads has changed".to_owned(),
        UnitState::Ready(reason) => format!("would run: {reason}"),
        UnitState::Waiting => "unknown until what it reads has run".to_owned(),
        UnitState::Failed(report) => format!("fails before it runs: {}", report.message),
        UnitState::Blocked => "cannot run: what it reads failed".to_owned(),
    })
}
