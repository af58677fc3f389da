//! `dataset.json`.
//!
//! The file is walked by hand instead of being derived, so that all that is wrong with it is said at once, each with its
//! key, what was expected, what was found and the key that was probably meant.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::labels::{BACKGROUND, IGNORE, LabelValue, Labels};
use crate::json::{self, JsonError};

/// Keys that nnU-Net or nnflow give a meaning to.
const KNOWN_KEYS: [&str; 9] = [
    "channel_names",
    "modality",
    "labels",
    "regions_class_order",
    "numTraining",
    "file_ending",
    "overwrite_image_reader_writer",
    "name",
    "dataset",
];
/// Similarity (Jaro-Winkler) above which one key is offered as what another was meant to be.
const SIMILAR: f64 = 0.8;

/// What a `dataset.json` declares.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetDescription {
    /// Name of the dataset.
    pub name: Option<String>,
    /// Name of each channel, in the order of the channels; it chooses the normalisation.
    pub channel_names: Vec<String>,
    /// What the voxels of the label images mean.
    pub labels: Labels,
    /// Label that the voxels of each region get when a prediction is written, later ones over earlier ones.
    pub regions_class_order: Option<Vec<i16>>,
    /// Declared number of training cases, by which nnU-Net sizes batches.
    pub training_cases: Option<usize>,
    /// Ending of images and label images, with its dot.
    pub file_ending: String,
    /// Name of the nnU-Net class that is to read the images.
    pub image_reader_writer: Option<String>,
    /// Explicit files of the training cases by identifier, relative to the dataset's folder.
    pub cases: Option<BTreeMap<String, CaseFiles>>,
    /// All other keys, as they are.
    pub extra: Map<String, Value>,
}

/// The files of one case that `dataset.json` lists itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseFiles {
    /// One image for each channel.
    pub images: Vec<PathBuf>,
    /// The label image.
    pub label: PathBuf,
}

/// A `dataset.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// The file cannot be read or is no JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The file is JSON, but does not describe a dataset.
    #[error("`{}` does not describe a dataset: {}", path.display(), list(problems))]
    Problems {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        problems: Vec<DescriptionProblem>,
    },
}

/// One thing that is wrong with a `dataset.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptionProblem {
    /// The key, with the keys around it: `labels.tumour`.
    pub key: String,
    /// What had to stand there.
    pub expected: String,
    /// What stands there; `None` if the key is missing.
    pub found: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for DescriptionProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, expected, found, hint } = self;
        match found {
            Some(found) => write!(formatter, "`{key}`: expected {expected}, found `{found}`")?,
            None => write!(formatter, "`{key}` is missing: expected {expected}")?,
        }
        hint.as_ref().map_or(Ok(()), |hint| write!(formatter, " (hint: {hint})"))
    }
}

fn list(problems: &[DescriptionProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl DatasetDescription {
    /// Reads a `dataset.json`.
    ///
    /// # Errors
    /// [`DescriptionError`], with all that is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, DescriptionError> {
        Self::from_value(json::read(path)?, path)
    }

    /// Interprets the content of the file `name`, which only errors use.
    ///
    /// # Errors
    /// [`DescriptionError::Problems`], with all that is wrong with it.
    pub fn from_value(value: Value, name: &Path) -> Result<Self, DescriptionError> {
        let mut parser = Parser { problems: Vec::new() };
        let description = parser.description(value);
        match description {
            Some(description) if parser.problems.is_empty() => Ok(description),
            _ => Err(DescriptionError::Problems { path: name.to_path_buf(), problems: parser.problems }),
        }
    }

    /// The content of a `dataset.json` that reads as this description.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let channels = self.channel_names.iter().enumerate();
        let mut object = Map::new();
        object.extend(self.name.iter().map(|name| ("name".to_owned(), json!(name))));
        object.insert("channel_names".into(), channels.map(|(index, name)| (index.to_string(), json!(name))).collect());
        let labels = self.labels.entries().map(|(name, value)| {
            let value = match value {
                LabelValue::Label(label) => json!(label),
                LabelValue::Region(labels) => json!(labels),
            };
            (name.to_owned(), value)
        });
        object.insert("labels".into(), labels.collect());
        object.extend(self.regions_class_order.iter().map(|order| ("regions_class_order".to_owned(), json!(order))));
        object.extend(self.training_cases.iter().map(|count| ("numTraining".to_owned(), json!(count))));
        object.insert("file_ending".into(), json!(self.file_ending));
        let reader = self.image_reader_writer.iter();
        object.extend(reader.map(|reader| ("overwrite_image_reader_writer".to_owned(), json!(reader))));
        if let Some(cases) = &self.cases {
            let cases = cases.iter();
            let listed =
                cases.map(|(name, files)| (name.clone(), json!({"images": files.images, "label": files.label})));
            object.insert("dataset".into(), listed.collect());
        }
        object.extend(self.extra.clone());
        Value::Object(object)
    }
}

