//! What chance decides about a sample.
//!
//! Drawing is apart from applying: a sample's fate follows from its random stream alone, it can be tested without images,
//! and who reads the patch can ask beforehand how much of the image will be needed. Each kind of transform has a stream
//! of its own, so that switching one off leaves the others as they were.

use super::{AugmentationSettings, settings::ForAllChannels, settings::ForSomeChannels};
use crate::{
    random::CounterRandom,
    spatial::{Affine, Displacement, SpatialMap},
};

/// The random streams of a sample.
#[derive(Clone, Copy)]
enum Stream {
    Rotation = 1,
    Scaling,
    Elastic,
    Noise,
    Blur,
    Brightness,
    Contrast,
    LowResolution,
    InvertedGamma,
    Gamma,
    Mirror,
    Operator,
    Removal,
}

/// An elastic deformation.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawnElastic {
    /// Factor of the smoothed noise.
    pub magnitude: f64,
    /// Standard deviation of the smoothing, in voxels.
    pub sigma: f64,
    /// Seed of the noise.
    pub seed: u64,
}

/// Gaussian noise.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawnNoise {
    /// Standard deviation.
    pub deviation: f64,
    /// Seed of the noise.
    pub seed: u64,
}

/// A number for each axis of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct ForChannel {
    /// The channel.
    pub channel: usize,
    /// For axes z, y and x.
    pub values: [f64; 3],
}

/// A morphological operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Grow.
    Dilate,
    /// Shrink.
    Erode,
    /// Close gaps.
    Close,
    /// Remove what is thin.
    Open,
}

/// A morphological operation on one label of the stage before.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawnOperator {
    /// Which of the cascade's labels, by position.
    pub label: usize,
    /// What is done.
    pub operator: Operator,
    /// Radius of the ball, in voxels.
    pub radius: f64,
}

/// A component taken from one label of the stage before.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawnRemoval {
    /// Which of the cascade's labels, by position.
    pub label: usize,
    /// Which component, as a fraction `0..1` of the list of those that are small enough.
    pub pick: f64,
}

/// All that was drawn for one sample.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Drawn {
    /// Whether slices are transformed each on its own.
    pub in_plane: bool,
    /// Angles about axes 0, 1 and 2 in radians, if it is rotated; in-plane only the first is used.
    pub rotation: Option<[f64; 3]>,
    /// Scale, if it is scaled.
    pub scale: Option<f64>,
    /// Elastic deformation, if it is deformed.
    pub elastic: Option<DrawnElastic>,
    /// Noise, if it gets any.
    pub noise: Option<DrawnNoise>,
    /// Standard deviations of a blur, for the channels that are blurred.
    pub blur: Vec<ForChannel>,
    /// A factor for each channel; empty if there is none.
    pub brightness: Vec<f64>,
    /// A factor for each channel; empty if there is none.
    pub contrast: Vec<f64>,
    /// The resolution that is left, for the channels that lose some.
    pub low_resolution: Vec<ForChannel>,
    /// An exponent for each channel; empty if there is none.
    pub inverted_gamma: Vec<f64>,
    /// An exponent for each channel; empty if there is none.
    pub gamma: Vec<f64>,
    /// Whether axes z, y and x are mirrored.
    pub mirror: [bool; 3],
    /// Morphological operations, in this order.
    pub operators: Vec<DrawnOperator>,
    /// Components to be removed, in this order.
    pub removals: Vec<DrawnRemoval>,
}

impl Drawn {
    /// Where the voxels of a patch come from; none where the patch is only cut out.
    #[must_use]
    pub fn spatial_map(&self, patch: [usize; 3]) -> Option<SpatialMap> {
        if self.rotation.is_none() && self.scale.is_none() && self.elastic.is_none() {
            return None;
        }
        let mut angles = self.rotation.unwrap_or_default();
        if self.in_plane {
            angles[1] = 0.0;
            angles[2] = 0.0;
        }
        let displacement = self.elastic.as_ref().map(|elastic| {
            let mut random = CounterRandom::new(elastic.seed, [0; 3]);
            Displacement::random(&mut random, patch, elastic.sigma, elastic.magnitude, self.in_plane)
        });
        let affine = Affine::rotation_scaling(angles, [self.scale.unwrap_or(1.0); 3]);
        Some(SpatialMap { affine, displacement, in_plane: self.in_plane })
    }

