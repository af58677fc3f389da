//! `dataset_fingerprint.json`: what nnU-Net's planner knows of a dataset's images.

use std::collections::BTreeMap;

use nnflow_kernels::geometry::Spacing;
use serde::{Deserialize, Serialize};

use crate::json::float;

/// What is known of a dataset, with the keys of nnU-Net's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Spacing of each case in millimetres, `[z, y, x]`; cases in ascending order of their identifiers.
    pub spacings: Vec<Spacing>,
    /// Shape of each case in voxels after cropping to its nonzero region, `[z, y, x]`, in the same order.
    pub shapes_after_crop: Vec<[usize; 3]>,
    /// Intensities of the foreground, channel by channel; an object from channel number to values in the file.
    #[serde(with = "by_number")]
    pub foreground_intensity_properties_per_channel: Vec<IntensityProperties>,
    /// Median over the cases of the share of its voxels that cropping leaves of a case.
    #[serde(with = "float")]
    pub median_relative_size_after_cropping: f64,
}

/// Intensities of one channel over the foreground voxels of all cases; `NaN` where no case has foreground.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IntensityProperties {
    /// Mean.
    #[serde(with = "float")]
    pub mean: f64,
    /// Median.
    #[serde(with = "float")]
    pub median: f64,
    /// Standard deviation, with the number of voxels as divisor.
    #[serde(with = "float")]
    pub std: f64,
    /// Smallest value.
    #[serde(with = "float")]
    pub min: f64,
    /// Largest value.
    #[serde(with = "float")]
    pub max: f64,
    /// 99.5th percentile.
    #[serde(with = "float")]
    pub percentile_99_5: f64,
    /// 0.5th percentile.
    #[serde(with = "float")]
    pub percentile_00_5: f64,
}

/// A list as an object from number to value: `{"0": …, "1": …}`.
mod by_number {
    use super::{BTreeMap, Deserialize, IntensityProperties};
    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(list: &[IntensityProperties], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(list.iter().enumerate().map(|(number, value)| (number.to_string(), value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IntensityProperties>, D::Error> {
        let object = BTreeMap::<String, IntensityProperties>::deserialize(deserializer)?;
        let values = (0..object.len()).map(|number| object.get(&number.to_string()).copied());
        let list: Option<Vec<_>> = values.collect();
        list.ok_or_else(|| {
            let found = object.keys().cloned().collect::<Vec<_>>().join(", ");
            D::Error::custom(format!("expected channels numbered from 0 without gaps, found {found}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use std::path::Path;

    #[test]
    fn a_gap_between_channels_is_refused() {
        let text = br#"{"spacings": [], "shapes_after_crop": [], "median_relative_size_after_cropping": 1.0,
            "foreground_intensity_properties_per_channel": {"1": {"mean": 1, "median": 1, "std": 1, "min": 1, "max": 1,
            "percentile_99_5": 1, "percentile_00_5": 1}}}"#;
        let error = json::from_slice::<Fingerprint>(text, Path::new("f.json")).expect_err("no channel 0");
        assert!(error.to_string().contains("expected channels numbered from 0"), "{error}");
    }
}
