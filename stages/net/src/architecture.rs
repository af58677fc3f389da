//! What a network looks like, as plans describe it.
//!
//! A [`Description`] is plain data that anyone may write; an [`Architecture`] is one that was checked, so that building
//! a network from it can only fail for want of memory.

mod plans;
#[cfg(test)]
mod tests;

use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// No network that segments images comes near to this; a plan that asks for more is damaged or hostile.
const MAX_PARAMETERS: usize = 4_000_000_000;
/// Axes are halved in a stage, and no image has 2^32 voxels along one.
const MAX_STAGES: usize = 32;

/// The slope of the leaky ReLU for negative inputs, in every network here.
pub const NEGATIVE_SLOPE: f64 = 0.01;

/// The families of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkKind {
    /// Two plain convolutions a stage, nnU-Net's default.
    PlainConvUNet,
    /// Residual blocks in the encoder, nnU-Net's ResEnc presets.
    ResidualEncoderUNet,
    /// The U-Net of 2018: no deep supervision, transposed convolutions and the head without bias.
    Unet2018,
}

/// How a stage of the encoder halves the resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first convolution of the stage has the stride.
    #[default]
    StridedConvolution,
    /// The maximum of each window of the stride's size, before the first convolution.
    Maximum,
}

/// A network in numbers; sizes are in voxels, `[z, y, x]` or `[y, x]`, one entry a stage from the highest resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The family.
    pub kind: NetworkKind,
    /// Channels of the input, the one-hot channels of a cascade included.
    pub input_channels: usize,
    /// Channels of the output: classes with background, or regions.
    pub outputs: usize,
    /// Channels in each stage.
    pub features_per_stage: Vec<usize>,
    /// Kernel of the convolutions of each stage; odd.
    pub kernel_sizes: Vec<Vec<usize>>,
    /// Step into each stage; 1 on every axis for the first.
    pub strides: Vec<Vec<usize>>,
    /// Convolutions of each stage of the encoder; residual blocks for [`NetworkKind::ResidualEncoderUNet`].
    pub units_per_stage: Vec<usize>,
    /// Convolutions of each stage of the decoder, one stage fewer than the encoder, from the lowest resolution.
    pub convolutions_per_decoder_stage: Vec<usize>,
    /// Whether the convolutions of the stages have a bias.
    pub convolution_bias: bool,
    /// Added to the variance by the instance normalisation.
    pub norm_epsilon: f64,
    /// How the resolution is halved.
    #[serde(default)]
    pub pooling: Pooling,
    /// Whether training looks at the outputs of the lower resolutions too.
    pub deep_supervision: bool,
}

/// A [`Description`] that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Description", into = "Description")]
pub struct Architecture(Description);

