use std::path::Path;

use serde_json::json;

use super::*;

fn configuration() -> Value {
    json!({
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 9,
        "patch_size": [40, 56, 40],
        "median_image_size_in_voxels": [36.0, 50.0, 35.0],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [false],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": false, "order": 3, "order_z": 0, "force_separate_z": null},
        "resampling_fn_seg_kwargs": {"is_seg": true, "order": 1, "order_z": 0, "force_separate_z": null},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": false, "order": 1, "order_z": 0, "force_separate_z": null},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [32, 64],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [2, 2, 2]],
                "n_conv_per_stage": [2, 2],
                "n_conv_per_stage_decoder": [2],
                "conv_bias": true,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": true},
                "dropout_op": null,
                "dropout_op_kwargs": null,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": true}
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]
        },
        "batch_dice": false
    })
}

fn document(configurations: &Value) -> Value {
    json!({
        "dataset_name": "Dataset004_Hippocampus",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [36, 50, 35],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [2, 0, 1],
        "transpose_backward": [1, 2, 0],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"mean": 1.0}}
    })
}

fn parse(document: &Value) -> Result<Plans, PlansError> {
    Plans::from_slice(document.to_string().as_bytes(), Path::new("plans.json"))
}

fn plans(configurations: &Value) -> Plans {
    parse(&document(configurations)).expect("plans")
}

/// The plans with one configuration, one of whose values is another.
fn changed(pointer: &str, value: Value) -> Plans {
    let mut configurations = json!({"c": configuration()});
    *configurations.pointer_mut(&format!("/c{pointer}")).expect("there is such a value") = value;
    plans(&configurations)
}

#[test]
fn keys_of_the_users_survive() {
    let mut original = document(&json!({"c": {"inherits_from": "2d", "my_trainer": {"b": 1, "a": [2]}}}));
    original["my_key"] = json!({"z": 1, "y": 2});
    let plans = parse(&original).expect("plans");
    let written = serde_json::to_string(&plans).expect("serialises");
    assert_eq!(written, original.to_string());
}

#[test]
fn a_configuration_is_written_in_nnu_nets_order() {
    let original = configuration();
    let typed: Configuration = serde_json::from_value(original.clone()).expect("a configuration");
    assert_eq!(serde_json::to_string(&typed).expect("serialises"), original.to_string());
}

#[test]
fn the_arguments_of_a_network_are_written_in_nnu_nets_order() {
    let plans = plans(&json!({"c": configuration()}));
    let arguments = plans.configuration("c").expect("valid").architecture.unet("c").expect("a U-Net");
    let original = configuration()["architecture"]["arch_kwargs"].to_string();
    assert_eq!(serde_json::to_string(&arguments).expect("serialises"), original);
}

#[test]
fn a_heir_overrides_single_keys() {
    let plans = plans(&json!({
        "a": configuration(),
        "b": {"inherits_from": "a", "batch_size": 4},
        "c": {"inherits_from": "b", "previous_stage": "low"}
    }));
    let heir = plans.configuration("c").expect("valid");
    assert_eq!((heir.batch_size, heir.previous_stage.as_deref()), (4, Some("low")));
    assert_eq!(heir.patch_size, [40, 56, 40]);
}

