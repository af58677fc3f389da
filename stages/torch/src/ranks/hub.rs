//! The worker among the processes that train: it starts them, hands over what they give each other, and ends them.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nnflow_net::device::Device;
use nnflow_stage::{ErrorKind, ErrorReport, Host, Outcome, StageError, StageEvent, Task, TaskResources, obituary};

use super::frame::{self, FromRank, ToRank};

/// How long a process that has closed its socket may take to end.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// Trains with so many processes, and returns what the first one has made.
pub(crate) fn train_together(
    task: &Task,
    host: &dyn Host,
    device: Device,
    ranks: usize,
) -> Result<Outcome, ErrorReport> {
    std::thread::scope(|scope| {
        let (sender, heard) = channel();
        let mut hub = Hub::new(ranks);
        for rank in 0..ranks {
            let (stream, errors) = hub.start(rank).map_err(|error| cannot_start(&error))?;
            let (frames, lines) = (sender.clone(), sender.clone());
            scope.spawn(move || hear(rank, stream, &frames));
            scope.spawn(move || read_lines(rank, errors, &lines));
        }
        drop(sender);
        hub.send_tasks(task, device);
        // The processes end with the hub, and with them the threads that listen.
        hub.listen(&heard, host)
    })
}

/// What has come from a process.
enum Heard {
    Message(FromRank, Vec<u8>),
    /// A line of its error output.
    Line(String),
    /// Its error output has ended.
    Silent,
    /// Its socket has ended.
    Gone,
}

/// The processes, and what they have given so far. They are ended when it is dropped.
struct Hub {
    processes: Vec<Process>,
    ranks: usize,
    outcome: Option<Outcome>,
}

struct Process {
    child: Child,
    stream: UnixStream,
    given: Option<Vec<u8>>,
    is_done: bool,
}

impl Hub {
    fn new(ranks: usize) -> Self {
        Self { processes: Vec::with_capacity(ranks), ranks, outcome: None }
    }

    /// Starts the next process; returns where its messages and its error output come from.
    fn start(&mut self, rank: usize) -> std::io::Result<(UnixStream, ChildStderr)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        // Standard output is the worker's way to the engine.
        command.arg("rank").stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let errors = child.stderr.take();
        let process = Process { child, stream: ours.try_clone()?, given: None, is_done: false };
        self.processes.push(process);
        let errors = errors.ok_or_else(|| std::io::Error::other(format!("process {rank} has no error output")))?;
        Ok((ours, errors))
    }

    fn send_tasks(&mut self, task: &Task, device: Device) {
        let ranks = self.ranks;
        for (rank, process) in self.processes.iter_mut().enumerate() {
            let task = Box::new(share_of(task, device, rank, ranks));
            process.say(&ToRank::Start { rank, ranks, task }, &[]);
        }
    }

    /// Listens until all have ended well, or one has not.
    fn listen(&mut self, heard: &Receiver<(usize, Heard)>, host: &dyn Host) -> Result<Outcome, ErrorReport> {
        while let Ok((rank, heard_now)) = heard.recv() {
            match heard_now {
                Heard::Message(message, body) => {
                    let taken = self.take(rank, message, body, host);
                    if taken.is_err() {
                        self.hear_out(rank, heard, host);
                    }
                    taken?;
                }
                Heard::Line(line) => self.log(rank, line, host),
                Heard::Gone if !self.processes[rank].is_done => return Err(self.lost(rank, heard, host)),
                Heard::Gone | Heard::Silent => {}
            }
            if self.processes.iter().all(|process| process.is_done) {
                break;
            }
        }
        let nothing = || ErrorReport::new(ErrorKind::Internal, "the processes of the training made nothing");
        self.outcome.take().ok_or_else(nothing)
    }

    fn take(&mut self, rank: usize, message: FromRank, body: Vec<u8>, host: &dyn Host) -> Result<(), ErrorReport> {
        match message {
            FromRank::Give => {
                self.processes[rank].given = Some(body);
                self.hand_over(host)
            }
            FromRank::Event(event) => {
                host.event(event);
                Ok(())
            }
            FromRank::Done(outcome) => {
                self.processes[rank].is_done = true;
                if rank == 0 {
                    self.outcome = Some(outcome);
                }
                self.hand_over(host)
            }
            FromRank::Failed(report) if report.kind == ErrorKind::Interrupted => Err(report),
            FromRank::Failed(mut report) => {
                report.details.push(format!("in {}", self.name(rank)));
                Err(report)
            }
        }
    }

    /// Hands all over to everybody once all have given something.
    fn hand_over(&mut self, host: &dyn Host) -> Result<(), ErrorReport> {
        let waits = self.processes.iter().any(|process| process.given.is_some());
        if waits && self.processes.iter().any(|process| process.is_done) {
            let message = "a process of the training has ended while others wait for it";
            return Err(ErrorReport::new(ErrorKind::Internal, message));
        }
        if !self.processes.iter().all(|process| process.given.is_some()) {
            return Ok(());
        }
        let given: Vec<Vec<u8>> = self.processes.iter_mut().filter_map(|process| process.given.take()).collect();
        let head = ToRank::Given { cancelled: host.cancelled(), lengths: given.iter().map(Vec::len).collect() };
        let parts: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
        self.processes.iter_mut().for_each(|process| process.say(&head, &parts));
        Ok(())
    }

    /// What became of a process that has closed its socket.
    fn lost(&mut self, rank: usize, heard: &Receiver<(usize, Heard)>, host: &dyn Host) -> ErrorReport {
        let (kind, ending) = obituary(&mut self.processes[rank].child, LAST_BREATH);
        self.hear_out(rank, heard, host);
        ErrorReport::new(kind, format!("{} {ending}", self.name(rank)))
    }

    /// Tells the last lines of a process that is about to end.
    fn hear_out(&self, rank: usize, heard: &Receiver<(usize, Heard)>, host: &dyn Host) {
        while let Ok((from, heard)) = heard.recv_timeout(LAST_BREATH) {
            match heard {
                Heard::Line(line) => self.log(from, line, host),
                Heard::Silent if from == rank => break,
                _ => {}
            }
        }
    }

    fn log(&self, rank: usize, line: String, host: &dyn Host) {
        host.event(StageEvent::Log { line: format!("{}: {line}", self.name(rank)) });
    }

    /// A process as people count them.
    fn name(&self, rank: usize) -> String {
        format!("process {} of {}", rank + 1, self.ranks)
    }
}

