//! Dice and cross-entropy, for labels and for regions.
//!
//! A loss is computed in two steps: sums over the voxels of each sample, which hold all that touches a voxel, and the loss
//! of these few sums. Samples can then be worked on apart from each other even where the Dice goes over the whole batch.
//!
//! Equal to nnU-Net 2.8.1 `DC_and_CE_loss` and `DC_and_BCE_loss` with `MemoryEfficientSoftDiceLoss`;
//! `tests/golden/loss` holds values and gradients to it.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::error::TorchError;

/// Below this a denominator of the Dice counts as this (`torch.clip(…, 1e-8)` in nnU-Net).
const SMALLEST_DENOMINATOR: f64 = 1e-8;

/// What the outputs of a network stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    /// One output a label, `0, 1, …`, of which a voxel has one: softmax and cross-entropy.
    Labels {
        /// The label of voxels that nobody annotated.
        ignore: Option<i16>,
    },
    /// One output a region, each a set of labels; regions may overlap: sigmoid and binary cross-entropy.
    Regions {
        /// The labels of each region.
        regions: Vec<Vec<i16>>,
        /// The label of voxels that nobody annotated.
        ignore: Option<i16>,
    },
}

/// What a network is trained to make small: cross-entropy plus Dice loss (which is negative).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// What the outputs stand for.
    pub target: Target,
    /// Whether the Dice is taken of the whole batch; else of each sample, and averaged.
    pub batch_dice: bool,
    /// Added to the numerator and the denominator of the Dice, in voxels.
    pub smooth: f64,
    /// Whether label 0 counts in the Dice; regions all count.
    pub dice_of_background: bool,
    /// Factor of the Dice loss.
    pub dice_weight: f64,
    /// Factor of the cross-entropy.
    pub cross_entropy_weight: f64,
}

/// Sums over the voxels of each sample.
pub(crate) struct Sums {
    /// `[sample, 2·class + 1]`: intersections, predicted volumes, cross-entropy; depends on the logits.
    pub(crate) predicted: Tensor,
    /// `[sample, class + 1]`: volumes of the target, voxels (or entries) of the cross-entropy; a constant.
    pub(crate) target: Tensor,
}

impl Loss {
    /// nnU-Net's loss: no background in the Dice, smoothed by 1e-5, both parts of equal weight.
    #[must_use]
    pub fn nnunet(target: Target, batch_dice: bool) -> Self {
        Self {
            target,
            batch_dice,
            smooth: 1e-5,
            dice_of_background: false,
            dice_weight: 1.0,
            cross_entropy_weight: 1.0,
        }
    }

    /// Checks that a network has as many outputs as the loss is of; else says how many.
    pub(crate) fn check(&self, outputs: usize) -> Result<(), String> {
        match &self.target {
            Target::Regions { regions, .. } if regions.len() != outputs => {
                Err(format!("{}, one a region", regions.len()))
            }
            Target::Labels { .. } if outputs < 2 => Err("2 or more, one a label with the background".to_owned()),
            Target::Labels { .. } | Target::Regions { .. } => Ok(()),
        }
    }

    /// The sums of a batch.
    ///
    /// `logits`: `[sample, class, (z,) y, x]`; `labels`: 64-bit labels `[sample, 1, (z,) y, x]`.
    pub(crate) fn sums(&self, logits: &Tensor, labels: &Tensor) -> Result<Sums, TorchError> {
        let valid = self.target.valid(labels)?;
        match &self.target {
            Target::Labels { .. } => self.label_sums(logits, labels, valid.as_ref()),
            Target::Regions { .. } => region_sums(logits, &self.target.regions(labels)?, valid.as_ref()),
        }
    }

    fn label_sums(&self, logits: &Tensor, labels: &Tensor, valid: Option<&Tensor>) -> Result<Sums, TorchError> {
        let log_probability = logits.f_log_softmax(1, None)?;
        // An ignored label may lie beyond the classes; its voxels count with the factor 0 below.
        let labels = masked(labels, valid)?;
        let entropy = masked(&log_probability.f_gather(1, &labels, false)?.f_neg()?, valid)?;
        let first = i64::from(!self.dice_of_background);
        let classes = logits.size()[1] - first;
        let one_hot = logits.f_zeros_like()?.f_scatter_value(1, &labels, 1.0)?.f_narrow(1, first, classes)?;
        let one_hot = masked(&one_hot, valid)?;
        let probability = log_probability.f_narrow(1, first, classes)?.f_exp()?;
        let volume = volume_of(&entropy, valid)?;
        sums(&probability, &one_hot, valid, &entropy, volume)
    }

