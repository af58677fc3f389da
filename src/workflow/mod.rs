//! The workflow language: from TOML to a graph of nodes.
//!
//! The way of a workflow: `layers` reads the file and all that it extends and merges them into one `tree`, in which every
//! value knows its place; `declare` understands the tree as a [`Workflow`]; `graph` checks that against the stages that
//! there are, multiplies them along the axes and joins the nodes to a [`Graph`]. Nothing on the way stops at the first
//! error: what is not understood is reported and left out, and whatever depends on it stays silent, so that a person sees
//! all that is wrong at once and nothing that is not.

mod axes;
mod condition;
mod condition_parser;
mod declare;
mod executor;
mod expand;
mod expectation;
mod graph;
mod layers;
mod model;
mod pattern;
mod quantity;
mod read;
mod reference;
mod stage;
mod toml_text;
mod tree;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::diagnostic::{Diagnostics, Source, SourceKind};

pub use condition::{Condition, Facts, Members, Verdict};
pub use expand::expand;
pub use expectation::{Bound, Comparison, Expectation};
pub use graph::{EdgeKind, Graph, Node, NodeInput, NodeSource, Producer, SourceSpec, StageTable};
pub use model::{
    Axis, AxisOrigin, AxisValue, DEFAULT_SEED, Dataset, DatasetSource, Device, InputDeclaration, Model,
    ResourceRequest, Settings, SharedUse, SlurmDeclaration, StageDeclaration, When, Workflow,
};
pub use pattern::{NodePattern, Selector};
pub use quantity::{parse_device, parse_duration, parse_shared_use, parse_size};
pub use reference::{Pick, Reference};
pub use tree::{Entry, Table, Value, ValueKind};

/// A recipe: a workflow that others extend by name.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// The name that `extends` gives.
    pub name: &'static str,
    /// The TOML.
    pub text: &'static str,
}

/// What a workflow is loaded with, besides its file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions<'a> {
    /// What `--set` gives, each as `key.key=value`; these win over all files.
    pub sets: Vec<String>,
    /// The recipes that `extends` can name.
    pub recipes: &'a [Recipe],
    /// The values of axes that the model decides, by axis.
    pub axis_values: BTreeMap<String, Vec<String>>,
}

/// Loads the workflow of a file with all that it inherits.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, options: &LoadOptions<'_>) -> Result<Workflow, Diagnostics> {
    let (workflow, diagnostics) = understand(layers::read_file(path)?, None, options)?;
    let root = Arc::clone(&workflow.root);
    settled(workflow, diagnostics, &root)
}

/// Loads a workflow that is given as a text under the name that people see; relative paths are relative to `folder`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_text(name: &str, text: &str, folder: &Path, options: &LoadOptions<'_>) -> Result<Workflow, Diagnostics> {
    let source = Source::new(name, text, SourceKind::Generated);
    let (workflow, diagnostics) = understand(source, Some(folder), options)?;
    let root = Arc::clone(&workflow.root);
    settled(workflow, diagnostics, &root)
}

/// Builds the graph of a workflow.
///
/// # Errors
/// Everything that does not fit the stages or the sources.
pub fn build_graph(workflow: &Workflow, stages: &dyn StageTable, sources: &[SourceSpec]) -> Result<Graph, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let graph = graph::build(workflow, stages, sources, &mut diagnostics);
    settled(graph, diagnostics, &workflow.root)
}

/// Loads the workflow of a file and builds its graph, so that all that is wrong is said at once.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_graph(
    path: &Path,
    options: &LoadOptions<'_>,
    stages: &dyn StageTable,
    sources: &[SourceSpec],
) -> Result<(Workflow, Graph), Diagnostics> {
    let (workflow, mut diagnostics) = understand(layers::read_file(path)?, None, options)?;
    let graph = graph::build(&workflow, stages, sources, &mut diagnostics);
    let root = Arc::clone(&workflow.root);
    settled((workflow, graph), diagnostics, &root)
}

/// What of a workflow is understood, and what is not.
fn understand(
    root: Arc<Source>,
    folder: Option<&Path>,
    options: &LoadOptions<'_>,
) -> Result<(Workflow, Diagnostics), Diagnostics> {
    let folder = folder.or(root.folder()).unwrap_or(Path::new("")).to_path_buf();
    let layers = layers::merge_all(root, options)?;
    let mut diagnostics = Diagnostics::new();
    let workflow = declare::declare(layers, &folder, options, &mut diagnostics);
    Ok((workflow, diagnostics))
}

fn settled<T>(value: T, mut diagnostics: Diagnostics, root: &Arc<Source>) -> Result<T, Diagnostics> {
    if diagnostics.is_empty() {
        return Ok(value);
    }
    diagnostics.sort(root);
    Err(diagnostics)
}

#[cfg(test)]
mod tests;
