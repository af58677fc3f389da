//! What can go wrong between nnflow and Slurm.

use std::path::PathBuf;

use nnflow_stage::{ErrorKind, ErrorReport};

/// What Slurm says when its controller cannot be reached or is busy, which passes.
const PASSING: [&str; 8] = [
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Communication connection failure",
    "Zero Bytes were transmitted",
    "Slurm temporarily unable",
    "backup controller in standby",
    "try again",
];

/// Why Slurm does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// A program of Slurm's cannot be started.
    #[error("`{program}` cannot be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A program of Slurm's failed.
    #[error("`{program}` failed: {message}")]
    Refused {
        /// The program.
        program: String,
        /// What it wrote.
        message: String,
    },
    /// A program of Slurm's did not answer in time.
    #[error("`{program}` gave no answer within {seconds} s")]
    Silent {
        /// The program.
        program: String,
        /// How long it had.
        seconds: u64,
    },
    /// A program of Slurm's wrote what nnflow does not understand.
    #[error("`{program}` wrote `{answer}`, expected {expected}")]
    Answer {
        /// The program.
        program: String,
        /// What it wrote.
        answer: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A file of a job's folder cannot be written or read.
    #[error("`{path}`: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
}

impl SlurmError {
    /// Whether another try may do, because only the controller did not answer.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Refused { message, .. } => PASSING.iter().any(|words| message.contains(words)),
            Self::Start { .. } | Self::Answer { .. } | Self::File { .. } => false,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Start { .. } => {
                Some("run this where Slurm's programs are on the PATH, such as the cluster's login node")
            }
            Self::Refused { message, .. } if message.contains("partition") => {
                Some("`sinfo` lists the partitions; `--partition NAME` or `[executor.slurm] partition` names one")
            }
            Self::Refused { message, .. } if message.contains("account") => {
                Some("`--account NAME` or `[executor.slurm] account` names the account that jobs are charged to")
            }
            Self::Refused { message, .. } if message.contains("node configuration is not available") => {
                Some("no node has so much: lower `resources` of the stage, or change `[executor.slurm] gpu`")
            }
            Self::Refused { message, .. } if message.contains("ime limit") => Some(
                "lower `resources.time` of the stage, or choose another partition; a training goes on in a new job",
            ),
            Self::Refused { .. } | Self::Silent { .. } if self.is_passing() => {
                Some("`scontrol ping` tells whether the controller is there")
            }
            _ => None,
        }
    }

    /// As plain data.
    #[must_use]
    pub fn report(&self) -> ErrorReport {
        let kind = if matches!(self, Self::File { .. }) { ErrorKind::Storage } else { ErrorKind::Executor };
        ErrorReport { hint: self.hint().map(str::to_owned), ..ErrorReport::new(kind, self.to_string()) }
    }
}

impl From<SlurmError> for ErrorReport {
    fn from(error: SlurmError) -> Self {
        error.report()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str) -> SlurmError {
        SlurmError::Refused { program: "sbatch".to_owned(), message: message.to_owned() }
    }

    #[test]
    fn a_controller_that_is_away_is_waited_for_and_a_wrong_partition_is_not() {
        let away = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)";
        assert!(refused(away).is_passing());
        assert!(!refused("sbatch: error: invalid partition specified: gpus").is_passing());
    }

    #[test]
    fn a_wrong_partition_is_told_with_what_lists_the_right_ones() {
        let report = refused("sbatch: error: invalid partition specified: gpus").report();
        assert_eq!(report.kind, ErrorKind::Executor);
        assert_eq!(report.message, "`sbatch` failed: sbatch: error: invalid partition specified: gpus");
        assert!(report.hint.is_some_and(|hint| hint.contains("`sinfo`")));
    }
}