impl serde::Serialize for DatasetDescription {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for DatasetDescription {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(value, Path::new("dataset.json")).map_err(serde::de::Error::custom)
    }
}

/// Walks the values of a file and collects what is wrong with them.
struct Parser {
    problems: Vec<DescriptionProblem>,
}

impl Parser {
    fn wrong(&mut self, key: impl Into<String>, expected: impl Into<String>, found: &Value) {
        self.push(key, expected, Some(shorten(found)), None);
    }

    fn push(
        &mut self,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: Option<String>,
        hint: Option<String>,
    ) {
        self.problems.push(DescriptionProblem { key: key.into(), expected: expected.into(), found, hint });
    }

    /// The description, unless something that it cannot do without is missing; problems are collected in either case.
    fn description(&mut self, value: Value) -> Option<DatasetDescription> {
        let Value::Object(mut object) = value else {
            self.wrong("dataset.json", "an object with the key `labels` and others", &value);
            return None;
        };
        // Every value is parsed before the first `?`, so that one problem does not hide another.
        let channel_names = self.channel_names(&mut object);
        let labels = self.labels(&mut object);
        let training_cases = self.training_cases(&mut object);
        let file_ending = self.file_ending(&mut object);
        let regions_class_order = self.regions_class_order(&mut object, labels.as_ref());
        let name = self.optional_text(&mut object, "name");
        let image_reader_writer = self.optional_text(&mut object, "overwrite_image_reader_writer");
        let cases = self.cases(&mut object, channel_names.as_ref().map(Vec::len));
        Some(DatasetDescription {
            name,
            channel_names: channel_names?,
            labels: labels?,
            regions_class_order,
            training_cases,
            file_ending: file_ending?,
            image_reader_writer,
            cases,
            extra: object,
        })
    }

    /// Takes a required value out of the object; a missing one is a problem with the key that was probably meant.
    fn required(&mut self, object: &mut Map<String, Value>, key: &str, expected: &str) -> Option<Value> {
        let value = object.shift_remove(key);
        if value.is_none() {
            let hint = nearest(key, object).map(|found| format!("`{found}` is there: rename it to `{key}`"));
            self.push(key, expected, None, hint);
        }
        value
    }

    fn channel_names(&mut self, object: &mut Map<String, Value>) -> Option<Vec<String>> {
        const EXPECTED: &str = r#"an object from channel number to name, such as {"0": "CT"}"#;
        let key = if object.contains_key("channel_names") { "channel_names" } else { "modality" };
        let legacy = object.shift_remove("modality");
        let value = match (object.shift_remove("channel_names"), legacy) {
            (Some(value), _) | (None, Some(value)) => value,
            (None, None) => self.required(object, "channel_names", EXPECTED)?,
        };
        let Value::Object(channels) = value else {
            self.wrong(key, EXPECTED, &value);
            return None;
        };
        if channels.is_empty() {
            self.wrong(key, "at least one channel", &Value::Object(channels));
            return None;
        }
        (0..channels.len()).map(|index| self.channel_name(key, &channels, index)).collect()
    }

