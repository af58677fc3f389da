//! The job's side: does what an element of a job is to do, and leaves word of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nnflow_cache::{Key, Store};
use nnflow_nnunet::registry;
use nnflow_stage::{ErrorKind, ErrorReport, Runner, StageEvent, Task};
use petgraph::graph::NodeIndex;

use super::folder::{Folder, JobFile, ProgressSoFar, Report, ReportedEnd, Telling, ToldByUnit, UnitFile};
use super::submit;
use crate::cli::complain;
use crate::engine::job::{Job, Prelude};
use crate::engine::limits::WORKER_SILENCE;
use crate::engine::native::Native;
use crate::engine::perform::{Performer, storage};
use crate::engine::schedule::Grant;
use crate::engine::state::UnitId;
use crate::engine::usage::Meter;
use crate::engine::worker::WorkerPool;

/// Progress comes often, and each line goes over the network.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What may ask a job to stop.
#[derive(Debug, Default)]
pub struct StopSigns {
    /// Somebody does: leave a checkpoint and end.
    pub stop: Arc<AtomicBool>,
    /// It is because the time limit is near.
    pub time_is_up: Arc<AtomicBool>,
}

impl StopSigns {
    /// Hears SIGTERM, which Slurm sends to a job that is cancelled or has to make room, and SIGUSR1, which it sends some
    /// time before the limit.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen() -> std::io::Result<Self> {
        let signs = Self::default();
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGUSR1] {
            signal_hook::flag::register(signal, signs.stop.clone())?;
        }
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, signs.time_is_up.clone())?;
        Ok(signs)
    }

    /// Whether the job is to stop.
    #[must_use]
    pub fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How an element ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementEnd {
    /// All of it is done.
    Done,
    /// Some of it failed, and has said so.
    Failed,
    /// It was asked to stop; so far has it come.
    Stopped,
}

/// How far an element comes in this attempt, against how far it had come in those before.
#[derive(Debug)]
pub struct Progressing {
    before: ProgressSoFar,
    now: ProgressSoFar,
    ended: bool,
}

impl Progressing {
    /// Nothing yet, after what an earlier attempt has left.
    #[must_use]
    pub fn after(before: ProgressSoFar) -> Self {
        Self { now: before.clone(), before, ended: false }
    }

    /// A unit has come so far.
    pub fn reach(&mut self, unit: usize, done: u64) {
        let best = self.now.entry(unit).or_default();
        *best = done.max(*best);
    }

    /// A unit has ended.
    pub fn end_unit(&mut self) {
        self.ended = true;
    }

    /// Whether another attempt may come further than this one has.
    #[must_use]
    pub fn has_advanced(&self) -> bool {
        let further = |(unit, done): (&usize, &u64)| *done > self.before.get(unit).copied().unwrap_or(0);
        self.ended || self.now.iter().any(further)
    }

    /// How far all have come.
    #[must_use]
    pub fn so_far(&self) -> &ProgressSoFar {
        &self.now
    }
}

