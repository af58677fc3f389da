//! The end of a run: its numbers, what is remembered of it, its exit code.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use nnflow_shared::{SharedStore, Tally};
use nnflow_stage::{ErrorKind, ErrorReport};
use petgraph::graph::NodeIndex;
use serde_json::json;

use super::outcome::{Exit, Failed, exit_of};
use super::run::describe;
use crate::engine::drive::RunEnd;
use crate::engine::events::{EVENTS_VERSION, RunEvent};
use crate::engine::metrics::{Checked, Metric};
use crate::engine::state::{State, Status};
use crate::report::{Closing, MetricLine, NodeLine, RunFolder, line_of};
use crate::session::Session;

/// What went to and came from the shared store.
pub(super) fn exchanged(shared: &SharedStore) -> RunEvent {
    let Tally { fetched, fetched_bytes, pushed, pushed_bytes } = shared.tally();
    RunEvent::Shared { address: shared.address().to_string(), fetched, fetched_bytes, pushed, pushed_bytes }
}

/// How a run has ended.
pub(super) fn ended(state: &State<'_>, end: &RunEnd) -> RunEvent {
    let (mut run, mut fresh, mut skipped, mut failed) = (0, 0, 0, 0);
    for index in &state.wanted {
        match &state.nodes[index.index()].status {
            Status::Done if state.tally(*index).made > 0 => run += 1,
            Status::Done => fresh += 1,
            Status::Skipped(_) => skipped += 1,
            Status::Failed | Status::Blocked(_) | Status::Waiting | Status::Active => failed += 1,
        }
    }
    RunEvent::Ended {
        success: failed == 0,
        interrupted: end.interrupted,
        run,
        fresh,
        skipped,
        failed,
        wall_seconds: end.wall_seconds,
    }
}

/// The numbers that a run ends with: those that are expected to reach something, and the mean Dice of each evaluation.
pub(super) fn metrics(state: &State<'_>, checked: &[Checked]) -> Result<Vec<MetricLine>, ErrorReport> {
    let path = ["foreground_mean".to_owned(), "dice".to_owned()];
    let mut lines = Vec::new();
    for index in state.graph.order().iter().filter(|index| state.wanted.contains(index)) {
        let name = format!("{}.{}", state.graph.node(*index).name, path.join("."));
        if checked.iter().any(|checked| checked.name == name) {
            continue;
        }
        if let Some(metric) = state.metric(*index, &path)? {
            lines.push(MetricLine { name, value: metric.to_string(), expected: None });
        }
    }
    for one in checked {
        let metric = one.value.map(|value| Metric { value, interval: one.interval });
        let value = metric.map_or_else(|| "nothing".to_owned(), |metric| metric.to_string());
        lines.push(MetricLine { name: one.name.clone(), value, expected: Some((one.expected.clone(), one.met)) });
    }
    Ok(lines)
}

/// The same as lines for a terminal.
pub(super) fn render_metrics(metrics: &[MetricLine]) -> String {
    let line = |metric: &MetricLine| {
        let expected = metric.expected.as_ref().map_or_else(String::new, |(expected, met)| {
            format!("  expected {expected}  {}", if *met { "met" } else { "not met" })
        });
        format!("  {:<48} {}{expected}\n", metric.name, metric.value)
    };
    metrics.iter().map(line).collect()
}

/// Remembers what the next run explains itself by, and writes the run's summary.
pub(super) fn remember(
    session: &Session,
    state: &State<'_>,
    end: &RunEnd,
    checked: &[Checked],
    folder: Option<&RunFolder>,
) -> Result<(), Failed> {
    let Some(folder) = folder else { return Ok(()) };
    let changed = |index: &&NodeIndex| state.tally(**index).made > 0;
    let nodes: BTreeSet<String> =
        state.wanted.iter().filter(changed).map(|index| state.graph.node(*index).name.clone()).collect();
    state.history().save(&session.store, &nodes)?;
    let units: serde_json::Map<_, _> = state
        .wanted
        .iter()
        .map(|index| {
            let tally = state.tally(*index);
            (
                state.graph.node(*index).name.clone(),
                json!({ "found": tally.found, "made": tally.made, "lost": tally.lost }),
            )
        })
        .collect();
    let document = json!({
        "version": EVENTS_VERSION,
        "workflow": session.workflow.name,
        "wall_seconds": end.wall_seconds,
        "interrupted": end.interrupted,
        "nodes": units,
        "usage": end.nodes,
        "expectations": checked,
    });
    let text = serde_json::to_string_pretty(&document).map_err(std::io::Error::from)?;
    Ok(fs_err::write(folder.path().join("summary.json"), text)?)
}

/// The end of a run, for a page.
pub(super) fn closing(session: &Session, state: &State<'_>, end: &RunEnd, metrics: Vec<MetricLine>) -> Closing {
    let wanted = state.graph.order().iter().filter(|index| state.wanted.contains(index));
    let nodes = wanted.map(|index| {
        let name = state.graph.node(*index).name.clone();
        let usage = end.nodes.get(&name).copied();
        let ran = usage.is_some() && state.nodes[index.index()].status == Status::Done;
        NodeLine { name, standing: if ran { "ran".to_owned() } else { describe(state, *index) }, usage }
    });
    Closing {
        workflow: session.workflow.name.clone(),
        verdict: line_of(&ended(state, end)).unwrap_or_default(),
        metrics,
        nodes: nodes.collect(),
        failures: end.failures.clone(),
    }
}

/// Appends the end of a run to a page.
pub(super) fn append_summary(path: &Path, closing: &Closing) -> Result<(), Failed> {
    append(path, &closing.to_markdown())
}

/// Appends to a page why a workflow was not run.
pub(super) fn append_refusal(path: &Path, workflow: &str, failed: &Failed) -> Result<(), Failed> {
    append(path, &format!("## {workflow}\n\n```text\n{}\n```\n", failed.to_string().trim_end()))
}

fn append(path: &Path, text: &str) -> Result<(), Failed> {
    let mut file = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// The exit code of a run.
pub(super) fn exit(state: &State<'_>, end: &RunEnd, checked: &[Checked], problems: &[String]) -> Exit {
    if let Some(worst) = worst(end.failures.iter().map(|failure| failure.report.kind)) {
        return exit_of(worst);
    }
    if !problems.is_empty() {
        return Exit::WrongInput;
    }
    let is_open = |index: &NodeIndex| !matches!(state.nodes[index.index()].status, Status::Done | Status::Skipped(_));
    if state.wanted.iter().any(is_open) {
        return if end.interrupted { Exit::Interrupted } else { Exit::StageFailed };
    }
    if checked.iter().any(|checked| checked.required && !checked.met) {
        return Exit::ExpectationNotMet;
    }
    Exit::Done
}

/// What decides about the exit code where several things failed: anything but wrong input, which may only follow from it.
pub(super) fn worst(kinds: impl Iterator<Item = ErrorKind> + Clone) -> Option<ErrorKind> {
    kinds.clone().find(|kind| *kind != ErrorKind::Input).or_else(|| kinds.clone().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_users_fault_decides_about_the_exit_code() {
        let kinds = [ErrorKind::Input, ErrorKind::Storage, ErrorKind::Internal];
        assert_eq!(worst(kinds.into_iter()), Some(ErrorKind::Storage));
        assert_eq!(worst([ErrorKind::Input].into_iter()), Some(ErrorKind::Input));
        assert_eq!(worst(std::iter::empty()), None);
    }
}
