//! Voxels that a file stores as text: numbers separated by blanks, or pairs of hexadecimal digits.
//!
//! Both are turned back into bytes while they are read, so that whoever reads voxels need not know.

use std::io::{self, BufReader, Bytes, ErrorKind, Read};

use super::voxels::StoredKind;

/// Longest number; digits beyond say nothing that a voxel can hold.
const LONGEST_NUMBER: usize = 400;

/// Numbers as the bytes of a kind, lowest byte first.
pub(super) struct Numbers {
    text: Bytes<BufReader<Box<dyn Read>>>,
    kind: StoredKind,
    /// Bytes of the last number that are still to be given.
    ready: Vec<u8>,
}

impl Numbers {
    pub(super) fn new(text: Box<dyn Read>, kind: StoredKind) -> Self {
        Self { text: BufReader::new(text).bytes(), kind, ready: Vec::new() }
    }

    /// Most bytes that a text of this length stands for: a digit and a blank for each number.
    pub(super) fn most_bytes(length: u64, kind: StoredKind) -> u64 {
        length.div_ceil(2).saturating_mul(kind.width() as u64)
    }

    /// What stands between two blanks or commas; empty at the end.
    fn word(&mut self) -> io::Result<String> {
        let mut word = String::new();
        for byte in &mut self.text {
            match byte? {
                b' ' | b'\t' | b'\r' | b'\n' | b',' if word.is_empty() => {}
                b' ' | b'\t' | b'\r' | b'\n' | b',' => break,
                byte => word.push(char::from(byte)),
            }
            if word.len() > LONGEST_NUMBER {
                return Err(invalid("numbers separated by blanks", &word[..20.min(word.len())]));
            }
        }
        Ok(word)
    }
}

impl Read for Numbers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() {
            let word = self.word()?;
            if word.is_empty() {
                return Ok(0);
            }
            self.ready = self.kind.parse(&word).ok_or_else(|| invalid("numbers of the declared type", &word))?;
        }
        let count = buffer.len().min(self.ready.len());
        for (target, byte) in buffer.iter_mut().zip(self.ready.drain(..count)) {
            *target = byte;
        }
        Ok(count)
    }
}

/// Pairs of hexadecimal digits as bytes; blanks anywhere are passed over.
pub(super) struct Digits(Bytes<BufReader<Box<dyn Read>>>);

impl Digits {
    pub(super) fn new(text: Box<dyn Read>) -> Self {
        Self(BufReader::new(text).bytes())
    }

    fn digit(&mut self) -> io::Result<Option<u8>> {
        for byte in &mut self.0 {
            let byte = byte?;
            if !byte.is_ascii_whitespace() {
                let digit = char::from(byte).to_digit(16);
                let digit = digit.ok_or_else(|| invalid("hexadecimal digits", &char::from(byte).to_string()))?;
                return Ok(Some(digit as u8));
            }
        }
        Ok(None)
    }
}

impl Read for Digits {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for (count, target) in buffer.iter_mut().enumerate() {
            match (self.digit()?, self.digit()?) {
                (Some(high), Some(low)) => *target = 16 * high + low,
                _ => return Ok(count),
            }
        }
        Ok(buffer.len())
    }
}

fn invalid(expected: &str, found: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("expected {expected}, found `{found}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &'static str, kind: StoredKind) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Numbers::new(Box::new(text.as_bytes()), kind).read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn numbers_become_bytes() {
        assert_eq!(numbers(" 1, -2\n300 ", StoredKind::I16).expect("numbers"), [1, 0, 254, 255, 44, 1]);
        assert_eq!(numbers("1.5", StoredKind::F32).expect("a number"), 1.5_f32.to_le_bytes());
    }

    #[test]
    fn a_number_that_its_type_cannot_hold_is_refused() {
        let error = numbers("1 256", StoredKind::U8).expect_err("too large");
        assert_eq!(error.to_string(), "expected numbers of the declared type, found `256`");
    }

    #[test]
    fn digits_become_bytes() {
        let mut bytes = Vec::new();
        Digits::new(Box::new(&b"0a F\nf"[..])).read_to_end(&mut bytes).expect("digits");
        assert_eq!(bytes, [10, 255]);
    }
}
