//! From a bundle to a folder that nnU-Net's own predictor loads.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use nnflow_io::json;
use nnflow_io::pickle::{Pickled, to_vec};
use nnflow_io::plans::{NetworkKind, Plans};
use nnflow_io::state_dict::aliases;
use nnflow_io::tensors::{Dtype, TensorFile};
use nnflow_io::torch_file::{FloatStorage, write_torch_file};
use nnflow_stage::{Artifact, FileRef, StageError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::import::{RECIPE, write_json};
use super::{
    CROSS_VALIDATION, DESCRIPTION, FINGERPRINT, FOLD_PREFIX, INFERENCE, PLANS, SEPARATOR, checkpoint_file,
    postprocessing,
};
use crate::sources::SourceFile;
use crate::stages::bundle::BUNDLE;
use crate::stages::postprocess::rules::{RULES, Rules};
use crate::train::model::{ModelRecord, RECORD, WEIGHTS};

/// The trainer that nnU-Net is to build the network with.
const TRAINER: &str = "nnUNetTrainer";

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The folder of each configuration, in the order in which they have to be predicted.
    pub folders: Vec<PathBuf>,
    /// For each of them the configuration whose segmentations it takes as input, in a cascade.
    pub previous: Vec<Option<String>>,
    /// The configurations whose probabilities are to be averaged.
    pub members: Vec<String>,
    /// The postprocessing, for `nnUNetv2_apply_postprocessing`, if there is any.
    pub postprocessing: Option<PathBuf>,
}

/// What of `bundle.json` is read.
#[derive(Debug, Deserialize)]
struct Told {
    recipe: String,
    axes: BTreeMap<String, Vec<String>>,
    members: Vec<String>,
    folds: BTreeMap<String, Vec<String>>,
}

/// Writes a bundle into `output`, a folder laid out as nnU-Net's results:
/// `DATASET/nnUNetTrainer__PLANS__CONFIGURATION/fold_0/checkpoint_final.pth`.
///
/// # Errors
/// If the files are no bundle, nnU-Net has not what the model needs, or a folder is there already.
pub fn export(bundle: &[SourceFile], output: &Path) -> Result<Exported, StageError> {
    let export = Export::new(bundle)?;
    let dataset = output.join(folder_name(&export.plans.dataset_name)?);
    let folder_of = |configuration: &str| {
        let plans = &export.plans.plans_name;
        let name = format!("{TRAINER}{SEPARATOR}{plans}{SEPARATOR}{configuration}");
        Ok::<_, StageError>(dataset.join(folder_name(&name)?))
    };
    let configurations = export.told.axes.get(crate::documents::CONFIGURATION).cloned().unwrap_or_default();
    let folders = configurations.iter().map(|name| folder_of(name)).collect::<Result<Vec<_>, _>>()?;
    if let Some(there) = folders.iter().find(|folder| folder.exists()) {
        let message = format!("`{}` is there already", there.display());
        return Err(StageError::input(message).with_hint("name another folder, or remove it"));
    }
    for (configuration, folder) in configurations.iter().zip(&folders) {
        export.configuration(configuration, folder)?;
    }
    let previous = configurations.iter().map(|name| export.previous_stage(name)).collect::<Result<_, _>>()?;
    let members = export.told.members.clone();
    write_json(&dataset.join(INFERENCE), &export.inference())?;
    let validated = export.validation_folder(&dataset, &folder_of)?;
    let postprocessing = export.postprocessing(&validated)?;
    Ok(Exported { folders, previous, members, postprocessing })
}

/// What a folder may be called.
fn folder_name(name: &str) -> Result<&str, StageError> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) if !name.contains(['/', '\\']) => Ok(name),
        _ => Err(StageError::input(format!("`{name}` of the model's plan cannot be a folder's name"))),
    }
}

/// A bundle to be exported.
struct Export<'a> {
    files: BTreeMap<&'a str, &'a Path>,
    told: Told,
    plans: Plans,
    plans_document: Value,
    description: Value,
}

