//! Manifests: which objects came out of the work that a key stands for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::{Digest, hash_bytes};
use crate::key::{Key, derive_digest};

/// The version of the manifest's format; a change of the format is a new version.
const MANIFEST_VERSION: u32 = 1;

/// The context of [`Artifact::digest`].
const ARTIFACT_CONTEXT: &str = "nnflow-artifact-v1";

/// The context of [`PortValue::digest`].
const PORT_CONTEXT: &str = "nnflow-port-v1";

/// What stands before and after the checksum at the end of a manifest's file.
const CHECKSUM_HEAD: &[u8] = b",\"checksum\":\"";
const CHECKSUM_TAIL: &[u8] = b"\"}\n";
const CHECKSUM_DIGITS: usize = 64;

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path within the artifact, with `/` between folders.
    pub name: String,
    /// The digest of its bytes, which is the object's name.
    pub digest: Digest,
    /// How many bytes it has.
    pub bytes: u64,
    /// Whether it is kept for people only (logs, curves). Such a file may differ from run to run and is
    /// no part of the artifact's digest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incidental: bool,
}

/// A set of files that belong together, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ArtifactFiles")]
pub struct Artifact {
    files: Vec<FileEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArtifactFiles {
    files: Vec<FileEntry>,
}

/// Why a list of files is not an artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// A name leads out of the artifact's folder, or is not a plain relative path.
    #[error("`{}` is not the name of a file in an artifact: expected a relative path without `.`, `..` or `\\`", name.escape_debug())]
    Unsafe {
        /// The name.
        name: String,
    },
    /// Two files have one name.
    #[error("an artifact has two files with the name `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
}

/// What an output port holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortValue {
    /// One artifact.
    One(Artifact),
    /// One artifact for each item, for instance for each case.
    Items(BTreeMap<String, Artifact>),
}

/// What came out of a piece of work, and the readable record of what went into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    key: Key,
    record: Value,
    /// What each output port holds.
    pub outputs: BTreeMap<String, PortValue>,
    /// Whether the objects are in the store. If not, only the digests are known: the bytes went straight
    /// to the next stage, and whoever needs them again has to make them again.
    pub stored: bool,
    /// What the work took (wall time, processor time, peak memory); the store does not look inside.
    pub stats: Value,
    /// What did the work (program, versions, host); the store does not look inside.
    pub producer: Value,
}

/// Why the bytes of a file are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file does not end as a manifest does; most often it was cut short.
    #[error("the manifest of {bytes} bytes does not end with a checksum")]
    CutShort {
        /// Length of the file.
        bytes: usize,
    },
    /// The checksum is not that of the bytes before it.
    #[error("the checksum of the manifest is wrong")]
    Checksum,
    /// The text is no manifest of this version.
    #[error("the manifest cannot be read: {message}")]
    Format {
        /// What the JSON parser said.
        message: String,
    },
    /// The manifest has another version.
    #[error("the manifest has version {found}, expected {MANIFEST_VERSION}")]
    Version {
        /// The version that it has.
        found: u32,
    },
}

impl Artifact {
    /// An artifact of these files, in any order.
    ///
    /// # Errors
    /// [`NameError`] if a name could lead out of a folder or stands twice.
    pub fn new(mut files: Vec<FileEntry>) -> Result<Self, NameError> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(file) = files.iter().find(|file| !is_safe_name(&file.name)) {
            return Err(NameError::Unsafe { name: file.name.clone() });
        }
        if let Some(pair) = files.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(NameError::Twice { name: pair[0].name.clone() });
        }
        Ok(Self { files })
    }

    /// The files, sorted by name.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The file with a name.
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        let found = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        self.files.get(found)
    }

    /// The digest of the names and contents of all files that are not incidental.
    pub fn digest(&self) -> Digest {
        let essential = self.files.iter().filter(|file| !file.incidental);
        let pairs: Vec<Value> = essential.map(|file| json!([file.name, file.digest])).collect();
        derive_digest(ARTIFACT_CONTEXT, &Value::Array(pairs))
    }
}

impl TryFrom<ArtifactFiles> for Artifact {
    type Error = NameError;

    fn try_from(raw: ArtifactFiles) -> Result<Self, NameError> {
        Self::new(raw.files)
    }
}

