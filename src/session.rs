//! A workflow that was opened: its graph, its sources and its store, ready to be looked at or run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nnflow_cache::{Store, derive_digest};
use nnflow_nnunet::phantom::{PhantomDataset, phantom_below};
use nnflow_nnunet::registry;
use nnflow_nnunet::sources::{self, DATASET_PORTS, Listing, MODEL_PORTS, SourceFile};
use nnflow_stage::{ErrorKind, ErrorReport, Stage};
use petgraph::graph::NodeIndex;

use crate::diagnostic::Diagnostics;
use crate::engine::history::History;
use crate::engine::sources::Sources;
use crate::engine::state::{Forced, Port, Slot, Start, State, Status};
use crate::recipes::RECIPES;
use crate::workflow::{self, DatasetSource, Graph, LoadOptions, SourceSpec, StageTable, Workflow};

/// The name of the store's folder beside a workflow.
const STORE_FOLDER: &str = ".nnflow";
/// The folder in the store that holds phantoms, each in a folder named after its settings.
const PHANTOM_FOLDER: &str = "phantoms";
/// What keeps the name of a phantom apart from other digests; another version of the phantom is another context.
const PHANTOM_CONTEXT: &str = "nnflow-phantom-v1";

/// The stages that workflows can use.
#[derive(Debug, Clone, Copy)]
pub struct Registry;

impl StageTable for Registry {
    fn stage(&self, name: &str) -> Option<&'static dyn Stage> {
        registry::stage(name)
    }

    fn names(&self) -> Vec<&'static str> {
        registry::STAGES.iter().map(|stage| stage.spec().name).collect()
    }
}

/// What workflows can read that no stage makes.
pub const SOURCES: &[SourceSpec] =
    &[SourceSpec { name: "dataset", outputs: DATASET_PORTS }, SourceSpec { name: "model", outputs: MODEL_PORTS }];

/// Why a workflow cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is wrong.
    #[error("the workflow cannot be used")]
    Workflow(Diagnostics),
    /// What it names is not there or cannot be read.
    #[error("{}", .0.message)]
    Source(ErrorReport),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] nnflow_cache::StoreError),
}

impl From<Diagnostics> for OpenError {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Workflow(diagnostics)
    }
}

impl From<ErrorReport> for OpenError {
    fn from(report: ErrorReport) -> Self {
        Self::Source(report)
    }
}

/// How a workflow is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// What `--set` gives.
    pub sets: Vec<String>,
    /// The store's folder; `.nnflow` beside the workflow by default.
    pub store: Option<PathBuf>,
}

/// A workflow that was opened.
pub struct Session {
    /// The workflow.
    pub workflow: Workflow,
    /// Its graph.
    pub graph: Graph,
    /// Its store.
    pub store: Store,
}

