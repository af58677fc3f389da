//! A workbench: stages run on it as the engine runs them, without the engine. Phases come in order, cases one by one, and
//! documents arrive cut down by the stage.
//!
//! It is for whoever wants to see what a stage makes of given files: the comparison with nnU-Net, tests, a notebook. There
//! is no store behind it. What stages make lies in a temporary folder, which goes when the bench and all that was made on
//! it have gone.

mod made;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{ArrayView3, Axis};
use nnflow_io::array::{ArrayOptions, write_array};
use nnflow_io::image::Geometry;
use nnflow_stage::{
    Artifact, Axes, Context, ErrorReport, Host, InputValue, Member, Parameters, Phase, PhaseKind, ProducedArtifact,
    Read, Stage, StageError, StageEvent, Task, TaskResources, effective_parameters,
};
use serde_json::{Map, Value};
use tempfile::TempDir;

pub use made::Made;
use made::artifact_of;

use crate::case::{CaseRecord, LABEL, RECORD};
use crate::registry;

/// The seed of stages that draw.
const SEED: u64 = 1234;
/// Memory that a task is told it may take, in bytes.
const MEMORY: u64 = 4 << 30;

/// What a stage has made and told.
#[derive(Debug)]
pub struct Finished {
    /// Artifacts by port.
    pub made: BTreeMap<&'static str, Made>,
    /// Errors by case; those of phases that run as a whole are under an empty name.
    pub failures: BTreeMap<String, ErrorReport>,
    /// Lines of the log.
    pub log: Vec<String>,
    /// The folder of the files, which is there as long as this is.
    #[expect(dead_code, reason = "it is held, not read")]
    folder: Arc<TempDir>,
}

impl Finished {
    /// What was made at a port.
    ///
    /// # Errors
    /// If nothing was.
    pub fn port(&self, name: &str) -> Result<&Made, StageError> {
        self.made.get(name).ok_or_else(|| StageError::internal(format!("nothing was made at output `{name}`")))
    }
}

/// Takes what stages tell.
#[derive(Default)]
struct Listener(Mutex<Vec<String>>);

impl Host for Listener {
    fn event(&self, event: StageEvent) {
        if let StageEvent::Log { line } = event {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// A folder in which stages run.
#[derive(Debug)]
pub struct Bench {
    folder: Arc<TempDir>,
    tasks: AtomicUsize,
}

/// One node of a graph: a stage with its axes and parameters.
pub struct Node<'a> {
    bench: &'a Bench,
    stage: &'static dyn Stage,
    axes: Axes,
    parameters: Parameters,
}

/// The slices of documents by port, with the axes of their producers.
type Documents = BTreeMap<String, Vec<(Axes, Value)>>;

impl Bench {
    /// An empty one.
    ///
    /// # Errors
    /// If no temporary folder can be made.
    pub fn new() -> Result<Self, StageError> {
        Ok(Self { folder: Arc::new(tempfile::tempdir()?), tasks: AtomicUsize::new(0) })
    }

    /// The folder, also for files of one's own.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A node of a registered stage, with default parameters.
    ///
    /// # Errors
    /// If there is no stage of this name.
    pub fn node(&self, stage: &str) -> Result<Node<'_>, StageError> {
        let stage = registry::stage(stage).ok_or_else(|| StageError::input(format!("there is no stage `{stage}`")))?;
        Node { bench: self, stage, axes: Axes::new(), parameters: Parameters::default() }.with(&Map::new())
    }

    /// A folder that nothing lies in yet.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn fresh_folder(&self) -> Result<PathBuf, StageError> {
        let number = self.tasks.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.path().join(format!("task-{number}"));
        fs_err::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A labelled case as `ingest` makes it, but without its image: what stages after prediction read of a reference.
    ///
    /// `labels`: `[z, y, x]`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn reference(
        &self,
        identifier: &str,
        labels: ArrayView3<'_, i16>,
        geometry: Geometry,
        file_ending: &str,
    ) -> Result<Made, StageError> {
        let folder = self.fresh_folder()?;
        let record = CaseRecord {
            identifier: identifier.to_owned(),
            channels: 1,
            file_ending: file_ending.to_owned(),
            labelled: true,
            geometry,
            prepared: None,
        };
        let (record_path, label_path) = (folder.join(RECORD), folder.join(LABEL));
        let text = serde_json::to_vec(&record).map_err(|error| StageError::internal(error.to_string()))?;
        fs_err::write(&record_path, text)?;
        write_array(&label_path, labels.insert_axis(Axis(0)), &ArrayOptions::default())
            .map_err(|error| StageError::storage("a label image cannot be written").with_source(error))?;
        Made::of_case(identifier, &[(RECORD, &record_path), (LABEL, &label_path)])
    }
}

