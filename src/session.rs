//! A workflow that was opened: its graph, its sources and its store, ready to be looked at or run.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nnflow_cache::{Store, derive_digest};
use nnflow_nnunet::foreign::ImportOptions;
use nnflow_nnunet::phantom::{PhantomDataset, phantom_below};
use nnflow_nnunet::registry;
use nnflow_nnunet::sources::{self, DATASET_PORTS, Listing, MODEL_PORTS, SourceFile};
use nnflow_shared::{Address, Mode, SharedError, SharedStore};
use nnflow_stage::{ErrorKind, ErrorReport, Stage};
use petgraph::graph::NodeIndex;

use self::model::{axis_values, description_of};
pub use self::model::{bundle_folder, model_listing, prediction_recipe};
use crate::diagnostic::Diagnostics;
use crate::engine::history::History;
use crate::engine::perform::storage;
use crate::engine::sources::Sources;
use crate::engine::state::{Forced, Start, State};
use crate::recipes::RECIPES;
use crate::workflow::{self, DatasetSource, Graph, LoadOptions, Producer, SharedUse, SourceSpec, StageTable, Workflow};

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
    /// The shared store cannot be used as is asked for.
    #[error(transparent)]
    Shared(#[from] nnflow_shared::SharedError),
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
    /// The shared store; that of the workflow by default.
    pub shared_store: Option<Address>,
    /// What the shared store is used for; what the workflow says by default.
    pub shared_use: Option<SharedUse>,
}

/// A workflow that was opened.
pub struct Session {
    /// The workflow.
    pub workflow: Workflow,
    /// Its graph.
    pub graph: Graph,
    /// Its store.
    pub store: Store,
    /// The store that it shares with others. Only those who say so ask it: see [`State::shared`].
    pub shared: Option<SharedStore>,
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
        let model = local_model(&mut workflow, options)?;
        if let Some(values) = axis_values(&workflow)? {
            load_options.axis_values = values;
            workflow = workflow::load_text(name, text, folder, &load_options)?;
            put_model(&mut workflow, model);
        }
        Self::of(workflow, options)
    }

    fn of(workflow: Workflow, options: &OpenOptions) -> Result<Self, OpenError> {
        let graph = workflow::build_graph(&workflow, &Registry, SOURCES)?;
        let folder = store_folder(&workflow, options);
        let shared = shared_store(&workflow, options)?;
        Ok(Self { workflow, graph, store: Store::open(folder)?, shared })
    }

    /// Lists and hashes the sources.
    ///
    /// # Errors
    /// If a folder or file cannot be read.
    pub fn sources(&self) -> Result<Sources, ErrorReport> {
        let mut found = Sources::default();
        let digests = self.store.stat_cache().map_err(|error| storage(&error))?;
        let model = self.workflow.model.as_ref().map(|model| model_listing(&model.path)).transpose()?;
        if let Some(dataset) = &self.workflow.dataset {
            let folder = self.dataset_folder(&dataset.source)?;
            let listing = match model.as_ref().filter(|_| !self.reads_description_of_dataset()) {
                None => sources::dataset(&folder, dataset.cases.as_deref()).map_err(|error| error.report())?,
                Some(model) => sources::images(&folder, description_of(model)?).map_err(|error| error.report())?,
            };
            let listing = with_split(listing, dataset.split.as_ref().map(|split| split.value.as_path()));
            found.add("dataset", listing, &digests)?;
        }
        if let Some(model) = model {
            found.add("model", model, &digests)?;
        }
        if let Err(error) = digests.save() {
            // A store that can only be read still gives what it has; the sources are hashed again the next time.
            found.warnings.push(format!("the digests of the source files are not remembered: {error}"));
        }
        Ok(found)
    }

    /// Whether a stage reads the dataset's own `dataset.json`. Images that are only predicted have none: the model's says
    /// what they are.
    fn reads_description_of_dataset(&self) -> bool {
        let inputs = self.graph.inner().node_weights().flat_map(|node| &node.inputs);
        inputs.flat_map(|input| &input.sources).any(|source| {
            source.port.name == "description" && source.producer == Producer::Source("dataset".to_owned())
        })
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
    let model = local_model(&mut workflow, options)?;
    if let Some(values) = axis_values(&workflow)? {
        load_options.axis_values = values;
        workflow = workflow::load(path, &load_options)?;
        put_model(&mut workflow, model);
    }
    Ok(workflow)
}

fn store_folder(workflow: &Workflow, options: &OpenOptions) -> PathBuf {
    options.store.clone().unwrap_or_else(|| workflow.folder.join(STORE_FOLDER))
}

/// The shared store that the command line names, or else the workflow.
fn shared_store(workflow: &Workflow, options: &OpenOptions) -> Result<Option<SharedStore>, SharedError> {
    let settings = &workflow.settings;
    let Some(address) = options.shared_store.clone().or_else(|| settings.shared_store.clone()) else {
        return Ok(None);
    };
    let mode = match options.shared_use.or(settings.shared_use) {
        Some(SharedUse::Off) => return Ok(None),
        Some(SharedUse::ReadOnly) => Mode::ReadOnly,
        Some(SharedUse::ReadWrite) => Mode::ReadWrite,
        None if address.takes_results() => Mode::ReadWrite,
        None => Mode::ReadOnly,
    };
    SharedStore::new(address, mode).map(Some)
}

/// Where the model lies, imported into the store if it is nnU-Net's.
fn local_model(workflow: &mut Workflow, options: &OpenOptions) -> Result<Option<PathBuf>, ErrorReport> {
    let store = store_folder(workflow, options);
    let path = workflow
        .model
        .as_ref()
        .map(|model| bundle_folder(&model.path, &store, &ImportOptions::default()))
        .transpose()?;
    put_model(workflow, path.clone());
    Ok(path)
}

fn put_model(workflow: &mut Workflow, path: Option<PathBuf>) {
    if let (Some(model), Some(path)) = (&mut workflow.model, path) {
        model.path = path;
    }
}

/// A file of folds that the workflow names stands in for one that the dataset brings.
fn with_split(mut listing: Listing, split: Option<&Path>) -> Listing {
    if let Some(path) = split {
        let file = SourceFile { name: "splits_final.json".to_owned(), path: path.to_path_buf() };
        listing.documents.insert("splits".to_owned(), vec![file]);
    }
    listing
}
