//! Every constant that a plan depends on, by name.
//!
//! nnU-Net spreads these over planner classes, one class for each set of values. Here a planner is its values: the
//! defaults are those of `ExperimentPlanner` of nnU-Net 2.8.1, [`PlannerSettings::preset`] gives the others, and the
//! names are the parameters of the stage `plan`.

use serde::{Deserialize, Serialize};

use super::PlannerError;

/// The rules that turn a grid into a patch, a network and a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// `v2`: shrink the patch until a count of activations fits a budget.
    #[serde(rename = "v2")]
    V2,
    /// `2018`: the median shape within a number of voxels.
    #[serde(rename = "2018")]
    Y2018,
}

/// The network that a plan asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// nnU-Net's U-Net of stacked convolutions.
    Plain,
    /// nnU-Net's U-Net with residual blocks in the encoder.
    ResidualEncoder,
    /// The U-Net of 2018, without deep supervision.
    #[serde(rename = "unet_2018")]
    Unet2018,
}

/// Sets of values with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// `ExperimentPlanner` of nnU-Net 2.8.1.
    Default,
    /// `nnUNetPlannerResEncM` of nnU-Net 2.8.1.
    ResidualEncoderM,
    /// `nnUNetPlannerResEncL` of nnU-Net 2.8.1.
    ResidualEncoderL,
    /// `nnUNetPlannerResEncXL` of nnU-Net 2.8.1.
    ResidualEncoderXl,
    /// The method of 2018 with bounded 2-D patches and a shallower network.
    Y2018,
    /// The method of 2018 as its paper (arXiv 1809.10486) has it.
    Y2018Paper,
}

/// What a plan depends on besides the dataset.
///
/// Where a name ends in `_2d` or `_3d`, the other one is the same for networks of the other rank. Shapes and spacings
/// are in the plan's order of the axes (slowest varying, coarsest axis first) unless a field says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlannerSettings {
    /// The rules for patch, network and batch.
    pub method: Method,
    /// The network.
    pub network: Network,
    /// `plans_name` of the plans.
    pub plans_name: String,
    /// `experiment_planner_used` of the plans.
    pub planner_name: String,
    /// `preprocessor_name` of the plans.
    pub preprocessor_name: String,
    /// Name in the data identifiers of `2d` and `3d_fullres`; `plans_name` if `None`.
    pub data_name: Option<String>,

    /// Spacing of the full resolution in millimetres, in the order `[z, y, x]` of the images; derived if `None`.
    pub target_spacing: Option<[f64; 3]>,
    /// Percentile of the cases' spacings on each axis, 50 for the median.
    pub spacing_percentile: f64,
    /// How many times coarser, and shorter in voxels, an axis has to be for its own percentile.
    pub anisotropy_threshold: f64,
    /// Percentile of the spacings on such an axis; `spacing_percentile` if `None`.
    pub anisotropic_spacing_percentile: Option<f64>,
    /// Whether the coarsest axis becomes the first.
    pub transpose: bool,

    /// Share of a case that cropping has to leave at most for normalisation within the nonzero region.
    pub mask_normalization_below: f64,
    /// Order of the spline for images.
    pub image_order: u8,
    /// Order of the interpolation for labels: 0 nearest neighbour, 1 linear for each label.
    pub label_order: u8,
    /// Order of the interpolation for class scores.
    pub probability_order: u8,
    /// Order of the interpolation along an axis that is set apart.
    pub order_z: u8,
    /// Whether the coarsest axis is set apart; decided by the spacings if `None`.
    pub force_separate_z: Option<bool>,

    /// Memory of the GPU that the networks are to be trained on, in GB (`v2`).
    pub gpu_memory_target: f64,
    /// Memory in GB to which `reference_elements_*` belong (`v2`).
    pub reference_gpu_memory: f64,
    /// Activations for one sample that fill `reference_gpu_memory` with `reference_batch_size_2d` samples (`v2`).
    pub reference_elements_2d: f64,
    /// As `reference_elements_2d`.
    pub reference_elements_3d: f64,
    /// Voxels of a patch that goes with `reference_batch_size_2d` samples (`2018`).
    pub reference_patch_voxels_2d: usize,
    /// As `reference_patch_voxels_2d`; also what decides about the cascade (`2018`).
    pub reference_patch_voxels_3d: usize,
    /// Samples in a batch of the reference.
    pub reference_batch_size_2d: usize,
    /// As `reference_batch_size_2d`.
    pub reference_batch_size_3d: usize,
    /// Samples with which a patch has to fit the budget (`v2`).
    pub fit_batch_size_2d: usize,
    /// As `fit_batch_size_2d`.
    pub fit_batch_size_3d: usize,

    /// Pixels of the isotropic patch (in millimetres) from which shrinking starts (`v2`).
    pub initial_patch_voxels_2d: f64,
    /// As `initial_patch_voxels_2d`, voxels.
    pub initial_patch_voxels_3d: f64,
    /// Largest patch on each axis.
    pub max_patch_2d: Option<[usize; 2]>,
    /// As `max_patch_2d`.
    pub max_patch_3d: Option<[usize; 3]>,
    /// Largest number of pixels in a patch.
    pub max_patch_voxels_2d: Option<usize>,
    /// As `max_patch_voxels_2d`, voxels.
    pub max_patch_voxels_3d: Option<usize>,

    /// Edge that no feature map falls below.
    pub min_feature_edge: usize,
    /// Largest number of poolings on one axis.
    pub max_poolings_2d: Option<usize>,
    /// As `max_poolings_2d`.
    pub max_poolings_3d: Option<usize>,
    /// Largest number of resolutions, the full one included.
    pub max_stages: Option<usize>,
    /// Channels at full resolution; doubled at each pooling.
    pub base_features: usize,
    /// Largest number of channels.
    pub max_features_2d: usize,
    /// As `max_features_2d`.
    pub max_features_3d: usize,
    /// Convolutions, or residual blocks, of each encoder stage; the last value holds for all further stages.
    pub n_conv_per_stage: Vec<usize>,
    /// Convolutions of each decoder stage, from full resolution downwards; the last value holds for all further stages.
    pub n_conv_per_stage_decoder: Vec<usize>,

    /// Smallest batch.
    pub min_batch_size: usize,
    /// Largest batch; wins over `min_batch_size`.
    pub max_batch_size_2d: Option<usize>,
    /// As `max_batch_size_2d`.
    pub max_batch_size_3d: Option<usize>,
    /// Share of the dataset's voxels that a batch may see.
    pub max_dataset_covered: f64,

    /// Share of the median case that a patch has to see; below it there is a low resolution.
    pub lowres_threshold: f64,
    /// Factor by which the spacing of the low resolution grows in each step.
    pub lowres_spacing_factor: f64,
    /// How many times finer than the coarsest axis an axis has to be to grow first; `2018` grows also those that are
    /// exactly as much finer.
    pub lowres_axis_ratio: f64,
    /// How many times fewer voxels the low resolution has to have to be worth its training.
    pub lowres_min_reduction: f64,
}

