//! What training and prediction read of the plan, the folds and `dataset.json`.

use ndarray::Array3;
use nnflow_io::dataset::LabelValue;
use nnflow_io::splits::Split;
use nnflow_stage::{Axes, StageError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::documents::{PlannedConfiguration, dataset_description, slice};

/// The axis whose values are the folds of cross-validation.
pub const FOLD: &str = "fold";

/// The fold in which every case is both trained on and validated on.
const ALL: &str = "all";

/// What training reads of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingPlan {
    /// Voxels that the network sees at a time, two or three axes, in the frame of the plan.
    pub patch_size: Vec<usize>,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Whether Dice is computed over the batch as if it were one image.
    pub batch_dice: bool,
    /// Whether a channel is zero outside the nonzero region, one a channel.
    pub use_mask_for_norm: Vec<bool>,
    /// The network, as nnU-Net's plans describe it.
    pub architecture: Value,
    /// Whether the segmentation of an earlier stage is further input.
    pub cascade: bool,
}

impl TrainingPlan {
    /// The slice of a plan for the node's configuration.
    ///
    /// # Errors
    /// If the plan lacks the configuration.
    pub fn slice(document: &Value, axes: &Axes) -> Result<Value, StageError> {
        let PlannedConfiguration { configuration, .. } = PlannedConfiguration::new(document, axes)?;
        slice(&Self {
            patch_size: configuration.patch_size,
            batch_size: configuration.batch_size,
            batch_dice: configuration.batch_dice,
            use_mask_for_norm: configuration.use_mask_for_norm,
            architecture: slice(&configuration.architecture)?,
            cascade: configuration.previous_stage.is_some(),
        })
    }

    /// The patch with three axes; that of a 2-D network is one slice.
    ///
    /// # Errors
    /// If the plan's patch has neither two nor three axes.
    pub fn patch(&self) -> Result<[usize; 3], StageError> {
        match *self.patch_size.as_slice() {
            [y, x] if y > 0 && x > 0 => Ok([1, y, x]),
            [z, y, x] if z > 0 && y > 0 && x > 0 => Ok([z, y, x]),
            ref found => Err(StageError::input(format!(
                "the plan's patch size is `{found:?}`: expected two or three extents above 0"
            ))),
        }
    }

    /// Whether the network sees slices.
    #[must_use]
    pub fn is_2d(&self) -> bool {
        self.patch_size.len() == 2
    }
}

/// What training and prediction read of `dataset.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// Channels of an image.
    pub channels: usize,
    /// Labels with background, without the one to ignore, ascending.
    pub labels: Vec<i16>,
    /// The labels of each region, in the order of the network's outputs, if the dataset has regions.
    pub regions: Option<Vec<Vec<i16>>>,
    /// What a voxel of each region is labelled with, later ones over earlier ones.
    pub regions_class_order: Option<Vec<i16>>,
    /// The label of voxels that nobody annotated.
    pub ignore: Option<i16>,
}

impl Classes {
    /// The slice of a `dataset.json`.
    ///
    /// # Errors
    /// Everything that is wrong with the document.
    pub fn slice(document: &Value) -> Result<Value, StageError> {
        let description = dataset_description(document)?;
        let labels = &description.labels;
        let regions =
            labels.has_regions().then(|| labels.regions().iter().map(|region| region.members().to_vec()).collect());
        slice(&Self {
            channels: description.channel_names.len(),
            labels: labels.all(),
            regions,
            regions_class_order: description.regions_class_order.filter(|_| labels.has_regions()),
            ignore: labels.ignore(),
        })
    }

    /// Outputs of the network: labels with background, or regions.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.regions.as_ref().map_or(self.labels.len(), Vec::len)
    }

    /// From numbers of classes, as `argmax` gives them, to the labels of the dataset.
    #[must_use]
    pub fn label_values(&self, mut classes: Array3<i16>) -> Array3<i16> {
        let labels = &self.labels;
        let consecutive = (0_i16..).zip(labels).all(|(class, label)| class == *label);
        if !consecutive {
            classes.mapv_inplace(|class| {
                usize::try_from(class).ok().and_then(|class| labels.get(class)).copied().unwrap_or(0)
            });
        }
        classes
    }

    /// What the voxels of each region are labelled with.
    ///
    /// # Errors
    /// If the dataset does not say it.
    pub fn region_order(&self) -> Result<&[i16], StageError> {
        self.regions_class_order.as_deref().ok_or_else(|| {
            StageError::input("`dataset.json` has regions, but no `regions_class_order`")
                .with_hint("`regions_class_order` says what the voxels of each region are labelled with")
        })
    }

    /// Foreground labels, in the order of the one-hot channels of a cascade.
    #[must_use]
    pub fn foreground(&self) -> Vec<i16> {
        self.labels.iter().copied().filter(|label| *label > 0).collect()
    }

    /// The name of each foreground class, as nnU-Net writes it: `1`, or `(1, 2)` for a region.
    #[must_use]
    pub fn foreground_names(&self) -> Vec<String> {
        match &self.regions {
            Some(regions) => regions.iter().map(|region| LabelValue::Region(region.clone()).to_string()).collect(),
            None => self.foreground().iter().map(ToString::to_string).collect(),
        }
    }
}

/// The cases of one fold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldCases {
    /// To train on.
    pub train: Vec<String>,
    /// To validate on.
    pub val: Vec<String>,
}

impl FoldCases {
    /// The node's fold out of `splits_final.json`.
    ///
    /// # Errors
    /// If the node has no fold, or the document does not have that many.
    pub fn slice(document: &Value, axes: &Axes) -> Result<Value, StageError> {
        let fold = axes
            .get(FOLD)
            .ok_or_else(|| StageError::internal(format!("the node has no value on the axis `{FOLD}`")))?;
        let splits: Vec<Split> = serde_json::from_value(document.clone())
            .map_err(|error| StageError::input(format!("`splits_final.json` is not a list of folds: {error}")))?;
        if fold == ALL {
            let mut every: Vec<String> =
                splits.iter().flat_map(|fold| fold.train.iter().chain(&fold.val)).cloned().collect();
            every.sort();
            every.dedup();
            return slice(&Self { train: every.clone(), val: every });
        }
        let chosen = fold.parse::<usize>().ok().and_then(|index| splits.into_iter().nth(index)).ok_or_else(|| {
            StageError::input(format!("there is no fold `{fold}`"))
                .with_hint("folds are numbered from 0; the stage `split` says how many there are (`folds`)")
        })?;
        slice(&Self { train: chosen.train, val: chosen.val })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fold(name: &str) -> Result<Value, StageError> {
        let splits = json!([{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]);
        FoldCases::slice(&splits, &Axes::from([(FOLD.to_owned(), name.to_owned())]))
    }

    #[test]
    fn a_fold_is_picked_by_its_number() {
        assert_eq!(fold("1").expect("there"), json!({"train": ["c"], "val": ["a", "b"]}));
    }

    #[test]
    fn the_fold_all_has_every_case_on_both_sides() {
        assert_eq!(fold("all").expect("there"), json!({"train": ["a", "b", "c"], "val": ["a", "b", "c"]}));
    }

    #[test]
    fn a_fold_that_is_not_there_is_an_error() {
        assert!(fold("2").is_err());
    }
}
