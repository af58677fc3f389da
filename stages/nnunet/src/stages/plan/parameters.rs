//! The parameters of the stage: a planner by name, and every value of it.

use nnflow_stage::{Parameter, ParameterKind, Parameters, StageError};
use serde_json::{Map, Value};

use crate::planner::{PlannerSettings, Preset};

/// Parameters that are no values of a planner.
const OWN: [&str; 2] = ["planner", "dataset_name"];

const COUNT: ParameterKind = ParameterKind::Optional(&ParameterKind::Integer { minimum: 1, maximum: i64::MAX });
const POSITIVE: ParameterKind =
    ParameterKind::Optional(&ParameterKind::Number { minimum: 0.0, maximum: f64::INFINITY });
const SHARE: ParameterKind = ParameterKind::Optional(&ParameterKind::Number { minimum: 0.0, maximum: 1.0 });
const PERCENT: ParameterKind = ParameterKind::Optional(&ParameterKind::Number { minimum: 0.0, maximum: 100.0 });
const ORDER: ParameterKind = ParameterKind::Optional(&ParameterKind::Integer { minimum: 0, maximum: 3 });
const FLAG: ParameterKind = ParameterKind::Optional(&ParameterKind::Boolean);
const TEXT: ParameterKind = ParameterKind::Optional(&ParameterKind::Text);
const COUNTS: ParameterKind =
    ParameterKind::Optional(&ParameterKind::List(&ParameterKind::Integer { minimum: 1, maximum: i64::MAX }));
const DISTANCES: ParameterKind =
    ParameterKind::Optional(&ParameterKind::List(&ParameterKind::Number { minimum: 0.0, maximum: f64::INFINITY }));

/// A value of the planner, which `none` leaves as it is.
const fn value(name: &'static str, kind: ParameterKind, unit: &'static str, doc: &'static str) -> Parameter {
    Parameter { name, kind, default: "null", unit, doc }
}

