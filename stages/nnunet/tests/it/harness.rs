//! The crate's workbench as tests use it: whatever cannot be done is a failure of the test.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use ndarray::ArrayView3;
use nnflow_io::image::Geometry;
use nnflow_nnunet::workbench;
use nnflow_stage::{Artifact, ErrorReport};
use serde_json::Value;

pub(crate) use nnflow_nnunet::workbench::Made;

/// What tests do with artifacts.
pub(crate) trait MadeInTests: Sized {
    /// The files of a folder as the artifact of one case.
    fn case(identifier: &str, files: &[(&str, &Path)]) -> Self;

    /// The cases and the description of a dataset in nnU-Net's layout.
    fn dataset(folder: &Path) -> (Self, Self);

    /// A folder's files as an artifact.
    fn artifact(files: &[(&str, &Path)], document: Option<&'static str>) -> Self;

    /// The cases.
    fn items(&self) -> &BTreeMap<String, Artifact>;

    /// The document.
    fn document(&self) -> Value;
}

impl MadeInTests for Made {
    fn case(identifier: &str, files: &[(&str, &Path)]) -> Self {
        Self::of_case(identifier, files).expect("files")
    }

    fn dataset(folder: &Path) -> (Self, Self) {
        Self::of_dataset(folder, None).expect("a dataset without a problem")
    }

    fn artifact(files: &[(&str, &Path)], document: Option<&'static str>) -> Self {
        Self::of_files(files, document).expect("files")
    }

    fn items(&self) -> &BTreeMap<String, Artifact> {
        self.cases().expect("an artifact a case")
    }

    fn document(&self) -> Value {
        self.read_document().expect("a document")
    }
}

/// What a stage has made and told.
#[derive(Debug)]
pub(crate) struct Finished(workbench::Finished);

impl Deref for Finished {
    type Target = workbench::Finished;

    fn deref(&self) -> &workbench::Finished {
        &self.0
    }
}

impl Finished {
    /// What was made at a port.
    pub(crate) fn port(&self, name: &str) -> &Made {
        self.0.port(name).expect("an output")
    }

    /// The only error that there is.
    pub(crate) fn failure(&self) -> &ErrorReport {
        assert_eq!(self.failures.len(), 1, "{:?}", self.failures);
        self.failures.values().next().expect("one")
    }
}

/// A folder in which stages run.
pub(crate) struct Bench(workbench::Bench);

/// One node of a graph: a stage with its axes and parameters.
pub(crate) struct Node<'a>(workbench::Node<'a>);

impl Bench {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(workbench::Bench::new().expect("a temporary folder"))
    }

    /// The folder, also for files of a test's own.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A node of a registered stage, with default parameters.
    pub(crate) fn node(&self, stage: &str) -> Node<'_> {
        Node(self.0.node(stage).expect("a stage"))
    }

    /// A folder that nothing lies in yet.
    pub(crate) fn fresh_folder(&self) -> PathBuf {
        self.0.fresh_folder().expect("a folder")
    }

    /// A labelled case without its image.
    pub(crate) fn reference(
        &self,
        case: &str,
        labels: ArrayView3<'_, i16>,
        geometry: Geometry,
        file_ending: &str,
    ) -> Made {
        self.0.reference(case, labels, geometry, file_ending).expect("a folder that can be written")
    }
}

impl Node<'_> {
    /// The same node with a value on an axis.
    pub(crate) fn at(self, axis: &str, value: &str) -> Self {
        Self(self.0.at(axis, value))
    }

    /// The same node with other parameters.
    pub(crate) fn with(self, given: Value) -> Self {
        let given = given.as_object().expect("a table of parameters");
        Self(self.0.with(given).expect("valid parameters"))
    }

    /// The slice of a document at a port.
    pub(crate) fn slice(&self, port: &str, document: &Value) -> Value {
        self.0.slice(port, document).expect("a slice")
    }

    /// Runs every phase, and panics if one fails.
    pub(crate) fn run(&self, inputs: &[(&'static str, &Made)]) -> Finished {
        Finished(self.0.run(inputs).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Runs the phases; those after a phase that failed are left out.
    pub(crate) fn try_run(&self, inputs: &[(&'static str, &Made)]) -> Finished {
        Finished(self.0.attempt(inputs).unwrap_or_else(|error| panic!("{error}")))
    }
}
