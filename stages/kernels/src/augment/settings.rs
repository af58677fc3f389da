//! Every probability and range of the augmentation, and nnU-Net's values for them.

use serde::{Deserialize, Serialize};

use super::AugmentError;
use crate::{random::CounterRandom, spatial::Interpolation};

/// A patch whose longest axis is more than this many times its axis 0 is transformed slice by slice, as nnU-Net's code
/// has it; the paper of 2018 says 2.
pub const DUMMY_2D_ABOVE: f64 = 3.0;

/// A patch of a 2-D network longer than this in one axis is rotated a little only (v2).
const ELONGATED_ABOVE: f64 = 1.5;

/// The smallest scale that nnU-Net makes room for when it reads a patch, in both of its versions.
const SCALE_IN_MARGIN: f64 = 0.85;

/// Whether a network sees slices or volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dimension {
    /// Patches `[1, y, x]`.
    #[serde(rename = "2d")]
    Two,
    /// Patches `[z, y, x]`.
    #[serde(rename = "3d")]
    Three,
}

/// The two ends of an interval that a number is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 2]", into = "[f64; 2]")]
pub struct Range {
    low: f64,
    high: f64,
}

impl Range {
    /// Checks and wraps the two ends.
    ///
    /// # Errors
    /// [`AugmentError::Range`] unless both are finite and `low` is not above `high`.
    pub fn new(low: f64, high: f64) -> Result<Self, AugmentError> {
        let usable = low.is_finite() && high.is_finite() && low <= high;
        if usable { Ok(Self { low, high }) } else { Err(AugmentError::Range { low, high }) }
    }

    const fn constant(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    /// The lower end.
    #[must_use]
    pub fn low(self) -> f64 {
        self.low
    }

    /// The upper end.
    #[must_use]
    pub fn high(self) -> f64 {
        self.high
    }

    /// A number of the interval, each equally likely.
    pub(super) fn uniform(self, random: &mut CounterRandom) -> f64 {
        random.range(self.low, self.high)
    }

    /// A factor that is as often below 1 as above: nnU-Net's `BGContrast`.
    pub(super) fn about_one(self, random: &mut CounterRandom) -> f64 {
        if random.chance(0.5) && self.low < 1.0 {
            random.range(self.low, 1.0)
        } else {
            random.range(self.low.max(1.0), self.high)
        }
    }
}

impl TryFrom<[f64; 2]> for Range {
    type Error = AugmentError;

    fn try_from([low, high]: [f64; 2]) -> Result<Self, AugmentError> {
        Self::new(low, high)
    }
}

impl From<Range> for [f64; 2] {
    fn from(range: Range) -> Self {
        [range.low, range.high]
    }
}

/// Rotation, by an angle for each axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Of a sample to be rotated.
    pub probability: f64,
    /// Of each angle, in degrees.
    pub degrees: Range,
}

/// Scaling, by one factor for all axes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Of a sample to be scaled.
    pub probability: f64,
    /// Of the factor; above 1 objects become smaller.
    pub factor: Range,
    /// Whether factors below and above 1 are drawn equally often, rather than uniformly.
    pub about_one: bool,
}

/// Elastic deformation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elastic {
    /// Of a sample to be deformed.
    pub probability: f64,
    /// Of the factor that the smoothed noise is multiplied by (alpha).
    pub magnitude: Range,
    /// Of the standard deviation of the smoothing, in voxels (sigma).
    pub sigma: Range,
}

/// Gaussian noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Of a sample to get noise.
    pub probability: f64,
    /// Of the standard deviation, one for all channels.
    pub deviation: Range,
}

/// What is done to some channels of a sample, with a number drawn for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForSomeChannels {
    /// Of a sample to be changed at all.
    pub probability: f64,
    /// Of each of its channels to be changed.
    pub channel_probability: f64,
    /// Of the number: the standard deviation of a blur in voxels, the resolution that is left.
    pub range: Range,
}

/// What is done to all channels of a sample, with a number drawn for each, equally often below and above 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForAllChannels {
    /// Of a sample to be changed.
    pub probability: f64,
    /// Of the number: the factor of brightness or contrast, the exponent of gamma.
    pub range: Range,
}

/// Mirroring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Of each axis to be mirrored.
    pub probability: f64,
    /// The axes that may be, of 0 (z), 1 (y) and 2 (x).
    pub axes: Vec<usize>,
}

/// What is done to the segmentation of the stage before, in a cascade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cascade {
    /// The labels that become image channels, in this order.
    pub labels: Vec<i16>,
    /// Of a sample to have labels dilated, eroded, closed or opened.
    pub operator_probability: f64,
    /// Of each label of it.
    pub operator_label_probability: f64,
    /// Of the ball's radius in voxels.
    pub radius: Range,
    /// Of a sample to lose components.
    pub removal_probability: f64,
    /// Of each label of it to lose one.
    pub removal_label_probability: f64,
    /// A component that covers this share of the patch or more stays.
    pub removal_below: f64,
}

