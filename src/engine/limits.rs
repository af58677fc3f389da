//! What ends work before its own end: somebody who asks for it, a time limit, a worker that does nothing any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nnflow_stage::{ErrorKind, ErrorReport};

use crate::report::duration;

/// How long a worker may be silent and idle where the workflow does not say it. Loading libraries and weights from a slow
/// network disk takes minutes in which little is computed.
pub const WORKER_SILENCE: Duration = Duration::from_secs(30 * 60);

/// What asks a unit to stop: the run's flag, or a time limit of the unit's own.
#[derive(Debug, Clone, Copy)]
pub struct Stop<'a> {
    cancel: &'a AtomicBool,
    start: Instant,
    limit: Option<Duration>,
}

impl<'a> Stop<'a> {
    /// Stops when the flag is set.
    #[must_use]
    pub fn when(cancel: &'a AtomicBool) -> Self {
        Self { cancel, start: Instant::now(), limit: None }
    }

    /// Stops after so long as well, counted from now.
    #[must_use]
    pub fn or_after(self, limit: Option<Duration>) -> Self {
        Self { start: Instant::now(), limit, ..self }
    }

    /// Whether the unit is to leave a checkpoint and end.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.is_cancelled() || self.is_late()
    }

    /// Whether the run's flag is set.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Whether the unit's own time is up.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.limit.is_some_and(|limit| self.start.elapsed() >= limit)
    }

    /// How long the unit may take, where that is limited.
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// What is told of a unit that has stopped: one whose time was up has failed, unless the run was to stop anyway.
    #[must_use]
    pub fn explain(&self, report: ErrorReport) -> ErrorReport {
        match self.limit {
            Some(limit) if report.kind == ErrorKind::Interrupted && !self.is_cancelled() && self.is_late() => {
                too_long(limit)
            }
            _ => report,
        }
    }
}

/// The error of a unit whose time was up.
#[must_use]
pub(super) fn too_long(limit: Duration) -> ErrorReport {
    ErrorReport {
        hint: Some(
            "raise `resources.time` of the stage; a training that runs again goes on from its checkpoint".to_owned(),
        ),
        ..ErrorReport::new(
            ErrorKind::Internal,
            format!("it did not end within its time of {}", duration(limit.as_secs_f64())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupted() -> ErrorReport {
        ErrorReport::new(ErrorKind::Interrupted, "the run was asked to stop")
    }

    #[test]
    fn a_unit_whose_time_is_up_has_failed() {
        let cancel = AtomicBool::new(false);
        let stop = Stop::when(&cancel).or_after(Some(Duration::ZERO));
        let report = stop.explain(interrupted());
        assert!(stop.is_asked_for());
        assert_eq!((report.kind, &*report.message), (ErrorKind::Internal, "it did not end within its time of 0.0 s"));
    }

    #[test]
    fn an_interrupted_run_is_not_blamed_on_a_time_limit() {
        let cancel = AtomicBool::new(true);
        assert_eq!(Stop::when(&cancel).or_after(Some(Duration::ZERO)).explain(interrupted()), interrupted());
    }

    #[test]
    fn without_a_limit_only_the_flag_stops() {
        let cancel = AtomicBool::new(false);
        let stop = Stop::when(&cancel).or_after(None);
        assert!(!stop.is_asked_for());
        cancel.store(true, Ordering::Relaxed);
        assert!(stop.is_asked_for());
    }

    #[test]
    fn another_failure_stays_what_it_is() {
        let cancel = AtomicBool::new(false);
        let failure = ErrorReport::new(ErrorKind::Input, "the loss is not finite");
        assert_eq!(Stop::when(&cancel).or_after(Some(Duration::ZERO)).explain(failure.clone()), failure);
    }
}
