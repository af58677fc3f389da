//! nnU-Net's `plans.json`: how a dataset is preprocessed and which networks are trained on it.
//!
//! A configuration in the file may be a few keys that change another one (`inherits_from`), may carry keys that only a
//! user's own trainer knows, and may be of the form that nnU-Net wrote before version 2.2. So the configurations are
//! kept as the JSON objects that they are, in their order, and nothing that was read is lost when the plans are written
//! again. [`Plans::configuration`] gives the typed, checked and complete view of one of them: every reader goes through
//! it and need not ask again whether the patch has as many axes as the spacing.
//!
//! Everything is in the transposed frame: axis `i` of a shape or a spacing is axis `transpose_forward[i]` of the image.

mod architecture;
mod check;
mod legacy;

use std::path::Path;

use nnflow_kernels::geometry::Transpose;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::architecture::{Architecture, NetworkKind, UNetArguments};
use crate::fingerprint::IntensityProperties;
use crate::json::{self, JsonError};

/// What is wrong with plans.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlansError {
    /// The file cannot be read, or is not of the form that nnU-Net writes.
    #[error(transparent)]
    File(#[from] JsonError),
    /// `transpose_backward` does not undo `transpose_forward`.
    #[error(
        "`transpose_backward` `{backward:?}` of the plans does not undo `transpose_forward` `{forward:?}`: expected \
         `{expected:?}`"
    )]
    Transpose {
        /// The order of the axes after preprocessing.
        forward: [usize; 3],
        /// The order that was to undo it.
        backward: [usize; 3],
        /// The order that undoes it.
        expected: [usize; 3],
    },
    /// A configuration that the plans do not have.
    #[error("the plans have no configuration `{name}`: they have `{}`", available.join("`, `"))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names that there are.
        available: Vec<String>,
    },
    /// Configurations that inherit from each other in a circle.
    #[error("the configurations `{}` inherit from each other in a circle", chain.join("` → `"))]
    Circular {
        /// The names in the order in which they were followed, the repeated one at both ends.
        chain: Vec<String>,
    },
    /// A configuration that is not an object with the keys of one.
    #[error("configuration `{name}` of the plans does not have the form that nnU-Net writes: {source}")]
    Configuration {
        /// The configuration's name.
        name: String,
        /// What the reader of JSON met.
        source: serde_json::Error,
    },
    /// Intensities of a channel that are missing or not of their form.
    #[error("the foreground intensities of channel {channel} in the plans are not usable: {source}")]
    Intensities {
        /// Number of the channel.
        channel: usize,
        /// What the reader of JSON met.
        source: serde_json::Error,
    },
    /// Two values of a configuration that contradict each other, or one that cannot be used.
    #[error("`{key}` of configuration `{name}` of the plans is not usable: expected {expected}, found {found}")]
    Inconsistent {
        /// The configuration's name.
        name: String,
        /// The key of the value.
        key: &'static str,
        /// What was expected there.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A network that is none of ours.
    #[error(
        "the plans ask for the network `{class}`, which is none of `PlainConvUNet`, `ResidualEncoderUNet` and `{}`",
        NetworkKind::UNET_2018
    )]
    Network {
        /// The class that the plans name.
        class: String,
    },
}

/// The contents of `plans.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plans {
    /// Name of the dataset, such as `Dataset004_Hippocampus`.
    pub dataset_name: String,
    /// Name of these plans, such as `nnUNetPlans`.
    pub plans_name: String,
    /// Median spacing of the images before resampling, in millimetres.
    pub original_median_spacing_after_transp: [f64; 3],
    /// Median shape of the cropped images before resampling, in voxels.
    pub original_median_shape_after_transp: [usize; 3],
    /// nnU-Net's class that reads the images.
    pub image_reader_writer: String,
    /// From the axes of an image to those of the plans.
    pub transpose_forward: Transpose,
    /// The inverse of `transpose_forward`.
    pub transpose_backward: Transpose,
    /// The configurations as they stand in the file; [`Plans::configuration`] reads one.
    pub configurations: Map<String, Value>,
    /// nnU-Net's class that made the plans.
    pub experiment_planner_used: String,
    /// nnU-Net's class that tells labels from regions.
    pub label_manager: String,
    /// Intensities of the foreground of all training images, by the channel's number, as in the fingerprint;
    /// [`Plans::foreground_intensities`] reads one.
    pub foreground_intensity_properties_per_channel: Map<String, Value>,
    /// Keys that nnU-Net does not write.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One configuration with everything that it inherits: a grid, a patch and a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// Folder of the preprocessed cases in nnU-Net's layout.
    pub data_identifier: String,
    /// nnU-Net's class that preprocesses.
    pub preprocessor_name: String,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Voxels that the network sees at a time, two or three axes.
    pub patch_size: Vec<usize>,
    /// Median shape of the resampled cases, in voxels; the axes of the patch.
    pub median_image_size_in_voxels: Vec<f64>,
    /// Spacing of the resampled cases in millimetres; the axes of the patch.
    pub spacing: Vec<f64>,
    /// nnU-Net's class that normalises, one a channel.
    pub normalization_schemes: Vec<String>,
    /// Whether only the voxels of the nonzero region are normalised, one a channel.
    pub use_mask_for_norm: Vec<bool>,
    /// nnU-Net's function that resamples images.
    pub resampling_fn_data: String,
    /// nnU-Net's function that resamples labels.
    pub resampling_fn_seg: String,
    /// How images are resampled.
    pub resampling_fn_data_kwargs: ResamplingArguments,
    /// How labels are resampled.
    pub resampling_fn_seg_kwargs: ResamplingArguments,
    /// nnU-Net's function that brings class scores back to the image's grid.
    pub resampling_fn_probabilities: String,
    /// How class scores are resampled.
    pub resampling_fn_probabilities_kwargs: ResamplingArguments,
    /// The network.
    pub architecture: Architecture,
    /// Whether Dice is computed over the batch as if it were one image; else for each sample.
    pub batch_dice: bool,
    /// The configuration whose segmentations are further input channels: the first stage of a cascade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_stage: Option<String>,
    /// The configuration, or list of configurations, that takes this one's segmentations as input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_stage: Option<Value>,
    /// Keys that nnU-Net does not write, and `inherits_from`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Arguments of `resample_data_or_seg_to_shape`; what a file leaves out has that function's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResamplingArguments {
    /// Whether the values are labels.
    #[serde(default)]
    pub is_seg: bool,
    /// Order of the spline within slices, or on all axes where none is set apart.
    #[serde(default = "cubic")]
    pub order: u8,
    /// Order of the spline along an axis that is set apart.
    #[serde(default)]
    pub order_z: u8,
    /// Whether the axis with the largest spacing is set apart; decided by the spacings if `None`.
    #[serde(default)]
    pub force_separate_z: Option<bool>,
    /// Arguments that nnU-Net does not write by itself.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn cubic() -> u8 {
    3
}

