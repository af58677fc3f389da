//! From the merged tree to a [`Workflow`]: every key is read, checked and understood, or reported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nnflow_shared::{Address, AddressError};

use super::axes::{self, ReadAxes};
use super::layers::Layers;
use super::model::{DEFAULT_SEED, Dataset, DatasetSource, Model, Settings, StageDeclaration, Workflow};
use super::read::{Fields, list, mismatch, table, text, whole};
use super::tree::{Entry, Table, Value, ValueKind};
use super::{LoadOptions, executor, expectation, quantity, stage};
use crate::diagnostic::{Diagnostic, Diagnostics, Located, Place, Source, SourceKind};

/// Understands the merged tree; what is not understood is left out of the workflow.
pub(super) fn declare(
    layers: Layers,
    folder: &Path,
    options: &LoadOptions<'_>,
    diagnostics: &mut Diagnostics,
) -> Workflow {
    let document = layers.table;
    let mut fields = Fields::new(&document, "");
    let name = fields.read("name", diagnostics, text);
    let seed = fields.read("seed", diagnostics, |value, path| whole::<u64>(value, path, 0));
    let dataset =
        fields.read("dataset", diagnostics, table_entry).and_then(|table| dataset(table, folder, diagnostics));
    let model = fields.read("model", diagnostics, table_entry).and_then(|table| model(table, folder, diagnostics));
    let axes_table = fields.read("axes", diagnostics, table_entry);
    let mut axes = axes::read(axes_table.as_ref(), &layers.axis_values, &options.axis_values, diagnostics);
    axes.complete &= axes_table.is_some() || document.get("axes").is_none();
    let stage_tables = fields.read("stages", diagnostics, table_entry);
    let stages = read_stages(stage_tables.as_ref(), &axes, diagnostics);
    let expect = fields.read("expect", diagnostics, table_entry);
    let expectations = expect
        .iter()
        .flat_map(|located| &located.value.entries)
        .filter_map(|entry| expectation::read(entry, diagnostics))
        .collect();
    let settings = fields.read("settings", diagnostics, table_entry);
    let settings = settings.map(|located| read_settings(&located.value, folder, diagnostics)).unwrap_or_default();
    let slurm = fields.take("executor").map(|entry| executor::read(entry, diagnostics)).unwrap_or_default();
    let names = stage_tables.iter().flat_map(|located| &located.value.entries).map(|entry| entry.key.as_str());
    executor::check(&slurm, names, diagnostics);
    fields.finish(diagnostics);
    if stage_tables.is_none_or(|located| located.value.is_empty()) {
        diagnostics.push(without_stages(&layers.root));
    }
    Workflow {
        name: name.map_or_else(|| name_of(&layers.root), |name| name.value),
        path: layers.root.folder().and(path_of(&layers.root)),
        folder: folder.to_path_buf(),
        extends: layers.extends,
        seed: seed.unwrap_or(DEFAULT_SEED),
        dataset,
        model,
        axes: axes.axes,
        stages: stages.declared,
        expectations,
        settings,
        slurm,
        root: layers.root,
        disabled: stages.disabled,
        broken: stages.broken,
        axes_complete: axes.complete,
        document,
    }
}

fn table_entry(value: &Value, path: &str) -> Result<Located<Table>, Diagnostic> {
    // A copy of a few entries is cheaper to reason about than a borrow of the tree that the workflow takes over.
    table(value, path).map(|table| Located::new(table.clone(), value.place.clone()))
}

fn path_of(root: &Source) -> Option<PathBuf> {
    match root.kind() {
        SourceKind::File(path) => Some(path.clone()),
        _ => None,
    }
}

