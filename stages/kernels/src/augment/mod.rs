//! Augmentation of training samples, as nnU-Net v2 and nnU-Net's first version (2018) do it.
//!
//! Both are one pipeline in one order, with different probabilities: 2018 sets those of noise, blur, brightness, contrast
//! and low resolution to zero and that of elastic deformation above it. An [`Augmentation`] first draws what happens to a
//! sample, then applies it; a sample's random numbers come from its own stream, so that it does not matter which thread
//! prepares it, or when.

mod cascade;
mod draw;
pub(crate) mod elementary;
mod intensity;
mod labels;
mod low_resolution;
mod mirror;
mod pending;
mod settings;

pub use cascade::{apply_operator, remove_component};
pub use draw::{Drawn, DrawnElastic, DrawnNoise, DrawnOperator, DrawnRemoval, ForChannel, Operator};
pub use elementary::PAIRS as NOISE_PAIRS;
pub use intensity::{add_noise, gamma, scale_brightness, stretch_contrast};
pub use labels::{append_one_hot, deep_supervision_targets, mask_outside, regions_to_channels, replace_label};
pub use low_resolution::{low_resolution, scaled_extents, simulate_low_resolution};
pub use mirror::mirror;
pub use pending::PendingSample;
pub use settings::{
    AugmentationSettings, Cascade, DUMMY_2D_ABOVE, Dimension, Elastic, ForAllChannels, ForSomeChannels, Mirror, Noise,
    Range, Rotation, Scaling,
};

use ndarray::{Array4, ArrayView4, ArrayViewMut3, Axis, concatenate};

use self::labels::one_hot;
use crate::{
    filter::{Border, Kernel, smooth},
    random::CounterRandom,
    spatial::{SpatialMap, centre_crop, sample_image, sample_labels},
};

/// The label of voxels outside of the image, or of the nonzero region of it.
pub const OUTSIDE: i16 = -1;

/// A patch of an image with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Intensities `[c, z, y, x]`.
    pub image: Array4<f32>,
    /// Labels `[l, z, y, x]`: channel 0 the reference, channel 1 the labels of the stage before, in a cascade. -1 stands
    /// for voxels outside.
    pub labels: Array4<i16>,
}

/// Why settings or a sample are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AugmentError {
    /// A probability that is none.
    #[error("augmentation setting `{field}` is `{found}`: expected a probability from 0 to 1")]
    Probability {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        found: f64,
    },
    /// A range whose ends are in the wrong order or not numbers.
    #[error("range from `{low}` to `{high}` is not usable: expected two finite numbers, the lower one first")]
    Range {
        /// First number.
        low: f64,
        /// Second number.
        high: f64,
    },
    /// A range that leaves the numbers that make sense.
    #[error(
        "augmentation setting `{field}` goes from `{low}` to `{high}`: expected to stay within `{least}` to `{most}`"
    )]
    Bounds {
        /// Name of the setting.
        field: &'static str,
        /// Where the range starts.
        low: f64,
        /// Where the range ends.
        high: f64,
        /// Where it may start.
        least: f64,
        /// Where it may end.
        most: f64,
    },
    /// An axis that images do not have.
    #[error("mirrored axis `{found}` does not exist: expected 0 (z), 1 (y) or 2 (x)")]
    Axis {
        /// The axis asked for.
        found: usize,
    },
    /// Image and labels of different extent.
    #[error("labels of extent `{labels:?}` (z, y, x) do not fit an image of extent `{image:?}`")]
    Extent {
        /// Extent of the image.
        image: Vec<usize>,
        /// Extent of the labels.
        labels: Vec<usize>,
    },
    /// Too few or too many label channels.
    #[error(
        "a sample has `{found}` label channels: expected `{expected}`, the reference and, in a cascade, the labels of the stage before"
    )]
    LabelChannels {
        /// What the settings ask for.
        expected: usize,
        /// What the sample has.
        found: usize,
    },
    /// A sample without voxels.
    #[error("a sample of shape `{found:?}` (c, z, y, x) has no voxels")]
    Empty {
        /// Shape of the image.
        found: Vec<usize>,
    },
}

