//! Runs one stage by itself, from files to files, without a workflow and without a store.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nnflow_cache::hash_file;
use nnflow_stage::{
    Artifact, Axes, ErrorKind, ErrorReport, FileRef, InputPort, InputValue, Member, Outcome, OutputFile, OutputSource,
    Parameters, Phase, PhaseKind, ProducedArtifact, Read, ResourceQuery, Resources, Runner, Stage, StageEvent, Task,
    TaskResources,
};
use serde_json::Value;

use super::limits::{Stop, WORKER_SILENCE};
use super::native::Native;
use super::schedule::Capacity;
use super::worker::WorkerPool;

/// What is run.
pub struct Alone {
    /// The stage.
    pub stage: &'static dyn Stage,
    /// What arrives at its input ports.
    pub inputs: Vec<AloneInput>,
    /// Every parameter.
    pub parameters: Parameters,
    /// Values on axes.
    pub axes: Axes,
    /// The seed.
    pub seed: u64,
    /// The folder that takes what the stage makes.
    pub output: PathBuf,
    /// The worker's program.
    pub worker: PathBuf,
    /// The device for tensors.
    pub device: String,
    /// What the machine gives.
    pub capacity: Capacity,
}

/// What arrives at an input port, or a member of it.
pub struct AloneInput {
    /// The port.
    pub port: String,
    /// Where on its axes the member was made; empty at a port with one.
    pub axes: Axes,
    /// Where it lies.
    pub path: PathBuf,
}

/// What runs tasks.
struct Runners {
    native: Native,
    workers: WorkerPool,
}

/// What is at each port: one member, or several at a port that takes many.
type Inputs = BTreeMap<String, Vec<(Axes, Given)>>;

/// What is at a port.
#[derive(Clone)]
enum Given {
    One(Artifact),
    Items(BTreeMap<String, Artifact>),
}

/// Runs all phases of a stage; returns the folders that were written.
///
/// # Errors
/// If an input is missing or cannot be read, or the stage fails.
pub fn run_alone(alone: &Alone) -> Result<Vec<String>, ErrorReport> {
    let spec = alone.stage.spec();
    let mut given = Inputs::new();
    for AloneInput { port: name, axes, path } in &alone.inputs {
        let port = spec.input(name).ok_or_else(|| {
            let names: Vec<_> = spec.inputs.iter().map(|port| format!("`{}`", port.name)).collect();
            wrong(format!("stage `{}` has no input `{name}`; it has {}", spec.name, names.join(", ")))
        })?;
        let members = given.entry(name.clone()).or_default();
        if !members.is_empty() && !port.many {
            return Err(wrong(format!("input `{name}` of stage `{}` is one path, several were given", spec.name)));
        }
        members.push((axes.clone(), read_input(port, path)?));
    }
    for axis in spec.axes {
        if !alone.axes.contains_key(*axis) {
            return Err(wrong(format!("stage `{}` needs a value on the axis `{axis}`: `--axis {axis}=…`", spec.name)));
        }
    }
    fs_err::create_dir_all(&alone.output).map_err(|error| storage(&error))?;
    let runners = Runners {
        native: Native::new(alone.capacity.threads)?,
        workers: WorkerPool::new(alone.worker.clone(), WORKER_SILENCE),
    };
    let mut written = Vec::new();
    for phase in spec.phases {
        let made = run_phase(alone, phase, &given, &runners)?;
        written.extend(made.keys().map(|port| alone.output.join(port).display().to_string()));
        for (port, value) in made {
            given.entry(port).or_insert_with(|| vec![(Axes::new(), value)]);
        }
    }
    Ok(written)
}

