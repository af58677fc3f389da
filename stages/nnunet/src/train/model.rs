//! What a model is besides its weights: enough to predict with it, and how its training went.

use nnflow_stage::{Artifact, FileRef, StageError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::slices::Classes;
use crate::case::read_json;

/// The record of a model, a [`ModelRecord`].
pub const RECORD: &str = "model.json";
/// Its weights, under nnU-Net's names.
pub const WEIGHTS: &str = "weights.safetensors";

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecord {
    /// The version of this form.
    pub version: u32,
    /// The network, as nnU-Net's plans describe it.
    pub architecture: Value,
    /// Channels that the network takes, those of a stage before included.
    pub input_channels: usize,
    /// Its outputs: labels with background, or regions.
    pub outputs: usize,
    /// Whether the outputs of lower resolutions were trained, and have weights.
    pub deep_supervision: bool,
    /// Voxels that it saw at a time, two or three axes.
    pub patch_size: Vec<usize>,
    /// Axes of the patch that may be mirrored, because training did so.
    pub mirror_axes: Vec<usize>,
    /// What its outputs stand for.
    pub classes: Classes,
    /// How its training went.
    pub training: TrainingSummary,
}

/// How a training went; numbers that two runs of it share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSummary {
    /// Epochs that were trained.
    pub epochs: u32,
    /// The epoch whose weights these are.
    pub kept_epoch: u32,
    /// The moving average of the pseudo Dice in the end.
    pub average_dice: Option<f64>,
    /// The pseudo Dice of the last epoch.
    pub mean_dice: Option<f64>,
    /// The training loss of the last epoch, if it is known.
    pub training_loss: Option<f64>,
    /// The validation loss of the last epoch, if it is known.
    pub validation_loss: Option<f64>,
    /// Why training ended before its last epoch, if it did.
    pub stopped: Option<String>,
}

/// The weights in a bundle of a configuration: those of a fold, or of the first one where it does not have that fold.
///
/// # Errors
/// If the bundle has no network of the configuration.
pub fn weights_in_bundle<'a>(bundle: &'a Artifact, configuration: &str, fold: &str) -> Result<&'a FileRef, StageError> {
    let prefix = format!("models/{configuration}/");
    let is_of_configuration = |file: &&FileRef| file.name.starts_with(&prefix) && file.name.ends_with(WEIGHTS);
    let mut found: Vec<&FileRef> = bundle.files.iter().filter(is_of_configuration).collect();
    found.sort_by(|first, second| first.name.cmp(&second.name));
    let of_fold = found.iter().find(|file| file.name == format!("{prefix}fold_{fold}/{WEIGHTS}"));
    of_fold.or(found.first()).copied().ok_or_else(|| {
        StageError::input(format!("the model has no network of the configuration `{configuration}`"))
            .with_hint("name the configurations that it has with `[axes] configuration`")
    })
}

/// The version of the record's form.
pub const MODEL_VERSION: u32 = 1;

impl ModelRecord {
    /// The record of the model in an artifact.
    ///
    /// # Errors
    /// If it is missing, damaged, or of another version.
    pub fn read(artifact: &Artifact) -> Result<Self, StageError> {
        let record: Self = read_json(artifact, RECORD)?;
        if record.version != MODEL_VERSION {
            return Err(StageError::input(format!(
                "the model has version {}, expected {MODEL_VERSION}",
                record.version
            )));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(names: &[&str]) -> Artifact {
        let file = |name: &&str| FileRef {
            name: (*name).to_owned(),
            path: std::path::PathBuf::new(),
            digest: String::new(),
            bytes: 0,
            incidental: false,
        };
        Artifact { files: names.iter().map(file).collect() }
    }

    const NAMES: [&str; 4] = [
        "bundle.json",
        "models/2d/fold_0/weights.safetensors",
        "models/3d_fullres/fold_1/weights.safetensors",
        "models/3d_fullres/fold_3/weights.safetensors",
    ];

    fn found(configuration: &str, fold: &str) -> String {
        weights_in_bundle(&bundle(&NAMES), configuration, fold)
            .map_or_else(|error| error.to_string(), |file| file.name.clone())
    }

    #[test]
    fn a_fold_begins_with_the_weights_of_the_same_fold() {
        assert_eq!(found("3d_fullres", "3"), "models/3d_fullres/fold_3/weights.safetensors");
    }

    #[test]
    fn a_fold_that_the_model_does_not_have_begins_with_its_first() {
        assert_eq!(found("3d_fullres", "0"), "models/3d_fullres/fold_1/weights.safetensors");
    }

    #[test]
    fn a_configuration_that_the_model_does_not_have_is_named() {
        assert_eq!(found("3d_lowres", "0"), "the model has no network of the configuration `3d_lowres`");
    }
}
