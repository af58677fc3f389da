//! Folders of label images, as stages after prediction take them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ndarray::Array3;
use nnflow_io::image::read_labels;
use nnflow_nnunet::workbench::{Bench, Made};
use nnflow_stage::Artifact;
use serde_json::Value;

use crate::{Folder, Problem};

/// A set of predictions with their references and the description of their dataset.
pub(crate) struct LabelledSet {
    /// The label images that were predicted.
    pub(crate) predictions: Made,
    /// The references.
    pub(crate) references: Made,
    /// `dataset.json`.
    pub(crate) description: Made,
    /// Ending of all label images, with its dot.
    pub(crate) file_ending: String,
}

impl LabelledSet {
    /// Reads `dataset.json`, `prediction` and `reference` of a set.
    pub(crate) fn read(bench: &Bench, folder: &Folder, set: &str) -> Result<Self, Problem> {
        let description: Value = folder.json(&format!("{set}/dataset.json"))?;
        // It tells which labels there are, which `dataset.json` tells as well.
        folder.set_aside(&format!("{set}/plans.json"));
        let file_ending = description["file_ending"].as_str().unwrap_or(".nii.gz").to_owned();
        let predictions = label_images(folder, &format!("{set}/prediction"), &file_ending)?;
        let name = format!("labels{file_ending}");
        let made = predictions.iter().map(|(case, path)| Made::of_case(case, &[(&name, path)]));
        let predictions = Made::united(made.collect::<Result<Vec<_>, _>>()?)?;
        let mut references = Vec::new();
        for (case, path) in label_images(folder, &format!("{set}/reference"), &file_ending)? {
            let (labels, geometry) = read_labels(&path, &file_ending).map_err(Problem::refused)?;
            references.push(bench.reference(&case, labels.view(), geometry, &file_ending)?);
        }
        let references = Made::united(references)?;
        Ok(Self { predictions, references, description: Made::Document(description), file_ending })
    }
}

/// The label images of a folder by their names without ending.
pub(crate) fn label_images(
    folder: &Folder,
    relative: &str,
    file_ending: &str,
) -> Result<BTreeMap<String, PathBuf>, Problem> {
    let names = folder.files(relative)?;
    let cases = names.iter().filter_map(|name| name.strip_suffix(file_ending));
    let images: BTreeMap<String, PathBuf> =
        cases.map(|case| (case.to_owned(), folder.path(&format!("{relative}/{case}{file_ending}")))).collect();
    if images.is_empty() { Err(Problem::missing(folder.path(relative))) } else { Ok(images) }
}

/// The labels in an artifact of one label image.
pub(crate) fn labels_of(artifact: &Artifact) -> Result<Array3<i16>, Problem> {
    let file = artifact.files.first();
    let file = file.ok_or_else(|| Problem::Refused { message: "a stage made no label image".to_owned() })?;
    Ok(read_labels(&file.path, &file.name).map_err(Problem::refused)?.0)
}
