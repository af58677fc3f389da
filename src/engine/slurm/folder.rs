//! The folder of a job: what it is to do, and what it leaves.
//!
//! ```text
//! work/jobs/<name>.<unique>/
//!   job.json             what is to be done, an array of elements
//!   script.sh            what Slurm starts
//!   0.log                what element 0 has printed
//!   0.events             what its units have told, as JSON lines
//!   0-2.json             how its unit 2 ended
//!   0.progress.json      how far it had come when it was stopped
//!   0.stopped            it was stopped and could not put itself in the queue again
//!   0.requeued           it is about to end, and in the queue again
//! ```
//!
//! The folder's name is unique, so that a job that was believed dead and is not never writes into that of its successor.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nnflow_cache::Key;
use nnflow_stage::{ErrorReport, StageEvent, Task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::SlurmError;
use super::settings::Request;
use crate::engine::record::KeyRecord;

/// The version of a job's files; a job of another version is left to the program that wrote it.
pub const JOB_VERSION: u32 = 1;

/// How much of the end of a log is told.
const LOG_END_BYTES: u64 = 4096;

/// How many lines of it.
const LOG_END_LINES: usize = 20;

/// How long the folder of a job that nobody knows any more is kept, for its logs.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// What a job is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobFile {
    /// [`JOB_VERSION`].
    pub version: u32,
    /// The job's name in Slurm: of equal work in the same store it is the same.
    pub name: String,
    /// The folder of the store.
    pub store: PathBuf,
    /// What each element may use.
    pub request: Request,
    /// The device of stages with tensors where the workflow leaves it open.
    pub device: String,
    /// The worker's program.
    pub worker: PathBuf,
    /// How often an element may be cut short and go on.
    pub requeues: u32,
    /// The elements of the array.
    pub elements: Vec<Element>,
}

/// An element of an array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Element {
    /// The node.
    pub node: String,
    /// What is to be done of it.
    pub work: Work,
}

/// What an element is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Units that were ready when the job was submitted, one after the other.
    Units(Vec<UnitFile>),
    /// Whatever has to run of the node, which nobody could know before.
    Node {
        /// The workflow's file.
        workflow: PathBuf,
        /// What was given by `--set`.
        sets: Vec<String>,
    },
}

/// A unit, as plain data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitFile {
    /// Its key.
    pub key: Key,
    /// The pre-image of its key.
    pub record: KeyRecord,
    /// Its task.
    pub task: Task,
    /// The device that the workflow asks for, if it does.
    pub device: Option<String>,
    /// Over how many processes a training goes where it has no GPU.
    pub processes: usize,
    /// The tasks that make bytes again that were not kept.
    pub prelude: Vec<Task>,
}

/// How a unit ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How.
    pub end: ReportedEnd,
    /// How long it took.
    pub wall_seconds: f64,
}

/// How a unit ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportedEnd {
    /// Its result is in the store.
    Done,
    /// It failed.
    Failed(ErrorReport),
}

/// What a unit has told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToldByUnit {
    /// The unit's place in its element.
    pub unit: usize,
    /// What it has told.
    pub event: StageEvent,
}

/// How far the units of an element had come, by their place.
pub type ProgressSoFar = BTreeMap<usize, u64>;

