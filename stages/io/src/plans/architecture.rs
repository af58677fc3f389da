//! The network of a configuration.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::PlansError;

/// The class of a network and what it is made with.
///
/// The arguments stay as they are in the file, because a user's own network has others than a U-Net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Python path of nnU-Net's class, or [`NetworkKind::UNET_2018`].
    pub network_class_name: String,
    /// Arguments of the class; [`Architecture::unet`] reads those of a U-Net.
    pub arch_kwargs: Map<String, Value>,
    /// Which arguments name something that Python has to import.
    #[serde(rename = "_kw_requires_import")]
    pub kw_requires_import: Vec<String>,
    /// Keys that nnU-Net does not write.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The networks that nnflow has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    /// nnU-Net's `PlainConvUNet`: stacked convolutions.
    Plain,
    /// nnU-Net's `ResidualEncoderUNet`: residual blocks in the encoder.
    ResidualEncoder,
    /// The U-Net of 2018: as plain, without deep supervision.
    Unet2018,
}

/// Arguments of a U-Net; one entry a stage, from full resolution downwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UNetArguments {
    /// Number of resolutions.
    pub n_stages: usize,
    /// Channels of each stage.
    pub features_per_stage: Vec<usize>,
    /// Python path of the convolution, which tells 2-D from 3-D.
    pub conv_op: String,
    /// Extent of the convolutions' kernels on each axis.
    pub kernel_sizes: Vec<Vec<usize>>,
    /// Stride on each axis with which a stage begins.
    pub strides: Vec<Vec<usize>>,
    /// Convolutions of each encoder stage; of a plain network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_conv_per_stage: Option<Vec<usize>>,
    /// Residual blocks of each encoder stage; of a residual network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_blocks_per_stage: Option<Vec<usize>>,
    /// Convolutions of each decoder stage, one fewer than there are stages.
    pub n_conv_per_stage_decoder: Vec<usize>,
    /// Whether the convolutions have a bias.
    pub conv_bias: bool,
    /// Python path of the normalisation.
    pub norm_op: Option<String>,
    /// Arguments of the normalisation: `eps` and `affine`.
    pub norm_op_kwargs: Option<Map<String, Value>>,
    /// Python path of the dropout; nnU-Net plans none.
    pub dropout_op: Option<String>,
    /// Arguments of the dropout.
    pub dropout_op_kwargs: Option<Map<String, Value>>,
    /// Python path of the activation.
    pub nonlin: Option<String>,
    /// Arguments of the activation; `negative_slope` is 0.01 where it is not given.
    pub nonlin_kwargs: Option<Map<String, Value>>,
    /// Whether the decoder has a head at every resolution. nnU-Net leaves it to the trainer; the network of 2018 has
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deep_supervision: Option<bool>,
    /// Arguments that nnU-Net does not write by itself.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl NetworkKind {
    /// `network_class_name` of the network of 2018.
    pub const UNET_2018: &'static str = "nnflow.networks.UNet2018";

    /// The `network_class_name` that plans carry.
    #[must_use]
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Plain => "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            Self::ResidualEncoder => "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
            Self::Unet2018 => Self::UNET_2018,
        }
    }
}

impl Architecture {
    /// Which of our networks this is; the module of a Python path does not matter, as nnU-Net has moved its classes.
    ///
    /// # Errors
    /// [`PlansError::Network`] if it is none of them.
    pub fn network(&self) -> Result<NetworkKind, PlansError> {
        let class = self.network_class_name.rsplit('.').next().unwrap_or_default();
        match class {
            "PlainConvUNet" => Ok(NetworkKind::Plain),
            "ResidualEncoderUNet" => Ok(NetworkKind::ResidualEncoder),
            "UNet2018" => Ok(NetworkKind::Unet2018),
            _ => Err(PlansError::Network { class: self.network_class_name.clone() }),
        }
    }

    /// The arguments of a U-Net, of the configuration `name`, which only errors use.
    ///
    /// # Errors
    /// [`PlansError::Network`] if the network is none of ours, [`PlansError::Configuration`] if an argument is missing
    /// or not of its form.
    pub fn unet(&self, name: &str) -> Result<UNetArguments, PlansError> {
        self.network()?;
        UNetArguments::deserialize(Value::Object(self.arch_kwargs.clone()))
            .map_err(|source| PlansError::Configuration { name: name.to_owned(), source })
    }
}

impl UNetArguments {
    /// Convolutions, or residual blocks, of each encoder stage.
    #[must_use]
    pub fn encoder_depths(&self) -> &[usize] {
        self.n_blocks_per_stage.as_ref().or(self.n_conv_per_stage.as_ref()).map_or(&[], Vec::as_slice)
    }
}