    /// The loss of a batch from the sums of all its samples.
    pub(crate) fn of_sums(&self, sums: &Sums) -> Result<Tensor, TorchError> {
        let classes = sums.target.size()[1] - 1;
        let entropy = sums.predicted.f_narrow(1, 2 * classes, 1)?.f_sum(Kind::Float)?;
        let volume = sums.target.f_narrow(1, classes, 1)?.f_sum(Kind::Float)?;
        // Where every voxel is ignored both are 0.
        let cross_entropy = entropy.f_div(&volume.f_clamp_min(self.smallest_volume())?)?;
        let over_batch = |tensor: &Tensor| match self.batch_dice {
            true => tensor.f_sum_dim_intlist(0, true, None),
            false => Ok(tensor.shallow_clone()),
        };
        let intersection = over_batch(&sums.predicted.f_narrow(1, 0, classes)?)?;
        let predicted = over_batch(&sums.predicted.f_narrow(1, classes, classes)?)?;
        let reference = over_batch(&sums.target.f_narrow(1, 0, classes)?)?;
        let numerator = intersection.f_mul_scalar(2.0)?.f_add_scalar(self.smooth)?;
        let denominator = reference.f_add(&predicted)?.f_add_scalar(self.smooth)?.f_clamp_min(SMALLEST_DENOMINATOR)?;
        let dice = numerator.f_div(&denominator)?.f_mean(Kind::Float)?;
        let dice = dice.f_mul_scalar(-self.dice_weight)?;
        Ok(cross_entropy.f_mul_scalar(self.cross_entropy_weight)?.f_add(&dice)?)
    }

    fn smallest_volume(&self) -> f64 {
        match self.target {
            Target::Labels { .. } => 1.0,
            Target::Regions { .. } => SMALLEST_DENOMINATOR,
        }
    }
}

impl Target {
    /// The factor of each voxel: 0 where it is ignored; none where no label is.
    pub(crate) fn valid(&self, labels: &Tensor) -> Result<Option<Tensor>, TorchError> {
        let (Self::Labels { ignore } | Self::Regions { ignore, .. }) = self;
        let valid = |label: i16| Ok(labels.f_ne(i64::from(label))?.f_to_kind(Kind::Float)?);
        ignore.map(valid).transpose()
    }

    /// One channel a region, 1 where a voxel's label belongs to it.
    fn regions(&self, labels: &Tensor) -> Result<Tensor, TorchError> {
        let Self::Regions { regions, .. } = self else { return Ok(labels.f_to_kind(Kind::Float)?) };
        let channel = |region: &Vec<i16>| -> Result<Tensor, TorchError> {
            let mut inside = labels.f_zeros_like()?.f_to_kind(Kind::Bool)?;
            for &label in region {
                inside = inside.f_logical_or(&labels.f_eq(i64::from(label))?)?;
            }
            Ok(inside.f_to_kind(Kind::Float)?)
        };
        let channels = regions.iter().map(channel).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&channels, 1)?)
    }

    /// True and false positives and false negatives of the hard segmentation: `[3, class]`, whole numbers.
    ///
    /// For labels the background is left out.
    ///
    /// # Reference
    /// nnU-Net 2.8.1 `nnUNetTrainer.validation_step`.
    pub(crate) fn counts(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, TorchError> {
        let valid = self.valid(labels)?.map(|valid| valid.f_to_kind(Kind::Bool)).transpose()?;
        let channels = match self {
            Self::Labels { .. } => label_channels(logits, labels)?,
            // The sigmoid is above a half where its argument is above 0.
            Self::Regions { .. } => (logits.f_gt(0.0)?, self.regions(labels)?.f_to_kind(Kind::Bool)?),
        };
        hard_counts(&channels.0, &channels.1, valid.as_ref())
    }
}

