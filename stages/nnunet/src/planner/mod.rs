//! Planning: from what a dataset is like to how it is preprocessed and which networks are trained on it.
//!
//! A plan is a pure function of the fingerprint, of `dataset.json` and of [`PlannerSettings`]. Two methods share one
//! form of plan, nnU-Net's, so that everything downstream reads the same file: `v2`, equal to nnU-Net 2.8.1, and
//! `2018`, the method of the first paper. Every number comes with a sentence that says why it is so ([`Reasons`]),
//! because a plan decides about days of training and nobody should have to take it on trust.
//!
//! - `frame`: target spacing, order of the axes, median shape
//! - `topology`, `network`: poolings and kernels; activations and parameters
//! - `patch`, `batch`: shrinking a patch until it fits; how many samples go with it
//! - `v2`, `y2018`: the two methods
//! - `document`, `explain`: the plans as nnU-Net writes them, and why they are so

mod batch;
mod design;
mod document;
mod explain;
mod facts;
mod frame;
mod network;
mod normalization;
mod patch;
mod reasons;
mod settings;
mod statistics;
mod topology;
mod v2;
mod y2018;

use nnflow_io::dataset::DatasetDescription;
use nnflow_io::fingerprint::Fingerprint;
use nnflow_io::plans::Plans;
use serde_json::{Map, Value};

use self::design::{Design, Grid, LowResolution};
use self::document::Writer;
use self::facts::Facts;
use self::frame::Frame;
pub use self::network::NetworkSize;
pub use self::reasons::Reasons;
use self::settings::RankSettings;
pub use self::settings::{Method, Network, PlannerSettings, Preset};
pub use self::topology::{PoolingLimits, Topology};

/// Name of the configuration for slices.
const FLAT: &str = "2d";
/// Name of the configuration for volumes at full resolution.
const FULL: &str = "3d_fullres";
/// Name of the configuration for volumes at a low resolution.
const LOW: &str = "3d_lowres";
/// Name of the configuration that refines what the low resolution found.
const CASCADE: &str = "3d_cascade_fullres";

/// Why a dataset cannot be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlannerError {
    /// A fingerprint without cases, or with more spacings than shapes.
    #[error(
        "the fingerprint has {n_spacings} spacings and {n_shapes} shapes: expected one of each for at least one case"
    )]
    Cases {
        /// Number of spacings.
        n_spacings: usize,
        /// Number of shapes.
        n_shapes: usize,
    },
    /// A case without voxels.
    #[error("case {index} of the fingerprint has shape `{shape:?}` (z y x): expected at least one voxel on each axis")]
    Case {
        /// Position in the fingerprint, from 0.
        index: usize,
        /// Its shape in voxels.
        shape: [f64; 3],
    },
    /// A file ending that no reader takes.
    #[error(
        "no reader of nnU-Net takes files that end in `{ending}`: expected `.nii.gz`, `.nii`, `.nrrd`, `.mha`, \
         `.gipl`, `.png`, `.bmp`, `.tif` or `.tiff`"
    )]
    FileEnding {
        /// The ending that `dataset.json` declares.
        ending: String,
    },
    /// A setting that the rules cannot work with.
    #[error("planner setting `{name}`: expected {expected}, found `{found}`")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// A resolution so coarse that half of the cases have no voxel on an axis; nnU-Net 2.8.1 ends in an `OverflowError`.
    #[error(
        "configuration `{configuration}` has a spacing of {spacing:?} mm, at which the median case has {shape:?} voxels: \
         expected at least one on each axis"
    )]
    Vanished {
        /// The configuration.
        configuration: String,
        /// Its spacing in millimetres, in the order of the plan.
        spacing: Vec<f64>,
        /// The median shape in voxels.
        shape: Vec<f64>,
    },
    /// No patch is small enough.
    #[error("no patch of configuration `{configuration}` fits into {budget}: `{patch:?}` is still too large")]
    Patch {
        /// The configuration.
        configuration: String,
        /// The smallest patch that was tried, in voxels.
        patch: Vec<usize>,
        /// What it had to fit into.
        budget: String,
    },
    /// Intensities that cannot be written as JSON.
    #[error("the intensities of the fingerprint cannot be taken over into the plans: {0}")]
    Intensities(#[from] serde_json::Error),
}

impl PlannerError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Vanished { configuration, .. } if configuration == LOW => {
                Some("`lowres_threshold = 0` plans without a low resolution")
            }
            Self::Vanished { .. } => Some("give a finer `target_spacing`, and check the spacings of the images"),
            Self::Patch { .. } => Some("raise what the patch has to fit into, or lower `base_features`"),
            _ => None,
        }
    }
}

/// Plans a dataset, and says why the plan is so.
///
/// # Errors
/// [`PlannerError`] if the fingerprint has no usable cases, a setting contradicts the rules, no patch fits, or cases vanish
/// at a resolution.
pub fn plan(
    dataset_name: &str,
    fingerprint: &Fingerprint,
    description: &DatasetDescription,
    settings: &PlannerSettings,
) -> Result<(Plans, Reasons), PlannerError> {
    settings.check()?;
    let facts = Facts::new(fingerprint, description)?;
    let mut reasons = Reasons::default();
    let frame = Frame::new(&facts, settings, &mut reasons);
    let planner = Planner { facts: &facts, settings, frame: &frame };
    let configurations = planner.configurations(&mut reasons)?;
    let plans = Plans {
        dataset_name: dataset_name.to_owned(),
        plans_name: settings.plans_name.clone(),
        original_median_spacing_after_transp: frame.original_spacing,
        original_median_shape_after_transp: frame.original_shape,
        image_reader_writer: facts.reader.clone(),
        transpose_forward: frame.transpose,
        transpose_backward: frame.transpose.inverse(),
        configurations,
        experiment_planner_used: settings.planner_name.clone(),
        label_manager: "LabelManager".to_owned(),
        foreground_intensity_properties_per_channel: facts.intensities.clone(),
        extra: Map::new(),
    };
    Ok((plans, reasons))
}

