//! Distances between surfaces: by hand, against MONAI, and what must hold for any masks.

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use ndarray::{Array3, array, s};
use nnflow_kernels::geometry::Spacing;
use nnflow_kernels::metrics::{LabelPair, MetricsError, SurfaceDistances};

use crate::arbitrary::{labels, on_one_and_three_threads, shape};

const SPACING: [f64; 3] = [2.5, 0.7, 0.9];

fn between(reference: &Array3<i16>, prediction: &Array3<i16>, spacing: [f64; 3]) -> SurfaceDistances {
    with_ignored(reference, prediction, spacing, None)
}

fn with_ignored(
    reference: &Array3<i16>,
    prediction: &Array3<i16>,
    spacing: [f64; 3],
    ignore: Option<i16>,
) -> SurfaceDistances {
    let spacing = Spacing::new(spacing).expect("positive");
    let pair = LabelPair::new(reference.view(), prediction.view(), ignore, spacing).expect("one shape");
    pair.surface_distances(&[1])
}

/// A box of label 1 in a volume of 12 x 14 x 16 voxels.
fn block(start: [usize; 3], shape: [usize; 3]) -> Array3<i16> {
    let mut volume = Array3::zeros((12, 14, 16));
    let [z, y, x] = start;
    volume.slice_mut(s![z..z + shape[0], y..y + shape[1], x..x + shape[2]]).fill(1);
    volume
}

fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} is not {expected}");
}

#[test]
fn a_block_that_is_moved_has_the_hausdorff_distance_of_the_move() {
    let moves = [([2, 0, 0], 5.0), ([0, 3, 0], 2.1), ([0, 0, 4], 3.6)];
    for (offset, expected) in moves {
        let moved = block([2 + offset[0], 3 + offset[1], 4 + offset[2]], [4, 5, 6]);
        assert_near(between(&block([2, 3, 4], [4, 5, 6]), &moved, SPACING).hausdorff(), expected);
    }
}

#[test]
fn measures_of_two_rows_by_hand() {
    // The surfaces of rows are the rows: distances 0 0 0 from the reference, 0 0 0 2 from the prediction, in steps of 2 mm
    // 0 0 0 and 0 0 0 2.
    let reference = array![[[0, 1, 1, 1, 0, 0]], [[0, 0, 0, 0, 0, 0]]];
    let prediction = array![[[0, 1, 1, 1, 1, 0]], [[0, 0, 0, 0, 0, 0]]];
    let distances = between(&reference, &prediction, [1.0, 1.0, 2.0]);
    assert_eq!(distances.hausdorff(), 2.0);
    // Of 0, 0, 0, 2 the 95th percentile is at position 2.85.
    assert_near(distances.hausdorff_at(95.0), 1.7);
    assert_near(distances.mean(), 2.0 / 7.0);
    assert_eq!((distances.within(1.9), distances.within(2.0)), (6.0 / 7.0, 1.0));
}

#[test]
fn the_inside_is_no_surface() {
    // A cube of 27 voxels and its shell of 26: the voxel inside is one of neither outer surface, but the shell has an
    // inner one, on voxels that are on the outer one already.
    let cube = block([2, 2, 2], [3, 3, 3]);
    let mut shell = cube.clone();
    shell[[3, 3, 3]] = 0;
    assert_eq!(between(&cube, &shell, SPACING).hausdorff(), 0.0);
}

#[test]
fn the_end_of_the_image_is_a_surface() {
    let all = Array3::from_elem((3, 3, 3), 1);
    let mut hollow = all.clone();
    hollow[[1, 1, 1]] = 0;
    assert_eq!(between(&all, &hollow, [1.0; 3]).mean(), 0.0);
}