fn name_of(root: &Source) -> String {
    let stem = Path::new(root.name()).file_stem();
    stem.map_or_else(|| "workflow".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

fn without_stages(root: &std::sync::Arc<Source>) -> Diagnostic {
    let hint = "extend a recipe, such as `extends = \"nnunet-v2\"`, or declare a stage as `[stages.NAME]`";
    let diagnostic = if root.text().trim().is_empty() {
        Diagnostic::error(format!("workflow `{}` is empty", root.name()))
    } else {
        Diagnostic::error(format!("workflow `{}` has no stages", root.name()))
    };
    diagnostic.hint(hint)
}

/// A path as it is meant: relative to the file that says it, or to the current folder if the command line does.
fn resolve(written: &Located<String>, folder: &Path) -> PathBuf {
    let source = written.place.source();
    match source.kind() {
        SourceKind::File(_) => source.folder().unwrap_or(folder).join(&written.value),
        SourceKind::Argument(_) => std::path::absolute(&written.value).unwrap_or_else(|_| folder.join(&written.value)),
        SourceKind::Recipe(_) | SourceKind::Generated => folder.join(&written.value),
    }
}

fn dataset(located: Located<Table>, folder: &Path, diagnostics: &mut Diagnostics) -> Option<Dataset> {
    let before = diagnostics.len();
    let mut fields = Fields::new(&located.value, "dataset");
    let path = fields.read("path", diagnostics, text);
    let fetch = fields.take("fetch");
    let phantom = fields.take("phantom");
    let cases = fields.read("cases", diagnostics, case_names);
    let split = fields.read("split", diagnostics, text);
    fields.finish(diagnostics);
    let ways = [
        path.map(|path| (path.place.clone(), DatasetSource::Path(resolve(&path, folder)))),
        fetch.and_then(|entry| Some((entry.value.place.clone(), fetched(entry, diagnostics)?))),
        phantom.and_then(|entry| Some((entry.value.place.clone(), phantom_of(entry, diagnostics)?))),
    ];
    let mut found: Vec<_> = ways.into_iter().flatten().collect();
    if let [first, second, ..] = found.as_slice() {
        diagnostics.push(
            Diagnostic::error("`dataset` says more than once where the images are")
                .at(&second.0, "expected only one of `path`, `fetch` and `phantom`")
                .context(&first.0, "the other one"),
        );
        return None;
    }
    if found.is_empty() && diagnostics.len() == before {
        diagnostics.push(
            Diagnostic::error("`dataset` does not say where the images are")
                .at(&located.place, "expected `path`, `fetch` or `phantom`")
                .hint("for example `path = \"data/Dataset004_Hippocampus\"`"),
        );
    }
    let (place, source) = found.pop()?;
    let split = split.map(|split| Located::new(resolve(&split, folder), split.place));
    Some(Dataset { source, cases, split, place })
}

fn case_names(value: &Value, path: &str) -> Result<Vec<String>, Diagnostic> {
    let mut names: Vec<Located<String>> = Vec::new();
    for item in list(value, path, "texts")? {
        let name = text(item, path)?;
        if let Some(before) = names.iter().find(|before| before.value == name.value) {
            return Err(Diagnostic::error(format!("`{path}` names `{}` twice", name.value))
                .at(&name.place, "the second time")
                .context(&before.place, "the first time"));
        }
        names.push(name);
    }
    let names: Vec<String> = names.into_iter().map(|name| name.value).collect();
    if names.is_empty() { Err(mismatch(value, path, "a list of at least one case")) } else { Ok(names) }
}

fn phantom_of(entry: &Entry, diagnostics: &mut Diagnostics) -> Option<DatasetSource> {
    let located =
        table_entry(&entry.value, "dataset.phantom").map_err(|diagnostic| diagnostics.push(diagnostic)).ok()?;
    Some(DatasetSource::Phantom { settings: located.value.to_json() })
}

fn fetched(entry: &Entry, diagnostics: &mut Diagnostics) -> Option<DatasetSource> {
    let path = "dataset.fetch";
    let located = table_entry(&entry.value, path).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()?;
    let mut fields = Fields::new(&located.value, path);
    let url = fields.read("url", diagnostics, address);
    let blake3 = fields.read("blake3", diagnostics, digest);
    fields.finish(diagnostics);
    for key in ["url", "blake3"] {
        if located.value.get(key).is_none() {
            let message = format!("`{path}` lacks `{key}`");
            diagnostics.push(
                Diagnostic::error(message)
                    .at(&located.place, "expected `{ url = \"https://…\", blake3 = \"…\" }`")
                    .note("without a digest nobody could tell whether the download is what it was"),
            );
        }
    }
    Some(DatasetSource::Fetch { url: url?, blake3: blake3? })
}

fn address(value: &Value, path: &str) -> Result<String, Diagnostic> {
    const SCHEMES: [&str; 3] = ["https://", "http://", "file://"];
    let url = text(value, path)?.value;
    if SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        Ok(url)
    } else {
        Err(mismatch(value, path, "an address that begins with `https://`, `http://` or `file://`"))
    }
}

fn digest(value: &Value, path: &str) -> Result<String, Diagnostic> {
    let digest = text(value, path)?.value.to_ascii_lowercase();
    if digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digest)
    } else {
        Err(mismatch(value, path, "a BLAKE3 digest of 64 hexadecimal digits"))
    }
}

