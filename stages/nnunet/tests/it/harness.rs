//! Runs stages as the engine does, without the engine: phases in order, cases one by one, documents cut by the stage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nnflow_nnunet::registry;
use nnflow_stage::{
    Artifact, Axes, Context, ErrorReport, FileRef, Host, InputValue, Member, OutputFile, OutputSource, Parameters,
    Phase, PhaseKind, ProducedArtifact, Read, Stage, StageEvent, Task, TaskResources, effective_parameters,
};
use serde_json::Value;
use tempfile::TempDir;

/// What a node made at one port, or what a source gives.
#[derive(Debug, Clone)]
pub(crate) enum Made {
    /// One artifact, with the name of its document.
    One(Artifact, Option<&'static str>),
    /// One artifact a case.
    Items(BTreeMap<String, Artifact>),
    /// A document that lies in no file.
    Document(Value),
    /// What several producers made, with their values on the axes that are gathered.
    Many(Vec<(Axes, Made)>),
}

impl Made {
    /// The files of a folder as the artifact of one case.
    pub(crate) fn case(identifier: &str, files: &[(&str, &Path)]) -> Self {
        let files = files.iter().map(|(name, path)| file_ref(name, path, false)).collect();
        Self::Items(BTreeMap::from([(identifier.to_owned(), Artifact { files })]))
    }

    /// The cases and the description of a dataset in nnU-Net's layout.
    pub(crate) fn dataset(folder: &Path) -> (Self, Self) {
        let listing = nnflow_nnunet::sources::dataset(folder, None).expect("a dataset");
        assert!(listing.problems.is_empty(), "{:?}", listing.problems);
        let cases = listing.cases.into_iter().map(|(case, files)| {
            let files = files.iter().map(|file| file_ref(&file.name, &file.path, false)).collect();
            (case, Artifact { files })
        });
        (Self::Items(cases.collect()), Self::Document(crate::vectors::json(&folder.join("dataset.json"))))
    }

    /// What several producers made, told by their values on one or several axes.
    pub(crate) fn gathered(producers: Vec<(&[(&str, &str)], Self)>) -> Self {
        Self::Many(producers.into_iter().map(|(values, made)| (axes_of(values), made)).collect())
    }

    /// A folder's files as an artifact.
    pub(crate) fn artifact(files: &[(&str, &Path)], document: Option<&'static str>) -> Self {
        let mut files: Vec<FileRef> = files.iter().map(|(name, path)| file_ref(name, path, false)).collect();
        files.sort_by(|first, second| first.name.cmp(&second.name));
        Self::One(Artifact { files }, document)
    }

    /// The producers, with their axes.
    fn members(&self) -> Vec<(Axes, &Self)> {
        match self {
            Self::Many(members) => members.iter().map(|(axes, made)| (axes.clone(), made)).collect(),
            one => vec![(Axes::new(), one)],
        }
    }

    /// The identifiers of all cases.
    fn names(&self) -> Vec<String> {
        let names: BTreeSet<String> =
            self.members().into_iter().flat_map(|(_, made)| made.items().keys().cloned()).collect();
        names.into_iter().collect()
    }

    /// The cases.
    pub(crate) fn items(&self) -> &BTreeMap<String, Artifact> {
        let Self::Items(items) = self else { panic!("this artifact is not per case") };
        items
    }

    /// The document.
    pub(crate) fn document(&self) -> Value {
        match self {
            Self::One(artifact, Some(name)) => {
                let content = std::fs::read(&artifact.file(name).expect("a document").path).expect("a file");
                nnflow_nnunet::read_json(&content).expect("JSON, perhaps with bare NaN")
            }
            Self::Document(document) => document.clone(),
            other => panic!("this artifact has no document: {other:?}"),
        }
    }
}

/// What a stage has made and told.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    /// Artifacts by port.
    pub(crate) made: BTreeMap<&'static str, Made>,
    /// Errors by case; those of phases that run as a whole are under an empty name.
    pub(crate) failures: BTreeMap<String, ErrorReport>,
    /// Lines of the log.
    pub(crate) log: Vec<String>,
    /// The folder of the files, which is there as long as this is.
    #[expect(dead_code, reason = "it is held, not read")]
    folder: Option<Arc<TempDir>>,
}

impl Finished {
    /// What was made at a port.
    pub(crate) fn port(&self, name: &str) -> &Made {
        self.made.get(name).unwrap_or_else(|| panic!("nothing was made at `{name}`"))
    }

    /// The only error that there is.
    pub(crate) fn failure(&self) -> &ErrorReport {
        assert_eq!(self.failures.len(), 1, "{:?}", self.failures);
        self.failures.values().next().expect("one")
    }
}

/// Takes what stages tell.
#[derive(Default)]
struct Listener(Mutex<Vec<String>>);

