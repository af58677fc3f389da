//! Workers: processes that run the stages that need libtorch.
//!
//! A CUDA fault, an out-of-memory kill or a stuck driver ends a worker, not the run. A worker serves one task after
//! another, so that libtorch is loaded once; one that failed in an unforeseen way is not used again.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use nnflow_stage::{ErrorKind, ErrorReport, Outcome, Reply, Request, StageError, StageEvent, Task, WORKER_PROTOCOL};

use super::usage::{Usage, Watched};

/// How often a wait looks whether the run is to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a worker that has closed its pipes may take to end.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// How many of the last lines of a worker's error output are told when it dies.
const LAST_LINES: usize = 20;

/// How the C library's allocator shall keep memory, where the user does not say otherwise. Networks ask for the same large blocks
/// again and again; by default each comes from the system anew, page by page (measured: 8 % of a prediction on a CPU).
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "4294967296"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// The workers of a run: those that are idle, and how to start one.
#[derive(Debug)]
pub struct WorkerPool {
    program: PathBuf,
    idle: Mutex<Vec<Worker>>,
}

/// A worker process.
#[derive(Debug)]
struct Worker {
    child: Child,
    input: ChildStdin,
    replies: Receiver<std::io::Result<Reply>>,
    errors: Receiver<String>,
    gpus: Vec<usize>,
}

