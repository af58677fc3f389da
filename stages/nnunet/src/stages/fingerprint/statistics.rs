//! The samples of all cases as one.

use std::collections::BTreeMap;

use nnflow_io::fingerprint::{Fingerprint, IntensityProperties};
use nnflow_kernels::intensity::{IntensityStatistics, Precision, ValueCounts};
use nnflow_stage::{Artifact, StageError};

use super::sample::{SampleRecord, channels_of, read_channel, read_record};

/// The fingerprint of the cases, in the order of their identifiers.
pub(super) fn summarize(samples: &BTreeMap<&str, &Artifact>, channels: usize) -> Result<Fingerprint, StageError> {
    check_channels(samples, channels)?;
    let records = samples.values().map(|sample| read_record(sample)).collect::<Result<Vec<SampleRecord>, _>>()?;
    let shares = records.iter().map(|record| voxels(record.shape_after) / voxels(record.shape_before)).collect();
    let artifacts: Vec<&Artifact> = samples.values().copied().collect();
    let intensities = (0..channels).map(|channel| intensities(&artifacts, channel)).collect::<Result<_, _>>()?;
    Ok(Fingerprint {
        spacings: records.iter().map(|record| record.spacing).collect(),
        shapes_after_crop: records.iter().map(|record| record.shape_after).collect(),
        foreground_intensity_properties_per_channel: intensities,
        median_relative_size_after_cropping: median(shares)
            .ok_or_else(|| StageError::input("there is no case to take a fingerprint of"))?,
    })
}

fn check_channels(samples: &BTreeMap<&str, &Artifact>, expected: usize) -> Result<(), StageError> {
    let mut others = Vec::new();
    for (case, sample) in samples {
        let found = channels_of(sample)?;
        if found != expected {
            others.push(format!("case `{case}` has {found} channels"));
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    Err(StageError::input(format!("`dataset.json` names {expected} channels, but not every case has as many"))
        .with_details(others))
}

/// Statistics of one channel; only one channel of the dataset is in memory at a time.
fn intensities(samples: &[&Artifact], channel: usize) -> Result<IntensityProperties, StageError> {
    let mut precision = Precision::Single;
    let all = merged(samples, channel, &mut precision)?;
    let found = all.statistics(precision).ok_or_else(|| {
        StageError::input("no case has a voxel of foreground: all labels are 0")
            .with_hint("check that `labelsTr` holds label images, and that their labels are above 0")
    })?;
    let IntensityStatistics { max, mean, median, min, percentile_00_5, percentile_99_5, std } = found;
    Ok(IntensityProperties { mean, median, std, min, max, percentile_99_5, percentile_00_5 })
}

/// All samples of a channel as one. Halves are merged, so that a value is moved as often as the number of cases can be
/// halved and not once for each case.
///
/// A case without foreground turns `precision` to double.
fn merged(samples: &[&Artifact], channel: usize, precision: &mut Precision) -> Result<ValueCounts, StageError> {
    match samples {
        [] => Ok(ValueCounts::default()),
        [sample] => {
            let drawn = read_channel(sample, channel)?;
            if drawn.is_empty() {
                *precision = Precision::Double;
            }
            Ok(drawn)
        }
        _ => {
            let (first, second) = samples.split_at(samples.len() / 2);
            Ok(merged(first, channel, precision)?.merge(&merged(second, channel, precision)?))
        }
    }
}

fn voxels(shape: [usize; 3]) -> f64 {
    shape.iter().map(|&extent| extent as f64).product()
}

/// The value in the middle, or the mean of the two there.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().checked_sub(1)? / 2)?;
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
