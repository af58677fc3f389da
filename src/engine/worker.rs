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
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use nnflow_stage::{ErrorKind, ErrorReport, Outcome, Reply, Request, StageError, StageEvent, Task, WORKER_PROTOCOL};

/// How often a wait looks whether the run is to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How many of the last lines of a worker's error output are told when it dies.
const LAST_LINES: usize = 20;

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

    /// Runs a task in a worker that sees only the given GPUs.
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
    ) -> Result<Outcome, ErrorReport> {
        let mut worker = self.take(gpus, cancel)?;
        let result = worker.serve(task, cancel, event);
        match result {
            Ok(outcome) => {
                self.idle().push(worker);
                Ok(outcome)
            }
            // A stage that reports an error has left the worker in order; but libtorch may hold memory that failed.
            Err(Ended::Reported(report)) if report.kind == ErrorKind::Input => {
                self.idle().push(worker);
                Err(report)
            }
            Err(Ended::Reported(report)) => Err(report),
            Err(Ended::Died) => {
                let (report, last_lines) = worker.obituary();
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
    Died,
}

impl Worker {
    fn start(program: &Path, gpus: &[usize], cancel: &AtomicBool) -> Result<Self, ErrorReport> {
        let mut command = Command::new(program);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own keeps the terminal's Ctrl-C from killing the worker before it has left its checkpoint.
        command.process_group(0);
        if !gpus.is_empty() {
            command.env("CUDA_VISIBLE_DEVICES", visible_devices(gpus));
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
                let (report, last_lines) = self.obituary();
                let nonsense = match other {
                    Ok(Err(error)) => Some(nonsense(&error)),
                    _ => None,
                };
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
                    return Err(Ended::Died);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Died),
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), Ended> {
        let mut line = serde_json::to_vec(request).map_err(|error| {
            Ended::Reported(ErrorReport::new(ErrorKind::Internal, format!("a task cannot be written: {error}")))
        })?;
        line.push(b'\n');
        self.input.write_all(&line).and_then(|()| self.input.flush()).map_err(|_| Ended::Died)
    }

    /// Ends the process and tells how it had ended, and the last lines that it wrote.
    fn obituary(&mut self) -> (ErrorReport, Vec<String>) {
        // A worker that wrote garbage still runs; one that has died ignores this.
        let killed_here = matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok();
        let status = self.child.wait();
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
fn visible_devices(gpus: &[usize]) -> String {
    let allowed: Option<Vec<String>> = std::env::var("CUDA_VISIBLE_DEVICES")
        .ok()
        .map(|list| list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect());
    let name = |gpu: &usize| match &allowed {
        Some(names) => names.get(*gpu).cloned().unwrap_or_else(|| gpu.to_string()),
        None => gpu.to_string(),
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
