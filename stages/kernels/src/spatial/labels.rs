//! Sampling of labels.

use ndarray::{Array4, ArrayView4};

use super::{
    SpatialMap,
    coordinates::{Row, sample_rows},
};

/// nnU-Net's scores: the interpolated indicator of a label times this, rounded to half precision.
const SCORE: f32 = 1000.0;

/// Samples a patch of shape `patch` from `source` `[l, z, y, x]` through `map`: each voxel gets the label with the
/// largest linearly interpolated indicator. Voxels beyond the source have the label `outside`.
///
/// Scores are compared in half precision, which turns near ties into ties; a tie goes to the label of the nearest voxel
/// if that is among the tied, else to the smallest.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6, `transforms/spatial/spatial.py`, `_apply_to_segmentation` with `mode_seg="bilinear"`,
/// `border_mode_seg="constant"` and `seg_tiebreak="nearest"`, but for positions that differ in the last bit of a single.
#[must_use]
pub fn sample_labels(source: ArrayView4<'_, i16>, map: &SpatialMap, patch: [usize; 3], outside: i16) -> Array4<i16> {
    if map.in_plane {
        sample_rows(source, map, patch, outside, |voxels, shape, row, values| {
            slice_row(voxels, shape, row, values, outside);
        })
    } else {
        sample_rows(source, map, patch, outside, |voxels, shape, row, values| {
            volume_row(voxels, shape, row, values, outside);
        })
    }
}