/// The folder of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A folder that is there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes a folder below `jobs` and writes into it what is to be done.
    ///
    /// # Errors
    /// If the folder or the file cannot be written.
    pub fn create(jobs: &Path, job: &JobFile) -> Result<Self, SlurmError> {
        fs_err::create_dir_all(jobs).map_err(|source| file(jobs, source))?;
        let builder = tempfile::Builder::new().prefix(&format!("{}.", job.name)).tempdir_in(jobs);
        let folder = Self { path: builder.map_err(|source| file(jobs, source))?.keep() };
        folder.write_json("job.json", job)?;
        Ok(folder)
    }

    /// All folders of jobs below `jobs`.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn all(jobs: &Path) -> Result<Vec<Self>, SlurmError> {
        let entries = match fs_err::read_dir(jobs) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| file(jobs, source))?,
        };
        let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        Ok(folders.into_iter().map(Self::at).collect())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The comment that tells its job from all others.
    #[must_use]
    pub fn comment(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What the job is to do; nothing where that was written by another version.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn job(&self) -> Result<Option<JobFile>, SlurmError> {
        Ok(self.read_json::<JobFile>("job.json")?.filter(|job| job.version == JOB_VERSION))
    }

    /// Where the log of an element lies.
    #[must_use]
    pub fn log(&self, element: usize) -> PathBuf {
        self.path.join(format!("{element}.log"))
    }

    /// Leaves how a unit ended.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn leave_report(&self, element: usize, unit: usize, report: &Report) -> Result<(), SlurmError> {
        self.write_json(&format!("{element}-{unit}.json"), report)
    }

    /// How a unit ended, if it has.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn report(&self, element: usize, unit: usize) -> Result<Option<Report>, SlurmError> {
        self.read_json(&format!("{element}-{unit}.json"))
    }

    /// Leaves how far an element had come.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn leave_progress(&self, element: usize, progress: &ProgressSoFar) -> Result<(), SlurmError> {
        self.write_json(&format!("{element}.progress.json"), progress)
    }

    /// How far an element had come when it was last stopped.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn progress(&self, element: usize) -> Result<ProgressSoFar, SlurmError> {
        Ok(self.read_json(&format!("{element}.progress.json"))?.unwrap_or_default())
    }

    /// Leaves word that an element was stopped and that nothing is wrong with it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn leave_stopped(&self, element: usize) -> Result<(), SlurmError> {
        self.write_json(&format!("{element}.stopped"), &true)
    }

    /// Whether an element was stopped though nothing was wrong with it.
    #[must_use]
    pub fn was_stopped(&self, element: usize) -> bool {
        self.path.join(format!("{element}.stopped")).is_file()
    }

    /// Leaves word that an element asks to be put in the queue again, or takes it back when its next turn has come.
    ///
    /// # Errors
    /// If the file cannot be written or removed.
    pub fn leave_requeued(&self, element: usize, requeued: bool) -> Result<(), SlurmError> {
        let name = format!("{element}.requeued");
        if requeued {
            return self.write_json(&name, &true);
        }
        let path = self.path.join(name);
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file(&path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether an element has asked to be put in the queue again, and its next turn has not come yet.
    #[must_use]
    pub fn was_requeued(&self, element: usize) -> bool {
        self.path.join(format!("{element}.requeued")).is_file()
    }

    /// Opens the file of what an element's units tell, to add to it.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn tell(&self, element: usize) -> Result<Telling, SlurmError> {
        let path = self.events(element);
        let opened = fs_err::File::options().create(true).append(true).open(&path);
        Ok(Telling { file: opened.map_err(|source| file(&path, source))? })
    }

    /// What an element's units have told since `offset`, which is moved on; whole lines only.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn told(&self, element: usize, offset: &mut u64) -> Result<Vec<ToldByUnit>, SlurmError> {
        let path = self.events(element);
        let mut read = || {
            let mut reader = match fs_err::File::open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                opened => BufReader::new(opened?),
            };
            reader.seek(SeekFrom::Start(*offset))?;
            let mut told = Vec::new();
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 && line.last() == Some(&b'\n') {
                *offset += line.len() as u64;
                // Two attempts that write at the same time may spoil each other's lines, which are only told.
                told.extend(serde_json::from_slice::<ToldByUnit>(&line));
                line.clear();
            }
            Ok(told)
        };
        read().map_err(|source| file(&path, source))
    }

    /// The last lines of an element's log.
    #[must_use]
    pub fn log_end(&self, element: usize) -> Vec<String> {
        let read = || {
            let mut log = fs_err::File::open(self.log(element))?;
            let length = log.seek(SeekFrom::End(0))?;
            log.seek(SeekFrom::Start(length.saturating_sub(LOG_END_BYTES)))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes).map(|_| bytes)
        };
        // Where a job has written nothing there is nothing to tell.
        let text = read().map(|bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_END_LINES)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Writes a file of the folder whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, SlurmError> {
        let path = self.path.join(name);
        let write = || {
            let mut staged = tempfile::NamedTempFile::new_in(&self.path)?;
            staged.write_all(bytes)?;
            staged.persist(&path).map_err(|error| error.error)
        };
        write().map_err(|source| file(&path, source))?;
        Ok(path)
    }

    /// Removes the folder of a job that Slurm has forgotten, once its logs have been there for long.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove_if_old(&self) -> Result<(), SlurmError> {
        let modified = fs_err::metadata(&self.path).and_then(|data| data.modified());
        let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if age.is_some_and(|age| age > KEPT) { self.remove() } else { Ok(()) }
    }

    /// Removes the folder with all that is in it; not being there is fine.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(&self) -> Result<(), SlurmError> {
        match fs_err::remove_dir_all(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| file(&self.path, source)),
        }
    }

    fn events(&self, element: usize) -> PathBuf {
        self.path.join(format!("{element}.events"))
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), SlurmError> {
        let bytes = serde_json::to_vec_pretty(value).map_err(|error| file(&self.path.join(name), error.into()))?;
        self.write(name, &bytes).map(drop)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SlurmError> {
        let path = self.path.join(name);
        let bytes = match fs_err::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|source| file(&path, source))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| file(&path, error.into()))
    }
}