impl Default for PlannerSettings {
    fn default() -> Self {
        Self {
            method: Method::V2,
            network: Network::Plain,
            plans_name: "nnUNetPlans".to_owned(),
            planner_name: "ExperimentPlanner".to_owned(),
            preprocessor_name: "DefaultPreprocessor".to_owned(),
            data_name: None,
            target_spacing: None,
            spacing_percentile: 50.0,
            anisotropy_threshold: 3.0,
            anisotropic_spacing_percentile: Some(10.0),
            transpose: true,
            mask_normalization_below: 0.75,
            image_order: 3,
            label_order: 1,
            probability_order: 1,
            order_z: 0,
            force_separate_z: None,
            gpu_memory_target: 8.0,
            reference_gpu_memory: 8.0,
            reference_elements_2d: 85e6,
            reference_elements_3d: 560e6,
            reference_patch_voxels_2d: 256 * 256,
            reference_patch_voxels_3d: 128 * 128 * 128,
            reference_batch_size_2d: 12,
            reference_batch_size_3d: 2,
            fit_batch_size_2d: 2,
            fit_batch_size_3d: 2,
            initial_patch_voxels_2d: 2048.0 * 2048.0,
            initial_patch_voxels_3d: 256.0 * 256.0 * 256.0,
            max_patch_2d: None,
            max_patch_3d: None,
            max_patch_voxels_2d: None,
            max_patch_voxels_3d: None,
            min_feature_edge: 4,
            max_poolings_2d: None,
            max_poolings_3d: None,
            max_stages: None,
            base_features: 32,
            max_features_2d: 512,
            max_features_3d: 320,
            n_conv_per_stage: vec![2],
            n_conv_per_stage_decoder: vec![2],
            min_batch_size: 2,
            max_batch_size_2d: None,
            max_batch_size_3d: None,
            max_dataset_covered: 0.05,
            lowres_threshold: 0.25,
            lowres_spacing_factor: 1.03,
            lowres_axis_ratio: 2.0,
            lowres_min_reduction: 2.0,
        }
    }
}

impl PlannerSettings {
    /// The values of a named set.
    #[must_use]
    pub fn preset(preset: Preset) -> Self {
        match preset {
            Preset::Default => Self::default(),
            Preset::ResidualEncoderM => Self::residual_encoder("M", 8.0, 680e6, 135e6),
            Preset::ResidualEncoderL => Self::residual_encoder("L", 24.0, 2_100e6, 380e6),
            Preset::ResidualEncoderXl => Self::residual_encoder("XL", 40.0, 3_600e6, 560e6),
            Preset::Y2018 => Self::y2018(),
            Preset::Y2018Paper => Self::y2018_paper(),
        }
    }

