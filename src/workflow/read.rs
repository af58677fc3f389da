//! Reading typed values out of the tree, with an error that says what was expected.

use super::tree::{Entry, Table, Value, ValueKind, shortened};
use crate::diagnostic::{Diagnostic, Diagnostics, Located, suggestion};

/// Takes the keys of a table one by one; whatever is left in the end is unknown.
pub(super) struct Fields<'t> {
    table: &'t Table,
    path: String,
    asked: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    /// The keys of the table at `path`, which is empty for the whole file.
    pub(super) fn new(table: &'t Table, path: impl Into<String>) -> Self {
        Self { table, path: path.into(), asked: Vec::new() }
    }

    /// The entry of this key, if there is one; the key counts as known from now on.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'t Entry> {
        self.asked.push(key);
        self.table.get(key)
    }

    /// The value of this key, if there is one, as `read` takes it.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
        read: impl FnOnce(&Value, &str) -> Result<T, Diagnostic>,
    ) -> Option<T> {
        let entry = self.take(key)?;
        read(&entry.value, &joined(&self.path, key)).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()
    }

    /// Reports every key that nobody took.
    pub(super) fn finish(self, diagnostics: &mut Diagnostics) {
        for entry in &self.table.entries {
            if !self.asked.contains(&entry.key.as_str()) {
                diagnostics.push(self.unknown(entry));
            }
        }
    }

    fn unknown(&self, entry: &Entry) -> Diagnostic {
        let whole = if self.path.is_empty() { "a workflow".to_owned() } else { format!("`{}`", self.path) };
        Diagnostic::error(format!("{whole} has no key `{}`", shortened(&entry.key)))
            .at(&entry.key_place, "unknown key")
            .maybe_hint(suggestion(&entry.key, self.asked.iter().copied()))
    }
}

/// `path.key`, or only the key at the top.
pub(super) fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The error that `path` is not what is expected there.
pub(super) fn mismatch(value: &Value, path: &str, expected: &str) -> Diagnostic {
    Diagnostic::error(format!("`{path}` must be {expected}, but is {}", value.describe()))
        .at(&value.place, format!("expected {expected}"))
}

pub(super) fn text(value: &Value, path: &str) -> Result<Located<String>, Diagnostic> {
    match &value.kind {
        ValueKind::String(text) if !text.is_empty() => Ok(Located::new(text.clone(), value.place.clone())),
        ValueKind::String(_) => Err(mismatch(value, path, "a text that is not empty")),
        _ => {
            Err(mismatch(value, path, "a text").maybe_hint(scalar(value).map(|written| format!("write \"{written}\""))))
        }
    }
}

pub(super) fn boolean(value: &Value, path: &str) -> Result<bool, Diagnostic> {
    match &value.kind {
        ValueKind::Boolean(boolean) => Ok(*boolean),
        _ => Err(mismatch(value, path, "`true` or `false`")),
    }
}

/// A whole number from `minimum` to what fits the type.
pub(super) fn whole<T: TryFrom<i64>>(value: &Value, path: &str, minimum: i64) -> Result<T, Diagnostic> {
    let number = match value.kind {
        ValueKind::Integer(number) if number >= minimum => T::try_from(number).ok(),
        _ => None,
    };
    number.ok_or_else(|| mismatch(value, path, &format!("a whole number of at least {minimum}")))
}

pub(super) fn number(value: &Value, path: &str) -> Result<f64, Diagnostic> {
    match value.kind {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a limit written as a whole number of more than 53 bits is no use"
        )]
        ValueKind::Integer(number) => Ok(number as f64),
        ValueKind::Float(number) if number.is_finite() => Ok(number),
        _ => Err(mismatch(value, path, "a number")),
    }
}

pub(super) fn table<'v>(value: &'v Value, path: &str) -> Result<&'v Table, Diagnostic> {
    value.as_table().ok_or_else(|| mismatch(value, path, "a table"))
}

pub(super) fn list<'v>(value: &'v Value, path: &str, of: &str) -> Result<&'v [Value], Diagnostic> {
    match &value.kind {
        ValueKind::Array(values) => Ok(values),
        _ => Err(mismatch(value, path, &format!("a list of {of}"))
            .maybe_hint(scalar(value).map(|written| format!("write [{written}]")))),
    }
}

/// The text of a short value that is neither a list nor a table.
fn scalar(value: &Value) -> Option<&str> {
    const LONGEST: usize = 60;
    let single = !matches!(value.kind, ValueKind::Array(_) | ValueKind::Table(_));
    Some(value.place.text()).filter(|written| single && written.len() <= LONGEST)
}

/// Whether a name can stand in a reference: letters, digits, `_` and `-`.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character.is_ascii_alphanumeric() || "_-".contains(character))
}

/// Whether a text can be a value of an axis: letters, digits, `_`, `-`, `.` and `+`.
pub(super) fn is_axis_value(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character.is_ascii_alphanumeric() || "_-.+".contains(character))
}
