//! A checkpoint of nnU-Net's, held against the network that it is to be the weights of.

use std::collections::BTreeMap;
use std::path::Path;

use nnflow_io::pickle::{Tensor, Value};
use nnflow_io::state_dict::{Parameter, canonical_name};
use nnflow_io::tensors::{Dtype, Tensor as Weights, write_tensors};
use nnflow_io::torch_file::{TorchFile, TorchFileError};
use nnflow_stage::StageError;

use crate::train::model::TrainingSummary;

/// What wrappers of PyTorch's put in front of every name: data-parallel training, and compilation.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];
/// How many of the differences between a checkpoint and a network are told.
const TOLD: usize = 8;

/// An open checkpoint.
pub(super) struct Checkpoint {
    file: TorchFile,
    /// Whose it is, for errors.
    title: String,
}

impl Checkpoint {
    /// Opens a checkpoint; `title` is what errors call it.
    pub(super) fn open(path: &Path, title: &str) -> Result<Self, StageError> {
        let file = TorchFile::open(path).map_err(|error| unusable(title, &error))?;
        Ok(Self { file, title: title.to_owned() })
    }

    fn entry(&self, keys: &[&str]) -> Result<Value<'_>, StageError> {
        keys.iter().try_fold(self.file.root(), |value, key| value.get(key)).ok_or_else(|| {
            let message = format!("the checkpoint {} has no entry `{}`", self.title, keys.join("."));
            StageError::input(message).with_hint("checkpoints of nnU-Net v2 can be read, those of v1 cannot")
        })
    }

    fn text(&self, keys: &[&str]) -> Result<String, StageError> {
        let value = self.entry(keys)?;
        value.as_str().map(str::to_owned).ok_or_else(|| self.wrong(keys, "a text", value))
    }

    fn wrong(&self, keys: &[&str], expected: &str, found: Value<'_>) -> StageError {
        let (key, found) = (keys.join("."), found.kind());
        StageError::input(format!("`{key}` of the checkpoint {} is {found}: expected {expected}", self.title))
    }

    /// The configuration that was trained.
    pub(super) fn configuration(&self) -> Result<String, StageError> {
        self.text(&["init_args", "configuration"])
    }

    /// The class that trained it.
    pub(super) fn trainer(&self) -> Result<String, StageError> {
        self.text(&["trainer_name"])
    }

    /// Axes that may be mirrored: `axes` in number, those that training mirrored, none in the oldest checkpoints.
    pub(super) fn mirror_axes(&self, axes: usize) -> Result<Vec<usize>, StageError> {
        const KEY: &str = "inference_allowed_mirroring_axes";
        let Some(value) = self.file.root().get(KEY).filter(|value| !value.is_none()) else { return Ok(Vec::new()) };
        let wrong = || self.wrong(&[KEY], &format!("axes below {axes}"), value);
        let axis =
            |value: Value<'_>| value.as_i64().and_then(|axis| usize::try_from(axis).ok()).filter(|axis| *axis < axes);
        let mut found: Vec<usize> =
            value.items().ok_or_else(wrong)?.map(axis).collect::<Option<_>>().ok_or_else(wrong)?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// How its training went, as far as it tells.
    pub(super) fn training(&self) -> TrainingSummary {
        let root = self.file.root();
        let last = |name: &str| {
            let values = root.get("logging").and_then(|logging| logging.get(name)).and_then(Value::items);
            values.and_then(|mut values| values.next_back()).and_then(Value::as_f64).filter(|value| value.is_finite())
        };
        let epochs = root.get("current_epoch").and_then(Value::as_i64).and_then(|epochs| u32::try_from(epochs).ok());
        let epochs = epochs.unwrap_or(0);
        TrainingSummary {
            epochs,
            kept_epoch: epochs,
            average_dice: last("ema_fg_dice"),
            mean_dice: last("mean_fg_dice"),
            training_loss: last("train_losses"),
            validation_loss: last("val_losses"),
            stopped: None,
        }
    }

    /// Writes the weights of a network with these parameters, under their canonical names.
    pub(super) fn write_weights(&self, parameters: &[Parameter], path: &Path) -> Result<(), StageError> {
        let tensors = self.tensors()?;
        self.check(&tensors, parameters)?;
        let mut values = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            let tensor = tensors[parameter.name.as_str()];
            let floats = self.file.floats(tensor).map_err(|error| unusable(&self.title, &error))?;
            if !floats.iter().all(|value| value.is_finite()) {
                let message =
                    format!("`{}` of the checkpoint {} has values that are not finite", parameter.name, self.title);
                return Err(StageError::input(message).with_hint("its training has diverged, or the file is damaged"));
            }
            values.push(floats);
        }
        let weights: Vec<Weights<'_>> = parameters
            .iter()
            .zip(&values)
            .map(|(Parameter { name, shape }, values)| Weights {
                name,
                dtype: Dtype::F32,
                shape,
                bytes: bytemuck::cast_slice(values),
            })
            .collect();
        write_tensors(path, &weights, &BTreeMap::new())
            .map_err(|error| StageError::storage("the weights cannot be written").with_source(error))
    }

    /// The tensors under their canonical names, each once.
    fn tensors(&self) -> Result<BTreeMap<String, &Tensor>, StageError> {
        const KEY: &str = "network_weights";
        let weights = self.entry(&[KEY])?;
        let entries = weights.entries().ok_or_else(|| self.wrong(&[KEY], "a dictionary", weights))?;
        let mut tensors: BTreeMap<String, &Tensor> = BTreeMap::new();
        for (name, value) in entries {
            let tensor = value.as_tensor().ok_or_else(|| self.wrong(&[KEY, name], "a tensor", value))?;
            let plain = PREFIXES.iter().fold(name, |name, prefix| name.strip_prefix(prefix).unwrap_or(name));
            let before = tensors.insert(canonical_name(plain), tensor);
            if before.is_some_and(|before| before != tensor) && !self.equal(before, tensor)? {
                return Err(StageError::input(format!(
                    "the checkpoint {} has two different tensors for `{}`, which nnU-Net stores under several names",
                    self.title,
                    canonical_name(plain)
                )));
            }
        }
        Ok(tensors)
    }

    fn equal(&self, one: Option<&Tensor>, other: &Tensor) -> Result<bool, StageError> {
        let floats = |tensor| self.file.floats(tensor).map_err(|error| unusable(&self.title, &error));
        let Some(one) = one.filter(|one| one.shape == other.shape) else { return Ok(false) };
        Ok(floats(one)? == floats(other)?)
    }

    /// That the checkpoint has the network's parameters and no others.
    fn check(&self, tensors: &BTreeMap<String, &Tensor>, parameters: &[Parameter]) -> Result<(), StageError> {
        let mut problems = Vec::new();
        for Parameter { name, shape } in parameters {
            match tensors.get(name) {
                None => problems.push(format!("`{name}` is missing")),
                Some(tensor) if !tensor.shape.iter().copied().eq(shape.iter().map(|extent| *extent as u64)) => {
                    problems.push(format!("`{name}` has the shape {:?}, expected {shape:?}", tensor.shape));
                }
                Some(_) => {}
            }
        }
        let known: std::collections::BTreeSet<&str> = parameters.iter().map(|parameter| &*parameter.name).collect();
        let unknown = tensors.keys().filter(|name| !known.contains(name.as_str()));
        problems.extend(unknown.map(|name| format!("`{name}` is no parameter of the planned network")));
        if problems.is_empty() {
            return Ok(());
        }
        let more = problems.len().saturating_sub(TOLD);
        problems.truncate(TOLD);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        let trainer = self.trainer().unwrap_or_else(|_| "the trainer".to_owned());
        Err(StageError::input(format!("the checkpoint {} does not fit the network of the plans", self.title))
            .with_details(problems)
            .with_hint(format!(
                "perhaps `{trainer}` builds another network than the plans describe: that cannot be imported"
            )))
    }
}

fn unusable(title: &str, error: &TorchFileError) -> StageError {
    StageError::input(format!("the checkpoint {title} cannot be used: {error}"))
}
