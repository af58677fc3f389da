//! From a model of nnU-Net's to a bundle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nnflow_io::json;
use nnflow_io::plans::Configuration;
use nnflow_io::state_dict::parameters;
use nnflow_stage::{Axes, StageError, effective_parameters};
use serde_json::{Map, Value};

use super::checkpoint::Checkpoint;
use super::choice::{Chosen, choose, previous_stage, same_configuration};
use super::files::Files;
use super::{CROSS_VALIDATION, DESCRIPTION, FINGERPRINT, INFERENCE, ImportOptions, PLANS, SUMMARY, postprocessing};
use crate::documents::{CONFIGURATION, slice};
use crate::registry;
use crate::sources::SourceFile;
use crate::stages::bundle::{BUNDLE, Bundle};
use crate::stages::postprocess::rules::{RULES, Rules, Step};
use crate::train::model::{MODEL_VERSION, ModelRecord, RECORD, WEIGHTS};
use crate::train::slices::Classes;

/// The version of what an import makes; another one makes it again.
pub const IMPORT_VERSION: u32 = 1;

/// The recipe that prepares images as nnU-Net v2 does.
pub(super) const RECIPE: &str = "predict";
/// The only preprocessing of nnU-Net's that is known here.
const PREPROCESSOR: &str = "DefaultPreprocessor";
/// What trainers of nnU-Net's own are called.
const TRAINER: &str = "nnUNetTrainer";
/// Readers that turn images to one orientation first.
const TURNING: &str = "WithReorient";

/// What was imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The configurations whose probabilities are averaged.
    pub members: Vec<String>,
    /// Each network, in words.
    pub networks: Vec<String>,
    /// Steps of postprocessing.
    pub steps: usize,
    /// What somebody who uses the model should know.
    pub notes: Vec<String>,
}

/// The files that [`import`] would read, to tell by their content whether it has been done before.
///
/// # Errors
/// As [`import`], as far as names and plans show it.
pub fn needed_files(path: &Path, options: &ImportOptions) -> Result<Vec<SourceFile>, StageError> {
    let chosen = choose(path, options)?;
    if path.is_file() {
        return Ok(vec![SourceFile { name: "model.zip".to_owned(), path: path.to_path_buf() }]);
    }
    let mut needed = BTreeMap::new();
    for one in &chosen {
        let folder = one.files.path();
        let checkpoints = one.folds.iter().map(|fold| one.trained.checkpoint(fold, &options.checkpoint));
        let names = one.files.names()?.into_iter();
        let documents = names.filter(|name| {
            let is_checkpoint = name.ends_with(".pth");
            !is_checkpoint && (name.starts_with(&one.trained.folder) || name.ends_with(INFERENCE))
        });
        needed.extend(documents.chain(checkpoints).map(|name| (folder.join(&name), name)));
    }
    Ok(needed.into_iter().map(|(path, name)| SourceFile { name, path }).collect())
}

/// Reads a model of nnU-Net's and writes it as the bundle `output`, which must not exist; nothing is left of a failure.
///
/// # Errors
/// If the model is incomplete, damaged, hostile or of a kind that nnflow has not; if the bundle cannot be written.
pub fn import(path: &Path, options: &ImportOptions, output: &Path) -> Result<Imported, StageError> {
    let chosen = choose(path, options)?;
    if output.exists() {
        let message = format!("`{}` is there already", output.display());
        return Err(StageError::input(message).with_hint("name a folder that does not exist yet"));
    }
    let parent = output.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    fs_err::create_dir_all(parent)?;
    // Beside the bundle, so that the last step is a rename.
    let scratch = tempfile::Builder::new().prefix(".nnflow-import-").tempdir_in(parent)?;
    let folder = scratch.path().join("bundle");
    fs_err::create_dir(&folder)?;
    let mut import = Import {
        options,
        scratch: scratch.path().to_path_buf(),
        folder: folder.clone(),
        classes: None,
        imported: Imported { members: Vec::new(), networks: Vec::new(), steps: 0, notes: Vec::new() },
        folds: BTreeMap::new(),
        order: Vec::new(),
    };
    for one in &chosen {
        import.configuration(one, &chosen)?;
    }
    import.documents(&chosen)?;
    let imported = import.imported;
    fs_err::rename(&folder, output)?;
    Ok(imported)
}

