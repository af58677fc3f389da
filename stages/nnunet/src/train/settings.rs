//! What can be set of a training, and what nnU-Net v2 sets.

use nnflow_stage::{Parameter, ParameterKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schedule::ScheduleSettings;
use super::stop::StopSettings;

/// Everything that a workflow can set of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSettings {
    /// Epochs at most.
    pub epochs: u32,
    /// Training batches in an epoch.
    pub batches_per_epoch: u32,
    /// Validation batches in an epoch.
    pub validation_batches: u32,
    /// Samples in a batch; what the plan says if absent.
    pub batch_size: Option<usize>,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
    /// The largest norm of a gradient.
    pub gradient_clip: Option<f64>,
    /// How the learning rate falls.
    pub schedule: ScheduleSettings,
    /// When training ends early.
    pub stop: StopSettings,
    /// The loss.
    pub loss: LossSettings,
    /// Whether the outputs of the lower resolutions are trained too.
    pub deep_supervision: bool,
    /// The share of samples that are centred on foreground.
    pub oversample_foreground: f64,
    /// The share of the old value in the moving average of the pseudo Dice.
    pub dice_smoothing: f64,
    /// Which weights the model has in the end.
    pub keep: Keep,
    /// Epochs between two checkpoints.
    pub checkpoint_every: u32,
    /// Minutes between two checkpoints at least.
    pub checkpoint_minutes: f64,
    /// What the network computes in.
    pub precision: PrecisionChoice,
    /// Whether a GPU shall make the same weights again.
    pub deterministic: bool,
    /// How samples are augmented.
    pub augmentation: Value,
    /// What augments them.
    pub augment_on: AugmentOn,
}

/// What augments training samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AugmentOn {
    /// What is faster.
    Auto,
    /// The threads that read them.
    Cpu,
    /// The device of the network.
    Device,
}

impl AugmentOn {
    /// Whether the device of the network does it.
    ///
    /// A GPU does volumes in a few large operations. Slices are too small for it: a batch has hundreds of them, with some
    /// operations each, and to ask a GPU for an operation takes longer than a thread takes to do it.
    #[must_use]
    pub fn is_device(self, has_gpu: bool, is_2d: bool) -> bool {
        match self {
            Self::Auto => has_gpu && !is_2d,
            Self::Cpu => false,
            Self::Device => true,
        }
    }
}

/// What a network computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// What suits the device.
    Auto,
    /// 32 bits.
    Float32,
    /// 16 bits with the range of 32.
    Bfloat16,
    /// 16 bits with more digits and less range.
    Float16,
}

/// The kinds of [`PrecisionChoice`].
pub(crate) const PRECISIONS: ParameterKind = ParameterKind::Choice(&["auto", "float32", "bfloat16", "float16"]);

/// Which weights a model has in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Those of the last epoch.
    Last,
    /// Those of the epoch whose moving average of the pseudo Dice was highest.
    Best,
}

/// The optimisers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Stochastic gradient descent with Nesterov's momentum.
    Sgd,
    /// Adam.
    Adam,
}

/// The optimiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSettings {
    /// Which one.
    pub name: OptimizerName,
    /// The learning rate of the first epoch.
    pub learning_rate: f64,
    /// Of `sgd`: the part of the last step that is kept.
    pub momentum: f64,
    /// The part of the weights added to the gradient.
    pub weight_decay: f64,
    /// Of `adam`: decay of the mean of the gradient and of that of its square.
    pub betas: [f64; 2],
    /// Of `adam`: added to the root of the mean square.
    pub epsilon: f64,
    /// Of `adam`: whether the largest mean square so far counts.
    pub amsgrad: bool,
}

/// The loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossSettings {
    /// Whether Dice is taken over the batch: `plan`, `batch` or `sample`.
    pub dice_over: DiceOver,
    /// Factor of the Dice loss.
    pub dice_weight: f64,
    /// Factor of the cross-entropy.
    pub cross_entropy_weight: f64,
    /// Added to the numerator and the denominator of the Dice.
    pub smooth: f64,
    /// Whether background counts in the Dice.
    pub dice_of_background: bool,
}

