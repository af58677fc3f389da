//! Bringing images and labels onto another grid.
//!
//! Everything is separable: one axis after the other, and only those whose extent changes. That is what makes it some
//! thirty times faster than interpolating each voxel from its 64 neighbours, and it yields the same numbers.
//!
//! Voxel centres sit at `(i + 0.5) · spacing`, so sample `k` of `m` lies at `(k + 0.5) · n/m - 0.5` among `n` samples.
//! Outside the grid the edge voxel is repeated. Nothing is smoothed before an axis shrinks, as in nnU-Net.

mod axis;
mod classes;
mod labels;
mod regrid;
mod volume;

use ndarray::{Array4, ArrayView4, Axis};
use serde::{Deserialize, Serialize};

use crate::geometry::Spacing;
pub use classes::{Activation, Decision, Rule, ScorePlanes, class_probabilities};
pub use labels::{LabelRule, resample_labels};
pub use regrid::{Limits, Regrid};
pub use volume::resize_image;

/// Spacings whose largest and smallest differ by more than this factor have an axis that is resampled apart
/// (nnU-Net 2.8.1 `ANISO_THRESHOLD`).
pub const ANISOTROPY_THRESHOLD: f64 = 3.0;

/// How a value between voxels is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Order {
    /// The value of the nearest voxel; order 0.
    Nearest,
    /// Linear interpolation; order 1.
    Linear,
    /// The cubic B-spline through the voxels; order 3.
    Cubic,
}

impl TryFrom<u8> for Order {
    type Error = ResampleError;

    fn try_from(order: u8) -> Result<Self, ResampleError> {
        match order {
            0 => Ok(Self::Nearest),
            1 => Ok(Self::Linear),
            3 => Ok(Self::Cubic),
            _ => Err(ResampleError::Order { order }),
        }
    }
}

impl From<Order> for u8 {
    fn from(order: Order) -> Self {
        match order {
            Order::Nearest => 0,
            Order::Linear => 1,
            Order::Cubic => 3,
        }
    }
}

/// How to resample; the names and meanings of nnU-Net's `resampling_fn_*_kwargs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResampleOptions {
    /// The order within the plane, or along all axes where none is apart.
    pub order: Order,
    /// The order along the axis that is resampled apart.
    pub order_z: Order,
    /// Whether an axis is resampled apart; decided by the spacings where absent.
    pub force_separate_z: Option<bool>,
}

/// Why something cannot be resampled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResampleError {
    /// A grid without voxels, before or after.
    #[error("cannot resample from shape `{from:?}` to `{to:?}`: every axis needs at least one voxel")]
    EmptyAxis {
        /// Shape of the image.
        from: [usize; 3],
        /// Shape asked for.
        to: [usize; 3],
    },
    /// More voxels than can be addressed.
    #[error("cannot resample to shape `{shape:?}`: it has more voxels than a computer can address")]
    TooLarge {
        /// Shape asked for.
        shape: [usize; 3],
    },
    /// An order that does not exist.
    #[error("interpolation order `{order}` is unknown: expected 0 (nearest), 1 (linear) or 3 (cubic)")]
    Order {
        /// The order found.
        order: u8,
    },
    /// Orders that have no meaning for labels.
    #[error(
        "labels cannot be resampled with order `{order:?}` and order `{order_z:?}` across: expected order 0 or 1, and 0 across"
    )]
    LabelOrder {
        /// The order within the plane.
        order: Order,
        /// The order along the axis that is resampled apart.
        order_z: Order,
    },
}

/// The extents of a volume at another spacing: `round_half_even(current / target · n)` along each axis.
///
/// Equal to nnU-Net 2.8.1 `compute_new_shape`.
#[must_use]
pub fn new_shape(shape: [usize; 3], current: Spacing, target: Spacing) -> [usize; 3] {
    std::array::from_fn(|axis| (current[axis] / target[axis] * shape[axis] as f64).round_ties_even() as usize)
}