impl<'a> Export<'a> {
    fn new(bundle: &'a [SourceFile]) -> Result<Self, StageError> {
        let files: BTreeMap<&str, &Path> =
            bundle.iter().map(|file| (file.name.as_str(), file.path.as_path())).collect();
        let plans = Plans::from_slice(&fs_err::read(path_of(&files, PLANS)?)?, Path::new(PLANS))
            .map_err(|error| StageError::input(error.to_string()))?;
        let told: Told = read(&files, BUNDLE)?;
        if told.recipe != RECIPE {
            return Err(StageError::input(format!(
                "the model prepares and averages images as the recipe `{}` says, which nnU-Net v2 cannot",
                told.recipe
            ))
            .with_hint("models of the recipe `nnunet-v2` can be exported"));
        }
        let (plans_document, description) = (read(&files, PLANS)?, read(&files, DESCRIPTION)?);
        Ok(Self { plans_document, description, plans, told, files })
    }

    fn folds(&self, configuration: &str) -> Result<&[String], StageError> {
        let folds = self.told.folds.get(configuration).filter(|folds| !folds.is_empty());
        folds
            .map(Vec::as_slice)
            .ok_or_else(|| StageError::input(format!("`{BUNDLE}` of the model names no folds of `{configuration}`")))
    }

    fn previous_stage(&self, name: &str) -> Result<Option<String>, StageError> {
        let planned = self.plans.configuration(name).map_err(|error| StageError::input(error.to_string()))?;
        Ok(planned.previous_stage)
    }

    fn configuration(&self, name: &str, folder: &Path) -> Result<(), StageError> {
        let unusable = |error: nnflow_io::plans::PlansError| StageError::input(error.to_string());
        let network = self.plans.configuration(name).and_then(|planned| planned.architecture.network());
        if network.map_err(unusable)? == NetworkKind::Unet2018 {
            return Err(StageError::input(format!(
                "the network of `{name}` is the U-Net of 2018, which nnU-Net v2 has not"
            )));
        }
        for fold in self.folds(name)? {
            let target = folder.join(folder_name(&format!("{FOLD_PREFIX}{fold}"))?);
            fs_err::create_dir_all(&target)?;
            self.checkpoint(name, fold, &target.join(checkpoint_file("final")))?;
        }
        for document in [PLANS, DESCRIPTION] {
            copy(path_of(&self.files, document)?, &folder.join(document))?;
        }
        match self.files.get(FINGERPRINT) {
            Some(path) => copy(path, &folder.join(FINGERPRINT)),
            None => Ok(()),
        }
    }

    /// Writes a checkpoint: what nnU-Net's predictor and `load_pretrained_weights` read, under all of nnU-Net's names.
    fn checkpoint(&self, configuration: &str, fold: &str, path: &Path) -> Result<(), StageError> {
        let file = |name: &str| format!("models/{configuration}/fold_{fold}/{name}");
        let record = file(RECORD);
        let file_ref = FileRef { name: RECORD.to_owned(), ..reference(path_of(&self.files, &record)?) };
        let record = ModelRecord::read(&Artifact { files: vec![file_ref] })?;
        let damaged = |error: nnflow_io::tensors::TensorError| StageError::input(error.to_string());
        let weights = TensorFile::open(path_of(&self.files, &file(WEIGHTS))?).map_err(damaged)?;
        let names = weights.names();
        let keys: Vec<String> = (0..names.len()).map(|index| index.to_string()).collect();
        let mut state = Vec::new();
        let mut storages = Vec::with_capacity(names.len());
        for (name, key) in names.iter().zip(&keys) {
            let tensor = weights.tensor(name).map_err(damaged)?;
            if tensor.dtype != Dtype::F32 {
                return Err(StageError::input(format!("`{name}` is {}: expected 32-bit floats", tensor.dtype)));
            }
            storages.push(FloatStorage { key, bytes: tensor.bytes });
            let pickled = Pickled::Tensor { storage: key.clone(), shape: tensor.shape.to_vec() };
            state.extend(aliases(name).into_iter().map(|alias| (alias, pickled.clone())));
        }
        let checkpoint = self.entries(configuration, fold, &record, state);
        write_torch_file(path, &checkpoint, &storages)
            .map_err(|error| StageError::storage(error.to_string()).with_source(error))
    }

