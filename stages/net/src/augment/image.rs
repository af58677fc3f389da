//! Sampling of intensities between voxels.

use nnflow_kernels::filter::Kernel;
use tch::{Kind, Tensor};

use super::filter::{mirrored, smooth};
use super::positions::Positions;
use crate::error::{TorchError, done};

/// The values around each position: one tensor `[k, voxel of the patch]` for each corner, the last axis changing fastest.
///
/// `volumes` is `[k, z, y, x]`; voxels outside of it have the value `outside`.
pub(super) fn corners(volumes: &Tensor, positions: &Positions, outside: f64) -> Result<Vec<Tensor>, TorchError> {
    let axes = positions.whole.len();
    // With one voxel more on each side, a position that is further out can be moved there instead of being asked for.
    let padded = volumes.f_pad(vec![1; 2 * axes], "constant", Some(outside))?;
    let extents = &padded.size()[4 - axes..];
    let mut indices: Vec<Tensor> = Vec::new();
    for (axis, whole) in positions.whole.iter().enumerate() {
        let (length, stride) = (extents[axis], extents[axis + 1..].iter().product::<i64>());
        let side = |offset: i64| -> Result<Tensor, TorchError> {
            Ok(whole.f_add_scalar(1 + offset)?.f_clamp(0, length - 1)?.f_mul_scalar(stride)?)
        };
        indices = combined(&indices, &[side(0)?, side(1)?], Tensor::f_add)?;
    }
    let flat = padded.f_flatten(1, -1)?;
    Ok(indices.iter().map(|index| flat.f_index_select(1, index)).collect::<Result<_, _>>()?)
}

/// Each of `first` together with each of `second`; `second` alone where there is no first.
pub(super) fn combined(
    first: &[Tensor],
    second: &[Tensor],
    together: impl Fn(&Tensor, &Tensor) -> Result<Tensor, tch::TchError>,
) -> Result<Vec<Tensor>, TorchError> {
    if first.is_empty() {
        return Ok(second.iter().map(Tensor::shallow_clone).collect());
    }
    let pairs = first.iter().flat_map(|first| second.iter().map(move |second| (first, second)));
    Ok(pairs.map(|(first, second)| together(first, second)).collect::<Result<_, _>>()?)
}

/// Interpolates linearly; beyond the source there are voxels of 0. The result is `[k, voxel of the patch]`.
///
/// # Reference
/// As `nnflow_kernels::spatial::sample_image`.
pub(super) fn linear(volumes: &Tensor, positions: &Positions) -> Result<Tensor, TorchError> {
    let mut values = corners(volumes, positions, 0.0)?;
    for fraction in positions.fraction.iter().rev() {
        let between = |pair: &[Tensor]| Ok(pair[1].f_sub(&pair[0])?.f_mul(fraction)?.f_add(&pair[0])?);
        values = values.chunks_exact(2).map(between).collect::<Result<_, TorchError>>()?;
    }
    Ok(values.swap_remove(0))
}

/// Interpolates by the third-order spline through the voxels; positions outside the source are 0.
///
/// # Reference
/// As `nnflow_kernels::spatial::sample_image`.
pub(super) fn cubic(volumes: &Tensor, positions: &Positions) -> Result<Tensor, TorchError> {
    let axes = positions.whole.len();
    let extents = volumes.size();
    let is_filtered = |axis: usize| axis + axes >= 3 && extents[axis + 1] > 1;
    let kernels =
        std::array::from_fn(|axis| if is_filtered(axis) { Kernel::cubic_spline() } else { Kernel::identity() });
    let coefficients = smooth(volumes, &kernels)?.f_flatten(1, -1)?;
    let extents = &extents[4 - axes..];
    let (mut indices, mut weights): (Vec<Tensor>, Vec<Tensor>) = (Vec::new(), Vec::new());
    let mut inside: Option<Tensor> = None;
    for (axis, (whole, fraction)) in positions.whole.iter().zip(&positions.fraction).enumerate() {
        let (length, stride) = (extents[axis], extents[axis + 1..].iter().product::<i64>());
        let tap = |tap: i64| -> Result<Tensor, TorchError> {
            Ok(mirrored(&whole.f_add_scalar(tap - 1)?, length)?.f_mul_scalar(stride)?)
        };
        indices = combined(&indices, &[tap(0)?, tap(1)?, tap(2)?, tap(3)?], Tensor::f_add)?;
        weights = combined(&weights, &spline_weights(fraction)?, Tensor::f_mul)?;
        let here = within(whole, fraction, length)?;
        inside = Some(match inside {
            Some(inside) => inside.f_logical_and(&here)?,
            None => here,
        });
    }
    let mut sum = weights[0].f_mul(&coefficients.f_index_select(1, &indices[0])?)?;
    for (index, weight) in indices.iter().zip(&weights).skip(1) {
        done(sum.f_addcmul_(&coefficients.f_index_select(1, index)?, weight))?;
    }
    match inside {
        Some(inside) => Ok(sum.f_masked_fill(&inside.f_logical_not()?, 0.0)?),
        None => Ok(sum),
    }
}

/// Weights of the four coefficients around a position.
fn spline_weights(fraction: &Tensor) -> Result<[Tensor; 4], TorchError> {
    let rest = fraction.f_neg()?.f_add_scalar(1.0)?;
    let cube = |value: &Tensor| value.f_mul(value)?.f_mul(value);
    let outer = |value: &Tensor| cube(value)?.f_div_scalar(6.0);
    let inner = |value: &Tensor| {
        let square = value.f_mul(value)?.f_mul_scalar(-6.0)?;
        square.f_add(&cube(value)?.f_mul_scalar(3.0)?)?.f_add_scalar(4.0)?.f_div_scalar(6.0)
    };
    Ok([outer(&rest)?, inner(fraction)?, inner(&rest)?, outer(fraction)?])
}

/// Whether positions lie between the first and the last voxel of an axis.
fn within(whole: &Tensor, fraction: &Tensor, length: i64) -> Result<Tensor, TorchError> {
    let on_last = whole.f_eq(length - 1)?.f_logical_and(&fraction.f_eq(0.0)?)?;
    let before_last = whole.f_lt(length - 1)?.f_to_kind(Kind::Bool)?;
    Ok(whole.f_ge(0_i64)?.f_logical_and(&before_last.f_logical_or(&on_last)?)?)
}