/// The axis that is resampled apart from the other two, if there is one: that of the largest current spacing where the
/// current spacing is anisotropic, else that of the largest new spacing where the new one is.
///
/// Two axes that share the largest spacing are resampled together with the third. Equal to nnU-Net 2.8.1
/// `determine_do_sep_z_and_axis`.
#[must_use]
pub fn separate_axis(current: Spacing, new: Spacing, force: Option<bool>) -> Option<usize> {
    let anisotropic = |spacing: &Spacing| spacing.anisotropy() > ANISOTROPY_THRESHOLD;
    let decisive = match force {
        Some(true) => Some(current),
        Some(false) => None,
        None => [current, new].into_iter().find(anisotropic),
    }?;
    let mut largest = (0..3).filter(|&axis| decisive[axis] == decisive.largest());
    let axis = largest.next();
    if largest.next().is_none() { axis } else { None }
}

/// Resamples every channel of an image onto the grid of `new_shape` voxels.
///
/// # Shapes and units
/// - `image`: `[c, z, y, x]`, any intensity unit; the result has the same unit
/// - `current`, `new`: voxel spacing in millimetres; they only decide whether an axis is resampled apart
/// - returns `[c, z, y, x]` with the extents of `new_shape`; the image itself where it has them already
///
/// # Errors
/// [`ResampleError::EmptyAxis`] or [`ResampleError::TooLarge`] for grids that cannot be.
///
/// # Reference
/// nnU-Net 2.8.1 `resample_data_or_seg_to_shape` without `is_seg`; vectors in `tests/golden/resample`, tolerance 1e-5 of
/// the largest value.
pub fn resample_image(
    image: ArrayView4<'_, f32>,
    new_shape: [usize; 3],
    current: Spacing,
    new: Spacing,
    options: &ResampleOptions,
) -> Result<Array4<f32>, ResampleError> {
    let (channels, depth, height, width) = image.dim();
    check_shapes([depth, height, width], new_shape)?;
    let apart = separate_axis(current, new, options.force_separate_z);
    let mut resampled = Array4::zeros((channels, new_shape[0], new_shape[1], new_shape[2]));
    for (mut target, channel) in resampled.axis_iter_mut(Axis(0)).zip(image.axis_iter(Axis(0))) {
        target.assign(&volume::resample_channel(channel, new_shape, apart, options));
    }
    Ok(resampled)
}

fn check_shapes(from: [usize; 3], to: [usize; 3]) -> Result<(), ResampleError> {
    if from.contains(&0) || to.contains(&0) {
        return Err(ResampleError::EmptyAxis { from, to });
    }
    let voxels = to.iter().try_fold(size_of::<f64>(), |bytes, &extent| bytes.checked_mul(extent));
    match voxels {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => Err(ResampleError::TooLarge { shape: to }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spacing(values: [f64; 3]) -> Spacing {
        Spacing::new(values).expect("positive")
    }

    #[test]
    fn extents_round_half_to_even() {
        let target = spacing([2.0, 2.0, 2.0]);
        assert_eq!(new_shape([5, 7, 8], spacing([1.0; 3]), target), [2, 4, 4]);
    }

    #[test]
    fn exactly_threefold_anisotropy_is_not_resampled_apart() {
        assert_eq!(separate_axis(spacing([3.0, 1.0, 1.0]), spacing([1.0; 3]), None), None);
        assert_eq!(separate_axis(spacing([3.01, 1.0, 1.0]), spacing([1.0; 3]), None), Some(0));
    }

    #[test]
    fn the_current_spacing_decides_before_the_new_one() {
        assert_eq!(separate_axis(spacing([1.0, 1.0, 5.0]), spacing([9.0, 1.0, 1.0]), None), Some(2));
        assert_eq!(separate_axis(spacing([1.0, 1.0, 2.0]), spacing([1.0, 9.0, 1.0]), None), Some(1));
    }

    #[test]
    fn two_largest_axes_are_never_apart() {
        assert_eq!(separate_axis(spacing([0.24, 1.25, 1.25]), spacing([1.0; 3]), Some(true)), None);
    }

    #[test]
    fn an_order_of_two_is_refused() {
        assert_eq!(serde_json::from_str::<Order>("3").ok(), Some(Order::Cubic));
        assert!(serde_json::from_str::<Order>("2").is_err());
    }

    #[test]
    fn a_grid_without_voxels_is_an_error() {
        assert!(check_shapes([1, 2, 3], [1, 0, 3]).is_err());
        assert!(check_shapes([1, 2, 3], [usize::MAX, 2, 3]).is_err());
    }
}
