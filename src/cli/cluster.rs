//! What the command line says about a cluster.

use super::outcome::Failed;
use crate::engine::slurm::SlurmWishes;

/// Where units run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Executor {
    /// On this machine.
    #[default]
    Local,
    /// Stages with tensors, and those that the workflow names, as jobs of Slurm.
    Slurm,
}

/// What the command line says about jobs of Slurm.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct JobArguments {
    /// The partition of Slurm's that jobs go to.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// The account that jobs are charged to.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Another option of sbatch for all jobs, as `--sbatch=--constraint=a100`; may be given several times.
    #[arg(long = "sbatch", value_name = "OPTION", allow_hyphen_values = true)]
    options: Vec<String>,
}

/// What `nnflow run` takes about where units run.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ExecutorArguments {
    /// Where training and prediction run, and the stages that `[executor.slurm] stages` names.
    #[arg(long, value_enum, default_value_t)]
    executor: Executor,
    #[command(flatten)]
    jobs: JobArguments,
    /// Leave the jobs in the queue when the run is interrupted, instead of cancelling them.
    #[arg(long)]
    detach: bool,
}

impl JobArguments {
    /// The same without clap.
    pub(crate) fn wishes(&self) -> SlurmWishes {
        let Self { partition, account, options } = self.clone();
        SlurmWishes { partition, account, options, detach: false }
    }
}

impl ExecutorArguments {
    /// What is asked of Slurm; nothing where everything runs here.
    pub(crate) fn wishes(&self) -> Result<Option<SlurmWishes>, Failed> {
        let wishes = SlurmWishes { detach: self.detach, ..self.jobs.wishes() };
        match self.executor {
            Executor::Slurm => Ok(Some(wishes)),
            Executor::Local if wishes == SlurmWishes::default() => Ok(None),
            Executor::Local => Err(Failed::input_with_hint(
                "`--partition`, `--account`, `--sbatch` and `--detach` are about Slurm, and everything runs here",
                "add `--executor slurm`",
            )),
        }
    }
}