#[test]
fn a_slice_has_outlines_and_no_area() {
    let mut larger = Array3::zeros((1, 9, 9));
    larger.slice_mut(s![.., 1..8, 1..8]).fill(1);
    let mut smaller = Array3::zeros((1, 9, 9));
    smaller.slice_mut(s![.., 2..7, 2..7]).fill(1);
    // Of the 24 voxels of the larger outline all but the corners are 1 from the smaller one, as are all 16 of that.
    let distances = between(&larger, &smaller, [999.0, 1.0, 1.0]);
    assert_near(distances.mean(), (20.0 + 4.0 * 2.0_f64.sqrt() + 16.0) / 40.0);
}

#[test]
fn no_surface_ends_where_nobody_has_annotated() {
    let reference = array![[[0, 1, 1, 9, 9, 9]], [[0, 1, 1, 9, 9, 9]]];
    let prediction = array![[[0, 1, 1, 1, 1, 0]], [[0, 1, 1, 1, 1, 0]]];
    let distances = with_ignored(&reference, &prediction, [1.0, 1.0, 1.0], Some(9));
    assert_eq!(distances.hausdorff(), 0.0);
    // Without the rest of the image there is no outer face along the row either.
    let inside = array![[[9, 1, 9]]];
    assert!(with_ignored(&inside, &inside, [1.0; 3], Some(9)).is_empty());
}

#[test]
fn a_tolerance_is_not_missed_by_rounding() {
    let step = f64::from(1.1_f32);
    let distances = between(&array![[[1, 0, 0]]], &array![[[0, 1, 0]]], [1.0, 1.0, step]);
    assert!(step > 1.1 && distances.within(1.1) == 1.0);
}

#[test]
fn what_is_on_neither_side_has_no_measures() {
    let empty = Array3::zeros((2, 3, 4));
    let distances = between(&empty, &empty, SPACING);
    assert!(distances.is_empty() && !distances.is_one_sided());
    assert!(distances.hausdorff().is_nan() && distances.hausdorff_at(95.0).is_nan());
    assert!(distances.mean().is_nan() && distances.within(1.0).is_nan());
}

#[test]
fn what_is_on_one_side_only_is_infinitely_far() {
    let empty = Array3::zeros((12, 14, 16));
    for distances in
        [between(&block([1, 1, 1], [2, 2, 2]), &empty, SPACING), between(&empty, &block([1, 1, 1], [2, 2, 2]), SPACING)]
    {
        assert!(distances.is_one_sided());
        assert_eq!([distances.hausdorff(), distances.hausdorff_at(95.0), distances.mean()], [f64::INFINITY; 3]);
        assert_eq!(distances.within(1e9), 0.0);
    }
}

#[test]
fn the_diagonal_is_the_way_from_corner_to_corner() {
    let volume = Array3::<i16>::zeros((1, 4, 5));
    let spacing = Spacing::new([999.0, 1.0, 1.0]).expect("positive");
    let pair = LabelPair::new(volume.view(), volume.view(), None, spacing).expect("one shape");
    assert_eq!(pair.diagonal(), 5.0);
}

#[test]
fn label_maps_of_two_shapes_are_an_error() {
    let spacing = Spacing::new([1.0; 3]).expect("positive");
    let (one, other) = (Array3::zeros((1, 1, 2)), Array3::zeros((1, 2, 1)));
    let result = LabelPair::new(one.view(), other.view(), None, spacing).map(|_| ());
    assert_eq!(result, Err(MetricsError::Shape { reference: [1, 1, 2], prediction: [1, 2, 1] }));
}

fn two_maps(input: &mut Unstructured<'_>) -> Result<(Array3<i16>, Array3<i16>)> {
    let shape = shape(input, 7)?;
    Ok((labels(input, shape)?, labels(input, shape)?))
}

#[test]
fn measures_do_not_mind_which_side_is_the_reference() {
    arbtest(|input| {
        let (first, second) = two_maps(input)?;
        let (there, back) = (between(&first, &second, SPACING), between(&second, &first, SPACING));
        assert_eq!(there.hausdorff().to_bits(), back.hausdorff().to_bits());
        assert_eq!(there.hausdorff_at(95.0).to_bits(), back.hausdorff_at(95.0).to_bits());
        assert_eq!(there.within(2.0).to_bits(), back.within(2.0).to_bits());
        assert!(there.is_empty() || there.is_one_sided() || (there.mean() - back.mean()).abs() < 1e-9);
        Ok(())
    });
}

