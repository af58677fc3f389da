//! Writing values as TOML on one line.

use serde_json::Value as Json;

use super::tree::{Value, ValueKind};

/// A key, in quotes where it needs them.
pub(super) fn key(name: &str) -> String {
    if super::read::is_name(name) { name.to_owned() } else { quoted(name) }
}

/// A text in quotes, on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 2);
    written.push('"');
    for character in text.chars() {
        match character {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\t' => written.push_str("\\t"),
            '\r' => written.push_str("\\r"),
            control if control.is_control() => written.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => written.push(other),
        }
    }
    written.push('"');
    written
}

/// A value of the tree.
pub(super) fn value(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => quoted(text),
        ValueKind::Integer(number) => number.to_string(),
        ValueKind::Float(number) => float(*number),
        ValueKind::Boolean(boolean) => boolean.to_string(),
        ValueKind::Datetime(datetime) => datetime.clone(),
        ValueKind::Array(values) => list(values.iter().map(self::value)),
        ValueKind::Table(table) => {
            inline_table(table.entries.iter().map(|entry| (entry.key.as_str(), self::value(&entry.value))))
        }
    }
}

/// A value of a parameter; what reaches a stage as null is written as `"none"`.
pub(super) fn json(value: &Json) -> String {
    match value {
        Json::Null => quoted("none"),
        Json::Bool(boolean) => boolean.to_string(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(number)) => float(number),
            (None, None) => number.to_string(),
        },
        Json::String(text) => quoted(text),
        Json::Array(values) => list(values.iter().map(json)),
        Json::Object(table) => inline_table(table.iter().map(|(key, value)| (key.as_str(), json(value)))),
    }
}

/// A number with a point or an exponent, so that it is not read as a whole one.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".to_owned() } else { "-inf".to_owned() };
    }
    format!("{number:?}")
}

pub(super) fn list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}

pub(super) fn inline_table<'a>(entries: impl Iterator<Item = (&'a str, String)>) -> String {
    let entries: Vec<_> = entries.map(|(name, value)| format!("{} = {value}", key(name))).collect();
    if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
}
