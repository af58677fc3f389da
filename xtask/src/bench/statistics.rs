//! Medians of few runs, and how far they lie apart.

/// The middle of some figures, with the smallest and the largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The median.
    pub(crate) median: f64,
    /// The smallest figure.
    pub(crate) least: f64,
    /// The largest figure.
    pub(crate) most: f64,
}

impl Spread {
    /// The spread of some figures; of none it is NaN.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let median = match figures.as_slice() {
            [] => f64::NAN,
            all if all.len() % 2 == 1 => all[middle],
            all => (all[middle - 1] + all[middle]) / 2.0,
        };
        let end = |figure: Option<&f64>| figure.copied().unwrap_or(f64::NAN);
        Self { median, least: end(figures.first()), most: end(figures.last()) }
    }

    /// The spread of the ratios of figures that were taken in turns, pair by pair.
    pub(crate) fn of_ratios(pairs: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self::of(pairs.into_iter().map(|(numerator, denominator)| numerator / denominator))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_number_of_figures_has_a_middle_one() {
        assert_eq!(Spread::of([5.0, 1.0, 3.0]), Spread { median: 3.0, least: 1.0, most: 5.0 });
    }

    #[test]
    fn an_even_number_of_figures_has_two_middle_ones() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 8.0]).median, 3.0);
    }

    #[test]
    fn ratios_are_taken_within_pairs() {
        // The ratio of the medians would be 30 / 3 = 10.
        let spread = Spread::of_ratios([(10.0, 1.0), (60.0, 3.0), (30.0, 5.0)]);
        assert_eq!(spread, Spread { median: 10.0, least: 6.0, most: 20.0 });
    }

    #[test]
    fn nothing_measured_is_no_number() {
        assert!(Spread::of([]).median.is_nan());
    }
}