/// Runs the units of an element, one after the other. One that fails does not keep the others from being run.
///
/// # Errors
/// If the store or the job's folder cannot be used.
pub fn run_units(
    folder: &Folder,
    element: usize,
    job: &JobFile,
    units: &[UnitFile],
    signs: &StopSigns,
) -> Result<ElementEnd, ErrorReport> {
    let store = open(&job.store)?;
    let native = Native::new(job.request.threads)?;
    let workers = WorkerPool::new(job.worker.clone(), WORKER_SILENCE);
    let device = job.device.clone();
    // The driver shares what its jobs have published, and the cluster keeps the time.
    let performer = Performer {
        store: &store,
        shared: None,
        native: &native,
        workers: &workers,
        meter: Meter::default(),
        cancel: &signs.stop,
        keeps_time: false,
        device,
    };
    folder.leave_requeued(element, false)?;
    let telling = folder.tell(element)?;
    let progressing = Progressing::after(folder.progress(element)?);
    let mut attempt = Attempt { folder, element, telling, progressing, last_progress: None, is_mute: false };
    let mut failed = false;
    for (number, unit) in units.iter().enumerate() {
        if let Some(report) = folder.report(element, number)? {
            failed |= report.end != ReportedEnd::Done;
            continue;
        }
        let start = Instant::now();
        let result = match is_published(&store, &unit.key)? {
            true => Ok(()),
            false if signs.is_to_stop() => return attempt.stop(job, number, signs),
            false => run_unit(&performer, job, unit, &mut |event| attempt.tell(number, event)),
        };
        let end = match result {
            Ok(()) => ReportedEnd::Done,
            // A worker may be ended by the same signal as this process.
            Err(report) if signs.is_to_stop() && report.kind != ErrorKind::Input => {
                complain(&format!("stopped: {}", report.message));
                return attempt.stop(job, number, signs);
            }
            Err(report) => ReportedEnd::Failed(report),
        };
        failed |= end != ReportedEnd::Done;
        attempt.leave(number, end, start)?;
    }
    Ok(if failed { ElementEnd::Failed } else { ElementEnd::Done })
}

/// Puts an element that has to stop in the queue again if its time is up, or says why that would be of no use. One that
/// was asked to stop for another reason only leaves how far it has come: whoever cancelled it knows why, and whoever
/// needed its place puts it in the queue again.
///
/// # Errors
/// Why it cannot go on.
pub fn go_on_later(
    folder: &Folder,
    element: usize,
    job: &JobFile,
    progressing: &Progressing,
    signs: &StopSigns,
) -> Result<(), ErrorReport> {
    folder.leave_progress(element, progressing.so_far())?;
    if !signs.time_is_up.load(Ordering::Relaxed) {
        return Ok(());
    }
    if !progressing.has_advanced() {
        return Err(no_progress(job));
    }
    let restarts = environment("SLURM_RESTART_COUNT").and_then(|count| count.parse().ok()).unwrap_or(0);
    if job.requeues <= restarts {
        return Err(too_often(restarts));
    }
    let id = environment("SLURM_ARRAY_JOB_ID").zip(environment("SLURM_ARRAY_TASK_ID"));
    // Before it is asked for: it may be the last thing that this process does.
    folder.leave_requeued(element, true)?;
    let requeued = id.map(|(array, task)| submit::requeue(&format!("{array}_{task}")));
    if let Some(Err(error)) = requeued {
        complain(&format!("the job cannot put itself in the queue again: {error}"));
        folder.leave_stopped(element)?;
        folder.leave_requeued(element, false)?;
    }
    Ok(())
}

/// The error of a job that does not come further within its time limit.
#[must_use]
pub fn no_progress(job: &JobFile) -> ErrorReport {
    let limit = job.request.time.map_or_else(
        || "the partition's time limit".to_owned(),
        |time| format!("its time limit of {}", crate::report::duration(time.as_secs_f64())),
    );
    ErrorReport {
        hint: Some("raise `resources.time` of the stage, or `time` in `[executor.slurm]`".to_owned()),
        ..ErrorReport::new(ErrorKind::Executor, format!("the job did not come any further within {limit}"))
    }
}

