//! Keys: what a piece of work is called by, made of everything that it reads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical::canonical_json;
use crate::digest::{Digest, DigestError};

/// The context that separates keys from every other use of BLAKE3, and the version of their definition.
pub const KEY_CONTEXT: &str = "nnflow-key-v1";

/// The name of a piece of work: the digest of a record of everything that it reads.
///
/// A type of its own, because the digest of a file and the key of a piece of work must not be mixed up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Digest);

impl Key {
    /// The key of a record; two records have one key exactly if their [`canonical_json`] is the same.
    pub fn of(record: &Value) -> Self {
        Self(derive_digest(KEY_CONTEXT, record))
    }

    /// The key with this digest, for instance one read from a file.
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest that the key is.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }

    /// The first 12 digits, for people; never to be parsed back.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({})", self.0)
    }
}

impl FromStr for Key {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

/// The digest of a JSON value's canonical text, in the key-derivation mode of BLAKE3.
///
/// `context` names the kind of thing that is hashed, with a version; values of different kinds can then
/// never have the same digest, even if they have the same text.
pub fn derive_digest(context: &str, value: &Value) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(canonical_json(value).as_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_key_of_a_record_never_changes_between_releases() {
        // Computed with the Python package `blake3` 1.0.11: `blake3(b'{"spacing":[1,0.8],"stage":"resample"}',
        // derive_key_context="nnflow-key-v1")`.
        let key = Key::of(&json!({ "stage": "resample", "spacing": [1.0, 0.8] }));
        assert_eq!(key.to_string(), "8c7d51527b89d45ec325c59c741ffa42ae4f4431ca3cafa898b53a19f0eb84c5");
    }

    #[test]
    fn the_context_is_part_of_a_digest() {
        assert_ne!(derive_digest("nnflow-key-v1", &json!(1)), derive_digest("nnflow-key-v2", &json!(1)));
    }
}
