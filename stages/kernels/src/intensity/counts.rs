//! Samples of intensities as distinct values with counts.
//!
//! nnU-Net draws 10^8 intensities with replacement for a fingerprint and holds them all. Most repeat: what is kept here
//! is each value once, with how often it was drawn, and every statistic comes out as that of the drawn sample.

use serde::{Deserialize, Serialize};

use super::{BLOCK, pairwise_sum};

/// The statistics of a channel's foreground; the fields of nnU-Net's `foreground_intensity_properties_per_channel`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IntensityStatistics {
    /// The largest value.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// The value in the middle.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// What 0.5 % of the values lie below.
    pub percentile_00_5: f64,
    /// What 99.5 % of the values lie below.
    pub percentile_99_5: f64,
    /// The standard deviation, divided by the number of values.
    pub std: f64,
}

/// In which precision the difference of two neighbouring values is taken.
///
/// NumPy takes it in that of the array, and the array of nnU-Net 2.8.1 (`DatasetFingerprintExtractor.run`) is one of
/// float64 as soon as one case has no foreground, because its empty list makes it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    Single,
    /// 64 bits.
    Double,
}

/// A sample of intensities: each value once, in ascending order, with the number of times that it occurs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ValueCounts {
    values: Vec<f32>,
    counts: Vec<u64>,
}

impl ValueCounts {
    /// The sample of all these values.
    #[must_use]
    pub fn from_values(values: impl IntoIterator<Item = f32>) -> Self {
        Self::from_counts(values.into_iter().map(|value| (value, 1)).collect())
    }

    /// The sample of values, in any order, with the number of times that each occurs; a value may be there several times.
    #[must_use]
    pub fn from_counts(mut pairs: Vec<(f32, u64)>) -> Self {
        pairs.sort_unstable_by(|first, second| first.0.total_cmp(&second.0));
        let mut sample = Self::default();
        for (value, count) in pairs.into_iter().filter(|&(_, count)| count > 0) {
            sample.push(value, count);
        }
        sample
    }

    /// Appends a value that is not below the last one.
    fn push(&mut self, value: f32, count: u64) {
        match (self.values.last(), self.counts.last_mut()) {
            (Some(last), Some(last_count)) if *last == value => *last_count += count,
            _ => {
                // Adding 0.0 turns -0.0, which is the same value, into 0.0.
                self.values.push(value + 0.0);
                self.counts.push(count);
            }
        }
    }