/// The error of a job that was cut short too often.
#[must_use]
pub fn too_often(times: u32) -> ErrorReport {
    ErrorReport {
        hint: Some(
            "run again to go on from the last checkpoint; `requeues` in `[executor.slurm]` allows more".to_owned(),
        ),
        ..ErrorReport::new(ErrorKind::Executor, format!("the job was cut short {} times", times.saturating_add(1)))
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An attempt at the units of an element.
struct Attempt<'f> {
    folder: &'f Folder,
    element: usize,
    telling: Telling,
    progressing: Progressing,
    last_progress: Option<Instant>,
    is_mute: bool,
}

impl Attempt<'_> {
    fn tell(&mut self, unit: usize, event: StageEvent) {
        match &event {
            StageEvent::Progress(progress) => {
                self.progressing.reach(unit, progress.done);
                if self.last_progress.is_some_and(|last| last.elapsed() < PROGRESS_EVERY) {
                    return;
                }
                self.last_progress = Some(Instant::now());
            }
            StageEvent::Log { line } => complain(line),
        }
        // What cannot be told is no reason to end the work, but it is said once.
        if let Err(error) = self.telling.tell(&ToldByUnit { unit, event })
            && !std::mem::replace(&mut self.is_mute, true)
        {
            complain(&format!("warning: what this job tells is incomplete: {error}"));
        }
    }

    fn leave(&mut self, unit: usize, end: ReportedEnd, start: Instant) -> Result<(), ErrorReport> {
        self.progressing.end_unit();
        let report = Report { end, wall_seconds: start.elapsed().as_secs_f64() };
        Ok(self.folder.leave_report(self.element, unit, &report)?)
    }

    fn stop(mut self, job: &JobFile, unit: usize, signs: &StopSigns) -> Result<ElementEnd, ErrorReport> {
        match go_on_later(self.folder, self.element, job, &self.progressing, signs) {
            Ok(()) => Ok(ElementEnd::Stopped),
            Err(report) => {
                self.leave(unit, ReportedEnd::Failed(report), Instant::now())?;
                Ok(ElementEnd::Failed)
            }
        }
    }
}

fn run_unit(
    performer: &Performer<'_>,
    job: &JobFile,
    unit: &UnitFile,
    event: &mut (dyn FnMut(StageEvent) + Send),
) -> Result<(), ErrorReport> {
    let work = Job {
        // The graph that gives a unit its place is in another process, and nobody here asks for it.
        id: UnitId { node: NodeIndex::end(), phase: 0, item: unit.task.item.as_deref().map(Arc::from) },
        key: unit.key,
        record: unit.record.clone(),
        stage: stage(&unit.task)?,
        task: unit.task.clone(),
        device: unit.device.clone(),
        time: None,
        processes: unit.processes,
        store: true,
        prelude: unit.prelude.iter().map(prelude).collect::<Result<_, _>>()?,
    };
    let gpus = if work.runner() == Runner::Torch { (0..job.request.gpus).collect() } else { Vec::new() };
    let memory_bytes = job.request.memory_bytes.unwrap_or_default();
    let grant = Grant { threads: job.request.threads, memory_bytes, gpus };
    let made = performer.perform(work, grant, event, |_| {}).map_err(|failed| failed.1)?;
    performer.publish(vec![made]).into_iter().try_for_each(|(_, result)| result.map(drop))
}

fn prelude(task: &Task) -> Result<Prelude, ErrorReport> {
    Ok(Prelude { stage: stage(task)?, task: task.clone() })
}

fn stage(task: &Task) -> Result<&'static dyn nnflow_stage::Stage, ErrorReport> {
    registry::stage(&task.stage).ok_or_else(|| {
        ErrorReport::new(ErrorKind::Internal, format!("this version of nnflow has no stage `{}`", task.stage))
    })
}

fn open(store: &Path) -> Result<Store, ErrorReport> {
    Store::open(store).map_err(|error| storage(&error))
}

fn is_published(store: &Store, key: &Key) -> Result<bool, ErrorReport> {
    store.lookup(key).map(|found| found.hit().is_some()).map_err(|error| storage(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_has_advanced_when_a_unit_has_come_further_than_before() {
        let mut progressing = Progressing::after(ProgressSoFar::from([(0, 7)]));
        progressing.reach(0, 5);
        assert!(!progressing.has_advanced());
        progressing.reach(0, 8);
        assert!(progressing.has_advanced());
        assert_eq!(progressing.so_far(), &ProgressSoFar::from([(0, 8)]));
    }

    #[test]
    fn an_attempt_that_has_ended_a_unit_has_advanced() {
        let mut progressing = Progressing::after(ProgressSoFar::new());
        assert!(!progressing.has_advanced());
        progressing.end_unit();
        assert!(progressing.has_advanced());
    }
}
