//! nnU-Net's normalisation schemes.

use ndarray::{ArrayView3, ArrayViewMut3, Zip};

use super::{IntensityError, IntensityStatistics, mean_and_deviation, range};

/// A standard deviation, or a largest value, below this divides by this instead (nnU-Net 2.8.1 `eps`).
const SMALLEST_DIVISOR: f64 = 1e-8;
/// The largest value of an 8-bit image.
const RGB_MAX: f32 = 255.0;

/// Subtracts the mean and divides by the standard deviation: those of the whole image, or of the voxels inside `mask`,
/// in which case the voxels outside stay as they are.
///
/// # Errors
/// [`IntensityError::MaskShape`] if the mask has another shape than the image.
///
/// # Reference
/// nnU-Net 2.8.1 `ZScoreNormalization`, which has the sums in float32.
pub fn zscore(mut image: ArrayViewMut3<'_, f32>, mask: Option<ArrayView3<'_, bool>>) -> Result<(), IntensityError> {
    let Some((mean, deviation)) = mean_and_deviation(image.view(), mask)? else {
        return Ok(());
    };
    let standardize = standardizer(mean, deviation);
    match mask {
        None => image.par_map_inplace(|value| *value = standardize(*value)),
        Some(mask) => Zip::from(image).and(mask).par_for_each(|value, &inside| {
            if inside {
                *value = standardize(*value);
            }
        }),
    }
    Ok(())
}

/// Clips to the 0.5th and the 99.5th percentile of the dataset's foreground, then subtracts its mean and divides by its
/// standard deviation: for CT, whose intensities mean the same in every image.
///
/// # Reference
/// nnU-Net 2.8.1 `CTNormalization`.
pub fn clip_zscore(mut image: ArrayViewMut3<'_, f32>, foreground: &IntensityStatistics) {
    let (low, high) = (foreground.percentile_00_5 as f32, foreground.percentile_99_5 as f32);
    let standardize = standardizer(foreground.mean, foreground.std);
    // Not `clamp`, which panics where a damaged plan has the bounds the wrong way round.
    image.par_map_inplace(|value| *value = standardize(value.max(low).min(high)));
}

/// Brings the smallest value to 0 and the largest to 1.
///
/// # Reference
/// nnU-Net 2.8.1 `RescaleTo01Normalization`.
pub fn rescale_0_1(mut image: ArrayViewMut3<'_, f32>) {
    let (low, high) = range(image.view());
    let divisor = (high - low).max(SMALLEST_DIVISOR as f32);
    image.par_map_inplace(|value| *value = (*value - low) / divisor);
}

/// Divides the values of an 8-bit image by 255.
///
/// # Errors
/// [`IntensityError::NotRgb`] if a value is below 0 or above 255; the image is then left as it is.
///
/// # Reference
/// nnU-Net 2.8.1 `RGBTo01Normalization`.
pub fn rgb_0_1(mut image: ArrayViewMut3<'_, f32>) -> Result<(), IntensityError> {
    let (low, high) = range(image.view());
    if low < 0.0 || high > RGB_MAX {
        return Err(IntensityError::NotRgb { low, high });
    }
    image.par_map_inplace(|value| *value /= RGB_MAX);
    Ok(())
}

fn standardizer(mean: f64, deviation: f64) -> impl Fn(f32) -> f32 + Sync + Send {
    let divisor = deviation.max(SMALLEST_DIVISOR);
    move |value| ((f64::from(value) - mean) / divisor) as f32
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    #[test]
    fn zscore_of_the_whole_image() {
        let mut image = array![[[1.0, 3.0]]];
        zscore(image.view_mut(), None).expect("no mask");
        assert_eq!(image, array![[[-1.0, 1.0]]]);
    }

    #[test]
    fn zscore_within_a_mask_leaves_the_outside_alone() {
        let mut image = array![[[1.0, 3.0, 0.0]]];
        zscore(image.view_mut(), Some(array![[[true, true, false]]].view())).expect("same shape");
        assert_eq!(image, array![[[-1.0, 1.0, 0.0]]]);
    }

    #[test]
    fn a_constant_image_becomes_zero() {
        let mut image = Array3::from_elem((2, 2, 2), 7.0);
        zscore(image.view_mut(), None).expect("no mask");
        assert_eq!(image, Array3::from_elem((2, 2, 2), 0.0));
    }

    #[test]
    fn ct_is_clipped_before_it_is_scaled() {
        let foreground = IntensityStatistics {
            max: 9.0,
            mean: 10.0,
            median: 0.0,
            min: 0.0,
            percentile_00_5: -10.0,
            percentile_99_5: 30.0,
            std: 20.0,
        };
        let mut image = array![[[-1000.0, 10.0, 3000.0]]];
        clip_zscore(image.view_mut(), &foreground);
        assert_eq!(image, array![[[-1.0, 0.0, 1.0]]]);
    }

    #[test]
    fn rescaling_reaches_from_0_to_1() {
        let mut image = array![[[-2.0, 0.0, 2.0]]];
        rescale_0_1(image.view_mut());
        assert_eq!(image, array![[[0.0, 0.5, 1.0]]]);
    }

    #[test]
    fn a_value_above_255_is_no_rgb() {
        let mut image = array![[[0.0, 256.0]]];
        assert_eq!(rgb_0_1(image.view_mut()), Err(IntensityError::NotRgb { low: 0.0, high: 256.0 }));
        assert_eq!(image, array![[[0.0, 256.0]]]);
    }
}
