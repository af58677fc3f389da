//! Predicts a case with one or several networks.

use std::ops::Range;

use ndarray::{Array4, Axis, CowArray, Ix4};
use nnflow_kernels::augment::append_one_hot;
use nnflow_net::architecture::Architecture;
use nnflow_net::device::Device;
use nnflow_net::inference::{Average, InferenceError, InferenceOptions, PrecisionOfSums, Prediction, predict as infer};
use nnflow_net::network::Network;
use nnflow_net::precision::Precision;
use nnflow_net::shim;
use nnflow_nnunet::case::{CaseRecord, IMAGE, open};
use nnflow_nnunet::export::{ExportPlan, Exporter, NextStageFrom, ScoreKind, ScoreSource, Scores, Wanted, slab_bytes};
use nnflow_nnunet::train::model::{ModelRecord, RECORD, WEIGHTS};
use nnflow_nnunet::train::patches::NEXT_STAGE;
use nnflow_nnunet::train::settings::PrecisionChoice;
use nnflow_nnunet::train::slices::Classes;
use nnflow_stage::{Artifact, Context, FileRef, InputValue, StageError};
use serde::Deserialize;

use crate::serve::{GIBIBYTE, note_gpu_memory, precision};
use crate::train::{checkpoint, torch};

/// What can be set of a prediction.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    folds: Vec<String>,
    step: f64,
    mirroring: bool,
    average: AverageName,
    precision: PrecisionChoice,
    sums: PrecisionOfSums,
    probabilities: bool,
    next_stage_from: NextStageFrom,
    windows_per_batch: usize,
    gpu_sums: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AverageName {
    Logits,
    Probabilities,
}

/// The networks of the last task, which the next case most likely needs again.
#[derive(Default)]
pub(crate) struct Networks {
    held: Option<Held>,
}

struct Held {
    /// Digests of the weights, in order, and the device.
    identity: (Vec<String>, Device),
    networks: Vec<Network>,
    record: ModelRecord,
}

/// Runs the stage `predict` for one case.
pub(crate) fn predict(context: &mut Context<'_>, networks: &mut Networks) -> Result<(), StageError> {
    let settings: Settings = context.parameters().parse()?;
    let plan: ExportPlan = context.parsed("plan")?;
    let classes: Classes = context.parsed("description")?;
    let artifact = context.artifact("cases")?;
    let record = CaseRecord::read(artifact)?;
    let grid = record.prepared_grid()?;
    let held = networks.of(context, &plan.configuration, &settings.folds)?;
    check_classes(&held.record, &classes)?;
    let image = input_image(context, artifact, &classes)?;
    let (average, kind) = match (settings.average, &classes.regions) {
        (AverageName::Logits, _) => (Average::Logits, ScoreKind::Logits),
        (AverageName::Probabilities, None) => (Average::Softmax, ScoreKind::Probabilities),
        (AverageName::Probabilities, Some(_)) => (Average::Sigmoid, ScoreKind::Probabilities),
    };
    let device = held.identity.1;
    shim::reset_peak(device).map_err(torch)?;
    let prediction = infer(&held.networks, image.view(), &options(&settings, held, average)).map_err(inference)?;
    note_gpu_memory(context, device)?;
    drop(image);
    let scores = Scores { kind, values: &Predicted(prediction) };
    let slab_bytes = slab_bytes(context.resources().memory_bytes);
    let exporter = Exporter { record: &record, grid, classes: &classes, plan: &plan, slab_bytes };
    let wanted = Wanted { probabilities: settings.probabilities, next_stage: settings.next_stage_from };
    exporter.export(context, scores, wanted)
}

/// A prediction in libtorch's memory, of which some planes at a time are copied.
struct Predicted(Prediction);

impl ScoreSource for Predicted {
    fn shape(&self) -> [usize; 4] {
        self.0.shape()
    }

    fn read(&self, classes: Range<usize>, planes: Range<usize>) -> Result<CowArray<'_, f32, Ix4>, StageError> {
        Ok(self.0.planes(classes, planes).map_err(torch)?.into())
    }
}

/// The image with, in a cascade, one channel for each label of the stage before.
fn input_image(context: &Context<'_>, artifact: &Artifact, classes: &Classes) -> Result<Array4<f32>, StageError> {
    let damaged = |error| StageError::storage("a preprocessed case cannot be read").with_source(error);
    let image = open(artifact, IMAGE)?.read_all::<f32>().map_err(damaged)?;
    let Some(previous) = context.optional_artifact("previous")? else { return Ok(image) };
    let previous = open(previous, NEXT_STAGE)?.read_all::<i16>().map_err(damaged)?;
    if previous.shape()[1..] != image.shape()[1..] {
        return Err(StageError::storage(format!(
            "the segmentation of the stage before has the shape {:?}, the image {:?}",
            &previous.shape()[1..],
            &image.shape()[1..]
        )));
    }
    Ok(append_one_hot(image.view(), previous.index_axis(Axis(0), 0), &classes.foreground()))
}

fn options(settings: &Settings, held: &Held, average: Average) -> InferenceOptions {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
    let device_memory = (settings.gpu_sums * GIBIBYTE) as u64;
    let record = &held.record;
    InferenceOptions {
        patch: record.patch_size.clone(),
        step: settings.step,
        mirror_axes: if settings.mirroring { record.mirror_axes.clone() } else { Vec::new() },
        gaussian: true,
        average,
        precision: precision(settings.precision, held.identity.1, Precision::Float16),
        sums: settings.sums,
        batch: settings.windows_per_batch,
        device_memory,
    }
}

