//! `nnflow run`: runs a workflow.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nnflow_cache::Store;
use nnflow_shared::Mode;
use nnflow_stage::{ErrorKind, ErrorReport, Runner};
use petgraph::graph::NodeIndex;

use super::closing;
use super::cluster::ExecutorArguments;
use super::lock::{self, Locking, Obeyed};
use super::machine::{MachineArguments, worker_program};
use super::outcome::{Exit, Failed, complain, exit_of, print};
use super::sharing::{SharedArguments, tell_of_large_fetches};
use super::{Opening, target};
use crate::engine::drive::{Drive, Failure, OnFailure, RunEnd};
use crate::engine::elsewhere::Elsewhere;
use crate::engine::events::{EVENTS_VERSION, Listener, Listeners, RunEvent};
use crate::engine::fit;
use crate::engine::gpus;
use crate::engine::limits::WORKER_SILENCE;
use crate::engine::native::Native;
use crate::engine::perform::Performer;
use crate::engine::schedule::Scheduler;
use crate::engine::slurm::{Slurm, SlurmSettings, SlurmWishes};
use crate::engine::sources::Sources;
use crate::engine::state::{Forced, ReadyUnit, State, Status, UnitState};
use crate::engine::usage::Meter;
use crate::engine::worker::WorkerPool;
use crate::report::{Journal, Plain, RunFolder, Terminal, render_failure};
use crate::session::Session;
use crate::workflow::Node;

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
    /// Also append the end of the run to a file, as Markdown; in GitHub's CI "$GITHUB_STEP_SUMMARY".
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
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
    /// Whether this is a job of a cluster, which has a time limit of its own.
    pub(crate) is_job: bool,
    pub(crate) until: Vec<String>,
    pub(crate) force: Vec<String>,
    pub(crate) keep_going: bool,
    /// Whether cases with missing files are left out, instead of nothing but the reading of the others being run.
    pub(crate) leaves_out_bad_cases: bool,
    pub(crate) events: Option<PathBuf>,
    pub(crate) summary: Option<PathBuf>,
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
        is_job: false,
        until: arguments.until.clone(),
        force: arguments.force.clone(),
        keep_going: arguments.keep_going,
        leaves_out_bad_cases: false,
        events: arguments.events.clone(),
        summary: arguments.summary.clone(),
        quiet: arguments.quiet,
        locking: locking(arguments),
    };
    if arguments.dry_run {
        return dry_run(&session, &options);
    }
    let ran = run_session(&session, &options);
    if let (Err(failed), Some(path)) = (&ran, &options.summary) {
        closing::append_refusal(path, &session.workflow.name, failed)?;
    }
    Ok(ran?.exit)
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
    // A run that finds everything needs no claim, so that it can do without a store that can be written.
    let claimed = session.store.claim_what_is_used();
    let ready = state.settle();
    if !ready.is_empty() {
        claimed?;
    }
    let unfit = check_fit(session, &state, options)?;
    let obeyed = if options.locking == Locking::Obey { Some(Obeyed::of(session)?) } else { None };
    obeyed.iter().try_for_each(|lock| lock.check(&state))?;
    let folder = if ready.is_empty() { None } else { Some(RunFolder::begin(&session.store, &session.workflow.name)?) };
    if let Some(folder) = &folder {
        listeners.0.push(Box::new(Journal::create(folder.clone())?));
    }
    if let Some(path) = &options.events {
        listeners.0.push(Box::new(Journal::events_to(path)?));
    }
    listeners.hear(&start);
    for message in warnings.into_iter().chain(unfit) {
        listeners.hear(&RunEvent::Warning { message });
    }
    let end = drive(session, &session.store, &mut state, ready, &mut listeners, options)?;
    if let Some(shared) = state.shared {
        listeners.hear(&closing::exchanged(shared));
    }
    listeners.hear(&closing::ended(&state, &end));
    if options.quiet {
        end.failures.iter().for_each(|failure| complain(&render_failure(failure)));
    }
    let mut checked = state.check_expectations(&session.workflow.expectations)?;
    // What a run that was stopped has not come to yet is not a number that falls short.
    checked.retain(|checked| checked.value.is_some() || !end.interrupted);
    let metrics = closing::metrics(&state, &checked)?;
    if !metrics.is_empty() {
        print(&closing::render_metrics(&metrics));
    }
    closing::remember(session, &state, &end, &checked, folder.as_ref())?;
    if let Some(path) = &options.summary {
        closing::append_summary(path, &closing::closing(session, &state, &end, metrics))?;
    }
    complain_of_problems(&problems);
    obeyed.iter().try_for_each(|lock| lock.check(&state))?;
    if options.locking == Locking::Write {
        lock::write(session, &state, &checked);
    }
    Ok(Ran { exit: closing::exit(&state, &end, &checked, &problems) })
}

/// Warns of nodes that the machine is hardly enough for.
fn check_fit(session: &Session, state: &State<'_>, options: &RunOptions) -> Result<Vec<String>, ErrorReport> {
    let settings = &session.workflow.settings;
    let handed_over = |node: &Node| {
        node.spec.runner == Runner::Torch || session.workflow.slurm.stages.iter().any(|stage| stage.value == node.stage)
    };
    let elsewhere = |node: &Node| options.slurm.is_some() && handed_over(node);
    let capacity = options.machine.capacity(settings);
    let mut warnings = fit::check(state, capacity, options.machine.most_memory(settings), elsewhere)?;
    let trains = state.wanted.iter().any(|index| {
        let node = state.graph.node(*index);
        node.spec.runner == Runner::Torch && !elsewhere(node) && !state.nodes[index.index()].status.is_final()
    });
    if trains && capacity.gpus > 0 && options.machine.device(settings) != "cpu" {
        let used: Vec<_> = gpus::visible().into_iter().take(capacity.gpus).collect();
        warnings.extend(gpus::warnings(&used));
    }
    Ok(warnings)
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
    let silence = session.workflow.settings.worker_silence.unwrap_or(WORKER_SILENCE);
    let workers = WorkerPool::new(worker_program(), silence);
    let cancel = cancel_flag();
    let performer = Performer {
        store,
        shared: state.shared.filter(|shared| shared.mode() == Mode::ReadWrite),
        native: &native,
        workers: &workers,
        meter: Meter::default(),
        cancel: &cancel,
        keeps_time: !options.is_job,
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

/// Tells for each node: cached, will run and why, or unknown until which node has run.
fn dry_run(session: &Session, options: &RunOptions) -> Result<Exit, Failed> {
    let sources = session.sources()?;
    let problems = sources.problems.clone();
    let mut state = prepare(session, sources, options)?;
    state.settle();
    for warning in check_fit(session, &state, options)? {
        complain(&format!("warning: {warning}"));
    }
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
    let refused = closing::worst(state.refused.iter().map(|(_, report)| report.kind)).map(exit_of);
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
    fn of_cases_the_first_one_that_must_run_gives_the_reason() {
        let unit = |name: &str, unit| (Some(Arc::from(name)), unit);
        let done = UnitState::Done { key: nnflow_cache::Key::of(&serde_json::json!(1)), hit: true };
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
