//! A workflow as it was understood: checked in itself, not yet against the stages that it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nnflow_shared::Address;

use super::condition::Condition;
use super::condition_parser::Mention;
use super::expectation::Expectation;
use super::reference::Reference;
use super::tree::Table;
use crate::diagnostic::{Located, Place, Source};

/// The seed of a workflow that names none.
pub const DEFAULT_SEED: u64 = 1234;

/// A workflow with all that it inherits.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its name: what the file says, or else the file's own name without its ending.
    pub name: String,
    /// The file, as an absolute path; absent for a text that the program made.
    pub path: Option<PathBuf>,
    /// The folder that holds the file, as an absolute path.
    pub folder: PathBuf,
    /// What it extends, nearest first: names of recipes and of files.
    pub extends: Vec<String>,
    /// The seed of all stages that draw random numbers.
    pub seed: u64,
    /// The dataset, if it has one.
    pub dataset: Option<Dataset>,
    /// The trained model, in workflows that only predict.
    pub model: Option<Model>,
    /// The axes of the graph, as declared.
    pub axes: Vec<Axis>,
    /// The stages as declared: what is inherited first. Stages with `enabled = false` are not among them.
    pub stages: Vec<StageDeclaration>,
    /// What the results must reach.
    pub expectations: Vec<Expectation>,
    /// What a run may use of the machine, unless the command line says otherwise.
    pub settings: Settings,
    /// How units are handed to Slurm, where a run is told to.
    pub slurm: SlurmDeclaration,
    /// The text of the workflow itself.
    pub(super) root: Arc<Source>,
    /// Stages that are disabled, and where.
    pub(super) disabled: BTreeMap<String, Place>,
    /// Stages of which something could not be understood, and was reported.
    pub(super) broken: BTreeSet<String>,
    /// Whether all axes could be understood.
    pub(super) axes_complete: bool,
    /// The merged tree, for [`super::expand()`].
    pub(super) document: Table,
}

impl Workflow {
    /// The axis of this name.
    #[must_use]
    pub fn axis(&self, name: &str) -> Option<&Axis> {
        self.axes.iter().find(|axis| axis.name == name)
    }

    /// The stage of this name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&StageDeclaration> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// The axes whose values the caller has to give, because the model decides them.
    pub fn axes_from_model(&self) -> impl Iterator<Item = &Axis> {
        self.axes.iter().filter(|axis| axis.origin == AxisOrigin::Model)
    }
}

/// Where the images come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The folder, or where to fetch it from.
    pub source: DatasetSource,
    /// Only these cases, if given.
    pub cases: Option<Vec<String>>,
    /// A file with the folds to use, as an absolute path.
    pub split: Option<Located<PathBuf>>,
    /// The place of `path` or `fetch`.
    pub place: Place,
}

/// Where a dataset lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatasetSource {
    /// In a folder, given as an absolute path.
    Path(PathBuf),
    /// At an address.
    Fetch {
        /// The address.
        url: String,
        /// The BLAKE3 digest of what lies there, 64 hexadecimal digits in lower case.
        blake3: String,
    },
    /// Nowhere yet: a phantom, which is made with these settings.
    Phantom {
        /// The settings.
        settings: serde_json::Map<String, serde_json::Value>,
    },
}

/// A trained model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// A bundle's folder, or a workflow file whose bundle is meant; an absolute path.
    pub path: PathBuf,
    /// The place that says so.
    pub place: Place,
}

/// Where the values of an axis come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AxisOrigin {
    /// They are listed.
    Listed,
    /// They are all unordered pairs of another axis' values.
    Pairs {
        /// The other axis.
        of: String,
    },
    /// The model decides; the caller gives them in [`super::LoadOptions::axis_values`].
    Model,
}

/// An axis of the graph.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Its name.
    pub name: String,
    /// Its values, in order.
    pub values: Vec<AxisValue>,
    /// Where they come from.
    pub origin: AxisOrigin,
    /// The place of its declaration.
    pub place: Place,
    /// Values that some file of the inheritance chain gives it, even where another file narrows them.
    pub(super) known: BTreeSet<String>,
}

impl Axis {
    /// The value of this name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&AxisValue> {
        self.values.iter().find(|value| value.name == name)
    }
}

