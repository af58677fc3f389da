//! Sampling of labels, and what is done to them on their way to the loss.

use nnflow_kernels::augment::{OUTSIDE, scaled_extents};
use tch::{Kind, Tensor};

use super::image::{combined, corners};
use super::positions::Positions;
use crate::error::TorchError;

/// nnU-Net's scores: the interpolated indicator of a label times this, rounded to half precision.
const SCORE: f64 = 1000.0;

/// Samples labels: each voxel gets the label with the largest interpolated indicator. The result is
/// `[k, voxel of the patch]`, of 16 bits as `volumes` `[k, z, y, x]` is.
///
/// A voxel has at most eight neighbours, so that each corner's label has its score, however many labels there are.
///
/// # Reference
/// As `nnflow_kernels::spatial::sample_labels`.
pub(super) fn sampled(volumes: &Tensor, positions: &Positions) -> Result<Tensor, TorchError> {
    let around = Tensor::f_stack(&corners(volumes, positions, f64::from(OUTSIDE))?, 0)?;
    let mut weights: Vec<Tensor> = Vec::new();
    for fraction in &positions.fraction {
        let before = fraction.f_neg()?.f_add_scalar(1.0)?;
        weights = combined(&weights, &[before, fraction.shallow_clone()], Tensor::f_mul)?;
    }
    let weights = Tensor::f_stack(&weights, 0)?.f_mul_scalar(SCORE)?.f_unsqueeze(1)?;
    let score = |corner: i64| -> Result<Tensor, TorchError> {
        let is_same = around.f_eq_tensor(&around.f_narrow(0, corner, 1)?)?.f_to_kind(Kind::Float)?;
        Ok(weights.f_mul(&is_same)?.f_sum_dim_intlist(0, true, None)?.f_to_kind(Kind::Half)?.f_to_kind(Kind::Float)?)
    };
    let scores = (0..around.size()[0]).map(score).collect::<Result<Vec<_>, _>>()?;
    best(&around, &Tensor::f_cat(&scores, 0)?, &nearest_corner(positions)?)
}

/// The label with the largest score; a tie goes to the nearest voxel's label if it is tied, else to the smallest.
fn best(around: &Tensor, scores: &Tensor, nearest: &Tensor) -> Result<Tensor, TorchError> {
    let is_behind = scores.f_lt_tensor(&scores.f_amax(0, true)?)?;
    let smallest = around.f_masked_fill(&is_behind, i64::from(i16::MAX))?.f_amin(0, false)?;
    let nearest = nearest.f_broadcast_to([1, around.size()[1], around.size()[2]])?;
    let is_nearest_behind = is_behind.f_gather(0, &nearest, false)?.f_squeeze_dim(0)?;
    let of_nearest = around.f_gather(0, &nearest, false)?.f_squeeze_dim(0)?;
    Ok(smallest.f_where_self(&is_nearest_behind, &of_nearest)?)
}

/// The corner that is nearest to each position; halfway between two, the even voxel is.
fn nearest_corner(positions: &Positions) -> Result<Tensor, TorchError> {
    let mut corner: Option<Tensor> = None;
    for (whole, fraction) in positions.whole.iter().zip(&positions.fraction) {
        let is_odd = whole.f_bitwise_and(1_i64)?.f_eq(1_i64)?;
        let is_after = fraction.f_gt(0.5)?.f_logical_or(&fraction.f_eq(0.5)?.f_logical_and(&is_odd)?)?;
        let side = is_after.f_to_kind(Kind::Int64)?;
        corner = Some(match corner {
            Some(corner) => corner.f_mul_scalar(2_i64)?.f_add(&side)?,
            None => side,
        });
    }
    Ok(corner.expect("invariant: positions have an axis"))
}

/// The labels `[k, z, y, x]` at each of `scales`, each voxel the nearest of the original.
///
/// # Reference
/// As `nnflow_kernels::augment::deep_supervision_targets`.
pub(super) fn at_scales(labels: &Tensor, scales: &[[f64; 3]]) -> Result<Vec<Tensor>, TorchError> {
    scales.iter().map(|scale| at_scale(labels, *scale)).collect()
}

fn at_scale(labels: &Tensor, scale: [f64; 3]) -> Result<Tensor, TorchError> {
    if scale == [1.0; 3] {
        return Ok(labels.shallow_clone());
    }
    let extents = labels.size();
    let extents = scaled_extents([1, 2, 3].map(|axis| extents[axis] as usize), scale).map(|extent| extent as i64);
    // Labels are small whole numbers, which 32 bits hold exactly.
    let values = labels.f_to_kind(Kind::Float)?.f_unsqueeze(0)?;
    let nearest = values.f_internal_upsample_nearest_exact3d(extents, None, None, None)?;
    Ok(nearest.f_squeeze_dim(0)?.f_to_kind(labels.kind())?)
}
