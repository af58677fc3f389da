//! `nnflow run`: runs a workflow.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nnflow_cache::Store;
use nnflow_shared::{Mode, SharedStore, Tally};
use nnflow_stage::{ErrorKind, ErrorReport};
use petgraph::graph::NodeIndex;
use serde_json::json;

use super::cluster::ExecutorArguments;
use super::lock::{self, Locking, Obeyed};
use super::machine::{MachineArguments, worker_program};
use super::outcome::{Exit, Failed, complain, exit_of, print};
use super::sharing::{SharedArguments, tell_of_large_fetches};
use super::{Opening, target};
use crate::engine::drive::{Drive, Failure, OnFailure, RunEnd};
use crate::engine::elsewhere::Elsewhere;
use crate::engine::events::{EVENTS_VERSION, Listener, Listeners, RunEvent};
use crate::engine::metrics::{Checked, Metric};
use crate::engine::native::Native;
use crate::engine::perform::Performer;
use crate::engine::schedule::Scheduler;
use crate::engine::slurm::{Slurm, SlurmSettings, SlurmWishes};
use crate::engine::sources::Sources;
use crate::engine::state::{Forced, ReadyUnit, State, Status, UnitState};
use crate::engine::worker::WorkerPool;
use crate::report::{Journal, Plain, Terminal, render_failure};
use crate::session::Session;

/// What `nnflow run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// The workflow's file; `workflow.toml`, or the only workflow in this folder, by default.
    workflow: Option<PathBuf>,
    #[command(flatten)]
    opening: Opening,
    #[command(flatten)]
    shared: SharedArguments,
    #[command(flatten)]
    machine: MachineArguments,
    #[command(flatten)]
    executor: ExecutorArguments,
    /// Only tell what would run, and why; the shared store is not asked.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Run only these nodes and what they need, such as `plan` or `train[3d_fullres,*]`.
    #[arg(long, value_name = "NODE")]
    until: Vec<String>,
    /// Run these nodes even if their results are at hand.
    #[arg(long, value_name = "NODE")]
    force: Vec<String>,
    /// After a failure, run all that does not depend on it.
    #[arg(long, short = 'k')]
    keep_going: bool,
    /// Refuse to differ from the workflow's lock, in what goes in and in what comes out; exit with 3 where it would.
    #[arg(long)]
    locked: bool,
    /// Also write the run's events to a file, as JSON lines.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Print nothing but errors and the end.
    #[arg(long, short)]
    quiet: bool,
}

/// How a workflow is run.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunOptions {
    pub(crate) machine: MachineArguments,
    /// Whether the session's shared store takes part.
    pub(crate) shares: bool,
    /// What is asked of Slurm, where it runs what has tensors.
    pub(crate) slurm: Option<SlurmWishes>,
    pub(crate) until: Vec<String>,
    pub(crate) force: Vec<String>,
    pub(crate) keep_going: bool,
    /// Whether cases with missing files are left out, instead of nothing but the reading of the others being run.
    pub(crate) leaves_out_bad_cases: bool,
    pub(crate) events: Option<PathBuf>,
    pub(crate) quiet: bool,
    pub(crate) locking: Locking,
}

/// Runs a workflow, or tells what would run.
pub(crate) fn run(arguments: &RunArguments) -> Result<Exit, Failed> {
    let path = target::workflow_path(arguments.workflow.as_deref())?;
    let session = Session::open(&path, &arguments.shared.add_to(arguments.opening.options()))?;
    let options = RunOptions {
        machine: arguments.machine.clone(),
        shares: true,
        slurm: arguments.executor.wishes()?,
        until: arguments.until.clone(),
        force: arguments.force.clone(),
        keep_going: arguments.keep_going,
        leaves_out_bad_cases: false,
        events: arguments.events.clone(),
        quiet: arguments.quiet,
        locking: locking(arguments),
    };
    if arguments.dry_run {
        return dry_run(&session, &options);
    }
    Ok(run_session(&session, &options)?.exit)
}

/// Only a whole run of the workflow as its file says is worth a lock.
fn locking(arguments: &RunArguments) -> Locking {
    match (arguments.locked, arguments.until.is_empty() && arguments.opening.sets.is_empty()) {
        (true, _) => Locking::Obey,
        (false, true) => Locking::Write,
        (false, false) => Locking::Leave,
    }
}

/// How a run ended.
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) exit: Exit,
}

/// Runs a workflow that was opened.
pub(crate) fn run_session(session: &Session, options: &RunOptions) -> Result<Ran, Failed> {
    run_heard(session, options, Vec::new())
}

