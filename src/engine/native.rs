//! Runs stages in this process, on threads of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use nnflow_stage::{Context, ErrorKind, ErrorReport, Host, Outcome, Stage, StageEvent, Task};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::limits::Stop;

/// Stages are deep in calls where a thread that waits takes up another's work.
const STACK_BYTES: usize = 16 << 20;

/// The threads on which stages compute: as many as the run may use.
///
/// A stage runs on one of them from its beginning, so that its parallel parts cost nothing while the others have stages of
/// their own, and are shared with those that have none.
#[derive(Debug)]
pub struct Native {
    threads: ThreadPool,
}

impl Native {
    /// So many threads.
    ///
    /// # Errors
    /// If the system does not give them.
    pub fn new(threads: usize) -> Result<Self, ErrorReport> {
        let builder = ThreadPoolBuilder::new().num_threads(threads.max(1)).stack_size(STACK_BYTES);
        let built = builder.thread_name(|index| format!("stage-{index}")).build();
        let threads = built.map_err(|error| ErrorReport {
            hint: Some("`--threads` takes a smaller number".to_owned()),
            ..ErrorReport::new(ErrorKind::Resource, format!("{threads} threads cannot be started: {error}"))
        })?;
        Ok(Self { threads })
    }

    /// Runs a stage; a panic of the stage is an error of the stage, not the end of the run.
    ///
    /// # Errors
    /// What the stage reports.
    pub fn run(
        &self,
        stage: &'static dyn Stage,
        task: &Task,
        stop: &Stop<'_>,
        event: &mut (dyn FnMut(StageEvent) + Send),
    ) -> Result<Outcome, ErrorReport> {
        let host = LocalHost { stop, event: Mutex::new(event) };
        let run = || {
            let mut context = Context::new(task, &host);
            let ran = stage.run(&mut context).map(|()| context.into_outcome());
            ran.map_err(|error| stop.explain(error.report()))
        };
        self.threads.install(|| catch_unwind(AssertUnwindSafe(run))).unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
            Err(ErrorReport {
                hint: Some("this is a defect of nnflow; please report it with the case's file".to_owned()),
                ..ErrorReport::new(ErrorKind::Internal, format!("the stage panicked: {}", text.unwrap_or("no message")))
            })
        })
    }
}

struct LocalHost<'a> {
    stop: &'a Stop<'a>,
    event: Mutex<&'a mut (dyn FnMut(StageEvent) + Send)>,
}

impl Host for LocalHost<'_> {
    fn event(&self, event: StageEvent) {
        (self.event.lock().unwrap_or_else(std::sync::PoisonError::into_inner))(event);
    }

    fn cancelled(&self) -> bool {
        self.stop.is_asked_for()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use nnflow_stage::{Parameters, Phase, PhaseKind, Runner, StageError, StageSpec, TaskResources};

    use super::*;

    /// A stage that does what its name says.
    struct Panics;

    static SPEC: StageSpec = StageSpec {
        name: "panics",
        version: 1,
        summary: "panics",
        docs: "panics",
        runner: Runner::Native,
        inputs: &[],
        outputs: &[],
        parameters: &[],
        axes: &[],
        draws: false,
        resumes: false,
        phases: &[Phase { name: "panic", kind: PhaseKind::Whole, reads: &[], makes: &[], parameters: None }],
    };

    impl Stage for Panics {
        fn spec(&self) -> &'static StageSpec {
            &SPEC
        }

        fn run(&self, _: &mut Context<'_>) -> Result<(), StageError> {
            panic!("out of {}", "ideas")
        }
    }

    fn task() -> Task {
        Task {
            stage: "panics".to_owned(),
            node: "panics".to_owned(),
            phase: "panic".to_owned(),
            item: None,
            axes: BTreeMap::new(),
            parameters: Parameters::default(),
            seed: 0,
            inputs: BTreeMap::new(),
            output: PathBuf::new(),
            work: PathBuf::new(),
            earlier: Vec::new(),
            resources: TaskResources { threads: 1, memory_bytes: 0, device: "cpu".to_owned(), processes: 1 },
        }
    }

    #[test]
    fn a_panic_of_a_stage_is_an_error_of_the_stage() {
        let native = Native::new(1).expect("a thread");
        let cancel = AtomicBool::new(false);
        let report = native.run(&Panics, &task(), &Stop::when(&cancel), &mut |_| {}).expect_err("the stage panics");
        assert_eq!((report.kind, report.message.as_str()), (ErrorKind::Internal, "the stage panicked: out of ideas"));
    }

    /// A stage that fails unless it may use exactly three threads.
    struct Three;

    impl Stage for Three {
        fn spec(&self) -> &'static StageSpec {
            &SPEC
        }

        fn run(&self, _: &mut Context<'_>) -> Result<(), StageError> {
            match rayon::current_num_threads() {
                3 => Ok(()),
                threads => Err(StageError::internal(format!("{threads} threads"))),
            }
        }
    }

    #[test]
    fn a_stage_uses_the_threads_of_the_run_and_no_others() {
        let native = Native::new(3).expect("three threads");
        let cancel = AtomicBool::new(false);
        let outcome = native.run(&Three, &task(), &Stop::when(&cancel), &mut |_| {});
        assert_eq!(outcome, Ok(Outcome::default()));
    }

    /// A stage that works until it is asked to stop.
    struct Endless;

    impl Stage for Endless {
        fn spec(&self) -> &'static StageSpec {
            &SPEC
        }

        fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
            loop {
                context.check_cancelled()?;
            }
        }
    }

    #[test]
    fn a_stage_is_stopped_when_its_time_is_up() {
        let native = Native::new(1).expect("a thread");
        let cancel = AtomicBool::new(false);
        let stop = Stop::when(&cancel).or_after(Some(Duration::from_millis(1)));
        let report = native.run(&Endless, &task(), &stop, &mut |_| {}).expect_err("the stage does not end by itself");
        assert_eq!(report.message, "it did not end within its time of 0.0 s");
    }
}
