//! The distance transform against what its definition says.

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use ndarray::{Array3, ArrayView3};
use nnflow_kernels::distance::squared_distances;
use nnflow_kernels::geometry::Spacing;

use crate::arbitrary::{mask, on_one_and_three_threads, shape};

fn spacing(input: &mut Unstructured<'_>) -> Result<Spacing> {
    let mut step = || Ok(f64::from(input.int_in_range(1..=40_u8)?) / 8.0);
    Ok(Spacing::new([step()?, step()?, step()?]).expect("positive"))
}

/// Each voxel held against each seed.
fn by_brute_force(seeds: ArrayView3<'_, bool>, spacing: Spacing) -> Array3<f64> {
    let seed_positions: Vec<_> =
        seeds.indexed_iter().filter(|(_, seed)| **seed).map(|(position, _)| position).collect();
    Array3::from_shape_fn(seeds.dim(), |(z, y, x)| {
        let squared = |&(seed_z, seed_y, seed_x): &(usize, usize, usize)| {
            let axes = [(z, seed_z), (y, seed_y), (x, seed_x)];
            let along =
                axes.iter().zip(spacing.values()).map(|((one, other), step)| one.abs_diff(*other) as f64 * step);
            along.map(|length| length * length).sum::<f64>()
        };
        seed_positions.iter().map(squared).fold(f64::INFINITY, f64::min)
    })
}

#[test]
fn every_voxel_has_the_distance_of_its_nearest_seed() {
    arbtest(|input| {
        let shape = shape(input, 7)?;
        let spacing = spacing(input)?;
        let seeds = mask(input, shape)?;
        let found = squared_distances(seeds.view(), |&seed| seed, spacing);
        for (found, expected) in found.iter().zip(&by_brute_force(seeds.view(), spacing)) {
            let same = f64::from(*found) == *expected || (f64::from(*found) - expected).abs() < 1e-6 * expected;
            assert!(same, "{found} is not {expected}");
        }
        Ok(())
    });
}

#[test]
fn few_seeds_in_a_larger_volume_have_the_right_distances() {
    arbtest(|input| {
        let spacing = spacing(input)?;
        let mut seeds = Array3::from_elem((9, 21, 35), false);
        for _ in 0..input.int_in_range(1..=5)? {
            let position = [input.int_in_range(0..=8)?, input.int_in_range(0..=20)?, input.int_in_range(0..=34)?];
            seeds[position] = true;
        }
        let found = squared_distances(seeds.view(), |&seed| seed, spacing);
        for (found, expected) in found.iter().zip(&by_brute_force(seeds.view(), spacing)) {
            assert!((f64::from(*found) - expected).abs() <= 1e-6 * expected, "{found} is not {expected}");
        }
        Ok(())
    });
}

#[test]
fn distances_do_not_depend_on_the_number_of_threads() {
    let seeds = Array3::from_shape_fn((20, 30, 40), |(z, y, x)| (z * 7 + y * 13 + x * 29) % 97 == 0);
    let spacing = Spacing::new([2.5, 0.7, 0.9]).expect("positive");
    let [one, three] = on_one_and_three_threads(|| squared_distances(seeds.view(), |&seed| seed, spacing));
    assert_eq!(one, three);
}
