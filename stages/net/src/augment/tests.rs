use nnflow_kernels::augment::{
    Augmentation, AugmentationSettings, Cascade, DUMMY_2D_ABOVE, Dimension, Drawn, Sample, deep_supervision_targets,
    mirror,
};
use nnflow_kernels::random::CounterRandom;
use nnflow_kernels::spatial::sample_image;
use tch::Kind;

use super::*;

const CPU: Device = Device::Cpu { threads: 1 };

/// Gamma magnifies rounding near the least intensity: an exponent of 0.7 turns 1e-7 of the range into 1e-5, and two of them
/// in a row turn it into 4e-4.
const OF_RANGE: f32 = 1e-3;

/// What half precision does not tell apart of two labels' shares of a voxel.
const TIE: f32 = 6e-4;

/// A recipe in which every transform is drawn for every other sample.
fn busy(mut settings: AugmentationSettings, patch: [usize; 3]) -> Augmentation {
    let v2 = AugmentationSettings::nnunet_v2(Dimension::Three, patch, DUMMY_2D_ABOVE);
    (settings.noise, settings.blur, settings.low_resolution) = (v2.noise, v2.blur, v2.low_resolution);
    (settings.brightness, settings.contrast, settings.inverted_gamma) = (v2.brightness, v2.contrast, v2.inverted_gamma);
    for transform in
        [&mut settings.brightness, &mut settings.contrast, &mut settings.inverted_gamma, &mut settings.gamma]
    {
        transform.probability = 0.5;
    }
    for transform in [&mut settings.blur, &mut settings.low_resolution] {
        transform.probability = 0.5;
    }
    (settings.rotation.probability, settings.scaling.probability, settings.noise.probability) = (0.5, 0.5, 0.5);
    Augmentation::new(settings).expect("valid settings")
}

/// Two channels of noise on a wave, and labels in blocks, some of them outside.
fn sample([depth, height, width]: [usize; 3], label_channels: usize, seed: u64) -> Sample {
    let mut random = CounterRandom::new(seed, [0; 3]);
    let wave = |c: usize, z: usize, y: usize, x: usize| ((c * 5 + z * 3 + y * 2 + x) as f32 * 0.37).sin();
    let label = |l: usize, z: usize, y: usize, x: usize| ((l + z / 4 + y / 5 + x / 6) % 4) as i16 - 1;
    Sample {
        image: Array4::from_shape_fn((2, depth, height, width), |(c, z, y, x)| {
            2.0 * wave(c, z, y, x) + 0.3 * random.normal() as f32
        }),
        labels: Array4::from_shape_fn((label_channels, depth, height, width), |(l, z, y, x)| label(l, z, y, x)),
    }
}

fn augmenter(augmentation: &Augmentation, patch: [usize; 3]) -> Augmenter {
    Augmenter::new(augmentation.settings().clone(), patch, false, vec![[1.0; 3]])
}

fn values<T: Element + Copy>(tensor: &Tensor) -> Vec<T>
where
    Vec<T>: TryFrom<Tensor, Error = tch::TchError>,
{
    Vec::try_from(tensor.flatten(0, -1)).expect("on the CPU, of this kind")
}

/// The largest share that each label has in each voxel of the patch, before labels outside became 0.
fn shares(sample: &Sample, drawn: &Drawn, map: &SpatialMap, patch: [usize; 3], label: i16) -> Array4<f32> {
    let of = |wanted: i16| {
        let indicator = sample.labels.mapv(|found| f32::from(u8::from(found == wanted)));
        let mut share = sample_image(indicator.view(), map, patch, Interpolation::Linear);
        mirror(&mut share, drawn.mirror);
        share
    };
    if label != 0 {
        return of(label);
    }
    // What is outside becomes background: what no other label has.
    let (background, others) = (of(0), of(1) + of(2));
    ndarray::Zip::from(&background)
        .and(&others)
        .map_collect(|background, others| background.max(1.0 - others - background))
}

