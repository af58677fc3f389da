//! The faults of taking an image.

use ndarray::{Array4, Axis};

use super::{Modality, noise::SmoothNoise};
use crate::{augment::elementary::add_normal, random::CounterRandom};

/// Brightest signal of an average magnetic resonance image, and the standard deviation of its logarithm between images.
const SIGNAL: f64 = 600.0;
const SIGNAL_DEVIATION: f64 = 0.35;

/// Standard deviation of the noise, as a fraction of the brightest signal and in Hounsfield units.
const MR_NOISE: f32 = 0.035;
const CT_NOISE: f32 = 14.0;

/// Amplitude of the logarithm of the bias field, and its lattice steps across the field of view.
const BIAS: f32 = 0.4;
const BIAS_DETAIL: f32 = 0.9;

/// The lowest value that a scanner stores.
const LOWEST_HOUNSFIELD: f32 = -1024.0;

/// Adds to a rendered image `[c, z, y, x]` what its modality adds, and rounds to whole numbers, as scanners do.
pub(super) fn acquire(image: &mut Array4<f32>, modality: Modality, random: &CounterRandom) {
    for (channel, mut volume) in image.axis_iter_mut(Axis(0)).enumerate() {
        let mut random = random.fork(16 + channel as u32);
        match modality {
            Modality::Mr => {
                let scale = (SIGNAL * (SIGNAL_DEVIATION * random.normal()).exp()) as f32;
                let bias = SmoothNoise::draw(&mut random);
                let shape = [volume.len_of(Axis(0)), volume.len_of(Axis(1)), volume.len_of(Axis(2))];
                for (z, mut slice) in volume.outer_iter_mut().enumerate() {
                    for (y, mut row) in slice.outer_iter_mut().enumerate() {
                        let field = |x: usize| bias_at(&bias, [z, y, x], shape) * scale;
                        let row = row.as_slice_mut().expect("invariant: rows of a new image are slices");
                        resonance_row(row, field, MR_NOISE * scale, &mut random);
                    }
                }
            }
            Modality::Ct => {
                let values = volume.as_slice_mut().expect("invariant: volumes of a new image are slices");
                add_normal(values, CT_NOISE, &mut random);
                values.iter_mut().for_each(|value| *value = value.round().max(LOWEST_HOUNSFIELD));
            }
        }
    }
}

fn bias_at(noise: &SmoothNoise, index: [usize; 3], shape: [usize; 3]) -> f32 {
    let place = std::array::from_fn(|axis| index[axis] as f32 / shape[axis] as f32 * 2.0 * BIAS_DETAIL + 0.31);
    (BIAS * noise.at(place)).exp()
}

/// Signal times bias field, then the magnitude of a complex number whose parts both have noise (Rician noise); where
/// there was no signal, nothing is stored.
fn resonance_row(row: &mut [f32], field: impl Fn(usize) -> f32, noise: f32, random: &mut CounterRandom) {
    let mut real: Vec<f32> = row.iter().enumerate().map(|(x, signal)| signal * field(x)).collect();
    let mut imaginary = vec![0.0; row.len()];
    add_normal(&mut real, noise, random);
    add_normal(&mut imaginary, noise, random);
    for (value, (real, imaginary)) in row.iter_mut().zip(real.into_iter().zip(imaginary)) {
        if *value != 0.0 {
            *value = (real * real + imaginary * imaginary).sqrt().round().max(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rician_noise_has_the_mean_of_a_rayleigh_distribution_without_signal() {
        // A signal far below the noise: mean sigma sqrt(pi / 2), variance (2 - pi / 2) sigma^2, and rounding.
        let mut row = vec![1e-3; 100_000];
        resonance_row(&mut row, |_| 1.0, 100.0, &mut CounterRandom::new(1, [0; 3]));
        let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / row.len() as f64;
        let expected = 100.0 * (std::f64::consts::FRAC_PI_2).sqrt();
        let error = 100.0 * (2.0 - std::f64::consts::FRAC_PI_2).sqrt() / (row.len() as f64).sqrt();
        assert!((mean - expected).abs() < 5.0 * error + 0.01, "{mean} for {expected}");
    }

    #[test]
    fn nothing_is_stored_where_there_was_no_signal() {
        let mut row = vec![0.0, 1.0];
        resonance_row(&mut row, |_| 500.0, 20.0, &mut CounterRandom::new(1, [0; 3]));
        assert!(row[0] == 0.0 && row[1] > 300.0, "{row:?}");
    }
}