    fn residual_encoder(size: &str, gpu_memory: f64, elements_3d: f64, elements_2d: f64) -> Self {
        Self {
            network: Network::ResidualEncoder,
            plans_name: format!("nnUNetResEncUNet{size}Plans"),
            planner_name: format!("nnUNetPlannerResEnc{size}"),
            // These planners share the grids of the default planner, and so its preprocessed cases.
            data_name: Some("nnUNetPlans".to_owned()),
            gpu_memory_target: gpu_memory,
            reference_gpu_memory: gpu_memory,
            reference_elements_2d: elements_2d,
            reference_elements_3d: elements_3d,
            fit_batch_size_2d: 12,
            n_conv_per_stage: vec![1, 3, 4, 6],
            n_conv_per_stage_decoder: vec![1],
            max_dataset_covered: 1.0,
            ..Self::default()
        }
    }

    fn y2018() -> Self {
        Self {
            mask_normalization_below: 0.25,
            max_patch_2d: Some([256, 256]),
            max_batch_size_2d: Some(42),
            min_feature_edge: 8,
            max_poolings_2d: Some(5),
            ..Self::y2018_paper()
        }
    }

    fn y2018_paper() -> Self {
        Self {
            method: Method::Y2018,
            network: Network::Unet2018,
            plans_name: "nnUNetPlans2018".to_owned(),
            planner_name: "Planner2018".to_owned(),
            preprocessor_name: "Preprocessor2018".to_owned(),
            anisotropic_spacing_percentile: None,
            label_order: 0,
            reference_batch_size_2d: 42,
            max_patch_voxels_3d: Some(128 * 128 * 128),
            max_poolings_2d: Some(6),
            max_poolings_3d: Some(5),
            base_features: 30,
            max_features_2d: 480,
            lowres_spacing_factor: 2.0,
            ..Self::default()
        }
    }

    /// Checks the values that the rules rely on.
    ///
    /// # Errors
    /// [`PlannerError::Setting`] for the first value that is not usable.
    pub fn check(&self) -> Result<(), PlannerError> {
        let positive = [
            ("anisotropy_threshold", self.anisotropy_threshold),
            ("gpu_memory_target", self.gpu_memory_target),
            ("reference_gpu_memory", self.reference_gpu_memory),
            ("reference_elements_2d", self.reference_elements_2d),
            ("reference_elements_3d", self.reference_elements_3d),
            ("initial_patch_voxels_2d", self.initial_patch_voxels_2d),
            ("initial_patch_voxels_3d", self.initial_patch_voxels_3d),
            ("max_dataset_covered", self.max_dataset_covered),
        ];
        for (name, value) in positive {
            require(name, value.is_finite() && value > 0.0, "a finite number above 0", value)?;
        }
        for (name, percentile) in [
            ("spacing_percentile", Some(self.spacing_percentile)),
            ("anisotropic_spacing_percentile", self.anisotropic_spacing_percentile),
        ] {
            let usable = percentile.is_none_or(|percentile| (0.0..=100.0).contains(&percentile));
            require(name, usable, "a number from 0 to 100", percentile)?;
        }
        self.check_counts()?;
        self.check_low_resolution()?;
        let spacing = self.target_spacing.unwrap_or([1.0; 3]);
        let usable = spacing.iter().all(|distance| distance.is_finite() && *distance > 0.0);
        require("target_spacing", usable, "three finite numbers above 0", spacing)
    }

    fn check_counts(&self) -> Result<(), PlannerError> {
        let least_one = [
            ("reference_patch_voxels_2d", Some(self.reference_patch_voxels_2d)),
            ("reference_patch_voxels_3d", Some(self.reference_patch_voxels_3d)),
            ("reference_batch_size_2d", Some(self.reference_batch_size_2d)),
            ("reference_batch_size_3d", Some(self.reference_batch_size_3d)),
            ("fit_batch_size_2d", Some(self.fit_batch_size_2d)),
            ("fit_batch_size_3d", Some(self.fit_batch_size_3d)),
            ("max_patch_2d", self.max_patch_2d.map(|patch| patch[0].min(patch[1]))),
            ("max_patch_3d", self.max_patch_3d.map(|patch| patch[0].min(patch[1]).min(patch[2]))),
            ("max_patch_voxels_2d", self.max_patch_voxels_2d),
            ("max_patch_voxels_3d", self.max_patch_voxels_3d),
            ("min_feature_edge", Some(self.min_feature_edge)),
            ("max_stages", self.max_stages),
            ("base_features", Some(self.base_features)),
            ("max_features_2d", Some(self.max_features_2d)),
            ("max_features_3d", Some(self.max_features_3d)),
            ("n_conv_per_stage", Some(self.n_conv_per_stage.iter().copied().min().unwrap_or(0))),
            ("n_conv_per_stage_decoder", Some(self.n_conv_per_stage_decoder.iter().copied().min().unwrap_or(0))),
            ("min_batch_size", Some(self.min_batch_size)),
            ("max_batch_size_2d", self.max_batch_size_2d),
            ("max_batch_size_3d", self.max_batch_size_3d),
        ];
        for (name, value) in least_one {
            require(name, value.is_none_or(|value| value > 0), "at least 1", value)?;
        }
        Ok(())
    }

