//! Augmentation by operations on tensors, so that a GPU does it and not the threads beside it.
//!
//! Chance has had its say before: all that is drawn for a sample is drawn on the host from the sample's own stream, as for
//! [`Augmentation::apply`](nnflow_kernels::augment::Augmentation::apply), and comes here as numbers. So a sample does not
//! depend on where it is augmented, but for the last digits: sums in another order, another logarithm. Noise, which has a
//! number for each voxel, is computed here by the same generator; because its numbers follow from a counter, all of them can
//! be computed at once.
//!
//! Nothing here asks the device for a value. What depends on the voxels (means, ranges, positions) stays on the device, and
//! the host goes on to the next batch while the device works; to read a single number would be to wait for all before it.
//!
//! A sample is augmented by itself: its part of the image has its own extents, most transforms are not drawn for most samples,
//! and the few operations of each are large enough for a GPU where patches are volumes.

mod filter;
mod image;
mod intensity;
mod labels;
mod noise;
mod positions;
#[cfg(test)]
mod tests;

use ndarray::Array4;
use nnflow_kernels::augment::{AugmentationSettings, OUTSIDE, PendingSample};
use nnflow_kernels::spatial::{CentreOverlap, Interpolation, SpatialMap};
use tch::Tensor;
use tch::kind::Element;

use crate::device::Device;
use crate::error::TorchError;
use crate::shim::upload;
use positions::Positions;

/// What happens to the samples of a training, besides what is drawn for each.
#[derive(Debug, Clone)]
pub struct Augmenter {
    settings: AugmentationSettings,
    patch: [usize; 3],
    is_2d: bool,
    scales: Vec<[f64; 3]>,
}

/// Samples on a device, as a network takes them.
#[derive(Debug)]
pub(crate) struct Augmented {
    /// `[sample, channel, (z,) y, x]`.
    pub(crate) image: Tensor,
    /// For each supervised output, of 16 bits: `[sample, 1, (z,) y, x]`.
    pub(crate) labels: Vec<Tensor>,
}

impl Augmenter {
    /// The augmentation of patches of shape `patch`, which a 2-D network sees as slices, with labels at each of `scales`
    /// (fractions of the patch's extents).
    #[must_use]
    pub fn new(settings: AugmentationSettings, patch: [usize; 3], is_2d: bool, scales: Vec<[f64; 3]>) -> Self {
        Self { settings, patch, is_2d, scales }
    }

    /// Extents of a patch as the network sees it.
    pub(crate) fn extents(&self) -> &[usize] {
        &self.patch[usize::from(self.is_2d)..]
    }

    /// How many resolutions the labels are made at.
    pub(crate) fn n_targets(&self) -> usize {
        self.scales.len()
    }

    /// Does to samples what was drawn for each.
    ///
    /// # Reference
    /// As [`Augmentation::apply`](nnflow_kernels::augment::Augmentation::apply), then
    /// [`deep_supervision_targets`](nnflow_kernels::augment::deep_supervision_targets).
    pub(crate) fn apply(&self, samples: &[PendingSample], device: Device) -> Result<Augmented, TorchError> {
        let _guard = tch::no_grad_guard();
        let mut images = Vec::with_capacity(samples.len());
        let mut labels: Vec<Vec<Tensor>> = self.scales.iter().map(|_| Vec::new()).collect();
        for sample in samples {
            let (image, label) = self.sample(sample, device)?;
            images.push(self.seen(&image)?);
            for (labels, target) in labels.iter_mut().zip(labels::at_scales(&label, &self.scales)?) {
                labels.push(self.seen(&target)?);
            }
        }
        let stacked = |tensors: &Vec<Tensor>| Ok(Tensor::f_stack(tensors, 0)?);
        Ok(Augmented {
            image: stacked(&images)?,
            labels: labels.iter().map(stacked).collect::<Result<_, TorchError>>()?,
        })
    }

    /// A volume `[k, z, y, x]` as the network sees it.
    fn seen(&self, volume: &Tensor) -> Result<Tensor, TorchError> {
        if self.is_2d { Ok(volume.f_squeeze_dim(1)?) } else { Ok(volume.shallow_clone()) }
    }

