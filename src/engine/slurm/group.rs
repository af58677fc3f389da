//! Which orders become one job.
//!
//! Units of one phase of a node are one element: they share a worker, which loads libtorch and the networks once. Elements
//! of one stage that ask for the same are one array.

use std::collections::BTreeMap;

use nnflow_cache::derive_digest;
use serde_json::json;

use super::folder::{Element, JOB_VERSION, JobFile, UnitFile, Work};
use super::settings::{Request, SlurmSettings};
use crate::engine::elsewhere::Order;
use crate::engine::job::Job;
use crate::engine::slurm::Slurm;

/// What keeps the name of a job apart from other digests.
const NAME_CONTEXT: &str = "nnflow-slurm-job-v1";

/// What makes two units part of one array.
type ArrayKey = (String, String, Request);

/// An order with what it asks for.
pub(super) struct Priced {
    pub(super) order: Order,
    pub(super) request: Request,
}

/// The units of an array, by element.
pub(super) struct Array {
    pub(super) stage: String,
    pub(super) request: Request,
    pub(super) elements: Vec<Vec<Order>>,
}

/// Puts together what goes together, in arrays of at most `longest` elements.
pub(super) fn arrays(orders: Vec<Priced>, longest: usize) -> Vec<Array> {
    let mut groups: BTreeMap<ArrayKey, Vec<Vec<Order>>> = BTreeMap::new();
    for Priced { order, request } in orders {
        let key = (order.stage.clone(), order.job.task.phase.clone(), request);
        let elements = groups.entry(key).or_default();
        let same_node = |element: &&mut Vec<Order>| element[0].job.id.node == order.job.id.node;
        match elements.iter_mut().find(same_node) {
            Some(element) => element.push(order),
            None => elements.push(vec![order]),
        }
    }
    let mut arrays = Vec::new();
    for ((stage, _, request), mut elements) in groups {
        while !elements.is_empty() {
            let rest = elements.split_off(elements.len().min(longest));
            arrays.push(Array { stage: stage.clone(), request: request.clone(), elements });
            elements = rest;
        }
    }
    arrays
}

/// What a job is to do. Its name is that of every job with the same work in the same store.
pub(super) fn job_file(slurm: &Slurm<'_>, array: &Array) -> JobFile {
    let elements: Vec<Element> = array
        .elements
        .iter()
        .map(|orders| Element {
            node: orders.first().map(|order| order.job.task.node.clone()).unwrap_or_default(),
            work: Work::Units(orders.iter().map(|order| unit_file(&order.job)).collect()),
        })
        .collect();
    let keys: Vec<String> = array.elements.iter().flatten().map(|order| order.job.key.to_string()).collect();
    named(slurm.store.root(), &slurm.settings, &array.stage, &array.request, json!(keys), elements)
}

/// A job that is named after what it does.
pub(super) fn named(
    store: &std::path::Path,
    settings: &SlurmSettings,
    stage: &str,
    request: &Request,
    work: serde_json::Value,
    elements: Vec<Element>,
) -> JobFile {
    let digest = derive_digest(NAME_CONTEXT, &json!({ "store": store, "work": work })).short();
    JobFile {
        version: JOB_VERSION,
        name: format!("nnflow-{stage}-{digest}"),
        store: store.to_owned(),
        request: request.clone(),
        device: settings.device.clone(),
        worker: settings.worker.clone(),
        requeues: settings.requeues,
        elements,
    }
}

fn unit_file(job: &Job) -> UnitFile {
    UnitFile {
        key: job.key,
        record: job.record.clone(),
        task: job.task.clone(),
        device: job.device.clone(),
        processes: job.processes,
        prelude: job.prelude.iter().map(|prelude| prelude.task.clone()).collect(),
    }
}
