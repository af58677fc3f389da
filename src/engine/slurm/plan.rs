//! Hands a whole graph to Slurm: a job a node, each waiting for those before it.
//!
//! What a node reads is not known before the nodes before it have run, and neither are its key and its cases. So a job of
//! this kind names a node, finds out what has to run when its turn comes, and runs just that. Nodes of one stage that ask
//! for the same and wait for the same nodes are one array. A node whose results are not kept has no job of its own,
//! since its results would end with it: it runs in the jobs that need it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nnflow_cache::Store;
use nnflow_stage::Runner;
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use serde_json::json;

use super::error::SlurmError;
use super::folder::{Element, Folder, Work};
use super::queue::{self, JobId, Standing};
use super::settings::{Request, SlurmSettings};
use super::{group, submit};
use crate::engine::state::State;

/// A job of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The stage, as the workflow names it.
    pub stage: String,
    /// What each of its elements asks for.
    pub request: Request,
    /// Its nodes, one an element.
    pub nodes: Vec<NodeIndex>,
    /// The nodes that it waits for.
    pub after: BTreeSet<NodeIndex>,
}

/// What is to be submitted, besides the graph.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The workflow's file.
    pub workflow: &'a Path,
    /// What was given by `--set`.
    pub sets: &'a [String],
    /// What is asked of Slurm.
    pub settings: &'a SlurmSettings,
}

/// A node that has a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The node.
    pub node: String,
    /// Its job.
    pub id: JobId,
    /// Whether the job was there before.
    pub is_old: bool,
}

/// The jobs of all that is left to do of a graph, each after those that it waits for.
#[must_use]
pub fn plan(state: &State<'_>, settings: &SlurmSettings) -> Vec<Planned> {
    let mut planned: Vec<Planned> = Vec::new();
    for index in state.graph.order().iter().copied().filter(|index| has_job(state, *index)) {
        let node = state.graph.node(index);
        let request = settings.request(node.spec, &node.resources, None);
        let mut after = BTreeSet::new();
        add_before(state, index, &mut after);
        let same = |other: &&mut Planned| other.stage == node.stage && other.request == request && other.after == after;
        match planned.iter_mut().find(same) {
            Some(array) => array.nodes.push(index),
            None => planned.push(Planned { stage: node.stage.clone(), request, nodes: vec![index], after }),
        }
    }
    planned
}

/// Submits the jobs of a graph. Nodes that have a job already keep it.
///
/// # Errors
/// What Slurm says; the jobs before that are submitted and do what they can.
pub fn submit_graph(
    state: &State<'_>,
    submission: Submission<'_>,
    mut tell: impl FnMut(Submitted),
) -> Result<(), SlurmError> {
    let mut ids: BTreeMap<String, JobId> = active(state.store, submission.workflow)?;
    let old = ids.clone();
    let longest = submit::longest_array()?;
    for planned in plan(state, submission.settings) {
        let name = |index: &NodeIndex| state.graph.node(*index).name.clone();
        let (there, open): (Vec<String>, Vec<String>) =
            planned.nodes.iter().map(name).partition(|node| old.contains_key(node));
        there.into_iter().for_each(|node| tell(Submitted { id: old[&node], node, is_old: true }));
        let after: Vec<JobId> = planned.after.iter().filter_map(|index| ids.get(&name(index)).copied()).collect();
        for nodes in open.chunks(longest) {
            let array = submit_nodes(state.store, submission, &planned, nodes, &after)?;
            for (node, element) in nodes.iter().zip(0..) {
                let id = JobId { array, element };
                ids.insert(node.clone(), id);
                tell(Submitted { node: node.clone(), id, is_old: false });
            }
        }
    }
    Ok(())
}

fn submit_nodes(
    store: &Store,
    submission: Submission<'_>,
    planned: &Planned,
    nodes: &[String],
    after: &[JobId],
) -> Result<u64, SlurmError> {
    let Submission { workflow, sets, settings } = submission;
    let work = || Work::Node { workflow: workflow.to_owned(), sets: sets.to_vec() };
    let elements = nodes.iter().map(|node| Element { node: node.clone(), work: work() }).collect();
    let what = json!({ "workflow": workflow, "sets": sets, "nodes": nodes });
    let file = group::named(store.root(), settings, &planned.stage, &planned.request, what, elements);
    let folder = Folder::create(&store.jobs_folder(), &file)?;
    let dependency = (!after.is_empty()).then(|| {
        let ids: Vec<String> = after.iter().map(JobId::to_string).collect();
        format!("afterok:{}", ids.join(":"))
    });
    submit::submit(&folder, &file, settings, dependency.as_deref())
}

/// Whether something is left to do of a node, in a job of its own.
fn has_job(state: &State<'_>, node: NodeIndex) -> bool {
    let is_open = state.wanted.contains(&node) && !state.nodes[node.index()].status.is_final();
    let declared = state.graph.node(node);
    is_open && (declared.store || declared.spec.runner == Runner::Torch || state.consumers_of(node).is_empty())
}

/// The nearest nodes before one that have jobs.
fn add_before(state: &State<'_>, node: NodeIndex, before: &mut BTreeSet<NodeIndex>) {
    for producer in state.graph.inner().neighbors_directed(node, Direction::Incoming) {
        if has_job(state, producer) {
            before.insert(producer);
        } else {
            add_before(state, producer, before);
        }
    }
}

/// The nodes of a workflow that have jobs which still wait or run.
fn active(store: &Store, workflow: &Path) -> Result<BTreeMap<String, JobId>, SlurmError> {
    let folders = Folder::all(&store.jobs_folder())?;
    let mut active = BTreeMap::new();
    if folders.is_empty() {
        return Ok(active);
    }
    let sightings = queue::look()?;
    for folder in folders {
        let comment = folder.comment();
        if !sightings.keys().any(|(other, _)| *other == comment) {
            folder.remove_if_old()?;
            continue;
        }
        let Some(job) = folder.job()? else { continue };
        for (element, number) in job.elements.iter().zip(0..) {
            let seen = sightings.get(&(comment.clone(), number));
            let seen = seen.filter(|seen| matches!(seen.standing, Standing::Pending | Standing::Running));
            if let (Some(seen), Work::Node { workflow: other, .. }) = (seen, &element.work)
                && other == workflow
            {
                active.insert(element.node.clone(), seen.id);
            }
        }
    }
    Ok(active)
}
