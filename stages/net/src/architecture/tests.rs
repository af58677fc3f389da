use serde_json::json;

use super::*;

fn plain() -> Description {
    Description {
        kind: NetworkKind::PlainConvUNet,
        input_channels: 1,
        outputs: 3,
        features_per_stage: vec![32, 64, 128, 256],
        kernel_sizes: vec![vec![3; 3]; 4],
        strides: vec![vec![1; 3], vec![2; 3], vec![2; 3], vec![2; 3]],
        units_per_stage: vec![2; 4],
        convolutions_per_decoder_stage: vec![2; 3],
        convolution_bias: true,
        norm_epsilon: 1e-5,
        pooling: Pooling::StridedConvolution,
        deep_supervision: true,
    }
}

fn planned() -> serde_json::Value {
    json!({
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [32, 64, 128, 256],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": 3,
            "strides": [1, 2, [2, 2, 2], 2],
            "n_conv_per_stage": 2,
            "n_conv_per_stage_decoder": [2, 2, 2],
            "conv_bias": true,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": true},
            "dropout_op": null,
            "dropout_op_kwargs": null,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": true}
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]
    })
}

fn error_of(description: Description) -> String {
    Architecture::try_from(description).expect_err("the description is wrong").to_string()
}

fn error_of_plans(change: impl Fn(&mut serde_json::Value)) -> String {
    let mut planned = planned();
    change(&mut planned);
    Architecture::from_plans(&planned, 1, 3, true).expect_err("the plans are wrong").to_string()
}

#[test]
fn plans_may_give_one_number_for_all_stages() {
    let architecture = Architecture::from_plans(&planned(), 1, 3, true).expect("the plans are right");
    assert_eq!(Description::from(architecture), plain());
}

#[test]
fn divisors_are_the_products_of_the_strides() {
    let mut description = plain();
    description.strides[1] = vec![1, 2, 2];
    assert_eq!(description.divisors(), [4, 8, 8]);
}

#[test]
fn the_lowest_resolution_is_not_supervised() {
    assert_eq!(plain().n_supervised(), 2);
    assert_eq!(Description { deep_supervision: false, ..plain() }.n_supervised(), 1);
}

#[test]
fn supervised_outputs_shrink_by_the_strides() {
    let mut description = plain();
    description.strides[1] = vec![1, 2, 2];
    assert_eq!(description.supervised_shapes(&[8, 16, 24]), [vec![8, 16, 24], vec![8, 8, 12]]);
}

#[test]
fn a_list_of_another_length_is_named() {
    let error = error_of(Description { strides: vec![vec![1; 3]; 3], ..plain() });
    assert_eq!(error, "`strides` of the architecture has 3 entries, expected 4, one a stage");
}

#[test]
fn an_even_kernel_is_refused() {
    let mut description = plain();
    description.kernel_sizes[2] = vec![3, 2, 3];
    let error = error_of(description);
    assert_eq!(error, "`kernel_sizes` of the architecture is `[3, 2, 3]` in stage 2, expected odd numbers below 32");
}

#[test]
fn a_stage_of_another_dimension_is_refused() {
    let mut description = plain();
    description.strides[1] = vec![2, 2];
    assert!(error_of(description).contains("as many in every stage"));
}

#[test]
fn more_parameters_than_any_device_holds_are_refused_before_they_are_allocated() {
    let error = error_of(Description { features_per_stage: vec![65_536; 4], ..plain() });
    assert!(error.contains("more than 4000000000 parameters"), "{error}");
}

#[test]
fn a_class_that_is_not_known_is_named() {
    let error = error_of_plans(|plans| plans["network_class_name"] = json!("package.Primus"));
    assert!(error.contains("`package.Primus`"), "{error}");
}

#[test]
fn an_unknown_keyword_is_refused_rather_than_ignored() {
    let error = error_of_plans(|plans| plans["arch_kwargs"]["squeeze_excitation"] = json!(true));
    assert_eq!(error, "the `architecture` of the plans cannot be read");
}

#[test]
fn dropout_is_refused_rather_than_left_out() {
    let error = error_of_plans(|plans| plans["arch_kwargs"]["dropout_op"] = json!("torch.nn.Dropout3d"));
    assert!(error.contains("`dropout_op`"), "{error}");
}

#[test]
fn a_description_survives_its_json() {
    let architecture = Architecture::try_from(plain()).expect("the description is right");
    let text = serde_json::to_string(&architecture).expect("a description is plain data");
    assert_eq!(serde_json::from_str::<Architecture>(&text).expect("it was just written"), architecture);
}

#[test]
fn json_of_a_wrong_description_is_refused() {
    let mut value = serde_json::to_value(plain()).expect("a description is plain data");
    value["features_per_stage"] = json!([32, 0, 128, 256]);
    let error = serde_json::from_value::<Architecture>(value).expect_err("no stage has 0 features").to_string();
    assert!(error.contains("`features_per_stage` of the architecture is `0` in stage 1"), "{error}");
}
