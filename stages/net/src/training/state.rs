//! Stopping a training and going on from there.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use super::{Trainer, TrainingError};
use crate::checkpoint::{CheckpointError, TensorFile, named, take_buffer, write};
use crate::error::TorchError;

/// Goes up whenever the names or the meaning of what is stored change.
const VERSION: u32 = 1;
const NETWORK: &str = "network.";
const LOSS_SCALE: &str = "loss_scale";

/// What a checkpoint says beside its tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    steps: u64,
    counters: Value,
}

impl Trainer {
    /// Writes all that [`Trainer::resume`] needs to go on to the bit: weights, the optimiser's state, and `counters`, which
    /// are the caller's (epoch, moving averages, …).
    ///
    /// # Errors
    /// [`CheckpointError::NotFinite`] where the training has diverged, [`CheckpointError::Io`] where the file cannot be
    /// written; what was there before then stays.
    pub fn checkpoint(&self, path: &Path, counters: &Value) -> Result<(), CheckpointError> {
        let layout = self.network.layout();
        let mut tensors = named(layout, NETWORK, self.network.buffer())?;
        for (name, state) in self.optimizer.state() {
            tensors.extend(named(layout, &optimizer_prefix(name), state)?);
        }
        if let Some(scale) = &self.loss_scale {
            tensors.push((LOSS_SCALE.to_owned(), scale.state().shallow_clone()));
        }
        let state = State { version: VERSION, steps: self.steps(), counters: counters.clone() };
        let metadata = serde_json::to_string(&state).map_err(|error| metadata_error(path, &error))?;
        write(path, tensors, Some(metadata))
    }

    /// Takes up what [`Trainer::checkpoint`] wrote, and returns the caller's counters.
    ///
    /// # Errors
    /// [`CheckpointError`] where the file is damaged, or is of another network or optimiser; the training then is as it
    /// was.
    pub fn resume(&mut self, path: &Path) -> Result<Value, CheckpointError> {
        let mut file = TensorFile::read(path)?;
        let state = read_state(&file)?;
        let layout = self.network.layout();
        let n_parameters = layout.specifications().len();
        let weights = take_buffer(&mut file, layout, NETWORK, n_parameters)?;
        let n_trained = self.network.topology().n_used(self.network.architecture().n_supervised());
        let names = self.optimizer.state().map(|(name, _)| name);
        let tensors = names.map(|name| take_buffer(&mut file, layout, &optimizer_prefix(name), n_trained));
        let tensors: Vec<Tensor> = tensors.collect::<Result<_, _>>()?;
        let scale = self.loss_scale.as_ref().map(|_| file.take(LOSS_SCALE, &[2])).transpose()?;
        file.check_empty()?;
        let _guard = tch::no_grad_guard();
        let mut buffer = self.network.buffer().shallow_clone();
        buffer.f_copy_(&weights).map_err(TorchError::from)?;
        self.optimizer.restore(state.steps, &tensors)?;
        if let (Some(scale), Some(stored)) = (&mut self.loss_scale, scale) {
            scale.restore(&stored)?;
        }
        Ok(state.counters)
    }

    /// Makes this training, on all its processes, the one that the first process has: its weights, the optimiser's state,
    /// the scale of the loss.
    ///
    /// # Errors
    /// [`TrainingError::Collective`] where the others are gone.
    pub fn align(&mut self) -> Result<(), TrainingError> {
        let steps = i64::try_from(self.steps()).unwrap_or(i64::MAX);
        let mut steps = Tensor::f_from_slice(&[steps])
            .and_then(|steps| steps.f_to_device(self.network.device().torch()))
            .map_err(TorchError::from)?;
        self.collective.spread(&mut steps)?;
        let mut buffer = self.network.buffer().shallow_clone();
        self.collective.spread(&mut buffer)?;
        self.optimizer.tensors().try_for_each(|state| self.collective.spread(state))?;
        if let Some(scale) = &self.loss_scale {
            let mut state = scale.state().shallow_clone();
            self.collective.spread(&mut state)?;
        }
        let steps = steps.f_int64_value(&[0]).map_err(TorchError::from)?;
        Ok(self.optimizer.restore(u64::try_from(steps).unwrap_or_default(), &[])?)
    }
}

fn optimizer_prefix(name: &str) -> String {
    format!("optimizer.{name}.")
}

fn read_state(file: &TensorFile) -> Result<State, CheckpointError> {
    let Some(text) = file.metadata() else {
        return Err(metadata_error(file.path(), &"it has no counters; it may be a file of weights only"));
    };
    let state: State = serde_json::from_str(text).map_err(|error| metadata_error(file.path(), &error))?;
    if state.version != VERSION {
        let reason = format!("it has version {}, expected {VERSION}", state.version);
        return Err(metadata_error(file.path(), &reason));
    }
    Ok(state)
}

fn metadata_error(path: &Path, reason: &dyn std::fmt::Display) -> CheckpointError {
    CheckpointError::Metadata { path: path.to_owned(), reason: reason.to_string() }
}
