//! A tiny dataset and workflow in a folder of their own, and the built program to run on them.
//!
//! Tests look at nnflow as its users do: from the command line, through what it prints, the events that it writes, its exit
//! code and the files that it leaves. Only the digests of results are asked for through the library, since no command
//! prints all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;

use nnflow::engine::events::{NodeEnd, RunEvent};
use nnflow::engine::state::{Port, Slot};
use nnflow::session::{OpenOptions, Session};
use tempfile::TempDir;

/// The file of every project's workflow.
pub(crate) const WORKFLOW: &str = "workflow.toml";

/// The folder of every project's dataset.
pub(crate) const DATASET: &str = "data/Dataset001_Tiny";

/// The training cases of the dataset.
pub(crate) const CASES: [&str; 5] = ["phantom_001", "phantom_002", "phantom_003", "phantom_004", "phantom_005"];

/// Exit codes that nnflow promises.
pub(crate) mod exit {
    pub(crate) const DONE: i32 = 0;
    pub(crate) const STAGE_FAILED: i32 = 1;
    pub(crate) const WRONG_INPUT: i32 = 2;
    pub(crate) const LOCK_DIFFERS: i32 = 3;
    pub(crate) const STORAGE: i32 = 4;
    pub(crate) const EXECUTOR: i32 = 5;
    pub(crate) const EXPECTATION_NOT_MET: i32 = 6;
    pub(crate) const INTERRUPTED: i32 = 75;
}

/// All of nnU-Net in a few seconds, with every kind of node; networks that find something, however badly.
const WORKFLOW_TEXT: &str = r#"# A tiny workflow.
name = "tiny"
extends = "nnunet-v2"

[dataset]
path = "data/Dataset001_Tiny"

[axes]
configuration = ["2d", "3d_fullres"]
fold = [0, 1]

[stages.plan.with]
base_features = 4
max_features_2d = 8
max_features_3d = 8
max_batch_size_2d = 4
max_batch_size_3d = 2
max_patch_2d = [24, 24]
max_patch_3d = [16, 24, 24]

[stages.split.with]
folds = 2

[stages.train.with]
epochs = 5
batches_per_epoch = 30
validation_batches = 1
optimizer = { name = "adam", learning_rate = 0.02 }
"#;

/// What comes before a training, in well under a second and without a worker.
const PREPARATION_TEXT: &str = r#"# All that comes before a training.
name = "preparation"

[dataset]
path = "data/Dataset001_Tiny"

[axes]
configuration = ["2d", "3d_fullres"]

[stages.ingest]
inputs = { files = "dataset.cases", description = "dataset.description" }

[stages.crop]
inputs = { cases = "ingest" }

[stages.fingerprint]
inputs = { cases = "ingest", crop = "crop", set = "ingest", description = "dataset.description" }

[stages.plan]
inputs = { fingerprint = "fingerprint", description = "dataset.description" }

[stages.plan.with]
max_patch_2d = [24, 24]
max_patch_3d = [16, 24, 24]

[stages.split]
inputs = { cases = "ingest", splits = "dataset.splits" }

[stages.split.with]
folds = 2

[stages.normalize]
over = ["configuration"]
when = "configuration in plan"
store = false
inputs = { cases = "ingest", crop = "crop", plan = "plan" }

[stages.resample]
over = ["configuration"]
when = "configuration in plan"
inputs = { cases = "normalize", plan = "plan", description = "dataset.description" }
"#;

/// Trainings after the preparation, for a worker of the tests' own.
const TRAINING_TEXT: &str = r#"
[stages.train]
over = ["configuration", "fold"]
when = "configuration in plan"
inputs = { cases = "resample", plan = "plan", split = "split", description = "dataset.description" }
"#;

/// What makes a training last long enough that something can happen to it: one configuration, many short epochs.
pub(crate) const LONG_TRAINING: [&str; 6] = [
    "--set",
    "axes.configuration=[\"2d\"]",
    "--set",
    "stages.train.with.epochs=40",
    "--set",
    "stages.train.with.batches_per_epoch=4",
];

