//! How a workflow says what the augmentation is: a preset, and what differs from it.

use nnflow_kernels::augment::{Augmentation, AugmentationSettings, Cascade, Dimension};
use nnflow_stage::{Parameter, ParameterKind, StageError};
use serde_json::{Map, Value};

use super::settings::{POSITIVE, SHARE, parameter};
use super::slices::{Classes, TrainingPlan};

const PROBABILITY: Parameter = parameter("probability", MAYBE_SHARE, "null", "", "of a sample to be changed");
const MAYBE_SHARE: ParameterKind = ParameterKind::Optional(&SHARE);
const ANY_RANGE: ParameterKind = ParameterKind::Optional(&ParameterKind::List(&ParameterKind::Number {
    minimum: f64::NEG_INFINITY,
    maximum: f64::INFINITY,
}));
const MAYBE_FLAG: ParameterKind = ParameterKind::Optional(&ParameterKind::Boolean);

/// The declaration of the table `augmentation`. What is `none` is as the preset has it.
pub const AUGMENTATION: &[Parameter] = &[
    parameter(
        "preset",
        ParameterKind::Choice(&["nnunet-v2", "nnunet-2018", "none"]),
        "\"nnunet-v2\"",
        "",
        "where the values come from that are not set here; `none` changes nothing",
    ),
    parameter(
        "dummy_2d_above",
        POSITIVE,
        "3.0",
        "",
        "a patch whose longest axis is more than this many times its first one is transformed slice by slice",
    ),
    parameter(
        "rotation",
        ParameterKind::Table(&[
            PROBABILITY,
            parameter("degrees", ANY_RANGE, "null", "degrees", "of the angle about each axis"),
        ]),
        "{}",
        "",
        "rotation",
    ),
    parameter(
        "scaling",
        ParameterKind::Table(&[
            PROBABILITY,
            parameter("factor", ANY_RANGE, "null", "", "above 1 objects become smaller"),
            parameter("about_one", MAYBE_FLAG, "null", "", "whether factors below and above 1 are drawn equally often"),
        ]),
        "{}",
        "",
        "scaling, by one factor for all axes",
    ),
    parameter(
        "elastic",
        ParameterKind::Table(&[
            PROBABILITY,
            parameter("magnitude", ANY_RANGE, "null", "voxels", "of the factor of the smoothed noise"),
            parameter("sigma", ANY_RANGE, "null", "voxels", "of the smoothing"),
        ]),
        "{}",
        "",
        "elastic deformation",
    ),
    parameter(
        "noise",
        ParameterKind::Table(&[
            PROBABILITY,
            parameter("deviation", ANY_RANGE, "null", "", "standard deviation, in units of the normalised image"),
        ]),
        "{}",
        "",
        "Gaussian noise",
    ),
    parameter(
        "blur",
        ParameterKind::Table(SOME_CHANNELS),
        "{}",
        "",
        "Gaussian blur; the number is its standard deviation in voxels",
    ),
    parameter("brightness", ParameterKind::Table(ALL_CHANNELS), "{}", "", "multiplication by the number"),
    parameter("contrast", ParameterKind::Table(ALL_CHANNELS), "{}", "", "stretching about the mean by the number"),
    parameter(
        "low_resolution",
        ParameterKind::Table(SOME_CHANNELS),
        "{}",
        "",
        "simulated low resolution; the number is what is left of it",
    ),
    parameter(
        "inverted_gamma",
        ParameterKind::Table(ALL_CHANNELS),
        "{}",
        "",
        "gamma of the inverted image; the number is the exponent",
    ),
    parameter("gamma", ParameterKind::Table(ALL_CHANNELS), "{}", "", "gamma; the number is the exponent"),
    parameter(
        "mirror",
        ParameterKind::Table(&[
            parameter("probability", MAYBE_SHARE, "null", "", "of each axis to be mirrored"),
            parameter(
                "axes",
                ParameterKind::Optional(&ParameterKind::List(&ParameterKind::Integer { minimum: 0, maximum: 2 })),
                "null",
                "",
                "the axes that may be: 0 (z), 1 (y), 2 (x)",
            ),
        ]),
        "{}",
        "",
        "mirroring",
    ),
    parameter(
        "cascade",
        ParameterKind::Table(CASCADE),
        "{}",
        "",
        "what is done to the segmentation of the stage before, in a cascade",
    ),
];

const SOME_CHANNELS: &[Parameter] = &[
    PROBABILITY,
    parameter("channel_probability", MAYBE_SHARE, "null", "", "of each channel to be changed"),
    parameter("range", ANY_RANGE, "null", "", "of the number"),
];

const ALL_CHANNELS: &[Parameter] =
    &[PROBABILITY, parameter("range", ANY_RANGE, "null", "", "of the number, drawn equally often below and above 1")];

