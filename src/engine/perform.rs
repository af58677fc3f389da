//! Runs a job: makes missing bytes again, runs the stage; and publishes what jobs have made.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use nnflow_cache::{Artifact, Batch, Digest, FileEntry, Key, Manifest, PortValue, Published, Store, hash_file};
use nnflow_shared::SharedStore;
use nnflow_stage::{
    ErrorKind, ErrorReport, InputValue, Outcome, OutputFile, OutputSource, ProducedArtifact, Runner, StageEvent, Task,
};
use serde_json::json;

use super::job::{Job, files_of};
use super::limits::Stop;
use super::native::Native;
use super::schedule::Grant;
use super::usage::{Meter, Usage};
use super::worker::WorkerPool;
use super::workplace::Workplace;

/// What all jobs of a run share.
pub struct Performer<'a> {
    /// The store.
    pub store: &'a Store,
    /// Where results are put as well.
    pub shared: Option<&'a SharedStore>,
    /// Where stages without tensors run.
    pub native: &'a Native,
    /// The workers.
    pub workers: &'a WorkerPool,
    /// Measures what runs in this process.
    pub meter: Meter,
    /// Set when the run is to stop.
    pub cancel: &'a AtomicBool,
    /// Whether units are stopped when the time is up that the workflow gives them.
    pub keeps_time: bool,
    /// The device that stages with tensors use where the workflow leaves it open.
    pub device: String,
}

/// What a job has made, on its way into the store.
pub struct Made<'a> {
    /// The job.
    pub job: Job,
    workplace: Workplace<'a>,
    batch: Batch<'a>,
    /// Where the bytes lie that are not kept in the store.
    kept: HashMap<Digest, PathBuf>,
    usage: Usage,
}

/// What a stage wrote, hashed and staged.
struct Filled<'a> {
    batch: Batch<'a>,
    manifest: Manifest,
    kept: HashMap<Digest, PathBuf>,
}

/// What came of a job.
pub struct Performed<'a> {
    /// Its manifest.
    pub manifest: Manifest,
    /// The bytes that are not kept in the store.
    pub transient: Option<Transient<'a>>,
    /// What it took.
    pub usage: Usage,
}

/// Bytes that are not kept in the store. They stay for as long as this does.
pub struct Transient<'a> {
    /// Where they lie: all in the workplace.
    pub paths: HashMap<Digest, PathBuf>,
    /// To be removed when nobody needs them any more.
    pub workplace: Workplace<'a>,
}