/// A folder with a dataset and a workflow.
pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    /// A folder with nothing in it.
    pub(crate) fn empty() -> Self {
        let folder = TempDir::new_in(scratch()).expect("a temporary folder can be made");
        Self { folder }
    }

    /// A project that has never run.
    pub(crate) fn fresh() -> Self {
        static DATASET_FOLDER: OnceLock<PathBuf> = OnceLock::new();
        let dataset = DATASET_FOLDER.get_or_init(|| {
            let folder = scratch().join("dataset");
            let text = folder.to_str().expect("the path is valid Unicode").to_owned();
            let size = ["--shape", "16,24,24", "--spacing", "2,1,1", "--organs", "2"];
            let made = Ended::of(program().args(["phantom", &text, "--cases", "5", "--test-cases", "2"]).args(size));
            assert_eq!(made.code, exit::DONE, "{}", made.err);
            folder
        });
        let project = Self::empty();
        copy(dataset, &project.path(DATASET));
        project.write(WORKFLOW, WORKFLOW_TEXT);
        project
    }

    /// A project that only prepares a training, and has never run.
    pub(crate) fn preparing() -> Self {
        let project = Self::fresh();
        project.write(WORKFLOW, PREPARATION_TEXT);
        project
    }

    /// A project that prepares four trainings and trains, and has never run.
    pub(crate) fn preparing_and_training() -> Self {
        let project = Self::preparing();
        project.replace("[axes]\n", "[axes]\nfold = [0, 1]\n");
        project.append(TRAINING_TEXT);
        project
    }

    /// A project that has prepared a training.
    pub(crate) fn prepared() -> Self {
        static PREPARED: OnceLock<PathBuf> = OnceLock::new();
        Self::copied(PREPARED.get_or_init(|| keep(Self::preparing(), "prepared", &[])))
    }

    /// A project that has run to its end: a copy, so that it is a moved folder as well.
    pub(crate) fn finished() -> Self {
        static FINISHED: OnceLock<PathBuf> = OnceLock::new();
        Self::copied(FINISHED.get_or_init(|| keep(Self::fresh(), "finished", &[])))
    }

    /// A project whose training with [`LONG_TRAINING`] nobody has disturbed.
    pub(crate) fn undisturbed() -> Self {
        static UNDISTURBED: OnceLock<PathBuf> = OnceLock::new();
        Self::copied(UNDISTURBED.get_or_init(|| keep(Self::fresh(), "undisturbed", &LONG_TRAINING)))
    }

    fn copied(from: &Path) -> Self {
        let project = Self::empty();
        copy(from, &project.path("."));
        project
    }

    /// A path in the project.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// A file's text.
    pub(crate) fn read(&self, file: &str) -> String {
        fs_err::read_to_string(self.path(file)).expect("the file can be read")
    }

    /// Writes a file, and its folder where that is missing.
    pub(crate) fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(file);
        fs_err::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the folder can be made");
        fs_err::write(path, bytes).expect("the file can be written");
    }

    /// Adds to the end of the workflow.
    pub(crate) fn append(&self, text: &str) {
        self.write(WORKFLOW, format!("{}{text}", self.read(WORKFLOW)));
    }

    /// Changes a text of the workflow that is there once.
    pub(crate) fn replace(&self, old: &str, new: &str) {
        let text = self.read(WORKFLOW);
        assert_eq!(text.matches(old).count(), 1, "`{old}` in\n{text}");
        self.write(WORKFLOW, text.replace(old, new));
    }

    /// A command of nnflow in the project's folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// Runs a command of nnflow to its end.
    pub(crate) fn nnflow(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    /// What a command prints that must succeed.
    pub(crate) fn output(&self, arguments: &[&str]) -> String {
        let ended = self.nnflow(arguments);
        assert_eq!(ended.code, exit::DONE, "{}", ended.err);
        ended.out
    }

    /// Runs the workflow to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.start(arguments).wait()
    }

    /// Runs the workflow to its end with a worker of one's own: a shell script.
    pub(crate) fn run_with_worker(&self, script: &str, arguments: &[&str]) -> Run {
        self.start_with_worker(script, arguments).wait()
    }

    /// Writes a shell script that can be run.
    pub(crate) fn script(&self, file: &str, text: &str) {
        self.write(file, format!("#!/bin/sh\n{text}\n"));
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(self.path(file), executable).expect("the script can be made executable");
    }

    /// Starts to run the workflow.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::of(&mut self.command(&["run"]), arguments)
    }

    /// Starts to run the workflow with other values of environment variables.
    pub(crate) fn start_within(&self, environment: &[(&str, &Path)], arguments: &[&str]) -> Running {
        let mut command = self.command(&["run"]);
        command.envs(environment.iter().copied());
        Running::of(&mut command, arguments)
    }

    /// Starts to run the workflow with a worker of one's own: a shell script, in which `$NNFLOW_WORKER` is the real one.
    pub(crate) fn start_with_worker(&self, script: &str, arguments: &[&str]) -> Running {
        self.script("worker", script);
        let mut command = self.command(&["run"]);
        command.env("NNFLOW_WORKER", worker()).env("NNFLOW_TORCH", self.path("worker"));
        Running::of(&mut command, arguments)
    }

    /// The digest of everything that the nodes have made: `train[2d,0].model` or `predict[2d,0].labels/phantom_001`.
    pub(crate) fn results(&self, sets: &[&str]) -> BTreeMap<String, String> {
        let sets = sets.iter().filter(|text| **text != "--set").map(|text| (*text).to_owned()).collect();
        let options = OpenOptions { sets, ..OpenOptions::default() };
        let session = Session::open(&self.path(WORKFLOW), &options).unwrap_or_else(|error| panic!("{error}"));
        let state = session.settled().unwrap_or_else(|report| panic!("{}", report.message));
        let mut results = BTreeMap::new();
        for node in session.graph.order() {
            let name = &session.graph.node(*node).name;
            for (port, made) in &state.nodes[node.index()].ports {
                let cases = match made {
                    Port::One(slot) => vec![(String::new(), slot)],
                    Port::Items(slots) => {
                        slots.iter().flatten().map(|(case, slot)| (format!("/{case}"), slot)).collect()
                    }
                };
                let held = cases.into_iter().filter_map(|(case, slot)| match slot {
                    Slot::Made(held) => Some((format!("{name}.{port}{case}"), held.digest.to_hex())),
                    _ => None,
                });
                results.extend(held);
            }
        }
        results
    }

    /// A text with this project's folder written as `[project]`.
    pub(crate) fn redact(&self, text: &str) -> String {
        let folder = fs_err::canonicalize(self.folder.path()).expect("the project is there");
        text.replace(folder.to_str().expect("the path is valid Unicode"), "[project]")
    }
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::if_started(command).expect("nnflow can be started")
    }

    /// How a command ended, if it could be started.
    pub(crate) fn if_started(command: &mut Command) -> Option<Self> {
        let output = command.output().ok()?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("nnflow writes valid Unicode");
        let code = output.status.code().expect("no signal ended nnflow");
        Some(Self { code, out: text(output.stdout), err: text(output.stderr) })
    }
}