struct Planner<'a> {
    facts: &'a Facts,
    settings: &'a PlannerSettings,
    frame: &'a Frame,
}

impl Planner<'_> {
    /// All configurations in nnU-Net's order.
    fn configurations(&self, reasons: &mut Reasons) -> Result<Map<String, Value>, PlannerError> {
        let normalization = normalization::normalization(self.facts, self.settings);
        let writer = Writer { settings: self.settings, normalization };
        let mut configurations = Map::new();
        let flat = self.design(FLAT, self.grid(1))?;
        configurations.insert(FLAT.to_owned(), Value::Object(writer.configuration(FLAT, &flat, true)));
        self.explain_flat(&flat, reasons);
        if self.frame.is_flat() {
            reasons.add(format!("configurations.{FULL}"), "not planned: the cases are single slices");
            return Ok(configurations);
        }
        let full = self.design(FULL, self.grid(0))?;
        let low = self.low_resolution(&full)?;
        let is_cascade = matches!(low, LowResolution::Planned(..));
        if let LowResolution::Planned(design, _) = &low {
            configurations.insert(LOW.to_owned(), Value::Object(writer.low_resolution(LOW, design)));
        }
        // In nnU-Net a full resolution with a cascade stands for the cascade's second stage too.
        let batch_dice = is_cascade && self.settings.method == Method::V2;
        configurations.insert(FULL.to_owned(), Value::Object(writer.configuration(FULL, &full, batch_dice)));
        if is_cascade {
            configurations.insert(CASCADE.to_owned(), Value::Object(writer.cascade()));
        }
        self.explain_full(&full, batch_dice, reasons);
        self.explain_low(&low, reasons);
        Ok(configurations)
    }

    fn explain_flat(&self, flat: &Design, reasons: &mut Reasons) {
        let along = "the spacing along the first axis stays that of each case";
        let why_spacing = format!("the slices of the full resolution: {}; {along}", self.frame.why_spacing);
        explain::explain(FLAT, flat, &why_spacing, (self.facts, self.settings), reasons);
        let why = "Dice over the batch, because many slices have no foreground of their own";
        reasons.add(format!("configurations.{FLAT}.batch_dice"), why);
    }

    fn explain_full(&self, full: &Design, batch_dice: bool, reasons: &mut Reasons) {
        explain::explain(FULL, full, &self.frame.why_spacing, (self.facts, self.settings), reasons);
        let why = if batch_dice {
            "Dice over the batch: there is a cascade, so a patch of the full resolution sees little of a case"
        } else {
            "Dice of each sample, because a patch sees much of a case"
        };
        reasons.add(format!("configurations.{FULL}.batch_dice"), why);
    }

    fn explain_low(&self, low: &LowResolution, reasons: &mut Reasons) {
        match low {
            LowResolution::Planned(design, why) => {
                reasons.add(format!("configurations.{LOW}"), why.clone());
                explain::explain(LOW, design, why, (self.facts, self.settings), reasons);
                let why = "Dice of each sample, because a patch sees much of a case";
                reasons.add(format!("configurations.{LOW}.batch_dice"), why);
                let why = "the full resolution with the segmentation of the low resolution as further input channels";
                reasons.add(format!("configurations.{CASCADE}"), why);
            }
            LowResolution::Omitted(why) => {
                reasons.add(format!("configurations.{LOW}"), format!("not planned: {why}"));
            }
        }
    }

    /// The full resolution without its first `skipped` axes.
    fn grid(&self, skipped: usize) -> Grid {
        Grid {
            spacing: self.frame.spacing[skipped..].to_vec(),
            median: self.frame.median[skipped..].to_vec(),
            dataset_voxels: self.frame.voxels() * self.facts.n_training as f64,
        }
    }

    fn design(&self, name: &str, grid: Grid) -> Result<Design, PlannerError> {
        match self.settings.method {
            Method::V2 => v2::design(name, grid, self.facts, self.settings),
            Method::Y2018 => y2018::design(name, grid, self.settings),
        }
    }

    fn low_resolution(&self, full: &Design) -> Result<LowResolution, PlannerError> {
        match self.settings.method {
            Method::V2 => v2::low_resolution(LOW, full, self.facts, self.settings),
            Method::Y2018 => y2018::low_resolution(LOW, full, self.facts, self.settings),
        }
    }
}

/// When a network of this rank stops pooling.
fn pooling_limits(settings: &PlannerSettings, rank: &RankSettings) -> PoolingLimits {
    PoolingLimits {
        min_edge: settings.min_feature_edge,
        max_poolings: rank.max_poolings.unwrap_or(usize::MAX),
        max_stages: settings.max_stages.unwrap_or(usize::MAX),
    }
}
