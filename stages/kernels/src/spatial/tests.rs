use arbtest::{arbitrary::Unstructured, arbtest};
use ndarray::{Array3, Axis};

use super::*;
use crate::random::CounterRandom;

#[test]
fn a_quarter_turn_about_axis_0_sends_axis_2_to_minus_axis_1() {
    let rows = Affine::rotation_scaling([std::f64::consts::FRAC_PI_2, 0.0, 0.0], [1.0; 3]).rows();
    let expected = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]];
    for (row, expected) in rows.iter().flatten().zip(expected.iter().flatten()) {
        assert!((row - expected).abs() < 1e-15);
    }
}

#[test]
fn a_crop_of_odd_from_even_starts_at_half_less_half() {
    let source = Array4::from_shape_fn((1, 6, 1, 7), |(_, z, _, x)| (10 * z + x) as i16);
    let crop = centre_crop(source.view(), [3, 1, 4], -1);
    assert_eq!(crop[[0, 0, 0, 0]], 21);
    assert_eq!(crop[[0, 2, 0, 3]], 44);
}

#[test]
fn a_crop_larger_than_the_source_is_filled() {
    let source = Array4::from_elem((2, 1, 2, 3), 7_i16);
    let crop = centre_crop(source.view(), [1, 4, 3], -1);
    assert_eq!(crop.iter().filter(|value| **value == 7).count(), 12);
    assert_eq!(crop[[1, 0, 0, 1]], -1);
    assert_eq!(crop[[1, 0, 1, 1]], 7);
}

#[test]
fn a_rotation_reaches_as_far_as_the_corners() {
    let affine = Affine::rotation_scaling([std::f64::consts::FRAC_PI_4, 0.0, 0.0], [1.0; 3]);
    let reach = SpatialMap { affine, displacement: None, in_plane: true }.reach([4, 101, 101]);
    // The corner of a square of half edge 50 is 70.7 voxels away.
    assert_eq!(reach, [4, 2 * 71 + 5, 2 * 71 + 5]);
}

/// A map, a source with labels 0 to 3, and the shape of a patch, all from the test's own bytes.
fn arbitrary_case(bytes: &mut Unstructured<'_>) -> arbtest::arbitrary::Result<(SpatialMap, Array4<i16>, [usize; 3])> {
    let mut random = CounterRandom::new(bytes.arbitrary()?, [0; 3]);
    let mut shape = || std::array::from_fn::<usize, 3, _>(|_| 1 + random.below(9));
    let (source, mut patch) = (shape(), shape());
    let in_plane = random.chance(0.5);
    if in_plane {
        patch[0] = source[0];
    }
    let angles = std::array::from_fn(|axis| if in_plane && axis > 0 { 0.0 } else { random.range(-3.2, 3.2) });
    let affine = Affine::rotation_scaling(angles, [random.range(0.4, 1.8); 3]);
    let labels = Array4::from_shape_fn((1, source[0], source[1], source[2]), |_| random.below(4) as i16);
    Ok((SpatialMap { affine, displacement: None, in_plane }, labels, patch))
}

/// Linear interpolation in double precision, voxel by voxel, with `outside` beyond the source.
fn interpolated(source: &Array3<f64>, map: &SpatialMap, patch: [usize; 3], index: [usize; 3], outside: f64) -> f64 {
    let shape: [usize; 3] = [source.dim().0, source.dim().1, source.dim().2];
    let centred: [f64; 3] = std::array::from_fn(|axis| index[axis] as f64 - (patch[axis] as f64 - 1.0) / 2.0);
    let position: [f64; 3] = std::array::from_fn(|axis| {
        let moved: f64 = (0..3).map(|other| map.affine.rows()[axis][other] * centred[other]).sum();
        let moved = if map.in_plane && axis == 0 { centred[0] } else { moved };
        moved + (shape[axis] as f64 - 1.0) / 2.0
    });
    (0..8_usize)
        .map(|corner| {
            let side: [f64; 3] = std::array::from_fn(|axis| position[axis].floor() + (corner >> axis & 1) as f64);
            let weight: f64 = (0..3).map(|axis| 1.0 - (position[axis] - side[axis]).abs()).product();
            let inside = (0..3).all(|axis| side[axis] >= 0.0 && side[axis] < shape[axis] as f64);
            let [z, y, x] = side.map(|coordinate| coordinate as usize);
            weight * if inside { source[[z, y, x]] } else { outside }
        })
        .sum()
}

#[test]
fn images_are_interpolated_as_by_hand() {
    arbtest(|bytes| {
        let (map, labels, patch) = arbitrary_case(bytes)?;
        let image = labels.mapv(f32::from);
        let sampled = sample_image(image.view(), &map, patch, Interpolation::Linear);
        let source = image.index_axis(Axis(0), 0).mapv(f64::from);
        for ((_, z, y, x), value) in sampled.indexed_iter() {
            let expected = interpolated(&source, &map, patch, [z, y, x], 0.0);
            assert!((f64::from(*value) - expected).abs() < 1e-4, "{value} for {expected} at {z} {y} {x}");
        }
        Ok(())
    });
}

#[test]
fn labels_are_those_whose_interpolated_indicator_is_largest() {
    arbtest(|bytes| {
        let (map, labels, patch) = arbitrary_case(bytes)?;
        let sampled = sample_labels(labels.view(), &map, patch, -1);
        let indicator = |label: i16| labels.index_axis(Axis(0), 0).mapv(|found| f64::from(u8::from(found == label)));
        let indicators: Vec<(i16, Array3<f64>)> = (-1..4).map(|label| (label, indicator(label))).collect();
        for ((_, z, y, x), found) in sampled.indexed_iter() {
            let scores = indicators.iter().map(|(label, indicator)| {
                (*label, interpolated(indicator, &map, patch, [z, y, x], f64::from(u8::from(*label == -1))))
            });
            let scores: Vec<(i16, f64)> = scores.collect();
            let best = scores.iter().map(|(_, score)| *score).fold(0.0, f64::max);
            let score = scores.iter().find(|(label, _)| label == found).map_or(0.0, |(_, score)| *score);
            // Half precision tells scores apart that differ by more than a half of a thousandth.
            assert!(score > best - 6e-4, "{found} has {score}, the best {best}, at {z} {y} {x}");
        }
        Ok(())
    });
}
