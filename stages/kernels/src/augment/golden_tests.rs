//! Walks the vectors of `tests/golden/augment`: nnU-Net 2.8.1 with batchgeneratorsv2 0.3.6, all that is random fixed.

use std::path::PathBuf;

use ndarray::{Array4, ArrayD, Axis, Ix4};
use ndarray_npy::{ReadableElement, read_npy};
use serde_json::Value;

use super::*;
use crate::{
    filter::Kernel,
    spatial::{Affine, Interpolation, SpatialMap},
};

/// The README's tolerances: of intensities, of intensities sampled in space, of the share of labels sampled in space.
const IMAGE: f32 = 1e-4;
const SAMPLED_IMAGE: f32 = 1e-3;
const SAMPLED_LABELS: f64 = 0.005;

struct Case {
    folder: PathBuf,
    entry: Value,
}

impl Case {
    fn transform(&self) -> &str {
        self.entry["transform"].as_str().expect("transform")
    }

    fn parameter(&self, name: &str) -> &Value {
        &self.entry["parameters"][name]
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        numbers(self.parameter(name))
    }

    /// An input or output; those of 2-D cases get an axis of length 1.
    fn array<T: ReadableElement + Clone>(&self, side: &str, name: &str) -> Array4<T> {
        let file = self.entry[side][name]["file"].as_str().unwrap_or_else(|| panic!("{side} {name}"));
        let mut array: ArrayD<T> = read_npy(self.folder.join(file)).expect("npy");
        if array.ndim() == 3 {
            array.insert_axis_inplace(Axis(1));
        }
        array.into_dimensionality::<Ix4>().expect("four axes").as_standard_layout().into_owned()
    }

    fn image(&self) -> Array4<f32> {
        self.array("inputs", "image")
    }

    fn labels(&self) -> Array4<i16> {
        self.array("inputs", "segmentation")
    }

    fn expect_image(&self, found: &Array4<f32>, tolerance: f32) {
        let expected: Array4<f32> = self.array("outputs", "image");
        assert_eq!(found.shape(), expected.shape(), "{}", self.entry["case"]);
        let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{}: intensities differ by at most {largest:e}", self.entry["case"]);
        assert!(largest <= tolerance, "{}: {largest} above {tolerance}", self.entry["case"]);
    }

    fn expect_labels(&self, name: &str, found: &Array4<i16>, share: f64) {
        let expected: Array4<i16> = self.array("outputs", name);
        assert_eq!(found.shape(), expected.shape(), "{}", self.entry["case"]);
        let differing = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        println!("{}: {differing} of {} labels differ", self.entry["case"], found.len());
        assert!(differing as f64 <= share * found.len() as f64, "{}: {differing} labels differ", self.entry["case"]);
    }

    fn each_channel(&self, change: impl Fn(usize, &mut [f32])) {
        let mut image = self.image();
        channel_slices(&mut image).enumerate().for_each(|(channel, voxels)| change(channel, voxels));
        self.expect_image(&image, IMAGE);
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("list").iter().map(|number| number.as_f64().expect("number")).collect()
}

fn cases() -> Vec<Case> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/augment");
    let text = std::fs::read_to_string(root.join("cases.json")).expect("cases.json");
    let entries: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert!(!entries.is_empty());
    entries.into_iter().map(|entry| Case { folder: root.join(entry["case"].as_str().expect("case")), entry }).collect()
}

fn patch(case: &Case) -> [usize; 3] {
    let sizes: Vec<usize> = case.numbers("patch_size").into_iter().map(|size| size as usize).collect();
    match sizes[..] {
        [z, y, x] => [z, y, x],
        [y, x] => [1, y, x],
        _ => panic!("patch of {} axes", sizes.len()),
    }
}

