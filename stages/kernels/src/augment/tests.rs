use ndarray::{Array4, array, s};

use super::*;

fn augmentation(change: impl FnOnce(&mut AugmentationSettings)) -> Augmentation {
    let mut settings = AugmentationSettings::nnunet_v2(Dimension::Three, [12, 14, 10], DUMMY_2D_ABOVE);
    change(&mut settings);
    Augmentation::new(settings).expect("valid settings")
}

/// A sample with structure everywhere, and the labels of a stage before if asked for.
fn sample(shape: [usize; 3], label_channels: usize) -> Sample {
    let [depth, height, width] = shape;
    let wave = |c: usize, z: usize, y: usize, x: usize| ((c * 5 + z * 3 + y * 2 + x) as f32 * 0.37).sin();
    let label = |l: usize, z: usize, y: usize, x: usize| ((l + z / 4 + y / 5 + x / 6) % 4) as i16 - 1;
    Sample {
        image: Array4::from_shape_fn((2, depth, height, width), |(c, z, y, x)| wave(c, z, y, x)),
        labels: Array4::from_shape_fn((label_channels, depth, height, width), |(l, z, y, x)| label(l, z, y, x)),
    }
}

#[test]
fn every_drawn_sample_has_the_patch_shape_and_no_outside_left() {
    let augmentation = augmentation(|settings| settings.cascade = Some(Cascade::nnunet_v2(vec![1, 2])));
    for index in 0..200 {
        let drawn = augmentation.draw(&CounterRandom::new(1, [0, index, 0]), 2);
        let result = augmentation.apply(&drawn, sample([20, 22, 18], 2), [12, 14, 10]).expect("fits");
        assert_eq!(result.image.shape(), [4, 12, 14, 10]);
        assert_eq!(result.labels.shape(), [1, 12, 14, 10]);
        assert!(result.labels.iter().all(|label| (0..=2).contains(label)));
        assert!(result.image.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn the_window_of_a_sample_is_all_that_it_needs() {
    let augmentation = augmentation(|settings| {
        settings.rotation.probability = 0.5;
        settings.scaling.probability = 0.5;
        settings.elastic = AugmentationSettings::nnunet_2018(Dimension::Three, [16; 3], 3.0).elastic;
    });
    let initial = [41, 40, 37];
    let whole = sample(initial, 1);
    for index in 0..100 {
        let drawn = augmentation.draw(&CounterRandom::new(2, [0, index, 0]), 2);
        let window = drawn.window(initial, [12, 14, 10]);
        let start: [usize; 3] = std::array::from_fn(|axis| (initial[axis] - window[axis]) / 2);
        let [z, y, x] = std::array::from_fn(|axis| start[axis]..start[axis] + window[axis]);
        let part = Sample {
            image: whole.image.slice(s![.., z.clone(), y.clone(), x.clone()]).to_owned(),
            labels: whole.labels.slice(s![.., z, y, x]).to_owned(),
        };
        let from_whole = augmentation.apply(&drawn, whole.clone(), [12, 14, 10]).expect("fits");
        let from_part = augmentation.apply(&drawn, part, [12, 14, 10]).expect("fits");
        let differing = from_whole.labels.iter().zip(&from_part.labels).filter(|(a, b)| a != b).count();
        assert!(differing <= 2, "{differing} labels differ");
        assert!(from_whole.image.iter().zip(&from_part.image).all(|(a, b)| (a - b).abs() < 1e-4), "sample {index}");
    }
}

#[test]
fn a_sample_that_is_only_cut_out_is_the_centre() {
    let whole = sample([20, 22, 18], 1);
    let mut quiet = augmentation(|_| {}).settings().clone();
    quiet.mirror.probability = 0.0;
    let result =
        Augmentation::new(quiet).expect("valid").apply(&Drawn::default(), whole.clone(), [12, 14, 10]).expect("fits");
    assert_eq!(result.image, whole.image.slice(s![.., 4..16, 4..18, 4..14]));
}

#[test]
fn masked_channels_are_zero_outside() {
    let augmentation = augmentation(|settings| settings.masked_channels = vec![1]);
    let whole = sample([12, 14, 10], 1);
    let result = augmentation.apply(&Drawn::default(), whole.clone(), [12, 14, 10]).expect("fits");
    for ((channel, z, y, x), value) in result.image.indexed_iter() {
        let masked = channel == 1 && whole.labels[[0, z, y, x]] == -1;
        assert_eq!(*value, if masked { 0.0 } else { whole.image[[channel, z, y, x]] });
    }
}

#[test]
fn slices_of_a_2d_network_are_augmented_too() {
    let settings = AugmentationSettings::nnunet_2018(Dimension::Two, [1, 14, 10], DUMMY_2D_ABOVE);
    let augmentation = Augmentation::new(settings).expect("valid");
    for index in 0..100 {
        let drawn = augmentation.draw(&CounterRandom::new(3, [0, index, 0]), 2);
        let result = augmentation.apply(&drawn, sample([1, 20, 20], 1), [1, 14, 10]).expect("fits");
        assert_eq!(result.image.shape(), [2, 1, 14, 10]);
        assert!(result.image.iter().any(|value| *value != 0.0));
    }
}

#[test]
fn validation_samples_are_only_prepared() {
    let augmentation = augmentation(|settings| settings.cascade = Some(Cascade::nnunet_v2(vec![1])));
    let sample = Sample { image: array![[[[4.0, 5.0, 6.0]]]], labels: array![[[[-1, 2, 1]]], [[[1, -1, 0]]]] };
    let prepared = augmentation.prepare_validation(sample).expect("fits");
    assert_eq!(prepared.image, array![[[[4.0, 5.0, 6.0]]], [[[1.0, 0.0, 0.0]]]]);
    assert_eq!(prepared.labels, array![[[[0, 2, 1]]]]);
}

#[test]
fn samples_that_do_not_fit_are_refused() {
    let augmentation = augmentation(|_| {});
    let mut wrong = sample([4, 5, 6], 1);
    wrong.labels = Array4::zeros((1, 4, 5, 7));
    let error = augmentation.prepare_validation(wrong).expect_err("another extent");
    assert_eq!(error, AugmentError::Extent { image: vec![4, 5, 6], labels: vec![4, 5, 7] });
    let error = augmentation.prepare_validation(sample([4, 5, 6], 2)).expect_err("no cascade");
    assert_eq!(error, AugmentError::LabelChannels { expected: 1, found: 2 });
    let error = augmentation.prepare_validation(sample([0, 5, 6], 1)).expect_err("no voxels");
    assert_eq!(error, AugmentError::Empty { found: vec![2, 0, 5, 6] });
}
