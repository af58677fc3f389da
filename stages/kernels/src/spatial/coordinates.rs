//! Positions of a patch's voxels in the source, a row at a time.

use ndarray::{Array4, ArrayView4};

use super::SpatialMap;

/// One voxel in the fixed-point numbers of an affine row: 32 bits after the point.
const ONE: f64 = (1_u64 << 32) as f64;

/// Positions of the voxels of a row, each as a whole voxel and what is left, for each axis of the source.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// The voxel at or before each position.
    pub(super) whole: [Vec<i32>; 3],
    /// How far each position is beyond that voxel, `0..1`.
    pub(super) fraction: [Vec<f32>; 3],
}

/// Computes rows of positions.
struct Positions<'a> {
    map: &'a SpatialMap,
    patch: [usize; 3],
    source: [usize; 3],
    row: Row,
    moved: [Vec<f32>; 3],
}

impl<'a> Positions<'a> {
    fn new(map: &'a SpatialMap, patch: [usize; 3], source: [usize; 3]) -> Self {
        let row = Row {
            whole: std::array::from_fn(|_| vec![0; patch[2]]),
            fraction: std::array::from_fn(|_| vec![0.0; patch[2]]),
        };
        Self { map, patch, source, row, moved: std::array::from_fn(|_| vec![0.0; patch[2]]) }
    }

    /// The positions of row `y` of slice `z` of the patch.
    fn of_row(&mut self, z: usize, y: usize) -> &Row {
        if self.map.displacement.is_some() {
            self.displaced_row(z, y);
        } else {
            self.affine_row(z, y);
        }
        &self.row
    }

    /// Centred position of the first voxel of a row.
    fn first(&self, z: usize, y: usize) -> [f64; 3] {
        let index = [z, y, 0];
        std::array::from_fn(|axis| index[axis] as f64 - (self.patch[axis] as f64 - 1.0) / 2.0)
    }

    fn source_centre(&self, axis: usize) -> f64 {
        (self.source[axis] as f64 - 1.0) / 2.0
    }

    /// Along a row every position moves by the same step: one addition in fixed point gives voxel and fraction both.
    fn affine_row(&mut self, z: usize, y: usize) {
        let first = self.first(z, y);
        for (axis, row) in self.map.affine.rows().into_iter().enumerate() {
            let start = row[0] * first[0] + row[1] * first[1] + row[2] * first[2] + self.source_centre(axis);
            let step = (row[2] * ONE).round() as i64;
            let mut position = (start * ONE).round() as i64;
            for (whole, fraction) in self.row.whole[axis].iter_mut().zip(&mut self.row.fraction[axis]) {
                *whole = (position >> 32) as i32;
                // 24 bits are what a float holds exactly.
                *fraction = ((position as u32) >> 8) as f32 * (1.0 / 16_777_216.0);
                position = position.wrapping_add(step);
            }
        }
    }

    fn displaced_row(&mut self, z: usize, y: usize) {
        let first = self.first(z, y);
        for (axis, moved) in self.moved.iter_mut().enumerate() {
            if let Some(displacement) = &self.map.displacement {
                displacement.fill_row(axis, z, y, moved);
            }
            let step = if axis == 2 { 1.0 } else { 0.0 };
            for (index, value) in moved.iter_mut().enumerate() {
                *value += first[axis] as f32 + step * index as f32;
            }
        }
        let [moved0, moved1, moved2] = &self.moved;
        for (axis, row) in self.map.affine.rows().into_iter().enumerate() {
            let [by0, by1, by2] = row.map(|entry| entry as f32);
            let centre = self.source_centre(axis) as f32;
            let centred = moved0.iter().zip(moved1).zip(moved2);
            let targets = self.row.whole[axis].iter_mut().zip(&mut self.row.fraction[axis]);
            for ((whole, fraction), ((position0, position1), position2)) in targets.zip(centred) {
                let position = by0 * position0 + by1 * position1 + by2 * position2 + centre;
                let truncated = position as i32;
                *whole = truncated - i32::from(position < truncated as f32);
                *fraction = position - *whole as f32;
            }
        }
    }
}

