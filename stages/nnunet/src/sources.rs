//! What a workflow can start from: a dataset in nnU-Net's raw layout, a folder of images, a trained model.
//!
//! A source lists files and reads none of them, apart from the dataset's description: what is in an image is found out by
//! the stage `ingest`, case by case, so that every problem of a dataset is reported with the name of its case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nnflow_io::dataset::{Case, DatasetDescription, DatasetProblem, scan_dataset, scan_images, spacing_file};
use nnflow_stage::{OutputPort, StageError};

/// A file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name within the artifact, with the ending that tells its format.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// What a source lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The port of the cases, if the source has cases.
    pub cases_port: Option<&'static str>,
    /// The files of each case, by its identifier.
    pub cases: BTreeMap<String, Vec<SourceFile>>,
    /// The files of each port that is not per case.
    pub documents: BTreeMap<String, Vec<SourceFile>>,
    /// What is odd without being wrong.
    pub warnings: Vec<String>,
    /// What is wrong; cases that are named here are left out.
    pub problems: Vec<String>,
}

/// What the source `dataset` gives.
pub const DATASET_PORTS: &[OutputPort] = &[
    OutputPort {
        name: "cases",
        kind: "raw",
        per_case: true,
        optional: false,
        document: None,
        doc: "the image files of each case (`0000.nii.gz`, …) and its label file (`label.nii.gz`)",
    },
    OutputPort {
        name: "description",
        kind: "description",
        per_case: false,
        optional: false,
        document: Some("dataset.json"),
        doc: "`dataset.json`: channels, labels, file ending",
    },
    OutputPort {
        name: "splits",
        kind: "split",
        per_case: false,
        optional: true,
        document: Some("splits_final.json"),
        doc: "`splits_final.json`, if the dataset brings its own folds",
    },
];

/// What the source `model` gives.
pub const MODEL_PORTS: &[OutputPort] = &[
    OutputPort {
        name: "bundle",
        kind: "bundle",
        per_case: false,
        optional: false,
        document: Some("bundle.json"),
        doc: "a trained model with all that prediction needs",
    },
    OutputPort {
        name: "description",
        kind: "description",
        per_case: false,
        optional: false,
        document: Some("dataset.json"),
        doc: "the description of the dataset that the model was trained on",
    },
    OutputPort {
        name: "plan",
        kind: "plan",
        per_case: false,
        optional: false,
        document: Some("plans.json"),
        doc: "the plan that the model was trained with",
    },
    OutputPort {
        name: "rules",
        kind: "rules",
        per_case: false,
        optional: false,
        document: Some("postprocessing.json"),
        doc: "the postprocessing that was found to help",
    },
];

/// The distances between voxels of a volume whose format has none, among the files of a case.
pub(crate) const SPACING: &str = "spacing.json";
/// As [`SPACING`], of the label image.
pub(crate) const LABEL_SPACING: &str = "label_spacing.json";

/// Files of a bundle that stand for a port of their own.
const BUNDLE_DOCUMENTS: [(&str, &str); 3] =
    [("description", "dataset.json"), ("plan", "plans.json"), ("rules", "postprocessing.json")];

/// Lists the training cases of a dataset in nnU-Net's raw layout; `only` restricts them to those named.
///
/// # Errors
/// If the folder cannot be read, `dataset.json` does not describe a dataset, or a case that is named is not there.
pub fn dataset(folder: &Path, only: Option<&[String]>) -> Result<Listing, StageError> {
    if !folder.is_dir() {
        return Err(StageError::input(format!("there is no dataset folder `{}`", folder.display())).with_hint(
            "`[dataset] path` is relative to the workflow's file; `nnflow phantom DIR` makes a dataset to try",
        ));
    }
    let found = scan_dataset(folder).map_err(|error| unusable(folder, error))?;
    let mut listing = Listing { cases_port: Some("cases"), ..Listing::default() };
    for problem in &found.problems {
        let told = match problem {
            DatasetProblem::TrainingCases { .. } | DatasetProblem::SimilarNames { .. } => &mut listing.warnings,
            _ => &mut listing.problems,
        };
        told.push(problem.to_string());
    }
    listing.cases = found
        .training
        .iter()
        .map(|case| (case.identifier.clone(), files_of(case, &found.description.file_ending)))
        .collect();
    if let Some(only) = only {
        let missing: Vec<_> = only.iter().filter(|name| !listing.cases.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            return Err(StageError::input(format!(
                "the dataset `{}` lacks cases that the workflow names",
                folder.display()
            ))
            .with_details(missing));
        }
        listing.cases.retain(|name, _| only.contains(name));
    }
    listing.documents.insert("description".to_owned(), vec![file_in(folder, "dataset.json")]);
    if folder.join("splits_final.json").is_file() {
        listing.documents.insert("splits".to_owned(), vec![file_in(folder, "splits_final.json")]);
    }
    Ok(listing)
}