/// Runs a workflow that was opened, with somebody who hears of it.
pub(crate) fn run_heard(
    session: &Session,
    options: &RunOptions,
    listeners: Vec<Box<dyn Listener>>,
) -> Result<Ran, Failed> {
    let sources = session.sources()?;
    let problems = sources.problems.clone();
    let mut listeners = Listeners(listeners);
    if !options.quiet {
        listeners.0.push(if std::io::stderr().is_terminal() {
            Box::new(Terminal::new())
        } else {
            Box::new(Plain::new(std::io::stderr()))
        });
    }
    let warnings = sources.warnings.clone();
    let start = RunEvent::Started {
        version: EVENTS_VERSION,
        workflow: session.workflow.name.clone(),
        summary: summary(session, &sources, options),
    };
    let mut state = prepare(session, sources, options)?;
    state.shared = session.shared.as_ref().filter(|_| options.shares);
    if let Some(shared) = state.shared.filter(|_| !options.quiet) {
        tell_of_large_fetches(shared);
    }
    let ready = state.settle();
    let obeyed = if options.locking == Locking::Obey { Some(Obeyed::of(session)?) } else { None };
    obeyed.iter().try_for_each(|lock| lock.check(&state))?;
    let folder = if ready.is_empty() { None } else { Some(new_run_folder(session)?) };
    if let Some(folder) = &folder {
        listeners.0.push(Box::new(Journal::create(folder)?));
    }
    if let Some(path) = &options.events {
        listeners.0.push(Box::new(Journal::events_to(path)?));
    }
    listeners.hear(&start);
    for message in warnings {
        listeners.hear(&RunEvent::Warning { message });
    }
    let end = drive(session, &session.store, &mut state, ready, &mut listeners, options)?;
    if let Some(shared) = state.shared {
        listeners.hear(&exchanged(shared));
    }
    listeners.hear(&ended(&state, &end));
    let mut checked = state.check_expectations(&session.workflow.expectations)?;
    // What a run that was stopped has not come to yet is not a number that falls short.
    checked.retain(|checked| checked.value.is_some() || !end.interrupted);
    let rendered = render_metrics(&state, &checked)?;
    if !rendered.is_empty() {
        print(&rendered);
    }
    finish(session, &state, &end, &checked, folder.as_deref())?;
    complain_of_problems(&problems);
    obeyed.iter().try_for_each(|lock| lock.check(&state))?;
    if options.locking == Locking::Write {
        lock::write(session, &state, &checked);
    }
    Ok(Ran { exit: exit(&state, &end, &checked, &problems) })
}

/// The state with the nodes that are asked for.
pub(crate) fn prepare<'s>(session: &'s Session, sources: Sources, options: &RunOptions) -> Result<State<'s>, Failed> {
    let forced = find_all(session, &options.force)?.into_iter().collect::<Forced>();
    let mut wanted: BTreeSet<NodeIndex> = session.graph.order().iter().copied().collect();
    if !options.until.is_empty() {
        wanted = session.graph.ancestors(&find_all(session, &options.until)?);
    }
    if !sources.problems.is_empty() && !options.leaves_out_bad_cases {
        // A dataset with missing files is not worth hours of work; but what is wrong inside the others shall be told too.
        wanted.retain(|index| session.graph.node(*index).uses == "ingest");
    }
    Ok(session.state(sources, wanted, forced))
}

fn find_all(session: &Session, patterns: &[String]) -> Result<Vec<NodeIndex>, Failed> {
    let found = patterns.iter().map(|pattern| target::nodes(&session.graph, pattern));
    Ok(found.collect::<Result<Vec<_>, _>>()?.concat())
}

/// Runs all that is ready and what follows from it; `store` is where results go.
pub(crate) fn drive(
    session: &Session,
    store: &Store,
    state: &mut State<'_>,
    ready: Vec<ReadyUnit>,
    listener: &mut dyn Listener,
    options: &RunOptions,
) -> Result<RunEnd, ErrorReport> {
    let capacity = options.machine.capacity(&session.workflow.settings);
    let native = Native::new(capacity.threads)?;
    let workers = WorkerPool::new(worker_program());
    let cancel = cancel_flag();
    let performer = Performer {
        store,
        shared: state.shared.filter(|shared| shared.mode() == Mode::ReadWrite),
        native: &native,
        workers: &workers,
        cancel: &cancel,
        device: options.machine.device(&session.workflow.settings),
    };
    let scheduler = Scheduler::new(capacity);
    let on_failure = if options.keep_going { OnFailure::KeepGoing } else { OnFailure::FinishNode };
    let slurm = options.slurm.as_ref().map(|wishes| Slurm {
        store,
        settings: SlurmSettings::new(&session.workflow.slurm, wishes, performer.device.clone(), worker_program()),
        cancel: &cancel,
    });
    let elsewhere = slurm.as_ref().map(|slurm| slurm as &dyn Elsewhere);
    Ok(Drive::new(state, &performer, scheduler, listener, on_failure).with_elsewhere(elsewhere).run(ready))
}

