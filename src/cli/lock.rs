//! What a run does about its workflow's lock: writes it, or refuses to differ from it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nnflow_stage::{ErrorKind, ErrorReport};

use super::outcome::{Failed, complain};
use crate::engine::lock::Lock;
use crate::engine::metrics::{Checked, TAKEN};
use crate::engine::state::{State, Status};
use crate::session::Session;

/// The ending of a lock's file, beside the workflow.
const ENDING: &str = "lock";

/// What a run does about the lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Locking {
    /// Nothing.
    #[default]
    Leave,
    /// Writes it when everything is done.
    Write,
    /// Refuses to differ from it.
    Obey,
}

/// The lock that a run has to obey.
pub(crate) struct Obeyed {
    lock: Lock,
    path: PathBuf,
}

impl Obeyed {
    /// Reads the lock of a workflow.
    pub(crate) fn of(session: &Session) -> Result<Self, Failed> {
        let path = path_of(session)
            .ok_or_else(|| Failed::input("a workflow that is no file has no lock, so it cannot run with `--locked`"))?;
        Ok(Self { lock: Lock::read(&path)?, path })
    }

    /// Refuses whatever of the state is known to differ.
    pub(crate) fn check(&self, state: &State<'_>) -> Result<(), Failed> {
        let differences = self.lock.differences(state);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Failed::Locked(ErrorReport {
            details: differences,
            hint: Some("undo the change, or run without `--locked` to write a new lock".to_owned()),
            ..ErrorReport::new(ErrorKind::Input, format!("this is not what `{}` says", self.path.display()))
        }))
    }
}

/// Writes the lock of a run that has done everything there is.
pub(crate) fn write(session: &Session, state: &State<'_>, checked: &[Checked]) {
    let is_final = |status: &Status| matches!(status, Status::Done | Status::Skipped(_));
    let (Some(path), true) = (path_of(session), state.nodes.iter().all(|node| is_final(&node.status))) else { return };
    // Times differ from run to run, and a lock that they were in would never be the same.
    let lasting = checked.iter().filter(|checked| !TAKEN.iter().any(|name| checked.name.ends_with(name)));
    let metrics: BTreeMap<_, _> = lasting.filter_map(|checked| Some((checked.name.clone(), checked.value?))).collect();
    if let Err(error) = Lock::of(state, &session.workflow.name, metrics).write(&path) {
        complain(&format!("warning: the lock `{}` was not written: {error}", path.display()));
    }
}

fn path_of(session: &Session) -> Option<PathBuf> {
    Some(session.workflow.path.as_ref()?.with_extension(ENDING))
}