impl Plans {
    /// Reads the text of the plans in the file `name`, which only errors use.
    ///
    /// # Errors
    /// [`PlansError::File`] or [`PlansError::Transpose`]; configurations are checked when they are asked for.
    pub fn from_slice(text: &[u8], name: &Path) -> Result<Self, PlansError> {
        let plans: Self = json::from_slice(text, name)?;
        let (forward, backward) = (plans.transpose_forward, plans.transpose_backward);
        if forward.inverse() == backward {
            return Ok(plans);
        }
        Err(PlansError::Transpose {
            forward: forward.axes(),
            backward: backward.axes(),
            expected: forward.inverse().axes(),
        })
    }

    /// Whether there is a configuration of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.configurations.contains_key(name)
    }

    /// A configuration with all that it inherits, as JSON.
    ///
    /// A key of the configuration stands in for the same key of the one that it inherits from, whole: objects inside
    /// are not merged. Equal to `PlansManager.get_configuration` of nnU-Net 2.8.1, the conversion of old plans
    /// included.
    ///
    /// # Errors
    /// [`PlansError::Unknown`], [`PlansError::Circular`] or [`PlansError::Configuration`].
    pub fn resolved(&self, name: &str) -> Result<Map<String, Value>, PlansError> {
        let mut layers = Vec::new();
        let mut chain = vec![name.to_owned()];
        loop {
            let current = &chain[chain.len() - 1];
            let layer = self.layer(current)?;
            layers.push(layer);
            let Some(parent) = layer.get("inherits_from") else { break };
            let parent: String = Deserialize::deserialize(parent)
                .map_err(|source| PlansError::Configuration { name: current.clone(), source })?;
            let repeated = chain.contains(&parent);
            chain.push(parent);
            if repeated {
                return Err(PlansError::Circular { chain });
            }
        }
        let mut merged = Map::new();
        for layer in layers.into_iter().rev() {
            merged.extend(layer.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        legacy::modernise(merged).map_err(|source| PlansError::Configuration { name: name.to_owned(), source })
    }

    /// A configuration with all that it inherits, checked.
    ///
    /// # Errors
    /// As [`Plans::resolved`], and [`PlansError::Inconsistent`].
    pub fn configuration(&self, name: &str) -> Result<Configuration, PlansError> {
        let merged = Value::Object(self.resolved(name)?);
        let configuration: Configuration = serde_json::from_value(merged)
            .map_err(|source| PlansError::Configuration { name: name.to_owned(), source })?;
        check::check(name, &configuration)?;
        Ok(configuration)
    }

    /// Intensities of the foreground in a channel, over all training cases.
    ///
    /// # Errors
    /// [`PlansError::Intensities`] if the plans have none for this channel.
    pub fn foreground_intensities(&self, channel: usize) -> Result<IntensityProperties, PlansError> {
        let entry = self.foreground_intensity_properties_per_channel.get(&channel.to_string());
        IntensityProperties::deserialize(entry.unwrap_or(&Value::Null))
            .map_err(|source| PlansError::Intensities { channel, source })
    }

    fn layer(&self, name: &str) -> Result<&Map<String, Value>, PlansError> {
        let entry = self.configurations.get(name).ok_or_else(|| PlansError::Unknown {
            name: name.to_owned(),
            available: self.configurations.keys().cloned().collect(),
        })?;
        entry.as_object().ok_or_else(|| PlansError::Configuration {
            name: name.to_owned(),
            source: serde::de::Error::custom(format_args!("expected an object, found `{entry}`")),
        })
    }
}

impl Configuration {
    /// Number of spatial axes that the network sees: 2 or 3.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.patch_size.len()
    }
}

#[cfg(test)]
mod tests;