    /// A step that hardly grows the spacing, or a ratio below 1, would never reach the end of its loop.
    fn check_low_resolution(&self) -> Result<(), PlannerError> {
        let factor = self.lowres_spacing_factor;
        require("lowres_spacing_factor", (1.001..=16.0).contains(&factor), "a number from 1.001 to 16", factor)?;
        let ratio = self.lowres_axis_ratio;
        require("lowres_axis_ratio", ratio > 1.0, "a number above 1", ratio)?;
        let threshold = self.lowres_threshold;
        require("lowres_threshold", (0.0..=1.0).contains(&threshold), "a number from 0 to 1", threshold)
    }

    /// The values for networks of two or three axes.
    pub(super) fn of_rank(&self, rank: usize) -> RankSettings {
        if rank == 2 {
            RankSettings {
                reference_elements: self.reference_elements_2d,
                reference_patch_voxels: self.reference_patch_voxels_2d,
                reference_batch_size: self.reference_batch_size_2d,
                fit_batch_size: self.fit_batch_size_2d,
                initial_patch_voxels: self.initial_patch_voxels_2d,
                max_patch: self.max_patch_2d.map(Vec::from),
                max_patch_voxels: self.max_patch_voxels_2d,
                max_poolings: self.max_poolings_2d,
                max_features: self.max_features_2d,
                max_batch_size: self.max_batch_size_2d,
            }
        } else {
            RankSettings {
                reference_elements: self.reference_elements_3d,
                reference_patch_voxels: self.reference_patch_voxels_3d,
                reference_batch_size: self.reference_batch_size_3d,
                fit_batch_size: self.fit_batch_size_3d,
                initial_patch_voxels: self.initial_patch_voxels_3d,
                max_patch: self.max_patch_3d.map(Vec::from),
                max_patch_voxels: self.max_patch_voxels_3d,
                max_poolings: self.max_poolings_3d,
                max_features: self.max_features_3d,
                max_batch_size: self.max_batch_size_3d,
            }
        }
    }
}

/// The settings whose names end in `_2d` or `_3d`.
pub(super) struct RankSettings {
    pub(super) reference_elements: f64,
    pub(super) reference_patch_voxels: usize,
    pub(super) reference_batch_size: usize,
    pub(super) fit_batch_size: usize,
    pub(super) initial_patch_voxels: f64,
    pub(super) max_patch: Option<Vec<usize>>,
    pub(super) max_patch_voxels: Option<usize>,
    pub(super) max_poolings: Option<usize>,
    pub(super) max_features: usize,
    pub(super) max_batch_size: Option<usize>,
}

fn require(
    name: &'static str,
    fulfilled: bool,
    expected: &'static str,
    found: impl std::fmt::Debug,
) -> Result<(), PlannerError> {
    if fulfilled { Ok(()) } else { Err(PlannerError::Setting { name, expected, found: format!("{found:?}") }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_usable() {
        for preset in [
            Preset::Default,
            Preset::ResidualEncoderM,
            Preset::ResidualEncoderL,
            Preset::ResidualEncoderXl,
            Preset::Y2018,
            Preset::Y2018Paper,
        ] {
            PlannerSettings::preset(preset).check().expect("usable");
        }
    }

    #[test]
    fn a_step_that_never_ends_is_refused() {
        let settings = PlannerSettings { lowres_spacing_factor: 1.0, ..PlannerSettings::default() };
        assert!(matches!(settings.check(), Err(PlannerError::Setting { name: "lowres_spacing_factor", .. })));
    }

    #[test]
    fn an_empty_list_of_convolutions_is_refused() {
        let settings = PlannerSettings { n_conv_per_stage: Vec::new(), ..PlannerSettings::default() };
        assert!(matches!(settings.check(), Err(PlannerError::Setting { name: "n_conv_per_stage", .. })));
    }

    #[test]
    fn a_name_that_does_not_exist_is_refused() {
        assert!(serde_json::from_str::<PlannerSettings>(r#"{"base_feature": 8}"#).is_err());
    }
}
