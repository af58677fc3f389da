//! Intensities: their statistics, and bringing them to a common scale.
//!
//! Sums run over blocks of a fixed size and the blocks' sums are added in pairs, so a mean is the same to the last bit
//! however many threads work on it: it ends up in the plan, and with that in the keys of all that follows.

mod counts;
mod normalize;

use ndarray::{ArrayView3, Zip};
use rayon::prelude::*;

pub use counts::{IntensityStatistics, Precision, ValueCounts};
pub use normalize::{clip_zscore, rescale_0_1, rgb_0_1, zscore};

/// Voxels that are summed up one after the other.
const BLOCK: usize = 4096;

/// Why intensities cannot be measured or changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IntensityError {
    /// A mask of another shape than its image.
    #[error("the mask has shape `{mask:?}`, its image `{image:?}`")]
    MaskShape {
        /// Shape of the image.
        image: [usize; 3],
        /// Shape of the mask.
        mask: [usize; 3],
    },
    /// Values that cannot be those of an 8-bit image.
    #[error("the values reach from `{low}` to `{high}`, expected those of an RGB image, from 0 to 255")]
    NotRgb {
        /// The smallest value.
        low: f32,
        /// The largest value.
        high: f32,
    },
}

/// The mean and the standard deviation (divided by the number of values, not by one less) of an image's voxels, or of
/// those inside a mask; none where there is no voxel.
///
/// # Errors
/// [`IntensityError::MaskShape`] if the mask has another shape than the image.
pub fn mean_and_deviation(
    image: ArrayView3<'_, f32>,
    mask: Option<ArrayView3<'_, bool>>,
) -> Result<Option<(f64, f64)>, IntensityError> {
    check_mask(image, mask)?;
    let image = image.as_standard_layout();
    let values = image.as_slice().expect("invariant: standard layout");
    let mask = mask.map(|mask| mask.as_standard_layout().into_owned());
    let inside = mask.as_ref().map(|mask| mask.as_slice().expect("invariant: standard layout"));
    let count = inside.map_or(values.len(), |inside| inside.iter().filter(|&&inside| inside).count());
    if count == 0 {
        return Ok(None);
    }
    let mean = sum_over(values, inside, |value| value) / count as f64;
    let variance = sum_over(values, inside, |value| (value - mean) * (value - mean)) / count as f64;
    Ok(Some((mean, variance.sqrt())))
}

fn check_mask(image: ArrayView3<'_, f32>, mask: Option<ArrayView3<'_, bool>>) -> Result<(), IntensityError> {
    match mask {
        Some(mask) if mask.dim() != image.dim() => {
            Err(IntensityError::MaskShape { image: image.dim().into(), mask: mask.dim().into() })
        }
        _ => Ok(()),
    }
}

/// The smallest and the largest value; positive and negative infinity where there is none.
fn range(image: ArrayView3<'_, f32>) -> (f32, f32) {
    let nothing = || (f32::INFINITY, f32::NEG_INFINITY);
    let widen = |(low, high): (f32, f32), &value: &f32| (low.min(value), high.max(value));
    let merge = |first: (f32, f32), second: (f32, f32)| (first.0.min(second.0), first.1.max(second.1));
    let (low, high) = Zip::from(image).par_fold(nothing, widen, merge);
    // Which of 0.0 and -0.0 is the smaller would depend on how the voxels were shared out; adding 0.0 makes both 0.0.
    (low + 0.0, high + 0.0)
}

fn sum_over(values: &[f32], inside: Option<&[bool]>, term: impl Fn(f64) -> f64 + Sync) -> f64 {
    let blocks: Vec<f64> = match inside {
        None => values.par_chunks(BLOCK).map(|block| block.iter().map(|&value| term(f64::from(value))).sum()).collect(),
        Some(inside) => {
            let sum_block = |(block, inside): (&[f32], &[bool])| {
                let kept = block.iter().zip(inside).filter(|(_, inside)| **inside);
                kept.map(|(&value, _)| term(f64::from(value))).sum()
            };
            values.par_chunks(BLOCK).zip(inside.par_chunks(BLOCK)).map(sum_block).collect()
        }
    };
    pairwise_sum(&blocks)
}

/// Adds halves that were added in the same way, so that the rounding errors grow with the logarithm of the length.
fn pairwise_sum(terms: &[f64]) -> f64 {
    match terms.len() {
        0..=8 => terms.iter().sum(),
        length => {
            let (first, second) = terms.split_at(length / 2);
            pairwise_sum(first) + pairwise_sum(second)
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    #[test]
    fn the_deviation_divides_by_the_number_of_voxels() {
        let image = array![[[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]]];
        assert_eq!(mean_and_deviation(image.view(), None), Ok(Some((5.0, 2.0))));
    }

    #[test]
    fn a_mask_leaves_the_other_voxels_out() {
        let image = array![[[1.0, 3.0, 1000.0]]];
        let mask = array![[[true, true, false]]];
        assert_eq!(mean_and_deviation(image.view(), Some(mask.view())), Ok(Some((2.0, 1.0))));
    }

    #[test]
    fn no_voxel_has_no_mean() {
        let image = array![[[1.0]]];
        assert_eq!(mean_and_deviation(image.view(), Some(array![[[false]]].view())), Ok(None));
    }

    #[test]
    fn a_mask_of_another_shape_is_an_error() {
        let mask = Array3::from_elem((1, 1, 2), true);
        let result = mean_and_deviation(Array3::zeros((1, 1, 3)).view(), Some(mask.view()));
        assert_eq!(result, Err(IntensityError::MaskShape { image: [1, 1, 3], mask: [1, 1, 2] }));
    }

    #[test]
    fn a_small_variance_on_a_large_mean_survives() {
        // In f32 the squares of these values would swallow the differences.
        let image = Array3::from_shape_fn((2, 50, 100), |(z, _, _)| 1_000_000.0 + z as f32);
        let (mean, deviation) = mean_and_deviation(image.view(), None).expect("no mask").expect("voxels");
        assert!((mean - 1_000_000.5).abs() < 1e-9 && (deviation - 0.5).abs() < 1e-9);
    }
}
