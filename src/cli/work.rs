//! `nnflow work`: what a job of Slurm runs. It is nothing that a person would call.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nnflow_stage::{ErrorKind, ErrorReport};

use super::machine::MachineArguments;
use super::outcome::{Exit, Failed, complain, exit_of};
use super::run::{RunOptions, run_heard};
use crate::engine::events::{Listener, RunEvent};
use crate::engine::slurm::folder::{Folder, JobFile, Report, ReportedEnd, Work};
use crate::engine::slurm::work::{ElementEnd, Progressing, StopSigns, go_on_later, run_units};
use crate::report::render_report;
use crate::session::{OpenOptions, Session};

/// What `nnflow work` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct WorkArguments {
    /// The job's folder.
    folder: PathBuf,
    /// The number of the element in the job's array.
    element: usize,
}

/// Does what an element of a job is to do.
pub(crate) fn work(arguments: &WorkArguments) -> Result<Exit, Failed> {
    let signs = StopSigns::listen()?;
    let folder = Folder::at(arguments.folder.clone());
    let number = arguments.element;
    let job = folder.job().map_err(ErrorReport::from)?;
    let job = job.ok_or_else(|| Failed::input("there is no job in this folder that this version of nnflow knows"))?;
    let element = job.elements.get(number).ok_or_else(|| Failed::input(format!("the job has no element {number}")))?;
    let end = match &element.work {
        Work::Units(units) => run_units(&folder, number, &job, units, &signs)?,
        Work::Node { workflow, sets } => {
            let node = Node { folder: &folder, number, job: &job, name: &element.node, workflow, sets };
            return node.run(&signs);
        }
    };
    Ok(match end {
        ElementEnd::Done => Exit::Done,
        ElementEnd::Failed => Exit::StageFailed,
        ElementEnd::Stopped => Exit::Interrupted,
    })
}

/// An element that is a node of a workflow.
struct Node<'a> {
    folder: &'a Folder,
    number: usize,
    job: &'a JobFile,
    name: &'a str,
    workflow: &'a Path,
    sets: &'a [String],
}

impl Node<'_> {
    /// Runs what has to run of the node, and leaves word of how it ended.
    fn run(&self, signs: &StopSigns) -> Result<Exit, Failed> {
        let start = Instant::now();
        let before = self.folder.progress(self.number).map_err(ErrorReport::from)?;
        let heard = Heard { progressing: Progressing::after(before), failure: None };
        let heard = Arc::new(Mutex::new(heard));
        let result = self.run_session(Hearing(heard.clone()));
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (exit, end) = match result {
            Ok(Exit::Done | Exit::ExpectationNotMet) => (Exit::Done, ReportedEnd::Done),
            _ if signs.stop.load(Ordering::Relaxed) => {
                match go_on_later(self.folder, self.number, self.job, &heard.progressing, signs) {
                    Ok(()) => return Ok(Exit::Interrupted),
                    Err(report) => {
                        complain(&format!("error: {}", render_report(&report)));
                        (exit_of(report.kind), ReportedEnd::Failed(report))
                    }
                }
            }
            Ok(exit) => {
                let unknown = || ErrorReport::new(ErrorKind::Internal, "something before it is not at hand");
                (exit, ReportedEnd::Failed(heard.failure.clone().unwrap_or_else(unknown)))
            }
            Err(failed) => {
                let text = failed.to_string();
                complain(&text);
                let report = ErrorReport::new(ErrorKind::Executor, text.lines().next().unwrap_or(&text));
                (failed.exit(), ReportedEnd::Failed(report))
            }
        };
        let report = Report { end, wall_seconds: start.elapsed().as_secs_f64() };
        self.folder.leave_report(self.number, 0, &report).map_err(ErrorReport::from)?;
        Ok(exit)
    }

    fn run_session(&self, hearing: Hearing) -> Result<Exit, Failed> {
        let options =
            OpenOptions { sets: self.sets.to_vec(), store: Some(self.job.store.clone()), ..OpenOptions::default() };
        let session = Session::open(self.workflow, &options)?;
        let options = RunOptions {
            machine: MachineArguments::of_job(&self.job.request, &self.job.device),
            is_job: true,
            until: vec![self.name.to_owned()],
            ..RunOptions::default()
        };
        Ok(run_heard(&session, &options, vec![Box::new(hearing)])?.exit)
    }
}

/// What is heard of a node's run.
struct Heard {
    progressing: Progressing,
    failure: Option<ErrorReport>,
}

struct Hearing(Arc<Mutex<Heard>>);

impl Listener for Hearing {
    fn hear(&mut self, event: &RunEvent) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            RunEvent::UnitProgress { progress, .. } => heard.progressing.reach(0, progress.done),
            RunEvent::UnitDone { .. } => heard.progressing.end_unit(),
            RunEvent::UnitFailed { report, .. } => drop(heard.failure.get_or_insert_with(|| report.clone())),
            _ => {}
        }
    }
}
