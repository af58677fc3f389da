//! A stage of one's own, and the engine running it.
//!
//! ```console
//! $ cargo run --release --example custom_stage
//! ```
//!
//! The stage measures how large each organ of each case is. All that there is to a stage is here: what it takes, makes and
//! can be set, which part of a document it reads, and its work. It is then run three times on a phantom: for the first
//! time, once more, and with another parameter. The engine says each time what it ran, and why.
//!
//! A stage that every workflow shall be able to use is a row in `stages/nnunet/src/registry.rs`; CONTRIBUTING.md says how.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, anyhow};
use nnflow::engine::drive::{Drive, OnFailure};
use nnflow::engine::history::History;
use nnflow::engine::limits::WORKER_SILENCE;
use nnflow::engine::native::Native;
use nnflow::engine::perform::Performer;
use nnflow::engine::schedule::{Capacity, Scheduler};
use nnflow::engine::state::{Forced, Port, Slot, Start, State};
use nnflow::engine::usage::Meter;
use nnflow::engine::worker::WorkerPool;
use nnflow::report::{Plain, render_report};
use nnflow::session::{SOURCES, Session};
use nnflow::workflow::{LoadOptions, StageTable, build_graph, load_text};
use nnflow_cache::Store;
use nnflow_io::array::ArrayFile;
use nnflow_kernels::components::{Components, Connectivity};
use nnflow_nnunet::case::{CaseRecord, LABEL};
use nnflow_nnunet::registry;
use nnflow_stage::{
    Axes, Context, ErrorReport, InputPort, OutputPort, Parameter, ParameterKind, Parameters, Phase, PhaseKind, Read,
    Runner, Stage, StageError, StageSpec,
};
use serde_json::Value;

/// The workflow: one stage of nnflow's, then the one of this file.
const WORKFLOW: &str = r#"
name = "volumes"

[dataset]
phantom = { cases = 4, test_cases = 0, shape = [24, 48, 48], organs = 2, seed = 5 }

[stages.ingest]
inputs = { files = "dataset.cases", description = "dataset.description" }

[stages.volumes]
inputs = { cases = "ingest", description = "dataset.description" }
"#;

/// Measures how large each label is.
struct Volumes;

/// The file of one case: millilitres by label.
const VOLUME: &str = "volume.json";
/// The file of all cases: the same, by case.
const TABLE: &str = "volumes.json";

/// Cubic millimetres in a millilitre.
const MILLILITRE: f64 = 1000.0;

/// Millilitres by the name of the label.
type Volume = BTreeMap<String, f64>;

static SPEC: StageSpec = StageSpec {
    name: "volumes",
    // Raised whenever the same inputs give other bytes than before: all results of older versions are then made again.
    version: 1,
    summary: "measures how large each label is",
    docs: "Adds up the voxels of each label, leaves out components that are too small, and multiplies by the volume of a voxel.",
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "cases",
            kinds: &["cases"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "the cases with their labels",
        },
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`dataset.json`; read are the names of the labels",
        },
    ],
    outputs: &[
        OutputPort {
            name: "volume",
            kind: "volume",
            per_case: true,
            optional: false,
            document: Some(VOLUME),
            doc: "`volume.json`: millilitres of each label",
        },
        OutputPort {
            name: "table",
            kind: "volume_table",
            per_case: false,
            optional: false,
            document: Some(TABLE),
            doc: "`volumes.json`: the same of all cases",
        },
    ],
    parameters: &[Parameter {
        name: "smallest_component",
        kind: ParameterKind::Number { minimum: 0.0, maximum: f64::INFINITY },
        default: "0.0",
        unit: "mm³",
        doc: "components of a label that are smaller are left out",
    }],
    axes: &[],
    draws: false,
    resumes: false,
    // Two phases, cached apart: with one more case, one case is measured and the table is put together again.
    phases: &[
        Phase {
            name: "case",
            kind: PhaseKind::PerCase,
            reads: &["cases", "description"],
            makes: &["volume"],
            parameters: None,
        },
        Phase { name: "gather", kind: PhaseKind::Whole, reads: &["volume"], makes: &["table"], parameters: Some(&[]) },
    ],
};

impl Stage for Volumes {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    /// The labels are all that enters the key of `dataset.json`, and all that the stage gets to see of it: another name of
    /// the dataset changes nothing.
    fn slice(&self, port: &str, document: &Value, _: &Axes, _: &Parameters) -> Result<Value, StageError> {
        let labels = document.get("labels").cloned();
        labels.ok_or_else(|| StageError::input(format!("the document at input `{port}` has no `labels`")))
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        if context.phase() == "case" { measure(context) } else { gather(context) }
    }
}

