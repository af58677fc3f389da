//! The command line: what `nnflow` can be told to do.

mod cache;
mod challenge;
mod closing;
mod cluster;
mod collect;
mod compare;
mod explain;
mod export;
mod import;
mod init;
mod inspect;
mod lock;
mod logs;
mod machine;
mod outcome;
mod phantom;
mod predict;
mod run;
mod sharing;
mod stage;
mod submit;
mod target;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub(crate) use outcome::complain;
pub use outcome::{Exit, Failed};

use crate::session::OpenOptions;

/// nnU-Net as a declared graph: one TOML file a dataset, every result addressed by its content.
#[derive(Debug, Parser)]
#[command(name = "nnflow", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workflow: only what has changed runs again.
    Run(run::RunArguments),
    /// Hand all that is left of a workflow to Slurm, and end.
    Submit(submit::SubmitArguments),
    /// Tell for each node whether its result is at hand, or how far a run under way has come with it.
    Status(inspect::StatusArguments),
    /// Tell why a node would run, or that it would not.
    Explain(explain::ExplainArguments),
    /// Draw the graph of a workflow.
    Graph(inspect::GraphArguments),
    /// Print a workflow with all that it inherits and all defaults, each value with where it comes from.
    Expand(inspect::WorkflowArguments),
    /// Check a workflow without running anything.
    Check(inspect::WorkflowArguments),
    /// Show what a node has made, or write it to a folder.
    Show(inspect::ShowArguments),
    /// Print what a node has said in its last run, or is saying.
    Logs(logs::LogsArguments),
    /// Compare two runs, case by case.
    Compare(compare::CompareArguments),
    /// Write a first workflow for a dataset.
    Init(init::InitArguments),
    /// Segment new images with a trained model.
    Predict(predict::PredictArguments),
    /// Turn a model of nnU-Net's into a bundle.
    Import(import::ImportArguments),
    /// Write a model as a folder that nnU-Net itself can predict with.
    Export(export::ExportArguments),
    /// List the stages, show one, or run one by itself.
    #[command(subcommand)]
    Stage(stage::StageCommand),
    /// Look after the store.
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Make a labelled dataset that looks and behaves like anatomy.
    Phantom(phantom::PhantomArguments),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Do what an element of a job is to do; for jobs of Slurm.
    #[command(hide = true)]
    Work(work::WorkArguments),
}

/// Which workflow a command is about, and how it is opened.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Opening {
    /// Change a value of the workflow, as `stages.train.with.epochs=5`; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The store's folder; `.nnflow` beside the workflow by default.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Opening {
    fn options(&self) -> OpenOptions {
        OpenOptions { sets: self.sets.clone(), store: self.store.clone(), ..OpenOptions::default() }
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments.command) {
        Ok(exit) => exit.into(),
        Err(failed) => {
            outcome::complain(&failed.to_string());
            failed.exit().into()
        }
    }
}

fn dispatch(command: Command) -> Result<Exit, Failed> {
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Submit(arguments) => submit::submit(&arguments),
        Command::Work(arguments) => work::work(&arguments),
        Command::Status(arguments) => inspect::status(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Graph(arguments) => inspect::graph(&arguments),
        Command::Expand(arguments) => inspect::expand(&arguments),
        Command::Check(arguments) => inspect::check(&arguments),
        Command::Show(arguments) => inspect::show(&arguments),
        Command::Logs(arguments) => logs::logs(&arguments),
        Command::Compare(arguments) => compare::compare(&arguments),
        Command::Init(arguments) => init::init(&arguments),
        Command::Predict(arguments) => predict::predict(&arguments),
        Command::Import(arguments) => import::import(&arguments),
        Command::Export(arguments) => export::export(&arguments),
        Command::Stage(command) => stage::stage(&command),
        Command::Cache(command) => cache::cache(&command),
        Command::Phantom(arguments) => phantom::phantom(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "nnflow", &mut script);
            outcome::print(&String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
    }
}
