//! What stages read of the documents that others share: the plan and `dataset.json`.
//!
//! A slice is what enters a stage's key, so every stage has a type of its own for the few values that it reads. What is
//! common to them is here: finding a configuration in a plan, and reading a `dataset.json`.

use std::path::Path;

use nnflow_io::dataset::DatasetDescription;
use nnflow_io::plans::{Configuration, Plans, PlansError};
use nnflow_kernels::geometry::Spacing;
use nnflow_stage::{Axes, StageError};
use serde::Serialize;
use serde_json::Value;

/// The axis whose values are the configurations of a plan.
pub const CONFIGURATION: &str = "configuration";

/// A plan and the configuration of it that a node is about.
#[derive(Debug, Clone)]
pub struct PlannedConfiguration {
    /// The whole plan.
    pub plans: Plans,
    /// Name of the configuration.
    pub name: String,
    /// The configuration with all that it inherits.
    pub configuration: Configuration,
}

impl PlannedConfiguration {
    /// Reads a plan and looks up the node's configuration in it.
    ///
    /// # Errors
    /// If the node has no configuration, the document is no plan, or the plan lacks the configuration.
    pub fn new(document: &Value, axes: &Axes) -> Result<Self, StageError> {
        let name = axes
            .get(CONFIGURATION)
            .ok_or_else(|| StageError::internal(format!("the node has no value on the axis `{CONFIGURATION}`")))?;
        let text = document.to_string();
        let plans = Plans::from_slice(text.as_bytes(), Path::new("plans.json")).map_err(unusable_plan)?;
        let configuration = plans.configuration(name).map_err(unusable_plan)?;
        Ok(Self { plans, name: name.clone(), configuration })
    }

    /// The spacing that a case is resampled to, in the frame of the plan; a plan for slices leaves the first axis alone.
    ///
    /// # Errors
    /// If the configuration's spacing has neither two nor three usable values.
    pub fn target_spacing(&self) -> Result<TargetSpacing, StageError> {
        let usable = |values: &[f64]| values.iter().all(|value| value.is_finite() && *value > 0.0);
        match *self.configuration.spacing.as_slice() {
            [row, column] if usable(&[row, column]) => Ok(TargetSpacing::Slices([row, column])),
            [slice, row, column] if usable(&[slice, row, column]) => Ok(TargetSpacing::Volume([slice, row, column])),
            ref found => Err(StageError::input(format!(
                "configuration `{}` of the plan has the spacing `{found:?}`: expected two or three distances above 0 mm",
                self.name
            ))),
        }
    }
}

/// The spacing that cases are resampled to, in millimetres, in the frame of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum TargetSpacing {
    /// All three axes.
    Volume([f64; 3]),
    /// Rows and columns; each case keeps its own distance between slices.
    Slices([f64; 2]),
}

impl TargetSpacing {
    /// The target of a case with this spacing, in the frame of the plan.
    ///
    /// # Errors
    /// If a distance is not above 0.
    pub fn of_case(self, current: Spacing) -> Result<Spacing, StageError> {
        let values = match self {
            Self::Volume(values) => values,
            Self::Slices([row, column]) => [current[0], row, column],
        };
        Spacing::new(values).map_err(|error| StageError::input(error.to_string()))
    }
}

/// Reads a `dataset.json`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn dataset_description(document: &Value) -> Result<DatasetDescription, StageError> {
    DatasetDescription::from_value(document.clone(), Path::new("dataset.json"))
        .map_err(|error| StageError::input(error.to_string()))
}

/// A slice as the JSON that enters the key.
///
/// # Errors
/// If the type is no JSON, which is a defect of the stage.
pub fn slice<T: Serialize>(slice: &T) -> Result<Value, StageError> {
    serde_json::to_value(slice).map_err(|error| StageError::internal(format!("a slice is no JSON: {error}")))
}

/// The error for a port that a stage does not read as a document.
#[must_use]
pub fn unknown_port(port: &str) -> StageError {
    StageError::internal(format!("no document is read at input `{port}`"))
}

fn unusable_plan(error: PlansError) -> StageError {
    StageError::input(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_keep_the_distance_of_the_case() {
        let current = Spacing::new([3.0, 0.5, 0.5]).expect("positive");
        let target = TargetSpacing::Slices([0.8, 0.7]).of_case(current).expect("positive");
        assert_eq!(target.values(), [3.0, 0.8, 0.7]);
    }

    #[test]
    fn a_node_without_configuration_is_a_defect_of_the_graph() {
        let error = PlannedConfiguration::new(&Value::Null, &Axes::new()).expect_err("no axis");
        assert_eq!(error.kind(), nnflow_stage::ErrorKind::Internal);
    }
}
