//! The cases that rules are found on, a few of them in memory at a time.

use std::collections::BTreeMap;

use ndarray::{Array3, ArrayView3};
use nnflow_kernels::metrics::Confusion;
use nnflow_stage::{Artifact, Context, Host, Progress, StageError, StageEvent};
use rayon::prelude::*;

use super::label_map::LabelMap;
use crate::case::{CaseRecord, small_record};
use crate::segmentation::{Segmentation, read_reference, voxels_of};

/// Bytes for each voxel of a case: the file as it is read, both label maps, masks and their components.
pub(crate) const BYTES_A_VOXEL: u64 = 16;

/// Cases, and how many of them may be in memory.
pub(crate) struct Cases<'a, T> {
    cases: Vec<(&'a str, T)>,
    at_once: usize,
    host: &'a dyn Host,
}

/// The files of a label image and its reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'a> {
    labels: &'a Artifact,
    reference: &'a Artifact,
}

/// A label image and its reference.
pub(crate) struct Example {
    name: String,
    /// The label image.
    pub(crate) map: LabelMap,
    reference: Array3<i16>,
}

impl Example {
    fn read(name: &str, files: &Files<'_>) -> Result<Self, StageError> {
        let labels = Segmentation::read(files.labels, name)?.labels;
        let (reference, _) = read_reference(files.reference, name)?;
        Ok(Self { name: name.to_owned(), map: LabelMap::new(labels), reference })
    }

    /// The reference `[z, y, x]`.
    pub(crate) fn reference(&self) -> ArrayView3<'_, i16> {
        self.reference.view()
    }

    /// The pairs of labels of the reference and of the label image as it is now.
    pub(crate) fn confusion(&self, ignore: Option<i16>) -> Result<Confusion, StageError> {
        Confusion::between(self.reference(), self.map.labels(), ignore)
            .map_err(|error| StageError::input(format!("case `{}` cannot be evaluated: {error}", self.name)))
    }
}

impl<'a> Cases<'a, Files<'a>> {
    /// The label images at `examples` with their references.
    pub(crate) fn with_references(context: &Context<'a>) -> Result<Self, StageError> {
        let references = context.items("references")?;
        let mut missing = Vec::new();
        let mut cases = Vec::new();
        for (name, labels) in context.items("examples")? {
            match references.get(name) {
                Some(reference) => cases.push((name, Files { labels, reference })),
                None => missing.push(format!("case `{name}` has no reference")),
            }
        }
        if !missing.is_empty() {
            return Err(StageError::input("cases at input `examples` lack their references").with_details(missing));
        }
        if cases.is_empty() {
            return Err(StageError::input("there are no label images with references to find rules on")
                .with_hint("connect `examples` and `references`, or `given` to rules that are known"));
        }
        let at_once = at_once(context, references.into_values());
        Ok(Self { cases, at_once, host: context.host() })
    }

    /// Does the same with every case; the results are in the order of the cases.
    pub(crate) fn each<T: Send>(
        &self,
        step: &str,
        work: impl Fn(Example) -> Result<T, StageError> + Sync,
    ) -> Result<Vec<T>, StageError> {
        self.map(step, |name, files| work(Example::read(name, files)?))
    }
}

impl<'a> Cases<'a, &'a Artifact> {
    /// The references of all cases.
    pub(crate) fn references(context: &Context<'a>) -> Result<Self, StageError> {
        let references: BTreeMap<_, _> = context.items("references")?;
        if references.is_empty() {
            return Err(StageError::input("there are no references to find rules on")
                .with_hint("connect `references`, or `given` to rules that are known"));
        }
        let at_once = at_once(context, references.values().copied());
        Ok(Self { cases: references.into_iter().collect(), at_once, host: context.host() })
    }

    /// Does the same with every reference; the results are in the order of the cases.
    pub(crate) fn each<T: Send>(&self, step: &str, work: impl Fn(LabelMap) -> T + Sync) -> Result<Vec<T>, StageError> {
        self.map(step, |name, artifact| read_reference(artifact, name).map(|(labels, _)| work(LabelMap::new(labels))))
    }
}

impl<C: Sync> Cases<'_, C> {
    fn map<T: Send>(
        &self,
        step: &str,
        work: impl Fn(&str, &C) -> Result<T, StageError> + Sync,
    ) -> Result<Vec<T>, StageError> {
        let mut results = Vec::with_capacity(self.cases.len());
        // Threads that wait would take up further cases without bound, so that a few are begun and ended together.
        for few in self.cases.chunks(self.at_once) {
            if self.host.cancelled() {
                return Err(StageError::interrupted());
            }
            let done: Vec<_> = few.par_iter().map(|(name, case)| work(name, case)).collect();
            for result in done {
                results.push(result?);
            }
            self.host.event(StageEvent::Progress(Progress {
                done: results.len() as u64,
                total: Some(self.cases.len() as u64),
                unit: "case".to_owned(),
                message: step.to_owned(),
            }));
        }
        Ok(results)
    }
}

/// How many cases fit into the memory of the task, and no more than there are threads.
fn at_once<'a>(context: &Context<'_>, references: impl Iterator<Item = &'a Artifact>) -> usize {
    let voxels = |record: CaseRecord| voxels_of(&record.geometry);
    let largest = references.filter_map(small_record).map(voxels).max().unwrap_or(0).max(1);
    let fitting = context.resources().memory_bytes / largest.saturating_mul(BYTES_A_VOXEL).max(1);
    usize::try_from(fitting).unwrap_or(usize::MAX).clamp(1, context.resources().threads.max(1))
}
