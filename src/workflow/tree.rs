//! TOML as a tree in which every key and value knows its place.
//!
//! Types of serde that keep spans fail inside tagged and flattened types, and give up at the first error. This tree is
//! walked by hand instead, so that everything that is wrong with a file is found at once.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Source};

/// A value and the place that says it.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// The value.
    pub kind: ValueKind,
    /// The place.
    pub place: Place,
}

/// A value of TOML.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueKind {
    /// A text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date or a time, as it is written.
    Datetime(String),
    /// A list.
    Array(Vec<Value>),
    /// A table.
    Table(Table),
}

/// A table: its entries in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// The entries.
    pub entries: Vec<Entry>,
}

/// An entry of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The place of the key.
    pub key_place: Place,
    /// The value.
    pub value: Value,
}

impl Value {
    /// What was found, in words, for the second half of an error.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.kind {
            ValueKind::String(text) => format!("the text \"{}\"", shortened(text)),
            ValueKind::Integer(number) => format!("the whole number {number}"),
            ValueKind::Float(number) => format!("the number {number}"),
            ValueKind::Boolean(boolean) => format!("`{boolean}`"),
            ValueKind::Datetime(datetime) => format!("the date {datetime}"),
            ValueKind::Array(values) if values.is_empty() => "an empty list".to_owned(),
            ValueKind::Array(_) => "a list".to_owned(),
            ValueKind::Table(_) => "a table".to_owned(),
        }
    }

    /// The value as JSON; a number that is not finite, which JSON does not have, as a text.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.kind {
            ValueKind::String(text) | ValueKind::Datetime(text) => text.as_str().into(),
            ValueKind::Integer(number) => (*number).into(),
            ValueKind::Float(number) => {
                serde_json::Number::from_f64(*number).map_or_else(|| number.to_string().into(), Into::into)
            }
            ValueKind::Boolean(boolean) => (*boolean).into(),
            ValueKind::Array(values) => values.iter().map(Self::to_json).collect(),
            ValueKind::Table(table) => serde_json::Value::Object(table.to_json()),
        }
    }

    /// The table, if it is one.
    #[must_use]
    pub fn as_table(&self) -> Option<&Table> {
        match &self.kind {
            ValueKind::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// At most 60 characters of a text, so that an error stays readable.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Table {
    /// The entry of this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The table as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        self.entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Entry> {
        let position = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(position))
    }
}

/// More syntax errors than this say no more than the first few: the file is something else.
const MOST_SYNTAX_ERRORS: usize = 8;

/// Parses a text.
///
/// # Errors
/// Every syntax error.
pub(super) fn parse(source: &Arc<Source>) -> Result<Table, Diagnostics> {
    let (parsed, errors) = DeTable::parse_recoverable(source.text());
    let mut diagnostics = Diagnostics::new();
    for error in errors.iter().take(MOST_SYNTAX_ERRORS) {
        diagnostics.push(syntax_error(source, error));
    }
    if errors.len() > MOST_SYNTAX_ERRORS {
        let more = errors.len() - MOST_SYNTAX_ERRORS;
        diagnostics.push(Diagnostic::error(format!("`{}` has {more} more syntax errors", source.name())));
    }
    if let (false, Some(hint)) = (errors.is_empty(), other_format(source.text())) {
        diagnostics.push(Diagnostic::error(format!("`{}` is not TOML", source.name())).hint(hint));
    }
    let table = table_of(source, parsed.get_ref(), &mut diagnostics);
    if diagnostics.is_empty() { Ok(table) } else { Err(diagnostics) }
}

fn syntax_error(source: &Arc<Source>, error: &toml::de::Error) -> Diagnostic {
    let message = error.message();
    let (problem, detail) = message.split_once(", ").unwrap_or((message, ""));
    let place = Place::new(source, error.span().unwrap_or_default());
    Diagnostic::error(format!("this is not TOML: {problem}")).at(&place, detail)
}

fn other_format(text: &str) -> Option<String> {
    let start = text.trim_start();
    let format = if start.starts_with('{') {
        "JSON"
    } else if start.starts_with("---") || start.starts_with("%YAML") {
        "YAML"
    } else if start.starts_with('<') {
        "XML or HTML"
    } else {
        return None;
    };
    Some(format!("it looks like {format}; a workflow is TOML, with lines such as `extends = \"nnunet-v2\"`"))
}

fn table_of(source: &Arc<Source>, table: &DeTable<'_>, diagnostics: &mut Diagnostics) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_place: Place::new(source, key.span()),
            value: value_of(source, value, diagnostics),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_place.span().start);
    Table { entries }
}

fn value_of(source: &Arc<Source>, value: &Spanned<DeValue<'_>>, diagnostics: &mut Diagnostics) -> Value {
    let place = Place::new(source, value.span());
    let kind = match value.get_ref() {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => ValueKind::Integer(number),
            Err(_) => {
                let message = format!("`{}` is too large for a whole number", shortened(place.text()));
                diagnostics.push(Diagnostic::error(message).at(&place, "expected at most 64 bits"));
                ValueKind::Integer(0)
            }
        },
        DeValue::Float(float) => ValueKind::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => ValueKind::Boolean(*boolean),
        DeValue::Datetime(datetime) => ValueKind::Datetime(datetime.to_string()),
        DeValue::Array(values) => {
            ValueKind::Array(values.iter().map(|value| value_of(source, value, diagnostics)).collect())
        }
        DeValue::Table(table) => ValueKind::Table(table_of(source, table, diagnostics)),
    };
    Value { kind, place }
}