/// All that decides how samples are augmented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentationSettings {
    /// Whether slices are transformed each on its own and alike: for 2-D networks, and for very anisotropic patches.
    pub in_plane: bool,
    /// How intensities between voxels are found.
    pub interpolation: Interpolation,
    /// Rotation.
    pub rotation: Rotation,
    /// Scaling.
    pub scaling: Scaling,
    /// Elastic deformation.
    pub elastic: Elastic,
    /// Gaussian noise.
    pub noise: Noise,
    /// Gaussian blur.
    pub blur: ForSomeChannels,
    /// Multiplication.
    pub brightness: ForAllChannels,
    /// Stretching about the mean.
    pub contrast: ForAllChannels,
    /// Simulated low resolution.
    pub low_resolution: ForSomeChannels,
    /// Gamma of the inverted image.
    pub inverted_gamma: ForAllChannels,
    /// Gamma.
    pub gamma: ForAllChannels,
    /// Mirroring.
    pub mirror: Mirror,
    /// Channels that are 0 outside the nonzero region (those normalised within it).
    pub masked_channels: Vec<usize>,
    /// The stage before, where there is one.
    pub cascade: Option<Cascade>,
}

impl Cascade {
    /// nnU-Net v2's values for these labels of the stage before.
    #[must_use]
    pub fn nnunet_v2(labels: Vec<i16>) -> Self {
        Self {
            labels,
            operator_probability: 0.4,
            operator_label_probability: 0.5,
            radius: Range::constant(1.0, 8.0),
            removal_probability: 0.2,
            removal_label_probability: 0.5,
            removal_below: 0.15,
        }
    }

    /// The values of nnU-Net's first version: as in v2, but every label of a sample is changed.
    ///
    /// There the removal of components did nothing, because two arguments were swapped; here it does what the paper says.
    #[must_use]
    pub fn nnunet_2018(labels: Vec<i16>) -> Self {
        Self { operator_label_probability: 1.0, removal_label_probability: 1.0, ..Self::nnunet_v2(labels) }
    }
}

impl AugmentationSettings {
    /// What nnU-Net 2.8.1 does to patches of this shape (`nnUNetTrainer.get_training_transforms` and
    /// `configure_rotation_dummyDA_mirroring_and_inital_patch_size`); `dummy_2d_above` is [`DUMMY_2D_ABOVE`] there.
    #[must_use]
    pub fn nnunet_v2(dimension: Dimension, patch: [usize; 3], dummy_2d_above: f64) -> Self {
        let in_plane = in_plane(dimension, patch, dummy_2d_above);
        let elongated = ratio(patch[1].max(patch[2]), patch[1].min(patch[2])) > ELONGATED_ABOVE;
        let degrees = match (dimension, in_plane) {
            (Dimension::Two, _) if elongated => 15.0,
            (_, true) => 180.0,
            (_, false) => 30.0,
        };
        Self {
            in_plane,
            interpolation: Interpolation::Linear,
            rotation: Rotation { probability: 0.2, degrees: Range::constant(-degrees, degrees) },
            scaling: Scaling { probability: 0.2, factor: Range::constant(0.7, 1.4), about_one: false },
            elastic: Elastic {
                probability: 0.0,
                magnitude: Range::constant(0.0, 0.0),
                sigma: Range::constant(9.0, 13.0),
            },
            noise: Noise { probability: 0.1, deviation: Range::constant(0.0, 0.1) },
            blur: for_some(0.2, 0.5, 1.0),
            brightness: for_all(0.15, 0.75, 1.25),
            contrast: for_all(0.15, 0.75, 1.25),
            low_resolution: for_some(0.25, 0.5, 1.0),
            inverted_gamma: for_all(0.1, 0.7, 1.5),
            gamma: for_all(0.3, 0.7, 1.5),
            mirror: Mirror { probability: 0.5, axes: mirrored_axes(dimension) },
            masked_channels: Vec::new(),
            cascade: None,
        }
    }