impl<'a> Performer<'a> {
    /// Runs a job with what it was granted, and stages what it made.
    ///
    /// `release` is called when the stage has ended, so that another can have the grant while the results are hashed.
    ///
    /// # Errors
    /// What the stage or the store reports, with the job.
    pub fn perform(
        &self,
        mut job: Job,
        grant: Grant,
        event: &mut (dyn FnMut(StageEvent) + Send),
        release: impl FnOnce(Grant),
    ) -> Result<Made<'a>, Box<(Job, ErrorReport)>> {
        let measured = self.meter.begin();
        let workplace = Workplace::new(self.store, &job.key, job.stage.spec().resumes);
        let ran = workplace.map_err(|error| storage(&error)).and_then(|workplace| {
            let ran = self.run(&mut job, &workplace, &grant, event)?;
            Ok((workplace, ran))
        });
        release(grant);
        let filled = ran.and_then(|(workplace, (outcome, elsewhere))| {
            let filled = self.fill(&job, &outcome)?;
            Ok((workplace, filled, elsewhere))
        });
        // Also of a job that failed, so that its part does not go to the others.
        let here = self.meter.end(&measured);
        match filled {
            Ok((workplace, Filled { batch, mut manifest, kept }, elsewhere)) => {
                // A worker did the work where there was one; this process only waited, hashed and staged.
                let usage = elsewhere.map_or(here, |worker| Usage { wall_seconds: here.wall_seconds, ..worker });
                manifest.stats = usage.to_stats(job.task.resources.threads, job.task.resources.memory_bytes);
                batch.add_manifest(manifest);
                Ok(Made { job, workplace, batch, kept, usage })
            }
            Err(report) => Err(Box::new((job, report))),
        }
    }

    fn run(
        &self,
        job: &mut Job,
        workplace: &Workplace<'_>,
        grant: &Grant,
        event: &mut (dyn FnMut(StageEvent) + Send),
    ) -> Result<(Outcome, Option<Usage>), ErrorReport> {
        let stop = Stop::when(self.cancel).or_after(job.time.filter(|_| self.keeps_time));
        self.check_inputs(job)?;
        let mut made_again = HashMap::new();
        for (index, prelude) in job.prelude.iter_mut().enumerate() {
            prelude.task.output = workplace.folder().join(format!("prelude-{index}"));
            locate(&mut prelude.task, &made_again)?;
            let outcome = self.native.run(prelude.stage, &prelude.task, &stop, event)?;
            for (_, path) in written_files(&outcome) {
                let (digest, _) = hash_file(&path).map_err(|error| storage(&error))?;
                made_again.insert(digest.to_hex(), path);
            }
        }
        locate(&mut job.task, &made_again)?;
        job.task.output = workplace.folder().join("output");
        job.task.work = workplace.work();
        job.task.earlier = workplace.earlier();
        job.task.resources.threads = grant.threads;
        job.task.resources.memory_bytes = grant.memory_bytes;
        job.task.resources.device.clone_from(job.device.as_ref().unwrap_or(&self.device));
        job.task.resources.processes = if grant.gpus.is_empty() { job.processes } else { grant.gpus.len() };
        match job.runner() {
            Runner::Native => self.native.run(job.stage, &job.task, &stop, event).map(|outcome| (outcome, None)),
            Runner::Torch => {
                let ran = self.workers.run(&job.task, &grant.gpus, &stop, event);
                ran.map(|(outcome, usage)| (outcome, Some(usage)))
            }
        }
    }

    /// Looks at every byte that a job reads from the store and that this process has not seen: what is made of a flipped bit
    /// would stand under the key of the right ones.
    fn check_inputs(&self, job: &Job) -> Result<(), ErrorReport> {
        let tasks = job.prelude.iter().map(|prelude| &prelude.task).chain([&job.task]);
        let files = tasks.flat_map(files_of).filter_map(|file| {
            let digest: Digest = file.digest.parse().ok()?;
            (file.path == self.store.object_path(&digest)).then_some(digest)
        });
        self.store.check_sound(&files.collect::<Vec<_>>()).map_err(|error| storage(&error))
    }

    /// Hashes and stages what a job has made; nothing has its final name yet.
    fn fill(&self, job: &Job, outcome: &Outcome) -> Result<Filled<'a>, ErrorReport> {
        let batch = self.store.batch();
        let mut kept = HashMap::new();
        let mut entry = |file: &OutputFile| -> Result<FileEntry, ErrorReport> {
            let (digest, bytes) = match &file.source {
                OutputSource::Written { path } if job.store => {
                    batch.adopt_file(path).map_err(|error| storage(&error))?
                }
                OutputSource::Written { path } => {
                    let (digest, bytes) = hash_file(path).map_err(|error| storage(&error))?;
                    kept.insert(digest, path.clone());
                    (digest, bytes)
                }
                OutputSource::Forwarded { path, digest, bytes } => {
                    let digest: Digest = digest.parse().map_err(|error| {
                        ErrorReport::new(ErrorKind::Internal, format!("a forwarded file has no digest: {error}"))
                    })?;
                    if job.store && !self.store.has(&digest) {
                        batch.put_file(path).map_err(|error| storage(&error))?;
                    } else if !job.store {
                        kept.insert(digest, path.clone());
                    }
                    (digest, *bytes)
                }
            };
            Ok(FileEntry { name: file.name.clone(), digest, bytes, incidental: file.incidental })
        };
        let mut outputs = BTreeMap::new();
        for (port, produced) in &outcome.outputs {
            let mut artifact = |files: &[OutputFile]| -> Result<Artifact, ErrorReport> {
                let entries = files.iter().map(&mut entry).collect::<Result<Vec<_>, _>>()?;
                Artifact::new(entries).map_err(|error| ErrorReport::new(ErrorKind::Internal, error.to_string()))
            };
            let value = match produced {
                ProducedArtifact::One(files) => PortValue::One(artifact(files)?),
                ProducedArtifact::Items(items) => {
                    let items = items.iter().map(|(item, files)| Ok((item.clone(), artifact(files)?)));
                    PortValue::Items(items.collect::<Result<_, ErrorReport>>()?)
                }
            };
            outputs.insert(port.clone(), value);
        }
        let mut manifest = Manifest::new(job.record.to_value(), outputs);
        manifest.stored = job.store;
        manifest.producer = json!({ "nnflow": env!("CARGO_PKG_VERSION"), "node": job.task.node });
        Ok(Filled { batch, manifest, kept })
    }

    /// Puts into the store what several jobs have made.
    pub fn publish(&self, group: Vec<Made<'a>>) -> Vec<(Job, Result<Performed<'a>, ErrorReport>)> {
        let mut batches = Vec::new();
        let mut rest = Vec::new();
        for Made { job, workplace, batch, kept, usage } in group {
            batches.push(batch);
            rest.push((job, workplace, kept, usage));
        }
        let ends = self.store.commit_together(batches).into_iter().zip(rest);
        let settle = |(end, (job, workplace, paths, usage)): (Result<Vec<Published>, _>, (Job, _, _, _))| {
            let performed = || {
                let manifest = end.map_err(|error| storage(&error))?.pop().map(|published| published.manifest);
                let manifest = manifest.ok_or_else(|| {
                    ErrorReport::new(ErrorKind::Internal, "the store took the results and gave no manifest back")
                })?;
                let transient = match job.store {
                    true => self.remove(workplace, &job.key).map(|()| None)?,
                    false => Some(Transient { paths, workplace }),
                };
                Ok(Performed { manifest, transient, usage })
            };
            let performed = performed();
            (job, performed)
        };
        ends.map(settle).collect()
    }

    /// Removes a workplace that nobody needs any more.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(&self, workplace: Workplace<'a>, key: &Key) -> Result<(), ErrorReport> {
        workplace.remove(self.store, key).map_err(|error| storage(&error))
    }
}