/// An import under way.
struct Import<'a> {
    options: &'a ImportOptions,
    scratch: PathBuf,
    folder: PathBuf,
    classes: Option<Classes>,
    imported: Imported,
    folds: BTreeMap<String, Vec<String>>,
    order: Vec<String>,
}

/// A configuration whose networks are being imported.
struct Planned {
    name: String,
    configuration: Configuration,
    classes: Classes,
}

impl Import<'_> {
    /// Imports the networks of one configuration.
    fn configuration(&mut self, one: &Chosen, all: &[Chosen]) -> Result<(), StageError> {
        let mut planned: Option<Planned> = None;
        for fold in &one.folds {
            let file = one.trained.checkpoint(fold, &self.options.checkpoint);
            let title = format!("`{file}`");
            let local = one.files.local(&file, &self.scratch)?;
            let checkpoint = Checkpoint::open(&local, &title)?;
            let name = checkpoint.configuration()?;
            let planned = match &planned {
                Some(planned) if planned.name == name => planned,
                Some(planned) => {
                    return Err(StageError::input(format!(
                        "the checkpoint {title} is of the configuration `{name}`, the other folds are of `{}`",
                        planned.name
                    )));
                }
                None => planned.insert(self.plan(one, all, &title, name)?),
            };
            self.network(planned, fold, &checkpoint)?;
        }
        let planned = planned.ok_or_else(|| StageError::internal("a configuration was chosen without a fold"))?;
        if one.is_member {
            self.imported.members.push(planned.name.clone());
        }
        self.order.push(planned.name.clone());
        self.folds.insert(planned.name, one.folds.clone());
        Ok(())
    }

    /// Checks that images can be prepared as this configuration wants them.
    fn plan(&mut self, one: &Chosen, all: &[Chosen], title: &str, name: String) -> Result<Planned, StageError> {
        let told = one.trained.identity.as_ref().map(|identity| identity.configuration.as_str());
        let asked = self.options.configurations.first().map(String::as_str).filter(|_| told.is_none());
        if let Some(expected) = told.or(asked).filter(|expected| *expected != name) {
            let message = format!("the checkpoint {title} is of the configuration `{name}`, expected `{expected}`");
            return Err(StageError::input(message));
        }
        let unusable = |error: nnflow_io::plans::PlansError| StageError::input(error.to_string());
        let configuration = one.plans.configuration(&name).map_err(unusable)?;
        if let Some(previous) = previous_stage(&one.plans, &name)?.filter(|_| all.len() == 1) {
            return Err(StageError::input(format!(
                "the model is the second stage of a cascade, its first is `{previous}`"
            ))
            .with_hint("name the folder around the folders `TRAINER__PLANS__CONFIGURATION` of both stages"));
        }
        check_preprocessing(one, &name, &configuration)?;
        let description: Value = document(&one.files, &one.trained.file(DESCRIPTION))?;
        let plans: Value = document(&one.files, &one.trained.file(PLANS))?;
        check_stages(&plans, &description, &name)?;
        let classes: Classes = serde_json::from_value(Classes::slice(&description)?)
            .map_err(|error| StageError::internal(format!("a slice of `{DESCRIPTION}` is none: {error}")))?;
        if self.classes.as_ref().is_some_and(|before| *before != classes) {
            return Err(StageError::input("the configurations were trained on different channels, labels or regions"));
        }
        self.classes = Some(classes.clone());
        Ok(Planned { name, configuration, classes })
    }

    fn network(&mut self, planned: &Planned, fold: &str, checkpoint: &Checkpoint) -> Result<(), StageError> {
        let Planned { name, configuration, classes } = planned;
        let cascade = configuration.previous_stage.is_some();
        let input_channels = classes.channels + if cascade { classes.foreground().len() } else { 0 };
        let unusable = |error: nnflow_io::plans::PlansError| StageError::input(error.to_string());
        let kind = configuration.architecture.network().map_err(unusable)?;
        let arguments = configuration.architecture.unet(name).map_err(unusable)?;
        let record = ModelRecord {
            version: MODEL_VERSION,
            architecture: slice(&configuration.architecture)?,
            input_channels,
            outputs: classes.outputs(),
            deep_supervision: true,
            patch_size: configuration.patch_size.clone(),
            mirror_axes: checkpoint.mirror_axes(configuration.patch_size.len())?,
            classes: classes.clone(),
            training: checkpoint.training(),
        };
        let folder = self.folder.join("models").join(name).join(format!("fold_{fold}"));
        fs_err::create_dir_all(&folder)?;
        let parameters = parameters(kind, &arguments, input_channels, classes.outputs());
        checkpoint.write_weights(&parameters, &folder.join(WEIGHTS))?;
        write_json(&folder.join(RECORD), &record)?;
        let trainer = checkpoint.trainer()?;
        if !trainer.starts_with(TRAINER) {
            let note =
                format!("`{trainer}` is no trainer of nnU-Net's own; its network is taken as the plans describe it");
            self.note(note);
        }
        let epochs = record.training.epochs;
        self.imported.networks.push(format!("{name}, fold {fold}: {trainer}, {epochs} epochs"));
        Ok(())
    }

    fn note(&mut self, note: String) {
        if !self.imported.notes.contains(&note) {
            self.imported.notes.push(note);
        }
    }

    /// Everything but the networks.
    fn documents(&mut self, chosen: &[Chosen]) -> Result<(), StageError> {
        let members: Vec<&Chosen> = chosen.iter().filter(|one| one.is_member).collect();
        let first = members.first().ok_or_else(|| StageError::internal("nothing was chosen"))?;
        for (one, name) in chosen.iter().zip(&self.order) {
            if !same_configuration(&first.plans, &one.plans, name) {
                return Err(StageError::input(format!(
                    "the plans beside `{name}` are not those beside `{}`: a model has one plan",
                    self.order[0]
                ))
                .with_hint("import one of them at a time"));
            }
        }
        for name in [PLANS, DESCRIPTION] {
            fs_err::write(self.folder.join(name), first.files.read(&first.trained.file(name))?)?;
        }
        let fingerprint = first.trained.file(FINGERPRINT);
        if first.files.names()?.contains(&fingerprint) {
            fs_err::write(self.folder.join(FINGERPRINT), first.files.read(&fingerprint)?)?;
        }
        let validation = validation_folder(&members);
        let steps = if self.options.postprocessing { self.steps(first, &validation)? } else { Vec::new() };
        self.imported.steps = steps.len();
        write_json(&self.folder.join(RULES), &Rules::unproven(steps))?;
        let bundle = Bundle::new(
            RECIPE.to_owned(),
            self.order.clone(),
            self.imported.members.clone(),
            self.folds.clone(),
            score(&first.files, &validation)?,
        );
        write_json(&self.folder.join(BUNDLE), &bundle)
    }

    /// The postprocessing that cross-validation found for exactly these configurations and folds.
    fn steps(&mut self, member: &Chosen, validation: &str) -> Result<Vec<Step>, StageError> {
        let names = member.files.names()?;
        let (document, pickle) =
            (format!("{validation}postprocessing.json"), format!("{validation}postprocessing.pkl"));
        if names.contains(&document) {
            return postprocessing::from_json(&member.files.read(&document)?, &document);
        }
        if names.contains(&pickle) {
            return postprocessing::from_pickle(&member.files.read(&pickle)?, &pickle);
        }
        let below = member.trained.file(CROSS_VALIDATION);
        let other = names.iter().find(|name| name.starts_with(&below) && name.contains("postprocessing."));
        if let Some(other) = other {
            self.note(format!("the postprocessing in `{other}` is left out: it was found for other folds"));
        }
        Ok(Vec::new())
    }
}