fn measure(context: &mut Context<'_>) -> Result<(), StageError> {
    let record = CaseRecord::read(context.artifact("cases")?)?;
    let names: BTreeMap<String, i16> = context.parsed("description")?;
    let smallest: f64 = context.parameters().get("smallest_component")?;
    let file = ArrayFile::open(context.file("cases", LABEL)?);
    let labels = file.and_then(|file| file.read_all::<i16>()).map_err(|error| {
        StageError::storage(format!("the labels of case `{}` cannot be read", record.identifier)).with_source(error)
    })?;
    let voxel: f64 = record.geometry.spacing.values().iter().product();
    let mut volume = Volume::new();
    for (name, label) in names.into_iter().filter(|(_, label)| *label != 0) {
        let mask = labels.index_axis(ndarray::Axis(0), 0).mapv(|value| value == label);
        let components = Components::of(mask.view(), Connectivity::Corners);
        let sizes = components.sizes().iter().map(|&voxels| voxels as f64 * voxel);
        volume.insert(name, sizes.filter(|size| *size >= smallest).sum::<f64>() / MILLILITRE);
    }
    context.output("volume").json(VOLUME, &volume)
}

fn gather(context: &mut Context<'_>) -> Result<(), StageError> {
    let mut table = BTreeMap::new();
    for (case, artifact) in context.items("volume")? {
        let file = artifact.file(VOLUME).ok_or_else(|| StageError::internal(format!("case `{case}` has no volume")))?;
        let volume: Volume = serde_json::from_slice(&fs_err::read(&file.path)?)
            .map_err(|error| StageError::storage(format!("the volume of case `{case}` cannot be read: {error}")))?;
        table.insert(case.to_owned(), volume);
    }
    context.output("table").json(TABLE, &table)
}

/// The stages of nnflow, and this one.
struct Table;

impl StageTable for Table {
    fn stage(&self, name: &str) -> Option<&'static dyn Stage> {
        if name == SPEC.name { Some(&Volumes) } else { registry::stage(name) }
    }

    fn names(&self) -> Vec<&'static str> {
        registry::STAGES.iter().map(|stage| stage.spec().name).chain([SPEC.name]).collect()
    }
}

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    run(folder.path(), "for the first time", &[])?;
    run(folder.path(), "once more", &[])?;
    let table = run(folder.path(), "with another parameter", &["stages.volumes.with.smallest_component=500.0"])?;
    println!("\n{TABLE}\n{table}");
    Ok(())
}

/// Runs the workflow with a store in `folder`; returns the table that it ends with.
fn run(folder: &Path, title: &str, sets: &[&str]) -> anyhow::Result<String> {
    println!("\n{title}");
    let options = LoadOptions { sets: sets.iter().map(ToString::to_string).collect(), ..LoadOptions::default() };
    let workflow = load_text("volumes.toml", WORKFLOW, folder, &options)?;
    let graph = build_graph(&workflow, &Table, SOURCES)?;
    let session = Session { workflow, graph, store: Store::open(folder.join("store"))?, shared: None };
    let mut state = state(&session)?;
    // What is at hand already flows through the graph; what is left must run.
    let ready = state.settle();
    for unit in &ready {
        let node = &session.graph.node(unit.id.node).name;
        println!("  {node}, case `{}`: {}", unit.id.item.as_deref().unwrap_or("all"), unit.reason);
    }
    let workers = WorkerPool::new("nnflow-torch".into(), WORKER_SILENCE);
    let cancel = AtomicBool::new(false);
    let native = Native::new(1).map_err(|report| failed(&report))?;
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
    let scheduler = Scheduler::new(Capacity { threads: 2, memory_bytes: 1 << 30, gpus: 0 });
    let mut lines = Plain::new(std::io::stdout());
    let end = Drive::new(&mut state, &performer, scheduler, &mut lines, OnFailure::KeepGoing).run(ready);
    if let Some(failure) = end.failures.first() {
        return Err(failed(&failure.report));
    }
    // The next run explains itself by what this one remembers.
    let nodes = session.graph.inner().node_weights().map(|node| node.name.clone()).collect();
    state.history().save(&session.store, &nodes)?;
    table(&session, &state)
}

/// The state of the graph before anything has run.
fn state(session: &Session) -> anyhow::Result<State<'_>> {
    let (graph, workflow) = (&session.graph, &session.workflow);
    let stages = graph.inner().node_weights().map(|node| Table.stage(node.uses).context("the graph knows its stages"));
    let stages = stages.collect::<anyhow::Result<Vec<_>>>()?;
    let sources = session.sources().map_err(|report| failed(&report))?;
    let all = graph.order().iter().copied().collect();
    let history = History::of(&workflow.name);
    let start = Start { wanted: all, forced: Forced::new(), stages, seed: workflow.seed, sources, history };
    Ok(State::new(graph, &session.store, start))
}

/// The text of the table.
fn table(session: &Session, state: &State<'_>) -> anyhow::Result<String> {
    let node = session.graph.find(SPEC.name)?.first().copied().context("the workflow has the stage")?;
    let Some(Port::One(Slot::Made(held))) = state.nodes[node.index()].ports.get("table") else {
        return Err(anyhow!("the table was not made"));
    };
    let file = held.artifact.file(TABLE).context("the table is a file")?;
    Ok(fs_err::read_to_string(session.store.object_path(&file.digest))?)
}

fn failed(report: &ErrorReport) -> anyhow::Error {
    anyhow!(render_report(report))
}
