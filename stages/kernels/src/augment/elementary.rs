//! Powers and normal numbers for whole volumes.
//!
//! The standard library's functions call the platform's mathematics library once a number: slow, and not the same bits
//! everywhere. These are branch-free polynomials that the compiler turns into vector code, with the same result wherever
//! they run.
//!
//! The coefficients are those of S. L. Moshier's Cephes library (single precision): `logf`, `exp2f`, `sinf`, `cosf`.

use std::f32::consts::{FRAC_PI_4, LN_2, LOG2_E, SQRT_2};

use crate::random::CounterRandom;

/// Adding and subtracting this rounds a small float to a whole number, which then stands in its lowest bits.
const ROUNDER: f32 = 12_582_912.0;

/// Pairs of normal numbers that are made at a time: of 128 numbers of the generator the first 64 decide the radii, the others
/// the angles, and the 64 cosines stand before the 64 sines.
pub const PAIRS: usize = 64;

/// Evaluates a polynomial, highest power first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    coefficients.into_iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

/// The natural logarithm of a normal number above 0, to a relative error of 2e-7.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // Split so that the mantissa lies between 1/sqrt(2) and sqrt(2), where the logarithm is near 0.
    let bits = x.to_bits() as i32;
    let exponent = (bits - (SQRT_2 / 2.0).to_bits() as i32) >> 23;
    let m = f32::from_bits((bits - (exponent << 23)) as u32) - 1.0;
    let tail = polynomial(
        m,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_87e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_7e-1,
            2.000_071_4e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    m - 0.5 * m * m + m * m * m * tail + exponent as f32 * LN_2
}

/// Two to the power of `x`, clamped to the normal numbers, to a relative error of 2e-7.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    let x = if x < -126.0 { -126.0 } else { x };
    let x = if x > 126.0 { 126.0 } else { x };
    let shifted = x + ROUNDER;
    let fraction = x - (shifted - ROUNDER);
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let mantissa =
        polynomial(fraction, [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, LN_2, 1.0]);
    mantissa * f32::from_bits((exponent.wrapping_add(127) << 23) as u32)
}

/// `base` to the power of `exponent`; 0 where the base is not above the smallest normal number.
#[inline(always)]
pub(super) fn power(base: f32, exponent: f32) -> f32 {
    let value = exp2(exponent * LOG2_E * ln(base));
    if base < f32::MIN_POSITIVE { 0.0 } else { value }
}

/// Adds `scale` times independent standard normal numbers to `values` (Box and Muller 1958).
pub(crate) fn add_normal(values: &mut [f32], scale: f32, random: &mut CounterRandom) {
    let mut normal = [0.0_f32; 2 * PAIRS];
    for chunk in values.chunks_mut(2 * PAIRS) {
        fill_normal(&mut normal, random);
        for (value, normal) in chunk.iter_mut().zip(&normal) {
            *value += scale * normal;
        }
    }
}

fn fill_normal(normal: &mut [f32; 2 * PAIRS], random: &mut CounterRandom) {
    let words: [[u32; PAIRS]; 2] = std::array::from_fn(|_| std::array::from_fn(|_| random.next_u32()));
    let (first, second) = normal.split_at_mut(PAIRS);
    for (pair, (first, second)) in first.iter_mut().zip(second).enumerate() {
        let (for_radius, for_angle) = (words[0][pair], words[1][pair]);
        // 24 bits, and never 0.
        let uniform = ((for_radius >> 8) as i32 + 1) as f32 * (1.0 / 16_777_216.0);
        let radius = (-2.0 * ln(uniform)).sqrt();
        let angle = ((for_angle >> 8) as i32 - (1 << 23)) as f32 * (FRAC_PI_4 / 8_388_608.0);
        let square = angle * angle;
        let sine = angle + angle * square * polynomial(square, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
        let cosine = 1.0 - 0.5 * square
            + square * square * polynomial(square, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
        // The angle covers a quarter of the circle; two bits that it does not use turn it by quarters.
        let (x, y) = if for_angle & 1 == 0 { (cosine, sine) } else { (-sine, cosine) };
        let sign = if for_angle & 2 == 0 { 1.0 } else { -1.0 };
        *first = radius * sign * x;
        *second = radius * sign * y;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_to_the_last_digits() {
        for step in 1..=20_000 {
            let x = step as f32 / 5_000.0;
            let expected = f64::from(x).ln();
            assert!((f64::from(ln(x)) - expected).abs() <= 2e-7 * expected.abs().max(1.0), "ln {x}");
        }
    }

    #[test]
    fn powers_of_the_unit_interval_are_right_to_six_digits() {
        for exponent in [0.7, 0.95, 1.0, 1.3, 1.5] {
            for step in 0..=20_000 {
                let base = step as f32 / 20_000.0;
                let expected = f64::from(base).powf(f64::from(exponent));
                assert!((f64::from(power(base, exponent)) - expected).abs() < 1e-6, "{base}^{exponent}");
            }
        }
    }

    #[test]
    fn noise_has_the_moments_of_a_normal_distribution() {
        let count = 1_000_000;
        let mut values = vec![0.0; count];
        add_normal(&mut values, 1.0, &mut CounterRandom::new(3, [0; 3]));
        let moment = |order: i32| values.iter().map(|value| f64::from(*value).powi(order)).sum::<f64>() / count as f64;
        // Five standard errors: the variances of x, x^2, x^3 and x^4 are 1, 2, 15 and 96.
        for (order, expected, variance) in [(1, 0.0, 1.0_f64), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            assert!((moment(order) - expected).abs() < 5.0 * (variance / count as f64).sqrt(), "moment {order}");
        }
    }

    #[test]
    fn noise_has_the_tails_of_a_normal_distribution() {
        let mut values = vec![0.0; 1_000_000];
        add_normal(&mut values, 1.0, &mut CounterRandom::new(4, [0; 3]));
        // P(|x| > 1, 2, 3, 4) of the standard normal distribution, and five standard deviations of a binomial count.
        for (limit, probability) in [(1.0, 0.317_310_5), (2.0, 0.045_500_3), (3.0, 0.002_699_8), (4.0, 6.334e-5_f64)] {
            let count = values.iter().filter(|value| value.abs() > limit).count() as f64;
            let expected = 1e6 * probability;
            assert!((count - expected).abs() < 5.0 * (expected * (1.0 - probability)).sqrt(), "{count} beyond {limit}");
        }
    }

    #[test]
    fn neighbouring_noise_is_not_correlated() {
        let mut values = vec![0.0_f32; 1_000_000];
        add_normal(&mut values, 1.0, &mut CounterRandom::new(5, [0; 3]));
        for lag in [1, PAIRS, 2 * PAIRS] {
            let products = values.iter().zip(&values[lag..]).map(|(a, b)| f64::from(a * b));
            assert!((products.sum::<f64>() / 1e6).abs() < 5e-3, "lag {lag}");
        }
    }
}