/// Where nnU-Net keeps how good these configurations and folds are together.
fn validation_folder(members: &[&Chosen]) -> String {
    let folds = |one: &Chosen| one.folds.join("_");
    match members {
        [one] => one.trained.file(&format!("{CROSS_VALIDATION}{}/", folds(one))),
        several => {
            let names = several.iter().map(|one| one.trained.folder.trim_end_matches('/'));
            let names: Vec<&str> = names.map(|name| name.rsplit('/').next().unwrap_or(name)).collect();
            let above = several.first().map_or("", |one| {
                let own = one.trained.folder.trim_end_matches('/');
                own.rfind('/').map_or("", |place| &own[..=place])
            });
            let folds = several.first().map(|one| folds(one)).unwrap_or_default();
            format!("{above}ensembles/ensemble___{}___{folds}/", names.join("___"))
        }
    }
}

/// The mean foreground Dice of cross-validation; NaN where it is not known.
fn score(files: &Files, validation: &str) -> Result<f64, StageError> {
    let name = format!("{validation}{SUMMARY}");
    if !files.names()?.contains(&name) {
        return Ok(f64::NAN);
    }
    let summary: Value = document(files, &name)?;
    Ok(summary.pointer("/foreground_mean/Dice").and_then(Value::as_f64).unwrap_or(f64::NAN))
}