    /// Both samples together.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut merged = Self::default();
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        loop {
            let from_left = match (left.peek(), right.peek()) {
                (Some((first, _)), Some((second, _))) => first.total_cmp(second).is_le(),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return merged,
            };
            if let Some((value, count)) = if from_left { left.next() } else { right.next() } {
                merged.push(value, count);
            }
        }
    }

    /// The distinct values in ascending order, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (f32, u64)> + '_ {
        self.values.iter().copied().zip(self.counts.iter().copied())
    }

    /// How many values the sample has, repetitions included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All statistics of the sample; none where it is empty.
    ///
    /// Percentiles are interpolated in this precision.
    #[must_use]
    pub fn statistics(&self, precision: Precision) -> Option<IntensityStatistics> {
        let (min, max) = (*self.values.first()?, *self.values.last()?);
        let total = self.len() as f64;
        let mean = self.sum(|value| value) / total;
        let variance = self.sum(|value| (value - mean) * (value - mean)) / total;
        Some(IntensityStatistics {
            max: f64::from(max),
            mean,
            median: self.percentile(50.0, precision)?,
            min: f64::from(min),
            percentile_00_5: self.percentile(0.5, precision)?,
            percentile_99_5: self.percentile(99.5, precision)?,
            std: variance.sqrt(),
        })
    }

    /// The value that `percent` percent of the sample lie below, interpolated between its two neighbours; none where the
    /// sample is empty.
    ///
    /// Equal to `numpy.percentile` 2.4 of a float32 or float64 array, to the last bit.
    #[must_use]
    pub fn percentile(&self, percent: f64, precision: Precision) -> Option<f64> {
        let last = self.len().checked_sub(1)?;
        let place = (last as f64 * (percent / 100.0)).clamp(0.0, last as f64);
        let index = place.floor() as u64;
        let fraction = place - place.floor();
        let (lower, upper) = (self.value_at(index)?, self.value_at((index + 1).min(last))?);
        let difference = match precision {
            Precision::Single => f64::from(upper - lower),
            Precision::Double => f64::from(upper) - f64::from(lower),
        };
        // NumPy starts from the nearer of the two.
        Some(if fraction < 0.5 {
            f64::from(lower) + difference * fraction
        } else {
            f64::from(upper) - difference * (1.0 - fraction)
        })
    }

    /// The value at a place of the sorted sample.
    fn value_at(&self, index: u64) -> Option<f32> {
        let mut before = 0;
        self.iter().find_map(|(value, count)| {
            before += count;
            (index < before).then_some(value)
        })
    }

    fn sum(&self, term: impl Fn(f64) -> f64) -> f64 {
        let sum_block = |(values, counts): (&[f32], &[u64])| {
            values.iter().zip(counts).map(|(&value, &count)| term(f64::from(value)) * count as f64).sum()
        };
        let blocks: Vec<f64> = self.values.chunks(BLOCK).zip(self.counts.chunks(BLOCK)).map(sum_block).collect();
        pairwise_sum(&blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_equal_values_are_added_and_empty_ones_dropped() {
        let sample = ValueCounts::from_counts(vec![(5.0, 1), (1.0, 1), (5.0, 2), (9.0, 0)]);
        assert_eq!(sample.iter().collect::<Vec<_>>(), [(1.0, 1), (5.0, 3)]);
    }

    #[test]
    fn percentiles_are_numpys_to_the_last_bit() {
        // `numpy.percentile(numpy.array([0.1, 0.7, 1e6, 1.0000001e6, 3.3], numpy.float32), numpy.array([...]))`
        let sample = ValueCounts::from_values([0.1, 0.7, 1e6, 1.000_000_1e6, 3.3]);
        let expected = [
            (0.0, f64::from(0.1_f32)),
            (0.5, 0.112_000_000_774_860_39),
            (12.5, 0.400_000_005_960_464_5),
            (50.0, 3.299_999_952_316_284),
            (70.0, 800_000.662_499_999_9),
            (80.0, 1_000_000.025),
            (99.5, 1_000_000.122_5),
            (100.0, f64::from(1.000_000_1e6_f32)),
        ];
        for (percent, expected) in expected {
            assert_eq!(sample.percentile(percent, Precision::Single), Some(expected), "{percent} %");
        }
    }

    #[test]
    fn percentiles_of_a_longer_array_are_numpys_to_the_last_bit() {
        // As above, after `numpy.concatenate` with an empty float64 array.
        let sample = ValueCounts::from_values([0.1, 0.7, 1e6, 1.000_000_1e6, 3.3]);
        let expected = [
            (0.5, 0.112_000_001_221_895_21),
            (12.5, 0.399_999_994_784_593_6),
            (70.0, 800_000.659_999_990_3),
            (99.5, 1_000_000.122_5),
        ];
        for (percent, expected) in expected {
            assert_eq!(sample.percentile(percent, Precision::Double), Some(expected), "{percent} %");
        }
    }

    #[test]
    fn statistics_of_counts_are_those_of_the_sample_written_out() {
        let sample = ValueCounts::from_values([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        let statistics = sample.statistics(Precision::Single).expect("values");
        assert_eq!((statistics.mean, statistics.std, statistics.median), (5.0, 2.0, 4.5));
        assert_eq!((statistics.min, statistics.max), (2.0, 9.0));
    }

    #[test]
    fn both_zeros_are_one_value() {
        let sample = ValueCounts::from_values([0.0, -0.0]);
        assert_eq!(sample.iter().map(|(value, count)| (value.to_bits(), count)).collect::<Vec<_>>(), [(0, 2)]);
    }

    #[test]
    fn an_empty_sample_has_no_statistics() {
        assert_eq!(ValueCounts::default().statistics(Precision::Single), None);
        assert_eq!(ValueCounts::default().percentile(50.0, Precision::Single), None);
    }
}