impl WorkerPool {
    /// A pool that starts `program` when a worker is needed.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, idle: Mutex::new(Vec::new()) }
    }

    /// Runs a task in a worker that sees only the given GPUs; tells what it took as well.
    ///
    /// `cancel` asks the task to leave a checkpoint and stop; `event` hears what it tells and `log` the worker's error
    /// output, line by line.
    ///
    /// # Errors
    /// What the stage reports, or how the worker ended.
    pub fn run(
        &self,
        task: &Task,
        gpus: &[usize],
        cancel: &AtomicBool,
        event: &mut dyn FnMut(StageEvent),
    ) -> Result<(Outcome, Usage), ErrorReport> {
        let mut worker = self.take(gpus, cancel)?;
        let watched = Watched::begin(worker.child.id());
        let result = worker.serve(task, cancel, event);
        match result {
            Ok(outcome) => {
                let usage = watched.usage();
                self.idle().push(worker);
                Ok((outcome, usage))
            }
            // A stage that reports an error has left the worker in order; but libtorch may hold memory that failed.
            Err(Ended::Reported(report)) if report.kind == ErrorKind::Input => {
                self.idle().push(worker);
                Err(report)
            }
            Err(Ended::Reported(report)) => Err(report),
            Err(Ended::Died(patience)) => {
                let (report, last_lines) = worker.obituary(patience);
                last_lines.into_iter().for_each(|line| event(StageEvent::Log { line }));
                Err(report)
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn take(&self, gpus: &[usize], cancel: &AtomicBool) -> Result<Worker, ErrorReport> {
        {
            let mut idle = self.idle();
            if let Some(position) = idle.iter().position(|worker| worker.gpus == gpus) {
                return Ok(idle.swap_remove(position));
            }
        }
        Worker::start(&self.program, gpus, cancel)
    }
}

/// How serving a task ended without an outcome.
enum Ended {
    Reported(ErrorReport),
    /// It closed its pipes or talks nonsense; it may take so long to end by itself.
    Died(Duration),
}

impl Worker {
    fn start(program: &Path, gpus: &[usize], cancel: &AtomicBool) -> Result<Self, ErrorReport> {
        let mut command = Command::new(program);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own keeps the terminal's Ctrl-C from killing the worker before it has left its checkpoint.
        command.process_group(0);
        command.envs(ALLOCATOR.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
        if !gpus.is_empty() {
            let allowed = std::env::var("CUDA_VISIBLE_DEVICES").ok();
            command.env("CUDA_VISIBLE_DEVICES", visible_devices(gpus, allowed.as_deref()));
        }
        let mut child = command.spawn().map_err(|error| ErrorReport {
            hint: Some("both programs must lie in one folder; `cargo xtask install` puts them there".to_owned()),
            ..ErrorReport::new(
                ErrorKind::Internal,
                format!("worker `{}` cannot be started: {error}", program.display()),
            )
        })?;
        let missing = || ErrorReport::new(ErrorKind::Internal, "the worker's pipes are missing");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let error_output = child.stderr.take().ok_or_else(missing)?;
        let replies = read_in_background(output, |line| {
            let line = line?;
            serde_json::from_str(&line).map_err(|error| std::io::Error::other(format!("{error} in `{line}`")))
        });
        let errors = read_in_background(error_output, |line| {
            line.unwrap_or_else(|error| format!("the worker's error output cannot be read: {error}"))
        });
        let mut worker = Self { child, input, replies, errors, gpus: gpus.to_vec() };
        worker.greet(program, cancel)?;
        Ok(worker)
    }

    /// Waits until the worker says that it is ready, which may take as long as libtorch takes to be loaded.
    fn greet(&mut self, program: &Path, cancel: &AtomicBool) -> Result<(), ErrorReport> {
        let reply = loop {
            match self.replies.recv_timeout(LOOK_AGAIN) {
                Err(RecvTimeoutError::Timeout) if cancel.load(Ordering::Relaxed) => {
                    return Err(StageError::interrupted().report());
                }
                Err(RecvTimeoutError::Timeout) => {}
                reply => break reply,
            }
        };
        match reply {
            Ok(Ok(Reply::Ready { protocol: WORKER_PROTOCOL, .. })) => Ok(()),
            Ok(Ok(Reply::Ready { protocol, version, .. })) => Err(ErrorReport {
                hint: Some("install both programs from the same version with `cargo xtask install`".to_owned()),
                ..ErrorReport::new(
                    ErrorKind::Internal,
                    format!(
                        "worker `{}` {version} speaks protocol {protocol}, expected {WORKER_PROTOCOL}",
                        program.display()
                    ),
                )
            }),
            other => {
                let (patience, nonsense) = match other {
                    Ok(Err(error)) => (Duration::ZERO, Some(nonsense(&error))),
                    _ => (LAST_BREATH, None),
                };
                let (report, last_lines) = self.obituary(patience);
                Err(ErrorReport { details: nonsense.into_iter().chain(last_lines).collect(), ..report })
            }
        }
    }

    fn serve(&mut self, task: &Task, cancel: &AtomicBool, event: &mut dyn FnMut(StageEvent)) -> Result<Outcome, Ended> {
        self.send(&Request::Run { task: Box::new(task.clone()) })?;
        let mut told_to_stop = false;
        loop {
            if !told_to_stop && cancel.load(Ordering::Relaxed) {
                told_to_stop = true;
                self.send(&Request::Cancel)?;
            }
            let reply = self.replies.recv_timeout(LOOK_AGAIN);
            for line in self.errors.try_iter() {
                event(StageEvent::Log { line });
            }
            match reply {
                Ok(Ok(Reply::Event { event: told })) => event(told),
                Ok(Ok(Reply::Done { outcome })) => return Ok(outcome),
                Ok(Ok(Reply::Failed { report })) => return Err(Ended::Reported(report)),
                Ok(Ok(Reply::Ready { .. })) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Err(error)) => {
                    event(StageEvent::Log { line: nonsense(&error) });
                    return Err(Ended::Died(Duration::ZERO));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Died(LAST_BREATH)),
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), Ended> {
        let mut line = serde_json::to_vec(request).map_err(|error| {
            Ended::Reported(ErrorReport::new(ErrorKind::Internal, format!("a task cannot be written: {error}")))
        })?;
        line.push(b'\n');
        self.input.write_all(&line).and_then(|()| self.input.flush()).map_err(|_| Ended::Died(LAST_BREATH))
    }

    /// Waits for the process to end, and ends it if it does not; tells whether it did.
    fn end(&mut self, patience: Duration) -> (std::io::Result<ExitStatus>, bool) {
        // Its pipes are closed a moment before it can be waited for.
        let deadline = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN / 10);
        }
        let killed_here = matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok();
        (self.child.wait(), killed_here)
    }

    /// Ends the process and tells how it had ended, and the last lines that it wrote.
    fn obituary(&mut self, patience: Duration) -> (ErrorReport, Vec<String>) {
        let (status, killed_here) = self.end(patience);
        let mut last_lines: Vec<String> = self.errors.iter().collect();
        let ending = match (&status, killed_here) {
            (_, true) => "broke the protocol and was ended".to_owned(),
            (Ok(status), false) => describe(*status),
            (Err(error), false) => format!("ended, and how cannot be told: {error}"),
        };
        let kind = match &status {
            Ok(status) if status.signal() == Some(libc::SIGKILL) && !killed_here => ErrorKind::Resource,
            _ => ErrorKind::Internal,
        };
        let told = last_lines.split_off(last_lines.len().saturating_sub(LAST_LINES));
        (ErrorReport::new(kind, format!("the worker {ending}")), told)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It holds nothing that is worth a slower end; waiting leaves no zombie behind.
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

fn nonsense(error: &std::io::Error) -> String {
    format!("the worker wrote what is not a reply: {error}")
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGKILL), _) => {
            "was killed (signal 9), which is what the system does when memory runs out".to_owned()
        }
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The GPUs as the worker shall see them, out of those that this process may use.
fn visible_devices(gpus: &[usize], allowed: Option<&str>) -> String {
    let names: Vec<&str> = allowed.unwrap_or_default().split(',').map(str::trim).collect();
    let name = |gpu: &usize| match names.get(*gpu) {
        Some(name) if !name.is_empty() => (*name).to_owned(),
        _ => gpu.to_string(),
    };
    gpus.iter().map(name).collect::<Vec<_>>().join(",")
}

fn read_in_background<T: Send + 'static>(
    stream: impl std::io::Read + Send + 'static,
    parse: impl Fn(std::io::Result<String>) -> T + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = unbounded();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            // Nobody listens any more once the worker has been given up.
            if sender.send(parse(line)).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_sees_the_gpus_that_this_process_may_use() {
        let cases: [(&[usize], Option<&str>, &str); 4] =
            [(&[0], None, "0"), (&[1, 0], None, "1,0"), (&[1], Some("4, 7"), "7"), (&[0], Some("GPU-a1"), "GPU-a1")];
        for (gpus, allowed, expected) in cases {
            assert_eq!(visible_devices(gpus, allowed), expected, "{gpus:?} of {allowed:?}");
        }
    }

    #[test]
    fn the_end_of_a_worker_is_told_in_words() {
        // The status that wait(2) gives: a signal in the low byte, an exit code in the next one.
        let words = [9, 11, 3 << 8].map(|status| describe(ExitStatus::from_raw(status)));
        assert_eq!(words[0], "was killed (signal 9), which is what the system does when memory runs out");
        assert_eq!(words[1], "was ended by signal 11");
        assert_eq!(words[2], "exited with status 3");
    }
}