/// The weights of a network's outputs in the loss, from the full resolution down: each half of the one before, the last 0,
/// together 1.
///
/// # Reference
/// nnU-Net 2.8.1 `nnUNetTrainer._build_loss`; `tests/golden/loss/deep_supervision_weights.json`.
#[must_use]
pub fn deep_supervision_weights(n_outputs: usize) -> Vec<f64> {
    if n_outputs <= 1 {
        return vec![1.0; n_outputs];
    }
    let mut weights: Vec<f64> = (0..n_outputs).map(|output| 0.5_f64.powi(output as i32)).collect();
    weights[n_outputs - 1] = 0.0;
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

fn region_sums(logits: &Tensor, regions: &Tensor, valid: Option<&Tensor>) -> Result<Sums, TorchError> {
    let entropy = logits.f_binary_cross_entropy_with_logits(regions, None, None::<Tensor>, Reduction::None)?;
    let entropy = masked(&entropy, valid)?;
    // nnU-Net averages over voxels and regions, but over voxels alone where some are ignored.
    let volume = volume_of(&entropy, valid)?;
    sums(&logits.f_sigmoid()?, &masked(regions, valid)?, valid, &entropy, volume)
}

/// Entries that the cross-entropy is an average of, for each sample: `[sample, 1]`.
fn volume_of(entropy: &Tensor, valid: Option<&Tensor>) -> Result<Tensor, TorchError> {
    let volume = match valid {
        Some(valid) => valid.shallow_clone(),
        None => entropy.f_detach()?.f_ones_like()?,
    };
    Ok(volume.f_flatten(1, -1)?.f_sum_dim_intlist(1, true, None)?)
}

fn sums(
    probability: &Tensor,
    one_hot: &Tensor,
    valid: Option<&Tensor>,
    entropy: &Tensor,
    volume: Tensor,
) -> Result<Sums, TorchError> {
    let over_voxels = |tensor: &Tensor| tensor.f_flatten(2, -1)?.f_sum_dim_intlist(2, false, None);
    let intersection = over_voxels(&probability.f_mul(one_hot)?)?;
    let predicted = over_voxels(&masked(probability, valid)?)?;
    let entropy = entropy.f_flatten(1, -1)?.f_sum_dim_intlist(1, true, None)?;
    let target = Tensor::f_cat(&[over_voxels(one_hot)?, volume], 1)?;
    Ok(Sums { predicted: Tensor::f_cat(&[intersection, predicted, entropy], 1)?, target })
}

fn masked(tensor: &Tensor, valid: Option<&Tensor>) -> Result<Tensor, TorchError> {
    match valid {
        Some(valid) => Ok(tensor.f_mul(&valid.f_to_kind(tensor.kind())?)?),
        None => Ok(tensor.shallow_clone()),
    }
}

/// One channel for each label but the background: where it is predicted, where it is.
fn label_channels(logits: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor), TorchError> {
    let shape: Vec<i64> = std::iter::once(-1).chain(vec![1; logits.dim() - 2]).collect();
    let foreground = Tensor::f_arange_start(1, logits.size()[1], (Kind::Int64, logits.device()))?.f_view(&*shape)?;
    Ok((logits.f_argmax(1, true)?.f_eq_tensor(&foreground)?, labels.f_eq_tensor(&foreground)?))
}

fn hard_counts(predicted: &Tensor, reference: &Tensor, valid: Option<&Tensor>) -> Result<Tensor, TorchError> {
    let count = |both: Tensor| -> Result<Tensor, TorchError> {
        let both = match valid {
            Some(valid) => both.f_logical_and(valid)?,
            None => both,
        };
        let classes = both.size()[1];
        Ok(both.f_transpose(0, 1)?.f_reshape([classes, -1])?.f_sum_dim_intlist(1, false, Kind::Int64)?)
    };
    let true_positive = count(predicted.f_logical_and(reference)?)?;
    let false_positive = count(predicted.f_logical_and(&reference.f_logical_not()?)?)?;
    let false_negative = count(predicted.f_logical_not()?.f_logical_and(reference)?)?;
    Ok(Tensor::f_stack(&[true_positive, false_positive, false_negative], 0)?)
}