/// Both ways of augmenting `draws` samples have to agree.
fn assert_agreement(augmentation: &Augmentation, initial: [usize; 3], patch: [usize; 3], draws: u32) {
    for index in 0..draws {
        let whole = sample(initial, 1, u64::from(index));
        let drawn = augmentation.draw(&CounterRandom::new(5, [0, index, 0]), 2);
        let expected = augmentation.apply(&drawn, whole.clone(), patch).expect("the sample fits");
        let pending = augmentation.defer(drawn.clone(), whole.clone(), patch).expect("the sample fits");
        let (image, labels) = augmenter(augmentation, patch).sample(&pending, CPU).expect("on the CPU");
        assert_eq!(image.size()[1..], patch.map(|extent| extent as i64));
        let range = expected.image.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let worst = expected.image.iter().zip(values::<f32>(&image)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= OF_RANGE * range, "{worst} of {range} in sample {index}: {drawn:?}");
        let found = Array4::from_shape_vec(expected.labels.raw_dim(), values::<i16>(&labels)).expect("the same shape");
        for (place, (&expected, &found)) in
            expected.labels.indexed_iter().map(|(place, label)| (place, (label, &found[place])))
        {
            if expected != found {
                let map = pending.map.as_ref().expect("what is only cut out is equal");
                let share = |label| shares(&whole, &drawn, map, patch, label)[place];
                assert!(
                    (share(expected) - share(found)).abs() < TIE,
                    "{found} for {expected} at {place:?} of sample {index}"
                );
            }
        }
    }
}

#[test]
fn volumes_are_augmented_as_by_the_kernels() {
    let patch = [12, 14, 10];
    let settings = AugmentationSettings::nnunet_v2(Dimension::Three, patch, DUMMY_2D_ABOVE);
    assert_agreement(&busy(settings, patch), [20, 22, 18], patch, 60);
}

#[test]
fn flat_volumes_are_augmented_slice_by_slice_as_by_the_kernels() {
    let patch = [3, 20, 14];
    let settings = AugmentationSettings::nnunet_v2(Dimension::Three, patch, DUMMY_2D_ABOVE);
    assert!(settings.in_plane);
    assert_agreement(&busy(settings, patch), [3, 27, 26], patch, 40);
}

#[test]
fn volumes_are_deformed_as_by_the_kernels() {
    let patch = [12, 14, 16];
    let settings = AugmentationSettings::nnunet_2018(Dimension::Three, patch, DUMMY_2D_ABOVE);
    let mut augmentation = busy(settings, patch).settings().clone();
    augmentation.elastic.probability = 0.7;
    assert_agreement(&Augmentation::new(augmentation).expect("valid settings"), [20, 22, 24], patch, 40);
}

#[test]
fn slices_are_deformed_as_by_the_kernels() {
    let patch = [1, 24, 20];
    let settings = AugmentationSettings::nnunet_2018(Dimension::Two, patch, DUMMY_2D_ABOVE);
    let mut augmentation = busy(settings, patch).settings().clone();
    augmentation.elastic.probability = 0.7;
    assert_agreement(&Augmentation::new(augmentation).expect("valid settings"), [1, 33, 31], patch, 40);
}

/// By hand: what is only cut out has its own values, and nothing beyond the source.
#[test]
fn a_patch_that_reaches_out_of_its_source_is_filled() {
    let patch = [4, 3, 5];
    let augmentation = Augmentation::new(AugmentationSettings::nnunet_v2(Dimension::Three, [16; 3], DUMMY_2D_ABOVE));
    let augmentation = augmentation.expect("nnU-Net's own");
    let whole = sample([2, 6, 3], 1, 1);
    let expected = augmentation.apply(&Drawn::default(), whole.clone(), patch).expect("the sample fits");
    let pending = augmentation.defer(Drawn::default(), whole, patch).expect("the sample fits");
    let (image, labels) = augmenter(&augmentation, patch).sample(&pending, CPU).expect("on the CPU");
    assert_eq!(values::<f32>(&image), expected.image.into_raw_vec_and_offset().0);
    assert_eq!(values::<i16>(&labels), expected.labels.into_raw_vec_and_offset().0);
}