fn run_phase(
    alone: &Alone,
    phase: &'static Phase,
    given: &Inputs,
    runners: &Runners,
) -> Result<BTreeMap<String, Given>, ErrorReport> {
    let items = match phase.kind {
        PhaseKind::Whole => vec![None],
        PhaseKind::PerCase => cases(alone, phase, given)?.into_iter().map(Some).collect(),
    };
    let tasks = items.iter().map(|item| task(alone, phase, item.as_deref(), given)).collect::<Result<Vec<_>, _>>()?;
    let outcomes = run_tasks(alone, &tasks, runners)?;
    let mut made: BTreeMap<String, Given> = BTreeMap::new();
    for (item, outcome) in items.into_iter().zip(outcomes) {
        let folder = |port: &str| match (&item, alone.output.join(port)) {
            (Some(item), folder) => folder.join(item),
            (None, folder) => folder,
        };
        for (port, produced) in settle(&outcome, folder)? {
            match (made.get_mut(&port), produced, &item) {
                (Some(Given::Items(items)), Given::One(artifact), Some(item)) => {
                    items.insert(item.clone(), artifact);
                }
                (_, Given::One(artifact), Some(item)) => {
                    made.insert(port, Given::Items(BTreeMap::from([(item.clone(), artifact)])));
                }
                (_, produced, _) => {
                    made.insert(port, produced);
                }
            }
        }
    }
    Ok(made)
}

/// Runs tasks side by side; the outcomes are in their order.
fn run_tasks(alone: &Alone, tasks: &[Task], runners: &Runners) -> Result<Vec<Outcome>, ErrorReport> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, task)) = tasks.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = run_task(alone, task, runners);
            // Nobody begins another case of a stage that has failed.
            if outcome.is_err() {
                next.fetch_add(tasks.len(), Ordering::Relaxed);
            }
            done.push((index, outcome));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once(alone, tasks)).map(|_| scope.spawn(work)).collect();
        let done = threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        done.collect::<Vec<_>>()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// How many tasks there are threads and memory for at a time.
fn at_once(alone: &Alone, tasks: &[Task]) -> usize {
    if alone.stage.spec().runner == Runner::Torch {
        return 1;
    }
    let demands = tasks.iter().map(|task| {
        let Resources { threads, memory_bytes } = alone.stage.resources(&ResourceQuery {
            phase: &task.phase,
            parameters: &task.parameters,
            input_bytes: input_bytes(task),
            inputs: &task.inputs,
        });
        (if threads == 0 { alone.capacity.threads } else { threads }, memory_bytes)
    });
    let (threads, bytes) = demands.fold((1, 1), |most, one| (one.0.max(most.0), one.1.max(most.1)));
    let fitting = usize::try_from(alone.capacity.memory_bytes / bytes).unwrap_or(usize::MAX);
    (alone.capacity.threads / threads).min(fitting).clamp(1, tasks.len().max(1))
}

fn input_bytes(task: &Task) -> u64 {
    let values = task.inputs.values().flatten().map(|member| &member.value);
    let bytes = |artifact: &Artifact| artifact.files.iter().map(|file| file.bytes).sum::<u64>();
    values
        .map(|value| match value {
            InputValue::One(artifact) => bytes(artifact),
            InputValue::Items(items) => items.values().map(bytes).sum(),
            InputValue::Document(_) => 0,
        })
        .sum()
}

fn run_task(alone: &Alone, task: &Task, runners: &Runners) -> Result<Outcome, ErrorReport> {
    let never = AtomicBool::new(false);
    let stop = Stop::when(&never);
    let mut event = |event: StageEvent| {
        if let StageEvent::Log { line } = event {
            crate::cli::complain(&line);
        }
    };
    match alone.stage.spec().runner {
        Runner::Native => runners.native.run(alone.stage, task, &stop, &mut event),
        Runner::Torch => {
            let gpus: Vec<usize> = (0..alone.capacity.gpus.min(1)).collect();
            runners.workers.run(task, &gpus, &stop, &mut event).map(|(outcome, _)| outcome)
        }
    }
}

