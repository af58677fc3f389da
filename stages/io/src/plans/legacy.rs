//! Plans of nnU-Net before version 2.2, whose configurations describe the network with keys of their own.
//!
//! Models that were trained with them are still in use. The conversion is that of `ConfigurationManager` of nnU-Net
//! 2.8.1.

use serde::de::{DeserializeOwned, Error};
use serde_json::{Error as JsonError, Map, Value, json};

use super::NetworkKind;

/// Keys of the old form that the architecture takes the place of.
const REPLACED: [&str; 8] = [
    "UNet_class_name",
    "UNet_base_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
    "num_pool_per_axis",
    "pool_op_kernel_sizes",
    "conv_kernel_sizes",
    "unet_max_num_features",
];

/// Gives an old configuration the architecture of the present form; a present one stays as it is.
pub(super) fn modernise(mut configuration: Map<String, Value>) -> Result<Map<String, Value>, JsonError> {
    if configuration.contains_key("architecture") || !configuration.contains_key("UNet_class_name") {
        return Ok(configuration);
    }
    let architecture = architecture_of(&configuration)?;
    configuration.retain(|key, _| !REPLACED.contains(&key.as_str()));
    configuration.insert("architecture".to_owned(), architecture);
    Ok(configuration)
}

fn architecture_of(old: &Map<String, Value>) -> Result<Value, JsonError> {
    let class: String = read(old, "UNet_class_name")?;
    let (kind, depth_key) = match class.as_str() {
        "PlainConvUNet" => (NetworkKind::Plain, "n_conv_per_stage"),
        "ResidualEncoderUNet" => (NetworkKind::ResidualEncoder, "n_blocks_per_stage"),
        _ => {
            return Err(Error::custom(format_args!(
                "`UNet_class_name` is `{class}`, which is no network of nnU-Net's"
            )));
        }
    };
    let depths: Vec<usize> = read(old, "n_conv_per_stage_encoder")?;
    let patch: Vec<usize> = read(old, "patch_size")?;
    let (base, largest): (usize, usize) = (read(old, "UNet_base_num_features")?, read(old, "unet_max_num_features")?);
    let rank = patch.len();
    Ok(json!({
        "network_class_name": kind.class_name(),
        "arch_kwargs": {
            "n_stages": depths.len(),
            "features_per_stage": features(base, largest, depths.len()),
            "conv_op": format!("torch.nn.modules.conv.Conv{rank}d"),
            "kernel_sizes": read::<Value>(old, "conv_kernel_sizes")?,
            "strides": read::<Value>(old, "pool_op_kernel_sizes")?,
            depth_key: depths,
            "n_conv_per_stage_decoder": read::<Value>(old, "n_conv_per_stage_decoder")?,
            "conv_bias": true,
            "norm_op": format!("torch.nn.modules.instancenorm.InstanceNorm{rank}d"),
            "norm_op_kwargs": {"eps": 1e-5, "affine": true},
            "dropout_op": null,
            "dropout_op_kwargs": null,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": true},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }))
}

fn features(base: usize, largest: usize, n_stages: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(base), |features| Some(features.saturating_mul(2)));
    doubled.map(|features| features.min(largest)).take(n_stages).collect()
}

fn read<T: DeserializeOwned>(old: &Map<String, Value>, key: &str) -> Result<T, JsonError> {
    let value = old.get(key).ok_or_else(|| JsonError::custom(format_args!("missing field `{key}`")))?;
    serde_json::from_value(value.clone()).map_err(|error| JsonError::custom(format_args!("`{key}`: {error}")))
}