impl Session {
    /// Opens the workflow of a file.
    ///
    /// # Errors
    /// [`OpenError`] with everything that is wrong.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let workflow = load(path, options)?;
        Self::of(workflow, options)
    }

    /// Opens a workflow that is given as a text; its store must be named in the options.
    ///
    /// # Errors
    /// [`OpenError`] with everything that is wrong.
    pub fn open_text(name: &str, text: &str, folder: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let mut load_options = load_options(options);
        let mut workflow = workflow::load_text(name, text, folder, &load_options)?;
        if let Some(values) = axis_values(&workflow)? {
            load_options.axis_values = values;
            workflow = workflow::load_text(name, text, folder, &load_options)?;
        }
        Self::of(workflow, options)
    }

    fn of(workflow: Workflow, options: &OpenOptions) -> Result<Self, OpenError> {
        let graph = workflow::build_graph(&workflow, &Registry, SOURCES)?;
        let folder = options.store.clone().unwrap_or_else(|| workflow.folder.join(STORE_FOLDER));
        Ok(Self { workflow, graph, store: Store::open(folder)? })
    }

    /// Lists and hashes the sources.
    ///
    /// # Errors
    /// If a folder or file cannot be read.
    pub fn sources(&self) -> Result<Sources, ErrorReport> {
        let mut found = Sources::default();
        let digests = self.store.stat_cache().map_err(|error| unreadable(&error))?;
        let model = self.workflow.model.as_ref().map(|model| model_listing(&model.path)).transpose()?;
        if let Some(dataset) = &self.workflow.dataset {
            let folder = self.dataset_folder(&dataset.source)?;
            let listing = match &model {
                None => sources::dataset(&folder, dataset.cases.as_deref()).map_err(|error| error.report())?,
                Some(model) => sources::images(&folder, description_of(model)?).map_err(|error| error.report())?,
            };
            let listing = with_split(listing, dataset.split.as_ref().map(|split| split.value.as_path()));
            found.add("dataset", listing, &digests)?;
        }
        if let Some(model) = model {
            found.add("model", model, &digests)?;
        }
        digests.save().map_err(|error| unreadable(&error))?;
        Ok(found)
    }

    /// Where the dataset lies; a phantom is made if it is not there yet.
    fn dataset_folder(&self, source: &DatasetSource) -> Result<PathBuf, ErrorReport> {
        match source {
            DatasetSource::Path(folder) => Ok(folder.clone()),
            DatasetSource::Phantom { settings } => {
                let settings = serde_json::Value::Object(settings.clone());
                let dataset = PhantomDataset::from_value(&settings).map_err(|error| error.report())?;
                let all = serde_json::to_value(&dataset).unwrap_or(settings);
                let name = derive_digest(PHANTOM_CONTEXT, &all).short();
                let phantoms = self.store.root().join(PHANTOM_FOLDER);
                phantom_below(&phantoms, &dataset, &name).map_err(|error| error.report())
            }
            DatasetSource::Fetch { .. } => Err(ErrorReport {
                hint: Some("download it, and name its folder with `path`".to_owned()),
                ..ErrorReport::new(ErrorKind::Input, "this version cannot fetch a dataset")
            }),
        }
    }

    /// The state of the graph before anything is settled.
    pub fn state(&self, sources: Sources, wanted: BTreeSet<NodeIndex>, forced: Forced) -> State<'_> {
        let stages = self
            .graph
            .inner()
            .node_weights()
            .map(|node| registry::stage(node.uses).expect("invariant: the graph was built against this registry"));
        let start = Start {
            wanted,
            forced,
            stages: stages.collect(),
            seed: self.workflow.seed,
            sources,
            history: History::of(&self.workflow.name),
        };
        State::new(&self.graph, &self.store, start)
    }

    /// The state as it is now, with all that the store holds.
    ///
    /// # Errors
    /// If a source cannot be read.
    pub fn settled(&self) -> Result<State<'_>, ErrorReport> {
        let all = self.graph.order().iter().copied().collect();
        let mut state = self.state(self.sources()?, all, Forced::new());
        state.settle();
        Ok(state)
    }
}

fn unreadable(error: &nnflow_cache::StoreError) -> ErrorReport {
    let hint = error.hint().map(|hint| hint.to_string());
    ErrorReport { hint, ..ErrorReport::new(ErrorKind::Storage, error.to_string()) }
}

fn load_options(options: &OpenOptions) -> LoadOptions<'static> {
    LoadOptions { sets: options.sets.clone(), recipes: RECIPES, axis_values: BTreeMap::new() }
}

fn load(path: &Path, options: &OpenOptions) -> Result<Workflow, OpenError> {
    let mut load_options = load_options(options);
    let mut workflow = workflow::load(path, &load_options).map_err(|diagnostics| {
        // What does not fit the stages is told along with what is wrong in the file itself.
        let all = workflow::load_graph(path, &load_options, &Registry, SOURCES);
        all.err().unwrap_or(diagnostics)
    })?;
    if let Some(values) = axis_values(&workflow)? {
        load_options.axis_values = values;
        workflow = workflow::load(path, &load_options)?;
    }
    Ok(workflow)
}

/// A file of folds that the workflow names stands in for one that the dataset brings.
fn with_split(mut listing: Listing, split: Option<&Path>) -> Listing {
    if let Some(path) = split {
        let file = SourceFile { name: "splits_final.json".to_owned(), path: path.to_path_buf() };
        listing.documents.insert("splits".to_owned(), vec![file]);
    }
    listing
}

