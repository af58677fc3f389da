//! Morphology of any mask.

use arbtest::arbtest;
use ndarray::Array3;
use nnflow_kernels::morphology::{Element, close, dilate, erode, open};

use crate::arbitrary::{self, filled};

#[test]
fn morphology_is_ordered() {
    arbtest(|input| {
        let shape = [input.int_in_range(1..=4)?, input.int_in_range(1..=5)?, input.int_in_range(1..=140)?];
        let mask = arbitrary::mask(input, shape)?;
        let element = Element::ball(f64::from(input.int_in_range(0..=3_u8)?));
        let within = |small: &Array3<bool>, large: &Array3<bool>| small.iter().zip(large).all(|(s, l)| !s || *l);
        let view = mask.view();
        assert!(within(&erode(view, &element), &mask) && within(&mask, &dilate(view, &element)));
        assert!(within(&open(view, &element), &mask) && within(&mask, &close(view, &element)));
        Ok(())
    });
}

/// The voxels from which a ball of a whole radius reaches the mask, looked up one by one.
fn dilated_by_definition(mask: &Array3<bool>, radius: usize) -> Array3<bool> {
    let inside: Vec<_> = mask.indexed_iter().filter(|(_, inside)| **inside).map(|(at, _)| at).collect();
    Array3::from_shape_fn(mask.dim(), |(z, y, x)| {
        let squared =
            |at: &(usize, usize, usize)| z.abs_diff(at.0).pow(2) + y.abs_diff(at.1).pow(2) + x.abs_diff(at.2).pow(2);
        inside.iter().any(|at| squared(at) <= radius * radius)
    })
}

#[test]
fn dilation_reaches_what_lies_within_the_radius() {
    arbtest(|input| {
        let shape = [input.int_in_range(1..=4)?, input.int_in_range(1..=5)?, input.int_in_range(60..=70)?];
        let mask = filled(shape, || input.ratio(1_u8, 40))?;
        let radius = input.int_in_range(0..=5)?;
        assert_eq!(dilate(mask.view(), &Element::ball(radius as f64)), dilated_by_definition(&mask, radius));
        Ok(())
    });
}
