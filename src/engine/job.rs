//! From a unit that must run to a task with paths: what a thread or a worker needs, and nothing of the state.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use nnflow_cache::{Digest, Key};
use nnflow_stage::{
    Artifact, ErrorKind, ErrorReport, FileRef, InputValue, Member, ResourceQuery, Resources, Runner, Stage, Task,
    TaskResources,
};

use super::gather::{Content, Gathered, NotReady};
use super::record::KeyRecord;
use super::state::{ReadyUnit, State, UnitId};

/// A unit that is ready to be run somewhere.
pub struct Job {
    /// The unit.
    pub id: UnitId,
    /// Its key.
    pub key: Key,
    /// The pre-image of its key.
    pub record: KeyRecord,
    /// The stage.
    pub stage: &'static dyn Stage,
    /// The task; its output and work folders are chosen when it starts.
    pub task: Task,
    /// The device that the workflow asks for, if it does.
    pub device: Option<String>,
    /// How long it may take, if the workflow says so.
    pub time: Option<Duration>,
    /// Over how many processes a training goes where it has no GPU.
    pub processes: usize,
    /// Whether the bytes of its results are kept in the store.
    pub store: bool,
    /// Units whose bytes were not kept and must be made again first, in order.
    pub prelude: Vec<Prelude>,
}

/// A unit that is run again because its bytes were not kept.
pub struct Prelude {
    /// The stage.
    pub stage: &'static dyn Stage,
    /// The task.
    pub task: Task,
}

impl Job {
    /// Which program can run it.
    #[must_use]
    pub fn runner(&self) -> Runner {
        self.stage.spec().runner
    }

    /// The digests of all files that it reads.
    #[must_use]
    pub fn reads(&self) -> HashSet<Digest> {
        files_of(&self.task).filter_map(|file| file.digest.parse().ok()).collect()
    }
}

/// The files that a task reads.
pub(super) fn files_of(task: &Task) -> impl Iterator<Item = &FileRef> {
    let values = task.inputs.values().flatten().map(|member| &member.value);
    let artifacts = values.flat_map(|value| match value {
        InputValue::One(artifact) => vec![artifact],
        InputValue::Items(items) => items.values().collect(),
        InputValue::Document(_) => Vec::new(),
    });
    artifacts.flat_map(|artifact| &artifact.files)
}