    fn channel_name(&mut self, key: &str, channels: &Map<String, Value>, index: usize) -> Option<String> {
        match channels.get(&index.to_string()) {
            Some(Value::String(name)) => Some(name.clone()),
            Some(other) => {
                self.wrong(format!("{key}.{index}"), "the channel's name as a string", other);
                None
            }
            None => {
                let keys = channels.keys().cloned().collect::<Vec<_>>().join(", ");
                let expected = format!("channels numbered 0 to {} (found {keys})", channels.len() - 1);
                self.push(format!("{key}.{index}"), expected, None, None);
                None
            }
        }
    }

    fn labels(&mut self, object: &mut Map<String, Value>) -> Option<Labels> {
        const EXPECTED: &str = r#"an object from name to label, such as {"background": 0, "tumor": 1}"#;
        let value = self.required(object, "labels", EXPECTED)?;
        let Value::Object(declared) = value else {
            self.wrong("labels", EXPECTED, &value);
            return None;
        };
        if declared.get("0").is_some_and(Value::is_string) {
            let hint = "the Decathlon's order is number to name: turn each entry around".to_owned();
            self.push("labels", EXPECTED, Some(shorten(&Value::Object(declared))), Some(hint));
            return None;
        }
        let before = self.problems.len();
        let entries: Vec<_> =
            declared.iter().filter_map(|(name, value)| Some((name.clone(), self.label(name, value)?))).collect();
        if self.problems.len() > before {
            return None;
        }
        let labels = Labels { entries };
        self.background(&labels, &declared);
        self.ignore(&labels);
        Some(labels)
    }

    fn label(&mut self, name: &str, value: &Value) -> Option<LabelValue> {
        let parsed = match value {
            Value::Array(members) if !members.is_empty() => {
                members.iter().map(whole_label).collect::<Option<Vec<_>>>().map(LabelValue::Region)
            }
            other => whole_label(other).map(LabelValue::Label),
        };
        if parsed.is_none() {
            let expected = "a whole number from 0 to 32767, or a list of them for a region";
            self.wrong(format!("labels.{name}"), expected, value);
        }
        parsed
    }

    fn background(&mut self, labels: &Labels, declared: &Map<String, Value>) {
        match labels.entries().find(|(name, _)| *name == BACKGROUND) {
            Some((_, LabelValue::Label(0))) => {}
            Some((_, other)) => self.push("labels.background", "0", Some(other.to_string()), None),
            None => {
                let hint = nearest(BACKGROUND, declared).map(|found| format!("`{found}` is there: rename it"));
                self.push("labels.background", "the label 0", None, hint);
            }
        }
    }

    fn ignore(&mut self, labels: &Labels) {
        let Some((_, declared)) = labels.entries().find(|(name, _)| *name == IGNORE) else { return };
        let highest = labels.all().last().copied().unwrap_or(0);
        let expected = highest.saturating_add(1);
        if *declared != LabelValue::Label(expected) {
            let expected = format!("{expected}, one above the highest label");
            self.push("labels.ignore", expected, Some(declared.to_string()), None);
        }
    }

    fn regions_class_order(&mut self, object: &mut Map<String, Value>, labels: Option<&Labels>) -> Option<Vec<i16>> {
        let regions = labels.map_or(0, |labels| labels.regions().len());
        let expected = format!("a list of {regions} labels, one for each region");
        let Some(value) = object.shift_remove("regions_class_order") else {
            if regions > 0 {
                let hint = nearest("regions_class_order", object).map(|found| format!("`{found}` is there: rename it"));
                self.push("regions_class_order", expected, None, hint);
            }
            return None;
        };
        let order = value.as_array().and_then(|items| items.iter().map(whole_label).collect::<Option<Vec<_>>>());
        match order {
            Some(order) if regions == 0 || order.len() == regions => Some(order),
            // A value that no region needs is nnU-Net's to ignore, unless labels could not be read.
            None if regions == 0 && (value.is_null() || labels.is_some()) => None,
            _ => {
                self.wrong("regions_class_order", expected, &value);
                None
            }
        }
    }