    /// What nnU-Net's first public code does to patches of this shape: rotation, scaling, elastic deformation, gamma and
    /// mirroring. `dummy_2d_above` is [`DUMMY_2D_ABOVE`] in the code and 2 in the paper.
    #[must_use]
    pub fn nnunet_2018(dimension: Dimension, patch: [usize; 3], dummy_2d_above: f64) -> Self {
        let in_plane = in_plane(dimension, patch, dummy_2d_above);
        let (degrees, magnitude) = if in_plane { (180.0, 200.0) } else { (15.0, 900.0) };
        let v2 = Self::nnunet_v2(dimension, patch, dummy_2d_above);
        let never = |settings: ForSomeChannels| ForSomeChannels { probability: 0.0, ..settings };
        let never_all = |settings: ForAllChannels| ForAllChannels { probability: 0.0, ..settings };
        Self {
            in_plane,
            interpolation: Interpolation::Cubic,
            rotation: Rotation { probability: 0.2, degrees: Range::constant(-degrees, degrees) },
            scaling: Scaling { probability: 0.2, factor: Range::constant(0.85, 1.25), about_one: true },
            elastic: Elastic {
                probability: 0.2,
                magnitude: Range::constant(0.0, magnitude),
                sigma: Range::constant(9.0, 13.0),
            },
            noise: Noise { probability: 0.0, ..v2.noise },
            blur: never(v2.blur),
            brightness: never_all(v2.brightness),
            contrast: never_all(v2.contrast),
            low_resolution: never(v2.low_resolution),
            inverted_gamma: never_all(v2.inverted_gamma),
            gamma: for_all(0.3, 0.7, 1.5),
            mirror: v2.mirror,
            masked_channels: Vec::new(),
            cascade: None,
        }
    }

    /// The shape to read so that a patch stays filled when it is rotated about one axis and shrunk to 0.85.
    ///
    /// # Reference
    /// Equal to nnU-Net 2.8.1 `get_patch_size` with the scale range (0.85, 1.25) that it always passes.
    #[must_use]
    pub fn initial_patch(&self, patch: [usize; 3]) -> [usize; 3] {
        let largest = self.rotation.degrees.low().abs().max(self.rotation.degrees.high().abs()).min(90.0);
        let (sine, cosine) = largest.to_radians().sin_cos();
        let [z, y, x] = patch.map(|extent| extent as f64);
        let turned =
            |first: f64, second: f64| ((cosine * first + sine * second).abs(), (cosine * second - sine * first).abs());
        let (y0, x0) = turned(y, x);
        let (x1, z1) = turned(x, z);
        let (z2, y2) = turned(z, y);
        let grown = if self.in_plane {
            [z, y.max(y0), x.max(x0)]
        } else {
            [z.max(z1).max(z2), y.max(y0).max(y2), x.max(x0).max(x1)]
        };
        std::array::from_fn(|axis| {
            if self.in_plane && axis == 0 { patch[0] } else { (grown[axis] / SCALE_IN_MARGIN) as usize }
        })
    }

    /// Checks what the types of the fields do not.
    pub(super) fn check(&self) -> Result<(), AugmentError> {
        for (field, found) in self.probabilities() {
            if !(0.0..=1.0).contains(&found) {
                return Err(AugmentError::Probability { field, found });
            }
        }
        for (field, range, least, most) in self.bounded_ranges() {
            let Range { low, high } = range;
            if low < least || high > most {
                return Err(AugmentError::Bounds { field, low, high, least, most });
            }
        }
        match self.mirror.axes.iter().find(|axis| **axis > 2) {
            Some(&found) => Err(AugmentError::Axis { found }),
            None => Ok(()),
        }
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        let mut all = vec![
            ("rotation.probability", self.rotation.probability),
            ("scaling.probability", self.scaling.probability),
            ("elastic.probability", self.elastic.probability),
            ("noise.probability", self.noise.probability),
            ("blur.probability", self.blur.probability),
            ("blur.channel_probability", self.blur.channel_probability),
            ("brightness.probability", self.brightness.probability),
            ("contrast.probability", self.contrast.probability),
            ("low_resolution.probability", self.low_resolution.probability),
            ("low_resolution.channel_probability", self.low_resolution.channel_probability),
            ("inverted_gamma.probability", self.inverted_gamma.probability),
            ("gamma.probability", self.gamma.probability),
            ("mirror.probability", self.mirror.probability),
        ];
        if let Some(cascade) = &self.cascade {
            all.extend([
                ("cascade.operator_probability", cascade.operator_probability),
                ("cascade.operator_label_probability", cascade.operator_label_probability),
                ("cascade.removal_probability", cascade.removal_probability),
                ("cascade.removal_label_probability", cascade.removal_label_probability),
                ("cascade.removal_below", cascade.removal_below),
            ]);
        }
        all
    }

