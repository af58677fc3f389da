//! The record of a run on disk: its events as JSON lines, and a log for each node.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::run_folder::RunFolder;
use crate::cli::complain;
use crate::engine::events::{Listener, RunEvent};

/// How long progress may be late for whoever reads the events meanwhile.
const FLUSH_PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Writes a run's events as they come, and what nodes say to a log for each.
#[derive(Debug)]
pub struct Journal {
    events: BufWriter<File>,
    run: Option<RunFolder>,
    open: HashMap<String, File>,
    last_flush: Instant,
    broken: bool,
}

impl Journal {
    /// A journal in a run's folder.
    ///
    /// # Errors
    /// If the files cannot be made.
    pub fn create(run: RunFolder) -> std::io::Result<Self> {
        Ok(Self { run: Some(run.clone()), ..Self::events_to(&run.events_path())? })
    }

    /// A journal that only writes events, to a file that the user named.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn events_to(path: &Path) -> std::io::Result<Self> {
        let events = BufWriter::new(fs_err::File::create(path)?.into_parts().0);
        Ok(Self { events, run: None, open: HashMap::new(), last_flush: Instant::now(), broken: false })
    }

    fn write(&mut self, event: &RunEvent) -> std::io::Result<()> {
        if let (RunEvent::Log { node, case, line }, Some(run)) = (event, &self.run) {
            let prefix = case.as_ref().map_or_else(String::new, |case| format!("{case}: "));
            let path = run.log_of(node);
            writeln!(self.log_of(node, &path)?, "{prefix}{line}")?;
        }
        serde_json::to_writer(&mut self.events, event)?;
        self.events.write_all(b"\n")?;
        // Progress comes often; all else is there at once for whoever watches.
        if matches!(event, RunEvent::UnitProgress { .. }) && self.last_flush.elapsed() < FLUSH_PROGRESS_EVERY {
            return Ok(());
        }
        self.last_flush = Instant::now();
        self.events.flush()
    }

    fn log_of(&mut self, node: &str, path: &Path) -> std::io::Result<&mut File> {
        if !self.open.contains_key(node) {
            let file = File::options().create(true).append(true).open(path)?;
            self.open.insert(node.to_owned(), file);
        }
        Ok(self.open.get_mut(node).expect("invariant: inserted above"))
    }
}

impl Listener for Journal {
    /// A record that cannot be written is no reason to end the run, but it is told once.
    fn hear(&mut self, event: &RunEvent) {
        if let Err(error) = self.write(event)
            && !std::mem::replace(&mut self.broken, true)
        {
            complain(&format!("warning: the record of this run is incomplete: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use nnflow_cache::Store;

    use super::*;

    fn say(line: &str) -> RunEvent {
        RunEvent::Log { node: "train[2d,0]".to_owned(), case: None, line: line.to_owned() }
    }

    #[test]
    fn what_a_node_says_is_in_its_log() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let store = Store::open(folder.path()).expect("a store can be made");
        let run = RunFolder::begin(&store, "spleen").expect("a run can begin");
        let mut journal = Journal::create(run.clone()).expect("a journal can be made");
        journal.hear(&say("one"));
        journal.hear(&RunEvent::Log { node: "crop".to_owned(), case: Some("a".to_owned()), line: "two".to_owned() });
        let read = |name: &str| fs_err::read_to_string(run.log_of(name)).expect("the log is there");
        assert_eq!((read("train[2d,0]").as_str(), read("crop").as_str()), ("one\n", "a: two\n"));
    }

    #[test]
    fn every_event_is_a_line() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("events.jsonl");
        let mut journal = Journal::events_to(&path).expect("a journal can be made");
        let events = [say("one"), say("two")];
        events.iter().for_each(|event| journal.hear(event));
        let text = fs_err::read_to_string(&path).expect("the events are there");
        let read = text.lines().map(|line| serde_json::from_str::<RunEvent>(line).expect("a line is an event"));
        assert_eq!(read.collect::<Vec<_>>(), events);
    }
}
