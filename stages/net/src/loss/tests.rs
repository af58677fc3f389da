use std::path::Path;

use serde_json::Value;
use tch::Device;

use super::*;
use crate::testing::{golden, load_npy, read_json, read_npy, tensor};

fn cases() -> Vec<Value> {
    let cases = read_json(&golden("loss").join("cases.json"));
    let cases = cases.as_array().expect("a list").clone();
    assert!(!cases.is_empty(), "no vector of a loss on disk");
    cases
}

fn loss_of(case: &Value) -> Loss {
    let n_outputs = case["logits"][0]["shape"][1].as_i64().expect("a count") as i16;
    let target = if case["kind"] == "ce" {
        Target::Labels { ignore: case["ignore_label"].as_i64().map(|label| label as i16) }
    } else {
        let ignore = case["ignore_label"].is_string().then_some(n_outputs);
        Target::Regions { regions: Vec::new(), ignore }
    };
    Loss { smooth: case["smooth"].as_f64().expect("a number"), ..loss(target, case["batch_dice"] == true) }
}

fn loss(target: Target, batch_dice: bool) -> Loss {
    Loss::nnunet(target, batch_dice)
}

/// The sums of an output, from a target in the form of the vectors.
fn vector_sums(loss: &Loss, logits: &Tensor, target: &Path) -> Sums {
    match &loss.target {
        Target::Labels { .. } => {
            let labels = tensor(&read_npy::<i16>(target)).to_kind(Kind::Int64);
            loss.sums(logits, &labels).expect("the shapes fit")
        }
        // Regions come as channels, with one more for the voxels that are ignored.
        Target::Regions { ignore, .. } => {
            let channels = tensor(&read_npy::<u8>(target)).to_kind(Kind::Float);
            let regions = channels.narrow(1, 0, logits.size()[1]);
            let valid = ignore.map(|_| channels.narrow(1, logits.size()[1], 1).neg() + 1.0);
            region_sums(logits, &regions, valid.as_ref()).expect("the shapes fit")
        }
    }
}

struct Output {
    logits: Tensor,
    expected_gradient: Option<Tensor>,
}

/// The loss of a vector, and what its outputs are.
fn run(case: &Value) -> (Tensor, Vec<Output>) {
    let folder = golden("loss").join(case["case"].as_str().expect("a name"));
    let loss = loss_of(case);
    let n_outputs = case["n_outputs"].as_u64().expect("a count") as usize;
    let mut total = Tensor::zeros([] as [i64; 0], (Kind::Float, Device::Cpu));
    let mut outputs = Vec::new();
    for (index, weight) in deep_supervision_weights(n_outputs).into_iter().enumerate() {
        let logits = load_npy(&folder.join(format!("logits_{index}.npy"))).set_requires_grad(true);
        let expected_gradient =
            (!case["gradients"][index].is_null()).then(|| load_npy(&folder.join(format!("gradient_{index}.npy"))));
        assert_eq!(expected_gradient.is_some(), weight > 0.0, "{} output {index}", folder.display());
        let sums = vector_sums(&loss, &logits, &folder.join(format!("target_{index}.npy")));
        total += loss.of_sums(&sums).expect("the shapes fit") * weight;
        outputs.push(Output { logits, expected_gradient });
    }
    (total, outputs)
}

#[test]
fn values_are_nnunets() {
    for case in cases() {
        let expected = case["loss"].as_f64().expect("a number");
        let deviation = (run(&case).0.double_value(&[]) - expected).abs() / expected.abs();
        println!("{}: {deviation:e} relative", case["case"]);
        assert!(deviation <= 1e-5, "{}: {deviation}", case["case"]);
    }
}

#[test]
fn gradients_are_nnunets() {
    for case in cases() {
        let (total, outputs) = run(&case);
        let logits: Vec<&Tensor> = outputs.iter().map(|output| &output.logits).collect();
        let gradients = Tensor::run_backward(&[total], &logits, false, false);
        for (index, (output, gradient)) in outputs.iter().zip(gradients).enumerate() {
            let Some(expected) = &output.expected_gradient else { continue };
            let largest = expected.abs().max().double_value(&[]);
            let deviation = (gradient - expected).abs().max().double_value(&[]);
            println!("{} output {index}: {:e} of the largest", case["case"], deviation / largest);
            assert!(deviation <= 1e-5 * largest + 1e-9, "{} output {index}: {deviation}", case["case"]);
        }
    }
}