/// A flag that the first SIGINT, SIGTERM or SIGUSR1 sets, the last of which schedulers send before a time limit; the second
/// one ends the program at once.
fn cancel_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGUSR1] {
        let conditional =
            signal_hook::flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, flag.clone());
        let registered = conditional.and_then(|_| signal_hook::flag::register(signal, flag.clone()));
        if let Err(error) = registered {
            complain(&format!("warning: signal {signal} will end the run without a checkpoint: {error}"));
        }
    }
    flag
}

fn summary(session: &Session, sources: &Sources, options: &RunOptions) -> String {
    let workflow = &session.workflow;
    let mut parts = vec![workflow.name.clone()];
    parts.extend(workflow.extends.last().cloned());
    if sources.n_cases > 0 {
        parts.push(format!("{} cases", sources.n_cases));
    }
    let capacity = options.machine.capacity(&workflow.settings);
    parts.push(format!("{} nodes", session.graph.len()));
    parts.extend(options.slurm.is_some().then(|| "Slurm".to_owned()));
    parts.push(if capacity.gpus > 0 {
        format!("{} GPUs", capacity.gpus)
    } else {
        format!("{} CPU threads", capacity.threads)
    });
    parts.join(" · ")
}

fn new_run_folder(session: &Session) -> Result<PathBuf, Failed> {
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S").to_string();
    let runs = session.store.runs_folder();
    fs_err::create_dir_all(&runs)?;
    let mut name = format!("{now}-{}", std::process::id());
    loop {
        // Jobs of an array start at the same time, and on two nodes of a cluster with the same number of a process.
        match fs_err::create_dir(runs.join(&name)) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => name.push('+'),
            made => return Ok(made.map(|()| runs.join(&name))?),
        }
    }
}

fn exchanged(shared: &SharedStore) -> RunEvent {
    let Tally { fetched, fetched_bytes, pushed, pushed_bytes } = shared.tally();
    RunEvent::Shared { address: shared.address().to_string(), fetched, fetched_bytes, pushed, pushed_bytes }
}

fn ended(state: &State<'_>, end: &RunEnd) -> RunEvent {
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

fn render_metrics(state: &State<'_>, checked: &[Checked]) -> Result<String, Failed> {
    let path = ["foreground_mean".to_owned(), "dice".to_owned()];
    let mut lines = String::new();
    for index in state.graph.order().iter().filter(|index| state.wanted.contains(index)) {
        let name = format!("{}.{}", state.graph.node(*index).name, path.join("."));
        if checked.iter().any(|checked| checked.name == name) {
            continue;
        }
        if let Some(metric) = state.metric(*index, &path)? {
            lines.push_str(&format!("  {name:<48} {metric}\n"));
        }
    }
    for one in checked {
        let metric = one.value.map(|value| Metric { value, interval: one.interval });
        let value = metric.map_or_else(|| "nothing".to_owned(), |metric| metric.to_string());
        let verdict = if one.met { "met" } else { "not met" };
        lines.push_str(&format!("  {:<48} {value}  expected {}  {verdict}\n", one.name, one.expected));
    }
    Ok(lines)
}

/// Remembers what the next run explains itself by, and writes the run's summary.
fn finish(
    session: &Session,
    state: &State<'_>,
    end: &RunEnd,
    checked: &[Checked],
    folder: Option<&Path>,
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
        "node_seconds": end.node_seconds,
        "expectations": checked,
    });
    let text = serde_json::to_string_pretty(&document).map_err(std::io::Error::from)?;
    Ok(fs_err::write(folder.join("summary.json"), text)?)
}

fn complain_of_problems(problems: &[String]) {
    if let Err(failed) = refuse_incomplete(problems) {
        complain(&failed.to_string());
    }
}

