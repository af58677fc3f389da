//! What a stage has made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the bytes of an output file are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputSource {
    /// In a file that the stage wrote and gives up.
    Written {
        /// The file.
        path: PathBuf,
    },
    /// In an input's file that is passed on as it is, without a copy.
    Forwarded {
        /// The input's file.
        path: PathBuf,
        /// BLAKE3 digest of its bytes, in hexadecimal.
        digest: String,
        /// Its length in bytes.
        bytes: u64,
    },
}

/// One file of an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its name within the artifact.
    pub name: String,
    /// Where its bytes are.
    pub source: OutputSource,
    /// Whether it is left out of the artifact's digest: logs, timings, whatever two runs of the same work differ in.
    pub incidental: bool,
}

/// What a stage has made at one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProducedArtifact {
    /// One artifact; in a per-case phase, this case's.
    One(Vec<OutputFile>),
    /// One artifact a case, made by a phase that runs as a whole.
    Items(BTreeMap<String, Vec<OutputFile>>),
}

/// Everything that a task has made, by port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The ports; an optional output that was not made is absent.
    pub outputs: BTreeMap<String, ProducedArtifact>,
    /// The largest memory of a GPU that the task's tensors took, in bytes, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_peak_memory_bytes: Option<u64>,
}
