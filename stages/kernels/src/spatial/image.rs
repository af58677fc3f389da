//! Sampling of intensities.

use ndarray::{Array4, ArrayView4};

use super::{
    SpatialMap,
    coordinates::{Row, sample_rows},
    spline::{coefficients, cubic_row},
};

/// How intensities between voxels are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// From the nearest two voxels of each axis; beyond the source there are voxels of 0.
    Linear,
    /// By a third-order spline through the voxels; positions outside the source are 0.
    Cubic,
}

/// Samples a patch of shape `patch` from `source` `[c, z, y, x]` through `map`; it is 0 outside the source.
///
/// # Reference
/// Linear: equal to torch 2.11 `grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False)` for the grids of
/// `batchgeneratorsv2` 0.3.6, to the rounding of single-precision positions. Cubic: SciPy's
/// `map_coordinates(order=3, mode="constant", cval=0)`, which `batchgenerators` calls.
#[must_use]
pub fn sample_image(
    source: ArrayView4<'_, f32>,
    map: &SpatialMap,
    patch: [usize; 3],
    interpolation: Interpolation,
) -> Array4<f32> {
    match (interpolation, map.in_plane) {
        (Interpolation::Linear, false) => sample_rows(source, map, patch, 0.0, linear_volume_row),
        (Interpolation::Linear, true) => sample_rows(source, map, patch, 0.0, linear_slice_row),
        (Interpolation::Cubic, in_plane) => {
            let coefficients = coefficients(source, in_plane);
            sample_rows(coefficients.view(), map, patch, 0.0, |voxels, shape, row, values| {
                cubic_row(voxels, shape, row, values, in_plane);
            })
        }
    }
}

fn mix(from: f32, to: f32, fraction: f32) -> f32 {
    from + fraction * (to - from)
}

/// Between a voxel and the next one of its row.
#[inline]
fn along_x(voxels: &[f32], start: usize, fraction: f32) -> f32 {
    let pair = &voxels[start..start + 2];
    mix(pair[0], pair[1], fraction)
}

fn linear_volume_row(voxels: &[f32], shape: [usize; 3], row: &Row, values: &mut [f32]) {
    let [depth, height, width] = shape.map(|extent| extent as i32);
    let (line, plane) = (shape[2], shape[1] * shape[2]);
    let positions = row.whole[0].iter().zip(&row.whole[1]).zip(&row.whole[2]);
    let fractions = row.fraction[0].iter().zip(&row.fraction[1]).zip(&row.fraction[2]);
    for ((value, ((&z, &y), &x)), ((&fz, &fy), &fx)) in values.iter_mut().zip(positions).zip(fractions) {
        // A negative index is a large one without its sign, so that one comparison covers both ends.
        let inside =
            (z as u32) < (depth - 1) as u32 && (y as u32) < (height - 1) as u32 && (x as u32) < (width - 1) as u32;
        *value = if inside {
            let start = z as usize * plane + y as usize * line + x as usize;
            let near = mix(along_x(voxels, start, fx), along_x(voxels, start + line, fx), fy);
            let far = mix(along_x(voxels, start + plane, fx), along_x(voxels, start + plane + line, fx), fy);
            mix(near, far, fz)
        } else {
            let slice = |z: i32| {
                let at = |y: i32| line_at_border(voxels, shape, [z, y], x, fx);
                mix(at(y), at(y.saturating_add(1)), fy)
            };
            mix(slice(z), slice(z.saturating_add(1)), fz)
        };
    }
}

fn linear_slice_row(voxels: &[f32], shape: [usize; 3], row: &Row, values: &mut [f32]) {
    let [_, height, width] = shape.map(|extent| extent as i32);
    let line = shape[2];
    let positions = row.whole[1].iter().zip(&row.whole[2]);
    let fractions = row.fraction[1].iter().zip(&row.fraction[2]);
    for ((value, (&y, &x)), (&fy, &fx)) in values.iter_mut().zip(positions).zip(fractions) {
        let inside = (y as u32) < (height - 1) as u32 && (x as u32) < (width - 1) as u32;
        *value = if inside {
            let start = y as usize * line + x as usize;
            mix(along_x(voxels, start, fx), along_x(voxels, start + line, fx), fy)
        } else {
            let at = |y: i32| line_at_border(voxels, shape, [0, y], x, fx);
            mix(at(y), at(y.saturating_add(1)), fy)
        };
    }
}

