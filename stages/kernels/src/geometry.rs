//! Voxel spacings, boxes and axis permutations of volumes.
//!
//! Each is checked where it is made, also where it is read from a file, so that the kernels behind need not ask again
//! whether a spacing is positive, a box is the right way round or a permutation names every axis.

use std::ops::Index;

use ndarray::{ArrayView, ArrayViewMut, Axis, Dimension, Slice};
use serde::{Deserialize, Serialize};

/// What is wrong with a spacing, a box or a permutation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// A spacing that is not a finite number above zero.
    #[error("spacing `{values:?}` (mm, z y x) is not usable: expected three finite numbers above 0")]
    Spacing {
        /// The three values found.
        values: [f64; 3],
    },
    /// A box that ends before it starts.
    #[error("box from `{start:?}` to `{stop:?}` (voxels, z y x) ends before it starts")]
    Box {
        /// First voxel.
        start: [usize; 3],
        /// One past the last voxel.
        stop: [usize; 3],
    },
    /// A box that reaches out of the array that it is applied to.
    #[error("box from `{start:?}` to `{stop:?}` does not fit into an array of shape `{shape:?}`")]
    Outside {
        /// First voxel.
        start: [usize; 3],
        /// One past the last voxel.
        stop: [usize; 3],
        /// Shape of the array, leading axes included.
        shape: Vec<usize>,
    },
    /// Two arrays that had to have the same shape.
    #[error("expected an array of shape `{expected:?}`, found `{found:?}`")]
    Shape {
        /// The shape asked for.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// Three numbers that are no permutation of the axes.
    #[error("axis order `{axes:?}` is no permutation: expected each of 0, 1 and 2 once")]
    Transpose {
        /// The numbers found.
        axes: [usize; 3],
    },
}

/// Distance between voxel centres in millimetres, in the order of the array's axes `[z, y, x]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 3]", into = "[f64; 3]")]
pub struct Spacing([f64; 3]);

impl Spacing {
    /// Checks and wraps three distances in millimetres.
    ///
    /// # Errors
    /// [`GeometryError::Spacing`] unless each is finite and above 0.
    pub fn new(values: [f64; 3]) -> Result<Self, GeometryError> {
        let usable = values.iter().all(|value| value.is_finite() && *value > 0.0);
        if usable { Ok(Self(values)) } else { Err(GeometryError::Spacing { values }) }
    }

    /// The three distances in millimetres.
    #[must_use]
    pub fn values(self) -> [f64; 3] {
        self.0
    }

    /// The largest distance divided by the smallest.
    #[must_use]
    pub fn anisotropy(self) -> f64 {
        self.largest() / self.0.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// The largest of the three distances, in millimetres.
    #[must_use]
    pub fn largest(self) -> f64 {
        self.0.into_iter().fold(0.0, f64::max)
    }
}

impl Index<usize> for Spacing {
    type Output = f64;

    fn index(&self, axis: usize) -> &f64 {
        &self.0[axis]
    }
}

impl TryFrom<[f64; 3]> for Spacing {
    type Error = GeometryError;

    fn try_from(values: [f64; 3]) -> Result<Self, GeometryError> {
        Self::new(values)
    }
}

impl From<Spacing> for [f64; 3] {
    fn from(spacing: Spacing) -> Self {
        spacing.0
    }
}

/// A block of voxels: from `start` to before `stop` on each axis of `[z, y, x]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Corners", into = "Corners")]
pub struct BoundingBox {
    start: [usize; 3],
    stop: [usize; 3],
}

/// What a box is in a file, before it is checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Corners {
    start: [usize; 3],
    stop: [usize; 3],
}

impl TryFrom<Corners> for BoundingBox {
    type Error = GeometryError;

    fn try_from(corners: Corners) -> Result<Self, GeometryError> {
        Self::new(corners.start, corners.stop)
    }
}

