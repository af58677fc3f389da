//! NumPy's legacy generator against NumPy.

use std::collections::BTreeSet;

use arbtest::arbtest;
use nnflow_kernels::random::MersenneTwister;

#[test]
fn draws_with_replacement_are_numpys() {
    // `numpy.random.RandomState(1234).choice(1000, 6)`
    let draws: Vec<usize> = MersenneTwister::new(1234).choice_with_replacement(1000, 6).collect();
    assert_eq!(draws, [815, 723, 294, 53, 204, 372]);
}

#[test]
fn draws_from_more_than_32_bits_are_numpys() {
    // `numpy.random.RandomState(7).choice(2**33, 4)` and `RandomState(1).randint(0, 2**32 + 1, size=3)`
    let draws: Vec<usize> = MersenneTwister::new(7).choice_with_replacement(1 << 33, 4).collect();
    assert_eq!(draws, [5_271_381_188, 5_664_942_582, 8_496_402_643, 6_251_689_575]);
    let draws: Vec<usize> = MersenneTwister::new(1).choice_with_replacement((1 << 32) + 1, 3).collect();
    assert_eq!(draws, [4_005_303_368, 1_703_301_249, 1_666_063_943]);
}

#[test]
fn draws_of_exactly_32_bits_are_numpys() {
    // `numpy.random.RandomState(1).randint(0, 2**32, size=3)`
    let draws: Vec<usize> = MersenneTwister::new(1).choice_with_replacement(1 << 32, 3).collect();
    assert_eq!(draws, [1_791_095_845, 4_282_876_139, 3_093_770_124]);
}

#[test]
fn draws_without_replacement_are_numpys() {
    // `numpy.random.RandomState(1234).choice(10, 6, replace=False)`
    assert_eq!(MersenneTwister::new(1234).choice_without_replacement(10, 6), [7, 2, 9, 1, 0, 8]);
}

#[test]
fn shuffling_is_numpys() {
    // `numpy.random.RandomState(42).shuffle(numpy.arange(10))`
    let mut items: Vec<usize> = (0..10).collect();
    MersenneTwister::new(42).shuffle(&mut items);
    assert_eq!(items, [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]);
}

#[test]
fn draws_without_replacement_are_all_different() {
    arbtest(|input| {
        let population = input.int_in_range(0..=60)?;
        let count = input.int_in_range(0..=population)?;
        let drawn = MersenneTwister::new(input.arbitrary()?).choice_without_replacement(population, count);
        let different: BTreeSet<usize> = drawn.iter().copied().collect();
        assert_eq!(different.len(), count);
        assert!(different.iter().all(|&index| index < population));
        Ok(())
    });
}
