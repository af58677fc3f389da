//! The folders of a raw dataset: which files belong to which case, and what is missing.
//!
//! nnU-Net's layout: `imagesTr/CASE_CCCC.ENDING` with one file for each channel, `labelsTr/CASE.ENDING`, and `imagesTs`
//! like `imagesTr` without labels. A natural image (PNG, BMP) may hold all channels of its case as colours; a case is then
//! complete with the file of channel 0, and its content is for whoever reads it to check. Archives of the Decathlon hold `._*` files beside the images; whatever starts with a
//! dot is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::description::{DatasetDescription, DescriptionError};
use super::spacing::is_tiff;
use crate::image::ImageFormat;

const TRAINING_IMAGES: &str = "imagesTr";
const TRAINING_LABELS: &str = "labelsTr";
const TEST_IMAGES: &str = "imagesTs";
/// Digits of the channel number in a file name.
pub(super) const CHANNEL_DIGITS: usize = 4;

/// The files of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Name of the case: its file name without channel number and ending.
    pub identifier: String,
    /// Image files, in the order of the channels; a single file may hold several.
    pub channels: Vec<PathBuf>,
    /// Label image; `None` for a case to predict, or where it is missing.
    pub label: Option<PathBuf>,
}

/// What a dataset's folder holds.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetListing {
    /// The dataset's `dataset.json`.
    pub description: DatasetDescription,
    /// Complete training cases, by identifier in ascending order of code points.
    pub training: Vec<Case>,
    /// Cases of `imagesTs`, ordered likewise; they have no labels.
    pub test: Vec<Case>,
    /// Everything that is wrong with the folder; incomplete cases are named here and left out above.
    pub problems: Vec<DatasetProblem>,
}

/// A dataset that could not be listed at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The `dataset.json` cannot be used.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// A folder cannot be read.
    #[error("cannot list `{}`", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
}

/// One thing that is wrong with a dataset's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatasetProblem {
    /// A training case without its label image.
    MissingLabel {
        /// The case.
        identifier: String,
        /// The file that had to be there.
        expected: PathBuf,
    },
    /// A label image without images.
    LabelWithoutImage {
        /// The label image.
        file: PathBuf,
    },
    /// A case that lacks a channel.
    MissingChannel {
        /// The case.
        identifier: String,
        /// The file that had to be there.
        expected: PathBuf,
    },
    /// A case with a channel that `dataset.json` does not declare.
    ExtraChannel {
        /// The case.
        identifier: String,
        /// The file of the channel.
        file: PathBuf,
        /// Number of declared channels.
        declared: usize,
    },
    /// A file whose name or ending is not that of an image of the dataset.
    UnexpectedFile {
        /// The file.
        file: PathBuf,
        /// What file names must look like here.
        expected: String,
    },
    /// `numTraining` differs from the number of cases found; nnU-Net sizes batches by it.
    TrainingCases {
        /// What `dataset.json` says.
        declared: usize,
        /// What is there, incomplete cases included.
        found: usize,
    },
    /// Two cases whose names differ only in upper and lower case, which many file systems take for one.
    SimilarNames {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// One file that serves two cases or channels.
    SharedFile {
        /// The file.
        file: PathBuf,
        /// The cases that name it; the same one twice for two channels.
        identifiers: [String; 2],
    },
    /// A folder without a single image where some are needed.
    NoCases {
        /// The folder.
        folder: PathBuf,
    },
}

impl fmt::Display for DatasetProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingLabel { identifier, expected } => {
                write!(formatter, "case `{identifier}` has no label image: expected `{}`", expected.display())
            }
            Self::LabelWithoutImage { file } => {
                write!(formatter, "label image `{}` belongs to no image in `{TRAINING_IMAGES}`", file.display())
            }
            Self::MissingChannel { identifier, expected } => {
                write!(formatter, "case `{identifier}` lacks a channel: expected `{}`", expected.display())
            }
            Self::ExtraChannel { identifier, file, declared } => write!(
                formatter,
                "case `{identifier}` has `{}`, but `dataset.json` declares {declared} channels",
                file.display()
            ),
            Self::UnexpectedFile { file, expected } => {
                write!(formatter, "`{}` is no file of the dataset: expected names like `{expected}`", file.display())
            }
            Self::TrainingCases { declared, found } => {
                write!(
                    formatter,
                    "`numTraining` of `dataset.json` is {declared}, but the dataset has {found} training cases"
                )
            }
            Self::SimilarNames { first, second } => {
                write!(formatter, "cases `{first}` and `{second}` differ only in upper and lower case")
            }
            Self::SharedFile { file, identifiers: [first, second] } => {
                write!(formatter, "`{}` is used twice: by case `{first}` and by case `{second}`", file.display())
            }
            Self::NoCases { folder } => write!(formatter, "no images in `{}`", folder.display()),
        }
    }
}

