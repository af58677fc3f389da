//! Runs one job: makes missing bytes again, runs the stage, publishes what it made.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nnflow_cache::{Artifact, Digest, FileEntry, Manifest, PortValue, Store, hash_file};
use nnflow_stage::{
    Context, ErrorKind, ErrorReport, Host, InputValue, Outcome, OutputFile, OutputSource, ProducedArtifact, Runner,
    Stage, StageEvent, Task,
};
use serde_json::json;

use super::job::Job;
use super::schedule::Grant;
use super::worker::WorkerPool;

/// What all jobs of a run share.
pub struct Performer<'a> {
    /// The store.
    pub store: &'a Store,
    /// The workers.
    pub workers: &'a WorkerPool,
    /// Set when the run is to stop.
    pub cancel: &'a AtomicBool,
    /// The device that stages with tensors use where the workflow leaves it open.
    pub device: String,
}

/// What came of a job.
pub struct Performed {
    /// Its manifest.
    pub manifest: Manifest,
    /// Where the bytes lie that are not kept in the store: in the key's work folder, until nobody needs them any more.
    pub transient: Option<HashMap<Digest, PathBuf>>,
    /// How long it took.
    pub wall_seconds: f64,
}

impl Performer<'_> {
    /// Runs a job with what it was granted, and publishes its results.
    ///
    /// # Errors
    /// What the stage or the store reports.
    pub fn perform(
        &self,
        job: &mut Job,
        grant: &Grant,
        event: &mut (dyn FnMut(StageEvent) + Send),
    ) -> Result<Performed, ErrorReport> {
        let start = Instant::now();
        let earlier = self.store.attempts(&job.key).map_err(|error| storage(&error))?;
        let attempt = self.store.new_attempt(&job.key).map_err(|error| storage(&error))?;
        let mut made_again = HashMap::new();
        for (index, prelude) in job.prelude.iter_mut().enumerate() {
            prelude.task.output = attempt.folder.join(format!("prelude-{index}"));
            locate(&mut prelude.task, &made_again)?;
            let outcome = run_here(prelude.stage, &prelude.task, self.cancel, event)?;
            for (_, path) in written_files(&outcome) {
                let (digest, _) = hash_file(&path).map_err(|error| storage(&error))?;
                made_again.insert(digest.to_hex(), path);
            }
        }
        locate(&mut job.task, &made_again)?;
        job.task.output = attempt.folder.join("output");
        job.task.work = attempt.folder.join("work");
        job.task.earlier = earlier.iter().map(|attempt| attempt.folder.join("work")).collect();
        job.task.resources.threads = grant.threads;
        job.task.resources.memory_bytes = grant.memory_bytes;
        job.task.resources.device.clone_from(job.device.as_ref().unwrap_or(&self.device));
        let outcome = match job.runner() {
            Runner::Native => run_here(job.stage, &job.task, self.cancel, event)?,
            Runner::Torch => self.workers.run(&job.task, &grant.gpus, self.cancel, event)?,
        };
        let published = self.publish(job, &outcome, start)?;
        if published.transient.is_none() {
            self.store.remove_work(&job.key).map_err(|error| storage(&error))?;
        }
        Ok(published)
    }

    fn publish(&self, job: &Job, outcome: &Outcome, start: Instant) -> Result<Performed, ErrorReport> {
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
        let wall_seconds = start.elapsed().as_secs_f64();
        manifest.stored = job.store;
        manifest.stats = json!({ "wall_seconds": wall_seconds, "threads": job.task.resources.threads });
        manifest.producer = json!({ "nnflow": env!("CARGO_PKG_VERSION"), "node": job.task.node });
        batch.add_manifest(manifest);
        let published = batch.commit().map_err(|error| storage(&error))?;
        let manifest = published.into_iter().next().map(|published| published.manifest).ok_or_else(|| {
            ErrorReport::new(ErrorKind::Internal, "the store took the results and gave no manifest back")
        })?;
        let transient = (!job.store).then_some(kept);
        Ok(Performed { manifest, transient, wall_seconds })
    }
}

/// Runs a stage in this process; a panic of the stage is an error of the stage, not the end of the run.
///
/// # Errors
/// What the stage reports.
pub fn run_here(
    stage: &'static dyn Stage,
    task: &Task,
    cancel: &AtomicBool,
    event: &mut (dyn FnMut(StageEvent) + Send),
) -> Result<Outcome, ErrorReport> {
    let host = LocalHost { cancel, event: Mutex::new(event) };
    let run = || {
        let mut context = Context::new(task, &host);
        stage.run(&mut context).map(|()| context.into_outcome())
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.report()),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
            Err(ErrorReport {
                hint: Some("this is a defect of nnflow; please report it with the case's file".to_owned()),
                ..ErrorReport::new(ErrorKind::Internal, format!("the stage panicked: {}", text.unwrap_or("no message")))
            })
        }
    }
}

struct LocalHost<'a> {
    cancel: &'a AtomicBool,
    event: Mutex<&'a mut (dyn FnMut(StageEvent) + Send)>,
}

impl Host for LocalHost<'_> {
    fn event(&self, event: StageEvent) {
        (self.event.lock().unwrap_or_else(std::sync::PoisonError::into_inner))(event);
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
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

fn storage(error: &nnflow_cache::StoreError) -> ErrorReport {
    ErrorReport {
        hint: error.hint().map(|hint| hint.to_string()),
        ..ErrorReport::new(ErrorKind::Storage, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use nnflow_stage::{FileRef, Member, Phase, PhaseKind, StageError, StageSpec, TaskResources};

    use super::*;

    /// A stage that does what its name says.
    struct Panics;

    static SPEC: StageSpec = StageSpec {
        name: "panics",
        version: 1,
        summary: "panics",
        docs: "panics",
        runner: Runner::Native,
        inputs: &[],
        outputs: &[],
        parameters: &[],
        axes: &[],
        draws: false,
        phases: &[Phase { name: "panic", kind: PhaseKind::Whole, reads: &[], makes: &[], parameters: None }],
    };

    impl Stage for Panics {
        fn spec(&self) -> &'static StageSpec {
            &SPEC
        }

        fn run(&self, _: &mut Context<'_>) -> Result<(), StageError> {
            panic!("out of {}", "ideas")
        }
    }

    fn task() -> Task {
        Task {
            stage: "panics".to_owned(),
            node: "panics".to_owned(),
            phase: "panic".to_owned(),
            item: None,
            axes: BTreeMap::new(),
            parameters: nnflow_stage::Parameters::default(),
            seed: 0,
            inputs: BTreeMap::new(),
            output: PathBuf::new(),
            work: PathBuf::new(),
            earlier: Vec::new(),
            resources: TaskResources { threads: 1, memory_bytes: 0, device: "cpu".to_owned() },
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
    fn a_panic_of_a_stage_is_an_error_of_the_stage() {
        let report = run_here(&Panics, &task(), &AtomicBool::new(false), &mut |_| {}).expect_err("the stage panics");
        assert_eq!((report.kind, report.message.as_str()), (ErrorKind::Internal, "the stage panicked: out of ideas"));
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
