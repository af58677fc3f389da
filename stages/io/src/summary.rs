//! `summary.json`: how good predictions are, in nnU-Net's words.
//!
//! The keys stand in the order of their code points, as nnU-Net writes them; `Dice` and `IoU` are `NaN` where neither the
//! reference nor the prediction has the structure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::float;

/// A `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean over all structures but the background; `NaN` if one of them is in no case.
    pub foreground_mean: MeanMetrics,
    /// Mean over the cases that are not `NaN`, by structure: a label, or a region as a Python tuple (`(1, 2)`).
    pub mean: BTreeMap<String, MeanMetrics>,
    /// Each case.
    pub metric_per_case: Vec<CaseMetrics>,
}

/// The metrics of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseMetrics {
    /// Metrics by structure.
    pub metrics: BTreeMap<String, Metrics>,
    /// The label image that was judged.
    pub prediction_file: String,
    /// The label image that it was judged by.
    pub reference_file: String,
}

/// Overlap of one structure in one case; counts are voxels outside the ignore label of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// `2 TP / (2 TP + FP + FN)`.
    #[serde(rename = "Dice", with = "float")]
    pub dice: f64,
    /// Voxels of the reference that the prediction lacks.
    #[serde(rename = "FN")]
    pub false_negatives: u64,
    /// Voxels of the prediction that the reference lacks.
    #[serde(rename = "FP")]
    pub false_positives: u64,
    /// `TP / (TP + FP + FN)`.
    #[serde(rename = "IoU", with = "float")]
    pub iou: f64,
    /// Voxels outside of both.
    #[serde(rename = "TN")]
    pub true_negatives: u64,
    /// Voxels of both.
    #[serde(rename = "TP")]
    pub true_positives: u64,
    /// Voxels of the prediction.
    #[serde(rename = "n_pred")]
    pub predicted: u64,
    /// Voxels of the reference.
    #[serde(rename = "n_ref")]
    pub referenced: u64,
}

/// Means of [`Metrics`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanMetrics {
    /// Mean Dice.
    #[serde(rename = "Dice", with = "float")]
    pub dice: f64,
    /// Mean number of voxels that predictions lack.
    #[serde(rename = "FN", with = "float")]
    pub false_negatives: f64,
    /// Mean number of voxels that references lack.
    #[serde(rename = "FP", with = "float")]
    pub false_positives: f64,
    /// Mean intersection over union.
    #[serde(rename = "IoU", with = "float")]
    pub iou: f64,
    /// Mean number of voxels outside of both.
    #[serde(rename = "TN", with = "float")]
    pub true_negatives: f64,
    /// Mean number of voxels of both.
    #[serde(rename = "TP", with = "float")]
    pub true_positives: f64,
    /// Mean number of voxels of predictions.
    #[serde(rename = "n_pred", with = "float")]
    pub predicted: f64,
    /// Mean number of voxels of references.
    #[serde(rename = "n_ref", with = "float")]
    pub referenced: f64,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::json;

    #[test]
    fn a_structure_in_no_image_is_nan_in_both_directions() {
        let text = r#"{"Dice": NaN, "FN": 0, "FP": 0, "IoU": NaN, "TN": 9, "TP": 0, "n_pred": 0, "n_ref": 0}"#;
        let metrics: Metrics = json::from_slice(text.as_bytes(), Path::new("summary.json")).expect("reads");
        assert!(metrics.dice.is_nan() && metrics.iou.is_nan() && metrics.true_negatives == 9);
        let written = json::to_vec(&metrics).expect("serialises");
        let squeeze = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(squeeze(&String::from_utf8_lossy(&written)), squeeze(text));
    }
}