impl Node<'_> {
    /// The same node with a value on an axis.
    #[must_use]
    pub fn at(mut self, axis: &str, value: &str) -> Self {
        self.axes.insert(axis.to_owned(), value.to_owned());
        self
    }

    /// The same node with these parameters, and the defaults of all others.
    ///
    /// # Errors
    /// If a parameter does not exist or cannot have its value.
    pub fn with(mut self, given: &Map<String, Value>) -> Result<Self, StageError> {
        let spec = self.stage.spec();
        self.parameters = effective_parameters(spec.parameters, given).map_err(|problems| {
            StageError::input(format!("stage `{}` cannot have these parameters: {problems:?}", spec.name))
        })?;
        Ok(self)
    }

    /// The slice of a document at a port.
    ///
    /// # Errors
    /// If the stage cannot use the document.
    pub fn slice(&self, port: &str, document: &Value) -> Result<Value, StageError> {
        self.stage.slice(port, document, &self.axes, &self.parameters)
    }

    /// Runs every phase.
    ///
    /// # Errors
    /// If a task cannot be put together, or one fails; the first failure is told.
    pub fn run(&self, inputs: &[(&'static str, &Made)]) -> Result<Finished, StageError> {
        let finished = self.attempt(inputs)?;
        let Some((item, report)) = finished.failures.first_key_value() else { return Ok(finished) };
        let case = if item.is_empty() { String::new() } else { format!(", case `{item}`") };
        let message = format!("stage `{}`{case}: {}", self.stage.spec().name, report.message);
        Err(StageError::new(report.kind, message).with_details(report.details.iter().chain(&report.causes).cloned()))
    }

    /// Runs the phases; those after a phase that failed are left out.
    ///
    /// # Errors
    /// If a task cannot be put together. Failures of the stage are in [`Finished::failures`].
    pub fn attempt(&self, inputs: &[(&'static str, &Made)]) -> Result<Finished, StageError> {
        let mut known: BTreeMap<&'static str, Made> =
            inputs.iter().map(|(port, made)| (*port, (*made).clone())).collect();
        let mut finished = Finished {
            made: BTreeMap::new(),
            failures: BTreeMap::new(),
            log: Vec::new(),
            folder: self.bench.folder.clone(),
        };
        for phase in self.stage.spec().phases {
            self.run_phase(phase, &known, &mut finished)?;
            if !finished.failures.is_empty() {
                break;
            }
            known.extend(finished.made.iter().map(|(port, made)| (*port, made.clone())));
        }
        Ok(finished)
    }

    fn run_phase(
        &self,
        phase: &'static Phase,
        known: &BTreeMap<&'static str, Made>,
        finished: &mut Finished,
    ) -> Result<(), StageError> {
        let documents = self.documents(phase, known)?;
        if phase.kind == PhaseKind::Whole {
            return self.run_task(&self.task(phase, None, known, &documents)?, finished);
        }
        let per_case = |port: &&&str| self.is_per_case(port) && self.reads(port) == Read::Whole;
        let first = phase.reads.iter().find(per_case).and_then(|port| known.get(port));
        let first = first.ok_or_else(|| {
            StageError::input(format!("nothing arrives that phase `{}` could take cases from", phase.name))
        })?;
        let slices: BTreeMap<String, Value> =
            documents.iter().filter_map(|(port, given)| Some((port.clone(), given.first()?.1.clone()))).collect();
        for item in self.stage.items(phase.name, &first.names(), &slices)? {
            self.run_task(&self.task(phase, Some(item), known, &documents)?, finished)?;
        }
        Ok(())
    }

    fn reads(&self, port: &str) -> Read {
        self.stage.spec().input(port).map_or(Read::Whole, |port| port.read)
    }

    fn is_per_case(&self, port: &str) -> bool {
        let spec = self.stage.spec();
        spec.input(port).map_or_else(|| spec.output(port).is_some_and(|port| port.per_case), |port| port.per_case)
    }

    fn documents(&self, phase: &Phase, known: &BTreeMap<&'static str, Made>) -> Result<Documents, StageError> {
        let mut documents = Documents::new();
        for port in phase.reads {
            let (Some(made), read) = (known.get(port), self.reads(port)) else { continue };
            if read == Read::Whole {
                continue;
            }
            let slice_of = |(axes, made): (Axes, &Made)| {
                let document = match read {
                    Read::Document => made.read_document()?,
                    _ => made.names().into_iter().map(Value::from).collect(),
                };
                Ok((axes, self.slice(port, &document)?))
            };
            let slices = made.members().into_iter().map(slice_of).collect::<Result<_, StageError>>()?;
            documents.insert((*port).to_owned(), slices);
        }
        Ok(documents)
    }

    fn task(
        &self,
        phase: &'static Phase,
        item: Option<String>,
        known: &BTreeMap<&'static str, Made>,
        documents: &Documents,
    ) -> Result<Task, StageError> {
        let mut inputs = BTreeMap::new();
        for port in phase.reads {
            let arrived = match (documents.get(*port), known.get(port)) {
                (Some(slices), _) => slices.iter().map(member_of_slice).collect(),
                (None, Some(made)) => members_of(made, item.as_deref())?,
                (None, None) => continue,
            };
            if !arrived.is_empty() {
                inputs.insert((*port).to_owned(), arrived);
            }
        }
        let folder = self.bench.fresh_folder()?;
        let work = folder.join("work");
        fs_err::create_dir_all(&work)?;
        Ok(Task {
            stage: self.stage.spec().name.to_owned(),
            node: self.stage.spec().name.to_owned(),
            phase: phase.name.to_owned(),
            item,
            axes: self.axes.clone(),
            parameters: phase.parameters.map_or_else(|| self.parameters.clone(), |names| self.parameters.only(names)),
            seed: SEED,
            inputs,
            output: folder.join("output"),
            work,
            earlier: Vec::new(),
            resources: TaskResources { threads: 1, memory_bytes: MEMORY, device: "cpu".to_owned(), processes: 1 },
        })
    }

    fn run_task(&self, task: &Task, finished: &mut Finished) -> Result<(), StageError> {
        let listener = Listener::default();
        let mut context = Context::new(task, &listener);
        let result = self.stage.run(&mut context);
        let outcome = context.into_outcome();
        finished.log.extend(listener.0.into_inner().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = result {
            finished.failures.insert(task.item.clone().unwrap_or_default(), error.report());
            return Ok(());
        }
        for (port, produced) in outcome.outputs {
            self.keep(&port, produced, task.item.as_deref(), finished)?;
        }
        Ok(())
    }

    fn keep(
        &self,
        port: &str,
        produced: ProducedArtifact,
        item: Option<&str>,
        finished: &mut Finished,
    ) -> Result<(), StageError> {
        let declared = self.stage.spec().output(port);
        let declared =
            declared.ok_or_else(|| StageError::internal(format!("output `{port}` was made but is not declared")))?;
        let made = match (produced, item) {
            (ProducedArtifact::One(files), Some(item)) => {
                let before = finished.made.remove(declared.name);
                let mut items = before.map_or_else(|| Ok(BTreeMap::new()), Made::into_cases)?;
                items.insert(item.to_owned(), artifact_of(files)?);
                Made::Items(items)
            }
            (ProducedArtifact::One(files), None) => Made::One(artifact_of(files)?, declared.document),
            (ProducedArtifact::Items(items), _) => {
                let items = items.into_iter().map(|(item, files)| Ok((item, artifact_of(files)?)));
                Made::Items(items.collect::<Result<BTreeMap<String, Artifact>, StageError>>()?)
            }
        };
        finished.made.insert(declared.name, made);
        Ok(())
    }
}

fn member_of_slice((axes, slice): &(Axes, Value)) -> Member {
    Member { axes: axes.clone(), value: InputValue::Document(slice.clone()) }
}

/// What the producers at a port give to a task; those that have nothing for its case give nothing.
fn members_of(made: &Made, item: Option<&str>) -> Result<Vec<Member>, StageError> {
    let mut members = Vec::new();
    for (axes, made) in made.members() {
        if let Some(value) = made.value(item)? {
            members.push(Member { axes, value });
        }
    }
    Ok(members)
}
