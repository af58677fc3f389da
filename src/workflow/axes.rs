//! The axes of the graph: listed, derived as pairs, or given by the model.

use std::collections::{BTreeMap, BTreeSet};

use super::condition_parser::is_keyword;
use super::layers::axis_text;
use super::model::{Axis, AxisOrigin, AxisValue};
use super::read::{Fields, is_axis_value, is_name, mismatch, text};
use super::tree::{Entry, Table, Value, ValueKind, shortened};
use crate::diagnostic::{Diagnostic, Diagnostics, Located, Place, suggestion};

/// The axes that were understood.
#[derive(Debug)]
pub(super) struct ReadAxes {
    pub(super) axes: Vec<Axis>,
    /// Whether there are no others; false where some could not be understood.
    pub(super) complete: bool,
}

impl ReadAxes {
    pub(super) fn get(&self, name: &str) -> Option<&Axis> {
        self.axes.iter().find(|axis| axis.name == name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.axes.iter().map(|axis| axis.name.as_str())
    }
}

/// An axis with more values than this would give more nodes than anyone can mean.
const MOST_VALUES: usize = 10_000;

/// Reads `[axes]`.
///
/// `listed` are the values that any layer lists, `given` those that the caller gives to axes of the model.
pub(super) fn read(
    table: Option<&Located<Table>>,
    listed: &BTreeSet<(String, String)>,
    given: &BTreeMap<String, Vec<String>>,
    diagnostics: &mut Diagnostics,
) -> ReadAxes {
    let mut read = ReadAxes { axes: Vec::new(), complete: true };
    let mut derived = Vec::new();
    for entry in table.into_iter().flat_map(|located| &located.value.entries) {
        if let Err(diagnostic) = check_name(entry) {
            diagnostics.push(diagnostic);
            read.complete = false;
            continue;
        }
        let (origin, values, further) = match &entry.value.kind {
            ValueKind::Table(table) => from_table(entry, table, given, &mut derived, diagnostics),
            _ => (AxisOrigin::Listed, listed_values(&entry.key, &entry.value, diagnostics), Vec::new()),
        };
        let known = listed.iter().filter(|(axis, _)| *axis == entry.key).map(|(_, value)| value.clone());
        let known = known.chain(values.iter().chain(&further).map(|value| value.name.clone())).collect();
        read.axes.push(Axis { name: entry.key.clone(), values, origin, place: entry.key_place.clone(), known });
    }
    for (name, of) in derived {
        derive(&mut read, &name, &of, diagnostics);
    }
    read
}

fn check_name(entry: &Entry) -> Result<(), Diagnostic> {
    let problem = if is_keyword(&entry.key) {
        "this word has a meaning in conditions"
    } else if !is_name(&entry.key) || entry.key.starts_with(|first: char| first.is_ascii_digit()) {
        "expected letters, digits, `_` and `-`, a letter first"
    } else {
        return Ok(());
    };
    Err(Diagnostic::error(format!("`{}` cannot be the name of an axis", shortened(&entry.key)))
        .at(&entry.key_place, problem))
}

fn listed_values(axis: &str, value: &Value, diagnostics: &mut Diagnostics) -> Vec<AxisValue> {
    const EXPECTED: &str = "a list of values, `{ pairs = \"AXIS\" }` or `{ from = \"model\" }`";
    let path = format!("axes.{axis}");
    let ValueKind::Array(items) = &value.kind else {
        diagnostics.push(mismatch(value, &path, EXPECTED));
        return Vec::new();
    };
    if items.is_empty() || items.len() > MOST_VALUES {
        diagnostics.push(mismatch(value, &path, &format!("a list of 1 to {MOST_VALUES} values")));
        return Vec::new();
    }
    let mut first: BTreeMap<String, &Place> = BTreeMap::new();
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        match listed_value(item, &path) {
            Ok(name) => {
                if let Some(place) = first.insert(name.clone(), &item.place) {
                    diagnostics.push(twice(axis, &name, &item.place, place));
                } else {
                    values.push(AxisValue { name, members: Vec::new() });
                }
            }
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    values
}

fn twice(axis: &str, name: &str, second: &Place, first: &Place) -> Diagnostic {
    Diagnostic::error(format!("axis `{axis}` has the value `{name}` twice"))
        .at(second, "the second time")
        .context(first, "the first time")
}

fn listed_value(item: &Value, path: &str) -> Result<String, Diagnostic> {
    const EXPECTED: &str = "a whole number or a text of letters, digits, `_`, `-`, `.` and `+`";
    let name = axis_text(item).filter(|name| is_axis_value(name));
    name.ok_or_else(|| mismatch(item, path, EXPECTED))
}

/// Where the values of an axis come from, the values, and further ones that it might have had.
///
/// `{ values = […], known = […] }` is what [`super::expand()`] writes for an axis that was narrowed: references and
/// conditions may still name the values that are left out.
fn from_table(
    entry: &Entry,
    table: &Table,
    given: &BTreeMap<String, Vec<String>>,
    derived: &mut Vec<(String, Located<String>)>,
    diagnostics: &mut Diagnostics,
) -> (AxisOrigin, Vec<AxisValue>, Vec<AxisValue>) {
    const NOTHING: (AxisOrigin, Vec<AxisValue>, Vec<AxisValue>) = (AxisOrigin::Listed, Vec::new(), Vec::new());
    let ways: Vec<_> = ["pairs", "from", "values"].into_iter().filter(|way| table.get(way).is_some()).collect();
    let mut fields = Fields::new(table, format!("axes.{}", entry.key));
    let pairs = fields.read("pairs", diagnostics, text);
    let from = fields.read("from", diagnostics, from_model);
    let values = fields.take("values");
    let known = values.and_then(|_| fields.take("known"));
    fields.finish(diagnostics);
    let mut listed = |found: &Entry| listed_values(&entry.key, &found.value, diagnostics);
    match (ways.as_slice(), pairs, from, values) {
        ([first, second, ..], ..) => {
            let message = format!("axis `{}` has both `{first}` and `{second}`", entry.key);
            diagnostics.push(Diagnostic::error(message).at(&entry.value.place, "expected only one of them"));
            NOTHING
        }
        (_, Some(of), ..) => {
            let origin = AxisOrigin::Pairs { of: of.value.clone() };
            derived.push((entry.key.clone(), of));
            (origin, Vec::new(), Vec::new())
        }
        (_, _, Some(()), _) => (AxisOrigin::Model, given_values(entry, given, diagnostics), Vec::new()),
        (_, _, _, Some(values)) => (AxisOrigin::Listed, listed(values), known.map(&mut listed).unwrap_or_default()),
        ([], ..) => {
            let message = format!("axis `{}` does not say where its values come from", entry.key);
            diagnostics.push(
                Diagnostic::error(message).at(&entry.value.place, "expected `pairs = \"AXIS\"` or `from = \"model\"`"),
            );
            NOTHING
        }
        // What is there could not be read, and was reported.
        _ => NOTHING,
    }
}

fn from_model(value: &Value, path: &str) -> Result<(), Diagnostic> {
    match &value.kind {
        ValueKind::String(word) if word == "model" => Ok(()),
        _ => Err(mismatch(value, path, "\"model\"")),
    }
}

fn given_values(entry: &Entry, given: &BTreeMap<String, Vec<String>>, diagnostics: &mut Diagnostics) -> Vec<AxisValue> {
    let names = given.get(&entry.key).map(Vec::as_slice).unwrap_or_default();
    let mut seen = BTreeSet::new();
    if let Some(wrong) = names.iter().find(|name| !is_axis_value(name) || !seen.insert(name.as_str())) {
        let message = format!("the model gives axis `{}` the value `{}`", entry.key, shortened(wrong));
        diagnostics
            .push(Diagnostic::error(message).at(&entry.value.place, "expected distinct values of letters and digits"));
        return Vec::new();
    }
    names.iter().map(|name| AxisValue { name: name.clone(), members: Vec::new() }).collect()
}

/// Fills the axis `name` with all unordered pairs of the values of the axis `of`.
fn derive(read: &mut ReadAxes, name: &str, of: &Located<String>, diagnostics: &mut Diagnostics) {
    let problem = match read.get(&of.value) {
        None => Some(
            Diagnostic::error(format!("there is no axis `{}`", shortened(&of.value)))
                .at(&of.place, "unknown axis")
                .maybe_hint(suggestion(&of.value, read.names().filter(|other| *other != name))),
        ),
        Some(base) if base.name == name => Some(
            Diagnostic::error(format!("axis `{name}` is derived from itself")).at(&of.place, "expected another axis"),
        ),
        Some(base) if matches!(base.origin, AxisOrigin::Pairs { .. }) => Some(
            Diagnostic::error(format!("axis `{name}` is derived from `{}`, which is derived itself", base.name))
                .at(&of.place, "expected an axis with values of its own"),
        ),
        Some(base) if base.values.len() > MOST_BASE_VALUES => Some(
            Diagnostic::error(format!("axis `{}` has too many values to pair", base.name))
                .at(&of.place, format!("expected an axis of at most {MOST_BASE_VALUES} values")),
        ),
        Some(_) => None,
    };
    let pairs = match problem {
        Some(diagnostic) => {
            diagnostics.push(diagnostic);
            Vec::new()
        }
        None => read.get(&of.value).map(|base| pairs(&base.values)).unwrap_or_default(),
    };
    let mut seen = BTreeMap::new();
    for pair in &pairs {
        if let Some(other) = seen.insert(&pair.name, &pair.members) {
            let message = format!("two pairs of axis `{}` are both called `{}`", of.value, pair.name);
            let detail = format!("{} + {} and {} + {}", other[0], other[1], pair.members[0], pair.members[1]);
            diagnostics
                .push(Diagnostic::error(message).at(&of.place, detail).hint("give the values names without `+`"));
        }
    }
    if let Some(axis) = read.axes.iter_mut().find(|axis| axis.name == name) {
        axis.known = pairs.iter().map(|pair| pair.name.clone()).collect();
        axis.values = pairs;
    }
}

/// With more values there would be more than [`MOST_VALUES`] pairs.
const MOST_BASE_VALUES: usize = 141;

fn pairs(values: &[AxisValue]) -> Vec<AxisValue> {
    let mut pairs = Vec::new();
    for (position, first) in values.iter().enumerate() {
        for second in &values[position + 1..] {
            let members = vec![first.name.clone(), second.name.clone()];
            pairs.push(AxisValue { name: members.join("+"), members });
        }
    }
    pairs
}