/// The cases of a per-case phase.
fn cases(alone: &Alone, phase: &Phase, given: &Inputs) -> Result<Vec<String>, ErrorReport> {
    let spec = alone.stage.spec();
    let mut documents = BTreeMap::new();
    let mut available = None;
    for name in phase.reads {
        let first = given.get(*name).and_then(|members| members.first()).map(|(_, value)| value);
        match (first, spec.input(name)) {
            (Some(value), Some(port)) if port.read != Read::Whole => {
                documents.insert((*name).to_owned(), document(alone, port, value)?);
            }
            (Some(Given::Items(items)), _) if available.is_none() => available = Some(items.keys().cloned().collect()),
            _ => {}
        }
    }
    let available: Vec<String> = available.unwrap_or_default();
    alone.stage.items(phase.name, &available, &documents).map_err(|error| error.report())
}

fn task(alone: &Alone, phase: &Phase, item: Option<&str>, given: &Inputs) -> Result<Task, ErrorReport> {
    let spec = alone.stage.spec();
    let mut inputs = BTreeMap::new();
    for name in phase.reads {
        let port = spec.input(name);
        let optional = port.map_or_else(|| spec.output(name).is_some_and(|port| port.optional), |port| port.optional);
        let Some(members) = given.get(*name) else {
            if optional {
                continue;
            }
            return Err(wrong(format!("stage `{}` needs input `{name}`: `--input {name}=PATH`", spec.name)));
        };
        let mut read = Vec::new();
        for (axes, value) in members {
            let value = match (port, value, item) {
                (Some(port), value, _) if port.read != Read::Whole => {
                    InputValue::Document(document(alone, port, value)?)
                }
                (_, Given::One(artifact), _) => InputValue::One(artifact.clone()),
                (_, Given::Items(items), None) => InputValue::Items(items.clone()),
                (_, Given::Items(items), Some(item)) => match items.get(item) {
                    Some(artifact) => InputValue::One(artifact.clone()),
                    None if optional => continue,
                    None => return Err(wrong(format!("input `{name}` has no case `{item}`"))),
                },
            };
            read.push(Member { axes: axes.clone(), value });
        }
        if !read.is_empty() {
            inputs.insert((*name).to_owned(), read);
        }
    }
    Ok(Task {
        stage: spec.name.to_owned(),
        node: spec.name.to_owned(),
        phase: phase.name.to_owned(),
        item: item.map(str::to_owned),
        axes: alone.axes.clone(),
        parameters: alone.parameters.clone(),
        seed: alone.seed,
        inputs,
        output: item.map_or_else(|| alone.output.clone(), |item| alone.output.join(".cases").join(item)),
        work: alone.output.join(".work"),
        earlier: Vec::new(),
        resources: TaskResources {
            threads: alone.capacity.threads,
            memory_bytes: alone.capacity.memory_bytes,
            device: alone.device.clone(),
            processes: 1,
        },
    })
}

/// Moves what a task made to where the user finds it.
fn settle(outcome: &Outcome, folder: impl Fn(&str) -> PathBuf) -> Result<BTreeMap<String, Given>, ErrorReport> {
    let mut made = BTreeMap::new();
    for (port, produced) in &outcome.outputs {
        let value = match produced {
            ProducedArtifact::One(files) => Given::One(place(files, &folder(port))?),
            ProducedArtifact::Items(items) => {
                let placed =
                    items.iter().map(|(item, files)| Ok((item.clone(), place(files, &folder(port).join(item))?)));
                Given::Items(placed.collect::<Result<_, ErrorReport>>()?)
            }
        };
        made.insert(port.clone(), value);
    }
    Ok(made)
}

fn place(files: &[OutputFile], folder: &Path) -> Result<Artifact, ErrorReport> {
    let mut placed = Vec::new();
    for file in files {
        let to = folder.join(&file.name);
        let move_file = || {
            if let Some(parent) = to.parent() {
                fs_err::create_dir_all(parent)?;
            }
            match &file.source {
                OutputSource::Written { path } if *path == to => Ok(()),
                OutputSource::Written { path } => fs_err::rename(path, &to),
                OutputSource::Forwarded { path, .. } => fs_err::copy(path, &to).map(|_| ()),
            }
        };
        move_file().map_err(|error| storage(&error))?;
        placed.push(file_ref(&file.name, &to)?);
    }
    Ok(Artifact { files: placed })
}

