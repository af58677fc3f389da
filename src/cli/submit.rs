//! `nnflow submit`: hands all that is left of a workflow to Slurm and ends.

use std::path::PathBuf;

use super::cluster::JobArguments;
use super::machine::{MachineArguments, worker_program};
use super::outcome::{Exit, Failed, print};
use super::run::{self, RunOptions};
use super::{Opening, target};
use crate::engine::slurm::SlurmSettings;
use crate::engine::slurm::plan::{Submission, submit_graph};
use crate::session::Session;

/// What `nnflow submit` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct SubmitArguments {
    /// The workflow's file; `workflow.toml`, or the only workflow in this folder, by default.
    workflow: Option<PathBuf>,
    #[command(flatten)]
    opening: Opening,
    /// Submit only these nodes and what they need, such as `plan` or `train[3d_fullres,*]`.
    #[arg(long, value_name = "NODE")]
    until: Vec<String>,
    /// Device for training and prediction: `auto`, `cpu`, `cuda`.
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
    #[command(flatten)]
    jobs: JobArguments,
}

/// Submits a job for each node that is not done, and tells their numbers.
pub(crate) fn submit(arguments: &SubmitArguments) -> Result<Exit, Failed> {
    let path = target::workflow_path(arguments.workflow.as_deref())?;
    let session = Session::open(&path, &arguments.opening.options())?;
    let options = RunOptions { until: arguments.until.clone(), ..RunOptions::default() };
    let sources = session.sources()?;
    run::refuse_incomplete(&sources.problems)?;
    let mut state = run::prepare(&session, sources, &options)?;
    state.settle();
    run::refuse_failed(&state)?;
    let device = MachineArguments::on(arguments.device.clone()).device(&session.workflow.settings);
    let settings = SlurmSettings::new(&session.workflow.slurm, &arguments.jobs.wishes(), device, worker_program());
    let workflow = fs_err::canonicalize(&path)?;
    let submission = Submission { workflow: &workflow, sets: &arguments.opening.sets, settings: &settings };
    let mut count = 0usize;
    let submitted = submit_graph(&state, submission, |submitted| {
        count += usize::from(!submitted.is_old);
        let note = if submitted.is_old { "  (was there already)" } else { "" };
        print(&format!("{:<40} job {}{note}", submitted.node, submitted.id));
    });
    submitted.map_err(|error| error.report())?;
    print(&format!("{count} jobs submitted; `nnflow status` tells how they stand"));
    Ok(Exit::Done)
}