    /// Image and labels of a patch, `[k, z, y, x]` each.
    fn sample(&self, sample: &PendingSample, device: Device) -> Result<(Tensor, Tensor), TorchError> {
        let PendingSample { drawn, map, previous, .. } = sample;
        let (image, mut labels) = (on_device(&sample.image, device)?, on_device(&sample.labels, device)?);
        let mut image = match map {
            None => centre_crop(&image, self.patch, 0.0)?,
            Some(map) => {
                placed(map, &image, self.patch, 0.0, device, |image, positions| match self.settings.interpolation {
                    Interpolation::Linear => image::linear(image, positions),
                    Interpolation::Cubic => image::cubic(image, positions),
                })?
            }
        };
        let mirrored: Vec<i64> =
            (1..).zip(drawn.mirror).filter_map(|(axis, is_mirrored)| is_mirrored.then_some(axis)).collect();
        image = intensity::transformed(drawn, &image, device)?.f_flip(&mirrored)?;
        // In a cascade the labels have been brought into place on the host.
        if previous.is_none() {
            let outside = f64::from(OUTSIDE);
            labels = match map {
                None => centre_crop(&labels, self.patch, outside)?,
                Some(map) => placed(map, &labels, self.patch, outside, device, labels::sampled)?,
            };
            labels = labels.f_flip(&mirrored)?;
        }
        let is_outside = labels.f_eq(i64::from(OUTSIDE))?;
        image = self.masked(&image, &is_outside.f_narrow(0, 0, 1)?)?;
        if let Some(previous) = previous {
            image = Tensor::f_cat(&[image, on_device(previous, device)?], 0)?;
        }
        Ok((image, labels.f_masked_fill(&is_outside, 0_i64)?))
    }

    /// Some channels are 0 outside of the region that cropping found.
    fn masked(&self, image: &Tensor, is_outside: &Tensor) -> Result<Tensor, TorchError> {
        let channel = |index: i64| -> Result<Tensor, TorchError> {
            let channel = image.f_narrow(0, index, 1)?;
            let is_masked = self.settings.masked_channels.iter().any(|&masked| masked as i64 == index);
            if is_masked { Ok(channel.f_masked_fill(is_outside, 0.0)?) } else { Ok(channel) }
        };
        if self.settings.masked_channels.is_empty() {
            return Ok(image.shallow_clone());
        }
        let channels = (0..image.size()[0]).map(channel).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&channels, 0)?)
    }
}

/// Samples a patch of `volumes` `[k, z, y, x]` through `map` with `sample`, which gets volumes of one slice where slices are
/// sampled each on its own.
fn placed(
    map: &SpatialMap,
    volumes: &Tensor,
    patch: [usize; 3],
    outside: f64,
    device: Device,
    sample: impl Fn(&Tensor, &Positions) -> Result<Tensor, TorchError>,
) -> Result<Tensor, TorchError> {
    let extents = shape(volumes);
    let positions = Positions::new(map, patch, extents, device)?;
    let [z, y, x] = patch.map(|extent| extent as i64);
    if !map.in_plane {
        return Ok(sample(volumes, &positions)?.f_view([-1, z, y, x])?);
    }
    let slices = centre_crop(volumes, [patch[0], extents[1], extents[2]], outside)?.f_flatten(0, 1)?.f_unsqueeze(1)?;
    Ok(sample(&slices, &positions)?.f_view([-1, z, y, x])?)
}

/// The middle of `volumes` `[k, z, y, x]`; where the patch reaches out of them it holds `outside`.
///
/// # Reference
/// As `nnflow_kernels::spatial::centre_crop`.
fn centre_crop(volumes: &Tensor, patch: [usize; 3], outside: f64) -> Result<Tensor, TorchError> {
    let (mut part, mut margins) = (volumes.shallow_clone(), Vec::new());
    for (axis, (extent, patch)) in (1..).zip(shape(volumes).into_iter().zip(patch)) {
        let CentreOverlap { first_in_source, first_in_patch, length } = CentreOverlap::of(extent, patch);
        part = part.f_narrow(axis, first_in_source as i64, length as i64)?;
        // Margins are counted from the last axis on.
        margins.splice(0..0, [first_in_patch as i64, (patch - first_in_patch - length) as i64]);
    }
    if margins.iter().any(|&margin| margin > 0) {
        return Ok(part.f_pad(&margins, "constant", Some(outside))?);
    }
    Ok(part)
}

fn shape(volumes: &Tensor) -> [usize; 3] {
    let extents = volumes.size();
    [1, 2, 3].map(|axis| extents[axis] as usize)
}

fn on_device<T: Element + Copy>(array: &Array4<T>, device: Device) -> Result<Tensor, TorchError> {
    let shape: Vec<i64> = array.shape().iter().map(|&extent| extent as i64).collect();
    match array.as_slice() {
        Some(values) => upload(values, &shape, device),
        None => upload(&array.iter().copied().collect::<Vec<T>>(), &shape, device),
    }
}