const CASCADE: &[Parameter] = &[
    parameter(
        "operator_probability",
        MAYBE_SHARE,
        "null",
        "",
        "of a sample to have labels dilated, eroded, closed or opened",
    ),
    parameter("operator_label_probability", MAYBE_SHARE, "null", "", "of each label of it"),
    parameter("radius", ANY_RANGE, "null", "voxels", "of the ball"),
    parameter("removal_probability", MAYBE_SHARE, "null", "", "of a sample to lose components"),
    parameter("removal_label_probability", MAYBE_SHARE, "null", "", "of each label of it"),
    parameter(
        "removal_below",
        MAYBE_SHARE,
        "null",
        "",
        "a component that covers this share of the patch or more stays",
    ),
];

/// Keys of the table that are not settings of the kernel.
const OWN_KEYS: [&str; 2] = ["preset", "dummy_2d_above"];

/// The augmentation of a configuration's patches.
///
/// # Errors
/// If a setting is out of its bounds.
pub fn augmentation(table: &Value, plan: &TrainingPlan, classes: &Classes) -> Result<Augmentation, StageError> {
    let wrong = |message: String| {
        StageError::input(message).with_hint("`nnflow stage show train` lists the settings of `augmentation`")
    };
    let dimension = if plan.is_2d() { Dimension::Two } else { Dimension::Three };
    let above = table["dummy_2d_above"].as_f64().unwrap_or(nnflow_kernels::augment::DUMMY_2D_ABOVE);
    let preset = table["preset"].as_str().unwrap_or_default();
    let (mut settings, cascade) = match preset {
        "nnunet-2018" => (
            AugmentationSettings::nnunet_2018(dimension, plan.patch()?, above),
            Cascade::nnunet_2018(classes.foreground()),
        ),
        _ => {
            (AugmentationSettings::nnunet_v2(dimension, plan.patch()?, above), Cascade::nnunet_v2(classes.foreground()))
        }
    };
    settings.cascade = plan.cascade.then_some(cascade);
    settings.masked_channels =
        plan.use_mask_for_norm.iter().enumerate().filter(|(_, masked)| **masked).map(|(channel, _)| channel).collect();
    let mut values = serde_json::to_value(&settings).map_err(|error| StageError::internal(error.to_string()))?;
    if preset == "none" {
        silence(&mut values);
    }
    if let (Value::Object(values), Value::Object(table)) = (&mut values, table) {
        overlay(values, table);
    }
    let settings: AugmentationSettings =
        serde_json::from_value(values).map_err(|error| wrong(format!("the augmentation cannot be used: {error}")))?;
    Augmentation::new(settings).map_err(|error| wrong(error.to_string()))
}

/// Sets every probability to 0, except those within the cascade of single labels, which then never matter.
fn silence(values: &mut Value) {
    let Value::Object(object) = values else { return };
    for (key, value) in object {
        if key.ends_with("probability") {
            *value = Value::from(0.0);
        } else {
            silence(value);
        }
    }
}

/// Writes what is set over what the preset says; a table of a stage that does not take place is left out.
fn overlay(values: &mut Map<String, Value>, set: &Map<String, Value>) {
    for (key, value) in set.iter().filter(|(key, _)| !OWN_KEYS.contains(&key.as_str())) {
        match (values.get_mut(key), value) {
            (_, Value::Null) | (Some(Value::Null), _) => {}
            (Some(Value::Object(inner)), Value::Object(set)) => overlay(inner, set),
            _ => {
                values.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nnflow_stage::effective_parameters;
    use serde_json::json;

    use super::*;

    fn settings(given: Value) -> Result<AugmentationSettings, StageError> {
        let given = given.as_object().expect("a table").clone();
        let table = effective_parameters(AUGMENTATION, &given).expect("valid parameters");
        let plan = TrainingPlan {
            patch_size: vec![40, 56, 40],
            batch_size: 2,
            batch_dice: false,
            use_mask_for_norm: vec![false, true],
            architecture: Value::Null,
            cascade: false,
        };
        let classes =
            Classes { channels: 2, labels: vec![0, 1], regions: None, regions_class_order: None, ignore: None };
        augmentation(&Value::Object(table.0), &plan, &classes).map(|made| made.settings().clone())
    }

    #[test]
    fn nothing_set_is_nnunet_v2() {
        let mut expected = AugmentationSettings::nnunet_v2(Dimension::Three, [40, 56, 40], 3.0);
        expected.masked_channels = vec![1];
        assert_eq!(settings(json!({})).expect("valid"), expected);
    }

    #[test]
    fn one_value_is_set_and_its_neighbours_stay() {
        let changed = settings(json!({"gamma": {"probability": 0.9}})).expect("valid").gamma;
        let preset = settings(json!({})).expect("valid").gamma;
        assert_eq!((changed.probability, changed.range), (0.9, preset.range));
    }

    #[test]
    fn none_leaves_samples_alone() {
        let none = settings(json!({"preset": "none"})).expect("valid");
        assert_eq!((none.rotation.probability, none.mirror.probability, none.gamma.probability), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_range_that_is_none_is_an_error() {
        assert!(settings(json!({"rotation": {"degrees": [30.0]}})).is_err());
    }
}