/// The augmentation of one training run.
#[derive(Debug, Clone)]
pub struct Augmentation {
    settings: AugmentationSettings,
}

impl Augmentation {
    /// Checks and takes settings.
    ///
    /// # Errors
    /// The [`AugmentError`] that names the first setting out of its bounds.
    pub fn new(settings: AugmentationSettings) -> Result<Self, AugmentError> {
        settings.check()?;
        Ok(Self { settings })
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &AugmentationSettings {
        &self.settings
    }

    /// Decides what happens to a sample with `channels` image channels (without those of the stage before).
    ///
    /// `random` is the sample's own stream, e.g. `CounterRandom::new(seed, [epoch, iteration, sample])`; it is only forked.
    #[must_use]
    pub fn draw(&self, random: &CounterRandom, channels: usize) -> Drawn {
        self.settings.draw(random, channels)
    }

    /// Does to a sample what was drawn, and cuts it to shape `patch`; labels outside become 0, and the labels of the stage
    /// before move into image channels.
    ///
    /// The sample may be of any shape; its centre becomes the centre of the patch. See [`Drawn::window`] for how much of
    /// it is used.
    ///
    /// # Errors
    /// [`AugmentError::Extent`], [`AugmentError::LabelChannels`] or [`AugmentError::Empty`] if the sample is not as the
    /// settings expect it.
    pub fn apply(&self, drawn: &Drawn, sample: Sample, patch: [usize; 3]) -> Result<Sample, AugmentError> {
        self.check(&sample)?;
        let map = drawn.spatial_map(patch);
        let mut image = match &map {
            None => centre_crop(sample.image.view(), patch, 0.0),
            Some(map) => sample_image(sample.image.view(), map, patch, self.settings.interpolation),
        };
        transform_intensities(drawn, &mut image);
        mirror(&mut image, drawn.mirror);
        let labels = placed_labels(drawn, map.as_ref(), sample.labels.view(), patch);
        mask_outside(&mut image, labels.view(), &self.settings.masked_channels);
        Ok(self.finish(drawn, Sample { image, labels }))
    }

    /// Prepares a sample that is not augmented, for validation: labels outside become 0, and the labels of the stage
    /// before move into image channels.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn prepare_validation(&self, sample: Sample) -> Result<Sample, AugmentError> {
        self.check(&sample)?;
        Ok(self.finish(&Drawn::default(), sample))
    }

    fn check(&self, sample: &Sample) -> Result<(), AugmentError> {
        let (image, labels) = (sample.image.shape(), sample.labels.shape());
        if image[1..] != labels[1..] {
            return Err(AugmentError::Extent { image: image[1..].to_vec(), labels: labels[1..].to_vec() });
        }
        let expected = if self.settings.cascade.is_some() { 2 } else { 1 };
        if labels[0] != expected {
            return Err(AugmentError::LabelChannels { expected, found: labels[0] });
        }
        if sample.image.is_empty() { Err(AugmentError::Empty { found: image.to_vec() }) } else { Ok(()) }
    }

    fn finish(&self, drawn: &Drawn, mut sample: Sample) -> Sample {
        replace_label(&mut sample.labels, OUTSIDE, 0);
        let Some(previous) = self.previous_stage(drawn, &sample.labels) else { return sample };
        let image = concatenate![Axis(0), sample.image, previous];
        let labels = sample.labels.slice_move(ndarray::s![..1, .., .., ..]).as_standard_layout().into_owned();
        Sample { image, labels }
    }

