//! What a stage says when it cannot do its work.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who has to act on an error; decides the exit code and whether another attempt makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The user's data or settings are at fault; running again changes nothing.
    Input,
    /// The file system or the store failed.
    Storage,
    /// Memory, a GPU or another resource was not to be had; another attempt may succeed.
    Resource,
    /// The run was asked to stop; what had been done is kept and the next run goes on from there.
    Interrupted,
    /// The stage itself is at fault.
    Internal,
    /// What was to run the stage elsewhere, such as a cluster, refused it, ended it or lost it.
    Executor,
}

/// An error of a stage: one sentence, every problem found, and what to do next.
///
/// The message is a lower-case phrase that fits "failed to …: {message}". `details` lists every single problem when there
/// are several, so that a user can mend all of them at once.
#[derive(Debug)]
pub struct StageError {
    kind: ErrorKind,
    message: String,
    details: Vec<String>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StageError {
    /// An error of the given kind with its one-sentence message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Vec::new(), hint: None, source: None }
    }

    /// The user's data or settings are at fault.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    /// The file system or the store failed.
    pub fn storage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Storage, message)
    }

    /// Memory, a GPU or another resource was not to be had.
    pub fn resource(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Resource, message)
    }

    /// The stage itself is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The run was asked to stop, and the stage did.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "the run was asked to stop")
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds one of several problems.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    /// Adds several problems.
    #[must_use]
    pub fn with_details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The error as plain data, with the chain of its causes as text.
    #[must_use]
    pub fn report(&self) -> ErrorReport {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        ErrorReport {
            kind: self.kind,
            message: self.message.clone(),
            details: self.details.clone(),
            hint: self.hint.clone(),
            causes,
        }
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        for detail in &self.details {
            write!(formatter, "\n  {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<std::io::Error> for StageError {
    fn from(error: std::io::Error) -> Self {
        Self::storage(error.to_string()).with_source(error)
    }
}

/// A [`StageError`] as plain data: what a worker sends, a run records and a person reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Who has to act.
    pub kind: ErrorKind,
    /// One sentence.
    pub message: String,
    /// Every single problem, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

impl ErrorReport {
    /// A report of the given kind that has only a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        StageError::new(kind, message).report()
    }
}
