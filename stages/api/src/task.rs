//! A unit of work as plain data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Axes, Parameters};

/// One file of an artifact, where it lies and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Its name within the artifact, with the ending that tells its format; may hold `/`.
    pub name: String,
    /// Where its bytes lie; this path has no ending that could be trusted.
    pub path: PathBuf,
    /// BLAKE3 digest of its bytes, in hexadecimal.
    pub digest: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether it is left out of the artifact's digest (logs, timings).
    #[serde(default)]
    pub incidental: bool,
}

/// What one node hands to another: a few named files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The files, in the order of their names.
    pub files: Vec<FileRef>,
}

impl Artifact {
    /// The file of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&FileRef> {
        self.files.iter().find(|file| file.name == name)
    }

    /// The files whose names begin with `prefix`, in order.
    pub fn files_under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a FileRef> + 'a {
        self.files.iter().filter(move |file| file.name.starts_with(prefix))
    }
}

/// What arrives at an input port from one producer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputValue {
    /// One artifact; in a per-case phase, this case's.
    One(Artifact),
    /// One artifact a case, by the case's identifier.
    Items(BTreeMap<String, Artifact>),
    /// The slice of a document.
    Document(Value),
}

/// One producer of an input port, told by the axes that only the producer has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The producer's values on the axes that were gathered or picked.
    pub axes: Axes,
    /// What it made.
    pub value: InputValue,
}

/// What a task may use of the machine. None of it may change a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResources {
    /// CPU threads.
    pub threads: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The device for tensors: `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Over how many processes a training is spread at most: one for each GPU that was granted, or on the CPU as many as
    /// the workflow asks for. Other stages run in one.
    #[serde(default = "one")]
    pub processes: usize,
}

fn one() -> usize {
    1
}

/// A unit of work: one phase of a node, as a whole or for one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The stage's name in the registry.
    pub stage: String,
    /// The node's name as people see it, such as `train[3d_fullres,0]`.
    pub node: String,
    /// The phase's name.
    pub phase: String,
    /// The case, in a per-case phase.
    pub item: Option<String>,
    /// The node's values on the axes.
    pub axes: Axes,
    /// Every parameter, defaults filled in.
    pub parameters: Parameters,
    /// The seed of stages that draw.
    pub seed: u64,
    /// What arrived at the input ports; an unconnected optional port is absent.
    pub inputs: BTreeMap<String, Vec<Member>>,
    /// The folder that takes the outputs.
    pub output: PathBuf,
    /// This attempt's own folder; what lies there outlives a killed attempt.
    pub work: PathBuf,
    /// Folders of earlier attempts at the same work, newest first.
    pub earlier: Vec<PathBuf>,
    /// What the task may use of the machine.
    pub resources: TaskResources,
}