fn check_spatial(case: &Case) {
    let (image, labels) = (case.image(), case.labels());
    let shape = patch(case);
    let angles = case.numbers("angles_rad");
    let in_plane = angles.len() == 1;
    let applied = |name: &str| case.parameter(name).as_bool().expect("bool");
    let drawn = Drawn {
        in_plane,
        rotation: applied("rotation_applied")
            .then(|| std::array::from_fn(|axis| angles.get(axis).copied().unwrap_or(0.0))),
        scale: applied("scaling_applied").then(|| case.parameter("scale").as_f64().expect("number")),
        ..Drawn::default()
    };
    let Some(map) = drawn.spatial_map(shape) else {
        case.expect_image(&centre_crop(image.view(), shape, 0.0), 0.0);
        case.expect_labels("segmentation", &centre_crop(labels.view(), shape, OUTSIDE), 0.0);
        return;
    };
    check_affine(case, &map);
    case.expect_image(&sample_image(image.view(), &map, shape, Interpolation::Linear), SAMPLED_IMAGE);
    case.expect_labels("segmentation", &sample_labels(labels.view(), &map, shape, OUTSIDE), SAMPLED_LABELS);
}

fn check_affine(case: &Case, map: &SpatialMap) {
    let expected: Vec<Vec<f64>> = case.parameter("affine").as_array().expect("matrix").iter().map(numbers).collect();
    let skipped = 3 - expected.len();
    for (row, expected) in map.affine.rows()[skipped..].iter().zip(&expected) {
        for (entry, expected) in row[skipped..].iter().zip(expected) {
            assert!((entry - expected).abs() < 1e-12, "{}: {entry} for {expected}", case.entry["case"]);
        }
    }
    assert_ne!(map.affine, Affine::IDENTITY, "a map that does nothing proves nothing");
}

fn check_blur(case: &Case) {
    let mut image = case.image();
    let kernels = case.parameter("kernels").as_array().expect("kernels");
    for (channel, sigmas) in
        case.parameter("sigmas_per_channel_and_axis").as_array().expect("sigmas").iter().enumerate()
    {
        let sigmas = numbers(sigmas);
        for (axis, sigma) in sigmas.iter().enumerate() {
            let expected = numbers(&kernels[channel][axis]);
            let half = &expected[expected.len() / 2..];
            let kernel = Kernel::nearest_odd(*sigma);
            assert_eq!(kernel.weights().len(), half.len());
            assert!(kernel.weights().iter().zip(half).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6));
        }
        blur_channel(image.index_axis_mut(Axis(0), channel), [sigmas[0], sigmas[1], sigmas[2]]);
    }
    case.expect_image(&image, IMAGE);
}

fn check_low_resolution(case: &Case) {
    let mut image = case.image();
    for (channel, scales) in
        case.parameter("scales_per_channel_and_axis").as_array().expect("scales").iter().enumerate()
    {
        let scales = numbers(scales);
        let scales = [scales[0], scales[1], scales[2]];
        simulate_low_resolution(image.index_axis_mut(Axis(0), channel), scales);
    }
    case.expect_image(&image, IMAGE);
}

fn check_mirror(case: &Case) {
    let axes = case.numbers("axes");
    let axes = std::array::from_fn(|axis| axes.contains(&(axis as f64)));
    let (mut image, mut labels) = (case.image(), case.labels());
    mirror(&mut image, axes);
    mirror(&mut labels, axes);
    case.expect_image(&image, 0.0);
    case.expect_labels("segmentation", &labels, 0.0);
}

fn check_deep_supervision(case: &Case) {
    let scales: Vec<[f64; 3]> = case
        .parameter("scales")
        .as_array()
        .expect("scales")
        .iter()
        .map(|scale| {
            let scale = numbers(scale);
            [scale[0], scale[1], scale[2]]
        })
        .collect();
    for (index, target) in deep_supervision_targets(case.labels().view(), &scales).iter().enumerate() {
        case.expect_labels(&format!("segmentation_{index}"), target, 0.0);
    }
}

fn check_regions(case: &Case) {
    let regions: Vec<Vec<i16>> = case
        .parameter("regions")
        .as_array()
        .expect("regions")
        .iter()
        .map(|region| numbers(region).into_iter().map(|label| label as i16).collect())
        .collect();
    let found = regions_to_channels(case.labels().index_axis(Axis(0), 0), &regions);
    assert_eq!(found, case.array::<u8>("outputs", "segmentation"));
}

