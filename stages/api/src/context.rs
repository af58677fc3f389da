//! What a stage is given to do its work.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Artifact, Axes, FileRef, InputValue, Member, Outcome, OutputFile, OutputSource, Parameters, ProducedArtifact,
    Progress, StageError, StageEvent, Task, TaskResources,
};

/// Whoever runs a stage: takes its events and may ask it to stop.
pub trait Host: Sync {
    /// Takes an event.
    fn event(&self, event: StageEvent);

    /// Whether the stage should leave a checkpoint and return [`StageError::interrupted`].
    fn cancelled(&self) -> bool;
}

/// A host that listens to nothing and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct SilentHost;

impl Host for SilentHost {
    fn event(&self, _: StageEvent) {}

    fn cancelled(&self) -> bool {
        false
    }
}

/// What a stage is given: its inputs, its parameters, a place for its outputs, and its host.
pub struct Context<'a> {
    task: &'a Task,
    host: &'a dyn Host,
    outcome: Outcome,
}

impl<'a> Context<'a> {
    /// A context for one task.
    pub fn new(task: &'a Task, host: &'a dyn Host) -> Self {
        Self { task, host, outcome: Outcome::default() }
    }

    /// The node's name as people see it, such as `train[3d_fullres,0]`.
    #[must_use]
    pub fn node(&self) -> &'a str {
        &self.task.node
    }

    /// The phase's name.
    #[must_use]
    pub fn phase(&self) -> &'a str {
        &self.task.phase
    }

    /// The case that this task is about.
    ///
    /// # Errors
    /// If the phase is not a per-case one, which is a defect of the stage.
    pub fn item(&self) -> Result<&'a str, StageError> {
        self.task.item.as_deref().ok_or_else(|| StageError::internal("this phase has no case"))
    }

    /// The node's values on the axes.
    #[must_use]
    pub fn axes(&self) -> &'a Axes {
        &self.task.axes
    }

    /// Every parameter, defaults filled in.
    #[must_use]
    pub fn parameters(&self) -> &'a Parameters {
        &self.task.parameters
    }

    /// The workflow's seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.task.seed
    }

    /// What the task may use of the machine.
    #[must_use]
    pub fn resources(&self) -> &'a TaskResources {
        &self.task.resources
    }

    /// This attempt's own folder. What lies there outlives a killed attempt, if the stage's
    /// [`resumes`](crate::StageSpec::resumes) is set.
    #[must_use]
    pub fn work(&self) -> &'a Path {
        &self.task.work
    }

    /// Folders of earlier attempts at the same work, newest first.
    #[must_use]
    pub fn earlier_attempts(&self) -> &'a [PathBuf] {
        &self.task.earlier
    }

    /// Everything that arrived at a port: nothing where an optional port is unconnected or all its producers were skipped.
    #[must_use]
    pub fn members(&self, port: &str) -> &'a [Member] {
        self.task.inputs.get(port).map_or(&[], Vec::as_slice)
    }

    /// The one artifact at a port.
    ///
    /// # Errors
    /// If nothing arrived, or several artifacts did.
    pub fn artifact(&self, port: &str) -> Result<&'a Artifact, StageError> {
        self.optional_artifact(port)?.ok_or_else(|| StageError::input(format!("nothing arrived at input `{port}`")))
    }

    /// The one artifact at a port that may be empty.
    ///
    /// # Errors
    /// If several artifacts arrived.
    pub fn optional_artifact(&self, port: &str) -> Result<Option<&'a Artifact>, StageError> {
        match self.members(port) {
            [] => Ok(None),
            [Member { value: InputValue::One(artifact), .. }] => Ok(Some(artifact)),
            members => Err(StageError::internal(format!(
                "input `{port}` was read as one artifact, but {} arrived",
                members.len()
            ))),
        }
    }

    /// The cases at a port, united over its producers.
    ///
    /// # Errors
    /// If what arrived is not per case, or two producers have the same case.
    pub fn items(&self, port: &str) -> Result<BTreeMap<&'a str, &'a Artifact>, StageError> {
        let mut united = BTreeMap::new();
        for member in self.members(port) {
            let InputValue::Items(items) = &member.value else {
                return Err(StageError::internal(format!("input `{port}` was read per case, but is not")));
            };
            for (item, artifact) in items {
                if united.insert(item.as_str(), artifact).is_some() {
                    return Err(StageError::input(format!("two producers of input `{port}` have the case `{item}`")));
                }
            }
        }
        Ok(united)
    }

    /// The slice of the one document at a port.
    ///
    /// # Errors
    /// If nothing arrived, or several documents did.
    pub fn document(&self, port: &str) -> Result<&'a Value, StageError> {
        match self.members(port) {
            [Member { value: InputValue::Document(document), .. }] => Ok(document),
            members => Err(StageError::internal(format!(
                "input `{port}` was read as one document, but {} arrived",
                members.len()
            ))),
        }
    }

    /// The slice of the one document at a port, as a type.
    ///
    /// # Errors
    /// If nothing arrived, or the document does not fit the type.
    pub fn parsed<T: DeserializeOwned>(&self, port: &str) -> Result<T, StageError> {
        serde_json::from_value(self.document(port)?.clone())
            .map_err(|error| StageError::input(format!("the document at input `{port}` cannot be used: {error}")))
    }

    /// The path of a file of the one artifact at a port.
    ///
    /// # Errors
    /// If there is no such artifact or file.
    pub fn file(&self, port: &str, name: &str) -> Result<&'a Path, StageError> {
        self.artifact(port)?
            .file(name)
            .map(|file| file.path.as_path())
            .ok_or_else(|| StageError::input(format!("input `{port}` has no file `{name}`")))
    }

    /// Begins an output artifact; in a per-case phase, this case's.
    #[must_use]
    pub fn output(&mut self, port: &str) -> OutputWriter<'_> {
        let folder = self.task.output.join(port);
        let produced = self.outcome.outputs.entry(port.to_owned()).or_insert_with(|| ProducedArtifact::One(Vec::new()));
        OutputWriter { folder, files: produced.one() }
    }

    /// Begins the output artifact of one case in a phase that runs as a whole.
    #[must_use]
    pub fn output_item(&mut self, port: &str, item: &str) -> OutputWriter<'_> {
        let folder = self.task.output.join(port).join(item);
        let produced =
            self.outcome.outputs.entry(port.to_owned()).or_insert_with(|| ProducedArtifact::Items(BTreeMap::new()));
        OutputWriter { folder, files: produced.item(item) }
    }

    /// Declares a per-case output of a phase that runs as a whole, which may turn out to hold no case.
    pub fn declare_items(&mut self, port: &str) {
        self.outcome.outputs.entry(port.to_owned()).or_insert_with(|| ProducedArtifact::Items(BTreeMap::new()));
    }

    /// Tells how far the work has come.
    pub fn progress(&self, progress: Progress) {
        self.host.event(StageEvent::Progress(progress));
    }

    /// Writes a line to the node's log.
    pub fn log(&self, line: impl Into<String>) {
        self.host.event(StageEvent::Log { line: line.into() });
    }

    /// Whether the stage should leave a checkpoint and return [`StageError::interrupted`].
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.host.cancelled()
    }

    /// Ends the work early if that was asked for.
    ///
    /// # Errors
    /// [`StageError::interrupted`] where the run was asked to stop.
    pub fn check_cancelled(&self) -> Result<(), StageError> {
        if self.cancelled() { Err(StageError::interrupted()) } else { Ok(()) }
    }

    /// The host itself, for work in other threads.
    #[must_use]
    pub fn host(&self) -> &'a dyn Host {
        self.host
    }

    /// Takes note of the largest memory of a GPU that the task's tensors have taken so far.
    pub fn took_gpu_memory(&mut self, peak_bytes: u64) {
        self.outcome.gpu_peak_memory_bytes = self.outcome.gpu_peak_memory_bytes.max(Some(peak_bytes));
    }

    /// What has been made.
    #[must_use]
    pub fn into_outcome(self) -> Outcome {
        self.outcome
    }
}