/// The file of what an element's units tell.
#[derive(Debug)]
pub struct Telling {
    file: fs_err::File,
}

impl Telling {
    /// Adds what a unit tells.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn tell(&mut self, told: &ToldByUnit) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(told)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

fn file(path: &Path, source: std::io::Error) -> SlurmError {
    SlurmError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use nnflow_stage::ErrorKind;

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let jobs = tempfile::tempdir().expect("a temporary folder can be made");
        let request = Request { threads: 1, memory_bytes: None, gpus: 0, time: None };
        let job = JobFile {
            version: JOB_VERSION,
            name: "nnflow-train-1".to_owned(),
            store: PathBuf::from("store"),
            request,
            device: "cpu".to_owned(),
            worker: PathBuf::from("nnflow-torch"),
            requeues: 3,
            elements: Vec::new(),
        };
        let folder = Folder::create(jobs.path(), &job).expect("a folder can be made");
        (jobs, folder)
    }

    fn say(unit: usize, line: &str) -> ToldByUnit {
        ToldByUnit { unit, event: StageEvent::Log { line: line.to_owned() } }
    }

    #[test]
    fn two_jobs_of_one_name_have_folders_of_their_own() {
        let (jobs, first) = folder();
        let job = first.job().expect("it can be read").expect("it is of this version");
        let second = Folder::create(jobs.path(), &job).expect("a folder can be made");
        assert_eq!(Folder::all(jobs.path()).expect("they can be listed").len(), 2);
        assert_ne!(first.comment(), second.comment());
    }

    #[test]
    fn a_job_of_another_version_is_not_understood() {
        let (_jobs, folder) = folder();
        let job = folder.job().expect("it can be read").expect("it is of this version");
        folder.write_json("job.json", &JobFile { version: 99, ..job }).expect("it can be written");
        assert_eq!(folder.job().expect("it can be read"), None);
    }

    #[test]
    fn what_is_told_is_read_once_and_no_half_line() {
        let (_jobs, folder) = folder();
        let mut telling = folder.tell(0).expect("the file can be opened");
        telling.tell(&say(0, "one")).expect("it can be written");
        telling.file.write_all(b"{\"unit\":").expect("it can be written");
        let mut offset = 0;
        assert_eq!(folder.told(0, &mut offset).expect("it can be read"), [say(0, "one")]);
        telling.file.write_all(b"1,\"event\":{\"event\":\"log\",\"line\":\"two\"}}\n").expect("it can be written");
        assert_eq!(folder.told(0, &mut offset).expect("it can be read"), [say(1, "two")]);
        assert_eq!(folder.told(0, &mut offset).expect("it can be read"), []);
    }

    #[test]
    fn a_report_comes_back_as_it_was_left() {
        let (_jobs, folder) = folder();
        let end = ReportedEnd::Failed(ErrorReport::new(ErrorKind::Input, "no labels"));
        let report = Report { end, wall_seconds: 1.5 };
        assert_eq!(folder.report(0, 1).expect("it can be read"), None);
        folder.leave_report(0, 1, &report).expect("it can be written");
        assert_eq!(folder.report(0, 1).expect("it can be read"), Some(report));
    }

    #[test]
    fn of_a_long_log_the_last_lines_are_told() {
        let (_jobs, folder) = folder();
        let lines: Vec<String> = (0..2000).map(|number| format!("line {number}")).collect();
        fs_err::write(folder.log(0), lines.join("\n")).expect("it can be written");
        assert_eq!(folder.log_end(0), lines[1980..]);
        assert_eq!(folder.log_end(1), Vec::<String>::new());
    }
}