fn check_preprocessing(one: &Chosen, name: &str, configuration: &Configuration) -> Result<(), StageError> {
    let preprocessor = &configuration.preprocessor_name;
    if preprocessor != PREPROCESSOR {
        return Err(StageError::input(format!(
            "configuration `{name}` is preprocessed by `{preprocessor}`: expected `{PREPROCESSOR}`, the only one known here"
        )));
    }
    let reader = &one.plans.image_reader_writer;
    if reader.ends_with(TURNING) {
        return Err(StageError::input(format!(
            "the model wants its images read by `{reader}`, which turns them to one orientation; nnflow takes them as they lie"
        ))
        .with_hint(
            "where all images are stored in that orientation (RAS), change `image_reader_writer` in a copy of `plans.json`",
        ));
    }
    Ok(())
}

/// Asks the stages that would run at prediction whether they can do with these documents.
fn check_stages(plans: &Value, description: &Value, configuration: &str) -> Result<(), StageError> {
    let axes = Axes::from([(CONFIGURATION.to_owned(), configuration.to_owned())]);
    let ports = [
        ("ingest", "description", description),
        ("normalize", "plan", plans),
        ("resample", "plan", plans),
        ("resample", "description", description),
        ("predict", "plan", plans),
        ("predict", "description", description),
    ];
    for (stage, port, document) in ports {
        let stage = registry::stage(stage)
            .ok_or_else(|| StageError::internal(format!("there is no stage `{stage}` in the table")))?;
        let mut given = Map::new();
        if stage.spec().name == "ingest" {
            given.insert("labels".to_owned(), "none".into());
        }
        let parameters = effective_parameters(stage.spec().parameters, &given)
            .map_err(|_| StageError::internal(format!("the defaults of `{}` are wrong", stage.spec().name)))?;
        stage.slice(port, document, &axes, &parameters)?;
    }
    Ok(())
}

fn document(files: &Files, name: &str) -> Result<Value, StageError> {
    json::from_slice(&files.read(name)?, Path::new(name)).map_err(|error| StageError::input(error.to_string()))
}

pub(super) fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), StageError> {
    let text = json::to_vec(value)
        .map_err(|error| StageError::internal(format!("`{}` cannot be written as JSON: {error}", path.display())))?;
    Ok(fs_err::write(path, text)?)
}
