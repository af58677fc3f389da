use super::*;

fn loss(target: Target, batch_dice: bool) -> Loss {
    Loss::nnunet(target, batch_dice)
}

#[test]
fn the_weights_of_the_outputs_halve_and_the_last_has_none() {
    assert_eq!(deep_supervision_weights(1), [1.0]);
    assert_eq!(deep_supervision_weights(2), [1.0, 0.0]);
    assert_eq!(deep_supervision_weights(4), [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0]);
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
