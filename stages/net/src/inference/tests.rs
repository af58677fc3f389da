use ndarray::{Array4, s};

use super::*;
use crate::architecture::{Architecture, Description, NetworkKind, Pooling};
use crate::testing::logits;

fn architecture(dimension: usize) -> Architecture {
    Architecture::try_from(Description {
        kind: NetworkKind::PlainConvUNet,
        input_channels: 1,
        outputs: 3,
        features_per_stage: vec![4, 6],
        kernel_sizes: vec![vec![3; dimension]; 2],
        strides: vec![vec![1; dimension], vec![2; dimension]],
        units_per_stage: vec![1; 2],
        convolutions_per_decoder_stage: vec![1],
        convolution_bias: true,
        norm_epsilon: 1e-5,
        pooling: Pooling::StridedConvolution,
        deep_supervision: true,
    })
    .expect("a network")
}

fn network(dimension: usize, seed: u64, threads: usize) -> Network {
    Network::new(&architecture(dimension), seed, Device::Cpu { threads }).expect("it fits into memory")
}

fn options(patch: &[usize]) -> InferenceOptions {
    InferenceOptions {
        patch: patch.to_vec(),
        step: 0.5,
        mirror_axes: Vec::new(),
        gaussian: true,
        average: Average::Logits,
        precision: Precision::Float32,
        sums: PrecisionOfSums::Float32,
        batch: 2,
        device_memory: 0,
    }
}

fn image(shape: [usize; 4]) -> Array4<f32> {
    Array4::from_shape_fn(shape, |(c, z, y, x)| ((c * 7 + z * 5 + y * 3 + x) as f32 * 0.37).sin())
}

fn predict_array(networks: &[Network], image: &Array4<f32>, options: &InferenceOptions) -> Array4<f32> {
    predict(networks, image.view(), options).expect("all fit").into_array().expect("it fits into memory")
}