impl PortValue {
    /// The digest of the artifact, or of the items' names and artifacts; one artifact and a single item
    /// that holds it have different digests.
    pub fn digest(&self) -> Digest {
        let value = match self {
            Self::One(artifact) => json!({ "one": artifact.digest() }),
            Self::Items(items) => {
                let items = items.iter().map(|(name, artifact)| (name.clone(), json!(artifact.digest())));
                json!({ "items": Value::Object(items.collect()) })
            }
        };
        derive_digest(PORT_CONTEXT, &value)
    }

    /// The artifacts, each with the name of its item if it has one.
    pub fn artifacts(&self) -> impl Iterator<Item = (Option<&str>, &Artifact)> {
        let (one, items) = match self {
            Self::One(artifact) => (Some((None, artifact)), None),
            Self::Items(items) => (None, Some(items)),
        };
        one.into_iter().chain(items.into_iter().flatten().map(|(name, artifact)| (Some(name.as_str()), artifact)))
    }
}

impl Manifest {
    /// A manifest of stored outputs; its key is that of the record, so the two can never disagree.
    pub fn new(record: Value, outputs: BTreeMap<String, PortValue>) -> Self {
        Self {
            version: MANIFEST_VERSION,
            key: Key::of(&record),
            record,
            outputs,
            stored: true,
            stats: Value::Null,
            producer: Value::Null,
        }
    }

    /// The same manifest for outputs whose bytes are not kept.
    #[must_use]
    pub fn transient(self) -> Self {
        Self { stored: false, ..self }
    }

    /// The key of the work.
    pub fn key(&self) -> Key {
        self.key
    }

    /// All that the work read, in readable form: the key's pre-image.
    pub fn record(&self) -> &Value {
        &self.record
    }

    /// Whether the key is that of the record.
    pub fn is_consistent(&self) -> bool {
        Key::of(&self.record) == self.key
    }

    /// Every file of every output.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let artifacts = self.outputs.values().flat_map(PortValue::artifacts);
        artifacts.flat_map(|(_, artifact)| artifact.files())
    }

    /// The files whose bytes must be in the store: all of them, or none if the outputs are transient.
    pub fn objects(&self) -> impl Iterator<Item = &FileEntry> {
        self.files().filter(|_| self.stored)
    }

    /// The text of the manifest's file: one line of JSON that ends with a checksum of all before it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("invariant: a manifest is made of JSON values and texts");
        bytes.pop();
        let checksum = hash_bytes(&bytes).to_hex();
        bytes.extend([CHECKSUM_HEAD, checksum.as_bytes(), CHECKSUM_TAIL].concat());
        bytes
    }

    /// Reads the text of a manifest's file.
    ///
    /// # Errors
    /// [`ManifestError`] if the text was cut short or altered, or has another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut text = checked_text(bytes)?.to_vec();
        text.push(b'}');
        let format = |error: serde_json::Error| ManifestError::Format { message: error.to_string() };
        serde_json::from_slice(&text)
            .map_err(|error| {
                // A manifest of another version may fail in any way; its version is the better explanation.
                match serde_json::from_slice::<Value>(&text).ok().and_then(|value| value.get("version")?.as_u64()) {
                    Some(found) if found != u64::from(MANIFEST_VERSION) => {
                        ManifestError::Version { found: u32::try_from(found).unwrap_or(u32::MAX) }
                    }
                    _ => format(error),
                }
            })
            .and_then(|manifest: Self| match manifest.version {
                MANIFEST_VERSION => Ok(manifest),
                found => Err(ManifestError::Version { found }),
            })
    }
}

/// The bytes before the checksum, if the checksum is theirs.
fn checked_text(bytes: &[u8]) -> Result<&[u8], ManifestError> {
    let cut_short = ManifestError::CutShort { bytes: bytes.len() };
    let Some(rest) = bytes.strip_suffix(CHECKSUM_TAIL) else { return Err(cut_short) };
    let Some((rest, digits)) = rest.split_last_chunk::<CHECKSUM_DIGITS>() else { return Err(cut_short) };
    let Some(text) = rest.strip_suffix(CHECKSUM_HEAD) else { return Err(cut_short) };
    if hash_bytes(text).to_hex().as_bytes() != digits {
        return Err(ManifestError::Checksum);
    }
    Ok(text)
}

fn is_safe_name(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.split('/').all(plain) && !name.contains(['\\', '\0'])
}

#[cfg(test)]
mod tests;
