//! Morphology and components against the operations of nnU-Net's augmentation.

use arbtest::arbtest;
use ndarray::{Array3, Array4, Axis};
use nnflow_kernels::components::{Components, Connectivity};
use nnflow_kernels::morphology::{Element, close, dilate, erode, open};
use serde_json::Value;

use crate::arbitrary::{self, filled};
use crate::golden;

fn cases(transform: &str) -> Vec<Value> {
    let all = golden::list(&golden::folder("augment").join("cases.json"));
    let cases: Vec<Value> = all.into_iter().filter(|case| case["transform"] == transform).collect();
    assert!(!cases.is_empty(), "no case of {transform}");
    cases
}

fn image(case: &Value, file: &str) -> Array4<f32> {
    let name: String = golden::field(case, "case");
    golden::array(&golden::folder("augment").join(name).join(file))
}

/// The mask in a channel that is counted from the last one if it is negative, as Python does.
fn mask(image: &Array4<f32>, channel: i64) -> Array3<bool> {
    let channel = if channel < 0 { image.len_of(Axis(0)) as i64 + channel } else { channel };
    image.index_axis(Axis(0), channel as usize).mapv(|value| value != 0.0)
}

fn check(transform: &str, operation: impl Fn(&Array3<bool>, &Element) -> Array3<bool>) {
    for case in cases(transform) {
        let channel: i64 = golden::field(&case["parameters"], "channel");
        let element = Element::ball(golden::field(&case["parameters"], "ball_radius"));
        let input = mask(&image(&case, "in_image.npy"), channel);
        let expected = mask(&image(&case, "out_image.npy"), channel);
        assert_ne!(input, expected, "{transform} changes nothing");
        assert_eq!(operation(&input, &element), expected, "{transform}");
    }
}

#[test]
fn dilation_matches_nnunet() {
    check("binary_dilation", |mask, element| dilate(mask.view(), element));
}

#[test]
fn erosion_matches_nnunet() {
    check("binary_erosion", |mask, element| erode(mask.view(), element));
}

#[test]
fn opening_matches_nnunet() {
    check("binary_opening", |mask, element| open(mask.view(), element));
}

#[test]
fn closing_matches_nnunet() {
    check("binary_closing", |mask, element| close(mask.view(), element));
}

#[test]
fn the_component_that_nnunet_removes_is_one_of_ours() {
    for case in cases("remove_component") {
        let (before, after) = (image(&case, "in_image.npy"), image(&case, "out_image.npy"));
        let limit: f64 = golden::field(&case["parameters"], "dont_do_if_covers_more_than");
        let channels: Vec<i64> = golden::field(&case["parameters"], "channels");
        for channel in channels {
            let (before, after) = (mask(&before, channel), mask(&after, channel));
            let components = Components::of(before.view(), Connectivity::Corners);
            let small = |component: usize| (components.sizes()[component] as f64) < before.len() as f64 * limit;
            // The case is made so that at most one component is small enough to be removed.
            assert_eq!(components.select(|component| !small(component)), after, "channel {channel}");
        }
    }
}

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