/// Between a voxel and the next one of its row, where either may lie outside and is 0 then.
fn line_at_border(voxels: &[f32], shape: [usize; 3], [z, y]: [i32; 2], x: i32, fraction: f32) -> f32 {
    let [depth, height, width] = shape.map(|extent| extent as i32);
    if z < 0 || y < 0 || z >= depth || y >= height {
        return 0.0;
    }
    let start = (z as usize * shape[1] + y as usize) * shape[2];
    let at = |x: i32| if (0..width).contains(&x) { voxels[start + x as usize] } else { 0.0 };
    mix(at(x), at(x.saturating_add(1)), fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spatial::{Affine, Displacement};

    fn ramp(shape: (usize, usize, usize)) -> Array4<f32> {
        Array4::from_shape_fn((1, shape.0, shape.1, shape.2), |(_, z, y, x)| (2 * z) as f32 - y as f32 + 0.5 * x as f32)
    }

    fn scaled(scale: f64, in_plane: bool) -> SpatialMap {
        SpatialMap { affine: Affine::rotation_scaling([0.0; 3], [scale; 3]), displacement: None, in_plane }
    }

    #[test]
    fn a_linear_ramp_is_reproduced_between_voxels() {
        for interpolation in [Interpolation::Linear, Interpolation::Cubic] {
            let patch = sample_image(ramp((21, 21, 21)).view(), &scaled(0.5, false), [3, 5, 7], interpolation);
            for ((_, z, y, x), value) in patch.indexed_iter() {
                let [z, y, x] =
                    [(z, 1.0), (y, 2.0), (x, 3.0)].map(|(index, centre)| 10.0 + 0.5 * (index as f32 - centre));
                assert!((value - (2.0 * z - y + 0.5 * x)).abs() < 1e-3, "{interpolation:?}");
            }
        }
    }

    #[test]
    fn slices_are_scaled_each_on_its_own() {
        let patch = sample_image(ramp((3, 9, 9)).view(), &scaled(2.0, true), [3, 3, 3], Interpolation::Linear);
        for ((_, z, y, x), value) in patch.indexed_iter() {
            let [y, x] = [y, x].map(|index| 4.0 + 2.0 * (index as f32 - 1.0));
            assert_eq!(*value, 2.0 * z as f32 - y + 0.5 * x);
        }
    }

    #[test]
    fn half_a_voxel_beyond_the_border_is_half_of_the_voxel() {
        // A row of two voxels of 8, sampled at -0.5, 0.5 and 1.5.
        let source = Array4::from_elem((1, 1, 1, 2), 8.0);
        let patch = sample_image(source.view(), &scaled(1.0, false), [1, 1, 3], Interpolation::Linear);
        assert_eq!(patch.as_slice(), Some([4.0, 8.0, 4.0].as_slice()));
    }

    #[test]
    fn a_displacement_is_added_before_the_map() {
        let mut field = Array4::zeros((3, 1, 1, 3));
        field[[2, 0, 0, 0]] = 1.0;
        let map = SpatialMap { displacement: Displacement::of_voxels(&field), ..scaled(0.5, false) };
        let source = ramp((1, 1, 9));
        let patch = sample_image(source.view(), &map, [1, 1, 3], Interpolation::Linear);
        // Centred positions -1 + 1, 0 and 1, halved, about voxel 4; the ramp rises by 0.5 a voxel.
        assert_eq!(patch.as_slice(), Some([2.0, 2.0, 2.25].as_slice()));
    }

    #[test]
    fn an_empty_source_gives_zeros() {
        let patch =
            sample_image(Array4::zeros((1, 0, 4, 4)).view(), &scaled(1.0, false), [2, 2, 2], Interpolation::Cubic);
        assert_eq!(patch, Array4::<f32>::zeros((1, 2, 2, 2)));
    }
}
