//! Just enough JSON to write figures down; nothing is ever read back.

use std::fmt;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Table(Vec<(&'static str, Json)>),
}

impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<T: Into<Json>> FromIterator<T> for Json {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

impl fmt::Display for Json {
    /// Tables have a line for each entry, and so have lists, unless of numbers.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(formatter, 0)
    }
}

impl Json {
    fn write(&self, formatter: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        match self {
            Self::Number(number) if number.is_finite() => write!(formatter, "{number}"),
            Self::Number(_) => formatter.write_str("null"),
            Self::Text(text) => write_text(formatter, text),
            Self::List(values) if values.iter().all(|value| matches!(value, Self::Number(_))) => {
                let numbers: Vec<_> = values.iter().map(Self::to_string).collect();
                write!(formatter, "[{}]", numbers.join(", "))
            }
            Self::List(values) => {
                let entries = values.iter().map(|value| (None, value));
                write_lines(formatter, ["[", "]"], entries, depth)
            }
            Self::Table(entries) => {
                let entries = entries.iter().map(|(key, value)| (Some(*key), value));
                write_lines(formatter, ["{", "}"], entries, depth)
            }
        }
    }
}

fn write_lines<'a>(
    formatter: &mut fmt::Formatter<'_>,
    [open, close]: [&str; 2],
    entries: impl Iterator<Item = (Option<&'static str>, &'a Json)>,
    depth: usize,
) -> fmt::Result {
    formatter.write_str(open)?;
    for (number, (key, value)) in entries.enumerate() {
        let comma = if number > 0 { "," } else { "" };
        write!(formatter, "{comma}\n{:indent$}", "", indent = 2 * (depth + 1))?;
        if let Some(key) = key {
            write_text(formatter, key)?;
            formatter.write_str(": ")?;
        }
        value.write(formatter, depth + 1)?;
    }
    write!(formatter, "\n{:indent$}{close}", "", indent = 2 * depth)
}

fn write_text(formatter: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    formatter.write_str("\"")?;
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(formatter, "\\{letter}")?,
            control if control.is_control() => write!(formatter, "\\u{:04x}", u32::from(control))?,
            other => write!(formatter, "{other}")?,
        }
    }
    formatter.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(Json::from("a \"b\" \\ é\n").to_string(), r#""a \"b\" \\ é\u000a""#);
    }

    #[test]
    fn what_is_no_number_is_null() {
        let values: Json = [1.5, f64::NAN, 1e-7].into_iter().collect();
        assert_eq!(values.to_string(), "[1.5, null, 0.0000001]");
    }

    #[test]
    fn tables_nest() {
        let row = Json::Table(vec![("name", "x".into())]);
        let table = Json::Table(vec![("runs", [2.0].into_iter().collect()), ("rows", Json::List(vec![row]))]);
        let expected = "{\n  \"runs\": [2],\n  \"rows\": [\n    {\n      \"name\": \"x\"\n    }\n  ]\n}";
        assert_eq!(table.to_string(), expected);
    }
}