fn check_classes(record: &ModelRecord, classes: &Classes) -> Result<(), StageError> {
    if record.classes == *classes {
        return Ok(());
    }
    Err(StageError::input("the model was trained for other channels, labels or regions than `dataset.json` has")
        .with_detail(format!("model: {:?}", record.classes))
        .with_detail(format!("dataset: {classes:?}")))
}

impl Networks {
    /// The networks at the port `model`, loaded if they are not those of the last task.
    fn of(&mut self, context: &Context<'_>, configuration: &str, folds: &[String]) -> Result<&Held, StageError> {
        let device = crate::serve::device(context)?;
        let models = models(context, configuration, folds)?;
        let identity = (models.iter().map(|model| model.weights.digest.clone()).collect(), device);
        if self.held.as_ref().is_none_or(|held| held.identity != identity) {
            // What is held is given back first, so that both are never in memory.
            self.held = None;
            shim::give_back_memory(device).map_err(torch)?;
            self.held = Some(load(&models, identity)?);
        }
        self.held.as_ref().ok_or_else(|| StageError::internal("the networks were not loaded"))
    }
}

/// A model's record and weights.
struct Model<'a> {
    record: ModelRecord,
    weights: &'a FileRef,
}

/// The models that arrived: each as an artifact of its own, or those of a configuration in a bundle, where they are of the
/// `folds` that are asked for.
fn models<'a>(context: &Context<'a>, configuration: &str, folds: &[String]) -> Result<Vec<Model<'a>>, StageError> {
    let mut models = Vec::new();
    for member in context.members("model") {
        let InputValue::One(artifact) = &member.value else {
            return Err(StageError::internal("input `model` holds what is no model"));
        };
        if artifact.file("bundle.json").is_some() {
            let prefix = format!("models/{configuration}/");
            let folders = artifact.files_under(&prefix).filter_map(|file| file.name.strip_suffix(WEIGHTS));
            for folder in chosen(folders.collect(), &prefix, folds)? {
                models.push(model_in(artifact, folder)?);
            }
        } else {
            models.push(model_in(artifact, "")?);
        }
    }
    if models.is_empty() {
        return Err(StageError::input(format!("there is no trained network of the configuration `{configuration}`")));
    }
    Ok(models)
}

/// The folders of the folds that are asked for: all if none is named.
fn chosen<'a>(folders: Vec<&'a str>, prefix: &str, folds: &[String]) -> Result<Vec<&'a str>, StageError> {
    let name = |folder: &str| {
        let fold = folder.strip_prefix(prefix).unwrap_or(folder).trim_end_matches('/');
        fold.strip_prefix("fold_").unwrap_or(fold).to_owned()
    };
    let there: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
    let missing: Vec<String> = folds.iter().filter(|fold| !there.contains(fold)).cloned().collect();
    if !missing.is_empty() {
        let message = format!("the model has no fold {}", missing.join(", "));
        return Err(StageError::input(message).with_hint(format!("its folds are {}", there.join(", "))));
    }
    Ok(folders.into_iter().filter(|folder| folds.is_empty() || folds.contains(&name(folder))).collect())
}

fn model_in<'a>(artifact: &'a Artifact, folder: &str) -> Result<Model<'a>, StageError> {
    let file = |name: &str| {
        let name = format!("{folder}{name}");
        artifact.file(&name).ok_or_else(|| StageError::input(format!("the model has no file `{name}`")))
    };
    let record = FileRef { name: RECORD.to_owned(), ..file(RECORD)?.clone() };
    Ok(Model { record: ModelRecord::read(&Artifact { files: vec![record] })?, weights: file(WEIGHTS)? })
}

fn load(models: &[Model<'_>], identity: (Vec<String>, Device)) -> Result<Held, StageError> {
    let mut networks = Vec::with_capacity(models.len());
    for Model { record, weights } in models {
        let built = Architecture::from_plans(
            &record.architecture,
            record.input_channels,
            record.outputs,
            record.deep_supervision,
        );
        let architecture =
            built.map_err(|error| StageError::input(format!("the model's network cannot be built: {error}")))?;
        networks.push(Network::load(&weights.path, &architecture, identity.1).map_err(checkpoint)?);
    }
    let record = models.first().map(|model| model.record.clone());
    let record = record.ok_or_else(|| StageError::internal("there is no model to load"))?;
    Ok(Held { identity, networks, record })
}

fn inference(error: InferenceError) -> StageError {
    match error {
        InferenceError::Torch(error) => torch(error),
        other => StageError::input(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDERS: [&str; 3] = ["models/2d/fold_0/", "models/2d/fold_1/", "models/2d/fold_all/"];

    fn chosen_of(folds: &[&str]) -> Result<Vec<&'static str>, StageError> {
        let folds: Vec<String> = folds.iter().map(|fold| (*fold).to_owned()).collect();
        chosen(FOLDERS.to_vec(), "models/2d/", &folds)
    }

    #[test]
    fn all_folds_take_part_where_none_is_named() {
        assert_eq!(chosen_of(&[]).expect("nothing is asked for"), FOLDERS);
    }

    #[test]
    fn folds_are_chosen_by_name_in_the_order_of_the_model() {
        assert_eq!(chosen_of(&["all", "0"]).expect("both are there"), [FOLDERS[0], FOLDERS[2]]);
    }

    #[test]
    fn a_fold_that_is_not_there_is_named_with_those_that_are() {
        let report = chosen_of(&["0", "4"]).expect_err("there is no fold 4").report();
        let expected = ("the model has no fold 4", Some("its folds are 0, 1, all"));
        assert_eq!((report.message.as_str(), report.hint.as_deref()), expected);
    }
}