fn volume_row(voxels: &[i16], shape: [usize; 3], row: &Row, values: &mut [i16], outside: i16) {
    let [depth, height, width] = shape.map(|extent| extent as i32);
    let (line, plane) = (shape[2], shape[1] * shape[2]);
    let positions = row.whole[0].iter().zip(&row.whole[1]).zip(&row.whole[2]);
    for (index, (value, ((&z, &y), &x))) in values.iter_mut().zip(positions).enumerate() {
        let inside =
            (z as u32) < (depth - 1) as u32 && (y as u32) < (height - 1) as u32 && (x as u32) < (width - 1) as u32;
        let around: [i16; 8] = if inside {
            let start = z as usize * plane + y as usize * line + x as usize;
            let [a, b, c, d] = [0, line, plane, plane + line].map(|offset| {
                let pair = &voxels[start + offset..start + offset + 2];
                [pair[0], pair[1]]
            });
            [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
        } else {
            std::array::from_fn(|corner| {
                let bit = |axis: usize| (corner >> (2 - axis) & 1) as i32;
                let position = [z.saturating_add(bit(0)), y.saturating_add(bit(1)), x.saturating_add(bit(2))];
                label_at(voxels, shape, position, outside)
            })
        };
        *value = if uniform(&around) {
            around[0]
        } else {
            let [before, after] = corner_weights(row, index);
            let weights = std::array::from_fn(|corner| {
                let side = |axis: usize| if corner >> (2 - axis) & 1 == 0 { before[axis] } else { after[axis] };
                side(0) * side(1) * side(2)
            });
            let nearest: usize = (0..3).map(|axis| nearest_side(row, axis, index) << (2 - axis)).sum();
            vote(&around, &weights, around[nearest])
        };
    }
}

fn slice_row(voxels: &[i16], shape: [usize; 3], row: &Row, values: &mut [i16], outside: i16) {
    for (index, (value, (&y, &x))) in values.iter_mut().zip(row.whole[1].iter().zip(&row.whole[2])).enumerate() {
        let around: [i16; 4] = std::array::from_fn(|corner| {
            let position = [0, y.saturating_add(corner as i32 >> 1), x.saturating_add(corner as i32 & 1)];
            label_at(voxels, shape, position, outside)
        });
        *value = if uniform(&around) {
            around[0]
        } else {
            let [before, after] = corner_weights(row, index);
            let weights = std::array::from_fn(|corner| {
                let side = |axis: usize| if corner >> (2 - axis) & 1 == 0 { before[axis] } else { after[axis] };
                side(1) * side(2)
            });
            let nearest = nearest_side(row, 1, index) << 1 | nearest_side(row, 2, index);
            vote(&around, &weights, around[nearest])
        };
    }
}

/// The label of a voxel that may lie outside.
fn label_at(voxels: &[i16], shape: [usize; 3], position: [i32; 3], outside: i16) -> i16 {
    let inside = (0..3).all(|axis| (0..shape[axis] as i32).contains(&position[axis]));
    if !inside {
        return outside;
    }
    let [z, y, x] = position.map(|index| index as usize);
    voxels[(z * shape[1] + y) * shape[2] + x]
}

fn uniform<const N: usize>(labels: &[i16; N]) -> bool {
    labels.iter().fold(0, |differences, label| differences | (label ^ labels[0])) == 0
}

/// For each axis the weights of the voxel before and of the one after a position.
fn corner_weights(row: &Row, index: usize) -> [[f32; 3]; 2] {
    let after: [f32; 3] = std::array::from_fn(|axis| row.fraction[axis][index]);
    [after.map(|fraction| 1.0 - fraction), after]
}

/// 1 if the voxel after a position is nearer than the one before; halfway, the even one is.
fn nearest_side(row: &Row, axis: usize, index: usize) -> usize {
    let fraction = row.fraction[axis][index];
    usize::from(fraction > 0.5 || (fraction == 0.5 && row.whole[axis][index] & 1 == 1))
}

/// The label with the largest score.
fn vote<const N: usize>(labels: &[i16; N], weights: &[f32; N], nearest: i16) -> i16 {
    let score = |label: i16| {
        let sum: f32 =
            labels.iter().zip(weights).map(|(other, weight)| if *other == label { SCORE * weight } else { 0.0 }).sum();
        to_half_precision(sum)
    };
    let mut best = (nearest, score(nearest));
    for (corner, &label) in labels.iter().enumerate() {
        if labels[..corner].contains(&label) {
            continue;
        }
        let rival = score(label);
        // The nearest label keeps a tie; between others the smaller one does.
        if rival > best.1 || (rival == best.1 && best.0 != nearest && label < best.0) {
            best = (label, rival);
        }
    }
    best.0
}

/// Rounds to the nearest number with 10 bits after the leading one, halves to even: what half precision keeps of a number
/// in its normal range, where the largest score of at most eight labels, at least 125, always is.
fn to_half_precision(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0xFFF + (bits >> 13 & 1)) & !0x1FFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spatial::Affine;

    fn map(scale: f64, in_plane: bool) -> SpatialMap {
        SpatialMap { affine: Affine::rotation_scaling([0.0; 3], [scale; 3]), displacement: None, in_plane }
    }

    #[test]
    fn half_precision_keeps_eleven_bits() {
        // Between 256 and 512 the step is 0.25; halves go to the even multiple.
        for (value, rounded) in [(500.1, 500.0), (500.13, 500.25), (500.125, 500.0), (500.375, 500.5), (1000.0, 1000.0)]
        {
            assert_eq!(to_half_precision(value), rounded, "{value}");
        }
    }

    #[test]
    fn the_largest_sum_of_weights_wins() {
        assert_eq!(vote(&[1, 2, 2, 3], &[0.4, 0.25, 0.25, 0.1], 1), 2);
    }

    #[test]
    fn a_tie_goes_to_the_nearest_label_if_it_is_tied() {
        assert_eq!(vote(&[3, 3, 5, 5], &[0.25; 4], 5), 5);
        assert_eq!(vote(&[3, 3, 5, 5], &[0.25; 4], 3), 3);
    }

    #[test]
    fn a_tie_without_the_nearest_label_goes_to_the_smallest() {
        assert_eq!(vote(&[7, 4, 9, 9], &[0.4, 0.4, 0.1, 0.1], 9), 4);
    }

    #[test]
    fn scores_that_half_precision_cannot_tell_apart_are_tied() {
        assert_eq!(vote(&[1, 2], &[0.50004, 0.49996], 2), 2);
        assert_eq!(vote(&[1, 2], &[0.5002, 0.4998], 2), 1);
    }

    #[test]
    fn beyond_half_a_voxel_outside_the_patch_is_outside() {
        // Voxels 0 and 1, sampled at -1.2, 0.5 and 2.2 with the label 4 everywhere inside.
        let source = Array4::from_elem((1, 1, 1, 2), 4);
        let patch = sample_labels(source.view(), &map(1.7, false), [1, 1, 3], -1);
        assert_eq!(patch.as_slice(), Some([-1, 4, -1].as_slice()));
    }

    #[test]
    fn slices_beyond_the_source_are_outside() {
        let source = Array4::from_elem((1, 1, 3, 3), 2);
        let patch = sample_labels(source.view(), &map(0.9, true), [3, 3, 3], -1);
        assert_eq!(patch.iter().filter(|label| **label == 2).count(), 9);
        assert_eq!(patch[[0, 1, 1, 1]], 2);
    }
}
