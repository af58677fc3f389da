//! Workers: processes that run the stages that need libtorch.
//!
//! A CUDA fault, an out-of-memory kill or a stuck driver ends a worker, not the run. A worker serves one task after
//! another, so that libtorch is loaded once; one that failed in an unforeseen way is not used again.

mod pipes;
mod watch;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use nnflow_stage::{
    ErrorKind, ErrorReport, Outcome, Reply, Request, StageError, StageEvent, Task, WORKER_PROTOCOL, ending,
};

use self::watch::Watch;
use super::limits::{Stop, too_long};
use super::usage::{Usage, Watched};
use crate::report::duration;

/// How often a wait looks whether the run is to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a worker that has closed its pipes may take to end.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// How many of the last lines of a worker's error output are told when it dies.
const LAST_LINES: usize = 20;

/// How the C library's allocator shall keep memory, where the user does not say otherwise. Networks ask for the same large blocks
/// again and again; by default each comes from the system anew, page by page (measured: 8 % of a prediction on a CPU).
const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "4294967296"), ("MALLOC_TOP_PAD_", "67108864")];

/// The workers of a run: those that are idle, and how to start one.
#[derive(Debug)]
pub struct WorkerPool {
    program: PathBuf,
    silence: Duration,
    idle: Mutex<Vec<Worker>>,
}

/// A worker process.
#[derive(Debug)]
struct Worker {
    child: Child,
    input: Sender<Vec<u8>>,
    replies: Receiver<std::io::Result<Reply>>,
    errors: Receiver<String>,
    gpus: Vec<usize>,
    /// How long it may say nothing and compute nothing.
    silence: Duration,
    /// Whether it has answered to the task under way.
    has_spoken: bool,
}

impl WorkerPool {
    /// A pool that starts `program` when a worker is needed, and gives one up that says nothing and computes nothing for
    /// as long as `silence`.
    #[must_use]
    pub fn new(program: PathBuf, silence: Duration) -> Self {
        Self { program, silence, idle: Mutex::new(Vec::new()) }
    }

