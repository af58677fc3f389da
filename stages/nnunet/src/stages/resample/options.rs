//! How to resample: what the plan says, and what the workflow says instead.

use nnflow_io::plans::ResamplingArguments;
use nnflow_kernels::resample::{LabelRule, Order, ResampleOptions};
use nnflow_stage::StageError;
use serde::{Deserialize, Serialize};

use crate::documents::PlannedConfiguration;
use crate::locations::LocationSettings;

/// The function of nnU-Net whose arguments these are.
const FUNCTION: &str = "resample_data_or_seg_to_shape";

/// The arguments in a plan; a number that is no order is refused when it is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlannedOptions {
    order: u8,
    order_z: u8,
    force_separate_z: Option<bool>,
}

impl PlannedOptions {
    /// The arguments for images and for labels.
    pub(super) fn of(planned: &PlannedConfiguration) -> Result<(Self, Self), StageError> {
        let configuration = &planned.configuration;
        for (key, function) in [
            ("resampling_fn_data", &configuration.resampling_fn_data),
            ("resampling_fn_seg", &configuration.resampling_fn_seg),
        ] {
            if function != FUNCTION {
                return Err(StageError::input(format!(
                    "configuration `{}` of the plan names the function `{function}` as `{key}`: expected `{FUNCTION}`",
                    planned.name
                ))
                .with_hint(
                    "plan the dataset with nnflow, or change the name if the difference does not matter to you",
                ));
            }
        }
        let image = Self::from(&configuration.resampling_fn_data_kwargs);
        Ok((image, Self::from(&configuration.resampling_fn_seg_kwargs)))
    }

    /// The arguments with those of the workflow in their place.
    fn changed(
        &self,
        order: Option<u8>,
        order_z: Option<u8>,
        separation: Separation,
    ) -> Result<ResampleOptions, StageError> {
        let order_of = |number: u8| Order::try_from(number).map_err(|error| StageError::input(error.to_string()));
        Ok(ResampleOptions {
            order: order_of(order.unwrap_or(self.order))?,
            order_z: order_of(order_z.unwrap_or(self.order_z))?,
            force_separate_z: match separation {
                Separation::Plan => self.force_separate_z,
                Separation::Auto => None,
                Separation::Always => Some(true),
                Separation::Never => Some(false),
            },
        })
    }
}

impl From<&ResamplingArguments> for PlannedOptions {
    fn from(arguments: &ResamplingArguments) -> Self {
        let ResamplingArguments { order, order_z, force_separate_z, .. } = *arguments;
        Self { order, order_z, force_separate_z }
    }
}

/// Whether the coarsest axis is set apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Separation {
    Plan,
    Auto,
    Always,
    Never,
}

/// Which label wins a voxel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    Argmax,
    Threshold,
}

/// The parameters of the stage.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    image_order: Option<u8>,
    label_order: Option<u8>,
    image_order_z: Option<u8>,
    separate_z: Separation,
    label_rule: Rule,
    location_seed: u32,
    location_minimum: usize,
    location_share: f64,
}

impl Settings {
    /// How many voxels of each class are drawn.
    pub(super) fn locations(&self) -> LocationSettings {
        LocationSettings { seed: self.location_seed, minimum: self.location_minimum, share: self.location_share }
    }
}

/// How a case is resampled.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Effective {
    pub(super) image: ResampleOptions,
    pub(super) label: ResampleOptions,
    pub(super) label_rule: LabelRule,
}

impl Effective {
    /// The plan's options with those of the workflow in their place.
    pub(super) fn new(image: &PlannedOptions, label: &PlannedOptions, settings: &Settings) -> Result<Self, StageError> {
        Ok(Self {
            image: image.changed(settings.image_order, settings.image_order_z, settings.separate_z)?,
            label: label.changed(settings.label_order, None, settings.separate_z)?,
            label_rule: match settings.label_rule {
                Rule::Argmax => LabelRule::ArgmaxNearestTie,
                Rule::Threshold => LabelRule::ThresholdHalf,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANNED: PlannedOptions = PlannedOptions { order: 3, order_z: 0, force_separate_z: Some(true) };

    #[test]
    fn the_plan_holds_where_the_workflow_says_nothing() {
        let options = PLANNED.changed(None, None, Separation::Plan).expect("orders");
        assert_eq!(
            options,
            ResampleOptions { order: Order::Cubic, order_z: Order::Nearest, force_separate_z: Some(true) }
        );
    }

    #[test]
    fn the_workflow_wins_over_the_plan() {
        let options = PLANNED.changed(Some(1), Some(1), Separation::Auto).expect("orders");
        assert_eq!(options, ResampleOptions { order: Order::Linear, order_z: Order::Linear, force_separate_z: None });
    }

    #[test]
    fn a_spline_of_order_2_is_refused() {
        let report = PLANNED.changed(Some(2), None, Separation::Plan).expect_err("no such order").report();
        assert_eq!(report.kind, nnflow_stage::ErrorKind::Input);
    }
}
