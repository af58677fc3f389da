//! Images of an invented body, with the labels of its organs.
//!
//! A data set that anyone can make in seconds, wherever nnflow runs, is what tests, examples and benchmarks of the whole
//! method need; real images may not be passed on. It is of use only if it poses the questions that real images pose, so
//! a phantom has deformed organs whose shapes and places vary from case to case, boundaries that share voxels, tissue
//! with texture, structures that look like organs but are not labelled, and the faults of its modality: a bias field and
//! Rician noise in magnetic resonance, Hounsfield units and air in computed tomography. Intensity alone does not tell an
//! organ; intensity, shape and place together do.
//!
//! A case follows from the settings and its number alone.

mod acquisition;
mod anatomy;
mod noise;
mod render;
mod structure;

use ndarray::{Array3, Array4};
use serde::{Deserialize, Serialize};

use crate::{
    augment::Dimension,
    geometry::{GeometryError, Spacing},
    random::CounterRandom,
};

/// Organs that a body has, and so the most labels that there can be.
pub const MOST_LABELS: usize = anatomy::ORGANS.len();

/// Contrasts that a tissue has, and so the most channels that there can be.
pub const MOST_CHANNELS: usize = anatomy::CONTRASTS;

/// The fewest voxels of an axis: below, organs are too small to be drawn.
const FEWEST_VOXELS: usize = 16;

/// The most values of an image, 4 GiB of them: a slip in a workflow must not fill the memory.
const MOST_VALUES: usize = 1 << 30;

/// How an image is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Magnetic resonance: intensities of no fixed scale, each channel another contrast, zero outside the body.
    Mr,
    /// Computed tomography: Hounsfield units, each channel another phase of the contrast agent, -1000 outside the body.
    Ct,
}

/// What a data set of phantoms is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhantomSettings {
    /// Slices or volumes; a slice has one voxel along z.
    pub dimension: Dimension,
    /// Voxels along z, y and x of a case of average size; for slices the first is not used.
    pub shape: [usize; 3],
    /// How much the shape varies between cases: by up to this fraction, from 0 to 0.5.
    pub shape_variation: f64,
    /// Spacing in mm.
    pub spacing: Spacing,
    /// How it is taken.
    pub modality: Modality,
    /// Channels, from 1 to [`MOST_CHANNELS`].
    pub channels: usize,
    /// Labelled organs, from 1 to [`MOST_LABELS`]; label 1 is the largest.
    pub labels: usize,
    /// Another seed, another data set.
    pub seed: u64,
}

impl Default for PhantomSettings {
    fn default() -> Self {
        Self {
            dimension: Dimension::Three,
            shape: [64, 96, 96],
            shape_variation: 0.1,
            spacing: Spacing::new([3.0, 1.5, 1.5]).expect("invariant: positive"),
            modality: Modality::Mr,
            channels: 1,
            labels: 3,
            seed: 0,
        }
    }
}

/// One image of a body with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct PhantomCase {
    /// Intensities `[c, z, y, x]`.
    pub image: Array4<f32>,
    /// Labels `[z, y, x]`: 0 for all that is no labelled organ.
    pub labels: Array3<u8>,
    /// Spacing in mm.
    pub spacing: Spacing,
}

/// Why no phantom can be made of some settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PhantomError {
    /// An axis that is too short, or an image that is too large.
    #[error(
        "phantom shape `{shape:?}` (z, y, x) with `{channels}` channels is not usable: expected at least {FEWEST_VOXELS} voxels an axis and at most {MOST_VALUES} values"
    )]
    Shape {
        /// The shape asked for.
        shape: [usize; 3],
        /// The channels asked for.
        channels: usize,
    },
    /// A number out of its range.
    #[error("phantom setting `{field}` is `{found}`: expected from {least} to {most}")]
    Setting {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        found: f64,
        /// Smallest value.
        least: f64,
        /// Largest value.
        most: f64,
    },
    /// A spacing that is none.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
}

impl PhantomSettings {
    /// Makes case number `case`.
    ///
    /// # Errors
    /// The [`PhantomError`] that names the first setting out of its range.
    pub fn generate(&self, case: u32) -> Result<PhantomCase, PhantomError> {
        self.check()?;
        let random = CounterRandom::new(self.seed, [case, 0, 0]);
        let shape = self.shape_of_case(&mut random.fork(0));
        let body = anatomy::Body::draw(&random, self.dimension, self.modality, self.labels);
        let (mut image, labels) = render::render(&body, shape, self.channels, self.modality, &random);
        acquisition::acquire(&mut image, self.modality, &random);
        Ok(PhantomCase { image, labels, spacing: self.spacing })
    }

    fn check(&self) -> Result<(), PhantomError> {
        let in_range = |field, found: f64, least: f64, most: f64| {
            if (least..=most).contains(&found) {
                Ok(())
            } else {
                Err(PhantomError::Setting { field, found, least, most })
            }
        };
        in_range("labels", self.labels as f64, 1.0, MOST_LABELS as f64)?;
        in_range("channels", self.channels as f64, 1.0, MOST_CHANNELS as f64)?;
        in_range("shape_variation", self.shape_variation, 0.0, 0.5)?;
        let shape = self.axes();
        // With the largest variation an image has at most 1.5^3 times its average size.
        let values = shape.iter().try_fold(4 * self.channels, |product, extent| product.checked_mul(*extent));
        let long_enough = shape[1] >= FEWEST_VOXELS && shape[2] >= FEWEST_VOXELS;
        let deep_enough = self.dimension == Dimension::Two || shape[0] >= FEWEST_VOXELS;
        if long_enough && deep_enough && values.is_some_and(|values| values <= MOST_VALUES) {
            Ok(())
        } else {
            Err(PhantomError::Shape { shape: self.shape, channels: self.channels })
        }
    }

    fn axes(&self) -> [usize; 3] {
        let [depth, height, width] = self.shape;
        [if self.dimension == Dimension::Two { 1 } else { depth }, height, width]
    }

    fn shape_of_case(&self, random: &mut CounterRandom) -> [usize; 3] {
        self.axes().map(|extent| {
            let factor = random.range(1.0 - self.shape_variation, 1.0 + self.shape_variation);
            if extent == 1 { 1 } else { (extent as f64 * factor).round() as usize }
        })
    }
}

#[cfg(test)]
mod tests;
