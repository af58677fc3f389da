//! Inheritance: the files and recipes that a workflow consists of, merged into one tree.
//!
//! The workflow itself is the first layer, what it extends the second, and so on. Tables merge key by key, everything else
//! is replaced. What `--set` gives lies on top of all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tree::{self, Entry, Table, Value, ValueKind};
use super::{LoadOptions, read};
use crate::diagnostic::{Diagnostic, Diagnostics, Located, Place, Source, SourceKind, nearest, suggestion};

/// All layers merged, and what they were.
#[derive(Debug)]
pub(super) struct Layers {
    /// The merged tree.
    pub(super) table: Table,
    /// The names of what is extended, nearest first.
    pub(super) extends: Vec<String>,
    /// Every value that any layer lists for an axis, as `(axis, value)`, written as text.
    pub(super) axis_values: BTreeSet<(String, String)>,
    /// The text of the workflow itself.
    pub(super) root: Arc<Source>,
}

/// A workflow larger than this is none, and is not read into memory.
const LARGEST_FILE: u64 = 4 << 20;

/// Reads a workflow's file.
///
/// # Errors
/// If it cannot be read or is no text.
pub(super) fn read_file(path: &Path) -> Result<Arc<Source>, Diagnostic> {
    let name = path.display().to_string();
    let unreadable = |reason: String| Diagnostic::error(format!("workflow `{name}` cannot be read: {reason}"));
    let metadata =
        std::fs::metadata(path).map_err(|error| unreadable(io_phrase(&error)).maybe_hint(neighbour(path)))?;
    if metadata.is_dir() {
        return Err(unreadable("it is a folder".to_owned()).maybe_hint(inside(path)));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(unreadable(format!("it has {} bytes; a workflow has at most {LARGEST_FILE}", metadata.len())));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable(io_phrase(&error)))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| unreadable(format!("byte {} is not UTF-8 text", error.utf8_error().valid_up_to())))?;
    let absolute = std::path::absolute(path).map_err(|error| unreadable(io_phrase(&error)))?;
    Ok(Source::new(name, text, SourceKind::File(absolute)))
}

/// The error of the system without its number.
fn io_phrase(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission is denied".to_owned(),
        _ => error.to_string(),
    }
}

fn neighbour(path: &Path) -> Option<String> {
    let folder = path.parent()?;
    let names = toml_files(if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let name = path.file_name()?.to_string_lossy();
    let near = nearest(&name, names.iter().map(String::as_str))?;
    Some(format!("did you mean `{}`?", folder.join(near).display()))
}

fn inside(folder: &Path) -> Option<String> {
    let names = toml_files(folder);
    names.first().map(|name| format!("did you mean `{}`?", folder.join(name).display()))
}

fn toml_files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".toml"));
    names.sort();
    names
}

/// Reads all layers of a workflow and merges them.
///
/// # Errors
/// Every syntax error of every layer, and what cannot be extended.
pub(super) fn merge_all(root: Arc<Source>, options: &LoadOptions<'_>) -> Result<Layers, Diagnostics> {
    let mut reader = LayerReader { options, diagnostics: Diagnostics::new(), seen: Vec::new(), layers: Vec::new() };
    let sets = reader.sets();
    reader.follow(Arc::clone(&root));
    if !reader.diagnostics.is_empty() {
        reader.diagnostics.sort(&root);
        return Err(reader.diagnostics);
    }
    let extends = reader.seen.iter().skip(1).map(|source| source.name().to_owned()).collect();
    let mut table = Table::default();
    let mut axis_values = BTreeSet::new();
    for layer in reader.layers.into_iter().rev() {
        collect_axis_values(&layer, &mut axis_values);
        // A name is of one workflow and not inherited.
        table.remove("name");
        merge(&mut table, layer, &[]);
    }
    for set in sets {
        merge(&mut table, set, &[]);
    }
    table.remove("extends");
    Ok(Layers { table, extends, axis_values, root })
}