/// A run under way. Its events come over its standard output, as they happen.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    errors: JoinHandle<String>,
    events: Vec<RunEvent>,
    out: String,
}

impl Running {
    pub(crate) fn of(command: &mut Command, arguments: &[&str]) -> Self {
        Self::reading(command.args(arguments).args(["--events", "/dev/stdout"]))
    }

    /// A program that prints events to its standard output, among other things.
    pub(crate) fn reading(command: &mut Command) -> Self {
        // A group of its own, as a terminal gives it, so that a signal to the group spares the tests.
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("nnflow can be started");
        let lines = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let mut stderr = child.stderr.take().expect("standard error is a pipe");
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("nnflow writes valid Unicode");
            text
        });
        Self { child, lines, errors, events: Vec::new(), out: String::new() }
    }

    /// The next event; lines that are none are what the run prints.
    fn next(&mut self) -> Option<&RunEvent> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("nnflow writes valid Unicode") == 0 {
                return None;
            }
            match serde_json::from_str(&line) {
                Ok(event) => {
                    self.events.push(event);
                    return self.events.last();
                }
                Err(_) => self.out.push_str(&line),
            }
        }
    }

    /// Waits for the next event; tells whether there was one.
    pub(crate) fn has_next(&mut self) -> bool {
        self.next().is_some()
    }

    /// Waits until something besides events was printed; tells whether it was.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> bool {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("nnflow writes valid Unicode") == 0 {
                return false;
            }
            match serde_json::from_str(&line) {
                Ok(event) => self.events.push(event),
                Err(_) => self.out.push_str(&line),
            }
            if self.out.contains(text) {
                return true;
            }
        }
    }

    /// Waits until something has happened.
    pub(crate) fn wait_for(&mut self, happened: impl Fn(&RunEvent) -> bool) {
        while let Some(event) = self.next() {
            if happened(event) {
                return;
            }
        }
        panic!("the run ended before what was waited for happened: {:?}", self.events.last());
    }

    /// Waits until a node's log has a line that begins so.
    pub(crate) fn wait_for_log(&mut self, node: &str, beginning: &str) {
        self.wait_for(
            |event| matches!(event, RunEvent::Log { node: of, line, .. } if of == node && line.starts_with(beginning)),
        );
    }

    /// The engine's process.
    pub(crate) fn driver(&self) -> u32 {
        self.child.id()
    }

    /// The processes of the engine's workers.
    pub(crate) fn workers(&self) -> Vec<u32> {
        children(self.child.id())
    }

    /// The processes that workers have started, the first one first.
    pub(crate) fn ranks(&self) -> Vec<u32> {
        let mut ranks: Vec<u32> = self.workers().into_iter().flat_map(children).collect();
        ranks.sort_unstable();
        ranks
    }

    /// Reads on until the run has ended.
    pub(crate) fn wait(mut self) -> Run {
        while self.next().is_some() {}
        let code = self.child.wait().expect("the run can be waited for").code();
        let err = self.errors.join().expect("standard error was read");
        Run { code, events: self.events, out: self.out, err }
    }
}

