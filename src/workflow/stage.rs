//! Reading a stage's table.

use super::axes::ReadAxes;
use super::condition_parser::{self, Mention};
use super::model::{AxisOrigin, InputDeclaration, ResourceRequest, StageDeclaration, When};
use super::quantity;
use super::read::{Fields, boolean, is_name, joined, list, mismatch, table, text, whole};
use super::reference::{self, Reference};
use super::tree::{Entry, Table, Value, ValueKind, shortened};
use super::words::SyntaxProblem;
use crate::diagnostic::{Diagnostic, Diagnostics, Located, listed, suggestion};

/// Reads the stage that `entry` declares; nothing if its table cannot be read at all.
pub(super) fn read(entry: &Entry, axes: &ReadAxes, diagnostics: &mut Diagnostics) -> Option<StageDeclaration> {
    let path = joined("stages", &entry.key);
    if !is_name(&entry.key) {
        let message = format!("`{}` cannot be the name of a stage", shortened(&entry.key));
        diagnostics.push(Diagnostic::error(message).at(&entry.key_place, "expected letters, digits, `_` and `-`"));
        return None;
    }
    let stage = table(&entry.value, &path).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()?;
    let mut fields = Fields::new(stage, path.clone());
    let uses = fields.read("uses", diagnostics, text);
    let over_entry = fields.take("over");
    let over = over_entry.map_or(Ok(Vec::new()), |over| read_over(&over.value, &joined(&path, "over"), axes));
    // Without knowing the axes nothing can be said of what is meant to be one.
    let over = over.map_err(|diagnostic| diagnostics.push(diagnostic)).ok();
    let condition = fields.read("when", diagnostics, parse_when);
    if let (Some(when), Some(over)) = (&condition, &over) {
        check_axes(when, &entry.key, over, axes, diagnostics);
    }
    let store = fields.read("store", diagnostics, boolean).unwrap_or(true);
    let inputs = fields
        .take("inputs")
        .map(|inputs| Inputs { path: &path, stage: &entry.key, over: over.as_deref(), axes }.read(inputs, diagnostics));
    let with = fields
        .read("with", diagnostics, |value, path| table(value, path).map(|table| (table.clone(), value.place.clone())));
    let resources = fields.take("resources").map(|value| read_resources(value, &path, diagnostics));
    fields.read("enabled", diagnostics, boolean);
    fields.finish(diagnostics);
    let (with, with_place) = with.unwrap_or_else(|| (Table::default(), entry.key_place.clone()));
    Some(StageDeclaration {
        uses: uses.unwrap_or_else(|| Located::new(entry.key.clone(), entry.key_place.clone())),
        over: over.unwrap_or_default(),
        condition,
        store,
        inputs: inputs.unwrap_or_default(),
        with,
        resources: resources.unwrap_or_default(),
        place: entry.key_place.clone(),
        with_place,
        name: entry.key.clone(),
    })
}

fn read_over(value: &Value, path: &str, axes: &ReadAxes) -> Result<Vec<Located<String>>, Diagnostic> {
    let mut over: Vec<Located<String>> = Vec::new();
    for item in list(value, path, "axes")? {
        let name = text(item, path)?;
        if axes.get(&name.value).is_none() && axes.complete {
            return Err(unknown_axis(&name, axes.names()));
        }
        if let Some(before) = over.iter().find(|other| other.value == name.value) {
            return Err(Diagnostic::error(format!("`{path}` names `{}` twice", name.value))
                .at(&name.place, "the second time")
                .context(&before.place, "the first time"));
        }
        over.push(name);
    }
    Ok(over)
}

fn unknown_axis<'a>(name: &Located<String>, valid: impl IntoIterator<Item = &'a str>) -> Diagnostic {
    Diagnostic::error(format!("there is no axis `{}`", shortened(&name.value)))
        .at(&name.place, "unknown axis")
        .maybe_hint(suggestion(&name.value, valid))
}

fn parse_when(value: &Value, path: &str) -> Result<When, Diagnostic> {
    let written = text(value, path)?;
    let parsed = condition_parser::parse(&written.value).map_err(|problem| {
        syntax_error(&written, &problem, "condition")
            .note("conditions are `AXIS == 'VALUE'`, `AXIS in ['A', 'B']`, `AXIS in INPUT` and `every INPUT`, joined by `and`, `or`, `not`")
    })?;
    let mentions = parsed.mentions.into_iter();
    let mentions = mentions.map(|(mention, range)| (mention, written.place.within_string(&written.value, range)));
    Ok(When { condition: parsed.condition, mentions: mentions.collect(), place: written.place.clone() })
}

fn syntax_error(written: &Located<String>, problem: &SyntaxProblem, what: &str) -> Diagnostic {
    let place = written.place.within_string(&written.value, problem.range.clone());
    Diagnostic::error(format!("`{}` is not a {what}", shortened(&written.value))).at(&place, problem.expected.clone())
}