#[test]
fn masked_channels_are_zero_outside() {
    let patch = [6, 6, 6];
    let mut settings = AugmentationSettings::nnunet_v2(Dimension::Three, patch, DUMMY_2D_ABOVE);
    settings.masked_channels = vec![1];
    let augmentation = Augmentation::new(settings).expect("valid settings");
    let whole = sample(patch, 1, 2);
    let pending = augmentation.defer(Drawn::default(), whole.clone(), patch).expect("the sample fits");
    let (image, _) = augmenter(&augmentation, patch).sample(&pending, CPU).expect("on the CPU");
    let found = Array4::from_shape_vec((2, 6, 6, 6), values::<f32>(&image)).expect("two channels");
    for ((channel, z, y, x), value) in found.indexed_iter() {
        let is_masked = channel == 1 && whole.labels[[0, z, y, x]] == -1;
        assert_eq!(*value, if is_masked { 0.0 } else { whole.image[[channel, z, y, x]] });
    }
}

#[test]
fn a_cascade_has_the_channels_that_the_host_made() {
    let patch = [12, 14, 10];
    let mut settings = AugmentationSettings::nnunet_v2(Dimension::Three, patch, DUMMY_2D_ABOVE);
    settings.cascade = Some(Cascade::nnunet_v2(vec![1, 2]));
    let augmentation = busy(settings, patch);
    for index in 0..20 {
        let whole = sample([20, 22, 18], 2, u64::from(index));
        let drawn = augmentation.draw(&CounterRandom::new(6, [0, index, 0]), 2);
        let expected = augmentation.apply(&drawn, whole.clone(), patch).expect("the sample fits");
        let pending = augmentation.defer(drawn, whole, patch).expect("the sample fits");
        assert_eq!(pending.channels(), 4);
        let (image, labels) = augmenter(&augmentation, patch).sample(&pending, CPU).expect("on the CPU");
        assert_eq!(values::<i16>(&labels), expected.labels.into_raw_vec_and_offset().0);
        let expected = expected.image.slice_move(ndarray::s![2.., .., .., ..]);
        assert_eq!(values::<f32>(&image.narrow(0, 2, 2)), expected.iter().copied().collect::<Vec<f32>>());
    }
}

#[test]
fn labels_of_lower_resolutions_are_those_of_the_kernels() {
    let labels = sample([9, 14, 10], 1, 3).labels;
    let scales = [[1.0; 3], [0.5; 3], [0.34, 0.25, 0.5]];
    let expected = deep_supervision_targets(labels.view(), &scales);
    let tensor = on_device(&labels, CPU).expect("on the CPU");
    let found = labels::at_scales(&tensor, &scales).expect("on the CPU");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.size(), expected.shape().iter().map(|&extent| extent as i64).collect::<Vec<_>>());
        assert_eq!(values::<i16>(found), expected.into_raw_vec_and_offset().0);
    }
}

#[test]
fn a_network_of_slices_gets_them_without_an_axis_for_slices() {
    let patch = [1, 8, 6];
    let settings = AugmentationSettings::nnunet_v2(Dimension::Two, patch, DUMMY_2D_ABOVE);
    let augmentation = Augmentation::new(settings.clone()).expect("nnU-Net's own");
    let pending = augmentation.defer(Drawn::default(), sample([1, 9, 9], 1, 4), patch).expect("the sample fits");
    let augmenter = Augmenter::new(settings, patch, true, vec![[1.0; 3], [1.0, 0.5, 0.5]]);
    let Augmented { image, labels } = augmenter.apply(&[pending.clone(), pending], CPU).expect("on the CPU");
    assert_eq!((image.size(), image.kind()), (vec![2, 2, 8, 6], Kind::Float));
    assert_eq!(labels.iter().map(Tensor::size).collect::<Vec<_>>(), [vec![2, 1, 8, 6], vec![2, 1, 4, 3]]);
}