    fn entries(&self, configuration: &str, fold: &str, record: &ModelRecord, state: Vec<(String, Pickled)>) -> Pickled {
        let training = &record.training;
        // Of nnU-Net's curves, the last point is what a bundle keeps.
        let logged = [
            ("ema_fg_dice", training.average_dice),
            ("mean_fg_dice", training.mean_dice),
            ("train_losses", training.training_loss),
            ("val_losses", training.validation_loss),
        ];
        let logged = logged.into_iter().filter_map(|(name, value)| Some((name, vec![Pickled::Float(value?)])));
        let logging = logged.map(|(name, values)| (name.to_owned(), Pickled::List(values))).collect();
        let axes = record.mirror_axes.iter().map(|axis| Pickled::Int(i64::try_from(*axis).unwrap_or(i64::MAX)));
        let fold = fold.parse().map_or_else(|_| Pickled::from(fold), Pickled::Int);
        let arguments = vec![
            ("plans".to_owned(), Pickled::from(&self.plans_document)),
            ("configuration".to_owned(), configuration.into()),
            ("fold".to_owned(), fold),
            ("dataset_json".to_owned(), Pickled::from(&self.description)),
        ];
        Pickled::Dict(vec![
            ("network_weights".to_owned(), Pickled::Dict(state)),
            ("init_args".to_owned(), Pickled::Dict(arguments)),
            ("trainer_name".to_owned(), TRAINER.into()),
            ("inference_allowed_mirroring_axes".to_owned(), Pickled::Tuple(axes.collect())),
            ("current_epoch".to_owned(), Pickled::Int(i64::from(training.epochs))),
            ("_best_ema".to_owned(), training.average_dice.map_or(Pickled::None, Pickled::Float)),
            ("logging".to_owned(), Pickled::Dict(logging)),
        ])
    }

    /// Which configurations were chosen, as `nnUNetv2_find_best_configuration` tells it.
    fn inference(&self) -> Value {
        let plans = &self.plans.plans_name;
        let selected = |name: &String| json!({"configuration": name, "trainer": TRAINER, "plans_identifier": plans});
        let selected: Vec<Value> = self.told.members.iter().map(selected).collect();
        json!({
            "dataset_name_or_id": self.plans.dataset_name,
            "folds": self.told.members.first().and_then(|name| self.told.folds.get(name)),
            "best_model_or_ensemble": {"selected_model_or_models": selected},
        })
    }

    /// Where nnU-Net keeps the postprocessing of the members together.
    fn validation_folder(
        &self,
        dataset: &Path,
        folder_of: &dyn Fn(&str) -> Result<PathBuf, StageError>,
    ) -> Result<PathBuf, StageError> {
        let members = &self.told.members;
        let folds = members.first().map_or(Ok(&[][..]), |name| self.folds(name))?.join("_");
        if let [member] = members.as_slice() {
            return Ok(folder_of(member)?.join(folder_name(&format!("{CROSS_VALIDATION}{folds}"))?));
        }
        let plans = &self.plans.plans_name;
        let names = members.iter().map(|name| format!("{TRAINER}{SEPARATOR}{plans}{SEPARATOR}{name}"));
        let name = format!("ensemble___{}___{folds}", names.collect::<Vec<_>>().join("___"));
        Ok(dataset.join("ensembles").join(folder_name(&name)?))
    }

    fn postprocessing(&self, folder: &Path) -> Result<Option<PathBuf>, StageError> {
        let file = FileRef { name: RULES.to_owned(), ..reference(path_of(&self.files, RULES)?) };
        let rules = Rules::read(&Artifact { files: vec![file] })?;
        if rules.steps.is_empty() {
            return Ok(None);
        }
        fs_err::create_dir_all(folder)?;
        let (document, pickle) = postprocessing::written(&rules.steps);
        write_json(&folder.join("postprocessing.json"), &document)?;
        let path = folder.join("postprocessing.pkl");
        fs_err::write(&path, to_vec(&pickle))?;
        Ok(Some(path))
    }
}

fn path_of<'a>(files: &BTreeMap<&str, &'a Path>, name: &str) -> Result<&'a Path, StageError> {
    let found = files.get(name).copied();
    found.ok_or_else(|| StageError::input(format!("the model has no file `{name}`")))
}

fn reference(path: &Path) -> FileRef {
    FileRef { name: String::new(), path: path.to_path_buf(), digest: String::new(), bytes: 0, incidental: false }
}

fn read<T: serde::de::DeserializeOwned>(files: &BTreeMap<&str, &Path>, name: &str) -> Result<T, StageError> {
    let text = fs_err::read(path_of(files, name)?)?;
    json::from_slice(&text, Path::new(name)).map_err(|error| StageError::input(error.to_string()))
}

/// Copies the content alone: objects of a store are read-only, the user's files are not.
fn copy(from: &Path, to: &Path) -> Result<(), StageError> {
    Ok(fs_err::write(to, fs_err::read(from)?)?)
}