    /// The channels for the stage before, in a cascade, with what was drawn done to them; `labels` has none outside.
    fn previous_stage(&self, drawn: &Drawn, labels: &Array4<i16>) -> Option<Array4<f32>> {
        let cascade = self.settings.cascade.as_ref()?;
        let mut channels = one_hot(labels.index_axis(Axis(0), 1), &cascade.labels);
        for operator in &drawn.operators {
            apply_operator(&mut channels, 0, operator);
        }
        for removal in &drawn.removals {
            if removal.label < channels.len_of(Axis(0)) {
                remove_component(channels.index_axis_mut(Axis(0), removal.label), cascade.removal_below, removal);
            }
        }
        Some(channels)
    }
}

/// The labels of a patch, sampled and mirrored; those outside of the source are [`OUTSIDE`].
fn placed_labels(
    drawn: &Drawn,
    map: Option<&SpatialMap>,
    labels: ArrayView4<'_, i16>,
    patch: [usize; 3],
) -> Array4<i16> {
    let mut placed = match map {
        None => centre_crop(labels, patch, OUTSIDE),
        Some(map) => sample_labels(labels, map, patch, OUTSIDE),
    };
    mirror(&mut placed, drawn.mirror);
    placed
}

/// Transforms 2 to 8 of nnU-Net's list, in its order.
fn transform_intensities(drawn: &Drawn, image: &mut Array4<f32>) {
    if let Some(noise) = &drawn.noise {
        for (channel, voxels) in channel_slices(image).enumerate() {
            add_noise(voxels, noise.deviation, &mut CounterRandom::new(noise.seed, [channel as u32, 0, 0]));
        }
    }
    for blur in &drawn.blur {
        if let Some(channel) = channel_mut(image, blur.channel) {
            blur_channel(channel, blur.values);
        }
    }
    for (voxels, factor) in channel_slices(image).zip(&drawn.brightness) {
        scale_brightness(voxels, *factor);
    }
    for (voxels, factor) in channel_slices(image).zip(&drawn.contrast) {
        stretch_contrast(voxels, *factor);
    }
    for low in &drawn.low_resolution {
        if let Some(channel) = channel_mut(image, low.channel) {
            simulate_low_resolution(channel, low.values);
        }
    }
    for (voxels, exponent) in channel_slices(image).zip(&drawn.inverted_gamma) {
        gamma(voxels, *exponent, true);
    }
    for (voxels, exponent) in channel_slices(image).zip(&drawn.gamma) {
        gamma(voxels, *exponent, false);
    }
}

/// nnU-Net's blur, with a standard deviation in voxels for each axis; an axis of one voxel has nothing to be blurred with.
///
/// # Reference
/// batchgeneratorsv2 0.3.6 `GaussianBlurTransform`.
pub fn blur_channel(channel: ArrayViewMut3<'_, f32>, sigma: [f64; 3]) {
    let (depth, height, width) = channel.dim();
    smooth(channel, &blur_kernels([depth, height, width], sigma), Border::Mirror);
}

/// The kernels of [`blur_channel`] for a channel of this shape.
#[must_use]
pub fn blur_kernels(shape: [usize; 3], sigma: [f64; 3]) -> [Kernel; 3] {
    std::array::from_fn(|axis| Kernel::nearest_odd(if shape[axis] > 1 { sigma[axis] } else { 0.0 }))
}

/// The voxels of each channel.
fn channel_slices(image: &mut Array4<f32>) -> impl Iterator<Item = &mut [f32]> {
    let (_, depth, height, width) = image.dim();
    let size = (depth * height * width).max(1);
    image.as_slice_mut().expect("invariant: a sampled or cropped image is one slice").chunks_exact_mut(size)
}

/// A channel, where there is one: parameters may have been drawn for an image of more channels.
fn channel_mut(image: &mut Array4<f32>, channel: usize) -> Option<ArrayViewMut3<'_, f32>> {
    (channel < image.len_of(Axis(0))).then(|| image.index_axis_mut(Axis(0), channel))
}

#[cfg(test)]
mod tests;