/// The values of the axes that the model decides.
fn axis_values(workflow: &Workflow) -> Result<Option<BTreeMap<String, Vec<String>>>, ErrorReport> {
    let Some(model) = &workflow.model else { return Ok(None) };
    if workflow.axes_from_model().next().is_none() {
        return Ok(None);
    }
    let axes = bundle_document(&model.path)?.get("axes").cloned().unwrap_or_default();
    let values: BTreeMap<String, Vec<String>> = serde_json::from_value(axes)
        .map_err(|error| ErrorReport::new(ErrorKind::Input, format!("`axes` in the model's `bundle.json`: {error}")))?;
    match workflow.axes_from_model().find(|axis| values.get(&axis.name).is_none_or(Vec::is_empty)) {
        Some(axis) => {
            let message = format!("`axes` in the model's `bundle.json` gives axis `{}` no values", axis.name);
            Err(ErrorReport::new(ErrorKind::Input, message))
        }
        None => Ok(Some(values)),
    }
}

/// The recipe that a model is to be predicted with, as its bundle says.
///
/// # Errors
/// If there is no such model, or its bundle names no recipe.
pub fn prediction_recipe(model: &Path) -> Result<String, ErrorReport> {
    let document = bundle_document(model)?;
    let recipe = document.get("recipe").and_then(serde_json::Value::as_str);
    recipe
        .map(str::to_owned)
        .ok_or_else(|| ErrorReport::new(ErrorKind::Input, "`bundle.json` of the model names no `recipe`"))
}

fn bundle_document(model: &Path) -> Result<serde_json::Value, ErrorReport> {
    let listing = model_listing(model)?;
    let bundle = listing.documents.get("bundle").into_iter().flatten().find(|file| file.name == "bundle.json");
    let bundle = bundle.ok_or_else(|| ErrorReport::new(ErrorKind::Input, "the model has no `bundle.json`"))?;
    let bytes = fs_err::read(&bundle.path).map_err(|error| ErrorReport::new(ErrorKind::Storage, error.to_string()))?;
    nnflow_nnunet::read_json(&bytes)
        .map_err(|error| ErrorReport::new(ErrorKind::Input, format!("`bundle.json` of the model: {error}")))
}

/// A model is a bundle's folder, or a workflow whose bundle is meant.
fn model_listing(path: &Path) -> Result<Listing, ErrorReport> {
    if path.is_dir() {
        return sources::bundle(path).map_err(|error| error.report());
    }
    if !path.is_file() {
        return Err(ErrorReport {
            hint: Some("name a model's folder, or a workflow that has run".to_owned()),
            ..ErrorReport::new(ErrorKind::Input, format!("there is no model `{}`", path.display()))
        });
    }
    let session = Session::open(path, &OpenOptions::default()).map_err(|error| match error {
        OpenError::Source(report) => report,
        OpenError::Workflow(diagnostics) => ErrorReport::new(ErrorKind::Input, diagnostics.to_string()),
        OpenError::Store(error) => ErrorReport::new(ErrorKind::Storage, error.to_string()),
    })?;
    bundle_of(&session, path)
}

fn bundle_of(session: &Session, path: &Path) -> Result<Listing, ErrorReport> {
    let state = session.settled()?;
    let unfinished = |problem: &str| ErrorReport {
        hint: Some(format!("run it first: `nnflow run {}`", path.display())),
        ..ErrorReport::new(ErrorKind::Input, format!("workflow `{}` {problem}", path.display()))
    };
    let mut nodes = session.graph.order().iter().filter(|index| session.graph.node(**index).uses == "bundle");
    let node = nodes.next().ok_or_else(|| unfinished("makes no model: it has no stage `bundle`"))?;
    let node_state = &state.nodes[node.index()];
    let Some(Port::One(Slot::Made(held))) =
        node_state.ports.get("bundle").filter(|_| node_state.status == Status::Done)
    else {
        return Err(unfinished("has no model yet"));
    };
    let files = held
        .artifact
        .files()
        .iter()
        .map(|file| SourceFile { name: file.name.clone(), path: session.store.object_path(&file.digest) });
    Ok(sources::bundle_listing(files.collect()))
}

fn description_of(model: &Listing) -> Result<&Path, ErrorReport> {
    let files = model.documents.get("description").and_then(|files| files.first());
    files
        .map(|file| file.path.as_path())
        .ok_or_else(|| ErrorReport::new(ErrorKind::Input, "the model has no `dataset.json`"))
}
