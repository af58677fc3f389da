//! Prints a workflow in full: everything inherited, every default, and where each value comes from.

use std::fmt::Write;

use nnflow_stage::{Parameters, effective_parameters};
use serde_json::{Map, Value as Json};

use super::graph::StageTable;
use super::model::{AxisOrigin, DEFAULT_SEED, DatasetSource, StageDeclaration, Workflow};
use super::toml_text::{inline_table, json, key, list, quoted, value};
use super::tree::{Entry, Table};
use crate::diagnostic::Place;

/// The workflow as one explicit TOML, with a comment behind each value that says where it comes from.
///
/// The text stands for itself: it extends nothing, and loading it from the workflow's folder gives the same graph.
#[must_use]
pub fn expand(workflow: &Workflow, stages: &dyn StageTable) -> String {
    let mut text = Text(String::new());
    text.head(workflow);
    text.dataset(workflow);
    text.model(workflow);
    text.axes(workflow);
    for stage in &workflow.stages {
        text.stage(workflow, stage, stages);
    }
    text.plain_section(workflow, "expect");
    text.plain_section(workflow, "settings");
    text.plain_section(workflow, "executor");
    text.0
}

const DEFAULT: &str = "default";

struct Text(String);

impl Text {
    fn line(&mut self, name: &str, value: &str, origin: &str) {
        // Writing to a text cannot fail.
        writeln!(self.0, "{} = {value}  # {origin}", key(name)).unwrap_or_default();
    }

    fn section(&mut self, path: &[&str]) {
        let path: Vec<_> = path.iter().map(|part| key(part)).collect();
        writeln!(self.0, "\n[{}]", path.join(".")).unwrap_or_default();
    }

    fn head(&mut self, workflow: &Workflow) {
        let document = &workflow.document;
        self.line("name", &quoted(&workflow.name), &origin(document.get("name"), "the file's name"));
        let seed = document.get("seed");
        self.line("seed", &seed.map_or(DEFAULT_SEED.to_string(), |entry| value(&entry.value)), &origin(seed, DEFAULT));
    }

    fn dataset(&mut self, workflow: &Workflow) {
        let Some(dataset) = &workflow.dataset else { return };
        self.section(&["dataset"]);
        let table = workflow.document.get("dataset").and_then(|entry| entry.value.as_table());
        for entry in table.into_iter().flat_map(|table| &table.entries) {
            let written = match (entry.key.as_str(), &dataset.source, &dataset.split) {
                ("path", DatasetSource::Path(path), _) => relative(workflow, path),
                ("split", _, Some(split)) => relative(workflow, &split.value),
                _ => value(&entry.value),
            };
            self.line(&entry.key, &written, &entry.value.place.origin());
        }
    }

    fn model(&mut self, workflow: &Workflow) {
        let Some(model) = &workflow.model else { return };
        self.section(&["model"]);
        self.line("path", &relative(workflow, &model.path), &model.place.origin());
    }

    /// An axis that was narrowed keeps the values that other parts of the workflow may name.
    fn axes(&mut self, workflow: &Workflow) {
        let table = workflow.document.get("axes").and_then(|entry| entry.value.as_table());
        let Some(table) = table.filter(|table| !table.is_empty()) else { return };
        self.section(&["axes"]);
        for entry in &table.entries {
            let listed = workflow.axis(&entry.key).filter(|axis| axis.origin == AxisOrigin::Listed);
            let narrowed = listed.and_then(|axis| {
                let further: Vec<_> = axis.known.iter().filter(|name| axis.value(name).is_none()).collect();
                let values = list(axis.values.iter().map(|value| axis_value(&value.name)));
                let known = list(further.iter().map(|name| axis_value(name)));
                (!further.is_empty()).then(|| inline_table([("values", values), ("known", known)].into_iter()))
            });
            let written = narrowed.unwrap_or_else(|| value(&entry.value));
            self.line(&entry.key, &written, &entry.value.place.origin());
        }
    }

    fn plain_section(&mut self, workflow: &Workflow, name: &str) {
        let table = workflow.document.get(name).and_then(|entry| entry.value.as_table());
        let Some(table) = table.filter(|table| !table.is_empty()) else { return };
        self.section(&[name]);
        self.entries(table);
    }

    fn entries(&mut self, table: &Table) {
        for entry in &table.entries {
            self.line(&entry.key, &value(&entry.value), &entry.value.place.origin());
        }
    }

    fn stage(&mut self, workflow: &Workflow, stage: &StageDeclaration, stages: &dyn StageTable) {
        let Some(table) = stage_table(workflow, &stage.name) else { return };
        self.section(&["stages", &stage.name]);
        self.line("uses", &quoted(&stage.uses.value), &origin(table.get("uses"), "the table's name"));
        for name in ["over", "when"] {
            if let Some(entry) = table.get(name) {
                self.line(name, &value(&entry.value), &entry.value.place.origin());
            }
        }
        self.line("store", &stage.store.to_string(), &origin(table.get("store"), DEFAULT));
        for name in ["inputs", "resources"] {
            let part = table.get(name).and_then(|entry| entry.value.as_table());
            if let Some(part) = part.filter(|part| !part.is_empty()) {
                self.section(&["stages", &stage.name, name]);
                self.entries(part);
            }
        }
        let parameters = stages
            .stage(&stage.uses.value)
            .and_then(|found| effective_parameters(found.spec().parameters, &stage.with.to_json()).ok());
        let Parameters(parameters) = parameters.unwrap_or_else(|| Parameters(stage.with.to_json()));
        if !parameters.is_empty() {
            self.parameters(&["stages", &stage.name, "with"], &parameters, Some(&stage.with));
        }
    }

    /// The parameters of one table, then each table inside it as a section of its own.
    fn parameters(&mut self, path: &[&str], parameters: &Map<String, Json>, given: Option<&Table>) {
        self.section(path);
        for (name, parameter) in parameters.iter().filter(|(_, parameter)| !parameter.is_object()) {
            self.line(name, &json(parameter), &origin(given.and_then(|table| table.get(name)), DEFAULT));
        }
        for (name, parameter) in parameters {
            let Json::Object(inner) = parameter else { continue };
            let given = given.and_then(|table| table.get(name)).and_then(|entry| entry.value.as_table());
            let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            self.parameters(&path, inner, given);
        }
    }
}

fn stage_table<'w>(workflow: &'w Workflow, name: &str) -> Option<&'w Table> {
    workflow.document.get("stages")?.value.as_table()?.get(name)?.value.as_table()
}

/// A value of an axis as people write it: a number without quotes.
fn axis_value(name: &str) -> String {
    let number: Option<u64> = name.parse().ok();
    number.map(|number| number.to_string()).filter(|written| written == name).unwrap_or_else(|| quoted(name))
}

fn origin(entry: Option<&Entry>, otherwise: &str) -> String {
    entry.map_or_else(|| otherwise.to_owned(), |entry| Place::origin(&entry.value.place))
}

/// A path as it would be written in the workflow's own folder.
fn relative(workflow: &Workflow, path: &std::path::Path) -> String {
    let shown = path.strip_prefix(&workflow.folder).unwrap_or(path);
    quoted(&shown.to_string_lossy())
}
