//! Sampling of a patch through an affine map and an elastic displacement.
//!
//! This is the hot loop of training on a CPU, hence three decisions. The positions of a row of voxels are computed once,
//! in fixed point and by addition alone, and serve all channels. Labels are not expanded into indicator volumes: a voxel
//! has at most eight neighbours, so the scores of their few labels are added up on the spot, and most voxels have only
//! one label around them. A transform that acts on slices takes four neighbours, not eight.
//!
//! What is sampled is what torch's `grid_sample` with `align_corners=False` returns for the grids that nnU-Net builds:
//! the centre of the patch lies on the centre of the source, and beyond the source there is zero, or a label of one's
//! choice.

mod coordinates;
mod displacement;
mod image;
mod labels;
mod spline;

pub use displacement::Displacement;
pub use image::{Interpolation, sample_image};
pub use labels::sample_labels;

use std::ops::Range;

use ndarray::{Array4, ArrayView4, s};

/// A linear map of centred positions `[z, y, x]` of the patch to centred positions of the source, in voxels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine([[f64; 3]; 3]);

impl Affine {
    /// The map that only moves the patch to the centre of the source.
    pub const IDENTITY: Self = Self([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);

    /// The map with these rows.
    #[must_use]
    pub fn new(rows: [[f64; 3]; 3]) -> Self {
        Self(rows)
    }

    /// Scaling by `scale`, then rotation by `angles` (radians) about array axes 0, 1 and 2 in this order.
    ///
    /// A scale above 1 makes objects smaller, because it is the positions in the source that move apart. A rotation
    /// within the slices of a volume has only the first angle: axis 0 is what they are stacked along.
    ///
    /// # Reference
    /// Equal to `batchgeneratorsv2` 0.3.6, `transforms/spatial/spatial.py`, `create_affine_matrix_3d`, and to
    /// `create_affine_matrix_2d` in the last two axes.
    #[must_use]
    pub fn rotation_scaling(angles: [f64; 3], scale: [f64; 3]) -> Self {
        let [(sine0, cosine0), (sine1, cosine1), (sine2, cosine2)] = angles.map(f64::sin_cos);
        let about0 = Self([[1.0, 0.0, 0.0], [0.0, cosine0, -sine0], [0.0, sine0, cosine0]]);
        let about1 = Self([[cosine1, 0.0, sine1], [0.0, 1.0, 0.0], [-sine1, 0.0, cosine1]]);
        let about2 = Self([[cosine2, -sine2, 0.0], [sine2, cosine2, 0.0], [0.0, 0.0, 1.0]]);
        let scaling = Self([[scale[0], 0.0, 0.0], [0.0, scale[1], 0.0], [0.0, 0.0, scale[2]]]);
        about2.after(about1).after(about0).after(scaling)
    }

    /// The rows of the matrix.
    #[must_use]
    pub fn rows(&self) -> [[f64; 3]; 3] {
        self.0
    }

    /// First `other`, then `self`.
    fn after(self, other: Self) -> Self {
        let entry =
            |row: usize, column: usize| (0..3).map(|inner| self.0[row][inner] * other.0[inner][column]).sum::<f64>();
        Self(std::array::from_fn(|row| std::array::from_fn(|column| entry(row, column))))
    }
}

/// Where in the source the voxels of a patch come from.
#[derive(Debug, Clone)]
pub struct SpatialMap {
    /// Linear part; applied after the displacement.
    pub affine: Affine,
    /// Displacement of the patch's voxels, in voxels of the patch.
    pub displacement: Option<Displacement>,
    /// True: every slice along axis 0 is transformed on its own and alike; the map's axis 0 is not used.
    pub in_plane: bool,
}

impl SpatialMap {
    /// The extent of the source, about its centre, that a patch of shape `patch` draws on, in voxels.
    ///
    /// Reading less than the whole source is all that is needed, if it is cut about the same centre; the displacement's
    /// largest value counts in full.
    #[must_use]
    pub fn reach(&self, patch: [usize; 3]) -> [usize; 3] {
        let moved = self.displacement.as_ref().map_or([0.0; 3], Displacement::largest);
        let half: [f64; 3] = std::array::from_fn(|axis| patch[axis].saturating_sub(1) as f64 / 2.0 + moved[axis]);
        let rows = self.affine.rows();
        std::array::from_fn(|axis| {
            if self.in_plane && axis == 0 {
                return patch[0];
            }
            let columns = if self.in_plane { 1..3 } else { 0..3 };
            let furthest: f64 = columns.map(|column| rows[axis][column].abs() * half[column]).sum();
            // Two more voxels on each side: one for the far neighbour, one for rounding.
            2 * (furthest.ceil() as usize) + 5
        })
    }
}

/// What a source and the patch in its centre have in common along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CentreOverlap {
    /// The first voxel of the source that both have.
    pub first_in_source: usize,
    /// The same voxel in the patch.
    pub first_in_patch: usize,
    /// Voxels that both have.
    pub length: usize,
}

impl CentreOverlap {
    /// The overlap of a source of `source` voxels and a patch of `patch`, by the rule of [`centre_crop`].
    #[must_use]
    pub fn of(source: usize, patch: usize) -> Self {
        let (centre, half) = (source / 2, patch / 2);
        let (first_in_source, first_in_patch) = (centre.saturating_sub(half), half.saturating_sub(centre));
        let length = (source - first_in_source).min(patch - first_in_patch);
        Self { first_in_source, first_in_patch, length }
    }

    fn source(self) -> Range<usize> {
        self.first_in_source..self.first_in_source + self.length
    }

    fn patch(self) -> Range<usize> {
        self.first_in_patch..self.first_in_patch + self.length
    }
}

/// Cuts a patch out of the centre of `source` `[c, z, y, x]`; where it reaches out of the source it holds `fill`.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6, `transforms/utils/cropping.py`, `center_crop`: the patch's voxel `patch / 2` comes
/// from the source's voxel `source / 2`, both rounded down.
#[must_use]
pub fn centre_crop<T: Copy>(source: ArrayView4<'_, T>, patch: [usize; 3], fill: T) -> Array4<T> {
    let (channels, depth, height, width) = source.dim();
    let shape = [depth, height, width];
    let [z, y, x] = std::array::from_fn(|axis| CentreOverlap::of(shape[axis], patch[axis]));
    let shared = source.slice(s![.., z.source(), y.source(), x.source()]);
    if [z.length, y.length, x.length] == patch {
        return shared.to_owned();
    }
    let mut result = Array4::from_elem((channels, patch[0], patch[1], patch[2]), fill);
    result.slice_mut(s![.., z.patch(), y.patch(), x.patch()]).assign(&shared);
    result
}

#[cfg(test)]
mod tests;