/// What Dice is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiceOver {
    /// As the plan says for the configuration.
    Plan,
    /// The batch as if it were one image.
    Batch,
    /// Each sample, then the mean.
    Sample,
}

impl DiceOver {
    /// Whether Dice is taken over the batch.
    #[must_use]
    pub fn is_batch(self, planned: bool) -> bool {
        match self {
            Self::Plan => planned,
            Self::Batch => true,
            Self::Sample => false,
        }
    }
}

/// A number of at least 0.
pub(crate) const POSITIVE: ParameterKind = ParameterKind::Number { minimum: 0.0, maximum: f64::INFINITY };
/// A share, from 0 to 1.
pub(crate) const SHARE: ParameterKind = ParameterKind::Number { minimum: 0.0, maximum: 1.0 };
/// A count of at least 1.
pub(crate) const COUNT: ParameterKind = ParameterKind::Integer { minimum: 1, maximum: 1_000_000_000 };

pub(crate) const fn parameter(
    name: &'static str,
    kind: ParameterKind,
    default: &'static str,
    unit: &'static str,
    doc: &'static str,
) -> Parameter {
    Parameter { name, kind, default, unit, doc }
}

/// The declaration of [`TrainingSettings`].
pub const TRAINING_PARAMETERS: &[Parameter] = &[
    parameter("epochs", COUNT, "1000", "epochs", "the longest that training lasts"),
    parameter("batches_per_epoch", COUNT, "250", "batches", "training batches in an epoch"),
    parameter("validation_batches", COUNT, "50", "batches", "validation batches in an epoch, not augmented"),
    parameter(
        "batch_size",
        ParameterKind::Optional(&COUNT),
        "null",
        "samples",
        "samples in a batch; `none` takes what the plan says",
    ),
    parameter("optimizer", ParameterKind::Table(OPTIMIZER), "{}", "", "the optimiser"),
    parameter(
        "gradient_clip",
        ParameterKind::Optional(&POSITIVE),
        "12.0",
        "",
        "the largest norm of a gradient; longer ones are scaled down to it",
    ),
    parameter("schedule", ParameterKind::Table(SCHEDULE), "{}", "", "how the learning rate falls"),
    parameter("stop", ParameterKind::Table(STOP), "{}", "", "when training ends before its last epoch"),
    parameter(
        "loss",
        ParameterKind::Table(LOSS),
        "{}",
        "",
        "Dice loss plus cross-entropy (binary cross-entropy for regions)",
    ),
    parameter(
        "deep_supervision",
        ParameterKind::Boolean,
        "true",
        "",
        "whether the outputs of all but the lowest resolution are trained, weighted 1, 1/2, 1/4, …",
    ),
    parameter(
        "oversample_foreground",
        SHARE,
        "0.33",
        "",
        "the share of a batch that is centred on a voxel of a random foreground class",
    ),
    parameter(
        "dice_smoothing",
        SHARE,
        "0.9",
        "",
        "the share of the old value in the moving average of the pseudo Dice",
    ),
    parameter(
        "keep",
        ParameterKind::Choice(&["last", "best"]),
        "\"last\"",
        "",
        "the weights of the model: those of the last epoch, or of the one with the best moving average of the pseudo Dice",
    ),
    parameter(
        "checkpoint_every",
        COUNT,
        "1",
        "epochs",
        "how often a checkpoint is written; a killed training loses at most so many epochs",
    ),
    parameter(
        "checkpoint_minutes",
        POSITIVE,
        "0.0",
        "min",
        "the least time between two checkpoints, for epochs that take seconds; a killed training loses at most so much more",
    ),
    parameter(
        "precision",
        PRECISIONS,
        "\"auto\"",
        "",
        "what the network computes in; weights and sums are of 32 bits always; `auto` is `bfloat16` on a GPU, `float32` on a CPU",
    ),
    parameter(
        "deterministic",
        ParameterKind::Boolean,
        "false",
        "",
        "whether a GPU takes slower operations that give the same weights again; a CPU always does",
    ),
    parameter(
        "augmentation",
        ParameterKind::Table(super::augmentation::AUGMENTATION),
        "{}",
        "",
        "how samples are augmented: a preset, and what differs from it",
    ),
    parameter(
        "augment_on",
        ParameterKind::Choice(&["auto", "cpu", "device"]),
        "\"auto\"",
        "",
        "what augments samples: the threads that read them, or the network's device; `auto` is `device` for volumes on a GPU, else `cpu`",
    ),
];

