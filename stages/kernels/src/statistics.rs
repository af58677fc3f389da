//! What cases say together: means, quantiles, intervals of confidence and tests.
//!
//! Random draws follow from a seed and a counter, so that the same numbers have the same interval everywhere.

mod bootstrap;
mod permutation;

pub use bootstrap::{Bootstrap, Interval};
pub use permutation::sign_flip;

/// The mean of those values that are numbers, as NumPy's `nanmean`; NaN where none is.
pub fn mean_of_numbers(values: impl IntoIterator<Item = f64>) -> f64 {
    let numbers = values.into_iter().filter(|value| !value.is_nan());
    let (sum, count) = numbers.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}

/// The median of those values that are numbers, as NumPy's `nanmedian`; NaN where none is.
pub fn median_of_numbers(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
    quantile(&mut numbers, 0.5)
}

/// The value below which a share from 0 to 1 of the values lies, linearly interpolated between two of them; NaN where there
/// is none. The values are put into another order.
///
/// # Reference
/// Definition 7 of Hyndman, Fan: Sample quantiles in statistical packages (The American Statistician 50, 1996),
/// doi:10.1080/00031305.1996.10473566, which is NumPy's default.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let position = share.clamp(0.0, 1.0) * last as f64;
    let (below, part) = (position.floor() as usize, position.fract());
    let (_, lower, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let lower = *lower;
    let upper = above.iter().copied().min_by(f64::total_cmp).unwrap_or(lower);
    // Two equal values stay what they are, infinite ones too.
    if part == 0.0 || lower == upper { lower } else { lower + part * (upper - lower) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_left_out() {
        assert_eq!(mean_of_numbers([1.0, f64::NAN, 4.0]), 2.5);
        assert_eq!(median_of_numbers([5.0, f64::NAN, 1.0, 2.0]), 2.0);
        assert!(mean_of_numbers([f64::NAN]).is_nan() && median_of_numbers([]).is_nan());
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy 2.4.6: np.quantile([3, 1, 4, 1, 5, 9, 2, 6], q)
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        for (share, expected) in [(0.0, 1.0), (0.1, 1.0), (0.5, 3.5), (0.95, 7.949_999_999_999_999), (1.0, 9.0)] {
            assert!((quantile(&mut values.clone(), share) - expected).abs() < 1e-14, "{share}");
        }
    }

    #[test]
    fn a_quantile_between_two_infinite_values_is_infinite() {
        assert_eq!(quantile(&mut [f64::INFINITY, f64::INFINITY, 1.0], 0.75), f64::INFINITY);
    }
}
