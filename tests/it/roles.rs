//! Other processes that tests need: this test program, started again as a worker that trains in milliseconds, or as a driver
//! that waits before a step of a publication until somebody kills it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nnflow::engine::drive::{Drive, OnFailure};
use nnflow::engine::events::{Listener, RunEvent};
use nnflow::engine::limits::WORKER_SILENCE;
use nnflow::engine::native::Native;
use nnflow::engine::perform::Performer;
use nnflow::engine::schedule::{Capacity, Scheduler};
use nnflow::engine::state::Forced;
use nnflow::engine::usage::Meter;
use nnflow::engine::worker::WorkerPool;
use nnflow::session::{OpenOptions, Session};
use nnflow_cache::{Digest, PublishStep, Store, hash_bytes};
use nnflow_stage::{Context, Host, Reply, Request, StageError, StageEvent, Task, WORKER_PROTOCOL};

use crate::support::{Project, WORKFLOW};

/// Names what the process shall be; without it, it is no other one.
const ROLE: &str = "NNFLOW_IT_ROLE";
const STORE: &str = "NNFLOW_IT_STORE";
const STEP: &str = "NNFLOW_IT_STEP";
const OCCURRENCE: &str = "NNFLOW_IT_OCCURRENCE";

/// After how many tasks a worker ends; never, where nothing is said.
pub(crate) const TASKS: &str = "NNFLOW_IT_TASKS";

/// What a driver says when it waits before its step.
pub(crate) const WAITING: &str = "waiting before the step";

/// How many epochs the worker trains.
const EPOCHS: usize = 12;

#[test]
fn entry() {
    match std::env::var(ROLE).as_deref() {
        Ok("worker") => serve(),
        Ok("driver") => drive(),
        _ => {}
    }
}

/// A shell script that becomes the worker. What the test program prints by itself must not come into its answers, which
/// therefore go to a descriptor of their own.
pub(crate) fn worker_script() -> String {
    let program = std::env::current_exe().expect("the test program has a path");
    format!(
        "exec env {ROLE}=worker '{}' --exact roles::entry --nocapture --test-threads=1 3>&1 >/dev/null",
        program.display()
    )
}

/// A driver of a project's workflow that waits before a publication takes a step for the so-many-th time.
pub(crate) fn driver(project: &Project, step: PublishStep, occurrence: usize) -> Command {
    project.script("worker", &worker_script());
    let mut command = Command::new(std::env::current_exe().expect("the test program has a path"));
    command.args(["--exact", "roles::entry", "--nocapture", "--test-threads=1"]);
    command.current_dir(project.path("."));
    command.env(ROLE, "driver").env(STORE, project.path(".nnflow")).env(STEP, format!("{step:?}"));
    command.env(OCCURRENCE, occurrence.to_string());
    command
}