const OPTIMIZER: &[Parameter] = &[
    parameter(
        "name",
        ParameterKind::Choice(&["sgd", "adam"]),
        "\"sgd\"",
        "",
        "stochastic gradient descent with Nesterov's momentum, or Adam",
    ),
    parameter("learning_rate", POSITIVE, "0.01", "", "of the first epoch"),
    parameter("momentum", SHARE, "0.99", "", "of `sgd`"),
    parameter("weight_decay", POSITIVE, "3e-5", "", "the part of the weights that is added to the gradient"),
    parameter("betas", ParameterKind::List(&SHARE), "[0.9, 0.999]", "", "of `adam`"),
    parameter("epsilon", POSITIVE, "1e-8", "", "of `adam`"),
    parameter("amsgrad", ParameterKind::Boolean, "false", "", "of `adam`"),
];

const SCHEDULE: &[Parameter] = &[
    parameter(
        "name",
        ParameterKind::Choice(&["poly", "plateau"]),
        "\"poly\"",
        "",
        "a power of what is left of the training, or a fall when the training loss no longer does",
    ),
    parameter("exponent", POSITIVE, "0.9", "", "of `poly`"),
    parameter("factor", SHARE, "0.2", "", "of `plateau`: what the rate is multiplied by"),
    parameter("patience", COUNT, "30", "epochs", "of `plateau`: how long the loss may stay before the rate falls"),
    parameter("threshold", POSITIVE, "0.005", "", "of `plateau`: a smaller fall of the loss is none"),
    parameter(
        "smoothing",
        SHARE,
        "0.93",
        "",
        "of `plateau`: the share of the old value in the moving average of the training loss",
    ),
];

const STOP: &[Parameter] = &[
    parameter(
        "stop_when",
        ParameterKind::Choice(&["never", "either", "both"]),
        "\"never\"",
        "",
        "on either or both of: the validation loss no longer falls, the learning rate is low",
    ),
    parameter("patience", COUNT, "60", "epochs", "how long the validation loss may stay"),
    parameter("threshold", POSITIVE, "0.005", "", "a smaller fall of the loss is none"),
    parameter("minimum_learning_rate", POSITIVE, "1e-6", "", "a lower rate is low"),
    parameter("smoothing", SHARE, "0.9", "", "the share of the old value in the moving average of the validation loss"),
];

const LOSS: &[Parameter] = &[
    parameter(
        "dice_over",
        ParameterKind::Choice(&["plan", "batch", "sample"]),
        "\"plan\"",
        "",
        "whether Dice is taken over the batch as if it were one image, or of each sample",
    ),
    parameter("dice_weight", POSITIVE, "1.0", "", "factor of the Dice loss"),
    parameter("cross_entropy_weight", POSITIVE, "1.0", "", "factor of the cross-entropy"),
    parameter("smooth", POSITIVE, "1e-5", "voxels", "added to the numerator and the denominator of the Dice"),
    parameter("dice_of_background", ParameterKind::Boolean, "false", "", "whether background counts in the Dice"),
];

#[cfg(test)]
mod tests {
    use nnflow_stage::effective_parameters;
    use serde_json::Map;

    use super::*;

    #[test]
    fn the_declared_defaults_are_settings() {
        let parameters = effective_parameters(TRAINING_PARAMETERS, &Map::new()).expect("defaults are valid");
        let settings: TrainingSettings = parameters.parse().expect("the declaration fits the type");
        assert_eq!((settings.epochs, settings.batches_per_epoch, settings.validation_batches), (1000, 250, 50));
    }

    #[test]
    fn a_gpu_augments_volumes_and_whatever_it_is_told_to() {
        let of = |choice: AugmentOn| {
            [(true, false), (true, true), (false, false)].map(|(gpu, flat)| choice.is_device(gpu, flat))
        };
        assert_eq!(of(AugmentOn::Auto), [true, false, false]);
        assert_eq!(of(AugmentOn::Cpu), [false; 3]);
        assert_eq!(of(AugmentOn::Device), [true; 3]);
    }
}
