//! Intervals of confidence by resampling.

use ndarray::parallel::prelude::{IntoParallelIterator, ParallelIterator};

use super::quantile;
use crate::random::CounterRandom;

/// An interval of confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// How intervals are drawn: the percentile bootstrap over cases.
///
/// # Reference
/// Efron, Tibshirani: An introduction to the bootstrap (1993), section 13.3; `scipy.stats.bootstrap` with
/// `method="percentile"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// How often as many cases as there are are drawn with replacement.
    pub resamples: u32,
    /// The share of resamples within an interval, such as 0.95.
    pub level: f64,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Bootstrap {
    /// The interval of each of several statistics of `cases` cases.
    ///
    /// `statistics` is given the numbers of the cases of a resample, some of them several times, and computes always as
    /// many values. A value that is NaN, because no case of a resample counts, is left out; a statistic has no interval
    /// where less than two cases are given, where nothing is drawn, or where no resample has a value of it.
    pub fn intervals(&self, cases: usize, statistics: impl Fn(&[usize]) -> Vec<f64> + Sync) -> Vec<Option<Interval>> {
        let all: Vec<usize> = (0..cases).collect();
        let count = statistics(&all).len();
        if cases < 2 {
            return vec![None; count];
        }
        let draws: Vec<Vec<f64>> = (0..self.resamples)
            .into_par_iter()
            .map(|resample| {
                let mut random = CounterRandom::new(self.seed, [resample, 0, 0]);
                let drawn: Vec<usize> = (0..cases).map(|_| random.below(cases)).collect();
                statistics(&drawn)
            })
            .collect();
        (0..count).map(|column| self.interval(draws.iter().filter_map(|draw| draw.get(column).copied()))).collect()
    }

    fn interval(&self, values: impl Iterator<Item = f64>) -> Option<Interval> {
        let mut numbers: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
        let outside = (1.0 - self.level) / 2.0;
        let interval = Interval { low: quantile(&mut numbers, outside), high: quantile(&mut numbers, 1.0 - outside) };
        (!numbers.is_empty()).then_some(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::mean_of_numbers;

    fn of_mean(values: &[f64], bootstrap: Bootstrap) -> Option<Interval> {
        let mean = |cases: &[usize]| vec![mean_of_numbers(cases.iter().map(|case| values[*case]))];
        bootstrap.intervals(values.len(), mean)[0]
    }

    const USUAL: Bootstrap = Bootstrap { resamples: 2000, level: 0.95, seed: 0 };

    #[test]
    fn two_cases_have_three_means() {
        // The means 0, 1/2 and 1 have the probabilities 1/4, 1/2 and 1/4.
        assert_eq!(of_mean(&[0.0, 1.0], USUAL), Some(Interval { low: 0.0, high: 1.0 }));
        let narrow = Bootstrap { level: 0.4, ..USUAL };
        assert_eq!(of_mean(&[0.0, 1.0], narrow), Some(Interval { low: 0.5, high: 0.5 }));
    }

    #[test]
    fn the_interval_is_that_of_scipy() {
        // scipy 1.17.1: bootstrap((x,), np.mean, n_resamples=1_000_000, method="percentile") of x = i² mod 23, i < 20.
        let values: Vec<f64> = (0..20).map(|i| f64::from(i * i % 23)).collect();
        let found = of_mean(&values, Bootstrap { resamples: 50_000, ..USUAL }).expect("20 cases");
        assert!((found.low - SCIPY.low).abs() < 0.05 && (found.high - SCIPY.high).abs() < 0.05, "{found:?}");
    }

    const SCIPY: Interval = Interval { low: 6.0, high: 11.05 };

    #[test]
    fn one_case_has_no_interval() {
        assert_eq!(of_mean(&[0.5], USUAL), None);
    }

    #[test]
    fn what_is_never_a_number_has_no_interval() {
        assert_eq!(of_mean(&[f64::NAN; 3], USUAL), None);
    }

    #[test]
    fn without_resamples_there_is_no_interval() {
        assert_eq!(of_mean(&[0.0, 1.0], Bootstrap { resamples: 0, ..USUAL }), None);
    }
}