    /// Runs a task in a worker that sees only the given GPUs; tells what it took as well.
    ///
    /// `stop` asks the task to leave a checkpoint and end; `event` hears what it tells, and the worker's error output line
    /// by line.
    ///
    /// # Errors
    /// What the stage reports, or how the worker ended.
    pub fn run(
        &self,
        task: &Task,
        gpus: &[usize],
        stop: &Stop<'_>,
        event: &mut dyn FnMut(StageEvent),
    ) -> Result<(Outcome, Usage), ErrorReport> {
        loop {
            let (mut worker, was_idle) = match self.take_idle(gpus) {
                Some(worker) => (worker, true),
                None => (Worker::start(&self.program, gpus, self.silence, stop)?, false),
            };
            let watched = Watched::begin(worker.child.id());
            match worker.serve(task, stop, event) {
                Ok(outcome) => {
                    let gpu_peak_memory_bytes = outcome.gpu_peak_memory_bytes;
                    let usage = Usage { gpu_peak_memory_bytes, ..watched.usage() };
                    self.idle().push(worker);
                    return Ok((outcome, usage));
                }
                // A stage that reports an error has left the worker in order; but libtorch may hold memory that failed.
                Err(Ended::Reported(report)) if report.kind == ErrorKind::Input => {
                    self.idle().push(worker);
                    return Err(report);
                }
                Err(Ended::Reported(report)) => return Err(stop.explain(report)),
                // It had ended before it heard of the task, which is no fault of the task's.
                Err(Ended::Lost(Loss::Closed)) if was_idle && !worker.has_spoken => {}
                Err(Ended::Lost(loss)) => {
                    let (report, last_lines) = worker.obituary(loss);
                    last_lines.into_iter().for_each(|line| event(StageEvent::Log { line }));
                    return Err(report);
                }
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn take_idle(&self, gpus: &[usize]) -> Option<Worker> {
        let mut idle = self.idle();
        // One that has ended meanwhile, or speaks unasked, is no use to anybody.
        idle.retain(|worker| matches!(worker.replies.try_recv(), Err(TryRecvError::Empty)));
        let position = idle.iter().position(|worker| worker.gpus == gpus)?;
        Some(idle.swap_remove(position))
    }
}

/// How serving a task ended without an outcome.
enum Ended {
    Reported(ErrorReport),
    Lost(Loss),
}

/// Why a worker is given up.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// It closed its pipes, as it does when it ends.
    Closed,
    /// It wrote what is no reply.
    Nonsense,
    /// It says nothing and computes nothing.
    Stuck,
    /// It goes on after its time was up; this is how long it had.
    Deaf(Duration),
}

impl Worker {
    fn start(program: &Path, gpus: &[usize], silence: Duration, stop: &Stop<'_>) -> Result<Self, ErrorReport> {
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
        let replies = pipes::read(output, |line| -> std::io::Result<Reply> {
            let line = line?;
            serde_json::from_slice(&line)
                .map_err(|error| std::io::Error::other(format!("{error} in {}", pipes::shown(&line))))
        });
        let errors = pipes::read(error_output, |line| match line {
            Ok(line) => String::from_utf8_lossy(&line).into_owned(),
            Err(error) => format!("the worker's error output cannot be read: {error}"),
        });
        let (input, gpus) = (pipes::write(input), gpus.to_vec());
        let mut worker = Self { child, input, replies, errors, gpus, silence, has_spoken: false };
        worker.greet(program, stop)?;
        Ok(worker)
    }

    /// Waits until the worker says that it is ready, which may take as long as libtorch takes to be loaded.
    fn greet(&mut self, program: &Path, stop: &Stop<'_>) -> Result<(), ErrorReport> {
        let mut watch = self.watch();
        let mut said = Vec::new();
        let reply = loop {
            match self.replies.recv_timeout(LOOK_AGAIN) {
                Err(RecvTimeoutError::Timeout) if stop.is_asked_for() => {
                    return Err(stop.explain(StageError::interrupted().report()));
                }
                Err(RecvTimeoutError::Timeout) if watch.is_stuck() => break Err(Loss::Stuck),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Err(Loss::Closed),
                Ok(Ok(reply)) => break Ok(reply),
                Ok(Err(error)) => {
                    said.push(nonsense(&error));
                    break Err(Loss::Nonsense);
                }
            }
            // A worker that is not read has to wait; of what it says before it is ready, the end will do.
            let before = said.len();
            said.extend(self.errors.try_iter());
            if said.len() > before {
                watch.hear();
            }
            said.drain(..said.len().saturating_sub(LAST_LINES));
        };
        match reply {
            Ok(Reply::Ready { protocol: WORKER_PROTOCOL, .. }) => Ok(()),
            Ok(Reply::Ready { protocol, version, .. }) => Err(ErrorReport {
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
                let (report, last_lines) = self.obituary(other.err().unwrap_or(Loss::Closed));
                Err(ErrorReport { details: said.into_iter().chain(last_lines).collect(), ..report })
            }
        }
    }

    fn watch(&self) -> Watch {
        Watch::over(self.child.id(), self.silence)
    }

    fn serve(&mut self, task: &Task, stop: &Stop<'_>, event: &mut dyn FnMut(StageEvent)) -> Result<Outcome, Ended> {
        self.has_spoken = false;
        self.send(&Request::Run { task: Box::new(task.clone()) })?;
        let mut watch = self.watch();
        let mut told_to_stop: Option<Instant> = None;
        loop {
            match told_to_stop {
                None if stop.is_asked_for() => {
                    told_to_stop = Some(Instant::now());
                    self.send(&Request::Cancel)?;
                }
                Some(since) if stop.is_late() && since.elapsed() >= self.silence => {
                    return Err(Ended::Lost(Loss::Deaf(stop.limit().unwrap_or_default())));
                }
                _ => {}
            }
            let reply = self.replies.recv_timeout(LOOK_AGAIN);
            for line in self.errors.try_iter() {
                watch.hear();
                event(StageEvent::Log { line });
            }
            if reply.is_ok() {
                self.has_spoken = true;
                watch.hear();
            }
            match reply {
                Ok(Ok(Reply::Event { event: told })) => event(told),
                Ok(Ok(Reply::Done { outcome })) => return Ok(outcome),
                Ok(Ok(Reply::Failed { report })) => return Err(Ended::Reported(report)),
                Err(RecvTimeoutError::Timeout) if watch.is_stuck() => return Err(Ended::Lost(Loss::Stuck)),
                Ok(Ok(Reply::Ready { .. })) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Err(error)) => {
                    event(StageEvent::Log { line: nonsense(&error) });
                    return Err(Ended::Lost(Loss::Nonsense));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Lost(Loss::Closed)),
            }
        }
    }

    fn send(&self, request: &Request) -> Result<(), Ended> {
        let mut line = serde_json::to_vec(request).map_err(|error| {
            Ended::Reported(ErrorReport::new(ErrorKind::Internal, format!("a task cannot be written: {error}")))
        })?;
        line.push(b'\n');
        self.input.send(line).map_err(|_| Ended::Lost(Loss::Closed))
    }

    /// Waits for the process to end, and ends it if it does not; tells whether it did.
    fn end(&mut self, patience: Duration) -> (std::io::Result<ExitStatus>, bool) {
        // Its pipes are closed a moment before it can be waited for.
        let deadline = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN / 10);
        }
        let killed_here = matches!(self.child.try_wait(), Ok(None)) && self.kill();
        (self.child.wait(), killed_here)
    }

