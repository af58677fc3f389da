//! What is to be done about units whose job has ended without a word about them.

use std::path::PathBuf;

use nnflow_stage::{ErrorKind, ErrorReport};

use super::folder::JobFile;
use super::queue::Ending;
use super::work;

/// All that is known of such a job.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// What it was to do.
    pub(super) job: &'a JobFile,
    /// How it is called in Slurm.
    pub(super) name: String,
    /// How it ended; nothing where Slurm does not know of it any more.
    pub(super) ending: Option<Ending>,
    /// The signal that ended it, if one is known.
    pub(super) signal: Option<i32>,
    /// Whether it left word that it was stopped and that nothing is wrong with it.
    pub(super) was_stopped: bool,
    /// Whether any of its units came further.
    pub(super) has_advanced: bool,
    /// How often its units had been cut short before.
    pub(super) cut_short: u32,
    /// Where its log lies.
    pub(super) log: PathBuf,
}

/// What is to be done about its units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are submitted again.
    Submit,
    /// They have failed.
    Fail(ErrorReport),
}

impl Facts<'_> {
    /// What is to be done about the units.
    pub(super) fn verdict(&self) -> Verdict {
        let Some(ending) = self.ending.filter(|_| !self.was_stopped) else { return self.again() };
        let name = &self.name;
        match (ending, self.signal) {
            (Ending::Preempted | Ending::NodeFailed, _) => self.again(),
            (Ending::Timeout, _) if self.has_advanced => self.again(),
            (Ending::Timeout, _) => Verdict::Fail(work::no_progress(self.job)),
            // The second is what a cluster without control groups does to a job that takes too much.
            (Ending::OutOfMemory, _) | (Ending::Failed, Some(libc::SIGKILL)) => Verdict::Fail(self.out_of_memory()),
            (Ending::Failed, Some(signal)) => self.fail(format!("job {name} was ended by signal {signal}")),
            (Ending::Failed, None) => self.fail(format!("job {name} failed before it could say why")),
            (Ending::Completed, _) => self.fail(format!("job {name} ended without a word about this unit")),
            (Ending::Deadline, _) => self.fail(format!("job {name} was past its deadline")),
            (Ending::Cancelled, _) => {
                let hint = "run again to submit it anew; a training goes on from its last checkpoint";
                failed(ErrorKind::Executor, format!("job {name} was cancelled"), hint)
            }
        }
    }

    fn again(&self) -> Verdict {
        match self.cut_short >= self.job.requeues {
            true => Verdict::Fail(work::too_often(self.cut_short)),
            false => Verdict::Submit,
        }
    }

    fn fail(&self, message: String) -> Verdict {
        failed(ErrorKind::Executor, message, &format!("its log is {}", self.log.display()))
    }

    fn out_of_memory(&self) -> ErrorReport {
        let asked = self.job.request.memory_bytes;
        let asked = asked.map_or_else(|| "the cluster's default".to_owned(), crate::report::size);
        let message = format!("job {} was ended for lack of memory: it had {asked}", self.name);
        ErrorReport {
            hint: Some("raise `resources.memory` of the stage".to_owned()),
            ..ErrorReport::new(ErrorKind::Resource, message)
        }
    }
}

fn failed(kind: ErrorKind, message: String, hint: &str) -> Verdict {
    Verdict::Fail(ErrorReport { hint: Some(hint.to_owned()), ..ErrorReport::new(kind, message) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::folder::JOB_VERSION;
    use super::super::settings::Request;
    use super::*;

    fn job() -> JobFile {
        let time = Some(Duration::from_secs(7200));
        JobFile {
            version: JOB_VERSION,
            name: "nnflow-train-1".to_owned(),
            store: PathBuf::from("store"),
            request: Request { threads: 1, memory_bytes: Some(1 << 30), gpus: 1, time },
            device: "cuda".to_owned(),
            worker: PathBuf::from("nnflow-torch"),
            requeues: 3,
            elements: Vec::new(),
        }
    }

    fn facts(job: &JobFile, ending: Option<Ending>) -> Facts<'_> {
        Facts {
            job,
            name: "7_0".to_owned(),
            ending,
            signal: None,
            was_stopped: false,
            has_advanced: false,
            cut_short: 0,
            log: PathBuf::from("0.log"),
        }
    }

    fn kind(verdict: Verdict) -> Option<ErrorKind> {
        match verdict {
            Verdict::Submit => None,
            Verdict::Fail(report) => Some(report.kind),
        }
    }

    #[test]
    fn what_was_lost_is_submitted_again_but_not_for_ever() {
        let job = job();
        for ending in [None, Some(Ending::Preempted), Some(Ending::NodeFailed)] {
            assert_eq!(facts(&job, ending).verdict(), Verdict::Submit, "{ending:?}");
            let often = Facts { cut_short: 3, ..facts(&job, ending) };
            assert_eq!(kind(often.verdict()), Some(ErrorKind::Executor), "{ending:?}");
        }
    }

    #[test]
    fn a_time_limit_is_no_failure_as_long_as_something_comes_of_it() {
        let job = job();
        let timeout = || facts(&job, Some(Ending::Timeout));
        assert_eq!(Facts { has_advanced: true, ..timeout() }.verdict(), Verdict::Submit);
        assert_eq!(kind(timeout().verdict()), Some(ErrorKind::Executor));
    }

    #[test]
    fn a_job_that_was_stopped_in_order_is_submitted_again_whatever_its_exit_code() {
        let job = job();
        let stopped = Facts { was_stopped: true, ..facts(&job, Some(Ending::Failed)) };
        assert_eq!(stopped.verdict(), Verdict::Submit);
    }

    #[test]
    fn lack_of_memory_is_tried_again_by_the_run() {
        let job = job();
        let killed = Facts { signal: Some(libc::SIGKILL), ..facts(&job, Some(Ending::Failed)) };
        assert_eq!(kind(killed.verdict()), Some(ErrorKind::Resource));
        assert_eq!(kind(facts(&job, Some(Ending::OutOfMemory)).verdict()), Some(ErrorKind::Resource));
    }

    #[test]
    fn a_job_that_failed_without_a_word_is_told_with_its_log() {
        let job = job();
        let Verdict::Fail(report) = facts(&job, Some(Ending::Failed)).verdict() else { panic!("it failed") };
        assert_eq!(report.message, "job 7_0 failed before it could say why");
        assert_eq!(report.hint.as_deref(), Some("its log is 0.log"));
    }
}
