//! The record of a run on disk: its events as JSON lines, and a log for each node.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::cli::complain;
use crate::engine::events::{Listener, RunEvent};

/// Writes a run's events to `events.jsonl` and what nodes say to `logs/NODE.log`.
#[derive(Debug)]
pub struct Journal {
    events: BufWriter<File>,
    logs: Option<PathBuf>,
    open: HashMap<String, File>,
    broken: bool,
}

impl Journal {
    /// A journal in a run's folder.
    ///
    /// # Errors
    /// If the files cannot be made.
    pub fn create(folder: &Path) -> std::io::Result<Self> {
        let logs = folder.join("logs");
        fs_err::create_dir_all(&logs)?;
        let events = BufWriter::new(File::create(folder.join("events.jsonl"))?);
        Ok(Self { events, logs: Some(logs), open: HashMap::new(), broken: false })
    }

    /// A journal that only writes events, to a file that the user named.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn events_to(path: &Path) -> std::io::Result<Self> {
        let events = BufWriter::new(fs_err::File::create(path)?.into_parts().0);
        Ok(Self { events, logs: None, open: HashMap::new(), broken: false })
    }

    fn write(&mut self, event: &RunEvent) -> std::io::Result<()> {
        if let (RunEvent::Log { node, case, line }, Some(logs)) = (event, &self.logs) {
            let prefix = case.as_ref().map_or_else(String::new, |case| format!("{case}: "));
            let path = logs.join(format!("{node}.log"));
            writeln!(self.log_of(node, &path)?, "{prefix}{line}")?;
        }
        serde_json::to_writer(&mut self.events, event)?;
        self.events.write_all(b"\n")?;
        // Progress comes often and is worth little afterwards; all else is there for `status` at once.
        if matches!(event, RunEvent::UnitProgress { .. }) { Ok(()) } else { self.events.flush() }
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
    use super::*;

    fn say(line: &str) -> RunEvent {
        RunEvent::Log { node: "train[2d,0]".to_owned(), case: None, line: line.to_owned() }
    }

    #[test]
    fn what_a_node_says_is_in_its_log() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut journal = Journal::create(folder.path()).expect("a journal can be made");
        journal.hear(&say("one"));
        journal.hear(&RunEvent::Log { node: "crop".to_owned(), case: Some("a".to_owned()), line: "two".to_owned() });
        let read =
            |name: &str| fs_err::read_to_string(folder.path().join("logs").join(name)).expect("the log is there");
        assert_eq!((read("train[2d,0].log").as_str(), read("crop.log").as_str()), ("one\n", "a: two\n"));
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
