//! What a model is besides its weights: enough to predict with it, and how its training went.

use nnflow_stage::{Artifact, StageError};
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
