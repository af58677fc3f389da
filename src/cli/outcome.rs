//! How a command ends: what it prints, and the exit code that scripts rely on.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use nnflow_cache::StoreError;
use nnflow_shared::SharedError;
use nnflow_stage::{ErrorKind, ErrorReport};

use crate::engine::perform::storage;
use crate::report::render_report;
use crate::session::OpenError;

/// The exit codes; they are part of what nnflow promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything is done, or was already.
    Done = 0,
    /// A stage failed.
    StageFailed = 1,
    /// The user's input is wrong.
    WrongInput = 2,
    /// The run would not be, or was not, what the lock says.
    LockDiffers = 3,
    /// The store or the file system failed.
    Storage = 4,
    /// A cluster refused, ended or lost what was handed to it.
    Executor = 5,
    /// A number falls short of what `[expect]` asks for.
    ExpectationNotMet = 6,
    /// The run was asked to stop; running again goes on from there.
    Interrupted = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that could not do its work.
#[derive(Debug)]
pub enum Failed {
    /// Something is wrong, with what to do about it.
    Report(ErrorReport),
    /// The workflow's file is wrong; the text is rendered already.
    Workflow(String),
    /// The run would not be, or was not, what the lock says.
    Locked(ErrorReport),
}

impl Failed {
    /// The user's input is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Report(ErrorReport::new(ErrorKind::Input, message))
    }

    /// The user's input is wrong, and this is what to do.
    pub fn input_with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Report(ErrorReport { hint: Some(hint.into()), ..ErrorReport::new(ErrorKind::Input, message) })
    }

    /// The exit code that says so.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Workflow(_) => Exit::WrongInput,
            Self::Report(report) => exit_of(report.kind),
            Self::Locked(_) => Exit::LockDiffers,
        }
    }
}

/// The exit code of an error's kind.
#[must_use]
pub(crate) fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Input => Exit::WrongInput,
        ErrorKind::Storage => Exit::Storage,
        ErrorKind::Interrupted => Exit::Interrupted,
        ErrorKind::Executor => Exit::Executor,
        ErrorKind::Resource | ErrorKind::Internal => Exit::StageFailed,
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workflow(text) => formatter.write_str(text),
            Self::Report(report) | Self::Locked(report) => write!(formatter, "error: {}", render_report(report)),
        }
    }
}

impl From<ErrorReport> for Failed {
    fn from(report: ErrorReport) -> Self {
        Self::Report(report)
    }
}

impl From<OpenError> for Failed {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Workflow(diagnostics) => Self::Workflow(diagnostics.render(std::io::stderr().is_terminal())),
            OpenError::Source(report) => Self::Report(report),
            OpenError::Store(error) => error.into(),
            OpenError::Shared(error) => error.into(),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Report(storage(&error))
    }
}

impl From<SharedError> for Failed {
    fn from(error: SharedError) -> Self {
        let hint = error.hint().map(|hint| hint.to_string());
        let kind = match error {
            SharedError::ReadOnly { .. } => ErrorKind::Input,
            _ => ErrorKind::Storage,
        };
        Self::Report(ErrorReport { hint, ..ErrorReport::new(kind, error.to_string()) })
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::Report(ErrorReport::new(ErrorKind::Storage, error.to_string()))
    }
}

/// Prints what was asked for to standard output; a reader that has gone away is no error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    if write!(out, "{text}{end}").and_then(|()| out.flush()).is_err() {
        std::process::exit(Exit::Done as i32);
    }
}

/// Prints what a person should know to standard error.
pub(crate) fn complain(text: &str) {
    // Nobody is left to be told where standard error is closed.
    writeln!(std::io::stderr().lock(), "{}", text.trim_end()).unwrap_or(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_exit_code() {
        let kinds = [
            ErrorKind::Internal,
            ErrorKind::Resource,
            ErrorKind::Input,
            ErrorKind::Storage,
            ErrorKind::Executor,
            ErrorKind::Interrupted,
        ];
        assert_eq!(kinds.map(|kind| exit_of(kind) as u8), [1, 1, 2, 4, 5, 75]);
    }
}