/// A value of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxisValue {
    /// The value; numbers are written out.
    pub name: String,
    /// The values of the other axis that make up this one, if the axis is derived.
    pub members: Vec<String>,
}

/// A stage as a workflow declares it, before it is multiplied along its axes.
#[derive(Debug, Clone)]
pub struct StageDeclaration {
    /// The name of its table.
    pub name: String,
    /// The stage that it runs.
    pub uses: Located<String>,
    /// The axes that it is multiplied along.
    pub over: Vec<Located<String>>,
    /// Whether it runs at all, which may be known only at run time.
    pub condition: Option<When>,
    /// Whether its results are kept in the store.
    pub store: bool,
    /// What its ports are connected to.
    pub inputs: Vec<InputDeclaration>,
    /// The parameters that are set.
    pub with: Table,
    /// What it asks of the machine.
    pub resources: ResourceRequest,
    /// The place of its name.
    pub place: Place,
    /// The place of `with`, or else of the name.
    pub(super) with_place: Place,
}

/// A condition, and where it says what.
#[derive(Debug, Clone)]
pub struct When {
    /// The condition.
    pub condition: Condition,
    /// The place of the whole condition.
    pub place: Place,
    pub(super) mentions: Vec<(Mention, Place)>,
}

/// What a port is connected to.
#[derive(Debug, Clone)]
pub struct InputDeclaration {
    /// The port.
    pub port: Located<String>,
    /// The producers.
    pub references: Vec<Reference>,
    /// The place of the value.
    pub place: Place,
}

/// What a stage asks of the machine. None of it may change a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceRequest {
    /// How many GPUs; a training goes over all of them.
    pub gpu: Option<u32>,
    /// Over how many processes a training goes on a CPU.
    pub processes: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU threads.
    pub threads: Option<u32>,
    /// The longest time that one of its units may take; a unit of which it is up is asked to leave a checkpoint, and has
    /// failed. On a cluster it is the time limit of a job, after which the next job goes on.
    pub time: Option<Duration>,
    /// The device for tensors.
    pub device: Option<Device>,
}

/// What a run may use of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// How many GPUs.
    pub gpus: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU threads.
    pub threads: Option<u32>,
    /// The device for tensors.
    pub device: Option<Device>,
    /// How long a worker may say nothing and compute nothing before it is given up.
    pub worker_silence: Option<Duration>,
    /// The store that is shared with others; a folder is an absolute path.
    pub shared_store: Option<Address>,
    /// What the shared store is used for.
    pub shared_use: Option<SharedUse>,
}

/// What a shared store is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedUse {
    /// Results are taken from it and put into it.
    ReadWrite,
    /// Results are only taken from it.
    ReadOnly,
    /// Nothing.
    Off,
}

/// How units are handed to Slurm: `[executor.slurm]`. None of it may change a result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SlurmDeclaration {
    /// The partition.
    pub partition: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// The quality of service.
    pub qos: Option<String>,
    /// More options of `sbatch`.
    pub options: Vec<String>,
    /// The option that asks for GPUs, with `{n}` for their number.
    pub gpu: Option<String>,
    /// Lines of the shell that run before the job does, such as `module load cuda`.
    pub prolog: Vec<String>,
    /// Stages that are handed over besides those with tensors.
    pub stages: Vec<Located<String>>,
    /// The time limit of stages that declare none.
    pub time: Option<Duration>,
    /// The threads of stages that declare none and could use all there are.
    pub threads: Option<u32>,
    /// How long before its time limit a job is told to leave a checkpoint.
    pub warning: Option<Duration>,
    /// How often Slurm is asked how the jobs stand.
    pub poll: Option<Duration>,
    /// How often a job may be cut short and go on before that counts as a failure.
    pub requeues: Option<u32>,
    /// How many jobs of an array may run at a time.
    pub parallel: Option<u32>,
    /// Whether jobs go on when the run is interrupted.
    pub detach: bool,
}

/// A device for tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Device {
    /// A GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU: any, or the one of this number.
    Cuda(Option<u32>),
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(None) => formatter.write_str("cuda"),
            Self::Cuda(Some(number)) => write!(formatter, "cuda:{number}"),
        }
    }
}
