//! The model that a workflow predicts with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nnflow_cache::{Store, derive_digest};
use nnflow_nnunet::foreign::{self, IMPORT_VERSION, ImportOptions};
use nnflow_nnunet::sources::{self, Listing, SourceFile};
use nnflow_stage::{ErrorKind, ErrorReport};
use serde_json::{Map, json};

use super::{OpenError, OpenOptions, Session};
use crate::engine::perform::storage;
use crate::engine::state::{Port, Slot, Status};
use crate::workflow::Workflow;

/// The folder in the store that holds bundles of nnU-Net's models, each in a folder named after what it was made of.
const IMPORT_FOLDER: &str = "imported";
/// What keeps their names apart from other digests.
const IMPORT_CONTEXT: &str = "nnflow-import-v1";

/// Where a model can be read: nnU-Net's is imported into the store of this folder, once for each content.
///
/// # Errors
/// If it is nnU-Net's and cannot be imported.
pub fn bundle_folder(path: &Path, store: &Path, options: &ImportOptions) -> Result<PathBuf, ErrorReport> {
    if !foreign::is_foreign(path) {
        return Ok(path.to_path_buf());
    }
    let needed = foreign::needed_files(path, options).map_err(|error| error.report())?;
    let store = Store::open(store).map_err(|error| storage(&error))?;
    let digests = store.stat_cache().map_err(|error| storage(&error))?;
    let mut content = Map::new();
    for file in needed {
        let digest = digests.digest_of(&file.path).map_err(|error| storage(&error))?.digest;
        content.insert(file.name, digest.to_hex().into());
    }
    digests.save().map_err(|error| storage(&error))?;
    let name = derive_digest(IMPORT_CONTEXT, &json!({"version": IMPORT_VERSION, "files": content})).short();
    let folder = store.root().join(IMPORT_FOLDER).join(name);
    let is_there = || folder.join("bundle.json").is_file();
    if !is_there() {
        match foreign::import(path, options, &folder) {
            // Another process may have imported the same model meanwhile.
            Err(error) if !is_there() => return Err(error.report()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(folder)
}

/// The values of the axes that the model decides.
pub(super) fn axis_values(workflow: &Workflow) -> Result<Option<BTreeMap<String, Vec<String>>>, ErrorReport> {
    let Some(model) = &workflow.model else { return Ok(None) };
    if workflow.axes_from_model().next().is_none() {
        return Ok(None);
    }
    let axes = bundle_document(&model.path)?.get("axes").cloned().unwrap_or_default();
    let values: BTreeMap<String, Vec<String>> = serde_json::from_value(axes)
        .map_err(|error| ErrorReport::new(ErrorKind::Input, format!("`axes` in the model's `bundle.json`: {error}")))?;
    match workflow.axes_from_model().find(|axis| values.get(&axis.name).is_none_or(Vec::is_empty)) {
        Some(axis) => {
            let message = format!("`axes` in the model's `bundle.json` gives axis `{}` no values", axis.name);
            Err(ErrorReport::new(ErrorKind::Input, message))
        }
        None => Ok(Some(values)),
    }
}

/// The recipe that a model is to be predicted with, as its bundle says.
///
/// # Errors
/// If there is no such model, or its bundle names no recipe.
pub fn prediction_recipe(model: &Path) -> Result<String, ErrorReport> {
    let document = bundle_document(model)?;
    let recipe = document.get("recipe").and_then(serde_json::Value::as_str);
    recipe
        .map(str::to_owned)
        .ok_or_else(|| ErrorReport::new(ErrorKind::Input, "`bundle.json` of the model names no `recipe`"))
}

fn bundle_document(model: &Path) -> Result<serde_json::Value, ErrorReport> {
    let listing = model_listing(model)?;
    let bundle = listing.documents.get("bundle").into_iter().flatten().find(|file| file.name == "bundle.json");
    let bundle = bundle.ok_or_else(|| ErrorReport::new(ErrorKind::Input, "the model has no `bundle.json`"))?;
    let bytes = fs_err::read(&bundle.path).map_err(|error| ErrorReport::new(ErrorKind::Storage, error.to_string()))?;
    nnflow_nnunet::read_json(&bytes)
        .map_err(|error| ErrorReport::new(ErrorKind::Input, format!("`bundle.json` of the model: {error}")))
}

/// The files of a model: a bundle's folder, or a workflow whose bundle is meant.
///
/// # Errors
/// If there is no such model, or the workflow has not made one yet.
pub fn model_listing(path: &Path) -> Result<Listing, ErrorReport> {
    if path.is_dir() {
        return sources::bundle(path).map_err(|error| error.report());
    }
    if !path.is_file() {
        return Err(ErrorReport {
            hint: Some("name a model's folder, or a workflow that has run".to_owned()),
            ..ErrorReport::new(ErrorKind::Input, format!("there is no model `{}`", path.display()))
        });
    }
    let session = Session::open(path, &OpenOptions::default()).map_err(|error| match error {
        OpenError::Source(report) => report,
        OpenError::Workflow(diagnostics) => ErrorReport::new(ErrorKind::Input, diagnostics.to_string()),
        OpenError::Store(error) => ErrorReport::new(ErrorKind::Storage, error.to_string()),
        OpenError::Shared(error) => ErrorReport::new(ErrorKind::Storage, error.to_string()),
    })?;
    bundle_of(&session, path)
}

fn bundle_of(session: &Session, path: &Path) -> Result<Listing, ErrorReport> {
    let state = session.settled()?;
    let unfinished = |problem: &str| ErrorReport {
        hint: Some(format!("run it first: `nnflow run {}`", path.display())),
        ..ErrorReport::new(ErrorKind::Input, format!("workflow `{}` {problem}", path.display()))
    };
    let mut nodes = session.graph.order().iter().filter(|index| session.graph.node(**index).uses == "bundle");
    let node = nodes.next().ok_or_else(|| unfinished("makes no model: it has no stage `bundle`"))?;
    let node_state = &state.nodes[node.index()];
    let Some(Port::One(Slot::Made(held))) =
        node_state.ports.get("bundle").filter(|_| node_state.status == Status::Done)
    else {
        return Err(unfinished("has no model yet"));
    };
    let files = held
        .artifact
        .files()
        .iter()
        .map(|file| SourceFile { name: file.name.clone(), path: session.store.object_path(&file.digest) });
    Ok(sources::bundle_listing(files.collect()))
}

pub(super) fn description_of(model: &Listing) -> Result<&Path, ErrorReport> {
    let files = model.documents.get("description").and_then(|files| files.first());
    files
        .map(|file| file.path.as_path())
        .ok_or_else(|| ErrorReport::new(ErrorKind::Input, "the model has no `dataset.json`"))
}
