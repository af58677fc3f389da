//! Resampling against nnU-Net's `resample_data_or_seg_to_shape`.

use ndarray::{Array4, Axis, Zip};
use nnflow_kernels::geometry::Spacing;
use nnflow_kernels::resample::{LabelRule, ResampleOptions, resample_image, resample_labels, separate_axis};
use serde_json::Value;

use crate::golden;

struct Case {
    value: Value,
    name: String,
    current: Spacing,
    new: Spacing,
    new_shape: [usize; 3],
    options: ResampleOptions,
}

impl Case {
    fn read(value: Value) -> Self {
        let mut options = value["kwargs"].clone();
        options.as_object_mut().expect("keyword arguments").remove("is_seg");
        Self {
            name: golden::field(&value, "case"),
            current: golden::field(&value, "current_spacing"),
            new: golden::field(&value, "new_spacing"),
            new_shape: golden::field(&value, "new_shape"),
            options: serde_json::from_value(options).expect("known options"),
            value,
        }
    }

    fn array<T: ndarray_npy::ReadableElement>(&self, file: &str) -> Array4<T> {
        golden::array(&golden::folder("resample").join(&self.name).join(file))
    }
}

fn cases(is_seg: bool) -> Vec<Case> {
    let all = golden::list(&golden::folder("resample").join("cases.json"));
    let cases: Vec<Case> = all.into_iter().filter(|case| case["kwargs"]["is_seg"] == is_seg).map(Case::read).collect();
    assert!(!cases.is_empty(), "no case with is_seg {is_seg}");
    cases
}

#[test]
fn images_match_nnunet() {
    for case in cases(false) {
        let input: Array4<f32> = case.array("input.npy");
        let expected: Array4<f32> = case.array("output.npy");
        let found = resample_image(input.view(), case.new_shape, case.current, case.new, &case.options)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(found.shape(), expected.shape(), "{}", case.name);
        let largest = input.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let deviation = Zip::from(&found).and(&expected).fold(0.0_f32, |worst, a, b| worst.max((a - b).abs()));
        println!("{}: {:.1e} of the largest value", case.name, deviation / largest);
        assert!(deviation <= 1e-5 * largest, "{}: {deviation} of {largest}", case.name);
    }
}

#[test]
fn labels_match_nnunet() {
    for case in cases(true) {
        let input: Array4<i16> = case.array("input.npy");
        let expected: Array4<i16> = case.array("output.npy");
        let near_tie: Array4<u8> = case.array("near_tie.npy");
        let exact = ["seg_half_ties", "seg_up_ties", "seg_2d_ties"].iter().any(|kind| case.name.ends_with(kind));
        let found = resample_labels(
            input.index_axis(Axis(0), 0),
            case.new_shape,
            case.current,
            case.new,
            &case.options,
            LabelRule::ArgmaxNearestTie,
        )
        .unwrap_or_else(|error| panic!("{}: {error}", case.name))
        .insert_axis(Axis(0));
        assert_eq!(found.shape(), expected.shape(), "{}", case.name);
        let compare = |allow_ties: bool| {
            let differs = |found: &i16, expected: &i16, tie: &u8| found != expected && !(allow_ties && *tie == 1);
            Zip::from(&found).and(&expected).and(&near_tie).fold(0, |n, a, b, tie| n + usize::from(differs(a, b, tie)))
        };
        println!("{}: {} voxels differ, ties included", case.name, compare(false));
        assert_eq!(compare(!exact), 0, "{}", case.name);
    }
}

#[test]
fn the_axis_resampled_apart_is_nnunets() {
    for case in cases(false).into_iter().chain(cases(true)) {
        let expected: Option<usize> = golden::field(&case.value, "axis");
        let found = separate_axis(case.current, case.new, case.options.force_separate_z);
        assert_eq!(found, expected, "{}", case.name);
    }
}
