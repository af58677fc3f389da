//! Files that may be compressed, whatever their name says.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::ascii::{Digits, Numbers};
use super::voxels::StoredKind;

/// Bytes read from a file at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// Bytes that one compressed byte can stand for at most: DEFLATE copies up to 258 bytes with two bits.
const MOST_INFLATED: u64 = 1032;
/// First byte of every gzip member.
const GZIP: u8 = 0x1f;

/// Longest line of a text header; a longer one is no header.
const LONGEST_LINE: usize = 64 * 1024;

/// The content of a file.
pub(super) struct Source {
    content: Box<dyn Read>,
    remaining: u64,
}

/// How the voxels behind a text header are compressed, or written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Raw,
    Gzip,
    Zlib,
    /// Numbers separated by blanks.
    Numbers(StoredKind),
    /// Pairs of hexadecimal digits.
    Digits,
}

impl Source {
    /// Opens a file whose header says how it is compressed.
    pub(super) fn open_as_stored(path: &Path) -> io::Result<Self> {
        let (reader, remaining) = open(path)?;
        Ok(Self { content: Box::new(reader), remaining })
    }

    /// Opens a file, compressed by gzip or not.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (mut reader, length) = open(path)?;
        let compressed = reader.fill_buf()?.starts_with(&[GZIP, 0x8b]);
        Ok(if compressed {
            let content = Box::new(Members { current: Some(GzDecoder::new(reader)) });
            Self { content, remaining: length.saturating_mul(MOST_INFLATED) }
        } else {
            Self { content: Box::new(reader), remaining: length }
        })
    }

    /// Most bytes that can still be read; exact where the file is not compressed.
    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Passes over some bytes, or over all that are left if those are fewer.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        io::copy(&mut self.take(bytes), &mut io::sink()).map(drop)
    }

    /// Reads a line of a text header without its end; `None` at the end of the file.
    pub(super) fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            if self.read(&mut byte)? == 0 && line.is_empty() {
                return Ok(None);
            }
            if byte == [b'\n'] || byte == [0] {
                break;
            }
            line.push(byte[0]);
            byte = [0];
            if line.len() > LONGEST_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "expected a header of short lines"));
            }
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    /// What is left of the source, decompressed or as bytes.
    pub(super) fn decoded(self, encoding: Encoding) -> Self {
        let inflated = self.remaining.saturating_mul(MOST_INFLATED);
        match encoding {
            Encoding::Raw => self,
            Encoding::Gzip => Self { content: Box::new(MultiGzDecoder::new(self.content)), remaining: inflated },
            Encoding::Zlib => Self { content: Box::new(ZlibDecoder::new(self.content)), remaining: inflated },
            Encoding::Numbers(kind) => {
                let remaining = Numbers::most_bytes(self.remaining, kind);
                Self { content: Box::new(Numbers::new(self.content, kind)), remaining }
            }
            Encoding::Digits => {
                Self { content: Box::new(Digits::new(self.content)), remaining: self.remaining.div_ceil(2) }
            }
        }
    }

    /// Reads to the end, so that a checksum behind the last voxel is checked too.
    pub(super) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self.content, &mut io::sink()).map(drop)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.remaining = self.remaining.saturating_sub(count as u64);
        Ok(count)
    }
}

/// A file and its length.
fn open(path: &Path) -> io::Result<(BufReader<File>, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok((BufReader::with_capacity(BUFFER_BYTES, file), length))
}

/// The members of a gzip file, one after the other; what follows the last one (padding, mostly) is not read.
struct Members {
    current: Option<GzDecoder<BufReader<File>>>,
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.current {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.current = self.current.take().and_then(|ended| {
                let mut rest = ended.into_inner();
                let another = rest.fill_buf().is_ok_and(|bytes| bytes.first() == Some(&GZIP));
                another.then(|| GzDecoder::new(rest))
            });
        }
        Ok(0)
    }
}
