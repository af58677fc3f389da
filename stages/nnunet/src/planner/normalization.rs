//! How the intensities of each channel are normalised.

use super::facts::Facts;
use super::settings::{Method, PlannerSettings};

/// One entry a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Normalization {
    /// nnU-Net's classes.
    pub(super) schemes: Vec<String>,
    /// Whether only the nonzero region is normalised.
    pub(super) within_mask: Vec<bool>,
}

const Z_SCORE: &str = "ZScoreNormalization";

/// Chooses by the channel's name, as `get_normalization_scheme` of nnU-Net 2.8.1 does.
///
/// Only z-score leaves zero outside the region, so only it can be restricted to it; it is where cropping removes
/// enough.
pub(super) fn normalization(facts: &Facts, settings: &PlannerSettings) -> Normalization {
    let schemes: Vec<&str> = facts.channel_names.iter().map(|name| scheme(name)).collect();
    let small = is_small(facts.relative_size, settings);
    Normalization {
        within_mask: schemes.iter().map(|&scheme| small && scheme == Z_SCORE).collect(),
        schemes: schemes.into_iter().map(str::to_owned).collect(),
    }
}

/// Why the channels have their normalisation, and why it is or is not restricted to the nonzero region.
pub(super) fn explain(facts: &Facts, settings: &PlannerSettings) -> (String, String) {
    let channels: Vec<String> = facts.channel_names.iter().map(|name| format!("`{name}` {}", because(name))).collect();
    let share =
        format!("cropping to the nonzero region leaves {:.1} % of the median case", facts.relative_size * 100.0);
    let limit = settings.mask_normalization_below * 100.0;
    let mask = if is_small(facts.relative_size, settings) {
        format!(
            "{share}, less than the limit of {limit} %: zero is background, so z-scores are those of the region only"
        )
    } else {
        format!("{share}, which is not below the limit of {limit} %: the whole image is normalised")
    };
    (format!("by the names of the channels: {}", channels.join(", ")), mask)
}

fn is_small(relative_size: f64, settings: &PlannerSettings) -> bool {
    match settings.method {
        Method::V2 => relative_size < settings.mask_normalization_below,
        // Its text speaks of a shrinkage by so much "or more".
        Method::Y2018 => relative_size <= settings.mask_normalization_below,
    }
}

fn scheme(channel_name: &str) -> &'static str {
    match channel_name.to_lowercase().as_str() {
        "ct" => "CTNormalization",
        "nonorm" => "NoNormalization",
        "rescale_to_0_1" => "RescaleTo01Normalization",
        "rgb_to_0_1" => "RGBTo01Normalization",
        _ => Z_SCORE,
    }
}

fn because(channel_name: &str) -> &'static str {
    match scheme(channel_name) {
        "CTNormalization" => "has physical units, so it is clipped and scaled by the statistics of the whole dataset",
        "NoNormalization" => "is left as it is",
        "RescaleTo01Normalization" => "is scaled to 0..1 by the range of each image",
        "RGBTo01Normalization" => "is divided by 255",
        _ => "has arbitrary units, so each image is scaled by its own mean and standard deviation",
    }
}