/// Every parameter.
pub(super) static PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "planner",
        kind: ParameterKind::Choice(&["v2", "resenc_m", "resenc_l", "resenc_xl", "2018", "2018_paper"]),
        default: "\"v2\"",
        unit: "",
        doc: "the set of values that the other parameters change",
    },
    value("dataset_name", TEXT, "", "name of the dataset in the plan; `none` takes `name` of `dataset.json`"),
    value(
        "method",
        ParameterKind::Optional(&ParameterKind::Choice(&["v2", "2018"])),
        "",
        "the rules for patch, network and batch",
    ),
    value(
        "network",
        ParameterKind::Optional(&ParameterKind::Choice(&["plain", "residual_encoder", "unet_2018"])),
        "",
        "the kind of network",
    ),
    value("plans_name", TEXT, "", "`plans_name` of the plan"),
    value("planner_name", TEXT, "", "`experiment_planner_used` of the plan"),
    value("preprocessor_name", TEXT, "", "`preprocessor_name` of the plan"),
    value("data_name", TEXT, "", "name in the data identifiers of `2d` and `3d_fullres`"),
    value(
        "target_spacing",
        DISTANCES,
        "mm",
        "spacing of the full resolution, [z, y, x] of the images, instead of a derived one",
    ),
    value("spacing_percentile", PERCENT, "%", "percentile of the cases' spacings on each axis; v2: 50"),
    value(
        "anisotropy_threshold",
        POSITIVE,
        "",
        "how many times coarser, and shorter, an axis has to be for its own percentile; v2: 3",
    ),
    value(
        "anisotropic_spacing_percentile",
        PERCENT,
        "%",
        "percentile of the spacings on such an axis; v2: 10, 2018: as on the others",
    ),
    value("transpose", FLAG, "", "whether the coarsest axis becomes the first; v2: true"),
    value(
        "mask_normalization_below",
        SHARE,
        "",
        "share of a case that cropping leaves, below which z-scores are taken within the nonzero region; v2: 0.75, 2018: 0.25",
    ),
    value("image_order", ORDER, "", "order of the spline for images; v2: 3"),
    value("label_order", ORDER, "", "order of the interpolation for labels; v2: 1, 2018: 0"),
    value("probability_order", ORDER, "", "order of the interpolation for class scores; v2: 1"),
    value("order_z", ORDER, "", "order along an axis that is set apart; v2: 0"),
    value("force_separate_z", FLAG, "", "whether the coarsest axis is set apart; v2: decided by the spacings"),
    value("gpu_memory_target", POSITIVE, "GB", "memory of the GPU that the networks are to be trained on; v2: 8"),
    value("reference_gpu_memory", POSITIVE, "GB", "memory to which `reference_elements` belong; v2: 8"),
    value(
        "reference_elements_2d",
        POSITIVE,
        "",
        "activations of one sample that fill the memory with a reference batch; v2: 85e6",
    ),
    value("reference_elements_3d", POSITIVE, "", "as `reference_elements_2d`; v2: 560e6"),
    value("reference_patch_voxels_2d", COUNT, "pixels", "patch that goes with a reference batch (2018); 65536"),
    value(
        "reference_patch_voxels_3d",
        COUNT,
        "voxels",
        "as `reference_patch_voxels_2d`, and what decides about the cascade (2018); 2097152",
    ),
    value("reference_batch_size_2d", COUNT, "", "samples of the reference batch; v2: 12, 2018: 42"),
    value("reference_batch_size_3d", COUNT, "", "as `reference_batch_size_2d`; 2"),
    value("fit_batch_size_2d", COUNT, "", "samples with which a patch has to fit; v2: 2, residual encoders: 12"),
    value("fit_batch_size_3d", COUNT, "", "as `fit_batch_size_2d`; 2"),
    value("initial_patch_voxels_2d", POSITIVE, "pixels", "isotropic patch from which shrinking starts; v2: 2048²"),
    value("initial_patch_voxels_3d", POSITIVE, "voxels", "as `initial_patch_voxels_2d`; v2: 256³"),
    value("max_patch_2d", COUNTS, "pixels", "largest patch on each axis; 2018: [256, 256]"),
    value("max_patch_3d", COUNTS, "voxels", "as `max_patch_2d`"),
    value("max_patch_voxels_2d", COUNT, "pixels", "largest number of pixels in a patch"),
    value("max_patch_voxels_3d", COUNT, "voxels", "largest number of voxels in a patch; 2018: 128³"),
    value("min_feature_edge", COUNT, "voxels", "edge that no feature map falls below; v2: 4, 2018: 8"),
    value("max_poolings_2d", COUNT, "", "largest number of poolings on one axis; 2018: 5"),
    value("max_poolings_3d", COUNT, "", "as `max_poolings_2d`"),
    value("max_stages", COUNT, "", "largest number of resolutions, the full one included"),
    value("base_features", COUNT, "", "channels at full resolution, doubled at each pooling; v2: 32, 2018: 30"),
    value("max_features_2d", COUNT, "", "largest number of channels; v2: 512, 2018: 480"),
    value("max_features_3d", COUNT, "", "as `max_features_2d`; 320"),
    value(
        "n_conv_per_stage",
        COUNTS,
        "",
        "convolutions, or residual blocks, of each encoder stage; the last value holds for all further ones",
    ),
    value("n_conv_per_stage_decoder", COUNTS, "", "convolutions of each decoder stage, from full resolution downwards"),
    value("min_batch_size", COUNT, "", "smallest batch; 2"),
    value("max_batch_size_2d", COUNT, "", "largest batch; wins over `min_batch_size`; 2018: 42"),
    value("max_batch_size_3d", COUNT, "", "as `max_batch_size_2d`"),
    value(
        "max_dataset_covered",
        POSITIVE,
        "",
        "share of the dataset's voxels that a batch may see; v2: 0.05, residual encoders: 1",
    ),
    value(
        "lowres_threshold",
        SHARE,
        "",
        "share of the median case that a patch has to see; below it there is a low resolution; 0.25",
    ),
    value(
        "lowres_spacing_factor",
        POSITIVE,
        "",
        "factor by which the spacing of the low resolution grows in each step; v2: 1.03, 2018: 2",
    ),
    value(
        "lowres_axis_ratio",
        POSITIVE,
        "",
        "how many times finer than the coarsest axis an axis has to be to grow first; 2",
    ),
    value("lowres_min_reduction", POSITIVE, "", "how many times fewer voxels the low resolution has to have; 2"),
];

