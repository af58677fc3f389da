//! What bringing an answer back reads of a plan.

use nnflow_io::plans::{Configuration, ResamplingArguments};
use nnflow_kernels::resample::{Order, ResampleOptions};
use nnflow_stage::{Axes, StageError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::documents::{CONFIGURATION, PlannedConfiguration, TargetSpacing, slice};

/// How scores or labels are resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resampling {
    order: u8,
    order_z: u8,
    force_separate_z: Option<bool>,
}

impl From<&ResamplingArguments> for Resampling {
    fn from(arguments: &ResamplingArguments) -> Self {
        Self { order: arguments.order, order_z: arguments.order_z, force_separate_z: arguments.force_separate_z }
    }
}

impl Resampling {
    pub(super) fn options(self) -> Result<ResampleOptions, StageError> {
        let order = |order: u8| Order::try_from(order).map_err(|error| StageError::input(error.to_string()));
        Ok(ResampleOptions {
            order: order(self.order)?,
            order_z: order(self.order_z)?,
            force_separate_z: self.force_separate_z,
        })
    }
}

/// What prediction reads of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportPlan {
    /// Name of the configuration; a bundle holds the models of several.
    pub configuration: String,
    /// How scores are resampled.
    pub scores: Resampling,
    /// How labels are resampled.
    pub labels: Resampling,
    /// The grid of the cascade's next stage, if there is one.
    pub next_stage: Option<TargetSpacing>,
}

impl ExportPlan {
    /// The slice of a plan for the node's configuration.
    ///
    /// # Errors
    /// If the plan lacks the configuration, or that of the next stage.
    pub fn slice(document: &Value, axes: &Axes) -> Result<Value, StageError> {
        let planned = PlannedConfiguration::new(document, axes)?;
        let next_stage = match next_stage(&planned.configuration) {
            None => None,
            Some(name) => {
                let next = Axes::from([(CONFIGURATION.to_owned(), name)]);
                Some(PlannedConfiguration::new(document, &next)?.target_spacing()?)
            }
        };
        slice(&Self {
            configuration: planned.name.clone(),
            scores: (&planned.configuration.resampling_fn_probabilities_kwargs).into(),
            labels: (&planned.configuration.resampling_fn_seg_kwargs).into(),
            next_stage,
        })
    }
}

/// nnU-Net writes one name, or a list of them.
fn next_stage(configuration: &Configuration) -> Option<String> {
    match configuration.next_stage.as_ref()? {
        Value::String(name) => Some(name.clone()),
        Value::Array(names) => names.first()?.as_str().map(str::to_owned),
        _ => None,
    }
}
