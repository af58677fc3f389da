use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::testing::{golden, load_npy, load_npz, logits, parameters as parameters_of, read_json, subfolders};

const CPU: Device = Device::Cpu { threads: 1 };

struct Vector {
    folder: PathBuf,
    json: Value,
    architecture: Architecture,
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<_> = subfolders(&golden("network")).into_iter().map(read_vector).collect();
    assert!(!vectors.is_empty(), "no vector of a network on disk");
    vectors
}

fn read_vector(folder: PathBuf) -> Vector {
    let json = read_json(&folder.join("network.json"));
    let count = |key: &str| json[key].as_u64().expect("a count") as usize;
    let architecture =
        Architecture::from_plans(&json["architecture"], count("input_channels"), count("output_channels"), true)
            .expect("nnU-Net built this network");
    Vector { folder, json, architecture }
}

/// The network of the vector with the weights of the vector.
fn network(vector: &Vector) -> Network {
    let weights: HashMap<String, Tensor> = load_npz(&vector.folder.join("state_dict.npz"));
    let topology = Topology::new(&vector.architecture);
    let tensors: Vec<_> =
        topology.layout().specifications().iter().map(|it| weights[&it.name].shallow_clone()).collect();
    let buffer = topology.layout().gather(&tensors).expect("all on the CPU");
    Network::from_buffer(&vector.architecture, topology, &buffer, CPU).expect("it fits into memory")
}

fn outputs(vector: &Vector, network: &Network, parameters: &[Tensor]) -> Vec<Tensor> {
    let input = load_npy(&vector.folder.join("input.npy"));
    let n_outputs = vector.json["outputs"].as_array().expect("a list").len();
    network.topology().forward(parameters, &input, n_outputs).expect("the shapes fit")
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

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
fn outputs_are_nnunets() {
    for vector in vectors() {
        let network = network(&vector);
        let outputs = outputs(&vector, &network, &parameters_of(&network));
        for (index, output) in outputs.iter().enumerate() {
            let expected = load_npy(&vector.folder.join(format!("output_{index}.npy")));
            let deviation = largest(&(output - &expected)) / largest(&expected);
            println!("{} output {index}: {deviation:e} of the largest", vector.folder.display());
            assert!(deviation <= 1e-4, "{} output {index}: {deviation}", vector.folder.display());
        }
    }
}

/// The loss of the vectors: the sum over the outputs of `mean(output · cos(k))`, k the index in C order.
fn vector_loss(outputs: &[Tensor]) -> Tensor {
    let terms = outputs.iter().map(|output| {
        let count = output.numel() as i64;
        let index = Tensor::arange(count, (tch::Kind::Double, tch::Device::Cpu));
        let factor = index.cos().to_kind(tch::Kind::Float).view(&*output.size());
        (output * factor).mean(tch::Kind::Float)
    });
    terms.reduce(|sum, term| sum + term).expect("a network has an output")
}

#[test]
fn gradients_are_nnunets() {
    for vector in vectors() {
        let network = network(&vector);
        let parameters = parameters_of(&network);
        let loss = vector_loss(&outputs(&vector, &network, &parameters));
        let gradients = Tensor::run_backward(&[loss], &parameters, false, false);
        let expected: HashMap<String, Tensor> = load_npz(&vector.folder.join("gradients.npz"));
        assert_eq!(expected.len(), gradients.len(), "{}", vector.folder.display());
        let mut worst = 0.0_f64;
        for (specification, gradient) in network.layout().specifications().iter().zip(&gradients) {
            let expected = &expected[&specification.name];
            // In front of an instance norm the true gradient of a bias is 0 and both are rounding noise.
            let scale = largest(expected);
            if scale < 1e-6 {
                assert!(largest(gradient) < 1e-5, "{}", specification.name);
                continue;
            }
            worst = worst.max(largest(&(gradient - expected)) / scale);
            assert!(worst <= 1e-3, "{} {}: {worst}", vector.folder.display(), specification.name);
        }
        println!("{} gradients: {worst:e} of the largest of each tensor", vector.folder.display());
    }
}

#[test]
fn names_are_those_of_the_state_dict() {
    for vector in vectors() {
        let topology = Topology::new(&vector.architecture);
        let ours: BTreeSet<String> =
            topology.layout().specifications().iter().flat_map(|it| aliases(&it.name)).collect();
        let keys = vector.json["state_dict_keys"].as_array().expect("a list").iter();
        let theirs: BTreeSet<String> = keys.map(|key| key.as_str().expect("a name").to_owned()).collect();
        assert_eq!(ours, theirs, "{}", vector.folder.display());
    }
}

#[test]
fn initial_weights_are_distributed_as_nnunets() {
    for vector in vectors() {
        let topology = Topology::new(&vector.architecture);
        for specification in topology.layout().specifications() {
            let stored = &vector.json["initialisation_statistics"][&specification.name];
            let (mean, deviation) = (stored["mean"].as_f64().expect("a mean"), stored["std"].as_f64());
            let (expected_mean, expected_deviation) = match specification.initial {
                parameters::Initial::Kaiming { fan_in } => (0.0, (2.0 / (1.0001 * fan_in as f64)).sqrt()),
                parameters::Initial::Zeros => (0.0, 0.0),
                parameters::Initial::Ones => (1.0, 0.0),
            };
            // Six standard errors of the mean, and of the deviation, of a sample of this size.
            let margin = 6.0 * expected_deviation / (specification.size() as f64).sqrt();
            assert!((mean - expected_mean).abs() <= margin, "{}: mean {mean}", specification.name);
            let deviation = deviation.unwrap_or(expected_deviation);
            assert!((deviation - expected_deviation).abs() <= margin, "{}: {deviation}", specification.name);
        }
    }
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