fn check_mask(case: &Case) {
    let mut image = case.image();
    let channels: Vec<usize> = case.numbers("apply_to_channels").into_iter().map(|channel| channel as usize).collect();
    mask_outside(&mut image, case.labels().view(), &channels);
    case.expect_image(&image, 0.0);
}

fn check_remove_label(case: &Case) {
    let mut labels = case.labels();
    let number = |name: &str| case.parameter(name).as_i64().expect("whole number") as i16;
    replace_label(&mut labels, number("label_value"), number("set_to"));
    case.expect_labels("segmentation", &labels, 0.0);
}

fn check_one_hot(case: &Case) {
    let labels = case.labels();
    let wanted: Vec<i16> = case.numbers("labels").into_iter().map(|label| label as i16).collect();
    let source = case.parameter("source_channel_idx").as_u64().expect("channel") as usize;
    case.expect_image(&append_one_hot(case.image().view(), labels.index_axis(Axis(0), source), &wanted), 0.0);
    assert_eq!(labels.index_axis(Axis(0), 0), case.array::<i16>("outputs", "segmentation").index_axis(Axis(0), 0));
}

fn check_operator(case: &Case, operator: Operator) {
    let mut image = case.image();
    let channel = image.len_of(Axis(0)) as i64 + case.parameter("channel").as_i64().expect("channel");
    let first = image.len_of(Axis(0)) - 1 - case.numbers("other_channels").len();
    let radius = case.parameter("ball_radius").as_f64().expect("radius");
    apply_operator(&mut image, first, &DrawnOperator { label: channel as usize - first, operator, radius });
    case.expect_image(&image, 0.0);
}

fn check_removal(case: &Case) {
    let mut image = case.image();
    let below = case.parameter("dont_do_if_covers_more_than").as_f64().expect("share");
    for channel in case.numbers("channels") {
        let index = (image.len_of(Axis(0)) as f64 + channel) as usize;
        remove_component(image.index_axis_mut(Axis(0), index), below, &DrawnRemoval { label: 0, pick: 0.5 });
    }
    case.expect_image(&image, 0.0);
}

fn check(case: &Case) {
    match case.transform() {
        "spatial_3d"
        | "spatial_2d"
        | "spatial_dummy2d"
        | "spatial_rotation_only"
        | "spatial_scaling_only"
        | "spatial_crop_only" => check_spatial(case),
        "gaussian_blur" => check_blur(case),
        "brightness" => {
            let factors = case.numbers("multipliers");
            case.each_channel(|channel, voxels| scale_brightness(voxels, factors[channel]));
        }
        "contrast" => {
            let factors = case.numbers("multipliers");
            case.each_channel(|channel, voxels| stretch_contrast(voxels, factors[channel]));
        }
        "gamma" | "gamma_inverted" => {
            let exponents = case.numbers("gamma");
            let inverted = case.parameter("invert_image").as_bool().expect("bool");
            case.each_channel(|channel, voxels| gamma(voxels, exponents[channel], inverted));
        }
        "low_resolution" | "low_resolution_ignore_axis0" => check_low_resolution(case),
        "mirror" => check_mirror(case),
        "mask_image" => check_mask(case),
        "remove_label" => check_remove_label(case),
        "regions" => check_regions(case),
        "deep_supervision_targets" => check_deep_supervision(case),
        "onehot_previous_stage" => check_one_hot(case),
        "binary_dilation" => check_operator(case, Operator::Dilate),
        "binary_erosion" => check_operator(case, Operator::Erode),
        "binary_closing" => check_operator(case, Operator::Close),
        "binary_opening" => check_operator(case, Operator::Open),
        "remove_component" => check_removal(case),
        unknown => panic!("no check for the transform {unknown}"),
    }
}

#[test]
fn every_transform_does_what_nnunets_does() {
    cases().iter().for_each(check);
}