    /// The part of a patch of shape `initial` that the sample draws on, as its extent about the same centre.
    ///
    /// Two thirds of nnU-Net's samples are neither rotated nor scaled; for those it is the final patch, a fourth of what
    /// nnU-Net reads. Applied to the part that starts `(initial - window) / 2` voxels in, the result is the same.
    #[must_use]
    pub fn window(&self, initial: [usize; 3], patch: [usize; 3]) -> [usize; 3] {
        let needed = self.spatial_map(patch).map_or(patch, |map| map.reach(patch));
        std::array::from_fn(|axis| {
            // Both must be even or both odd, else their centres are half a voxel apart.
            let same_parity = needed[axis] + (initial[axis] + needed[axis]) % 2;
            same_parity.min(initial[axis])
        })
    }
}

impl AugmentationSettings {
    /// Draws for a sample with `channels` image channels; `random` is the sample's own stream and stays as it is.
    pub(super) fn draw(&self, random: &CounterRandom, channels: usize) -> Drawn {
        let stream = |stream: Stream| random.fork(stream as u32);
        Drawn {
            in_plane: self.in_plane,
            rotation: self.draw_rotation(&mut stream(Stream::Rotation)),
            scale: self.draw_scale(&mut stream(Stream::Scaling)),
            elastic: self.draw_elastic(&mut stream(Stream::Elastic)),
            noise: self.draw_noise(&mut stream(Stream::Noise)),
            blur: self.blur.draw(&mut stream(Stream::Blur), channels, |range, random| {
                std::array::from_fn(|_| range.uniform(random))
            }),
            brightness: self.brightness.draw(&mut stream(Stream::Brightness), channels),
            contrast: self.contrast.draw(&mut stream(Stream::Contrast), channels),
            low_resolution: self.low_resolution.draw(&mut stream(Stream::LowResolution), channels, |range, random| {
                let scale = range.uniform(random);
                [if self.in_plane { 1.0 } else { scale }, scale, scale]
            }),
            inverted_gamma: self.inverted_gamma.draw(&mut stream(Stream::InvertedGamma), channels),
            gamma: self.gamma.draw(&mut stream(Stream::Gamma), channels),
            mirror: self.draw_mirror(&mut stream(Stream::Mirror)),
            operators: self.draw_operators(&mut stream(Stream::Operator)),
            removals: self.draw_removals(&mut stream(Stream::Removal)),
        }
    }

    fn draw_rotation(&self, random: &mut CounterRandom) -> Option<[f64; 3]> {
        let drawn = random.chance(self.rotation.probability);
        drawn.then(|| std::array::from_fn(|_| self.rotation.degrees.uniform(random).to_radians()))
    }

    fn draw_scale(&self, random: &mut CounterRandom) -> Option<f64> {
        let Self { scaling, .. } = self;
        let drawn = random.chance(scaling.probability);
        drawn.then(|| if scaling.about_one { scaling.factor.about_one(random) } else { scaling.factor.uniform(random) })
    }

    fn draw_elastic(&self, random: &mut CounterRandom) -> Option<DrawnElastic> {
        random.chance(self.elastic.probability).then(|| DrawnElastic {
            magnitude: self.elastic.magnitude.uniform(random),
            sigma: self.elastic.sigma.uniform(random),
            seed: random.next_u64(),
        })
    }

    fn draw_noise(&self, random: &mut CounterRandom) -> Option<DrawnNoise> {
        let drawn = random.chance(self.noise.probability);
        drawn.then(|| DrawnNoise { deviation: self.noise.deviation.uniform(random), seed: random.next_u64() })
    }

    fn draw_mirror(&self, random: &mut CounterRandom) -> [bool; 3] {
        std::array::from_fn(|axis| {
            let mirrored = random.chance(self.mirror.probability);
            mirrored && self.mirror.axes.contains(&axis)
        })
    }

    fn draw_operators(&self, random: &mut CounterRandom) -> Vec<DrawnOperator> {
        let Some(cascade) = &self.cascade else { return Vec::new() };
        if !random.chance(cascade.operator_probability) {
            return Vec::new();
        }
        let operators = [Operator::Dilate, Operator::Erode, Operator::Close, Operator::Open];
        some_labels(cascade.labels.len(), cascade.operator_label_probability, random)
            .into_iter()
            .map(|label| DrawnOperator {
                label,
                operator: operators[random.below(operators.len())],
                radius: cascade.radius.uniform(random),
            })
            .collect()
    }

    fn draw_removals(&self, random: &mut CounterRandom) -> Vec<DrawnRemoval> {
        let Some(cascade) = &self.cascade else { return Vec::new() };
        if !random.chance(cascade.removal_probability) {
            return Vec::new();
        }
        some_labels(cascade.labels.len(), cascade.removal_label_probability, random)
            .into_iter()
            .map(|label| DrawnRemoval { label, pick: random.uniform() })
            .collect()
    }
}

