use std::fs;

use super::*;
use crate::architecture::{Description, NetworkKind, Pooling};

const CPU: Device = Device::Cpu { threads: 1 };

fn architecture(features: usize) -> Architecture {
    with_outputs(features, 2)
}

fn with_outputs(features: usize, outputs: usize) -> Architecture {
    Architecture::try_from(Description {
        kind: NetworkKind::PlainConvUNet,
        input_channels: 1,
        outputs,
        features_per_stage: vec![features; 3],
        kernel_sizes: vec![vec![3; 2]; 3],
        strides: vec![vec![1; 2], vec![2; 2], vec![2; 2]],
        units_per_stage: vec![1; 3],
        convolutions_per_decoder_stage: vec![1; 2],
        convolution_bias: true,
        norm_epsilon: 1e-5,
        pooling: Pooling::StridedConvolution,
        deep_supervision: true,
    })
    .expect("a network")
}

fn network(features: usize) -> Network {
    Network::new(&architecture(features), 11, CPU).expect("it fits into memory")
}

struct Saved {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn save(network: &Network) -> Saved {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("weights.safetensors");
    network.save(&path).expect("the folder is there");
    Saved { _folder: folder, path }
}

fn load_error(path: &Path, features: usize) -> String {
    Network::load(path, &architecture(features), CPU).expect_err("the file is wrong").to_string()
}

#[test]
fn weights_survive_a_file() {
    let network = network(3);
    let saved = save(&network);
    let loaded = Network::load(&saved.path, &architecture(3), CPU).expect("it was just written");
    assert_eq!(loaded.buffer(), network.buffer());
}

/// A network for five classes that begins with the weights of one for two, and a new one with the same seed.
fn pretrained() -> (Network, Network, Network) {
    let (source, architecture) = (network(3), with_outputs(3, 5));
    let saved = save(&source);
    let begun = Network::pretrained(&saved.path, &architecture, 4, CPU).expect("all but the outputs fit");
    (source, begun, Network::new(&architecture, 4, CPU).expect("it fits into memory"))
}

/// The parameters of a network whose names have `.seg_layers.`, or those that have not.
fn parameters(network: &Network, of_outputs: bool) -> Vec<Tensor> {
    let views = network.layout().views(network.buffer()).expect("the buffer is whole");
    let named = network.layout().specifications().iter().zip(views);
    named.filter(|(one, _)| one.name.contains(".seg_layers.") == of_outputs).map(|(_, view)| view).collect()
}

#[test]
fn a_pretrained_network_begins_with_all_weights_but_those_of_its_outputs() {
    let (source, begun, _) = pretrained();
    assert_eq!(parameters(&begun, false), parameters(&source, false));
}

#[test]
fn the_outputs_of_a_pretrained_network_begin_as_those_of_a_new_one() {
    let (_, begun, new) = pretrained();
    assert_eq!(parameters(&begun, true), parameters(&new, true));
}

#[test]
fn a_pretrained_network_of_another_width_is_refused() {
    let saved = save(&network(3));
    let error = Network::pretrained(&saved.path, &architecture(4), 1, CPU).expect_err("the widths differ").to_string();
    assert!(error.contains("is `F32 [3, 1, 3, 3]`, expected `F32 [4, 1, 3, 3]`"), "{error}");
}

#[test]
fn the_same_weights_are_the_same_bytes() {
    let (first, second) = (save(&network(3)), save(&network(3)));
    assert_eq!(fs::read(&first.path).expect("written"), fs::read(&second.path).expect("written"));
}

#[test]
fn weights_of_another_width_are_refused() {
    let saved = save(&network(3));
    let error = load_error(&saved.path, 4);
    assert!(error.contains("is `F32 [3, 1, 3, 3]`, expected `F32 [4, 1, 3, 3]`"), "{error}");
}

#[test]
fn a_missing_tensor_is_named() {
    let network = network(3);
    let saved = save(&network);
    let mut tensors = named(network.layout(), "", network.buffer()).expect("on the CPU");
    tensors.retain(|(name, _)| name != "decoder.seg_layers.0.bias");
    write(&saved.path, tensors, None).expect("the folder is there");
    assert!(load_error(&saved.path, 3).contains("has no tensor `decoder.seg_layers.0.bias`"));
}

#[test]
fn a_tensor_too_many_is_named() {
    let network = network(3);
    let saved = save(&network);
    let mut tensors = named(network.layout(), "", network.buffer()).expect("on the CPU");
    tensors.push(("encoder.more".to_owned(), Tensor::from_slice(&[1.0_f32])));
    write(&saved.path, tensors, None).expect("the folder is there");
    assert!(load_error(&saved.path, 3).contains("has a tensor `encoder.more`"));
}

#[test]
fn weights_that_are_not_finite_are_not_written() {
    let network = network(3);
    let saved = save(&network);
    let before = fs::read(&saved.path).expect("written");
    drop(network.buffer().narrow(0, 0, 1).fill_(f64::NAN));
    let error = network.save(&saved.path).expect_err("a weight is not a number").to_string();
    assert!(error.contains("values that are not finite"), "{error}");
    assert_eq!(fs::read(&saved.path).expect("still there"), before);
}

#[test]
fn weights_that_are_not_finite_are_not_read() {
    let network = network(3);
    let saved = save(&network);
    let mut bytes = fs::read(&saved.path).expect("written");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&saved.path, bytes).expect("the folder is there");
    assert!(load_error(&saved.path, 3).contains("not finite"));
}

#[test]
fn a_damaged_file_is_an_error_wherever_the_damage_is() {
    let saved = save(&network(2));
    let whole = fs::read(&saved.path).expect("written");
    arbtest::arbtest(|random| {
        let mut bytes = whole.clone();
        let end = random.choose_index(bytes.len())?;
        bytes.truncate(end);
        fs::write(&saved.path, &bytes).expect("the folder is there");
        assert!(Network::load(&saved.path, &architecture(2), CPU).is_err());
        Ok(())
    });
}

#[test]
fn a_flipped_header_byte_never_panics() {
    let saved = save(&network(2));
    let whole = fs::read(&saved.path).expect("written");
    let header = 8 + usize::from(whole[0]) + 256 * usize::from(whole[1]);
    arbtest::arbtest(|random| {
        let mut bytes = whole.clone();
        let place = random.choose_index(header)?;
        bytes[place] ^= 1 << random.choose_index(8)?;
        fs::write(&saved.path, &bytes).expect("the folder is there");
        // Some flips only change a number's spelling; what counts is that none of them ends the process.
        let loaded = Network::load(&saved.path, &architecture(2), CPU);
        assert!(loaded.is_err() || loaded.is_ok_and(|network| network.architecture() == &architecture(2)));
        Ok(())
    });
}