impl From<BoundingBox> for Corners {
    fn from(block: BoundingBox) -> Self {
        Self { start: block.start, stop: block.stop }
    }
}

impl BoundingBox {
    /// The voxels from `start` to before `stop`; an axis where both are equal makes an empty box.
    ///
    /// # Errors
    /// [`GeometryError::Box`] if an axis ends before it starts.
    pub fn new(start: [usize; 3], stop: [usize; 3]) -> Result<Self, GeometryError> {
        let ordered = start.iter().zip(&stop).all(|(start, stop)| start <= stop);
        if ordered { Ok(Self { start, stop }) } else { Err(GeometryError::Box { start, stop }) }
    }

    /// The box of every voxel of a volume of this shape.
    #[must_use]
    pub fn whole(shape: [usize; 3]) -> Self {
        Self { start: [0; 3], stop: shape }
    }

    /// First voxel of each axis.
    #[must_use]
    pub fn start(&self) -> [usize; 3] {
        self.start
    }

    /// One past the last voxel of each axis.
    #[must_use]
    pub fn stop(&self) -> [usize; 3] {
        self.stop
    }

    /// Number of voxels along each axis.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        std::array::from_fn(|axis| self.stop[axis] - self.start[axis])
    }

    /// The part of `array` inside the box; the last three axes are the box's, those before them stay whole.
    ///
    /// # Errors
    /// [`GeometryError::Outside`] if the box reaches out of the array or the array has fewer than three axes.
    pub fn crop<'a, T, D: Dimension>(
        &self,
        mut array: ArrayView<'a, T, D>,
    ) -> Result<ArrayView<'a, T, D>, GeometryError> {
        let leading = self.leading_axes(array.shape())?;
        for axis in 0..3 {
            array.slice_axis_inplace(Axis(leading + axis), Slice::from(self.start[axis]..self.stop[axis]));
        }
        Ok(array)
    }

    /// Like [`crop`](Self::crop), to write into what is inside.
    ///
    /// # Errors
    /// Those of [`crop`](Self::crop).
    pub fn crop_mut<'a, T, D: Dimension>(
        &self,
        mut array: ArrayViewMut<'a, T, D>,
    ) -> Result<ArrayViewMut<'a, T, D>, GeometryError> {
        let leading = self.leading_axes(array.shape())?;
        for axis in 0..3 {
            array.slice_axis_inplace(Axis(leading + axis), Slice::from(self.start[axis]..self.stop[axis]));
        }
        Ok(array)
    }

    fn leading_axes(&self, shape: &[usize]) -> Result<usize, GeometryError> {
        let outside = || GeometryError::Outside { start: self.start, stop: self.stop, shape: shape.to_vec() };
        let leading = shape.len().checked_sub(3).ok_or_else(outside)?;
        let inside = self.stop.iter().zip(&shape[leading..]).all(|(stop, extent)| stop <= extent);
        if inside { Ok(leading) } else { Err(outside()) }
    }
}

/// An order of the three spatial axes: axis `i` of the result is axis `axes[i]` of what it is applied to.
///
/// nnU-Net keeps `transpose_forward` and `transpose_backward`; here the second is [`inverse`](Self::inverse) of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[usize; 3]", into = "[usize; 3]")]
pub struct Transpose([usize; 3]);

impl Transpose {
    /// The order that leaves everything as it is.
    pub const IDENTITY: Self = Self([0, 1, 2]);

    /// Checks and wraps an order of the axes, e.g. `[1, 0, 2]`.
    ///
    /// # Errors
    /// [`GeometryError::Transpose`] unless 0, 1 and 2 stand there once each.
    pub fn new(axes: [usize; 3]) -> Result<Self, GeometryError> {
        let complete = (0..3).all(|axis| axes.contains(&axis));
        if complete { Ok(Self(axes)) } else { Err(GeometryError::Transpose { axes }) }
    }

    /// For each axis of the result the axis that it was before.
    #[must_use]
    pub fn axes(self) -> [usize; 3] {
        self.0
    }