impl Process {
    /// Says something; the thread that listens hears it if the process is gone.
    fn say(&mut self, head: &ToRank, body: &[&[u8]]) {
        frame::write(&mut self.stream, head, body).unwrap_or_default();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // All that counts is written; waiting leaves no zombie behind.
            if matches!(process.child.try_wait(), Ok(None)) && process.child.kill().is_ok() {
                process.child.wait().ok();
            }
        }
    }
}

/// A task as one process has it: with its share of the machine.
fn share_of(task: &Task, device: Device, rank: usize, ranks: usize) -> Task {
    let whole = &task.resources;
    let device = match device {
        Device::Cpu { .. } => "cpu".to_owned(),
        // All of them see all GPUs that were granted: NCCL copies from one to another directly only then everywhere.
        Device::Cuda(first) => format!("cuda:{}", first + rank),
    };
    let threads = (whole.threads / ranks).max(1);
    let resources = TaskResources { threads, memory_bytes: whole.memory_bytes / ranks as u64, device, processes: 1 };
    Task { resources, ..task.clone() }
}

fn cannot_start(error: &std::io::Error) -> ErrorReport {
    StageError::resource(format!("a process of the training cannot be started: {error}")).report()
}

fn hear(rank: usize, mut stream: UnixStream, heard: &Sender<(usize, Heard)>) {
    while let Ok(Some((message, body))) = frame::read(&mut stream) {
        if heard.send((rank, Heard::Message(message, body))).is_err() {
            return;
        }
    }
    // Nobody listens any more once another process has failed.
    heard.send((rank, Heard::Gone)).unwrap_or_default();
}

fn read_lines(rank: usize, errors: ChildStderr, heard: &Sender<(usize, Heard)>) {
    for line in BufReader::new(errors).lines().map_while(Result::ok) {
        if heard.send((rank, Heard::Line(line))).is_err() {
            return;
        }
    }
    heard.send((rank, Heard::Silent)).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    fn task(threads: usize) -> Task {
        Task {
            stage: "train".to_owned(),
            node: "train[3d,0]".to_owned(),
            phase: "train".to_owned(),
            item: None,
            axes: BTreeMap::new(),
            parameters: nnflow_stage::Parameters::default(),
            seed: 3,
            inputs: BTreeMap::new(),
            output: PathBuf::from("output"),
            work: PathBuf::from("work"),
            earlier: Vec::new(),
            resources: TaskResources { threads, memory_bytes: 900, device: "auto".to_owned(), processes: 3 },
        }
    }

    #[test]
    fn a_process_has_its_share_of_the_machine_and_a_gpu_of_its_own() {
        let resources = share_of(&task(8), Device::Cuda(0), 2, 3).resources;
        let expected = TaskResources { threads: 2, memory_bytes: 300, device: "cuda:2".to_owned(), processes: 1 };
        assert_eq!(resources, expected);
    }

    #[test]
    fn every_process_has_a_thread() {
        assert_eq!(share_of(&task(2), Device::Cpu { threads: 2 }, 0, 3).resources.threads, 1);
    }

    #[test]
    fn a_process_does_what_the_whole_task_says() {
        let whole = task(4);
        let share = share_of(&whole, Device::Cpu { threads: 4 }, 1, 2);
        assert_eq!(Task { resources: whole.resources.clone(), ..share }, whole);
    }
}