/// A run that has ended.
pub(crate) struct Run {
    /// The exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) events: Vec<RunEvent>,
    /// What it printed besides the events.
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// That the run ended with this exit code.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.err);
        self
    }

    /// What ran: `plan`, or `crop/phantom_001` for a case.
    pub(crate) fn units(&self) -> BTreeSet<String> {
        let units = self.events.iter().filter_map(|event| match event {
            RunEvent::UnitDone { node, case, .. } => Some(unit(node, case.as_deref())),
            _ => None,
        });
        units.collect()
    }

    /// What was begun, whether or not it was ended.
    pub(crate) fn started(&self) -> BTreeSet<String> {
        let units = self.events.iter().filter_map(|event| match event {
            RunEvent::UnitStarted { node, case, .. } => Some(unit(node, case.as_deref())),
            _ => None,
        });
        units.collect()
    }

    /// The nodes that ran, in part or as a whole.
    pub(crate) fn nodes(&self) -> BTreeSet<String> {
        self.units().iter().map(|unit| unit.split('/').next().unwrap_or(unit).to_owned()).collect()
    }

    /// The stages that ran: their nodes' names without the values on axes.
    pub(crate) fn stages(&self) -> BTreeSet<String> {
        self.nodes().iter().map(|node| node.split('[').next().unwrap_or(node).to_owned()).collect()
    }

    /// The cases of a node that ran.
    pub(crate) fn cases(&self, node: &str) -> BTreeSet<String> {
        let prefix = format!("{node}/");
        self.units().iter().filter_map(|unit| unit.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    /// The lines of a node's log.
    pub(crate) fn log(&self, node: &str) -> Vec<&str> {
        let lines = self.events.iter().filter_map(|event| match event {
            RunEvent::Log { node: of, line, .. } if of == node => Some(line.as_str()),
            _ => None,
        });
        lines.collect()
    }

    /// How a node ended.
    pub(crate) fn end_of(&self, name: &str) -> Option<&NodeEnd> {
        self.events.iter().find_map(|event| match event {
            RunEvent::NodeEnded { node, end, .. } if node == name => Some(end),
            _ => None,
        })
    }
}

fn unit(node: &str, case: Option<&str>) -> String {
    case.map_or_else(|| node.to_owned(), |case| format!("{node}/{case}"))
}

/// Sends a signal, such as `KILL`, to processes.
pub(crate) fn signal(name: &str, processes: &[u32]) {
    // The shell's own `kill`, since not every machine has it as a program.
    let mut command = Command::new("sh");
    command.args(["-c", "kill \"$@\"", "sh", &format!("-{name}")]).args(processes.iter().map(u32::to_string));
    assert!(command.status().expect("a shell can be started").success(), "kill -{name} {processes:?}");
}

/// Makes a pipe with a name.
pub(crate) fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo can be started").success());
}

/// A set of names.
pub(crate) fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// The processes that a process has started.
fn children(process: u32) -> Vec<u32> {
    let entries = fs_err::read_dir("/proc").expect("/proc can be read").flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|other| parent(*other) == Some(process)).collect()
}

/// The process that started another one.
fn parent(process: u32) -> Option<u32> {
    // The second field is the program's name in parentheses, which may hold anything.
    let stat = fs_err::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nnflow"));
    // Results are compared bit by bit, which only the CPU promises.
    command.env("CUDA_VISIBLE_DEVICES", "").env("NNFLOW_TORCH", worker());
    command
}

/// The worker that was built beside nnflow.
pub(crate) fn worker() -> PathBuf {
    let worker = Path::new(env!("CARGO_BIN_EXE_nnflow")).with_file_name("nnflow-torch");
    assert!(worker.is_file(), "there is no {}: `cargo xtask test` builds it and runs the tests", worker.display());
    worker
}

/// The folder of this test binary, in which all projects lie. What an earlier one left that was killed is removed.
fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let mine = format!("it-{}", std::process::id());
        for entry in fs_err::read_dir(all).expect("cargo has made the folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix("it-").map(|process| Path::new("/proc").join(process));
            if owner.is_some_and(|owner| !owner.exists()) {
                match fs_err::remove_dir_all(entry.path()) {
                    // Another run of the tests has come first.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    removed => removed.expect("what a killed test left can be removed"),
                }
            }
        }
        let folder = all.join(mine);
        fs_err::create_dir_all(&folder).expect("a temporary folder can be made");
        folder
    })
}

/// Runs a workflow to its end and keeps its folder for as long as the tests run.
fn keep(project: Project, name: &str, arguments: &[&str]) -> PathBuf {
    project.run(arguments).expect(exit::DONE);
    let folder = scratch().join(name);
    fs_err::rename(project.folder.path(), &folder).expect("the folder can be renamed");
    folder
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).expect("a folder can be made");
    for entry in fs_err::read_dir(from).expect("a folder can be read").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), &target).expect("a file can be copied");
        }
    }
}