impl State<'_> {
    /// The job of a unit that must run.
    ///
    /// # Errors
    /// If bytes that it reads can neither be found nor be made again.
    pub fn job(&self, unit: ReadyUnit) -> Result<Job, ErrorReport> {
        let mut prelude = Vec::new();
        self.add_prelude(&unit.inputs, &mut prelude, &mut BTreeSet::new())?;
        let task = self.task(&unit.id, &unit.inputs);
        let stage = self.stages[unit.id.node.index()];
        let node = self.graph.node(unit.id.node);
        let device = node.resources.device.map(|device| device.to_string());
        let processes = node.resources.processes.unwrap_or(1) as usize;
        let (time, store) = (node.resources.time, node.store);
        let ReadyUnit { id, key, record, .. } = unit;
        Ok(Job { id, key, record, stage, task, device, time, processes, store, prelude })
    }

    /// The job of a unit that must run elsewhere: one that needs no bytes that lie in a folder of this process, and whose
    /// results are kept in the store, since the folder that they are made in does not outlive it.
    ///
    /// # Errors
    /// As [`State::job`].
    pub fn far_job(&mut self, unit: ReadyUnit) -> Result<Job, ErrorReport> {
        let in_folders = |digest: &Digest| self.locations.remove_entry(digest);
        let hidden: Vec<_> = self.transient.keys().filter_map(in_folders).collect();
        let job = self.job(unit);
        self.locations.extend(hidden);
        job.map(|job| Job { store: true, ..job })
    }

    /// What a unit will need, and how many GPUs it can make use of.
    #[must_use]
    pub fn resources(&self, unit: &ReadyUnit) -> (Resources, usize) {
        let task = self.task(&unit.id, &unit.inputs);
        let stage = self.stages[unit.id.node.index()];
        let query = ResourceQuery {
            phase: &task.phase,
            parameters: &task.parameters,
            input_bytes: input_bytes(&unit.inputs),
            inputs: &task.inputs,
        };
        (stage.resources(&query), stage.most_gpus(&query))
    }

    fn task(&self, unit: &UnitId, inputs: &BTreeMap<String, Vec<Gathered>>) -> Task {
        let node = self.graph.node(unit.node);
        let inputs = inputs.iter().map(|(port, gathered)| {
            let members = gathered.iter().map(|one| Member { axes: one.axes.clone(), value: self.value(&one.content) });
            (port.clone(), members.collect())
        });
        Task {
            stage: node.spec.name.to_owned(),
            node: node.name.clone(),
            phase: self.phase(unit.node, unit.phase).name.to_owned(),
            item: unit.item.as_deref().map(str::to_owned),
            axes: node.axes.clone(),
            parameters: node.parameters.clone(),
            seed: self.seed,
            inputs: inputs.collect(),
            output: PathBuf::new(),
            work: PathBuf::new(),
            earlier: Vec::new(),
            resources: TaskResources { threads: 1, memory_bytes: 0, device: "cpu".to_owned(), processes: 1 },
        }
    }

    fn value(&self, content: &Content) -> InputValue {
        match content {
            Content::One(held) => InputValue::One(self.artifact(&held.artifact)),
            Content::Items(items) => InputValue::Items(
                items.iter().map(|(item, held)| (item.to_string(), self.artifact(&held.artifact))).collect(),
            ),
            Content::Document(document) => InputValue::Document(document.clone()),
        }
    }

    fn artifact(&self, artifact: &nnflow_cache::Artifact) -> Artifact {
        let file = |file: &nnflow_cache::FileEntry| FileRef {
            name: file.name.clone(),
            path: self.path_of(&file.digest).unwrap_or_default(),
            digest: file.digest.to_hex(),
            bytes: file.bytes,
            incidental: file.incidental,
        };
        Artifact { files: artifact.files().iter().map(file).collect() }
    }

    /// Where the bytes lie; nowhere if they have to be made again.
    fn path_of(&self, digest: &Digest) -> Option<PathBuf> {
        match self.locations.get(digest) {
            Some(path) => Some(path.clone()),
            None if self.transient.contains_key(digest) && !self.store.has(digest) => None,
            None => Some(self.store.object_path(digest)),
        }
    }

    /// Adds the units that make missing bytes again, each before those that need it.
    fn add_prelude(
        &self,
        inputs: &BTreeMap<String, Vec<Gathered>>,
        prelude: &mut Vec<Prelude>,
        seen: &mut BTreeSet<UnitId>,
    ) -> Result<(), ErrorReport> {
        for digest in digests(inputs) {
            let Some(producer) = self.transient.get(&digest) else { continue };
            if self.path_of(&digest).is_some() || !seen.insert(producer.clone()) {
                continue;
            }
            let (_, producer_inputs) = self.gather(producer).map_err(|error| match error {
                NotReady::Invalid(report) => report,
                NotReady::Pending(name) | NotReady::Blocked(name) => ErrorReport::new(
                    ErrorKind::Internal,
                    format!("bytes that were not kept cannot be made again: `{name}` is not at hand"),
                ),
            })?;
            self.add_prelude(&producer_inputs, prelude, seen)?;
            let stage = self.stages[producer.node.index()];
            prelude.push(Prelude { stage, task: self.task(producer, &producer_inputs) });
        }
        Ok(())
    }
}

fn digests(inputs: &BTreeMap<String, Vec<Gathered>>) -> Vec<Digest> {
    let mut digests = Vec::new();
    let mut add = |artifact: &nnflow_cache::Artifact| digests.extend(artifact.files().iter().map(|file| file.digest));
    for gathered in inputs.values().flatten() {
        match &gathered.content {
            Content::One(held) => add(&held.artifact),
            Content::Items(items) => items.values().for_each(|held| add(&held.artifact)),
            Content::Document(_) => {}
        }
    }
    digests
}

fn input_bytes(inputs: &BTreeMap<String, Vec<Gathered>>) -> u64 {
    let bytes = |artifact: &nnflow_cache::Artifact| artifact.files().iter().map(|file| file.bytes).sum::<u64>();
    let contents = inputs.values().flatten().map(|gathered| match &gathered.content {
        Content::One(held) => bytes(&held.artifact),
        Content::Items(items) => items.values().map(|held| bytes(&held.artifact)).sum(),
        Content::Document(_) => 0,
    });
    contents.sum()
}