    /// The ranges with their smallest and largest sensible numbers; the latter keep a slip from filling the memory with a
    /// kernel or a ball.
    fn bounded_ranges(&self) -> Vec<(&'static str, Range, f64, f64)> {
        let positive = f64::MIN_POSITIVE;
        let mut all = vec![
            ("rotation.degrees", self.rotation.degrees, -360.0, 360.0),
            ("scaling.factor", self.scaling.factor, positive, 100.0),
            ("elastic.magnitude", self.elastic.magnitude, 0.0, 1e6),
            ("elastic.sigma", self.elastic.sigma, 0.0, 1e3),
            ("noise.deviation", self.noise.deviation, 0.0, f64::MAX),
            ("blur.range", self.blur.range, 0.0, 100.0),
            ("brightness.range", self.brightness.range, 0.0, f64::MAX),
            ("contrast.range", self.contrast.range, 0.0, f64::MAX),
            ("low_resolution.range", self.low_resolution.range, positive, 1.0),
            ("inverted_gamma.range", self.inverted_gamma.range, positive, 100.0),
            ("gamma.range", self.gamma.range, positive, 100.0),
        ];
        all.extend(self.cascade.iter().map(|cascade| ("cascade.radius", cascade.radius, 0.0, 100.0)));
        all
    }
}

fn for_some(probability: f64, low: f64, high: f64) -> ForSomeChannels {
    ForSomeChannels { probability, channel_probability: 0.5, range: Range::constant(low, high) }
}

fn for_all(probability: f64, low: f64, high: f64) -> ForAllChannels {
    ForAllChannels { probability, range: Range::constant(low, high) }
}

fn in_plane(dimension: Dimension, patch: [usize; 3], dummy_2d_above: f64) -> bool {
    let longest = patch.into_iter().fold(0, usize::max);
    dimension == Dimension::Two || ratio(longest, patch[0]) > dummy_2d_above
}

fn mirrored_axes(dimension: Dimension) -> Vec<usize> {
    match dimension {
        Dimension::Two => vec![1, 2],
        Dimension::Three => vec![0, 1, 2],
    }
}

fn ratio(longer: usize, shorter: usize) -> f64 {
    longer as f64 / shorter as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(dimension: Dimension, patch: [usize; 3]) -> AugmentationSettings {
        AugmentationSettings::nnunet_v2(dimension, patch, DUMMY_2D_ABOVE)
    }

    #[test]
    fn patches_are_read_with_nnunets_margin() {
        // What nnU-Net 2.8.1 prints for these patches.
        for (patch, initial) in
            [([40, 56, 40], [73, 80, 64]), ([128, 128, 128], [205, 205, 205]), ([64, 192, 160], [178, 289, 200])]
        {
            assert_eq!(v2(Dimension::Three, patch).initial_patch(patch), initial);
        }
        for (patch, initial) in [([1, 320, 256], [1, 376, 376]), ([1, 56, 40], [1, 65, 65])] {
            assert_eq!(v2(Dimension::Two, patch).initial_patch(patch), initial);
        }
    }

    #[test]
    fn a_flat_patch_is_read_with_its_own_depth() {
        let patch = [20, 320, 256];
        let settings = v2(Dimension::Three, patch);
        assert!(settings.in_plane);
        assert_eq!(settings.initial_patch(patch), [20, 376, 376]);
    }

    #[test]
    fn rotation_follows_the_shape_of_the_patch() {
        let degrees = |dimension, patch| v2(dimension, patch).rotation.degrees.high();
        assert_eq!(degrees(Dimension::Three, [128, 128, 128]), 30.0);
        assert_eq!(degrees(Dimension::Three, [40, 121, 40]), 180.0);
        assert_eq!(degrees(Dimension::Three, [40, 120, 40]), 30.0);
        assert_eq!(degrees(Dimension::Two, [1, 300, 200]), 180.0);
        assert_eq!(degrees(Dimension::Two, [1, 302, 200]), 15.0);
    }

    #[test]
    fn settings_survive_being_written_and_read() {
        let settings = AugmentationSettings {
            cascade: Some(Cascade::nnunet_2018(vec![1, 2])),
            ..AugmentationSettings::nnunet_2018(Dimension::Two, [1, 64, 64], DUMMY_2D_ABOVE)
        };
        let text = serde_json::to_string(&settings).expect("plain data");
        assert_eq!(serde_json::from_str::<AugmentationSettings>(&text).expect("just written"), settings);
    }

    #[test]
    fn a_range_the_wrong_way_round_is_refused() {
        assert!(serde_json::from_str::<Range>("[1.0, 0.5]").is_err());
        assert!(Range::new(0.0, f64::NAN).is_err());
    }

    #[test]
    fn every_field_is_checked() {
        let good = v2(Dimension::Three, [16; 3]);
        assert_eq!(good.check(), Ok(()));
        let mut probability = good.clone();
        probability.blur.channel_probability = 1.5;
        assert!(probability.check().is_err_and(|error| error.to_string().contains("blur.channel_probability")));
        let mut scale = good.clone();
        scale.scaling.factor = Range::constant(0.0, 1.0);
        assert!(scale.check().is_err_and(|error| error.to_string().contains("scaling.factor")));
        let mut axes = good;
        axes.mirror.axes.push(3);
        assert_eq!(axes.check(), Err(AugmentError::Axis { found: 3 }));
    }
}
