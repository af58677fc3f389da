//! `nnflow logs`: what nodes have said, and what they are saying.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nnflow_cache::Store;

use super::outcome::{Exit, Failed};
use super::{Opening, target};
use crate::report::RunFolder;
use crate::session::Session;

/// How often a log is looked at while it is followed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What `nnflow logs` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArguments {
    /// The node or nodes, such as `train[3d_fullres,0]` or `train[*]`.
    node: String,
    /// Go on printing for as long as the run does that is under way.
    #[arg(long, short)]
    follow: bool,
    /// The workflow's file; `workflow.toml`, or the only workflow in this folder, by default.
    #[arg(long, short, value_name = "FILE")]
    workflow: Option<PathBuf>,
    #[command(flatten)]
    opening: Opening,
}

/// Prints what nodes have said in their last runs, and, if asked to, what they say from now on.
pub(crate) fn logs(arguments: &LogsArguments) -> Result<Exit, Failed> {
    let path = target::workflow_path(arguments.workflow.as_deref())?;
    let session = Session::open(&path, &arguments.opening.options())?;
    let nodes = target::nodes(&session.graph, &arguments.node)?;
    let names: Vec<String> = nodes.into_iter().map(|node| session.graph.node(node).name.clone()).collect();
    let under_way = RunFolder::under_way(&session.store, &session.workflow.name)?;
    if let Some(run) = under_way.filter(|_| arguments.follow) {
        return follow(&run, &names);
    }
    let mut tails: Vec<Tail> = newest_logs(&session.store, &names)?;
    if tails.is_empty() {
        let message = format!("`{}` has said nothing in any run that is kept", arguments.node);
        return Err(Failed::input_with_hint(
            message,
            "`nnflow show NODE` shows what it has made, `nnflow explain NODE` why",
        ));
    }
    let mut out = std::io::stdout().lock();
    for tail in &mut tails {
        tail.write_new(&mut out)?;
    }
    Ok(Exit::Done)
}

/// The last log of each node that has one.
fn newest_logs(store: &Store, names: &[String]) -> Result<Vec<Tail>, Failed> {
    let runs = RunFolder::all(store)?;
    let newest = |name: &String| runs.iter().map(|run| run.log_of(name)).find(|path| path.is_file());
    let several = names.len() > 1;
    Ok(names.iter().filter_map(|name| Some(Tail::new(newest(name)?, several.then_some(name.as_str())))).collect())
}

fn follow(run: &RunFolder, names: &[String]) -> Result<Exit, Failed> {
    let several = names.len() > 1;
    let mut tails: Vec<Tail> =
        names.iter().map(|name| Tail::new(run.log_of(name), several.then_some(name.as_str()))).collect();
    let mut out = std::io::stdout().lock();
    loop {
        // Asked before the logs are read, so that what a run says last is not missed.
        let goes_on = run.is_under_way();
        for tail in &mut tails {
            tail.write_new(&mut out)?;
        }
        if !goes_on {
            return Ok(Exit::Done);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A log that grows.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    /// What stands before each line, where several logs are printed together.
    prefix: String,
    offset: u64,
}

impl Tail {
    fn new(path: PathBuf, name: Option<&str>) -> Self {
        Self { path, prefix: name.map_or_else(String::new, |name| format!("{name}: ")), offset: 0 }
    }

    /// Prints the whole lines that have come since the last time.
    fn write_new(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        let new = read_from(&self.path, self.offset)?;
        let Some(end) = new.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        self.offset += end as u64 + 1;
        for line in String::from_utf8_lossy(&new[..end]).lines() {
            writeln!(out, "{}{line}", self.prefix)?;
        }
        out.flush()
    }
}

/// What a file holds from an offset on; nothing where it is not there yet.
fn read_from(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_gives_each_line_once_and_only_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("train.log");
        let mut tail = Tail::new(path.clone(), Some("train"));
        let mut printed = Vec::new();
        for text in ["", "one\ntw", "one\ntwo\n"] {
            fs_err::write(&path, text).expect("the log can be written");
            tail.write_new(&mut printed).expect("the log can be read");
        }
        assert_eq!(String::from_utf8_lossy(&printed), "train: one\ntrain: two\n");
    }

    #[test]
    fn a_log_that_is_not_there_yet_is_empty() {
        let mut printed = Vec::new();
        Tail::new(PathBuf::from("/nonexistent/train.log"), None).write_new(&mut printed).expect("it may come");
        assert!(printed.is_empty());
    }
}