fn collect_axis_values(layer: &Table, found: &mut BTreeSet<(String, String)>) {
    let axes = layer.get("axes").and_then(|entry| entry.value.as_table());
    for axis in axes.into_iter().flat_map(|table| &table.entries) {
        if let ValueKind::Array(values) = &axis.value.kind {
            found.extend(values.iter().filter_map(|value| Some((axis.key.clone(), axis_text(value)?))));
        }
    }
}

/// A value of an axis as text; whole numbers are written out.
pub(super) fn axis_text(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        ValueKind::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

struct LayerReader<'a> {
    options: &'a LoadOptions<'a>,
    diagnostics: Diagnostics,
    seen: Vec<Arc<Source>>,
    layers: Vec<Table>,
}

impl LayerReader<'_> {
    fn follow(&mut self, root: Arc<Source>) {
        let mut next = Some(root);
        while let Some(source) = next.take() {
            self.seen.push(Arc::clone(&source));
            let table = match tree::parse(&source) {
                Ok(table) => table,
                Err(errors) => return self.diagnostics.extend(errors),
            };
            let extends = table.get("extends").map(|entry| read::text(&entry.value, "extends"));
            self.layers.push(table);
            next = match extends.transpose() {
                Ok(Some(extends)) => self.parent(&source, &extends),
                Ok(None) => None,
                Err(diagnostic) => {
                    self.diagnostics.push(diagnostic);
                    None
                }
            };
        }
    }

    fn parent(&mut self, source: &Arc<Source>, extends: &Located<String>) -> Option<Arc<Source>> {
        let found = if is_path(&extends.value) { self.file(source, extends) } else { self.recipe(extends) };
        let found = found.and_then(|parent| self.refuse_cycle(parent, extends));
        found.map_err(|diagnostic| self.diagnostics.push(diagnostic)).ok()
    }

    fn recipe(&self, extends: &Located<String>) -> Result<Arc<Source>, Diagnostic> {
        let recipe = self.options.recipes.iter().find(|recipe| recipe.name == extends.value);
        recipe.map(|recipe| recipe_source(recipe.name, recipe.text)).ok_or_else(|| {
            Diagnostic::error(format!("there is no recipe `{}`", tree::shortened(&extends.value)))
                .at(&extends.place, "unknown recipe")
                .maybe_hint(suggestion(&extends.value, self.options.recipes.iter().map(|recipe| recipe.name)))
                .note("a file is extended by its path, such as `./base.toml`")
        })
    }

    fn file(&self, source: &Arc<Source>, extends: &Located<String>) -> Result<Arc<Source>, Diagnostic> {
        let Some(folder) = source.folder() else {
            let message = format!("{} cannot extend a file", source.name());
            return Err(Diagnostic::error(message).at(&extends.place, "expected the name of a recipe"));
        };
        // The name that people see keeps the beginning that they wrote themselves.
        let shown = Path::new(source.name()).parent().unwrap_or(Path::new(""));
        let path = without_dots(&folder.join(&extends.value));
        let read = read_file(&path).map_err(|diagnostic| diagnostic.at(&extends.place, "extended here"))?;
        let name = without_dots(&shown.join(&extends.value)).display().to_string();
        Ok(Source::new(name, read.text(), SourceKind::File(path)))
    }

    fn refuse_cycle(&self, parent: Arc<Source>, extends: &Located<String>) -> Result<Arc<Source>, Diagnostic> {
        let Some(first) = self.seen.iter().position(|source| same_text(source, &parent)) else { return Ok(parent) };
        let mut names: Vec<_> = self.seen[first..].iter().map(|source| source.name()).collect();
        names.push(self.seen[first].name());
        Err(Diagnostic::error(format!("a workflow extends itself: {}", names.join(" → ")))
            .at(&extends.place, "this closes the circle"))
    }

    /// What `--set` gives, each as a layer of its own.
    fn sets(&mut self) -> Vec<Table> {
        let parsed: Vec<_> = self.options.sets.iter().map(|set| parse_set(set).and_then(without_extends)).collect();
        parsed.into_iter().filter_map(|set| set.map_err(|diagnostic| self.diagnostics.push(diagnostic)).ok()).collect()
    }
}

