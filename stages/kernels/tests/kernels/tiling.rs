//! The sliding window against nnU-Net's.

use arbtest::arbtest;
use ndarray::ArrayD;
use nnflow_kernels::tiling::{gaussian_weights, gaussian_weights_half, initial_patch_size, padding_to, window_starts};
use serde_json::Value;

use crate::arbitrary::shape;
use crate::golden;

fn cases(file: &str) -> Vec<Value> {
    golden::list(&golden::folder("infer").join(file))
}

fn map_cases(dtype: &str) -> Vec<Value> {
    let cases: Vec<Value> = cases("gaussians.json").into_iter().filter(|case| case["dtype"] == dtype).collect();
    assert!(!cases.is_empty(), "no map of {dtype}");
    cases
}

#[test]
fn windows_start_where_nnunets_do() {
    for case in cases("steps.json") {
        let image: Vec<usize> = golden::field(&case, "image_after_padding");
        let patch: Vec<usize> = golden::field(&case, "patch");
        let expected: Vec<Vec<usize>> = golden::field(&case, "steps");
        assert_eq!(window_starts(&image, &patch, golden::field(&case, "step")), Ok(expected), "{case}");
    }
}

#[test]
fn padding_before_the_windows_is_nnunets() {
    for case in cases("steps.json") {
        let image: Vec<usize> = golden::field(&case, "image");
        let expected: Vec<usize> = golden::field(&case, "image_after_padding");
        let patch: Vec<usize> = golden::field(&case, "patch");
        assert_eq!(padding_to(&image, &patch).shape, expected, "{case}");
    }
}

#[test]
fn padding_matches_nnunet() {
    for case in cases("padding.json") {
        let image: Vec<usize> = golden::field(&case, "image");
        let patch: Vec<usize> = golden::field(&case, "patch");
        let expected_shape: Vec<usize> = golden::field(&case, "padded");
        let expected_inside: Vec<[usize; 2]> = golden::field(&case, "slices");
        let padding = padding_to(&image, &patch);
        let inside: Vec<[usize; 2]> = padding.inside.iter().map(|range| [range.start, range.end]).collect();
        assert_eq!((padding.shape, inside), (expected_shape, expected_inside), "{case}");
    }
}

#[test]
fn initial_patches_match_nnunet() {
    for case in cases("initial_patch_size.json") {
        let patch: Vec<usize> = golden::field(&case, "patch");
        let rotation: f64 = golden::field(&case, "rotation_degrees");
        let [smallest_scale, _]: [f64; 2] = golden::field(&case, "scale_range");
        let expected: Vec<usize> = golden::field(&case, "initial_patch_size");
        assert_eq!(initial_patch_size(&patch, rotation.to_radians(), smallest_scale), expected, "{case}");
    }
}

#[test]
fn float32_maps_match_nnunet() {
    for case in map_cases("float32") {
        let file: String = golden::field(&case, "file");
        let expected: ArrayD<f32> = golden::array(&golden::folder("infer").join(&file));
        let patch: Vec<usize> = golden::field(&case, "patch");
        let found =
            gaussian_weights(&patch, golden::field(&case, "sigma_scale"), golden::field(&case, "value_scaling_factor"));
        assert_eq!(found.shape(), expected.shape(), "{file}");
        let worst = found.iter().zip(&expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        println!("{file}: {worst:.1e}");
        assert!(worst <= 1e-6, "{file}: {worst}");
    }
}

#[test]
fn float16_maps_match_nnunet_to_one_unit_in_the_last_place() {
    for case in map_cases("float16") {
        let file: String = golden::field(&case, "file");
        let expected = golden::half_bits(&golden::folder("infer").join(&file));
        let patch: Vec<usize> = golden::field(&case, "patch");
        let found = gaussian_weights_half(
            &patch,
            golden::field(&case, "sigma_scale"),
            golden::field(&case, "value_scaling_factor"),
        );
        assert_eq!(found.len(), expected.len(), "{file}");
        let bits = found.iter().map(|&weight| half::f16::from_f32(weight).to_bits());
        let worst = bits.zip(expected).map(|(a, b)| a.abs_diff(b)).max();
        println!("{file}: {worst:?} units in the last place");
        assert!(worst <= Some(1), "{file}: {worst:?}");
    }
}

#[test]
fn windows_cover_every_voxel_and_stay_inside() {
    arbtest(|input| {
        let extent: usize = input.int_in_range(1..=300)?;
        let patch: usize = input.int_in_range(1..=extent)?;
        let step = f64::from(input.int_in_range(1..=100_u8)?) / 100.0;
        let starts = &window_starts(&[extent], &[patch], step).expect("a patch that fits")[0];
        assert_eq!((starts.first(), starts.last()), (Some(&0), Some(&(extent - patch))));
        for pair in starts.windows(2) {
            assert!(pair[1] <= pair[0] + patch, "a gap between {pair:?} with patch {patch}");
        }
        Ok(())
    });
}

#[test]
fn padding_reaches_the_patch_and_keeps_the_image_whole() {
    arbtest(|input| {
        let (image, patch) = (shape(input, 20)?, shape(input, 20)?);
        let padding = padding_to(&image, &patch);
        for axis in 0..3 {
            assert_eq!(padding.shape[axis], image[axis].max(patch[axis]));
            assert_eq!(padding.inside[axis].len(), image[axis]);
            assert!(padding.inside[axis].end <= padding.shape[axis]);
        }
        Ok(())
    });
}