impl DatasetProblem {
    /// The case that cannot be used because of it, if the problem is one case's alone.
    #[must_use]
    pub fn identifier(&self) -> Option<&str> {
        match self {
            Self::MissingLabel { identifier, .. }
            | Self::MissingChannel { identifier, .. }
            | Self::ExtraChannel { identifier, .. } => Some(identifier),
            _ => None,
        }
    }
}

/// Reads the `dataset.json` of a raw dataset and lists its files; images are not opened.
///
/// # Errors
/// [`DatasetError`] if the description or a folder cannot be read. What is wrong with single files is in
/// [`DatasetListing::problems`].
pub fn scan_dataset(folder: &Path) -> Result<DatasetListing, DatasetError> {
    let description = DatasetDescription::read(&folder.join("dataset.json"))?;
    let mut scan = Scan {
        folder,
        ending: &description.file_ending,
        channels: description.channel_names.len(),
        problems: Vec::new(),
    };
    let training = match &description.cases {
        Some(_) => scan.explicit_cases(&description),
        None => scan.training_cases(&description)?,
    };
    let test_folder = folder.join(TEST_IMAGES);
    let test = if test_folder.is_dir() { scan.images(&test_folder)? } else { Vec::new() };
    let problems = scan.problems;
    Ok(DatasetListing { description, training, test, problems })
}

/// Lists the cases of a folder of images to predict, such as `imagesTs`, and what is wrong with it.
///
/// `channels` is the number of channels that each case must have, in files of their own or as the colours of one;
/// `ending` is that of its files.
///
/// # Errors
/// [`DatasetError::Folder`] if the folder cannot be read.
pub fn scan_images(
    folder: &Path,
    ending: &str,
    channels: usize,
) -> Result<(Vec<Case>, Vec<DatasetProblem>), DatasetError> {
    let mut scan = Scan { folder, ending, channels, problems: Vec::new() };
    let cases = scan.images(folder)?;
    if cases.is_empty() && scan.problems.is_empty() {
        scan.problems.push(DatasetProblem::NoCases { folder: folder.to_path_buf() });
    }
    Ok((cases, scan.problems))
}

/// Files of one case by channel number.
type ChannelFiles = BTreeMap<usize, PathBuf>;

/// One walk over the folders of a dataset.
struct Scan<'a> {
    folder: &'a Path,
    ending: &'a str,
    channels: usize,
    problems: Vec<DatasetProblem>,
}

