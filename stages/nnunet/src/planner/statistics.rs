//! Percentiles as NumPy computes them.

/// The value below which `percent` of the values lie, interpolated linearly; `NaN` if there are none.
///
/// Equal to `numpy.percentile` of NumPy 2.4.6 to the last bit: above the middle it interpolates from the upper
/// neighbour.
pub(super) fn percentile(values: impl IntoIterator<Item = f64>, percent: f64) -> f64 {
    let sorted = sort(values);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = percent / 100.0 * last as f64;
    let lower = (position.floor() as usize).min(last);
    let (below, above) = (sorted[lower], sorted[(lower + 1).min(last)]);
    let part = position - position.floor();
    let difference = above - below;
    if part >= 0.5 { above - difference * (1.0 - part) } else { below + difference * part }
}

/// The middle value, or the mean of the two in the middle, as `numpy.median` gives it; `NaN` if there are none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let sorted = sort(values);
    let middle = sorted.len() / 2;
    match (sorted.len(), sorted.len() % 2) {
        (0, _) => f64::NAN,
        (_, 1) => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

fn sort(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenth_percentile_of_five_is_interpolated() {
        // Position 0.1 · 4 = 0.4 between 1 and 2.
        assert_eq!(percentile([5.0, 4.0, 3.0, 2.0, 1.0], 10.0), 1.4);
    }

    #[test]
    fn percentiles_reach_both_ends() {
        assert_eq!((percentile([2.0, 1.0], 0.0), percentile([2.0, 1.0], 100.0)), (1.0, 2.0));
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
