//! What worker and processes say to each other: a head in JSON and a body of bytes, each with its length before it.

use std::io::{Error, ErrorKind, Read, Result, Write};

use nnflow_stage::{ErrorReport, Outcome, StageEvent, Task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the worker says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToRank {
    /// The first word: train.
    Start {
        /// The process' number, from 0.
        rank: usize,
        /// How many there are.
        ranks: usize,
        /// The task, with what this process may use of the machine.
        task: Box<Task>,
    },
    /// All have given something. The body has it all, in the order of the processes.
    Given {
        /// Whether the run was asked to stop; all processes hear the same at the same place.
        cancelled: bool,
        /// How many bytes each has given.
        lengths: Vec<usize>,
    },
}

/// What a process says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromRank {
    /// The body is for all processes, and what they give is wanted.
    Give,
    /// Something for the node's log, or how far the training has come.
    Event(StageEvent),
    /// The training has ended well.
    Done(Outcome),
    /// It has failed.
    Failed(ErrorReport),
}

pub(super) fn write(stream: &mut impl Write, head: &impl Serialize, body: &[&[u8]]) -> Result<()> {
    let head = serde_json::to_vec(head)?;
    let length: usize = body.iter().map(|part| part.len()).sum();
    for length in [head.len(), length] {
        stream.write_all(&(length as u64).to_le_bytes())?;
    }
    stream.write_all(&head)?;
    body.iter().try_for_each(|part| stream.write_all(part))?;
    stream.flush()
}

/// The next message; none where the other side has ended.
pub(super) fn read<H: DeserializeOwned>(stream: &mut impl Read) -> Result<Option<(H, Vec<u8>)>> {
    let Some(head_length) = read_length(stream)? else { return Ok(None) };
    let length = read_length(stream)?.ok_or(ErrorKind::UnexpectedEof)?;
    let head = read_bytes(stream, head_length)?;
    Ok(Some((serde_json::from_slice(&head)?, read_bytes(stream, length)?)))
}

fn read_length(stream: &mut impl Read) -> Result<Option<u64>> {
    let mut bytes = Vec::with_capacity(8);
    stream.take(8).read_to_end(&mut bytes)?;
    match <[u8; 8]>::try_from(bytes.as_slice()) {
        Ok(bytes) => Ok(Some(u64::from_le_bytes(bytes))),
        Err(_) if bytes.is_empty() => Ok(None),
        Err(_) => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// So many bytes; memory is taken as they come, whatever the length says.
fn read_bytes(stream: &mut impl Read, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(Error::from(ErrorKind::UnexpectedEof)) }
}

/// The parts of a body.
pub(super) fn parts(body: &[u8], lengths: &[usize]) -> Result<Vec<Vec<u8>>> {
    let mut rest = body;
    let mut parts = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (part, after) = rest.split_at_checked(*length).ok_or(ErrorKind::UnexpectedEof)?;
        parts.push(part.to_vec());
        rest = after;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let mut bytes = Vec::new();
        let head = ToRank::Given { cancelled: true, lengths: vec![2, 0, 3] };
        write(&mut bytes, &head, &[b"ab", b"", b"\ncd"]).expect("memory takes all");
        write(&mut bytes, &head, &[]).expect("memory takes all");
        let mut stream = bytes.as_slice();
        let first = read::<ToRank>(&mut stream).expect("whole").expect("there");
        assert_eq!(first, (head, b"ab\ncd".to_vec()));
        assert!(read::<ToRank>(&mut stream).expect("whole").is_some_and(|(_, body)| body.is_empty()));
        assert!(read::<ToRank>(&mut stream).expect("the end").is_none());
    }

    #[test]
    fn a_message_cut_short_is_an_error() {
        let mut bytes = Vec::new();
        write(&mut bytes, &FromRank::Give, &[b"body"]).expect("memory takes all");
        for length in 1..bytes.len() {
            assert!(read::<FromRank>(&mut &bytes[..length]).is_err(), "{length} bytes of {}", bytes.len());
        }
    }

    #[test]
    fn a_length_that_nobody_has_sent_takes_no_memory() {
        let bytes = [u64::MAX.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
        assert!(read::<FromRank>(&mut bytes.as_slice()).is_err());
    }

    #[test]
    fn a_body_has_its_parts() {
        assert_eq!(parts(b"abc", &[1, 0, 2]).expect("3 bytes"), [b"a".to_vec(), Vec::new(), b"bc".to_vec()]);
        assert!(parts(b"abc", &[2, 2]).is_err());
    }
}
