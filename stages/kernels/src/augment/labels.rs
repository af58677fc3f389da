//! What is done to labels on their way to the loss.

use ndarray::{Array4, ArrayView3, ArrayView4, Axis, Zip, concatenate, s};

use super::low_resolution::{nearest_exact, scaled_extents};

/// Replaces the label `from` by `to` everywhere.
pub fn replace_label(labels: &mut Array4<i16>, from: i16, to: i16) {
    labels.mapv_inplace(|label| if label == from { to } else { label });
}

/// Sets the listed channels of `image` `[c, z, y, x]` to 0 where the first channel of `labels` is negative, that is
/// outside the region that cropping found.
///
/// Channels that the image does not have are left out.
pub fn mask_outside(image: &mut Array4<f32>, labels: ArrayView4<'_, i16>, channels: &[usize]) {
    for &channel in channels {
        if channel < image.len_of(Axis(0)) && labels.len_of(Axis(0)) > 0 {
            Zip::from(image.index_axis_mut(Axis(0), channel)).and(labels.index_axis(Axis(0), 0)).for_each(
                |value, label| {
                    if *label < 0 {
                        *value = 0.0;
                    }
                },
            );
        }
    }
}

/// One channel for each region, 1 where the label is one of the region's: `[r, z, y, x]`.
///
/// A dataset with an ignore label appends it as a region of its own.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6 `ConvertSegmentationToRegionsTransform`.
#[must_use]
pub fn regions_to_channels(labels: ArrayView3<'_, i16>, regions: &[Vec<i16>]) -> Array4<u8> {
    let (depth, height, width) = labels.dim();
    let mut channels = Array4::zeros((regions.len(), depth, height, width));
    for (region, mut channel) in regions.iter().zip(channels.outer_iter_mut()) {
        Zip::from(&mut channel).and(labels).for_each(|value, label| *value = u8::from(region.contains(label)));
    }
    channels
}

/// Appends a channel to `image` for each of `all_labels`, 1 where `previous` has that label and 0 elsewhere.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6 `MoveSegAsOneHotToDataTransform`.
///
/// # Panics
/// If `previous` does not have the image's extent.
#[must_use]
pub fn append_one_hot(image: ArrayView4<'_, f32>, previous: ArrayView3<'_, i16>, all_labels: &[i16]) -> Array4<f32> {
    concatenate![Axis(0), image, one_hot(previous, all_labels)]
}

/// A channel for each of `all_labels`, 1 where `labels` has that label and 0 elsewhere.
pub(super) fn one_hot(labels: ArrayView3<'_, i16>, all_labels: &[i16]) -> Array4<f32> {
    let (depth, height, width) = labels.dim();
    let mut channels = Array4::zeros((all_labels.len(), depth, height, width));
    for (&expected, mut channel) in all_labels.iter().zip(channels.outer_iter_mut()) {
        Zip::from(&mut channel).and(labels).for_each(|value, label| *value = f32::from(u8::from(*label == expected)));
    }
    channels
}

/// The labels at each of `scales` (fractions of the extent of axes z, y and x), each voxel the nearest of the original.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6 `DownsampleSegForDSTransform`: torch's `nearest-exact`, to the extents rounded half
/// to even.
#[must_use]
pub fn deep_supervision_targets(labels: ArrayView4<'_, i16>, scales: &[[f64; 3]]) -> Vec<Array4<i16>> {
    scales.iter().map(|scale| downscale(labels, *scale)).collect()
}

fn downscale(labels: ArrayView4<'_, i16>, scale: [f64; 3]) -> Array4<i16> {
    let (channels, depth, height, width) = labels.dim();
    let shape = [depth, height, width];
    let target = scaled_extents(shape, scale);
    if scale == [1.0; 3] || labels.is_empty() {
        return labels.to_owned();
    }
    let sources: [Vec<usize>; 3] = std::array::from_fn(|axis| {
        (0..target[axis]).map(|index| nearest_exact(index, shape[axis], target[axis])).collect()
    });
    let mut result = Array4::zeros((channels, target[0], target[1], target[2]));
    for (channel, mut volume) in result.outer_iter_mut().enumerate() {
        for (mut slice, &z) in volume.outer_iter_mut().zip(&sources[0]) {
            for (mut row, &y) in slice.outer_iter_mut().zip(&sources[1]) {
                let source = labels.slice(s![channel, z, y, ..]);
                for (value, &x) in row.iter_mut().zip(&sources[2]) {
                    *value = source[x];
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_voxel_belongs_to_every_region_that_names_its_label() {
        let channels = regions_to_channels(array![[[0, 1, 2, -1]]].view(), &[vec![1, 2], vec![2], vec![-1]]);
        assert_eq!(channels, array![[[[0, 1, 1, 0]]], [[[0, 0, 1, 0]]], [[[0, 0, 0, 1]]]]);
    }

    #[test]
    fn channels_that_are_not_there_are_not_masked() {
        let mut image = Array4::from_elem((1, 1, 1, 2), 5.0);
        mask_outside(&mut image, array![[[[-1, 0]]]].view(), &[0, 3]);
        assert_eq!(image, array![[[[0.0, 5.0]]]]);
    }

    #[test]
    fn each_stage_has_its_own_target() {
        let labels = Array4::from_shape_fn((1, 1, 1, 8), |(_, _, _, x)| x as i16);
        let targets = deep_supervision_targets(labels.view(), &[[1.0; 3], [1.0, 1.0, 0.5], [1.0, 1.0, 0.25]]);
        assert_eq!(targets[0], labels);
        assert_eq!(targets[1], array![[[[1, 3, 5, 7]]]]);
        assert_eq!(targets[2], array![[[[2, 6]]]]);
    }
}