/// Why a description is not a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// The JSON does not have the keys or types of an architecture.
    #[error("the `architecture` of the plans cannot be read")]
    Json(#[from] serde_json::Error),
    /// A key asks for something that no network here can do.
    #[error("`{key}` of the architecture is `{found}`, expected {expected}")]
    Unsupported {
        /// The key, as in plans.json.
        key: &'static str,
        /// What can be done.
        expected: &'static str,
        /// What was asked for.
        found: String,
    },
    /// A list has another length than there are stages.
    #[error("`{key}` of the architecture has {found} entries, expected {expected}, one a stage")]
    Stages {
        /// The key, as in the description.
        key: &'static str,
        /// Entries wanted.
        expected: usize,
        /// Entries found.
        found: usize,
    },
    /// A number out of range.
    #[error("`{key}` of the architecture is `{found}` in stage {stage}, expected {expected}")]
    Value {
        /// The key, as in the description.
        key: &'static str,
        /// Stage, from 0.
        stage: usize,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// More parameters than any device holds.
    #[error("the architecture has more than {MAX_PARAMETERS} parameters; a number of features is wrong")]
    TooLarge,
}

impl Deref for Architecture {
    type Target = Description;

    fn deref(&self) -> &Description {
        &self.0
    }
}

impl From<Architecture> for Description {
    fn from(architecture: Architecture) -> Self {
        architecture.0
    }
}

impl TryFrom<Description> for Architecture {
    type Error = ArchitectureError;

    fn try_from(description: Description) -> Result<Self, ArchitectureError> {
        description.check_lengths()?;
        description.check_values()?;
        let architecture = Self(description);
        match crate::network::parameter_count(&architecture) {
            Some(count) if count <= MAX_PARAMETERS => Ok(architecture),
            _ => Err(ArchitectureError::TooLarge),
        }
    }
}

impl Description {
    /// Number of stages of the encoder.
    #[must_use]
    pub fn n_stages(&self) -> usize {
        self.features_per_stage.len()
    }

    /// Number of spatial axes, 2 or 3.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.kernel_sizes.first().map_or(0, Vec::len)
    }

    /// The product of the strides of each axis: what the sizes of an input are multiples of.
    #[must_use]
    pub fn divisors(&self) -> Vec<usize> {
        (0..self.dimension()).map(|axis| self.strides.iter().map(|stride| stride[axis]).product()).collect()
    }

    /// Number of outputs that training looks at: all but the lowest resolution with deep supervision, else one.
    ///
    /// nnU-Net gives the lowest resolution the weight 0.
    #[must_use]
    pub fn n_supervised(&self) -> usize {
        if self.deep_supervision { self.n_stages().saturating_sub(2).max(1) } else { 1 }
    }

    /// Extents of the supervised outputs for a patch of these extents, from the full resolution down.
    #[must_use]
    pub fn supervised_shapes(&self, patch: &[usize]) -> Vec<Vec<usize>> {
        let mut shape = patch.to_vec();
        let mut shapes = Vec::with_capacity(self.n_supervised());
        for stride in self.strides.iter().take(self.n_supervised()) {
            shape = shape.iter().zip(stride).map(|(extent, step)| extent / step).collect();
            shapes.push(shape.clone());
        }
        shapes
    }

    fn check_lengths(&self) -> Result<(), ArchitectureError> {
        let stages = self.n_stages();
        if !(2..=MAX_STAGES).contains(&stages) {
            return Err(ArchitectureError::Unsupported {
                key: "n_stages",
                expected: "2 to 32",
                found: stages.to_string(),
            });
        }
        let lengths = [
            ("kernel_sizes", self.kernel_sizes.len(), stages),
            ("strides", self.strides.len(), stages),
            ("units_per_stage", self.units_per_stage.len(), stages),
            ("convolutions_per_decoder_stage", self.convolutions_per_decoder_stage.len(), stages - 1),
        ];
        match lengths.into_iter().find(|(_, found, expected)| found != expected) {
            Some((key, found, expected)) => Err(ArchitectureError::Stages { key, expected, found }),
            None => Ok(()),
        }
    }

    fn check_values(&self) -> Result<(), ArchitectureError> {
        let channels = (1 << 16, "1 to 65536");
        check_counts("input_channels", &[self.input_channels], channels)?;
        check_counts("outputs", &[self.outputs], channels)?;
        check_counts("features_per_stage", &self.features_per_stage, channels)?;
        let layers = (256, "1 to 256");
        check_counts("units_per_stage", &self.units_per_stage, layers)?;
        check_counts("convolutions_per_decoder_stage", &self.convolutions_per_decoder_stage, layers)?;
        self.check_sizes("kernel_sizes", &self.kernel_sizes, "odd numbers below 32", |_, size| {
            size % 2 == 1 && size < 32
        })?;
        self.check_sizes("strides", &self.strides, "1 in the first stage, 1 to 16 in the others", |stage, size| {
            if stage == 0 { size == 1 } else { (1..=16).contains(&size) }
        })?;
        let epsilon = self.norm_epsilon;
        if !(epsilon.is_finite() && epsilon > 0.0) {
            let found = epsilon.to_string();
            return Err(ArchitectureError::Unsupported { key: "norm_epsilon", expected: "a number above 0", found });
        }
        Ok(())
    }

    fn check_sizes(
        &self,
        key: &'static str,
        sizes: &[Vec<usize>],
        expected: &'static str,
        fits: impl Fn(usize, usize) -> bool,
    ) -> Result<(), ArchitectureError> {
        let dimension = self.dimension();
        for (stage, size) in sizes.iter().enumerate() {
            let found = || format!("{size:?}");
            if !(2..=3).contains(&dimension) || size.len() != dimension {
                let expected = "2 or 3 numbers, as many in every stage";
                return Err(ArchitectureError::Value { key, stage, expected, found: found() });
            }
            if !size.iter().all(|&size| fits(stage, size)) {
                return Err(ArchitectureError::Value { key, stage, expected, found: found() });
            }
        }
        Ok(())
    }
}

/// Checks that each count is 1 to `most`; with the bounds here the number of parameters stays within 64 bits.
fn check_counts(
    key: &'static str,
    counts: &[usize],
    (most, expected): (usize, &'static str),
) -> Result<(), ArchitectureError> {
    match counts.iter().position(|count| !(1..=most).contains(count)) {
        Some(stage) => Err(ArchitectureError::Value { key, stage, expected, found: counts[stage].to_string() }),
        None => Ok(()),
    }
}
