//! Reading the `architecture` of a plans.json.

use serde::Deserialize;
use serde_json::Value;

use super::{Architecture, ArchitectureError, Description, NEGATIVE_SLOPE, NetworkKind, Pooling};

/// The object `architecture` of a configuration in plans.json.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlannedNetwork {
    network_class_name: String,
    arch_kwargs: Keywords,
    /// Names of the keywords that Python has to import; their values say it already.
    #[serde(default, rename = "_kw_requires_import")]
    _imports: Vec<String>,
}

/// The arguments of the network's constructor. A [`Value`] stands where nnU-Net takes a number or a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keywords {
    n_stages: usize,
    features_per_stage: Value,
    conv_op: String,
    kernel_sizes: Value,
    strides: Value,
    n_conv_per_stage: Option<Value>,
    n_blocks_per_stage: Option<Value>,
    n_conv_per_stage_decoder: Value,
    #[serde(default)]
    conv_bias: bool,
    norm_op: Option<String>,
    norm_op_kwargs: Option<NormKeywords>,
    dropout_op: Option<String>,
    #[serde(rename = "dropout_op_kwargs")]
    _dropout_op_kwargs: Option<Value>,
    nonlin: Option<String>,
    nonlin_kwargs: Option<ActivationKeywords>,
    #[serde(default)]
    pooling: Pooling,
    deep_supervision: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NormKeywords {
    #[serde(default = "default_epsilon")]
    eps: f64,
    #[serde(default)]
    affine: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivationKeywords {
    #[serde(rename = "inplace")]
    _inplace: Option<bool>,
    negative_slope: Option<f64>,
}

/// PyTorch's own for an instance norm.
fn default_epsilon() -> f64 {
    1e-5
}

impl Architecture {
    /// Reads the object `architecture` of a configuration in nnU-Net's plans.json.
    ///
    /// The class is told by the last part of `network_class_name`; `UNet2018` is a class of ours. Besides nnU-Net's keys,
    /// `pooling` may be `strided_convolution` (the default) or `maximum`, and `deep_supervision` may be `false` for a
    /// network that has no outputs at lower resolutions whatever the training asks for.
    ///
    /// # Errors
    /// [`ArchitectureError`] where a key is missing, unknown, or asks for what no network here can do.
    pub fn from_plans(
        architecture: &Value,
        input_channels: usize,
        outputs: usize,
        deep_supervision: bool,
    ) -> Result<Self, ArchitectureError> {
        let planned = PlannedNetwork::deserialize(architecture)?;
        let kind = kind(&planned.network_class_name)?;
        let keywords = planned.arch_kwargs;
        keywords.check_operations()?;
        let stages = keywords.n_stages;
        let dimension = keywords.dimension()?;
        let units = match kind {
            NetworkKind::ResidualEncoderUNet => ("n_blocks_per_stage", &keywords.n_blocks_per_stage),
            NetworkKind::PlainConvUNet | NetworkKind::Unet2018 => ("n_conv_per_stage", &keywords.n_conv_per_stage),
        };
        let units_per_stage = counts(units.0, units.1.as_ref().unwrap_or(&Value::Null), stages)?;
        let description = Description {
            kind,
            input_channels,
            outputs,
            features_per_stage: counts("features_per_stage", &keywords.features_per_stage, stages)?,
            kernel_sizes: sizes("kernel_sizes", &keywords.kernel_sizes, stages, dimension)?,
            strides: sizes("strides", &keywords.strides, stages, dimension)?,
            units_per_stage,
            convolutions_per_decoder_stage: counts(
                "n_conv_per_stage_decoder",
                &keywords.n_conv_per_stage_decoder,
                stages.saturating_sub(1),
            )?,
            convolution_bias: keywords.conv_bias,
            norm_epsilon: keywords.norm_op_kwargs.map_or_else(default_epsilon, |norm| norm.eps),
            pooling: keywords.pooling,
            deep_supervision: deep_supervision && keywords.deep_supervision.unwrap_or(true),
        };
        description.try_into()
    }
}

impl Keywords {
    fn dimension(&self) -> Result<usize, ArchitectureError> {
        match last_part(&self.conv_op) {
            "Conv2d" => Ok(2),
            "Conv3d" => Ok(3),
            _ => Err(unsupported("conv_op", "`…Conv2d` or `…Conv3d`", &self.conv_op)),
        }
    }

    fn check_operations(&self) -> Result<(), ArchitectureError> {
        let norm = self.norm_op.as_deref().unwrap_or("null");
        if !last_part(norm).starts_with("InstanceNorm") {
            return Err(unsupported("norm_op", "`…InstanceNorm2d` or `…InstanceNorm3d`", norm));
        }
        if self.norm_op_kwargs.as_ref().is_none_or(|norm| !norm.affine) {
            return Err(unsupported("norm_op_kwargs.affine", "`true`", "false"));
        }
        if let Some(dropout) = &self.dropout_op {
            return Err(unsupported("dropout_op", "`null`", dropout));
        }
        let activation = self.nonlin.as_deref().unwrap_or("null");
        if last_part(activation) != "LeakyReLU" {
            return Err(unsupported("nonlin", "`torch.nn.LeakyReLU`", activation));
        }
        match self.nonlin_kwargs.as_ref().and_then(|keywords| keywords.negative_slope) {
            Some(slope) if slope != NEGATIVE_SLOPE => {
                Err(unsupported("nonlin_kwargs.negative_slope", "`0.01`", &slope.to_string()))
            }
            _ => Ok(()),
        }
    }
}

fn kind(class: &str) -> Result<NetworkKind, ArchitectureError> {
    match last_part(class) {
        "PlainConvUNet" => Ok(NetworkKind::PlainConvUNet),
        "ResidualEncoderUNet" => Ok(NetworkKind::ResidualEncoderUNet),
        "UNet2018" => Ok(NetworkKind::Unet2018),
        _ => Err(unsupported("network_class_name", "`…PlainConvUNet`, `…ResidualEncoderUNet` or `…UNet2018`", class)),
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn unsupported(key: &'static str, expected: &'static str, found: &str) -> ArchitectureError {
    ArchitectureError::Unsupported { key, expected, found: found.to_owned() }
}

/// One count a stage; nnU-Net lets one number stand for all.
fn counts(key: &'static str, value: &Value, stages: usize) -> Result<Vec<usize>, ArchitectureError> {
    let wrong = || unsupported(key, "a whole number, or a list of one a stage", &value.to_string());
    let count = |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok()).ok_or_else(wrong);
    match value {
        Value::Array(values) => values.iter().map(count).collect(),
        // A number of stages that no network has is refused by the check of lengths, not by want of memory here.
        _ => Ok(vec![count(value)?; stages.min(super::MAX_STAGES + 1)]),
    }
}

/// One size a stage; a number stands for that size on every axis.
fn sizes(
    key: &'static str,
    value: &Value,
    stages: usize,
    dimension: usize,
) -> Result<Vec<Vec<usize>>, ArchitectureError> {
    match value {
        Value::Array(values) => values.iter().map(|size| counts(key, size, dimension)).collect(),
        _ => Ok(counts(key, value, stages)?.into_iter().map(|size| vec![size; dimension]).collect()),
    }
}
