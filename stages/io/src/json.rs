//! JSON as Python reads and writes it.
//!
//! Python's `json` writes a float that is not a number as bare `NaN`, `Infinity` or `-Infinity`, which is no JSON, and
//! nnU-Net's `summary.json` has such values wherever a structure is absent from a case. Reading turns these words into
//! marked strings before the text is parsed, writing turns the marked strings back; [`float`] is how a field of a type
//! takes part, and a [`serde_json::Value`] carries the marks unharmed.

use std::fmt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::PrettyFormatter;

use crate::atomic;

/// First character of the strings that stand for bare words; a private-use character, so that no text has it by chance.
const MARK: char = '\u{E000}';
/// Python's three words, the longest match first.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// A JSON file that could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The file could not be opened or read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// The text is no JSON, or not what the reader expects.
    #[error("cannot use `{}` (line {line}, column {column}): {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 where the parser knows none.
        line: usize,
        /// Column, from 1; bare words earlier in the same line shift it.
        column: usize,
        /// What was expected and what was found.
        message: String,
    },
}

/// Reads a file.
///
/// # Errors
/// [`JsonError`] if the file cannot be read or does not hold a `T`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, JsonError> {
    let bytes = fs::read(path).map_err(|source| JsonError::Read { path: path.to_path_buf(), source })?;
    from_slice(&bytes, path)
}

/// Parses the content of the file `name`, which only errors use.
///
/// # Errors
/// [`JsonError::Content`] if it does not hold a `T`.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], name: &Path) -> Result<T, JsonError> {
    let content = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(&mark_bare_words(content)).map_err(|error| JsonError::Content {
        path: name.to_path_buf(),
        line: error.line(),
        column: error.column(),
        message: without_position(&error),
    })
}

/// The text of `value` with four spaces of indentation and a final line end.
///
/// # Errors
/// Whatever the value's own serialisation refuses, such as a map whose keys are no strings.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer)?;
    text.push(b'\n');
    Ok(unmark_bare_words(&text))
}

/// Writes `value` to `path`, whole or not at all.
///
/// # Errors
/// [`atomic::WriteError`] if the value cannot be serialised or the file system fails.
pub fn write<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), atomic::WriteError> {
    let text = to_vec(value).map_err(|error| atomic::WriteError { path: path.to_path_buf(), source: error.into() })?;
    atomic::write(path, &text)
}

/// For `#[serde(with = "nnflow_io::json::float")]` on an `f64` that may be `NaN` or infinite.
pub mod float {
    use super::{MARK, Visitor};
    use serde::{Deserializer, Serializer};

    /// Writes a finite number as a number, another one as Python's bare word.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            return serializer.serialize_f64(*value);
        }
        let word = match (value.is_nan(), *value > 0.0) {
            (true, _) => "NaN",
            (false, true) => "Infinity",
            (false, false) => "-Infinity",
        };
        serializer.collect_str(&format_args!("{MARK}{word}"))
    }

    /// Reads a number or one of Python's bare words.
    ///
    /// # Errors
    /// Anything else.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl serde::de::Visitor<'_> for Visitor {
    type Value = f64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, NaN, Infinity or -Infinity")
    }

    fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<f64, E> {
        match value.strip_prefix(MARK) {
            Some("NaN") => Ok(f64::NAN),
            Some("Infinity") => Ok(f64::INFINITY),
            Some("-Infinity") => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(value), &self)),
        }
    }
}

/// Replaces each bare word outside a string by the string that stands for it.
fn mark_bare_words(text: &[u8]) -> Vec<u8> {
    let mut marked = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some((&byte, tail)) = rest.split_first() {
        let word = WORDS.into_iter().find(|word| !in_string && rest.starts_with(word.as_bytes()));
        if let Some(word) = word {
            marked.extend_from_slice(format!("\"{MARK}{word}\"").as_bytes());
            rest = &rest[word.len()..];
            continue;
        }
        marked.push(byte);
        rest = tail;
        match (byte, tail.split_first()) {
            (b'\\', Some((&escaped, tail))) if in_string => {
                marked.push(escaped);
                rest = tail;
            }
            (b'"', _) => in_string = !in_string,
            _ => {}
        }
    }
    marked
}