fn deviation(one: &Array4<f32>, other: &Array4<f32>) -> f32 {
    assert_eq!(one.shape(), other.shape());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

/// What the network itself gives for the whole image.
fn direct(network: &Network, image: &Array4<f32>) -> Array4<f32> {
    let shape: Vec<i64> = image.shape().iter().map(|&extent| extent as i64).collect();
    let input = Tensor::from_slice(image.as_slice().expect("C order")).view(&*shape).unsqueeze(0);
    let output = logits(network, &input).squeeze_dim(0);
    array(&output).expect("it fits").into_dimensionality().expect("four axes")
}

#[test]
fn an_image_of_one_window_is_what_the_network_says() {
    let network = network(3, 1, 1);
    let image = image([1, 8, 12, 10]);
    let expected = direct(&network, &image);
    let found = predict_array(&[network], &image, &options(&[8, 12, 10]));
    assert!(deviation(&found, &expected) < 1e-5);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let image = image([1, 13, 20, 17]);
    let options = InferenceOptions { mirror_axes: vec![0, 2], ..options(&[8, 8, 8]) };
    let one = predict_array(&[network(3, 1, 1)], &image, &options);
    assert_eq!(one, predict_array(&[network(3, 1, 2)], &image, &options));
    assert_eq!(one, predict_array(&[network(3, 1, 5)], &image, &options));
}

#[test]
fn overlapping_windows_are_averaged_with_their_weights() {
    let network = network(3, 1, 2);
    let image = image([1, 12, 8, 8]);
    let weights = window_weights(&[8, 8, 8]).into_dimensionality::<ndarray::Ix3>().expect("three axes");
    let (mut sums, mut total) = (Array4::<f32>::zeros([3, 12, 8, 8]), Array4::<f32>::zeros([1, 12, 8, 8]));
    // Half a window further than 0 is 4, where the second and last window starts.
    for start in [0, 4] {
        let window = image.slice(s![.., start..start + 8, .., ..]).to_owned();
        let mut part = sums.slice_mut(s![.., start..start + 8, .., ..]);
        part += &(direct(&network, &window) * &weights);
        let mut part = total.slice_mut(s![.., start..start + 8, .., ..]);
        part += &weights;
    }
    let found = predict_array(&[network], &image, &options(&[8, 8, 8]));
    assert!(deviation(&found, &(sums / total)) < 1e-5);
}

#[test]
fn sums_of_16_bits_are_rounded_as_nnunet_rounds_them() {
    let network = network(3, 1, 1);
    let image = image([1, 12, 8, 8]);
    let tensor = |array: &Array4<f32>| {
        let shape: Vec<i64> = array.shape().iter().map(|&extent| extent as i64).collect();
        Tensor::from_slice(array.as_slice().expect("C order")).view(&*shape)
    };
    let gaussian = Tensor::from_slice(&window_weights(&[8, 8, 8]).into_iter().collect::<Vec<_>>()).view([8, 8, 8]);
    // nnU-Net's own steps: answers of 32 bits are added to sums of 16, which are then divided.
    let sums = Tensor::zeros([3, 12, 8, 8], (Kind::Half, tch::Device::Cpu));
    let total = Tensor::zeros([12, 8, 8], (Kind::Half, tch::Device::Cpu));
    for start in [0, 4] {
        let window = image.slice(s![.., start..start + 8, .., ..]).to_owned();
        let answer = tensor(&direct(&network, &window)) * &gaussian;
        let mut part = sums.narrow(1, start as i64, 8);
        part += answer;
        let mut part = total.narrow(0, start as i64, 8);
        part += gaussian.to_kind(Kind::Half);
    }
    let expected = array(&(sums / total).to_kind(Kind::Float)).expect("it fits");
    let options = InferenceOptions { sums: PrecisionOfSums::Float16, ..options(&[8, 8, 8]) };
    assert_eq!(predict_array(&[network], &image, &options).into_dyn(), expected);
}

#[test]
fn an_axis_is_mirrored_alone_and_with_the_others() {
    assert_eq!(flips(&[0, 2], PrecisionOfSums::Float32), [vec![], vec![2], vec![4], vec![2, 4]]);
}

#[test]
fn forms_are_summed_in_nnunets_order_where_that_is_asked_for() {
    let expected = [vec![], vec![2], vec![3], vec![4], vec![2, 3], vec![2, 4], vec![3, 4], vec![2, 3, 4]];
    assert_eq!(flips(&[0, 1, 2], PrecisionOfSums::Float16), expected);
}

#[test]
fn mirrored_forms_of_one_window_are_averaged() {
    let network = network(3, 1, 1);
    let image = image([1, 8, 8, 8]);
    let flipped = |image: &Array4<f32>| image.slice(s![.., .., ..;-1, ..]).as_standard_layout().into_owned();
    let expected = (direct(&network, &image) + flipped(&direct(&network, &flipped(&image)))) / 2.0;
    let options = InferenceOptions { mirror_axes: vec![1], ..options(&[8, 8, 8]) };
    assert!(deviation(&predict_array(&[network], &image, &options), &expected) < 1e-5);
}

#[test]
fn networks_are_averaged() {
    let image = image([1, 8, 8, 8]);
    let (first, second) = (network(3, 1, 1), network(3, 2, 1));
    let expected = (direct(&first, &image) + direct(&second, &image)) / 2.0;
    let found = predict_array(&[first, second], &image, &options(&[8, 8, 8]));
    assert!(deviation(&found, &expected) < 1e-5);
}

#[test]
fn an_image_smaller_than_the_window_is_padded_with_zeros_around_it() {
    let network = network(3, 1, 1);
    let small = image([1, 5, 8, 6]);
    // acvl_utils puts the odd voxel behind: 1 before and 2 behind on the first axis, 1 and 1 on the last.
    let mut padded = Array4::zeros([1, 8, 8, 8]);
    padded.slice_mut(s![.., 1..6, .., 1..7]).assign(&small);
    let expected = direct(&network, &padded).slice(s![.., 1..6, .., 1..7]).to_owned();
    let found = predict_array(&[network], &small, &options(&[8, 8, 8]));
    assert!(deviation(&found, &expected) < 1e-5);
}

#[test]
fn a_network_of_slices_sees_each_slice_alone() {
    let network = [network(2, 1, 2)];
    let image = image([1, 3, 12, 10]);
    let all = predict_array(&network, &image, &options(&[8, 8]));
    for slice in 0..3 {
        let alone = image.slice(s![.., slice..=slice, .., ..]).as_standard_layout().into_owned();
        let found = predict_array(&network, &alone, &options(&[8, 8]));
        assert_eq!(found, all.slice(s![.., slice..=slice, .., ..]));
    }
}

#[test]
fn averaged_probabilities_are_probabilities() {
    let options = InferenceOptions { average: Average::Softmax, ..options(&[8, 8, 8]) };
    let found = predict_array(&[network(3, 1, 1)], &image([1, 11, 8, 9]), &options);
    for sum in found.sum_axis(ndarray::Axis(0)) {
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }
}

#[test]
fn planes_are_a_part_of_all() {
    let prediction = predict(&[network(3, 1, 1)], image([1, 8, 8, 9]).view(), &options(&[8, 8, 8])).expect("all fit");
    let planes = prediction.planes(1..3, 2..7).expect("there are as many");
    assert_eq!(prediction.shape(), [3, 8, 8, 9]);
    assert_eq!(planes, prediction.into_array().expect("it fits").slice(s![1..3, 2..7, .., ..]));
}

fn error(networks: &[Network], shape: [usize; 4], options: &InferenceOptions) -> String {
    predict(networks, image(shape).view(), options).expect_err("something does not fit").to_string()
}

#[test]
fn no_network_is_an_error() {
    assert!(error(&[], [1, 8, 8, 8], &options(&[8, 8, 8])).starts_with("there is no network"));
}

#[test]
fn another_number_of_channels_is_an_error() {
    let error = error(&[network(3, 1, 1)], [2, 8, 8, 8], &options(&[8, 8, 8]));
    assert_eq!(error, "image of shape `[2, 8, 8, 8]` cannot be predicted, expected 1 channels and at least one voxel");
}

#[test]
fn an_empty_image_is_an_error() {
    assert!(error(&[network(3, 1, 1)], [1, 0, 8, 8], &options(&[8, 8, 8])).contains("at least one voxel"));
}

#[test]
fn a_patch_that_cannot_be_halved_is_an_error() {
    let error = error(&[network(3, 1, 1)], [1, 8, 8, 8], &options(&[8, 7, 8]));
    assert_eq!(error, "patch `[8, 7, 8]` does not fit the network, expected multiples of `[2, 2, 2]`");
}

#[test]
fn a_mirrored_axis_that_is_not_there_is_an_error() {
    let options = InferenceOptions { mirror_axes: vec![3], ..options(&[8, 8, 8]) };
    let error = error(&[network(3, 1, 1)], [1, 8, 8, 8], &options);
    assert_eq!(error, "axis 3 cannot be mirrored, expected axes below 3, each at most once");
}

#[test]
fn an_axis_that_is_mirrored_twice_is_an_error() {
    let options = InferenceOptions { mirror_axes: vec![1, 2, 1], ..options(&[8, 8, 8]) };
    assert!(error(&[network(3, 1, 1)], [1, 8, 8, 8], &options).starts_with("axis 1 cannot be mirrored"));
}

#[test]
fn an_image_that_is_not_finite_is_an_error_not_a_segmentation() {
    let mut image = image([1, 8, 8, 8]);
    image[[0, 4, 4, 4]] = f32::NAN;
    let error = predict(&[network(3, 1, 1)], image.view(), &options(&[8, 8, 8])).expect_err("not finite");
    assert!(matches!(error, InferenceError::NotFinite), "{error}");
}

#[test]
fn a_step_of_zero_is_an_error() {
    let options = InferenceOptions { step: 0.0, ..options(&[8, 8, 8]) };
    assert!(error(&[network(3, 1, 1)], [1, 9, 8, 8], &options).starts_with("step `0`"));
}