/// An error with all that is wrong with a dataset, if anything is.
pub(crate) fn refuse_incomplete(problems: &[String]) -> Result<(), Failed> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failed::Report(ErrorReport {
        details: problems.to_vec(),
        hint: Some("mend these and run again; what was read of the other cases is kept".to_owned()),
        ..ErrorReport::new(ErrorKind::Input, "the dataset is incomplete")
    }))
}

/// The error of the first unit whose stage cannot use what it reads, if there is one.
pub(crate) fn refuse_failed(state: &State<'_>) -> Result<(), Failed> {
    state.refused.first().map_or(Ok(()), |(_, report)| Err(Failed::Report(report.clone())))
}

fn exit(state: &State<'_>, end: &RunEnd, checked: &[Checked], problems: &[String]) -> Exit {
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
fn worst(kinds: impl Iterator<Item = ErrorKind> + Clone) -> Option<ErrorKind> {
    kinds.clone().find(|kind| *kind != ErrorKind::Input).or_else(|| kinds.clone().next())
}

/// Tells for each node: cached, will run and why, or unknown until which node has run.
fn dry_run(session: &Session, options: &RunOptions) -> Result<Exit, Failed> {
    let sources = session.sources()?;
    let problems = sources.problems.clone();
    let mut state = prepare(session, sources, options)?;
    state.settle();
    if options.locking == Locking::Obey {
        Obeyed::of(session)?.check(&state)?;
    }
    let mut text = String::new();
    for index in session.graph.order().iter().filter(|index| state.wanted.contains(index)) {
        text.push_str(&format!("{:<40} {}\n", session.graph.node(*index).name, describe(&state, *index)));
    }
    print(&text);
    complain_of_problems(&problems);
    for (unit, report) in &state.refused {
        let node = state.graph.node(unit.node).name.clone();
        let case = unit.item.as_deref().map(str::to_owned);
        complain(&render_failure(&Failure { node, case, report: report.clone() }));
    }
    let refused = worst(state.refused.iter().map(|(_, report)| report.kind)).map(exit_of);
    Ok(refused.unwrap_or(if problems.is_empty() { Exit::Done } else { Exit::WrongInput }))
}

/// How a node stands, in one line.
pub(crate) fn describe(state: &State<'_>, node: NodeIndex) -> String {
    let node_state = &state.nodes[node.index()];
    match &node_state.status {
        Status::Done => "cached".to_owned(),
        Status::Skipped(reason) => format!("skipped: {reason}"),
        Status::Blocked(reason) => format!("cannot run: {reason}"),
        Status::Failed => {
            let refused = state.refused.iter().find(|(unit, _)| unit.node == node);
            refused
                .map_or_else(|| "failed".to_owned(), |(_, report)| format!("fails before it runs: {}", report.message))
        }
        Status::Waiting => unknown(node_state.waits_for.as_deref()),
        Status::Active => {
            let mut phases = node_state.phases.iter().filter_map(|phase| phase.units.as_ref());
            phases.find_map(what_must_run).unwrap_or_else(|| unknown(node_state.waits_for.as_deref()))
        }
    }
}

/// What of a phase must run, and why; nothing where nothing of it is known to have to.
fn what_must_run(units: &BTreeMap<Option<Arc<str>>, UnitState>) -> Option<String> {
    let mut ready = units.iter().filter_map(|(case, unit)| match unit {
        UnitState::Ready(reason) => Some((case.as_deref(), reason)),
        _ => None,
    });
    let (case, reason) = ready.next()?;
    let Some(case) = case else { return Some(format!("will run: {reason}")) };
    let cached = units.values().filter(|unit| matches!(unit, UnitState::Done { .. })).count();
    let (count, all) = (ready.count() + 1, units.len());
    Some(format!("will run {count} of {all} cases ({cached} cached): `{case}`: {reason}"))
}

fn unknown(waits_for: Option<&str>) -> String {
    match waits_for {
        Some(node) => format!("unknown until `{node}` has run"),
        None => "unknown until what it reads has run".to_owned(),
    }
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

    #[test]
    fn of_cases_the_first_one_that_must_run_gives_the_reason() {
        let unit = |name: &str, unit| (Some(Arc::from(name)), unit);
        let done = UnitState::Done { key: nnflow_cache::Key::of(&json!(1)), hit: true };
        let ready = |reason: &str| UnitState::Ready(reason.to_owned());
        let units = BTreeMap::from([
            unit("a", done),
            unit("b", ready("new")),
            unit("c", ready("other")),
            unit("d", UnitState::Waiting),
        ]);
        assert_eq!(what_must_run(&units).as_deref(), Some("will run 2 of 4 cases (1 cached): `b`: new"));
    }
}
