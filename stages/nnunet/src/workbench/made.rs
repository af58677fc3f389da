//! What arrives at a stage and what it makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nnflow_stage::{Artifact, Axes, FileRef, InputValue, OutputFile, OutputSource, StageError};
use serde_json::Value;

use crate::sources;

/// What a node made at one port, or what a source gives.
#[derive(Debug, Clone)]
pub enum Made {
    /// One artifact, with the name of its document.
    One(Artifact, Option<&'static str>),
    /// One artifact a case.
    Items(BTreeMap<String, Artifact>),
    /// A document that lies in no file.
    Document(Value),
    /// What several producers made, with their values on the axes that are gathered.
    Many(Vec<(Axes, Made)>),
}

impl Made {
    /// Files, each with its name in the artifact, as the artifact of one case.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn of_case(identifier: &str, files: &[(&str, &Path)]) -> Result<Self, StageError> {
        Ok(Self::Items(BTreeMap::from([(identifier.to_owned(), artifact(files)?)])))
    }

    /// Files, each with its name in the artifact; one of them may be the artifact's document.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn of_files(files: &[(&str, &Path)], document: Option<&'static str>) -> Result<Self, StageError> {
        Ok(Self::One(artifact(files)?, document))
    }

    /// The cases and the description of a dataset in nnU-Net's layout; `only` restricts them to those named.
    ///
    /// # Errors
    /// If the dataset has a problem, or a file cannot be read.
    pub fn of_dataset(folder: &Path, only: Option<&[String]>) -> Result<(Self, Self), StageError> {
        let listing = sources::dataset(folder, only)?;
        if !listing.problems.is_empty() {
            let message = format!("the dataset `{}` cannot be used as it is", folder.display());
            return Err(StageError::input(message).with_details(listing.problems));
        }
        let mut cases = BTreeMap::new();
        for (case, files) in listing.cases {
            let files: Vec<(&str, &Path)> =
                files.iter().map(|file| (file.name.as_str(), file.path.as_path())).collect();
            cases.insert(case, artifact(&files)?);
        }
        let description = folder.join("dataset.json");
        let description = crate::read_json(&fs_err::read(&description)?).map_err(unreadable)?;
        Ok((Self::Items(cases), Self::Document(description)))
    }

    /// What several producers made, told by their values on one or several axes.
    #[must_use]
    pub fn gathered(producers: Vec<(&[(&str, &str)], Self)>) -> Self {
        Self::Many(producers.into_iter().map(|(values, made)| (axes_of(values), made)).collect())
    }

    /// The cases of several.
    ///
    /// # Errors
    /// If one of them is not per case.
    pub fn united(parts: impl IntoIterator<Item = Self>) -> Result<Self, StageError> {
        let mut cases = BTreeMap::new();
        for part in parts {
            cases.extend(part.into_cases()?);
        }
        Ok(Self::Items(cases))
    }

    /// The cases, by their identifiers.
    ///
    /// # Errors
    /// If this is not per case.
    pub fn cases(&self) -> Result<&BTreeMap<String, Artifact>, StageError> {
        match self {
            Self::Items(items) => Ok(items),
            _ => Err(StageError::internal("an artifact that is not per case was asked for its cases")),
        }
    }

    /// The artifact of a case.
    ///
    /// # Errors
    /// If this is not per case, or has no such case.
    pub fn artifact_of_case(&self, identifier: &str) -> Result<&Artifact, StageError> {
        let missing = || StageError::input(format!("there is no case `{identifier}`"));
        self.cases()?.get(identifier).ok_or_else(missing)
    }

    /// The document.
    ///
    /// # Errors
    /// If there is none, or it is no JSON.
    pub fn read_document(&self) -> Result<Value, StageError> {
        let none = || StageError::internal("an artifact without a document was asked for it");
        match self {
            Self::One(artifact, Some(name)) => {
                let file = artifact.file(name).ok_or_else(none)?;
                crate::read_json(&fs_err::read(&file.path)?).map_err(unreadable)
            }
            Self::Document(document) => Ok(document.clone()),
            _ => Err(none()),
        }
    }

    pub(super) fn into_cases(self) -> Result<BTreeMap<String, Artifact>, StageError> {
        self.cases().cloned()
    }

    /// The producers, with their axes.
    pub(super) fn members(&self) -> Vec<(Axes, &Self)> {
        match self {
            Self::Many(members) => members.iter().map(|(axes, made)| (axes.clone(), made)).collect(),
            one => vec![(Axes::new(), one)],
        }
    }

    /// The identifiers of all cases.
    pub(super) fn names(&self) -> Vec<String> {
        let cases = self.members().into_iter().filter_map(|(_, made)| made.cases().ok());
        let names: BTreeSet<String> = cases.flat_map(|cases| cases.keys().cloned()).collect();
        names.into_iter().collect()
    }

    /// What one producer gives to a task: this case's artifact in a per-case phase, everything otherwise.
    pub(super) fn value(&self, item: Option<&str>) -> Result<Option<InputValue>, StageError> {
        match (self, item) {
            (Self::Items(items), Some(item)) => Ok(items.get(item).cloned().map(InputValue::One)),
            (Self::Items(items), None) => Ok(Some(InputValue::Items(items.clone()))),
            (Self::One(artifact, _), _) => Ok(Some(InputValue::One(artifact.clone()))),
            (Self::Document(_) | Self::Many(_), _) => {
                Err(StageError::input("a document arrives at an input that needs files"))
            }
        }
    }
}

/// The artifact of what a stage wrote or passed on.
pub(super) fn artifact_of(files: Vec<OutputFile>) -> Result<Artifact, StageError> {
    let file = |file: OutputFile| match file.source {
        OutputSource::Written { path } => Ok(FileRef { incidental: file.incidental, ..file_ref(&file.name, &path)? }),
        OutputSource::Forwarded { path, digest, bytes } => {
            Ok(FileRef { name: file.name, path, digest, bytes, incidental: file.incidental })
        }
    };
    let files = files.into_iter().map(file).collect::<Result<_, StageError>>()?;
    Ok(sorted(files))
}

fn artifact(files: &[(&str, &Path)]) -> Result<Artifact, StageError> {
    let files = files.iter().map(|(name, path)| file_ref(name, path)).collect::<Result<_, _>>()?;
    Ok(sorted(files))
}

fn sorted(mut files: Vec<FileRef>) -> Artifact {
    files.sort_by(|first, second| first.name.cmp(&second.name));
    Artifact { files }
}

fn file_ref(name: &str, path: &Path) -> Result<FileRef, StageError> {
    let content = fs_err::read(path)?;
    let digest = blake3::hash(&content).to_hex().to_string();
    let bytes = content.len() as u64;
    Ok(FileRef { name: name.to_owned(), path: path.to_path_buf(), digest, bytes, incidental: false })
}

fn axes_of(values: &[(&str, &str)]) -> Axes {
    values.iter().map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned())).collect()
}

fn unreadable(error: nnflow_io::json::JsonError) -> StageError {
    StageError::storage("a document cannot be read").with_source(error)
}
