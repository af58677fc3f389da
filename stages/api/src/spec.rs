//! How a stage declares itself.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Context, Parameter, Parameters, StageError};

/// Values on the graph's axes, such as `configuration = "2d"` and `fold = "0"`.
pub type Axes = BTreeMap<String, String>;

/// What an artifact is: the type that ports are checked against, such as `plan` or `prepared`.
pub type Kind = &'static str;

/// Which program can run a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// The engine's own process.
    Native,
    /// The worker that is linked to libtorch.
    Torch,
}

/// How much of an input a stage reads. The digest of just that enters the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The files as they are.
    Whole,
    /// The artifact's JSON document, cut by [`Stage::slice`].
    Document,
    /// The identifiers of the cases only, as a JSON array, cut by [`Stage::slice`].
    Names,
}

/// A port that takes what another node made.
#[derive(Debug, Clone, Copy)]
pub struct InputPort {
    /// The port's name.
    pub name: &'static str,
    /// The kinds of artifact that it takes.
    pub kinds: &'static [Kind],
    /// How much of it is read.
    pub read: Read,
    /// Whether there is one artifact a case.
    pub per_case: bool,
    /// Whether several producers may be gathered here; else per-case artifacts of several producers must be of different
    /// cases and are united.
    pub many: bool,
    /// Whether the port may be left unconnected.
    pub optional: bool,
    /// One sentence.
    pub doc: &'static str,
}

/// A port that gives what the stage makes.
#[derive(Debug, Clone, Copy)]
pub struct OutputPort {
    /// The port's name.
    pub name: &'static str,
    /// The kind of artifact that it gives.
    pub kind: Kind,
    /// Whether there is one artifact a case.
    pub per_case: bool,
    /// Whether the stage may leave it out.
    pub optional: bool,
    /// The artifact's JSON document, if it has one: what [`Read::Document`] reads, and whose numbers `[expect]` may name.
    pub document: Option<&'static str>,
    /// One sentence, with the names of the files.
    pub doc: &'static str,
}

/// How a phase is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseKind {
    /// Once for the node.
    Whole,
    /// Once for each case of the first per-case input of the phase.
    PerCase,
}

/// A part of a stage's work that is cached by itself. A later phase may read what an earlier one makes.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    /// The phase's name, unique in the stage.
    pub name: &'static str,
    /// How it is run.
    pub kind: PhaseKind,
    /// The input ports, and output ports of earlier phases, that it reads. Its first per-case one gives the cases.
    pub reads: &'static [&'static str],
    /// The output ports that it makes.
    pub makes: &'static [&'static str],
    /// The parameters that it reads; `None` means all of them.
    pub parameters: Option<&'static [&'static str]>,
}

/// Everything that is known of a stage without running it.
#[derive(Debug, Clone, Copy)]
pub struct StageSpec {
    /// The name that `uses` gives in a workflow.
    pub name: &'static str,
    /// Raised whenever the same inputs give other bytes than before.
    pub version: u32,
    /// One sentence for lists.
    pub summary: &'static str,
    /// What it does, how, and after which source; Markdown.
    pub docs: &'static str,
    /// Which program can run it.
    pub runner: Runner,
    /// What it takes.
    pub inputs: &'static [InputPort],
    /// What it makes.
    pub outputs: &'static [OutputPort],
    /// What can be set.
    pub parameters: &'static [Parameter],
    /// The axes whose values [`Stage::slice`] looks up; a node of this stage must have them.
    pub axes: &'static [&'static str],
    /// Whether random numbers are drawn, so that the workflow's seed enters the key.
    pub draws: bool,
    /// Whether it goes on from what an attempt that was cut short has left in its work folder; else it starts anew.
    pub resumes: bool,
    /// Its parts, in order.
    pub phases: &'static [Phase],
}

impl StageSpec {
    /// The input port of this name.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&'static InputPort> {
        self.inputs.iter().find(|port| port.name == name)
    }

    /// The output port of this name.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&'static OutputPort> {
        self.outputs.iter().find(|port| port.name == name)
    }

    /// The phase of this name.
    #[must_use]
    pub fn phase(&self, name: &str) -> Option<&'static Phase> {
        self.phases.iter().find(|phase| phase.name == name)
    }
}

/// What a task will need, before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// CPU threads that it can make use of; 0 stands for all there are.
    pub threads: usize,
    /// Peak memory in bytes.
    pub memory_bytes: u64,
}

/// What is known of a task when its resources are estimated.
#[derive(Debug, Clone, Copy)]
pub struct ResourceQuery<'a> {
    /// The phase's name.
    pub phase: &'a str,
    /// Every parameter.
    pub parameters: &'a Parameters,
    /// The total size of the files that the task will read, in bytes.
    pub input_bytes: u64,
    /// What arrives at the input ports, with the slices of documents.
    pub inputs: &'a BTreeMap<String, Vec<crate::Member>>,
}

impl ResourceQuery<'_> {
    /// The slice of the first document at a port, if one has arrived.
    #[must_use]
    pub fn document(&self, port: &str) -> Option<&Value> {
        self.inputs.get(port)?.iter().find_map(|member| match &member.value {
            crate::InputValue::Document(document) => Some(document),
            _ => None,
        })
    }
}

/// A stage: a declaration and the work it stands for.
pub trait Stage: Send + Sync {
    /// The declaration.
    fn spec(&self) -> &'static StageSpec;

    /// Cuts out of a document what the stage reads of it at `port`.
    ///
    /// The result is both what enters the key and all that the stage gets to see. The default is the whole document.
    ///
    /// # Errors
    /// If the document lacks what the stage needs; the error names the key that was looked for.
    fn slice(&self, port: &str, document: &Value, axes: &Axes, parameters: &Parameters) -> Result<Value, StageError> {
        let (_, _, _) = (port, axes, parameters);
        Ok(document.clone())
    }

    /// The cases that a per-case phase runs, out of those that its first per-case input has.
    ///
    /// `documents` holds the slices that have arrived. The default is all of them.
    ///
    /// # Errors
    /// If a case is asked for that is not there.
    fn items(
        &self,
        phase: &str,
        available: &[String],
        documents: &BTreeMap<String, Value>,
    ) -> Result<Vec<String>, StageError> {
        let (_, _) = (phase, documents);
        Ok(available.to_vec())
    }

    /// What a task will need. The default is one thread and four times the bytes that it reads.
    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        Resources { threads: 1, memory_bytes: query.input_bytes.saturating_mul(4).saturating_add(64 << 20) }
    }

    /// How many GPUs a task can make use of, if it can use any; it is granted no more, whatever the workflow asks for.
    fn most_gpus(&self, _: &ResourceQuery<'_>) -> usize {
        1
    }

    /// Does the work of one task.
    ///
    /// # Errors
    /// [`StageError`] with every problem that was found.
    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError>;
}
