//! Covering an image with patches.
//!
//! A network sees one patch at a time. Patches overlap and their centres count more, because a network is less sure near
//! the border of what it sees.

use std::ops::Range;

use half::f16;
use ndarray::{ArrayD, IxDyn};

/// Why an image cannot be covered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TilingError {
    /// An image and a patch with different numbers of axes.
    #[error("image `{image:?}` and patch `{patch:?}` have different numbers of axes")]
    Axes {
        /// Extents of the image.
        image: Vec<usize>,
        /// Extents of the patch.
        patch: Vec<usize>,
    },
    /// A patch that is empty or does not fit into the image.
    #[error(
        "patch `{patch:?}` does not fit into image `{image:?}`: expected 1 to the image's extent; pad the image first"
    )]
    Patch {
        /// Extents of the image.
        image: Vec<usize>,
        /// Extents of the patch.
        patch: Vec<usize>,
    },
    /// A step that leaves gaps or does not get on.
    #[error("step `{step}` is not usable: expected a part of the patch above 0 and at most 1")]
    Step {
        /// The step found.
        step: f64,
    },
}

/// The first voxels of the windows along each axis, so that windows of the size of `patch` cover `image`.
///
/// Neighbouring windows lie at most `step` patches apart, and equally far, rounded half to even.
///
/// # Errors
/// [`TilingError`] unless both have the same number of axes, the patch fits into the image, and `step` lies in `(0, 1]`.
///
/// # Reference
/// nnU-Net 2.8.1 `compute_steps_for_sliding_window`; vectors in `tests/golden/infer`.
pub fn window_starts(image: &[usize], patch: &[usize], step: f64) -> Result<Vec<Vec<usize>>, TilingError> {
    if image.len() != patch.len() {
        return Err(TilingError::Axes { image: image.to_vec(), patch: patch.to_vec() });
    }
    if image.iter().zip(patch).any(|(image, patch)| *patch == 0 || patch > image) {
        return Err(TilingError::Patch { image: image.to_vec(), patch: patch.to_vec() });
    }
    if !(step > 0.0 && step <= 1.0) {
        return Err(TilingError::Step { step });
    }
    let along_axis = |(&image, &patch): (&usize, &usize)| {
        let last = (image - patch) as f64;
        let gaps = (last / (patch as f64 * step)).ceil() as usize;
        let width = if gaps > 0 { last / gaps as f64 } else { 0.0 };
        (0..=gaps).map(|index| (width * index as f64).round_ties_even() as usize).collect()
    };
    Ok(image.iter().zip(patch).map(along_axis).collect())
}

/// The first voxel of every window, in C order: the window moves along the last axis first.
#[must_use]
pub fn window_corners(starts: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let extend = |corners: Vec<Vec<usize>>, along_axis: &Vec<usize>| {
        let with = |corner: &Vec<usize>, start: usize| [corner.as_slice(), &[start]].concat();
        corners.iter().flat_map(|corner| along_axis.iter().map(move |&start| with(corner, start))).collect()
    };
    starts.iter().fold(vec![Vec::new()], extend)
}

/// How many times each voxel of a patch counts when the windows' results are averaged: a Gaussian around the voxel
/// `patch / 2` with a standard deviation of `sigma_scale` times the patch along each axis, `peak` at its largest.
///
/// Where the result would be 0 in float32 it is the smallest value that is not, so that no voxel is left without weight.
///
/// # Reference
/// nnU-Net 2.8.1 `compute_gaussian` with float32, that is `scipy.ndimage.gaussian_filter` (truncated at four standard
/// deviations, zeros outside) of a single one; vectors in `tests/golden/infer`, tolerance 1e-6.
#[must_use]
pub fn gaussian_weights(patch: &[usize], sigma_scale: f64, peak: f64) -> ArrayD<f32> {
    gaussian(patch, sigma_scale, peak, |weight| weight as f32)
}

/// [`gaussian_weights`] in the precision in which nnU-Net's predictor has them: each value is one of float16, and what
/// float16 cannot tell from 0 is the smallest value that it can.
///
/// # Reference
/// nnU-Net 2.8.1 `compute_gaussian` with float16; vectors in `tests/golden/infer`.
#[must_use]
pub fn gaussian_weights_half(patch: &[usize], sigma_scale: f64, peak: f64) -> ArrayD<f32> {
    // torch, too, goes through float32 on the way from float64 to float16.
    gaussian(patch, sigma_scale, peak, |weight| f16::from_f32(weight as f32).to_f32())
}

fn gaussian(patch: &[usize], sigma_scale: f64, peak: f64, round: impl Fn(f64) -> f32) -> ArrayD<f32> {
    let kernels: Vec<Vec<f64>> = patch.iter().map(|&extent| gaussian_kernel(extent, sigma_scale)).collect();
    let product = |index: IxDyn| kernels.iter().enumerate().map(|(axis, kernel)| kernel[index[axis]]).product::<f64>();
    let raw = ArrayD::from_shape_fn(IxDyn(patch), product);
    let scale = raw.iter().copied().fold(0.0, f64::max) / peak;
    let mut weights = raw.mapv(|weight| round(weight / scale));
    let smallest = weights.iter().copied().filter(|&weight| weight > 0.0).fold(f32::INFINITY, f32::min);
    weights.mapv_inplace(|weight| if weight == 0.0 { smallest } else { weight });
    weights
}

