//! Digests: what objects, artifacts and keys are named by.
//!
//! BLAKE3 with 256 bits: it is as safe as SHA-256 and fast enough that content, not a modification time,
//! can decide whether a file of gigabytes changed.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{IoContext, StoreError};

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// Files up to this many bytes are hashed by one thread: splitting them costs more than it saves
/// (BLAKE3's own advice for `update_rayon`).
const PARALLEL_FROM_BYTES: u64 = 128 * 1024;

/// Bytes that are read at a time from a large file: enough for every thread to have a share worth taking, and
/// little enough to stay in the processor's cache between reading and hashing.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// A BLAKE3 digest of 256 bits; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; DIGEST_BYTES]);

/// Why a text is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The text has the wrong length.
    #[error("a digest has 64 hexadecimal digits, this has {found} bytes")]
    Length {
        /// Bytes of the text.
        found: usize,
    },
    /// The text has a character that is not a lower-case hexadecimal digit.
    #[error(
        "a digest is made of the digits 0-9 and a-f, this has `{}` at byte {position}",
        found.escape_default()
    )]
    Digit {
        /// Byte of the text where the character stands.
        position: usize,
        /// The character.
        found: char,
    },
}

impl Digest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// The first 12 digits, for people; never to be parsed back.
    pub fn short(&self) -> String {
        let mut hex = self.to_hex();
        hex.truncate(12);
        hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({})", self.to_hex())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Upper-case digits are refused, so that a digest has one spelling and one file name.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        if let Some((position, found)) = text.char_indices().find(|(_, c)| !matches!(c, '0'..='9' | 'a'..='f')) {
            return Err(DigestError::Digit { position, found });
        }
        let digits: &[u8; 2 * DIGEST_BYTES] =
            text.as_bytes().try_into().map_err(|_| DigestError::Length { found: text.len() })?;
        let value = |digit: u8| if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 };
        let mut bytes = [0; DIGEST_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = value(pair[0]) << 4 | value(pair[1]);
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_hex()
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

/// The digest of some bytes.
pub fn hash_bytes(bytes: &[u8]) -> Digest {
    blake3::hash(bytes).into()
}

/// The digest of a file's content and its number of bytes.
///
/// Large files are hashed by all threads of the pool. They are read rather than memory-mapped: a mapped
/// file that someone truncates meanwhile kills the process, network disks fault pages slowly, and on a local
/// disk reading took no longer than mapping (1 GiB in the page cache, 2 threads: 0.33 s against 0.60 s).
///
/// # Errors
/// [`StoreError::Io`] if the file cannot be opened or read.
pub fn hash_file(path: &Path) -> Result<(Digest, u64), StoreError> {
    let mut file = File::open(path).at("open", path)?;
    let expected = file.metadata().at("look at", path)?.len();
    hash_reader(&mut file, expected).at("read", path)
}

/// The digest and length of all that a reader gives; `expected` bytes only steer how it is read.
pub(crate) fn hash_reader(reader: &mut impl Read, expected: u64) -> io::Result<(Digest, u64)> {
    let parallel = expected > PARALLEL_FROM_BYTES;
    // One byte more than expected shows the end of the file without a second round of the loop.
    let capacity = usize::try_from(expected).unwrap_or(READ_BYTES).saturating_add(1).min(READ_BYTES);
    let mut buffer = vec![0; capacity.max(4096)];
    let mut hasher = blake3::Hasher::new();
    loop {
        let filled = fill(reader, &mut buffer)?;
        if parallel {
            hasher.update_rayon(&buffer[..filled]);
        } else {
            hasher.update(&buffer[..filled]);
        }
        if filled < buffer.len() {
            return Ok((hasher.finalize().into(), hasher.count()));
        }
    }
}

/// Reads until the buffer is full or the reader ends; returns the bytes read.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest of no bytes at all, from the test vectors of the BLAKE3 specification.
    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    /// The digest of the 102,400 bytes 0, 1, … 250, 0, 1, … of the BLAKE3 specification's test vectors.
    const CYCLE_102400: &str = "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085";

    fn cycle(length: usize) -> Vec<u8> {
        (0..251).cycle().take(length).collect()
    }

    #[test]
    fn empty_input_has_the_digest_of_the_specification() {
        assert_eq!(hash_bytes(b"").to_string(), EMPTY);
    }

    #[test]
    fn long_input_has_the_digest_of_the_specification() {
        assert_eq!(hash_bytes(&cycle(102_400)).to_string(), CYCLE_102400);
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes_at_every_size_near_a_boundary() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, 4095, 4096, 131_072, 131_073, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 2 * READ_BYTES] {
            let path = folder.path().join("file");
            std::fs::write(&path, cycle(size)).unwrap();
            assert_eq!(hash_file(&path).unwrap(), (hash_bytes(&cycle(size)), size as u64), "{size} bytes");
        }
    }

    #[test]
    fn a_wrong_expectation_of_the_length_changes_nothing() {
        let bytes = cycle(200_000);
        for expected in [0, 1, 199_999, 10_000_000] {
            let found = hash_reader(&mut bytes.as_slice(), expected).unwrap();
            assert_eq!(found, (hash_bytes(&bytes), 200_000), "expected {expected} bytes");
        }
    }

    #[test]
    fn hexadecimal_text_round_trips() {
        arbtest::arbtest(|u| {
            let digest = Digest::from_bytes(u.arbitrary()?);
            assert_eq!(digest.to_hex().parse(), Ok(digest));
            Ok(())
        });
    }

    #[test]
    fn a_short_text_is_refused_with_its_length() {
        assert_eq!("abcd".parse::<Digest>(), Err(DigestError::Length { found: 4 }));
    }

    #[test]
    fn an_upper_case_digit_is_refused_with_its_place() {
        let text = EMPTY.replacen('f', "F", 1);
        assert_eq!(text.parse::<Digest>(), Err(DigestError::Digit { position: 1, found: 'F' }));
    }

    #[test]
    fn a_missing_file_is_named_in_the_error() {
        let error = hash_file(Path::new("/nowhere/image.nii.gz")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open `/nowhere/image.nii.gz`");
    }
}