/// Checks that a condition names axes that the stage runs over, and values that these can have.
fn check_axes(when: &When, stage: &str, over: &[Located<String>], axes: &ReadAxes, diagnostics: &mut Diagnostics) {
    for (mention, place) in &when.mentions {
        match mention {
            Mention::Axis(axis) if !over.iter().any(|name| name.value == *axis) => {
                let own: Vec<&str> = over.iter().map(|name| name.value.as_str()).collect();
                let diagnostic = if axes.get(axis).is_none() {
                    unknown_axis(&Located::new(axis.clone(), place.clone()), own)
                } else {
                    let runs = if own.is_empty() { "no axis".to_owned() } else { listed(own) };
                    Diagnostic::error(format!("`{stage}` does not run over axis `{axis}`"))
                        .at(place, format!("`{stage}` runs over {runs}"))
                        .hint(format!("add \"{axis}\" to `over`"))
                };
                diagnostics.push(diagnostic);
            }
            Mention::Value { axis, value } => diagnostics.extend(axes.get(axis).and_then(|axis| {
                let open = axis.origin == AxisOrigin::Model;
                let known = open || axis.values.is_empty() || axis.known.contains(value);
                (!known).then(|| {
                    Diagnostic::error(format!("axis `{}` has no value `{}`", axis.name, shortened(value)))
                        .at(place, "unknown value")
                        .maybe_hint(suggestion(value, axis.known.iter().map(String::as_str)))
                })
            })),
            Mention::Axis(_) | Mention::Input(_) => {}
        }
    }
}

/// What reading the inputs of one stage needs to know.
struct Inputs<'a> {
    path: &'a str,
    stage: &'a str,
    /// The axes of the stage, if they could be understood.
    over: Option<&'a [Located<String>]>,
    axes: &'a ReadAxes,
}

impl Inputs<'_> {
    fn read(&self, inputs: &Entry, diagnostics: &mut Diagnostics) -> Vec<InputDeclaration> {
        let path = joined(self.path, "inputs");
        let entries = match table(&inputs.value, &path) {
            Ok(table) => &table.entries,
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                return Vec::new();
            }
        };
        let declared = entries.iter().map(|entry| InputDeclaration {
            port: Located::new(entry.key.clone(), entry.key_place.clone()),
            references: self.references(&entry.value, &joined(&path, &entry.key), diagnostics),
            place: entry.value.place.clone(),
        });
        declared.collect()
    }

    fn references(&self, value: &Value, path: &str, diagnostics: &mut Diagnostics) -> Vec<Reference> {
        let items = match &value.kind {
            ValueKind::Array(items) => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        let mut references: Vec<Reference> = Vec::with_capacity(items.len());
        for item in items {
            let Some(reference) = self.reference(item, path, diagnostics) else { continue };
            if let Some(same) = references.iter().find(|other| other.same_as(&reference)) {
                diagnostics.push(
                    Diagnostic::error(format!("`{path}` names the same producer twice"))
                        .at(&reference.place, "the second time")
                        .context(&same.place, "the first time"),
                );
            }
            references.push(reference);
        }
        references
    }

    fn reference(&self, value: &Value, path: &str, diagnostics: &mut Diagnostics) -> Option<Reference> {
        const EXPECTED: &str = "a stage such as \"plan\", \"train[fold=0]\" or \"predict.labels\"";
        match &value.kind {
            ValueKind::String(_) => {
                parse_reference(value, path).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()
            }
            ValueKind::Table(table) => {
                let mut fields = Fields::new(table, path);
                let reference = fields.read("from", diagnostics, parse_reference);
                let when = fields.read("when", diagnostics, parse_static_when);
                fields.finish(diagnostics);
                if table.get("from").is_none() {
                    let message = format!("`{path}` does not say what it is connected to");
                    diagnostics.push(Diagnostic::error(message).at(&value.place, "expected `from = \"STAGE\"`"));
                }
                if let (Some(when), Some(over)) = (&when, self.over) {
                    check_axes(when, self.stage, over, self.axes, diagnostics);
                }
                Some(Reference { condition: when.map(|when| Located::new(when.condition, when.place)), ..reference? })
            }
            _ => {
                diagnostics.push(mismatch(value, path, EXPECTED));
                None
            }
        }
    }
}

fn parse_reference(value: &Value, path: &str) -> Result<Reference, Diagnostic> {
    let written = text(value, path)?;
    reference::parse(&written.value, &written.place).map_err(|problem| {
        syntax_error(&written, &problem, "reference")
            .note("references are `STAGE`, `STAGE.PORT`, `STAGE[AXIS=VALUE]` and `STAGE[AXIS=VALUE].PORT`")
    })
}

/// A condition that the axes alone decide.
fn parse_static_when(value: &Value, path: &str) -> Result<When, Diagnostic> {
    let when = parse_when(value, path)?;
    let input = when.mentions.iter().find(|(mention, _)| matches!(mention, Mention::Input(_)));
    match input {
        Some((_, place)) => Err(Diagnostic::error(format!("`{path}` depends on what arrives at an input"))
            .at(place, "known only while running")
            .hint("whether an input is connected is decided by axes alone; put this into the stage's own `when`")),
        None => Ok(when),
    }
}

fn read_resources(entry: &Entry, path: &str, diagnostics: &mut Diagnostics) -> ResourceRequest {
    let path = joined(path, "resources");
    let resources = match table(&entry.value, &path) {
        Ok(table) => table,
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            return ResourceRequest::default();
        }
    };
    let mut fields = Fields::new(resources, path);
    let request = ResourceRequest {
        gpu: fields.read("gpu", diagnostics, |value, path| whole(value, path, 0)),
        processes: fields.read("processes", diagnostics, |value, path| whole(value, path, 1)),
        memory_bytes: fields.read("memory", diagnostics, quantity::size),
        threads: fields.read("threads", diagnostics, |value, path| whole(value, path, 1)),
        time: fields.read("time", diagnostics, quantity::duration),
        device: fields.read("device", diagnostics, quantity::device),
    };
    fields.finish(diagnostics);
    request
}
