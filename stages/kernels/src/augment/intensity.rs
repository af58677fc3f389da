//! What is done to the intensities of one channel.
//!
//! Each function works on all voxels of a channel in place and needs no shape. Sums run in double precision, in a fixed
//! order, so that the result is the same on every machine.

use super::elementary::{add_normal, power};
use crate::random::CounterRandom;

/// Sums of this many interleaved parts of a channel run side by side.
const LANES: usize = 8;

/// The least range and standard deviation that anything is divided by.
const SMALLEST: f32 = 1e-7;

/// Mean, standard deviation (ddof 1, as torch has it) and range of a channel.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Moments {
    mean: f32,
    deviation: f32,
    low: f32,
    high: f32,
}

fn moments(voxels: &[f32]) -> Moments {
    let mut sum = [0.0_f64; LANES];
    let mut squares = [0.0_f64; LANES];
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = voxels.as_chunks::<LANES>();
    let mut add = |lane: usize, value: f32| {
        let wide = f64::from(value);
        sum[lane] += wide;
        squares[lane] += wide * wide;
        low[lane] = if value < low[lane] { value } else { low[lane] };
        high[lane] = if value > high[lane] { value } else { high[lane] };
    };
    for chunk in chunks {
        for (lane, &value) in chunk.iter().enumerate() {
            add(lane, value);
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        add(lane, value);
    }
    let count = voxels.len() as f64;
    let mean = sum.iter().sum::<f64>() / count;
    let variance = (squares.iter().sum::<f64>() - count * mean * mean) / (count - 1.0).max(1.0);
    Moments {
        mean: mean as f32,
        deviation: variance.max(0.0).sqrt() as f32,
        low: low.into_iter().fold(f32::INFINITY, f32::min),
        high: high.into_iter().fold(f32::NEG_INFINITY, f32::max),
    }
}

/// Adds normal noise of standard deviation `deviation`, drawn from `random`.
pub fn add_noise(voxels: &mut [f32], deviation: f64, random: &mut CounterRandom) {
    add_normal(voxels, deviation as f32, random);
}

/// Multiplies by `factor`.
pub fn scale_brightness(voxels: &mut [f32], factor: f64) {
    for value in voxels {
        *value *= factor as f32;
    }
}

/// Stretches intensities about their mean by `factor`, and clamps them to the range that they had.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6 `ContrastTransform` with `preserve_range=True`.
pub fn stretch_contrast(voxels: &mut [f32], factor: f64) {
    if voxels.is_empty() {
        return;
    }
    let Moments { mean, low, high, .. } = moments(voxels);
    let factor = factor as f32;
    for value in voxels {
        let stretched = (*value - mean) * factor + mean;
        let raised = if stretched < low { low } else { stretched };
        *value = if raised > high { high } else { raised };
    }
}

/// Raises intensities, brought to the range 0 to 1, to the power of `exponent`, then restores range, mean and standard
/// deviation. With `inverted` this is done to the negative of the channel.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6 `GammaTransform` with `p_retain_stats=1`.
pub fn gamma(voxels: &mut [f32], exponent: f64, inverted: bool) {
    if voxels.is_empty() {
        return;
    }
    let before = moments(voxels);
    let (sign, mean, low, high) = if inverted {
        (-1.0, -before.mean, -before.high, -before.low)
    } else {
        (1.0, before.mean, before.low, before.high)
    };
    let range = high - low;
    let divisor = range.max(SMALLEST);
    for value in voxels.iter_mut() {
        *value = power((sign * *value - low) / divisor, exponent as f32) * range + low;
    }
    let after = moments(voxels);
    let factor = before.deviation / after.deviation.max(SMALLEST);
    for value in voxels {
        *value = sign * ((*value - after.mean) * factor + mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_a_hand_calculation() {
        // 0 … 9: mean 4.5, sum of squares 285, variance (285 - 202.5) / 9.
        let values: Vec<f32> = (0..10).map(|value| value as f32).collect();
        let expected = Moments { mean: 4.5, deviation: (82.5_f32 / 9.0).sqrt(), low: 0.0, high: 9.0 };
        assert_eq!(moments(&values), expected);
    }

    #[test]
    fn contrast_stays_in_range() {
        // Mean 1; -2 and 4 would go to -3.5 and 5.5, 1 stays.
        let mut values = [-2.0, 1.0, 4.0];
        stretch_contrast(&mut values, 1.5);
        assert_eq!(values, [-2.0, 1.0, 4.0]);
        stretch_contrast(&mut values, 0.5);
        assert_eq!(values, [-0.5, 1.0, 2.5]);
    }

    #[test]
    fn gamma_of_one_changes_nothing() {
        let before = [3.0, -1.0, 0.5, 7.0];
        for inverted in [false, true] {
            let mut values = before;
            gamma(&mut values, 1.0, inverted);
            assert!(values.iter().zip(before).all(|(value, before)| (value - before).abs() < 1e-5), "{values:?}");
        }
    }

    #[test]
    fn gamma_keeps_mean_and_deviation() {
        let mut values: Vec<f32> = (0..100).map(|value| ((value * 37) % 100) as f32).collect();
        let before = moments(&values);
        gamma(&mut values, 1.4, false);
        let after = moments(&values);
        assert!((before.mean - after.mean).abs() < 1e-3 && (before.deviation - after.deviation).abs() < 1e-3);
    }

    #[test]
    fn gamma_leaves_a_constant_alone() {
        let mut values = [2.5; 5];
        gamma(&mut values, 0.8, true);
        assert_eq!(values, [2.5; 5]);
    }

    #[test]
    fn a_channel_without_voxels_is_left_alone() {
        gamma(&mut [], 0.8, false);
        stretch_contrast(&mut [], 0.8);
    }
}