/// Some of `count` labels in a random order, which matters: later operations clear what earlier ones added.
fn some_labels(count: usize, probability: f64, random: &mut CounterRandom) -> Vec<usize> {
    let mut labels: Vec<usize> = (0..count).collect();
    random.shuffle(&mut labels);
    labels.retain(|_| random.chance(probability));
    labels
}

impl ForSomeChannels {
    fn draw(
        &self,
        random: &mut CounterRandom,
        channels: usize,
        values: impl Fn(super::Range, &mut CounterRandom) -> [f64; 3],
    ) -> Vec<ForChannel> {
        if !random.chance(self.probability) {
            return Vec::new();
        }
        let mut drawn = Vec::new();
        for channel in 0..channels {
            if random.chance(self.channel_probability) {
                drawn.push(ForChannel { channel, values: values(self.range, random) });
            }
        }
        drawn
    }
}

impl ForAllChannels {
    fn draw(&self, random: &mut CounterRandom, channels: usize) -> Vec<f64> {
        if !random.chance(self.probability) {
            return Vec::new();
        }
        (0..channels).map(|_| self.range.about_one(random)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Augmentation, Cascade, DUMMY_2D_ABOVE, Dimension};
    use super::*;

    const DRAWS: u32 = 10_000;

    fn settings() -> AugmentationSettings {
        AugmentationSettings {
            cascade: Some(Cascade::nnunet_v2(vec![1, 2])),
            ..AugmentationSettings::nnunet_v2(Dimension::Three, [64, 64, 64], DUMMY_2D_ABOVE)
        }
    }

    fn draws(settings: AugmentationSettings) -> Vec<Drawn> {
        let augmentation = Augmentation::new(settings).expect("nnU-Net's own");
        (0..DRAWS).map(|sample| augmentation.draw(&CounterRandom::new(11, [0, sample, 0]), 2)).collect()
    }

    /// Five standard deviations of a binomial count.
    fn assert_share(count: usize, of: usize, probability: f64, what: &str) {
        let expected = of as f64 * probability;
        let bound = 5.0 * (expected * (1.0 - probability)).sqrt();
        assert!((count as f64 - expected).abs() <= bound, "{what}: {count} of {of}, expected {expected} +- {bound}");
    }

    #[test]
    fn transforms_are_drawn_as_often_as_nnunet_draws_them() {
        let drawn = draws(settings());
        let share = |probability: f64, what: &str, test: &dyn Fn(&Drawn) -> bool| {
            assert_share(drawn.iter().filter(|drawn| test(drawn)).count(), drawn.len(), probability, what);
        };
        share(0.2, "rotation", &|drawn| drawn.rotation.is_some());
        share(0.2, "scaling", &|drawn| drawn.scale.is_some());
        share(0.04, "rotation and scaling", &|drawn| drawn.rotation.is_some() && drawn.scale.is_some());
        share(0.0, "elastic", &|drawn| drawn.elastic.is_some());
        share(0.1, "noise", &|drawn| drawn.noise.is_some());
        // With two channels a blur is seen where at least one of them is drawn: 0.2 (1 - 0.5^2).
        share(0.15, "blur", &|drawn| !drawn.blur.is_empty());
        share(0.15, "brightness", &|drawn| !drawn.brightness.is_empty());
        share(0.15, "contrast", &|drawn| !drawn.contrast.is_empty());
        share(0.1875, "low resolution", &|drawn| !drawn.low_resolution.is_empty());
        share(0.1, "inverted gamma", &|drawn| !drawn.inverted_gamma.is_empty());
        share(0.3, "gamma", &|drawn| !drawn.gamma.is_empty());
        for axis in 0..3 {
            share(0.5, "mirror", &|drawn| drawn.mirror[axis]);
        }
        share(0.3, "operators", &|drawn| !drawn.operators.is_empty());
        share(0.15, "removals", &|drawn| !drawn.removals.is_empty());
    }

    #[test]
    fn the_four_operators_and_both_orders_are_equally_likely() {
        let operators: Vec<DrawnOperator> = draws(settings()).into_iter().flat_map(|drawn| drawn.operators).collect();
        for operator in [Operator::Dilate, Operator::Erode, Operator::Close, Operator::Open] {
            let count = operators.iter().filter(|drawn| drawn.operator == operator).count();
            assert_share(count, operators.len(), 0.25, "operator");
        }
        let pairs: Vec<Drawn> = draws(settings()).into_iter().filter(|drawn| drawn.operators.len() == 2).collect();
        let swapped = pairs.iter().filter(|drawn| drawn.operators[0].label == 1).count();
        assert_share(swapped, pairs.len(), 0.5, "second label first");
    }

    #[test]
    fn factors_are_as_often_below_one_as_above() {
        for select in [|drawn: &Drawn| drawn.contrast.clone(), |drawn: &Drawn| drawn.gamma.clone()] {
            let factors: Vec<f64> = draws(settings()).iter().flat_map(select).collect();
            assert_share(factors.iter().filter(|factor| **factor < 1.0).count(), factors.len(), 0.5, "factors");
        }
    }

    #[test]
    fn what_is_drawn_stays_in_its_range() {
        let within = |values: &[f64], low: f64, high: f64| values.iter().all(|value| (low..=high).contains(value));
        for drawn in draws(settings()) {
            assert!(drawn.rotation.is_none_or(|angles| within(&angles.map(f64::to_degrees), -30.0, 30.0)));
            assert!(drawn.scale.is_none_or(|scale| within(&[scale], 0.7, 1.4)));
            assert!(drawn.noise.is_none_or(|noise| within(&[noise.deviation], 0.0, 0.1)));
            assert!(drawn.blur.iter().all(|blur| within(&blur.values, 0.5, 1.0)));
            assert!(within(&drawn.brightness, 0.75, 1.25) && within(&drawn.contrast, 0.75, 1.25));
            assert!(drawn.low_resolution.iter().all(|scale| within(&scale.values, 0.5, 1.0)));
            assert!(within(&drawn.gamma, 0.7, 1.5) && within(&drawn.inverted_gamma, 0.7, 1.5));
            assert!(drawn.operators.iter().all(|operator| within(&[operator.radius], 1.0, 8.0)));
        }
    }

    #[test]
    fn ranges_are_used_to_their_ends() {
        let drawn = draws(settings());
        let scales: Vec<f64> = drawn.iter().filter_map(|drawn| drawn.scale).collect();
        // Of 2000 uniform numbers the outer hundredths stay empty with a probability below 1e-8.
        assert!(scales.iter().any(|scale| *scale < 0.707) && scales.iter().any(|scale| *scale > 1.393));
        let angles: Vec<f64> = drawn.iter().filter_map(|drawn| drawn.rotation).flatten().map(f64::to_degrees).collect();
        assert!(angles.iter().any(|angle| *angle < -29.4) && angles.iter().any(|angle| *angle > 29.4));
    }

    #[test]
    fn the_first_method_deforms_and_uses_no_noise() {
        let drawn = draws(AugmentationSettings::nnunet_2018(Dimension::Two, [1, 128, 128], DUMMY_2D_ABOVE));
        let elastic: Vec<&DrawnElastic> = drawn.iter().filter_map(|drawn| drawn.elastic.as_ref()).collect();
        assert_share(elastic.len(), drawn.len(), 0.2, "elastic");
        assert!(elastic.iter().all(|elastic| (0.0..=200.0).contains(&elastic.magnitude)));
        assert!(elastic.iter().all(|elastic| (9.0..=13.0).contains(&elastic.sigma)));
        assert!(drawn.iter().all(|drawn| drawn.noise.is_none() && drawn.blur.is_empty() && drawn.contrast.is_empty()));
        assert!(drawn.iter().all(|drawn| !drawn.mirror[0]));
    }

    #[test]
    fn a_sample_does_not_depend_on_those_before_it() {
        let augmentation = Augmentation::new(settings()).expect("nnU-Net's own");
        let alone = augmentation.draw(&CounterRandom::new(11, [0, 77, 0]), 2);
        assert_eq!(alone, draws(settings())[77]);
    }

    #[test]
    fn switching_a_transform_off_leaves_the_others_alone() {
        let mut quiet = settings();
        quiet.noise.probability = 0.0;
        quiet.rotation.probability = 0.0;
        for (with, without) in draws(settings()).into_iter().zip(draws(quiet)) {
            assert_eq!(Drawn { noise: None, rotation: None, ..with }, without);
        }
    }

    #[test]
    fn slices_keep_their_resolution_across() {
        let settings = AugmentationSettings::nnunet_v2(Dimension::Three, [8, 64, 64], DUMMY_2D_ABOVE);
        let scales: Vec<ForChannel> = draws(settings).into_iter().flat_map(|drawn| drawn.low_resolution).collect();
        assert!(!scales.is_empty() && scales.iter().all(|scale| scale.values[0] == 1.0));
    }

    #[test]
    fn a_sample_that_is_only_cut_out_needs_its_patch_alone() {
        // Axis 1 differs by an odd number, so that one voxel more keeps the centre.
        assert_eq!(Drawn::default().window([73, 80, 64], [40, 57, 40]), [41, 58, 40]);
    }
}