#[test]
fn a_circle_of_heirs_is_an_error() {
    let plans = plans(&json!({"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}}));
    let error = plans.configuration("a").expect_err("a circle");
    assert_eq!(error.to_string(), "the configurations `a` → `b` → `a` inherit from each other in a circle");
}

#[test]
fn an_unknown_configuration_names_those_that_exist() {
    let error = plans(&json!({"2d": {}, "3d": {}})).configuration("4d").expect_err("not there");
    assert_eq!(error.to_string(), "the plans have no configuration `4d`: they have `2d`, `3d`");
}

#[test]
fn a_missing_key_is_named() {
    let error = plans(&json!({"2d": {}})).configuration("2d").expect_err("nothing in it");
    assert!(error.to_string().contains("`data_identifier`"), "{error}");
}

#[test]
fn orders_of_the_axes_that_do_not_undo_each_other_are_refused() {
    let mut document = document(&json!({}));
    document["transpose_backward"] = json!([2, 0, 1]);
    assert!(matches!(parse(&document), Err(PlansError::Transpose { expected: [1, 2, 0], .. })));
}

#[test]
fn a_patch_that_the_strides_do_not_divide_is_refused() {
    let error = changed("/patch_size", json!([40, 56, 41])).configuration("c").expect_err("41 is odd");
    assert!(matches!(error, PlansError::Inconsistent { key: "patch_size", .. }));
}

#[test]
fn axes_that_differ_in_number_are_refused() {
    let error = changed("/spacing", json!([1.0, 1.0])).configuration("c").expect_err("three axes");
    assert!(matches!(error, PlansError::Inconsistent { key: "spacing", .. }));
}

#[test]
fn a_stride_of_zero_is_refused() {
    let error = changed("/architecture/arch_kwargs/strides/1/0", json!(0)).configuration("c").expect_err("zero");
    assert!(matches!(error, PlansError::Inconsistent { key: "strides", .. }));
}

#[test]
fn a_network_of_ones_own_leaves_the_grid_usable() {
    let plans = changed(
        "/architecture",
        json!({
            "network_class_name": "my.Net", "arch_kwargs": {"width": 3}, "_kw_requires_import": []
        }),
    );
    let configuration = plans.configuration("c").expect("the grid is valid");
    assert!(matches!(configuration.architecture.unet("c"), Err(PlansError::Network { class }) if class == "my.Net"));
}

#[test]
fn intensities_of_a_channel_that_is_not_there_are_an_error() {
    let error = plans(&json!({})).foreground_intensities(1).expect_err("only channel 0");
    assert!(matches!(error, PlansError::Intensities { channel: 1, .. }));
}

#[test]
fn intensities_of_a_dataset_without_foreground_are_not_a_number() {
    let mut text = document(&json!({}));
    let keys = ["mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5"];
    text["foreground_intensity_properties_per_channel"]["0"] = keys.iter().map(|key| (*key, "?")).collect();
    let text = text.to_string().replace("\"?\"", "NaN");
    let plans = Plans::from_slice(text.as_bytes(), Path::new("plans.json")).expect("plans");
    assert!(plans.foreground_intensities(0).expect("there").mean.is_nan());
}

#[test]
fn plans_from_before_version_2_2_are_read() {
    let mut old = configuration();
    let map = old.as_object_mut().expect("an object");
    map.remove("architecture");
    map.extend(
        json!({
            "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 32, "unet_max_num_features": 48,
            "n_conv_per_stage_encoder": [2, 2], "n_conv_per_stage_decoder": [2], "num_pool_per_axis": [1, 1, 1],
            "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]], "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]]
        })
        .as_object()
        .expect("an object")
        .clone(),
    );
    let arguments = plans(&json!({"c": old})).configuration("c").expect("valid").architecture.unet("c").expect("U-Net");
    assert_eq!((arguments.features_per_stage, arguments.n_conv_per_stage), (vec![32, 48], Some(vec![2, 2])));
}

#[test]
fn arbitrary_values_anywhere_never_panic() {
    let pointers = [
        "/patch_size",
        "/spacing",
        "/batch_size",
        "/architecture/arch_kwargs/strides",
        "/architecture/arch_kwargs/n_stages",
        "/architecture/arch_kwargs/kernel_sizes/0",
        "/use_mask_for_norm",
    ];
    let values = [
        json!(null),
        json!([]),
        json!([0, 0, 0]),
        json!(-1),
        json!(u64::MAX),
        json!([u64::MAX, 2, 2]),
        json!([[u64::MAX, 2, 2], [2, 2, 2]]),
        json!("x"),
        json!({}),
        json!(0),
        json!([1e308, -0.0, 1.0]),
    ];
    arbtest::arbtest(|source| {
        let mut configurations = json!({"c": configuration()});
        for _ in 0..source.int_in_range(1..=3)? {
            let pointer = format!("/c{}", source.choose(&pointers)?);
            if let Some(place) = configurations.pointer_mut(&pointer) {
                *place = source.choose(&values)?.clone();
            }
        }
        // Only that this returns matters: an error or a configuration, both are fine.
        drop(plans(&configurations).configuration("c"));
        Ok(())
    });
}