pub(super) fn recipe_source(name: &str, text: &str) -> Arc<Source> {
    Source::new(format!("recipe {name}"), text, SourceKind::Recipe(name.to_owned()))
}

fn is_path(extends: &str) -> bool {
    extends.contains(['/', '\\']) || extends.ends_with(".toml")
}

fn same_text(one: &Source, other: &Source) -> bool {
    match (one.kind(), other.kind()) {
        (SourceKind::File(one), SourceKind::File(other)) => {
            let canonical = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
            canonical(one) == canonical(other)
        }
        (one, other) => one == other && matches!(one, SourceKind::Recipe(_)),
    }
}

/// A path without the parts that mean nothing, as in `folder/./file`.
fn without_dots(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Parses `key.key=value`; a value that is not TOML is a text.
fn parse_set(set: &str) -> Result<Table, Diagnostic> {
    let source = Source::new("--set", set, SourceKind::Argument("--set"));
    let whole = Place::new(&source, 0..set.len());
    let malformed = || {
        Diagnostic::error(format!("`--set {}` is not a key and a value", tree::shortened(set)))
            .at(&whole, "expected `key.key=value`")
            .hint("for example `--set stages.train.with.epochs=5`")
    };
    if let Ok(table) = tree::parse(&source) {
        let single = table.entries.len() == 1 && !set.trim_start().starts_with('[');
        return if single { Ok(table) } else { Err(malformed()) };
    }
    let (key, text) = set.split_once('=').ok_or_else(malformed)?;
    // The keys keep their places because the text before the value is the same.
    let stand_in = Source::new("--set", format!("{key}=0"), SourceKind::Argument("--set"));
    let mut table = tree::parse(&stand_in).map_err(|_| malformed())?;
    let place = Place::new(&source, key.len() + 1..set.len());
    table.entries.iter_mut().for_each(|entry| replace_leaf(entry, &source, &place, text.trim()));
    Ok(table)
}

/// What a workflow inherits is settled before anything is set.
fn without_extends(table: Table) -> Result<Table, Diagnostic> {
    match table.get("extends") {
        None => Ok(table),
        Some(entry) => Err(Diagnostic::error("`extends` cannot be set on the command line")
            .at(&entry.key_place, "it has to stand in the file")
            .hint("copy the workflow and change its `extends`")),
    }
}

fn replace_leaf(entry: &mut Entry, source: &Arc<Source>, place: &Place, text: &str) {
    entry.key_place = Place::new(source, entry.key_place.span());
    match &mut entry.value.kind {
        ValueKind::Table(table) => {
            table.entries.iter_mut().for_each(|entry| replace_leaf(entry, source, place, text));
            entry.value.place = Place::new(source, entry.value.place.span());
        }
        _ => entry.value = Value { kind: ValueKind::String(text.to_owned()), place: place.clone() },
    }
}

/// Lays `over` on top of `base`.
fn merge(base: &mut Table, over: Table, path: &[&str]) {
    for entry in over.entries {
        let Some(under) = base.entries.iter_mut().find(|under| under.key == entry.key) else {
            base.entries.push(entry);
            continue;
        };
        // The declaration of an axis is one value, even where it is a table.
        let whole = path == ["axes"];
        match (&mut under.value.kind, entry.value.kind) {
            (ValueKind::Table(under_table), ValueKind::Table(over_table)) if !whole => {
                if path.is_empty() && entry.key == "dataset" {
                    forget_other_source(under_table, &over_table);
                }
                let path: Vec<&str> = path.iter().copied().chain([entry.key.as_str()]).collect();
                merge(under_table, over_table, &path);
            }
            (_, kind) => {
                under.key_place = entry.key_place;
                under.value = Value { kind, place: entry.value.place };
            }
        }
    }
}

/// A dataset lies in one place: a folder replaces an inherited address, and the other way round.
fn forget_other_source(under: &mut Table, over: &Table) {
    const PLACES: [&str; 3] = ["path", "fetch", "phantom"];
    if PLACES.iter().any(|key| over.get(key).is_some()) {
        for key in PLACES {
            if over.get(key).is_none() {
                under.remove(key);
            }
        }
    }
}