impl Host for Listener {
    fn event(&self, event: StageEvent) {
        if let StageEvent::Log { line } = event {
            self.0.lock().expect("no panic while it is held").push(line);
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// A folder in which stages run.
pub(crate) struct Bench {
    folder: Arc<TempDir>,
    tasks: Mutex<usize>,
}

/// One node of a graph: a stage with its axes and parameters.
pub(crate) struct Node<'a> {
    bench: &'a Bench,
    stage: &'static dyn Stage,
    axes: Axes,
    parameters: Parameters,
}

impl Bench {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { folder: Arc::new(tempfile::tempdir().expect("a temporary folder")), tasks: Mutex::new(0) }
    }

    /// The folder, also for files of a test's own.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A node of a registered stage, with default parameters.
    pub(crate) fn node(&self, stage: &str) -> Node<'_> {
        let stage = registry::stage(stage).unwrap_or_else(|| panic!("there is no stage `{stage}`"));
        let parameters = effective_parameters(stage.spec().parameters, &serde_json::Map::new()).expect("defaults");
        Node { bench: self, stage, axes: Axes::new(), parameters }
    }

    /// A folder that nothing lies in yet.
    pub(crate) fn fresh_folder(&self) -> PathBuf {
        let mut tasks = self.tasks.lock().expect("no panic while it is held");
        *tasks += 1;
        let folder = self.folder.path().join(format!("task-{tasks}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }
}

impl Node<'_> {
    /// The same node with a value on an axis.
    pub(crate) fn at(mut self, axis: &str, value: &str) -> Self {
        self.axes.insert(axis.to_owned(), value.to_owned());
        self
    }

    /// The same node with other parameters.
    pub(crate) fn with(mut self, given: Value) -> Self {
        let given = given.as_object().expect("a table of parameters");
        self.parameters = effective_parameters(self.stage.spec().parameters, given).expect("valid parameters");
        self
    }

    /// The slice of a document at a port.
    pub(crate) fn slice(&self, port: &str, document: &Value) -> Value {
        self.stage.slice(port, document, &self.axes, &self.parameters).expect("a slice")
    }

    /// Runs every phase, and panics if one fails.
    pub(crate) fn run(&self, inputs: &[(&'static str, &Made)]) -> Finished {
        let finished = self.try_run(inputs);
        assert!(finished.failures.is_empty(), "{}: {:#?}", self.stage.spec().name, finished.failures);
        finished
    }

    /// Runs the phases; those after a phase that failed are left out.
    pub(crate) fn try_run(&self, inputs: &[(&'static str, &Made)]) -> Finished {
        let mut known: BTreeMap<&'static str, Made> =
            inputs.iter().map(|(port, made)| (*port, (*made).clone())).collect();
        let mut finished = Finished { folder: Some(self.bench.folder.clone()), ..Finished::default() };
        for phase in self.stage.spec().phases {
            self.run_phase(phase, &known, &mut finished);
            if !finished.failures.is_empty() {
                break;
            }
            known.extend(finished.made.iter().map(|(port, made)| (*port, made.clone())));
        }
        finished
    }

    fn run_phase(&self, phase: &'static Phase, known: &BTreeMap<&'static str, Made>, finished: &mut Finished) {
        let documents = self.documents(phase, known);
        if phase.kind == PhaseKind::Whole {
            let task = self.task(phase, None, known, &documents);
            self.run_task(&task, finished);
            return;
        }
        let per_case = |port: &&&str| self.is_per_case(port) && self.reads(port) == Read::Whole;
        let first = phase.reads.iter().find(per_case).expect("a per-case input");
        let available = known.get(first).unwrap_or_else(|| panic!("nothing is given at `{first}`")).names();
        let slices: BTreeMap<String, Value> =
            documents.iter().filter_map(|(port, given)| Some((port.clone(), given.first()?.1.clone()))).collect();
        for item in self.stage.items(phase.name, &available, &slices).expect("cases") {
            let task = self.task(phase, Some(item), known, &documents);
            self.run_task(&task, finished);
        }
    }

    fn reads(&self, port: &str) -> Read {
        self.stage.spec().input(port).map_or(Read::Whole, |port| port.read)
    }

    fn is_per_case(&self, port: &str) -> bool {
        let spec = self.stage.spec();
        spec.input(port).map_or_else(|| spec.output(port).is_some_and(|port| port.per_case), |port| port.per_case)
    }

    fn documents(&self, phase: &Phase, known: &BTreeMap<&'static str, Made>) -> Documents {
        let read = phase.reads.iter().filter_map(|port| {
            let made = known.get(port)?;
            let read = self.reads(port);
            let slices = made.members().into_iter().map(|(axes, made)| {
                let document = match read {
                    Read::Document => made.document(),
                    _ => made.names().into_iter().map(Value::from).collect(),
                };
                (axes, self.slice(port, &document))
            });
            (read != Read::Whole).then(|| ((*port).to_owned(), slices.collect()))
        });
        read.collect()
    }

    fn task(
        &self,
        phase: &'static Phase,
        item: Option<String>,
        known: &BTreeMap<&'static str, Made>,
        documents: &Documents,
    ) -> Task {
        let mut inputs = BTreeMap::new();
        for port in phase.reads {
            let arrived: Vec<Member> = match (documents.get(*port), known.get(port)) {
                (Some(slices), _) => slices
                    .iter()
                    .map(|(axes, slice)| Member { axes: axes.clone(), value: InputValue::Document(slice.clone()) })
                    .collect(),
                (None, None) => continue,
                (None, Some(made)) => made
                    .members()
                    .into_iter()
                    .filter_map(|(axes, made)| Some(Member { axes, value: value_of(made, item.as_deref())? }))
                    .collect(),
            };
            if !arrived.is_empty() {
                inputs.insert((*port).to_owned(), arrived);
            }
        }
        let folder = self.bench.fresh_folder();
        let work = folder.join("work");
        std::fs::create_dir_all(&work).expect("a folder");
        Task {
            stage: self.stage.spec().name.to_owned(),
            node: self.stage.spec().name.to_owned(),
            phase: phase.name.to_owned(),
            item,
            axes: self.axes.clone(),
            parameters: phase.parameters.map_or_else(|| self.parameters.clone(), |names| self.parameters.only(names)),
            seed: 1234,
            inputs,
            output: folder.join("output"),
            work,
            earlier: Vec::new(),
            resources: TaskResources { threads: 1, memory_bytes: 4 << 30, device: "cpu".to_owned() },
        }
    }

    fn run_task(&self, task: &Task, finished: &mut Finished) {
        let listener = Listener::default();
        let mut context = Context::new(task, &listener);
        let result = self.stage.run(&mut context);
        let outcome = context.into_outcome();
        finished.log.extend(listener.0.into_inner().expect("no panic while it is held"));
        if let Err(error) = result {
            finished.failures.insert(task.item.clone().unwrap_or_default(), error.report());
            return;
        }
        for (port, produced) in outcome.outputs {
            let declared = self.stage.spec().output(&port).unwrap_or_else(|| panic!("output `{port}` is not declared"));
            match (produced, &task.item) {
                (ProducedArtifact::One(files), Some(item)) => {
                    let entry = finished.made.entry(declared.name).or_insert_with(|| Made::Items(BTreeMap::new()));
                    let Made::Items(items) = entry else { panic!("`{port}` is not per case") };
                    items.insert(item.clone(), artifact(files));
                }
                (ProducedArtifact::One(files), None) => {
                    finished.made.insert(declared.name, Made::One(artifact(files), declared.document));
                }
                (ProducedArtifact::Items(items), _) => {
                    let items = items.into_iter().map(|(item, files)| (item, artifact(files))).collect();
                    finished.made.insert(declared.name, Made::Items(items));
                }
            }
        }
    }
}

fn axes_of(values: &[(&str, &str)]) -> Axes {
    values.iter().map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned())).collect()
}

/// The slices of documents by port, with the axes of their producers.
type Documents = BTreeMap<String, Vec<(Axes, Value)>>;

/// What one producer gives to a task: this case's artifact in a per-case phase, everything otherwise.
fn value_of(made: &Made, item: Option<&str>) -> Option<InputValue> {
    match (made, item) {
        (Made::Items(items), Some(item)) => items.get(item).cloned().map(InputValue::One),
        (Made::Items(items), None) => Some(InputValue::Items(items.clone())),
        (Made::One(artifact, _), _) => Some(InputValue::One(artifact.clone())),
        (Made::Document(_) | Made::Many(_), _) => panic!("this input needs files"),
    }
}

fn artifact(files: Vec<OutputFile>) -> Artifact {
    let mut files: Vec<FileRef> = files
        .into_iter()
        .map(|file| match file.source {
            OutputSource::Written { path } => file_ref(&file.name, &path, file.incidental),
            OutputSource::Forwarded { path, digest, bytes } => {
                FileRef { name: file.name, path, digest, bytes, incidental: file.incidental }
            }
        })
        .collect();
    files.sort_by(|first, second| first.name.cmp(&second.name));
    Artifact { files }
}

fn file_ref(name: &str, path: &Path, incidental: bool) -> FileRef {
    let content = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    FileRef {
        name: name.to_owned(),
        path: path.to_path_buf(),
        digest: blake3::hash(&content).to_hex().to_string(),
        bytes: content.len() as u64,
        incidental,
    }
}