#[test]
fn deep_supervision_weights_are_nnunets() {
    let vector = read_json(&golden("loss").join("deep_supervision_weights.json"));
    for (n_outputs, expected) in vector.as_object().expect("a table") {
        let weights = deep_supervision_weights(n_outputs.parse().expect("a count"));
        for (weight, expected) in weights.iter().zip(expected["plain"].as_array().expect("a list")) {
            assert!((weight - expected.as_f64().expect("a number")).abs() < 1e-15, "{n_outputs} outputs");
        }
    }
}

#[test]
fn samples_may_be_summed_apart() {
    let logits = Tensor::from_slice(&[0.3_f32, -1.0, 2.0, 0.5, 0.1, 0.7, -0.2, 1.5]).view([2, 2, 1, 2]);
    let labels = Tensor::from_slice(&[0_i64, 1, 1, 0]).view([2, 1, 1, 2]);
    let loss = loss(Target::Labels { ignore: None }, true);
    let whole = loss.sums(&logits, &labels).expect("the shapes fit");
    let apart: Vec<Sums> = (0..2)
        .map(|sample| loss.sums(&logits.narrow(0, sample, 1), &labels.narrow(0, sample, 1)).expect("they fit"))
        .collect();
    assert_eq!(Tensor::cat(&[&apart[0].predicted, &apart[1].predicted], 0), whole.predicted);
}

#[test]
fn a_batch_without_annotation_has_the_dice_of_nothing() {
    // The Dice of two empty sets is smooth / smooth, and there is no voxel to take an entropy of.
    let logits = Tensor::from_slice(&[0.3_f32, -1.0, 2.0, 0.5]).view([1, 2, 1, 2]);
    let labels = Tensor::from_slice(&[2_i64, 2]).view([1, 1, 1, 2]);
    let loss = loss(Target::Labels { ignore: Some(2) }, false);
    let sums = loss.sums(&logits, &labels).expect("the shapes fit");
    assert_eq!(loss.of_sums(&sums).expect("the shapes fit").double_value(&[]), -1.0);
}

#[test]
fn regions_hold_their_labels() {
    let target = Target::Regions { regions: vec![vec![1, 2], vec![2]], ignore: None };
    let labels = Tensor::from_slice(&[0_i64, 1, 2]).view([1, 1, 1, 3]);
    let channels = target.regions(&labels).expect("the shapes fit");
    assert_eq!(channels, Tensor::from_slice(&[0.0_f32, 1.0, 1.0, 0.0, 0.0, 1.0]).view([1, 2, 1, 3]));
}

#[test]
fn counts_of_labels_leave_out_background_and_ignored_voxels() {
    // Predicted 1, 1, 0, 1; annotated 1, 0, 1, ignored.
    let logits = Tensor::from_slice(&[0.0_f32, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]).view([1, 2, 1, 4]);
    let labels = Tensor::from_slice(&[1_i64, 0, 1, 2]).view([1, 1, 1, 4]);
    let counts = Target::Labels { ignore: Some(2) }.counts(&logits, &labels).expect("the shapes fit");
    assert_eq!(counts, Tensor::from_slice(&[1_i64, 1, 1]).view([3, 1]));
}

#[test]
fn counts_of_regions_are_of_each_region() {
    // Predicted: first region everywhere, second nowhere.
    let logits = Tensor::from_slice(&[1.0_f32, 1.0, -1.0, -1.0]).view([1, 2, 1, 2]);
    let labels = Tensor::from_slice(&[0_i64, 2]).view([1, 1, 1, 2]);
    let target = Target::Regions { regions: vec![vec![1, 2], vec![2]], ignore: None };
    let counts = target.counts(&logits, &labels).expect("the shapes fit");
    assert_eq!(counts, Tensor::from_slice(&[1_i64, 0, 1, 0, 0, 1]).view([3, 2]));
}
