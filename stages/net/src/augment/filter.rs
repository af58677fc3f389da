//! Convolution along the axes of volumes, mirrored at their borders.

use nnflow_kernels::filter::Kernel;
use tch::{Kind, Tensor};

use crate::error::{TorchError, done};

/// Convolves `volumes` `[k, z, y, x]` with one kernel along each axis.
pub(super) fn smooth(volumes: &Tensor, kernels: &[Kernel; 3]) -> Result<Tensor, TorchError> {
    let mut smoothed = volumes.shallow_clone();
    for (axis, kernel) in (1..).zip(kernels) {
        if kernel.weights().len() > 1 {
            smoothed = along(&smoothed, axis, kernel.weights())?;
        }
    }
    Ok(smoothed)
}

/// `weights` are those of a symmetric kernel, from its centre outwards.
fn along(volumes: &Tensor, axis: i64, weights: &[f32]) -> Result<Tensor, TorchError> {
    let length = volumes.size()[axis as usize];
    let radius = weights.len() as i64 - 1;
    let positions = Tensor::f_arange_start(-radius, length + radius, (Kind::Int64, volumes.device()))?;
    let padded = volumes.f_index_select(axis, &mirrored(&positions, length)?)?;
    let moved = |distance: i64| padded.f_narrow(axis, radius + distance, length);
    let mut sum = moved(0)?.f_mul_scalar(f64::from(weights[0]))?;
    for (distance, &weight) in (1..).zip(&weights[1..]) {
        let pair = moved(-distance)?.f_add(&moved(distance)?)?;
        done(sum.f_add_(&pair.f_mul_scalar(f64::from(weight))?))?;
    }
    Ok(sum)
}

/// The voxels that stand at `positions` of an axis of `length` voxels, mirrored about the outermost ones.
pub(super) fn mirrored(positions: &Tensor, length: i64) -> Result<Tensor, TorchError> {
    let period = 2 * (length - 1);
    if period == 0 {
        return Ok(positions.f_zeros_like()?);
    }
    let wrapped = positions.f_remainder(period)?;
    Ok(wrapped.f_minimum(&wrapped.f_neg()?.f_add_scalar(period)?)?)
}
