//! Statistics of intensities.

use arbtest::arbitrary::Result;
use arbtest::arbtest;
use ndarray::Array3;
use nnflow_kernels::intensity::{ValueCounts, mean_and_deviation};
use nnflow_kernels::random::MersenneTwister;

use crate::arbitrary::on_one_and_three_threads;

#[test]
fn means_do_not_depend_on_the_number_of_threads() {
    let image = Array3::from_shape_fn((40, 60, 70), |(z, y, x)| ((z * 31 + y * 17 + x * 7) % 97) as f32 * 0.37);
    let measure = || mean_and_deviation(image.view(), None).expect("no mask").expect("voxels");
    let [one, three] = on_one_and_three_threads(measure);
    assert_eq!((one.0.to_bits(), one.1.to_bits()), (three.0.to_bits(), three.1.to_bits()));
}

#[test]
fn counting_draws_is_the_same_as_drawing() {
    arbtest(|input| {
        let values: Vec<f32> = (0..input.int_in_range(1..=40)?)
            .map(|_| Ok(f32::from(input.arbitrary::<i8>()?) / 4.0))
            .collect::<Result<_>>()?;
        let draws: Vec<usize> = MersenneTwister::new(input.arbitrary()?)
            .choice_with_replacement(values.len(), input.int_in_range(1..=200)?)
            .collect();
        let counted = ValueCounts::from_counts(draws.iter().map(|&index| (values[index], 1)).collect());
        let mut sample: Vec<f64> = draws.iter().map(|&index| f64::from(values[index])).collect();
        sample.sort_by(f64::total_cmp);
        let written_out: Vec<f64> =
            counted.iter().flat_map(|(value, count)| vec![f64::from(value); count as usize]).collect();
        assert_eq!(written_out, sample);
        Ok(())
    });
}

#[test]
fn merging_samples_is_the_same_as_counting_all_at_once() {
    arbtest(|input| {
        let mut half = || -> Result<Vec<f32>> {
            (0..input.int_in_range(0..=30)?).map(|_| Ok(f32::from(input.int_in_range(-5..=5_i8)?))).collect()
        };
        let (first, second) = (half()?, half()?);
        let merged = ValueCounts::from_values(first.clone()).merge(&ValueCounts::from_values(second.clone()));
        assert_eq!(merged, ValueCounts::from_values(first.into_iter().chain(second)));
        Ok(())
    });
}