/// Samples every row of every channel with `sample`, which gets the channel's voxels, their shape, the positions and the
/// row to fill.
///
/// In-plane maps hand `sample` one slice at a time, with a depth of 1; slices of the patch beyond the source hold `fill`.
pub(super) fn sample_rows<T: Copy>(
    source: ArrayView4<'_, T>,
    map: &SpatialMap,
    patch: [usize; 3],
    fill: T,
    sample: impl Fn(&[T], [usize; 3], &Row, &mut [T]),
) -> Array4<T> {
    let (channels, depth, height, width) = source.dim();
    let mut result = Array4::from_elem((channels, patch[0], patch[1], patch[2]), fill);
    if source.is_empty() || result.is_empty() {
        return result;
    }
    let layout = source.as_standard_layout();
    let voxels = layout.as_slice().expect("invariant: standard layout is one slice");
    let values = result.as_slice_mut().expect("invariant: a new array is one slice");
    let [patch_depth, source_depth] = if map.in_plane { [1, 1] } else { [patch[0], depth] };
    let (patch_part, source_part) = (patch_depth * patch[1] * patch[2], source_depth * height * width);
    let parts = if map.in_plane {
        paired_slices(channels, patch[0], depth)
    } else {
        (0..channels).map(|channel| (channel, channel)).collect()
    };
    let source_shape = [source_depth, height, width];
    let mut positions = Positions::new(map, [patch_depth, patch[1], patch[2]], source_shape);
    for line in 0..patch_depth * patch[1] {
        let row = positions.of_row(line / patch[1], line % patch[1]);
        for &(target, origin) in &parts {
            let start = target * patch_part + line * patch[2];
            let part = &voxels[origin * source_part..(origin + 1) * source_part];
            sample(part, source_shape, row, &mut values[start..start + patch[2]]);
        }
    }
    result
}

/// For each slice of the patch, over all channels, the slice of the source that it comes from by the rule of the centre
/// crop; slices that come from beyond the source are left out.
fn paired_slices(channels: usize, patch_depth: usize, source_depth: usize) -> Vec<(usize, usize)> {
    let offset = (source_depth / 2) as isize - (patch_depth / 2) as isize;
    let from = |slice: usize| usize::try_from(slice as isize + offset).ok().filter(|slice| *slice < source_depth);
    (0..channels * patch_depth)
        .filter_map(|target| {
            let slice = from(target % patch_depth)?;
            Some((target, target / patch_depth * source_depth + slice))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spatial::{Affine, Displacement};

    #[test]
    fn a_displacement_of_zero_changes_no_position() {
        let affine = Affine::rotation_scaling([0.4, -0.3, 0.2], [1.3; 3]);
        let (patch, source) = ([5, 6, 40], [4, 7, 9]);
        let plain = SpatialMap { affine, displacement: None, in_plane: false };
        let field = Array4::zeros((3, patch[0], patch[1], patch[2]));
        let displaced = SpatialMap { displacement: Displacement::of_voxels(&field), ..plain.clone() };
        let (mut first, mut second) =
            (Positions::new(&plain, patch, source), Positions::new(&displaced, patch, source));
        for line in 0..patch[0] * patch[1] {
            let (first, second) =
                (first.of_row(line / patch[1], line % patch[1]), second.of_row(line / patch[1], line % patch[1]));
            for axis in 0..3 {
                for index in 0..patch[2] {
                    let position = |row: &Row| f64::from(row.whole[axis][index]) + f64::from(row.fraction[axis][index]);
                    assert!((position(first) - position(second)).abs() < 1e-5);
                    assert!((0.0..=1.0).contains(&second.fraction[axis][index]));
                }
            }
        }
    }
}