    /// Ends the process and what it has started; tells whether that could be done.
    fn kill(&mut self) -> bool {
        let killed = libc::pid_t::try_from(self.child.id()).is_ok_and(kill_group);
        killed || self.child.kill().is_ok()
    }

    /// Ends the process and tells how it had ended, and the last lines that it wrote.
    fn obituary(&mut self, loss: Loss) -> (ErrorReport, Vec<String>) {
        let patience = if matches!(loss, Loss::Closed) { LAST_BREATH } else { Duration::ZERO };
        let (status, killed_here) = self.end(patience);
        let mut last_lines = pipes::rest(&self.errors, LAST_BREATH);
        let told = last_lines.split_off(last_lines.len().saturating_sub(LAST_LINES));
        let report = match (&status, killed_here, loss) {
            (_, _, Loss::Deaf(limit)) => too_long(limit),
            (_, true, Loss::Stuck) => ErrorReport {
                hint: Some("`worker_silence` in `[settings]` says how long a worker may be silent and idle".to_owned()),
                ..died(&format!("said nothing and computed nothing for {} and was ended", self.silence_in_words()))
            },
            (_, true, _) => died("broke the protocol and was ended"),
            (Ok(status), false, _) => {
                let (kind, how) = ending(*status);
                ErrorReport { kind, ..died(&how) }
            }
            (Err(error), false, _) => died(&format!("ended, and how cannot be told: {error}")),
        };
        (report, told)
    }

    fn silence_in_words(&self) -> String {
        duration(self.silence.as_secs_f64())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It holds nothing that is worth a slower end; waiting leaves no zombie behind.
        if matches!(self.child.try_wait(), Ok(None)) && self.kill() {
            self.child.wait().ok();
        }
    }
}

fn died(how: &str) -> ErrorReport {
    ErrorReport::new(ErrorKind::Internal, format!("the worker {how}"))
}

/// Ends all processes of a group of which this process has started the first one; tells whether there was any.
fn kill_group(group: libc::pid_t) -> bool {
    #[expect(unsafe_code, reason = "the standard library ends one process only")]
    // SAFETY: the call takes two numbers and touches no memory. The group is that of a child that was not waited for yet,
    // so that no other group can have its number.
    let status = unsafe { libc::kill(-group, libc::SIGKILL) };
    status == 0
}

fn nonsense(error: &std::io::Error) -> String {
    format!("the worker wrote what is not a reply: {error}")
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
}
