//! Tests by permutation.

use ndarray::parallel::prelude::{IntoParallelIterator, ParallelIterator};

use crate::random::CounterRandom;

/// By how much, relatively, a sum may fall short of the observed one because it was added up in another order.
const ROUNDING: f64 = 1e-12;

/// The two-sided p-value of the sign-flip test of paired differences: how likely a sum of the differences at least as far
/// from zero is where the sign of each is a matter of chance, which it is if neither of both sides is better.
///
/// All signs are gone through where there are at most `draws` of them; else `draws` are drawn, and the p-value is
/// `(1 + n) / (1 + draws)` if `n` of them are as extreme. NaN where there is no difference, and 1 where all are zero.
///
/// # Reference
/// Fisher: The design of experiments (1935), section 21; `scipy.stats.permutation_test` with
/// `permutation_type="samples"`. The count of what is drawn: Phipson, Smyth (2010), doi:10.2202/1544-6115.1585.
#[must_use]
pub fn sign_flip(differences: &[f64], draws: u32, seed: u64) -> f64 {
    if differences.is_empty() {
        return f64::NAN;
    }
    let observed = differences.iter().sum::<f64>().abs();
    let slack = ROUNDING * differences.iter().map(|difference| difference.abs()).sum::<f64>();
    let is_extreme = |sum: f64| sum.abs() >= observed - slack;
    let exact = u32::try_from(differences.len()).ok().and_then(|count| 1_u32.checked_shl(count));
    if let Some(all) = exact.filter(|all| *all <= draws) {
        let extreme = (0..all).filter(|signs| is_extreme(signed_sum(differences, |_| *signs))).count();
        return extreme as f64 / f64::from(all);
    }
    let drawn = (0..draws).into_par_iter().filter(|draw| {
        let mut random = CounterRandom::new(seed, [*draw, 0, 0]);
        is_extreme(signed_sum(differences, |_| random.next_u32()))
    });
    (1 + drawn.count()) as f64 / (1.0 + f64::from(draws))
}

/// The sum with the signs of the bits of words, 32 of them a word.
fn signed_sum(differences: &[f64], mut word: impl FnMut(usize) -> u32) -> f64 {
    let mut sum = 0.0;
    for (number, some) in differences.chunks(32).enumerate() {
        let signs = word(number);
        for (bit, difference) in some.iter().enumerate() {
            sum += if signs >> bit & 1 == 0 { *difference } else { -difference };
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_equal_gains_come_by_chance_once_in_four_times() {
        // Of eight signs, those of all plus and all minus are as extreme.
        assert_eq!(sign_flip(&[1.0, 1.0, 1.0], 10_000, 0), 0.25);
    }

    #[test]
    fn the_exact_test_is_scipys() {
        // scipy 1.17.1: permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
        let differences = [0.3, -0.1, 0.25, 0.4, -0.05, 0.12, 0.08, 0.31, -0.2, 0.15];
        assert!((sign_flip(&differences, 10_000, 0) - 0.080_078_125).abs() < 1e-12);
    }

    #[test]
    fn drawn_signs_come_near_to_all_of_them() {
        let differences: Vec<f64> = (0..14).map(|i| f64::from((i * 37) % 11) - 4.0).collect();
        let (exact, drawn) = (sign_flip(&differences, 1 << 14, 0), sign_flip(&differences, 10_000, 0));
        // Five standard errors.
        assert!((exact - drawn).abs() < 5.0 * (exact * (1.0 - exact) / 1e4).sqrt() + 1e-4, "{exact} {drawn}");
    }

    #[test]
    fn without_any_difference_nothing_speaks_for_one_side() {
        assert_eq!(sign_flip(&[0.0; 40], 1000, 0), 1.0);
        assert!(sign_flip(&[], 1000, 0).is_nan());
    }
}