/// The inverse of [`mark_bare_words`] on text that this module has serialised.
fn unmark_bare_words(text: &[u8]) -> Vec<u8> {
    let prefix = format!("\"{MARK}");
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let word = rest.strip_prefix(prefix.as_bytes()).and_then(|after| {
            WORDS.into_iter().find(|word| after.starts_with(word.as_bytes()) && after.get(word.len()) == Some(&b'"'))
        });
        match word {
            Some(word) => {
                plain.extend_from_slice(word.as_bytes());
                rest = &rest[prefix.len() + word.len() + 1..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

/// The parser's message without its own " at line 1 column 2", which [`JsonError`] says where a reader looks first.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(position) => message[..position].to_owned(),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::Value;

    #[derive(Debug, Serialize, Deserialize)]
    struct Number {
        #[serde(with = "float")]
        value: f64,
    }

    fn parse(text: &str) -> Result<Number, JsonError> {
        from_slice(text.as_bytes(), Path::new("number.json"))
    }

    fn print(value: f64) -> String {
        String::from_utf8(to_vec(&Number { value }).expect("serialises")).expect("UTF-8")
    }

    #[test]
    fn bare_nan_is_read() {
        assert!(parse(r#"{"value": NaN}"#).expect("parses").value.is_nan());
    }

    #[test]
    fn bare_negative_infinity_is_read() {
        assert_eq!(parse(r#"{"value":-Infinity}"#).expect("parses").value, f64::NEG_INFINITY);
    }

    #[test]
    fn an_integer_is_read_as_a_float() {
        assert_eq!(parse(r#"{"value": -3}"#).expect("parses").value, -3.0);
    }

    #[test]
    fn floats_are_read_to_the_last_bit() {
        assert_eq!(parse(r#"{"value": 249.66666666666666}"#).expect("parses").value, 249.666_666_666_666_66);
    }

    #[test]
    fn nan_is_written_bare() {
        assert_eq!(print(f64::NAN), "{\n    \"value\": NaN\n}\n");
    }

    #[test]
    fn infinity_is_written_bare() {
        assert_eq!(print(f64::INFINITY), "{\n    \"value\": Infinity\n}\n");
    }

    #[test]
    fn words_inside_strings_stay() {
        let text = r#"{"a \" NaN": "Infinity \\", "b": [NaN, 1]}"#;
        let value: Value = from_slice(text.as_bytes(), Path::new("v.json")).expect("parses");
        assert_eq!(value["a \" NaN"], "Infinity \\");
    }

    #[test]
    fn a_tree_of_values_keeps_bare_words() {
        let value: Value = from_slice(b"[NaN, -Infinity, \"NaN\"]", Path::new("v.json")).expect("parses");
        let text = String::from_utf8(to_vec(&value).expect("serialises")).expect("UTF-8");
        assert_eq!(text, "[\n    NaN,\n    -Infinity,\n    \"NaN\"\n]\n");
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(parse("\u{FEFF}{\"value\": 1.5}").expect("parses").value, 1.5);
    }

    #[test]
    fn an_error_says_where_and_what() {
        let error = parse("{\n \"value\": \"x\"}").expect_err("a string is no number");
        assert_eq!(
            error.to_string(),
            "cannot use `number.json` (line 2, column 13): \
             invalid value: string \"x\", expected a number, NaN, Infinity or -Infinity"
        );
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        arbtest::arbtest(|source| {
            let bytes: Vec<u8> = source.arbitrary()?;
            if let Ok(value) = from_slice::<Value>(&bytes, Path::new("fuzz.json")) {
                to_vec(&value).expect("what was read can be written");
            }
            Ok(())
        });
    }
}