fn drive() {
    // What the test program has begun to say stands in a line of its own.
    println!();
    let variable = |name: &str| std::env::var(name).expect("the parent sets the variable");
    let (step, occurrence) = (variable(STEP), variable(OCCURRENCE).parse::<usize>().expect("a number"));
    let count = AtomicUsize::new(0);
    let hook = move |taken: PublishStep| {
        if format!("{taken:?}") == step && count.fetch_add(1, Ordering::Relaxed) + 1 == occurrence {
            println!("{WAITING}");
            loop {
                std::thread::park();
            }
        }
        Ok(())
    };
    let mut session =
        Session::open(Path::new(WORKFLOW), &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    session.store = Store::open(variable(STORE)).expect("the store can be opened").with_fault_hook(Arc::new(hook));
    run(&session);
}

/// What `nnflow run` does, without what it prints.
fn run(session: &Session) {
    let (native, workers) = (Native::new(2).expect("two threads"), WorkerPool::new("./worker".into(), WORKER_SILENCE));
    let cancel = AtomicBool::new(false);
    let performer = Performer {
        store: &session.store,
        shared: None,
        native: &native,
        workers: &workers,
        meter: Meter::default(),
        cancel: &cancel,
        keeps_time: true,
        device: "cpu".to_owned(),
    };
    session.store.claim_what_is_used().expect("the store can be written");
    let wanted: BTreeSet<_> = session.graph.order().iter().copied().collect();
    let mut state = session.state(session.sources().expect("the dataset can be read"), wanted, Forced::new());
    let ready = state.settle();
    let scheduler = Scheduler::new(Capacity { threads: 2, memory_bytes: 1 << 32, gpus: 0 });
    let end = Drive::new(&mut state, &performer, scheduler, &mut Events, OnFailure::FinishNode).run(ready);
    assert_eq!(end.failures, []);
}

/// Prints events as JSON lines.
struct Events;

impl Listener for Events {
    fn hear(&mut self, event: &RunEvent) {
        println!("{}", serde_json::to_string(event).expect("an event is plain data"));
    }
}

/// Answers as the real worker does.
fn serve() {
    let answers = Answers(Mutex::new(File::options().write(true).open("/dev/fd/3").expect("the script opens it")));
    let version = env!("CARGO_PKG_VERSION").to_owned();
    answers.give(&Reply::Ready { protocol: WORKER_PROTOCOL, version, device: "CPU".to_owned() });
    let tasks = std::env::var(TASKS).ok().and_then(|tasks| tasks.parse().ok()).unwrap_or(usize::MAX);
    for line in std::io::stdin().lock().lines().take(tasks) {
        let Ok(line) = line else { return };
        let Ok(Request::Run { task }) = serde_json::from_str(&line) else { continue };
        let mut context = Context::new(&task, &answers);
        match train(&mut context, &task) {
            Ok(()) => answers.give(&Reply::Done { outcome: context.into_outcome() }),
            Err(error) => answers.give(&Reply::Failed { report: error.report() }),
        }
    }
}

struct Answers(Mutex<File>);

impl Answers {
    /// Whoever is gone needs no answer; the end of standard input ends this process.
    fn give(&self, reply: &Reply) {
        let line = serde_json::to_string(reply).expect("a reply is plain data");
        writeln!(self.0.lock().expect("nobody panics while answering"), "{line}").unwrap_or(());
    }
}

impl Host for Answers {
    fn event(&self, event: StageEvent) {
        self.give(&Reply::Event { event });
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// Makes a model of digests: each epoch's follows from the one before and from all that the task reads. Goes on from a
/// checkpoint as a training does.
fn train(context: &mut Context<'_>, task: &Task) -> Result<(), StageError> {
    std::fs::create_dir_all(context.work())?;
    let checkpoint = |folder: &Path| folder.join("checkpoint");
    let left = context.earlier_attempts().iter().find_map(|folder| std::fs::read_to_string(checkpoint(folder)).ok());
    let mut epochs: Vec<Digest> =
        left.iter().flat_map(|text| text.lines()).filter_map(|line| line.parse().ok()).collect();
    let read = what_is_read(task)?;
    while epochs.len() < EPOCHS {
        let before = epochs.last().map(Digest::to_hex).unwrap_or_default();
        epochs.push(hash_bytes(format!("{before} {read}").as_bytes()));
        let text: String = epochs.iter().map(|epoch| format!("{epoch}\n")).collect();
        let staged = context.work().join("staged");
        std::fs::write(&staged, text)?;
        std::fs::rename(&staged, checkpoint(context.work()))?;
        context.log(format!("epoch {} of {EPOCHS}", epochs.len()));
    }
    let mut output = context.output("model");
    let text: Vec<String> = epochs.iter().map(Digest::to_hex).collect();
    output.json("model.json", &text)?;
    output.bytes("weights.safetensors", text.concat().as_bytes())
}

/// The digest of the bytes of all files that a task reads, and of what else its result depends on.
fn what_is_read(task: &Task) -> Result<String, StageError> {
    let members = serde_json::to_value(&task.inputs).map_err(|error| StageError::internal(error.to_string()))?;
    let mut paths = Vec::new();
    collect_paths(&members, &mut paths);
    paths.sort();
    let mut text = format!("{} {:?}", task.seed, task.axes);
    let digests = paths.iter().map(|path| Ok(hash_bytes(&std::fs::read(path)?).to_hex()));
    let mut digests = digests.collect::<std::io::Result<Vec<String>>>()?;
    digests.sort();
    text.push_str(&digests.concat());
    Ok(hash_bytes(text.as_bytes()).to_hex())
}

fn collect_paths(value: &serde_json::Value, paths: &mut Vec<PathBuf>) {
    match value {
        serde_json::Value::Object(table) => {
            paths.extend(table.get("path").and_then(|path| path.as_str()).map(PathBuf::from));
            table.values().for_each(|value| collect_paths(value, paths));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_paths(value, paths)),
        _ => {}
    }
}
