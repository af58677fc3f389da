//! nnU-Net's normalisations, channel by channel.

use ndarray::{Array3, ArrayView3, ArrayViewMut3, Axis, Zip};
use nnflow_kernels::intensity::{IntensityError, IntensityStatistics, clip_zscore, rescale_0_1, rgb_0_1, zscore};
use nnflow_stage::StageError;
use serde::{Deserialize, Serialize};

use crate::case::PreparedCase;
use crate::documents::PlannedConfiguration;

/// What becomes of voxels outside the nonzero region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outside {
    /// They stay as they are.
    Keep,
    /// They become 0.
    Zero,
}

/// How a channel is normalised: what enters the key, so it holds no more than the scheme needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "scheme", deny_unknown_fields)]
pub(super) enum Channel {
    #[serde(rename = "ZScoreNormalization")]
    ZScore { within_region: bool },
    #[serde(rename = "CTNormalization")]
    Ct { foreground: IntensityStatistics },
    #[serde(rename = "RescaleTo01Normalization")]
    RescaleTo01,
    #[serde(rename = "RGBTo01Normalization")]
    RgbTo01,
    #[serde(rename = "NoNormalization")]
    None,
}

impl Channel {
    /// The normalisation of every channel of a configuration.
    pub(super) fn all(planned: &PlannedConfiguration) -> Result<Vec<Self>, StageError> {
        let schemes = planned.configuration.normalization_schemes.iter().enumerate();
        schemes.map(|(number, scheme)| Self::of(scheme, number, planned)).collect()
    }

    fn of(scheme: &str, number: usize, planned: &PlannedConfiguration) -> Result<Self, StageError> {
        let configuration = &planned.configuration;
        match scheme {
            "ZScoreNormalization" => {
                let within_region = configuration.use_mask_for_norm.get(number).copied().unwrap_or(false);
                Ok(Self::ZScore { within_region })
            }
            "CTNormalization" => Ok(Self::Ct { foreground: foreground(number, planned)? }),
            "RescaleTo01Normalization" => Ok(Self::RescaleTo01),
            "RGBTo01Normalization" => Ok(Self::RgbTo01),
            "NoNormalization" => Ok(Self::None),
            other => Err(StageError::input(format!(
                "the plan names the normalisation `{other}` for channel {number} of `{}`, which nnflow does not have",
                planned.name
            ))
            .with_hint(
                "known are `ZScoreNormalization`, `CTNormalization`, `RescaleTo01Normalization`, `RGBTo01Normalization` and `NoNormalization`",
            )),
        }
    }
}

fn foreground(number: usize, planned: &PlannedConfiguration) -> Result<IntensityStatistics, StageError> {
    let all = &planned.plans.foreground_intensity_properties_per_channel;
    let missing = || {
        StageError::input(format!(
            "channel {number} is normalised as CT, but the plan's `foreground_intensity_properties_per_channel` has no usable entry `{number}`"
        ))
    };
    let entry = all.get(&number.to_string()).ok_or_else(missing)?;
    serde_json::from_value(entry.clone()).map_err(|error| missing().with_source(error))
}

/// Normalises every channel of a case.
pub(super) fn apply(case: &mut PreparedCase, channels: &[Channel], outside: Outside) -> Result<(), StageError> {
    let found = case.image.dim().0;
    if found != channels.len() {
        return Err(StageError::input(format!(
            "case `{}` has {found} channels, the plan normalises {}",
            case.record.identifier,
            channels.len()
        )));
    }
    let needs_mask = channels.iter().any(|channel| matches!(channel, Channel::ZScore { within_region: true }));
    let mask = needs_mask.then(|| case.mask());
    for (number, (channel, image)) in channels.iter().zip(case.image.axis_iter_mut(Axis(0))).enumerate() {
        normalize(image, channel, mask.as_ref(), outside).map_err(|error| {
            StageError::input(format!(
                "channel {number} of case `{}` cannot be normalised: {error}",
                case.record.identifier
            ))
        })?;
    }
    Ok(())
}

fn normalize(
    mut image: ArrayViewMut3<'_, f32>,
    channel: &Channel,
    mask: Option<&Array3<bool>>,
    outside: Outside,
) -> Result<(), IntensityError> {
    match channel {
        Channel::ZScore { within_region } => {
            let mask = mask.filter(|_| *within_region).map(|mask| mask.view());
            zscore(image.view_mut(), mask)?;
            match (mask, outside) {
                (Some(mask), Outside::Zero) => clear_outside(image, mask),
                (_, Outside::Keep) | (None, _) => {}
            }
        }
        Channel::Ct { foreground } => clip_zscore(image, foreground),
        Channel::RescaleTo01 => rescale_0_1(image),
        Channel::RgbTo01 => rgb_0_1(image)?,
        Channel::None => {}
    }
    Ok(())
}

fn clear_outside(image: ArrayViewMut3<'_, f32>, mask: ArrayView3<'_, bool>) {
    Zip::from(image).and(mask).par_for_each(|value, &inside| {
        if !inside {
            *value = 0.0;
        }
    });
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn normalized(outside: Outside) -> Array3<f32> {
        let mut image = array![[[1.0, 3.0, 9.0]]];
        let mask = array![[[true, true, false]]];
        normalize(image.view_mut(), &Channel::ZScore { within_region: true }, Some(&mask), outside)
            .expect("same shape");
        image
    }

    #[test]
    fn outside_voxels_stay_in_v2() {
        assert_eq!(normalized(Outside::Keep), array![[[-1.0, 1.0, 9.0]]]);
    }

    #[test]
    fn outside_voxels_are_cleared_in_2018() {
        assert_eq!(normalized(Outside::Zero), array![[[-1.0, 1.0, 0.0]]]);
    }

    #[test]
    fn a_channel_that_is_no_ct_has_no_statistics_in_the_key() {
        let value = serde_json::to_value(Channel::ZScore { within_region: false }).expect("JSON");
        assert_eq!(value, serde_json::json!({"scheme": "ZScoreNormalization", "within_region": false}));
    }
}