/// Lists a folder of images to predict, named as the description of the model's dataset (its `dataset.json`) says.
///
/// # Errors
/// If the description or the folder cannot be read.
pub fn images(folder: &Path, description: &Path) -> Result<Listing, StageError> {
    if !folder.is_dir() {
        return Err(StageError::input(format!("there is no folder of images `{}`", folder.display())));
    }
    let description = DatasetDescription::read(description).map_err(|error| unusable(folder, error))?;
    let channels = description.channel_names.len();
    let (cases, problems) =
        scan_images(folder, &description.file_ending, channels).map_err(|error| unusable(folder, error))?;
    Ok(Listing {
        cases_port: Some("cases"),
        cases: cases.iter().map(|case| (case.identifier.clone(), files_of(case, &description.file_ending))).collect(),
        problems: problems.iter().map(ToString::to_string).collect(),
        ..Listing::default()
    })
}

/// Lists a trained model's bundle.
///
/// # Errors
/// If the folder cannot be read or is no bundle.
pub fn bundle(folder: &Path) -> Result<Listing, StageError> {
    if !folder.join("bundle.json").is_file() {
        return Err(StageError::input(format!("`{}` is no trained model: it has no `bundle.json`", folder.display()))
            .with_hint("`nnflow show bundle --output DIR` writes the model of a workflow that has run"));
    }
    let mut files = Vec::new();
    files_below(folder, Path::new(""), &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bundle_listing(files))
}

/// The listing of a bundle whose files lie anywhere.
#[must_use]
pub fn bundle_listing(files: Vec<SourceFile>) -> Listing {
    let mut listing = Listing::default();
    for (port, name) in BUNDLE_DOCUMENTS {
        if let Some(file) = files.iter().find(|file| file.name == name) {
            listing.documents.insert(port.to_owned(), vec![file.clone()]);
        }
    }
    listing.documents.insert("bundle".to_owned(), files);
    listing
}

fn files_below(folder: &Path, below: &Path, files: &mut Vec<SourceFile>) -> Result<(), StageError> {
    for entry in fs_err::read_dir(folder.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files_below(folder, &name, files)?;
        } else if kind.is_file() {
            let name = name
                .to_str()
                .ok_or_else(|| StageError::input(format!("the name `{}` is not valid Unicode", name.display())))?;
            files.push(SourceFile { name: name.to_owned(), path: entry.path() });
        }
    }
    Ok(())
}

fn files_of(case: &Case, ending: &str) -> Vec<SourceFile> {
    let channels = case.channels.iter().enumerate();
    let images =
        channels.map(|(channel, path)| SourceFile { name: format!("{channel:04}{ending}"), path: path.clone() });
    let label = case.label.iter().map(|path| SourceFile { name: format!("label{ending}"), path: path.clone() });
    let spacing = case.channels.first().and_then(|image| spacing_file(image, ending, true));
    let label_spacing = case.label.as_ref().and_then(|label| spacing_file(label, ending, false));
    let spacings = [(SPACING, spacing), (LABEL_SPACING, label_spacing)].into_iter();
    let spacings = spacings.filter_map(|(name, path)| Some(SourceFile { name: name.to_owned(), path: path? }));
    images.chain(label).chain(spacings).collect()
}

fn file_in(folder: &Path, name: &str) -> SourceFile {
    SourceFile { name: name.to_owned(), path: folder.join(name) }
}

fn unusable(folder: &Path, error: impl std::error::Error + Send + Sync + 'static) -> StageError {
    let mut message = format!("the folder `{}` cannot be used: {error}", folder.display());
    let mut cause = error.source();
    while let Some(inner) = cause {
        message.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    StageError::input(message)
}