impl ProducedArtifact {
    fn one(&mut self) -> &mut Vec<OutputFile> {
        if !matches!(self, Self::One(_)) {
            *self = Self::One(Vec::new());
        }
        match self {
            Self::One(files) => files,
            Self::Items(_) => unreachable!("replaced above"),
        }
    }

    fn item(&mut self, item: &str) -> &mut Vec<OutputFile> {
        if !matches!(self, Self::Items(_)) {
            *self = Self::Items(BTreeMap::new());
        }
        match self {
            Self::Items(items) => items.entry(item.to_owned()).or_default(),
            Self::One(_) => unreachable!("replaced above"),
        }
    }
}

/// Takes the files of one output artifact.
pub struct OutputWriter<'a> {
    folder: PathBuf,
    files: &'a mut Vec<OutputFile>,
}

impl OutputWriter<'_> {
    /// The path at which the stage shall write the file `name`.
    ///
    /// # Errors
    /// If the folder cannot be made, or the name leads out of it.
    pub fn file(&mut self, name: &str) -> Result<PathBuf, StageError> {
        self.declare(name, false)
    }

    /// Like [`OutputWriter::file`], for a file that the artifact's digest leaves out: logs, timings.
    ///
    /// # Errors
    /// If the folder cannot be made, or the name leads out of it.
    pub fn incidental_file(&mut self, name: &str) -> Result<PathBuf, StageError> {
        self.declare(name, true)
    }

    /// Writes `document` as the file `name`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn json<T: serde::Serialize>(&mut self, name: &str, document: &T) -> Result<(), StageError> {
        let mut text = serde_json::to_string_pretty(document)
            .map_err(|error| StageError::internal(format!("`{name}` cannot be written as JSON: {error}")))?;
        text.push('\n');
        let path = self.file(name)?;
        Ok(fs_err::write(path, text)?)
    }

    /// Writes `bytes` as the file `name`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), StageError> {
        let path = self.file(name)?;
        Ok(fs_err::write(path, bytes)?)
    }

    /// Passes an input's file on as the file `name`, without a copy.
    pub fn forward(&mut self, name: &str, file: &FileRef) {
        let source =
            OutputSource::Forwarded { path: file.path.clone(), digest: file.digest.clone(), bytes: file.bytes };
        self.files.push(OutputFile { name: name.to_owned(), source, incidental: file.incidental });
    }

    /// Passes all files of an input's artifact on.
    pub fn forward_all(&mut self, artifact: &Artifact) {
        for file in &artifact.files {
            self.forward(&file.name, file);
        }
    }

    fn declare(&mut self, name: &str, incidental: bool) -> Result<PathBuf, StageError> {
        let plain = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if name.is_empty() || !plain {
            return Err(StageError::internal(format!("`{name}` is no name of an output file")));
        }
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        let source = OutputSource::Written { path: path.clone() };
        self.files.push(OutputFile { name: name.to_owned(), source, incidental });
        Ok(path)
    }
}