/// What a path holds, as the port needs it.
fn read_input(port: &InputPort, path: &Path) -> Result<Given, ErrorReport> {
    if port.kinds == ["raw"] && path.join("dataset.json").is_file() {
        let listing = nnflow_nnunet::sources::dataset(path, None).map_err(|error| error.report())?;
        if !listing.problems.is_empty() {
            return Err(ErrorReport { details: listing.problems, ..wrong("the dataset is incomplete".to_owned()) });
        }
        for warning in &listing.warnings {
            crate::cli::complain(&format!("warning: {warning}"));
        }
        let artifact = |files: Vec<nnflow_nnunet::sources::SourceFile>| {
            let files = files.iter().map(|file| file_ref(&file.name, &file.path));
            Ok::<_, ErrorReport>(Artifact { files: files.collect::<Result<_, ErrorReport>>()? })
        };
        let items = listing.cases.into_iter().map(|(case, files)| Ok((case, artifact(files)?)));
        return Ok(Given::Items(items.collect::<Result<_, ErrorReport>>()?));
    }
    if !port.per_case {
        return Ok(Given::One(read_artifact(path)?));
    }
    let mut items = BTreeMap::new();
    for entry in fs_err::read_dir(path).map_err(|error| storage(&error))? {
        let entry = entry.map_err(|error| storage(&error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if entry.path().is_dir() {
            items.insert(name, read_artifact(&entry.path())?);
        } else if let Some((case, ending)) = name.split_once('.') {
            // A folder of label images: `CASE.nii.gz` stands for the artifact with the file `labels.nii.gz`.
            let file = file_ref(&format!("labels.{ending}"), &entry.path())?;
            items.insert(case.to_owned(), Artifact { files: vec![file] });
        }
    }
    Ok(Given::Items(items))
}

fn read_artifact(path: &Path) -> Result<Artifact, ErrorReport> {
    if path.is_file() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(Artifact { files: vec![file_ref(&name, path)?] });
    }
    let mut files = Vec::new();
    for entry in fs_err::read_dir(path).map_err(|error| storage(&error))? {
        let entry = entry.map_err(|error| storage(&error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            let inner = read_artifact(&entry.path())?.files.into_iter();
            files.extend(inner.map(|file| FileRef { name: format!("{name}/{}", file.name), ..file }));
        } else if !name.starts_with('.') {
            files.push(file_ref(&name, &entry.path())?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Artifact { files })
}

fn file_ref(name: &str, path: &Path) -> Result<FileRef, ErrorReport> {
    let (digest, bytes) = hash_file(path).map_err(|error| ErrorReport::new(ErrorKind::Storage, error.to_string()))?;
    let path = fs_err::canonicalize(path).map_err(|error| storage(&error))?;
    Ok(FileRef { name: name.to_owned(), path, digest: digest.to_hex(), bytes, incidental: false })
}

/// The slice of what a port reads: of a JSON file, or of the cases' names.
fn document(alone: &Alone, port: &InputPort, given: &Given) -> Result<Value, ErrorReport> {
    let whole = match given {
        Given::Items(items) => Value::from(items.keys().cloned().collect::<Vec<_>>()),
        Given::One(artifact) => {
            let jsons = || artifact.files.iter().filter(|file| file.name.ends_with(".json"));
            let file = jsons().find(|file| file.name != "reasons.json").or_else(|| jsons().next());
            let file = file.ok_or_else(|| wrong(format!("input `{}` needs a JSON file", port.name)))?;
            let bytes = fs_err::read(&file.path).map_err(|error| storage(&error))?;
            nnflow_nnunet::read_json(&bytes).map_err(|error| wrong(format!("`{}`: {error}", file.name)))?
        }
    };
    alone.stage.slice(port.name, &whole, &alone.axes, &alone.parameters).map_err(|error| error.report())
}

fn wrong(message: String) -> ErrorReport {
    ErrorReport::new(ErrorKind::Input, message)
}

fn storage(error: &std::io::Error) -> ErrorReport {
    ErrorReport::new(ErrorKind::Storage, error.to_string())
}
