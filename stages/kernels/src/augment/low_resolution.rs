//! Simulated low resolution.

use ndarray::{ArrayView3, ArrayViewMut3, s};

/// The voxel of an axis of `from` voxels that stands for voxel `index` of the same axis in `to` voxels.
///
/// # Reference
/// Equal to torch 2.11 `interpolate(mode="nearest-exact")`, in its single precision.
pub(super) fn nearest_exact(index: usize, from: usize, to: usize) -> usize {
    let scale = from as f32 / to as f32;
    (((index as f32 + 0.5) * scale) as usize).min(from.saturating_sub(1))
}

/// The extents of `shape` times `scale`, rounded half to even, of at least one voxel.
#[must_use]
pub fn scaled_extents(shape: [usize; 3], scale: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|axis| ((shape[axis] as f64 * scale[axis]).round_ties_even() as usize).max(1))
}

/// The extents of the coarser grid that [`simulate_low_resolution`] goes by.
#[must_use]
pub fn low_resolution(shape: [usize; 3], scale: [f64; 3]) -> [usize; 3] {
    let scaled = scaled_extents(shape, scale);
    std::array::from_fn(|axis| scaled[axis].min(shape[axis]))
}

/// The voxels before and after voxel `index` of `to`, among the `from` of the axis, and the weight of the second.
fn linear(index: usize, from: usize, to: usize) -> (usize, usize, f32) {
    let scale = from as f32 / to as f32;
    let position = ((index as f32 + 0.5) * scale - 0.5).max(0.0);
    let before = (position as usize).min(from - 1);
    (before, (before + 1).min(from - 1), position - before as f32)
}

/// Takes the nearest voxels of a grid that is coarser by `scale` (each `0..1`), then interpolates linearly back.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6 `SimulateLowResolutionTransform`: torch's `nearest-exact`, then `trilinear`.
pub fn simulate_low_resolution(mut volume: ArrayViewMut3<'_, f32>, scale: [f64; 3]) {
    let (depth, height, width) = volume.dim();
    let shape = [depth, height, width];
    if volume.is_empty() {
        return;
    }
    let low = low_resolution(shape, scale);
    let coarse = take_nearest(volume.view(), low);
    // The last axis first, while the others are short; the first one last, straight into the volume.
    let coarse = stretch(&coarse, low[2], width, 1);
    let coarse = stretch(&coarse, low[1], height, width);
    for (z, mut slice) in volume.outer_iter_mut().enumerate() {
        let (before, after, weight) = linear(z, low[0], depth);
        let plane = |z: usize| &coarse[z * height * width..(z + 1) * height * width];
        for (value, (before, after)) in slice.iter_mut().zip(plane(before).iter().zip(plane(after))) {
            *value = mix(*before, *after, weight);
        }
    }
}

fn take_nearest(volume: ArrayView3<'_, f32>, low: [usize; 3]) -> Vec<f32> {
    let (depth, height, width) = volume.dim();
    let nearest = |low: usize, length: usize| (0..low).map(move |index| nearest_exact(index, length, low));
    let mut values = Vec::with_capacity(low.iter().product());
    for z in nearest(low[0], depth) {
        for y in nearest(low[1], height) {
            let row = volume.slice(s![z, y, ..]);
            values.extend(nearest(low[2], width).map(|x| row[x]));
        }
    }
    values
}

/// Interpolates an axis of `from` rows of `inner` values to `to` rows.
fn stretch(values: &[f32], from: usize, to: usize, inner: usize) -> Vec<f32> {
    if from == to {
        return values.to_vec();
    }
    let taps: Vec<(usize, usize, f32)> = (0..to).map(|index| linear(index, from, to)).collect();
    let mut result = Vec::with_capacity(values.len() / from * to);
    for block in values.chunks_exact(from * inner) {
        if inner == 1 {
            result.extend(taps.iter().map(|&(before, after, weight)| mix(block[before], block[after], weight)));
            continue;
        }
        for &(before, after, weight) in &taps {
            let row = |index: usize| &block[index * inner..(index + 1) * inner];
            result.extend(row(before).iter().zip(row(after)).map(|(before, after)| mix(*before, *after, weight)));
        }
    }
    result
}

fn mix(from: f32, to: f32, weight: f32) -> f32 {
    (1.0 - weight) * from + weight * to
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    #[test]
    fn halving_takes_the_later_voxel_of_each_pair() {
        // (i + 0.5) * 2 = 1, 3, 5.
        assert_eq!([0, 1, 2].map(|index| nearest_exact(index, 6, 3)), [1, 3, 5]);
    }

    #[test]
    fn a_row_at_half_resolution_is_interpolated_back() {
        let mut row = array![[[0.0, 4.0, 0.0, 8.0]]];
        // Kept are 4 and 8, at the positions 0.5 and 2.5 of the row.
        simulate_low_resolution(row.view_mut(), [1.0, 1.0, 0.5]);
        assert_eq!(row, array![[[4.0, 5.0, 7.0, 8.0]]]);
    }

    #[test]
    fn no_axis_falls_below_one_voxel() {
        let mut volume = array![[[1.0], [3.0]]];
        simulate_low_resolution(volume.view_mut(), [0.1; 3]);
        assert_eq!(volume, array![[[3.0], [3.0]]]);
    }

    #[test]
    fn a_scale_of_one_changes_nothing() {
        let volume = Array3::from_shape_fn((2, 3, 4), |(z, y, x)| (z * 12 + y * 4 + x) as f32);
        let mut simulated = volume.clone();
        simulate_low_resolution(simulated.view_mut(), [1.0; 3]);
        assert_eq!(simulated, volume);
    }
}