#[test]
fn measures_keep_their_order() {
    arbtest(|input| {
        let (first, second) = two_maps(input)?;
        let distances = between(&first, &second, SPACING);
        if distances.is_empty() {
            return Ok(());
        }
        let percentiles = [50.0, 95.0, 100.0].map(|percentile| distances.hausdorff_at(percentile));
        assert!(percentiles.is_sorted() && distances.mean() <= distances.hausdorff());
        assert!((percentiles[2] - distances.hausdorff()).abs() < 1e-9 || distances.is_one_sided());
        let shares = [0.0, 0.7, 2.0, 5.0, 1e6].map(|tolerance| distances.within(tolerance));
        assert!(shares.is_sorted() && shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
        Ok(())
    });
}

#[test]
fn a_map_held_against_itself_is_at_no_distance() {
    arbtest(|input| {
        let shape = shape(input, 7)?;
        let map = labels(input, shape)?;
        let distances = between(&map, &map, SPACING);
        assert!(distances.is_empty() || (distances.hausdorff(), distances.within(0.0)) == (0.0, 1.0));
        Ok(())
    });
}

#[test]
fn what_lies_around_does_not_matter() {
    arbtest(|input| {
        let shape = [input.int_in_range(2..=6)?, input.int_in_range(2..=6)?, input.int_in_range(2..=6)?];
        let (first, second) = (labels(input, shape)?, labels(input, shape)?);
        let padded = |map: &Array3<i16>| {
            let mut larger = Array3::from_elem((shape[0] + 5, shape[1] + 4, shape[2] + 3), 2);
            larger.slice_mut(s![2..2 + shape[0], 3..3 + shape[1], 1..1 + shape[2]]).assign(map);
            larger
        };
        assert_eq!(between(&padded(&first), &padded(&second), SPACING), between(&first, &second, SPACING));
        Ok(())
    });
}

#[test]
fn distances_do_not_depend_on_the_number_of_threads() {
    let map = |shift: usize| Array3::from_shape_fn((20, 30, 40), |(z, y, x)| i16::from((z + y + x + shift) % 11 < 5));
    let (reference, prediction) = (map(0), map(2));
    let [one, three] = on_one_and_three_threads(|| between(&reference, &prediction, SPACING));
    assert_eq!(one, three);
}

/// Two blobs that overlap: `|z-a|·3 + |y-b|·2 + |x-c|` and the like below a bound, the same in the script that asked MONAI.
fn blobs() -> (Array3<i16>, Array3<i16>) {
    let shape = (14, 24, 30);
    let reference = Array3::from_shape_fn(shape, |(z, y, x)| {
        let distance = 3 * z.abs_diff(6) + 2 * y.abs_diff(11) + x.abs_diff(14);
        i16::from(distance < 17 && (z + 2 * y + 3 * x) % 13 != 0)
    });
    let prediction = Array3::from_shape_fn(shape, |(z, y, x)| {
        let distance = 2 * z.abs_diff(7) + 2 * y.abs_diff(12) + 2 * x.abs_diff(15);
        i16::from(distance < 15 || (z < 2 && y < 3 && x > 26))
    });
    (reference, prediction)
}

#[test]
fn measures_of_blobs_are_monais() {
    let (reference, prediction) = blobs();
    let distances = between(&reference, &prediction, SPACING);
    // MONAI 1.6.1, in single precision: compute_hausdorff_distance, the same with percentile=95,
    // compute_average_surface_distance(symmetric=True) and compute_surface_dice at 1.5 mm.
    assert_near(distances.hausdorff(), 12.937_541_96);
    assert_near(distances.hausdorff_at(95.0), 11.147_175_79);
    assert_near(distances.mean(), 1.731_774_57);
    assert_near(distances.within(1.5), 0.588_963_99);
}
