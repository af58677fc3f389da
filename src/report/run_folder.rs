//! The folder of a run in its store: who runs it, its events, and a log for each node.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use nnflow_cache::{Liveness, ProcessIdentity, Store};
use serde::{Deserialize, Serialize};

use crate::engine::events::RunEvent;

const ABOUT: &str = "run.json";
const EVENTS: &str = "events.jsonl";

/// What `run.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    /// The workflow's name.
    workflow: String,
    /// Who runs it.
    process: ProcessIdentity,
}

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder of a run that begins, with this process as the one that runs it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn begin(store: &Store, workflow: &str) -> std::io::Result<Self> {
        let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S").to_string();
        let folder = Self { path: store.runs_folder().join(format!("{now}-{}", std::process::id())) };
        fs_err::create_dir_all(folder.logs())?;
        let about = About { workflow: workflow.to_owned(), process: ProcessIdentity::current().clone() };
        fs_err::write(folder.path.join(ABOUT), serde_json::to_vec_pretty(&about)?)?;
        Ok(folder)
    }

    /// The runs that a store remembers, newest first.
    ///
    /// # Errors
    /// If the store's folder cannot be read.
    pub fn all(store: &Store) -> std::io::Result<Vec<Self>> {
        let mut paths = Vec::new();
        for entry in fs_err::read_dir(store.runs_folder())? {
            paths.push(entry?.path());
        }
        paths.sort_by(|one, other| other.cmp(one));
        Ok(paths.into_iter().map(|path| Self { path }).collect())
    }

    /// The newest run of a workflow that is under way.
    ///
    /// # Errors
    /// If the store's folder cannot be read.
    pub fn under_way(store: &Store, workflow: &str) -> std::io::Result<Option<Self>> {
        let is_it = |run: &Self| run.about().is_some_and(|about| about.workflow == workflow) && run.is_under_way();
        Ok(Self::all(store)?.into_iter().find(is_it))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of its events.
    #[must_use]
    pub fn events_path(&self) -> PathBuf {
        self.path.join(EVENTS)
    }

    /// The folder of its logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The file with what a node says.
    #[must_use]
    pub fn log_of(&self, node: &str) -> PathBuf {
        self.logs().join(format!("{node}.log"))
    }

    /// Whoever runs it, in words.
    #[must_use]
    pub fn runner(&self) -> String {
        self.about().map_or_else(
            || "an unknown process".to_owned(),
            |about| format!("process {} on {}", about.process.pid, about.process.host),
        )
    }

    /// Whether the run goes on, as far as this process can see: of one on another machine only its last event tells.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        let liveness = self.about().map_or(Liveness::Dead, |about| about.process.liveness());
        liveness != Liveness::Dead && !self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.events().is_ok_and(|mut events| events.any(|event| matches!(event, RunEvent::Ended { .. })))
    }

    /// What has happened in it so far. Lines that cannot be understood, such as one that is being written, are left out.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn events(&self) -> std::io::Result<impl Iterator<Item = RunEvent> + use<>> {
        let lines = BufReader::new(File::open(self.events_path())?).lines();
        Ok(lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()))
    }

    fn about(&self) -> Option<About> {
        serde_json::from_slice(&std::fs::read(self.path.join(ABOUT)).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> (tempfile::TempDir, Store, RunFolder) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let store = Store::open(folder.path()).expect("a store can be made");
        let run = RunFolder::begin(&store, "spleen").expect("a run can begin");
        fs_err::write(run.events_path(), "{\"event\":\"warning\",\"message\":\"odd\"}\n{\"event\":\"warn")
            .expect("written");
        (folder, store, run)
    }

    fn found(store: &Store, workflow: &str) -> Option<PathBuf> {
        RunFolder::under_way(store, workflow).expect("the store can be read").map(|run| run.path)
    }

    #[test]
    fn a_run_of_a_living_process_is_under_way() {
        let (_folder, store, run) = begun();
        assert_eq!((found(&store, "spleen"), found(&store, "liver")), (Some(run.path), None));
    }

    #[test]
    fn a_run_that_says_that_it_ended_is_over_though_its_process_lives() {
        let (_folder, store, run) = begun();
        let ended = RunEvent::Ended {
            success: true,
            interrupted: false,
            run: 1,
            fresh: 0,
            skipped: 0,
            failed: 0,
            wall_seconds: 1.0,
        };
        fs_err::write(run.events_path(), serde_json::to_vec(&ended).expect("an event is JSON")).expect("written");
        assert_eq!(found(&store, "spleen"), None);
    }

    #[test]
    fn a_run_whose_process_died_is_over() {
        let (_folder, store, run) = begun();
        let mut about = run.about().expect("it was written");
        about.process.started = Some(1);
        fs_err::write(run.path.join(ABOUT), serde_json::to_vec(&about).expect("plain data")).expect("written");
        assert_eq!(found(&store, "spleen"), None);
    }

    #[test]
    fn a_line_that_is_being_written_does_not_hide_the_others() {
        let (_folder, _store, run) = begun();
        assert_eq!(run.events().expect("the events are there").count(), 1);
    }
}