/// The name of the dataset, if it is given, and the planner's values with those of the workflow in their place.
pub(super) fn settings(parameters: &Parameters) -> Result<(Option<String>, PlannerSettings), StageError> {
    let preset = preset(&parameters.get::<String>("planner")?)?;
    let unusable =
        |error: serde_json::Error| StageError::input(format!("the planner's settings cannot be used: {error}"));
    let mut values: Map<String, Value> =
        serde_json::to_value(PlannerSettings::preset(preset)).and_then(serde_json::from_value).map_err(unusable)?;
    let given = parameters.0.iter().filter(|(name, value)| !OWN.contains(&name.as_str()) && !value.is_null());
    values.extend(given.map(|(name, value)| (name.clone(), value.clone())));
    let settings = serde_json::from_value(Value::Object(values)).map_err(unusable)?;
    Ok((parameters.get("dataset_name")?, settings))
}

fn preset(name: &str) -> Result<Preset, StageError> {
    match name {
        "v2" => Ok(Preset::Default),
        "resenc_m" => Ok(Preset::ResidualEncoderM),
        "resenc_l" => Ok(Preset::ResidualEncoderL),
        "resenc_xl" => Ok(Preset::ResidualEncoderXl),
        "2018" => Ok(Preset::Y2018),
        "2018_paper" => Ok(Preset::Y2018Paper),
        other => Err(StageError::internal(format!("there is no planner `{other}`"))),
    }
}

#[cfg(test)]
mod tests {
    use nnflow_stage::effective_parameters;
    use serde_json::json;

    use super::*;

    fn effective(given: &Value) -> Parameters {
        effective_parameters(PARAMETERS, given.as_object().expect("a table")).expect("valid parameters")
    }

    #[test]
    fn every_value_of_a_planner_is_a_parameter_and_the_other_way_round() {
        let values = serde_json::to_value(PlannerSettings::default()).expect("JSON");
        let mut values: Vec<&str> = values.as_object().expect("a table").keys().map(String::as_str).collect();
        let mut names: Vec<&str> =
            PARAMETERS.iter().map(|parameter| parameter.name).filter(|name| !OWN.contains(name)).collect();
        values.sort_unstable();
        names.sort_unstable();
        assert_eq!(names, values);
    }

    #[test]
    fn every_value_of_every_planner_could_be_given() {
        let ParameterKind::Choice(planners) = PARAMETERS[0].kind else { panic!("planners are a choice") };
        for planner in planners {
            let mut given =
                serde_json::to_value(PlannerSettings::preset(preset(planner).expect("a planner"))).expect("JSON");
            given["planner"] = json!("v2");
            let found = serde_json::to_value(settings(&effective(&given)).expect("usable").1).expect("JSON");
            let values = given.as_object().expect("a table").iter();
            for (name, value) in values.filter(|(name, value)| *name != "planner" && !value.is_null()) {
                assert_eq!(&found[name], value, "{planner}: {name}");
            }
        }
    }

    #[test]
    fn nothing_given_is_the_planner_itself() {
        let (name, found) = settings(&effective(&json!({"planner": "resenc_l"}))).expect("usable");
        assert_eq!((name, found), (None, PlannerSettings::preset(Preset::ResidualEncoderL)));
    }

    #[test]
    fn a_spacing_of_two_values_is_an_error_of_the_user() {
        let report = settings(&effective(&json!({"target_spacing": [1.0, 2.0]}))).expect_err("two values").report();
        assert_eq!(report.kind, nnflow_stage::ErrorKind::Input);
    }
}