impl Scan<'_> {
    /// Cases of `imagesTr` and `labelsTr`.
    fn training_cases(&mut self, description: &DatasetDescription) -> Result<Vec<Case>, DatasetError> {
        let folder = self.folder.join(TRAINING_IMAGES);
        let groups = self.channel_files(&folder)?;
        if groups.is_empty() {
            self.problems.push(DatasetProblem::NoCases { folder: folder.clone() });
        }
        self.count(description.training_cases, groups.len());
        let mut labels = self.label_files()?;
        let mut cases = self.complete(groups, &folder);
        for case in &mut cases {
            case.label = labels.remove(&case.identifier);
        }
        // Labels of cases that lack a channel are not orphans.
        let incomplete: BTreeSet<&str> = self.problems.iter().filter_map(DatasetProblem::identifier).collect();
        labels.retain(|identifier, _| !incomplete.contains(identifier.as_str()));
        self.problems.extend(labels.into_values().map(|file| DatasetProblem::LabelWithoutImage { file }));
        let (labelled, unlabelled): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.label.is_some());
        self.problems.extend(unlabelled.into_iter().map(|case| {
            let expected = self.folder.join(TRAINING_LABELS).join(format!("{}{}", case.identifier, self.ending));
            DatasetProblem::MissingLabel { identifier: case.identifier, expected }
        }));
        Ok(labelled)
    }

    /// Cases that `dataset.json` lists itself.
    fn explicit_cases(&mut self, description: &DatasetDescription) -> Vec<Case> {
        let listed = description.cases.iter().flatten();
        let mut users: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut cases = Vec::new();
        for (identifier, files) in listed {
            let channels: Vec<PathBuf> = files.images.iter().map(|image| self.folder.join(image)).collect();
            let label = self.folder.join(&files.label);
            for file in channels.iter().chain([&label]) {
                if let Some(first) = users.insert(file.clone(), identifier.clone()) {
                    let identifiers = [first, identifier.clone()];
                    self.problems.push(DatasetProblem::SharedFile { file: file.clone(), identifiers });
                }
            }
            cases.extend(self.existing(identifier, channels, label));
        }
        self.count(description.training_cases, description.cases.iter().flatten().count());
        self.similar_names(description.cases.iter().flatten().map(|(identifier, _)| identifier.as_str()));
        cases
    }

    /// The case, if all its files are there.
    fn existing(&mut self, identifier: &str, channels: Vec<PathBuf>, label: PathBuf) -> Option<Case> {
        let before = self.problems.len();
        let identifier = identifier.to_owned();
        let absent = channels.iter().filter(|file| !file.is_file());
        self.problems.extend(
            absent
                .map(|file| DatasetProblem::MissingChannel { identifier: identifier.clone(), expected: file.clone() }),
        );
        if !label.is_file() {
            self.problems
                .push(DatasetProblem::MissingLabel { identifier: identifier.clone(), expected: label.clone() });
        }
        let complete = self.problems.len() == before;
        complete.then_some(Case { identifier, channels, label: Some(label) })
    }

    /// Cases of a folder of images.
    fn images(&mut self, folder: &Path) -> Result<Vec<Case>, DatasetError> {
        let groups = self.channel_files(folder)?;
        Ok(self.complete(groups, folder))
    }

    /// Image files by identifier and channel number.
    fn channel_files(&mut self, folder: &Path) -> Result<BTreeMap<String, ChannelFiles>, DatasetError> {
        let mut groups: BTreeMap<String, ChannelFiles> = BTreeMap::new();
        for file in self.image_files(folder)? {
            match split_channel(&file, self.ending) {
                Some((identifier, channel)) => {
                    groups.entry(identifier.to_owned()).or_default().insert(channel, file);
                }
                None => {
                    let expected = format!("case_0000{}", self.ending);
                    self.problems.push(DatasetProblem::UnexpectedFile { file, expected });
                }
            }
        }
        self.similar_names(groups.keys().map(String::as_str));
        Ok(groups)
    }

    /// Files of a folder without those that say how large the voxels of TIFF volumes are.
    fn image_files(&self, folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
        let mut files = visible_files(folder)?;
        if is_tiff(self.ending) {
            files.retain(|file| file.extension().is_none_or(|extension| extension != "json"));
        }
        Ok(files)
    }

    /// Label files by identifier.
    fn label_files(&mut self) -> Result<BTreeMap<String, PathBuf>, DatasetError> {
        let mut labels = BTreeMap::new();
        for file in self.image_files(&self.folder.join(TRAINING_LABELS))? {
            match file_name(&file).and_then(|name| name.strip_suffix(self.ending)) {
                Some(identifier) if !identifier.is_empty() => {
                    labels.insert(identifier.to_owned(), file);
                }
                _ => {
                    let expected = format!("case{}", self.ending);
                    self.problems.push(DatasetProblem::UnexpectedFile { file, expected });
                }
            }
        }
        Ok(labels)
    }

    /// The cases that have every declared channel and no other.
    fn complete(&mut self, groups: BTreeMap<String, ChannelFiles>, folder: &Path) -> Vec<Case> {
        let mut cases = Vec::new();
        for (identifier, files) in groups {
            let before = self.problems.len();
            let needed = if self.may_hold_colours(&files) { 1 } else { self.channels };
            for channel in (0..needed).filter(|channel| !files.contains_key(channel)) {
                let file = format!("{identifier}_{channel:0CHANNEL_DIGITS$}{}", self.ending);
                let expected = folder.join(file);
                self.problems.push(DatasetProblem::MissingChannel { identifier: identifier.clone(), expected });
            }
            for file in files.range(self.channels..).map(|(_, file)| file.clone()) {
                let declared = self.channels;
                self.problems.push(DatasetProblem::ExtraChannel { identifier: identifier.clone(), file, declared });
            }
            if self.problems.len() == before {
                cases.push(Case { identifier, channels: files.into_values().collect(), label: None });
            }
        }
        cases
    }

    /// True if the only file of a case is one whose format has colours.
    fn may_hold_colours(&self, files: &ChannelFiles) -> bool {
        let natural = matches!(ImageFormat::of(self.ending), Ok(ImageFormat::Png | ImageFormat::Bmp));
        natural && files.keys().eq(&[0])
    }

    fn count(&mut self, declared: Option<usize>, found: usize) {
        if let Some(declared) = declared.filter(|&declared| declared != found) {
            self.problems.push(DatasetProblem::TrainingCases { declared, found });
        }
    }

    fn similar_names<'n>(&mut self, identifiers: impl Iterator<Item = &'n str>) {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for identifier in identifiers {
            if let Some(first) = seen.insert(identifier.to_lowercase(), identifier) {
                let (first, second) = (first.to_owned(), identifier.to_owned());
                self.problems.push(DatasetProblem::SimilarNames { first, second });
            }
        }
    }
}

/// Files of a folder in ascending order; hidden ones and folders are passed over.
fn visible_files(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let failed = |source| DatasetError::Folder { folder: folder.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Links are followed: shared datasets are often made of links.
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Identifier and channel number of `identifier_0000.ending`.
fn split_channel<'a>(file: &'a Path, ending: &str) -> Option<(&'a str, usize)> {
    let stem = file_name(file)?.strip_suffix(ending)?;
    let (identifier, digits) = stem.rsplit_once('_')?;
    let is_number = digits.len() == CHANNEL_DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    let channel = digits.parse().ok().filter(|_| is_number)?;
    (!identifier.is_empty()).then_some((identifier, channel))
}

pub(super) fn file_name(file: &Path) -> Option<&str> {
    file.file_name()?.to_str()
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