/// Fills in the paths of bytes that were made again.
fn locate(task: &mut Task, made_again: &HashMap<String, PathBuf>) -> Result<(), ErrorReport> {
    for member in task.inputs.values_mut().flatten() {
        let artifacts: Vec<&mut nnflow_stage::Artifact> = match &mut member.value {
            InputValue::One(artifact) => vec![artifact],
            InputValue::Items(items) => items.values_mut().collect(),
            InputValue::Document(_) => continue,
        };
        for file in artifacts.into_iter().flat_map(|artifact| &mut artifact.files) {
            if file.path != Path::new("") {
                continue;
            }
            let Some(path) = made_again.get(&file.digest) else {
                return Err(ErrorReport {
                    hint: Some("`nnflow cache verify --repair`, then run again".to_owned()),
                    ..ErrorReport::new(
                        ErrorKind::Internal,
                        format!("`{}` was made again, but with other bytes than the last time", file.name),
                    )
                });
            };
            file.path.clone_from(path);
        }
    }
    Ok(())
}

fn written_files(outcome: &Outcome) -> Vec<(String, PathBuf)> {
    let files = outcome.outputs.values().flat_map(|produced| match produced {
        ProducedArtifact::One(files) => files.iter().collect::<Vec<_>>(),
        ProducedArtifact::Items(items) => items.values().flatten().collect(),
    });
    files
        .filter_map(|file| match &file.source {
            OutputSource::Written { path } => Some((file.name.clone(), path.clone())),
            OutputSource::Forwarded { .. } => None,
        })
        .collect()
}

/// An error of the store as plain data, with what the system says.
pub(crate) fn storage(error: &nnflow_cache::StoreError) -> ErrorReport {
    let mut report = ErrorReport::new(ErrorKind::Storage, error.to_string());
    report.hint = error.hint().map(|hint| hint.to_string());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        report.causes.push(error.to_string());
        cause = error.source();
    }
    report
}

#[cfg(test)]
mod tests {
    use nnflow_stage::{FileRef, Member, TaskResources};

    use super::*;

    fn task() -> Task {
        Task {
            stage: "crop".to_owned(),
            node: "crop".to_owned(),
            phase: "crop".to_owned(),
            item: None,
            axes: BTreeMap::new(),
            parameters: nnflow_stage::Parameters::default(),
            seed: 0,
            inputs: BTreeMap::new(),
            output: PathBuf::new(),
            work: PathBuf::new(),
            earlier: Vec::new(),
            resources: TaskResources { threads: 1, memory_bytes: 0, device: "cpu".to_owned(), processes: 1 },
        }
    }

    fn reading(digest: &str) -> Task {
        let file = FileRef {
            name: "image.nna".to_owned(),
            path: PathBuf::new(),
            digest: digest.to_owned(),
            bytes: 1,
            incidental: false,
        };
        let value = InputValue::One(nnflow_stage::Artifact { files: vec![file] });
        Task { inputs: BTreeMap::from([("cases".to_owned(), vec![Member { axes: BTreeMap::new(), value }])]), ..task() }
    }

    #[test]
    fn a_file_that_was_made_again_is_found_by_its_digest() {
        let mut task = reading("ab");
        let made_again = HashMap::from([("ab".to_owned(), PathBuf::from("attempt/image.nna"))]);
        locate(&mut task, &made_again).expect("the file was made again");
        let InputValue::One(artifact) = &task.inputs["cases"][0].value else { panic!("one artifact was given") };
        assert_eq!(artifact.files[0].path, Path::new("attempt/image.nna"));
    }

    #[test]
    fn other_bytes_than_the_last_time_are_refused() {
        let report = locate(&mut reading("ab"), &HashMap::from([("cd".to_owned(), PathBuf::from("x"))]));
        let message = report.expect_err("the digest is another one").message;
        assert_eq!(message, "`image.nna` was made again, but with other bytes than the last time");
    }
}