    fn training_cases(&mut self, object: &mut Map<String, Value>) -> Option<usize> {
        let value = object.shift_remove("numTraining")?;
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        if count.is_none() {
            self.wrong("numTraining", "the number of training cases", &value);
        }
        count
    }

    fn file_ending(&mut self, object: &mut Map<String, Value>) -> Option<String> {
        const EXPECTED: &str = "the images' file ending with its dot, such as `.nii.gz`";
        let value = self.required(object, "file_ending", EXPECTED)?;
        match value {
            Value::String(ending) if ending.starts_with('.') && !ending.contains(['/', '\\']) => Some(ending),
            other => {
                self.wrong("file_ending", EXPECTED, &other);
                None
            }
        }
    }

    fn optional_text(&mut self, object: &mut Map<String, Value>, key: &str) -> Option<String> {
        match object.shift_remove(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.wrong(key, "a string", &other);
                None
            }
        }
    }

    fn cases(
        &mut self,
        object: &mut Map<String, Value>,
        channels: Option<usize>,
    ) -> Option<BTreeMap<String, CaseFiles>> {
        let value = object.shift_remove("dataset")?;
        let Value::Object(cases) = value else {
            self.wrong("dataset", r#"an object from case to {"images": […], "label": …}"#, &value);
            return None;
        };
        let listed =
            cases.iter().filter_map(|(name, files)| Some((name.clone(), self.case_files(name, files, channels)?)));
        Some(listed.collect())
    }

    fn case_files(&mut self, name: &str, value: &Value, channels: Option<usize>) -> Option<CaseFiles> {
        if !is_file_name(name) {
            let expected = "a case name that can be a file's name, without path separators";
            self.push("dataset", expected, Some(name.to_owned()), None);
            return None;
        }
        let images = value.get("images").and_then(Value::as_array);
        let images: Option<Vec<&str>> = images.and_then(|images| images.iter().map(Value::as_str).collect());
        let label = value.get("label").and_then(Value::as_str);
        let (Some(images), Some(label)) = (images, label) else {
            self.wrong(format!("dataset.{name}"), r#"{"images": [one path a channel], "label": path}"#, value);
            return None;
        };
        if let Some(channels) = channels.filter(|&channels| channels != images.len()) {
            let found = Some(images.len().to_string());
            self.push(format!("dataset.{name}.images"), format!("{channels} paths, one a channel"), found, None);
            return None;
        }
        let paths = images.iter().chain([&label]);
        let outside: Vec<&&str> = paths.filter(|path| !stays_inside(Path::new(path))).collect();
        for path in &outside {
            let hint = "copy or link the file into the dataset's folder".to_owned();
            let expected = "a path relative to the dataset's folder and inside of it";
            self.push(format!("dataset.{name}"), expected, Some((**path).to_owned()), Some(hint));
        }
        let usable = outside.is_empty();
        usable.then(|| CaseFiles { images: images.iter().map(PathBuf::from).collect(), label: PathBuf::from(label) })
    }
}

/// A label as a number, or as the digits that nnU-Net's `int(…)` also takes.
fn whole_label(value: &Value) -> Option<i16> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok()?,
        other => other.as_i64()?,
    };
    i16::try_from(number).ok().filter(|label| *label >= 0)
}

fn stays_inside(path: &Path) -> bool {
    use std::path::Component;
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let one = matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None));
    one && !name.contains(['/', '\\', '\0'])
}

/// The unknown key of the object that is most like `key`.
fn nearest<'a>(key: &str, object: &'a Map<String, Value>) -> Option<&'a str> {
    let unknown = object.keys().filter(|found| !KNOWN_KEYS.contains(&found.as_str()));
    let scored =
        unknown.map(|found| (strsim::jaro_winkler(&key.to_lowercase(), &found.to_lowercase()), found.as_str()));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0));
    best.filter(|(score, _)| *score >= SIMILAR).map(|(_, found)| found)
}

/// A value as an error shows it.
fn shorten(value: &Value) -> String {
    const SHOWN: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
#[path = "description_tests.rs"]
mod tests;
