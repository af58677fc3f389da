use super::*;
use crate::testing::{logits, parameters as parameters_of};

const CPU: Device = Device::Cpu { threads: 1 };

fn conv3d_description(n_stages: usize, outputs: usize, strides: Vec<Vec<usize>>) -> Description {
    let features = (0..n_stages).map(|stage| (32 << stage).min(320)).collect();
    Description {
        kind: crate::architecture::NetworkKind::PlainConvUNet,
        input_channels: 1,
        outputs,
        features_per_stage: features,
        kernel_sizes: vec![vec![3; strides[0].len()]; n_stages],
        strides,
        units_per_stage: vec![2; n_stages],
        convolutions_per_decoder_stage: vec![2; n_stages - 1],
        convolution_bias: true,
        norm_epsilon: 1e-5,
        pooling: crate::architecture::Pooling::StridedConvolution,
        deep_supervision: true,
    }
}

fn isotropic_strides(n_stages: usize, dimension: usize) -> Vec<Vec<usize>> {
    (0..n_stages).map(|stage| vec![if stage == 0 { 1 } else { 2 }; dimension]).collect()
}

#[test]
fn a_plain_network_has_the_parameters_that_nnunet_counts() {
    // nnU-Net's plans of the Medical Segmentation Decathlon: Hippocampus and Liver, 3d_fullres and 2d.
    let cases = [
        (conv3d_description(4, 3, isotropic_strides(4, 3)), 5_603_177),
        (conv3d_description(6, 3, isotropic_strides(6, 3)), 31_196_399),
    ];
    for (description, expected) in cases {
        assert_eq!(parameter_count(&description), Some(expected));
    }
}

#[test]
fn a_residual_network_has_the_parameters_that_nnunet_counts() {
    let n_blocks = [1, 3, 4, 6, 6, 6];
    for (n_stages, expected) in [(4, 25_895_593), (6, 102_350_575)] {
        let description = Description {
            kind: crate::architecture::NetworkKind::ResidualEncoderUNet,
            units_per_stage: n_blocks[..n_stages].to_vec(),
            convolutions_per_decoder_stage: vec![1; n_stages - 1],
            ..conv3d_description(n_stages, 3, isotropic_strides(n_stages, 3))
        };
        assert_eq!(parameter_count(&description), Some(expected));
    }
}

#[test]
fn the_network_of_2018_has_no_bias_behind_the_encoder_but_in_its_blocks() {
    let mut description = conv3d_description(3, 2, isotropic_strides(3, 2));
    description.kind = crate::architecture::NetworkKind::Unet2018;
    let topology = Topology::new(&description);
    let mut names = topology.layout().specifications().iter().map(|it| it.name.as_str());
    assert!(names.all(|name| !(name.ends_with("bias") && (name.contains("transp") || name.contains("seg")))));
}

#[test]
fn maximum_pooling_halves_what_a_strided_convolution_halves() {
    let mut description = conv3d_description(3, 2, isotropic_strides(3, 2));
    description.kind = crate::architecture::NetworkKind::Unet2018;
    description.pooling = crate::architecture::Pooling::Maximum;
    description.features_per_stage = vec![4, 8, 8];
    let architecture = Architecture::try_from(description).expect("a network");
    let network = Network::new(&architecture, 1, CPU).expect("it fits into memory");
    let input = Tensor::ones([1, 1, 16, 8], (tch::Kind::Float, tch::Device::Cpu));
    assert_eq!(logits(&network, &input).size(), [1, 2, 16, 8]);
}

#[test]
fn the_same_seed_gives_the_same_weights() {
    let architecture = Architecture::try_from(conv3d_description(2, 2, isotropic_strides(2, 3))).expect("a network");
    let weights = |seed| Network::new(&architecture, seed, CPU).expect("it fits").buffer().copy();
    assert_eq!(weights(5), weights(5));
    assert_ne!(weights(5), weights(6));
}

#[test]
fn supervised_outputs_use_the_first_parameters_only() {
    let architecture = Architecture::try_from(conv3d_description(4, 2, isotropic_strides(4, 2))).expect("a network");
    let network = Network::new(&architecture, 1, CPU).expect("it fits");
    let input = Tensor::ones([1, 1, 16, 16], (tch::Kind::Float, tch::Device::Cpu));
    let parameters = parameters_of(&network);
    let outputs = network.topology().forward(&parameters, &input, 2).expect("the shapes fit");
    let loss = outputs[0].sum(tch::Kind::Float) + outputs[1].sum(tch::Kind::Float);
    let gradients = Tensor::run_backward(&[loss], &parameters, false, false);
    let n_used = gradients.iter().filter(|gradient| gradient.defined()).count();
    assert_eq!(n_used, network.topology().n_used(2));
    assert!(gradients[..n_used].iter().all(Tensor::defined));
}
