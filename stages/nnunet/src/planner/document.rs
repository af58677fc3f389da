//! Writing a design down as plans.

use nnflow_io::plans::{Architecture, Configuration, NetworkKind, ResamplingArguments, UNetArguments};
use serde_json::{Map, Value, json};

use super::design::Design;
use super::network::NetworkSize;
use super::normalization::Normalization;
use super::settings::{Method, PlannerSettings};

/// nnU-Net's function for all resampling; ours is the same by another name.
const RESAMPLING: &str = "resample_data_or_seg_to_shape";

/// Writes configurations, all of one dataset.
pub(super) struct Writer<'a> {
    pub(super) settings: &'a PlannerSettings,
    pub(super) normalization: Normalization,
}

impl Writer<'_> {
    /// A configuration as it stands in the plans.
    pub(super) fn configuration(&self, name: &str, design: &Design, batch_dice: bool) -> Map<String, Value> {
        let settings = self.settings;
        let configuration = Configuration {
            data_identifier: format!("{}_{name}", self.data_name(name)),
            preprocessor_name: settings.preprocessor_name.clone(),
            batch_size: design.batch.size,
            patch_size: design.fit.topology.patch.clone(),
            median_image_size_in_voxels: design.grid.median.clone(),
            spacing: design.grid.spacing.clone(),
            normalization_schemes: self.normalization.schemes.clone(),
            use_mask_for_norm: self.normalization.within_mask.clone(),
            resampling_fn_data: RESAMPLING.to_owned(),
            resampling_fn_seg: RESAMPLING.to_owned(),
            resampling_fn_data_kwargs: self.resampling(false, settings.image_order),
            resampling_fn_seg_kwargs: self.resampling(true, settings.label_order),
            resampling_fn_probabilities: RESAMPLING.to_owned(),
            resampling_fn_probabilities_kwargs: self.resampling(false, settings.probability_order),
            architecture: self.architecture(design),
            batch_dice,
            previous_stage: None,
            next_stage: None,
            extra: Map::new(),
        };
        let value = serde_json::to_value(configuration).expect("invariant: all keys of a configuration are strings");
        value.as_object().cloned().unwrap_or_default()
    }

    /// As [`configuration`](Self::configuration), for the first stage of a cascade, whose median shape nnU-Net rounds.
    pub(super) fn low_resolution(&self, name: &str, design: &Design) -> Map<String, Value> {
        let mut configuration = self.configuration(name, design, false);
        let median: Vec<u64> = design.grid.median.iter().map(|&extent| extent as u64).collect();
        configuration.insert("median_image_size_in_voxels".to_owned(), json!(median));
        configuration.insert("next_stage".to_owned(), json!(super::CASCADE));
        configuration
    }

    /// The second stage of a cascade: the full resolution with one more input.
    pub(super) fn cascade(&self) -> Map<String, Value> {
        let mut configuration = Map::new();
        configuration.insert("inherits_from".to_owned(), json!(super::FULL));
        configuration.insert("previous_stage".to_owned(), json!(super::LOW));
        if self.settings.method == Method::Y2018 {
            configuration.insert("batch_dice".to_owned(), json!(true));
        }
        configuration
    }

    fn data_name(&self, name: &str) -> &str {
        let shared = self.settings.data_name.as_ref().filter(|_| name == super::FLAT || name == super::FULL);
        shared.unwrap_or(&self.settings.plans_name)
    }

    fn resampling(&self, is_seg: bool, order: u8) -> ResamplingArguments {
        let PlannerSettings { order_z, force_separate_z, .. } = *self.settings;
        ResamplingArguments { is_seg, order, order_z, force_separate_z, extra: Map::new() }
    }

    fn architecture(&self, design: &Design) -> Architecture {
        let topology = &design.fit.topology;
        let rank = design.grid.rank();
        let size = NetworkSize::planned(self.settings, topology);
        let is_2018 = size.kind == NetworkKind::Unet2018;
        let is_residual = size.kind == NetworkKind::ResidualEncoder;
        let arguments = UNetArguments {
            n_stages: topology.n_stages(),
            features_per_stage: size.features,
            conv_op: format!("torch.nn.modules.conv.Conv{rank}d"),
            kernel_sizes: size.kernels,
            strides: size.strides,
            n_conv_per_stage: (!is_residual).then(|| size.encoder.clone()),
            n_blocks_per_stage: is_residual.then_some(size.encoder),
            n_conv_per_stage_decoder: size.decoder,
            conv_bias: true,
            norm_op: Some(format!("torch.nn.modules.instancenorm.InstanceNorm{rank}d")),
            norm_op_kwargs: Some(object(json!({"eps": 1e-5, "affine": true}))),
            dropout_op: None,
            dropout_op_kwargs: None,
            nonlin: Some("torch.nn.LeakyReLU".to_owned()),
            nonlin_kwargs: Some(object(if is_2018 {
                json!({"negative_slope": 0.01, "inplace": true})
            } else {
                json!({"inplace": true})
            })),
            deep_supervision: is_2018.then_some(false),
            extra: Map::new(),
        };
        let value = serde_json::to_value(arguments).expect("invariant: all keys of the arguments are strings");
        Architecture {
            network_class_name: size.kind.class_name().to_owned(),
            arch_kwargs: object(value),
            kw_requires_import: ["conv_op", "norm_op", "dropout_op", "nonlin"].map(str::to_owned).to_vec(),
            extra: Map::new(),
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