    /// The order that undoes this one.
    #[must_use]
    pub fn inverse(self) -> Self {
        let mut inverse = [0; 3];
        for (axis, &source) in self.0.iter().enumerate() {
            inverse[source] = axis;
        }
        Self(inverse)
    }

    /// Reorders three values that belong to the axes: a shape, a position.
    #[must_use]
    pub fn apply<T: Copy>(self, values: [T; 3]) -> [T; 3] {
        self.0.map(|axis| values[axis])
    }

    /// Reorders a spacing.
    #[must_use]
    pub fn apply_spacing(self, spacing: Spacing) -> Spacing {
        Spacing(self.apply(spacing.0))
    }

    /// Reorders a box.
    #[must_use]
    pub fn apply_box(self, block: BoundingBox) -> BoundingBox {
        BoundingBox { start: self.apply(block.start), stop: self.apply(block.stop) }
    }

    /// A view of `array` with its last three axes reordered; those before them stay. No voxel is copied.
    ///
    /// # Errors
    /// [`GeometryError::Shape`] if the array has fewer than three axes.
    pub fn apply_array<T, D: Dimension>(
        self,
        array: ArrayView<'_, T, D>,
    ) -> Result<ArrayView<'_, T, D>, GeometryError> {
        let Some(leading) = array.ndim().checked_sub(3) else {
            return Err(GeometryError::Shape { expected: vec![0; 3], found: array.shape().to_vec() });
        };
        let mut order = array.raw_dim();
        for axis in 0..array.ndim() {
            order[axis] = if axis < leading { axis } else { leading + self.0[axis - leading] };
        }
        Ok(array.permuted_axes(order))
    }
}

impl TryFrom<[usize; 3]> for Transpose {
    type Error = GeometryError;

    fn try_from(axes: [usize; 3]) -> Result<Self, GeometryError> {
        Self::new(axes)
    }
}

impl From<Transpose> for [usize; 3] {
    fn from(transpose: Transpose) -> Self {
        transpose.0
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    #[test]
    fn a_spacing_of_zero_or_nan_is_refused() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Spacing::new([1.0, bad, 1.0]).is_err(), "accepted {bad}");
        }
    }

    #[test]
    fn a_spacing_read_from_a_file_is_checked() {
        assert!(serde_json::from_str::<Spacing>("[1.0, 2.0, -3.0]").is_err());
    }

    #[test]
    fn anisotropy_is_largest_over_smallest() {
        let spacing = Spacing::new([3.0, 0.5, 1.0]).expect("positive");
        assert_eq!(spacing.anisotropy(), 6.0);
    }

    #[test]
    fn a_box_that_ends_before_it_starts_is_refused() {
        assert!(BoundingBox::new([0, 2, 0], [1, 1, 1]).is_err());
        assert!(serde_json::from_str::<BoundingBox>(r#"{"start":[0,2,0],"stop":[1,1,1]}"#).is_err());
    }

    #[test]
    fn a_box_that_reaches_out_of_the_array_is_an_error() {
        let block = BoundingBox::new([0, 0, 0], [2, 2, 4]).expect("ordered");
        assert!(matches!(block.crop(Array3::<u8>::zeros((2, 2, 3)).view()), Err(GeometryError::Outside { .. })));
    }

    #[test]
    fn an_axis_named_twice_is_no_permutation() {
        assert!(Transpose::new([0, 0, 2]).is_err());
        assert!(Transpose::new([0, 1, 3]).is_err());
    }

    #[test]
    fn transposing_moves_the_voxel_along() {
        let array = array![[[1, 2, 3], [4, 5, 6]]];
        let moved = Transpose::new([2, 0, 1]).expect("permutation").apply_array(array.view()).expect("three axes");
        assert_eq!(moved, array![[[1, 4]], [[2, 5]], [[3, 6]]]);
    }
}