fn model(located: Located<Table>, folder: &Path, diagnostics: &mut Diagnostics) -> Option<Model> {
    let mut fields = Fields::new(&located.value, "model");
    let path = fields.read("path", diagnostics, text);
    fields.finish(diagnostics);
    if located.value.get("path").is_none() {
        diagnostics.push(
            Diagnostic::error("`model` does not say where the model is")
                .at(&located.place, "expected `path`")
                .hint("`path` is the folder of a bundle, or the workflow file that trains the model"),
        );
    }
    path.map(|path| Model { path: resolve(&path, folder), place: path.place })
}

fn read_settings(settings: &Table, folder: &Path, diagnostics: &mut Diagnostics) -> Settings {
    let mut fields = Fields::new(settings, "settings");
    let shared_store = fields.read("shared_store", diagnostics, shared_address);
    let read = Settings {
        gpus: fields.read("gpus", diagnostics, |value, path| whole(value, path, 0)),
        memory_bytes: fields.read("memory", diagnostics, quantity::size),
        threads: fields.read("threads", diagnostics, |value, path| whole(value, path, 1)),
        device: fields.read("device", diagnostics, quantity::device),
        worker_silence: fields.read("worker_silence", diagnostics, quantity::duration),
        shared_store: shared_store.map(|written| match written.value {
            Address::Folder(named) => {
                let named = Located::new(named.to_string_lossy().into_owned(), written.place);
                Address::Folder(resolve(&named, folder))
            }
            other => other,
        }),
        shared_use: fields.read("shared_store_mode", diagnostics, quantity::shared_use),
    };
    fields.finish(diagnostics);
    read
}

fn shared_address(value: &Value, path: &str) -> Result<Located<Address>, Diagnostic> {
    let written = text(value, path)?;
    let address = written.value.parse().map_err(|error: AddressError| {
        Diagnostic::error(format!("`{path}`: {error}"))
            .at(&value.place, "not the address of a shared store")
            .hint("for example a folder, or `s3://BUCKET/PREFIX`; access comes from the environment")
    })?;
    Ok(Located::new(address, value.place.clone()))
}

#[derive(Default)]
struct ReadStages {
    declared: Vec<StageDeclaration>,
    disabled: BTreeMap<String, Place>,
    broken: BTreeSet<String>,
}

fn read_stages(tables: Option<&Located<Table>>, axes: &ReadAxes, diagnostics: &mut Diagnostics) -> ReadStages {
    let mut stages = ReadStages::default();
    for entry in tables.into_iter().flat_map(|located| &located.value.entries) {
        let disabled = entry.value.as_table().and_then(|table| table.get("enabled"));
        if let Some(Entry { value: Value { kind: ValueKind::Boolean(false), .. }, key_place, .. }) = disabled {
            stages.disabled.insert(entry.key.clone(), key_place.clone());
            continue;
        }
        let before = diagnostics.len();
        stages.declared.extend(stage::read(entry, axes, diagnostics));
        if diagnostics.len() > before {
            stages.broken.insert(entry.key.clone());
        }
    }
    stages
}