/// What a one at `extent / 2` becomes along one axis.
fn gaussian_kernel(extent: usize, sigma_scale: f64) -> Vec<f64> {
    let sigma = extent as f64 * sigma_scale;
    let radius = (4.0 * sigma + 0.5) as usize;
    let value = |distance: usize| (-0.5 / (sigma * sigma) * (distance * distance) as f64).exp();
    let total: f64 = value(0) + 2.0 * (1..=radius).map(value).sum::<f64>();
    let place = |index: usize| index.abs_diff(extent / 2);
    (0..extent).map(|index| if place(index) <= radius { value(place(index)) / total } else { 0.0 }).collect()
}

/// How an image is padded to a smallest size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Padding {
    /// Extents of the padded image.
    pub shape: Vec<usize>,
    /// Where the image lies in it.
    pub inside: Vec<Range<usize>>,
}

/// The padding that brings each axis of `image` to at least the extent of `patch`, the image in the middle; where an odd
/// number of voxels is missing, one more is added behind than before.
///
/// Axes that the patch does not have, or that are long enough, stay as they are.
///
/// # Reference
/// acvl_utils 0.2.6 `pad_nd_image`; vectors in `tests/golden/infer`.
#[must_use]
pub fn padding_to(image: &[usize], patch: &[usize]) -> Padding {
    let leading = image.len().saturating_sub(patch.len());
    let target = |axis: usize| axis.checked_sub(leading).and_then(|axis| patch.get(axis)).copied().unwrap_or(0);
    let shape: Vec<usize> = image.iter().enumerate().map(|(axis, &extent)| extent.max(target(axis))).collect();
    let before = |(&extent, &padded): (&usize, &usize)| (padded - extent) / 2;
    let inside = image.iter().zip(&shape).map(|pair| before(pair)..before(pair) + pair.0).collect();
    Padding { shape, inside }
}

/// The patch to load so that, rotated by at most `rotation` radians about any one axis and scaled by no less than
/// `smallest_scale`, it still fills `patch` (two or three axes).
///
/// # Reference
/// nnU-Net 2.8.1 `get_patch_size`; vectors in `tests/golden/infer`.
#[must_use]
pub fn initial_patch_size(patch: &[usize], rotation: f64, smallest_scale: f64) -> Vec<usize> {
    let (sine, cosine) = rotation.abs().min(std::f64::consts::FRAC_PI_2).sin_cos();
    let mut extents: Vec<f64> = patch.iter().map(|&extent| extent as f64).collect();
    // Each pair of axes spans the plane of one rotation. The corner of the patch turns towards either axis.
    for first in 0..patch.len() {
        for second in first + 1..patch.len() {
            let (a, b) = (patch[first] as f64, patch[second] as f64);
            // About the middle one of three axes the matrix turns the other way round.
            let sine = if (first, second) == (0, 2) { -sine } else { sine };
            extents[first] = extents[first].max((a * cosine + b * sine).abs());
            extents[second] = extents[second].max((b * cosine - a * sine).abs());
        }
    }
    extents.iter().map(|extent| (extent / smallest_scale) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_as_large_as_the_image_has_one_window() {
        assert_eq!(window_starts(&[5, 7], &[5, 7], 0.5), Ok(vec![vec![0], vec![0]]));
    }

    #[test]
    fn a_patch_larger_than_the_image_is_an_error() {
        assert!(matches!(window_starts(&[5], &[6], 0.5), Err(TilingError::Patch { .. })));
        assert!(matches!(window_starts(&[5], &[0], 0.5), Err(TilingError::Patch { .. })));
    }

    #[test]
    fn a_step_outside_of_the_patch_is_an_error() {
        for step in [0.0, -1.0, 1.1, f64::NAN] {
            assert!(matches!(window_starts(&[5], &[5], step), Err(TilingError::Step { .. })), "{step}");
        }
    }

    #[test]
    fn windows_are_spread_evenly() {
        // 46 voxels are left, which takes two steps of at most 32.
        assert_eq!(window_starts(&[110], &[64], 0.5), Ok(vec![vec![0, 23, 46]]));
    }

    #[test]
    fn weights_fall_as_a_gaussian_around_the_centre() {
        let weights = gaussian_weights(&[16, 16], 1.0 / 8.0, 1.0);
        // The deviation is two voxels, the centre at voxel 8: e^(-1/2) two voxels away, its square on the diagonal.
        let expected = [1.0, (-0.5_f32).exp(), (-1.0_f32).exp()];
        for (found, expected) in [weights[[8, 8]], weights[[8, 10]], weights[[6, 10]]].into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn a_patch_that_is_rotated_by_a_right_angle_needs_its_longer_edge_on_both_axes() {
        assert_eq!(initial_patch_size(&[10, 16], std::f64::consts::FRAC_PI_2, 0.5), [32, 32]);
    }

    #[test]
    fn windows_move_along_the_last_axis_first() {
        let corners = window_corners(&[vec![0, 4], vec![1, 2]]);
        assert_eq!(corners, [[0, 1], [0, 2], [4, 1], [4, 2]]);
    }

    #[test]
    fn an_odd_voxel_of_padding_goes_behind() {
        let padding = padding_to(&[3, 2, 9], &[5, 4]);
        assert_eq!(padding, Padding { shape: vec![3, 5, 9], inside: vec![0..3, 1..3, 0..9] });
    }
}
