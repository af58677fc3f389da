//! The stage `postprocess`, by hand and against nnU-Net's procedure word by word.

use ndarray::{Array3, array};
use nnflow_kernels::components::keep_largest;
use nnflow_kernels::metrics::Confusion;
use serde_json::{Value, json};

use crate::harness::{Bench, Finished, Made, MadeInTests};
use crate::labelled::{drawn, labels_of, referenced, united};

/// The labels of each step of a document of ours.
fn steps(rules: &Value) -> Vec<Vec<i16>> {
    let steps = rules["steps"].as_array().expect("steps");
    steps.iter().map(|step| serde_json::from_value(step["labels"].clone()).expect("labels")).collect()
}

/// One case of a made-up dataset.
struct Case {
    reference: Array3<i16>,
    prediction: Array3<i16>,
}

fn description(labels: Value) -> Made {
    Made::Document(json!({
        "channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz",
        "regions_class_order": [1, 2, 3],
    }))
}

fn two_labels() -> Made {
    description(json!({"background": 0, "a": 1, "b": 2}))
}

fn run(method: &str, cases: &[Case], description: &Made) -> Finished {
    let bench = Bench::new();
    let name = |index: usize| format!("pat_{index}");
    let labels = united(cases.iter().enumerate().map(|(index, case)| drawn(&bench, &name(index), &case.prediction)));
    let references =
        united(cases.iter().enumerate().map(|(index, case)| referenced(&bench, &name(index), &case.reference)));
    bench.node("postprocess").with(json!({ "method": method })).run(&[
        ("labels", &labels),
        ("examples", &labels),
        ("references", &references),
        ("description", description),
    ])
}

fn rules_of(method: &str, cases: &[Case], description: &Made) -> Vec<Vec<i16>> {
    steps(&run(method, cases, description).port("rules").document())
}

#[test]
fn a_label_in_no_case_forbids_the_rule_for_all_foreground_but_not_those_for_single_labels() {
    // Label 2 is nowhere, so that the mean foreground Dice is NaN; label 1 rises from 4/5 to 1.
    let case = Case { reference: array![[[1, 1, 0, 0]]], prediction: array![[[1, 1, 0, 1]]] };
    assert_eq!(rules_of("nnunet-v2", &[case], &two_labels()), [[1]]);
}

#[test]
fn a_rule_that_changes_nothing_is_not_taken() {
    let case = Case { reference: array![[[1, 1, 2]]], prediction: array![[[1, 1, 2]]] };
    assert!(rules_of("nnunet-v2", &[case], &two_labels()).is_empty());
}

#[test]
fn the_rule_for_all_foreground_is_not_taken_where_one_label_falls() {
    // Without the smaller component label 1 rises from 2/3 to 1 and label 2 falls from 1 to 0; the mean falls. With the
    // second case, in which label 2 stays, the mean would rise, and label 2 would still fall.
    let torn = Case { reference: array![[[1, 1, 0, 0, 2]]], prediction: array![[[1, 1, 0, 0, 2]]] };
    let spotted =
        Case { reference: array![[[1, 1, 2, 0, 0, 0, 0, 0]]], prediction: array![[[1, 1, 2, 0, 1, 1, 0, 1]]] };
    let found = rules_of("nnunet-v2", &[torn, spotted], &two_labels());
    assert!(!found.contains(&vec![1, 2]), "{found:?}");
}

#[test]
fn with_one_label_only_the_rule_for_all_foreground_is_tried() {
    let case = Case { reference: array![[[1, 1, 0, 0]]], prediction: array![[[1, 1, 0, 1]]] };
    let one_label = description(json!({"background": 0, "a": 1}));
    assert_eq!(rules_of("nnunet-v2", &[case], &one_label), [[1]]);
}

#[test]
fn a_region_is_tried_on_what_the_rules_before_it_leave() {
    // The region of labels 1 and 2 loses its far part, the 2s, so that there is nothing left for the rule of label 2.
    let case = Case { reference: array![[[1, 1, 2, 0, 0, 0]]], prediction: array![[[1, 1, 2, 0, 2, 0]]] };
    let nested = description(json!({"background": 0, "whole": [1, 2], "core": 2, "rim": 1}));
    let rules = run("nnunet-v2", &[case], &nested);
    assert_eq!(steps(&rules.port("rules").document()), [vec![1, 2]]);
}

#[test]
fn voxels_that_nobody_annotated_do_not_speak_for_a_rule() {
    let labels = description(json!({"background": 0, "a": 1, "b": 2, "ignore": 3}));
    let case = Case { reference: array![[[1, 1, 0, 3, 2]]], prediction: array![[[1, 1, 0, 1, 2]]] };
    assert!(rules_of("nnunet-v2", &[case], &labels).is_empty());
}

/// nnU-Net's procedure word by word: each candidate is applied to every case and everything is measured anew.
fn tried_one_by_one(cases: &[Case], targets: &[&[i16]], ignore: Option<i16>) -> Vec<Vec<i16>> {
    let mut maps: Vec<Array3<i16>> = cases.iter().map(|case| case.prediction.clone()).collect();
    let kept = |maps: &[Array3<i16>], labels: &[i16]| -> Vec<Array3<i16>> {
        let keep = |map: &Array3<i16>| {
            let largest = keep_largest(map.mapv(|label| labels.contains(&label)).view());
            let removed = |(label, kept): (&i16, &bool)| if labels.contains(label) && !kept { 0 } else { *label };
            Array3::from_shape_vec(map.raw_dim(), map.iter().zip(&largest).map(removed).collect()).expect("as many")
        };
        maps.iter().map(keep).collect()
    };
    let dice = |maps: &[Array3<i16>], labels: &[i16]| -> f64 {
        let of_case = |(case, map): (&Case, &Array3<i16>)| {
            Confusion::between(case.reference.view(), map.view(), ignore).expect("same shape").counts(labels).dice()
        };
        let numbers: Vec<f64> = cases.iter().zip(maps).map(of_case).filter(|dice| !dice.is_nan()).collect();
        numbers.iter().sum::<f64>() / numbers.len() as f64
    };
    let mut foreground: Vec<i16> = targets.concat();
    foreground.sort_unstable();
    foreground.dedup();
    let mut steps = Vec::new();
    let tried = kept(&maps, &foreground);
    let mean = |maps: &[Array3<i16>]| targets.iter().map(|labels| dice(maps, labels)).sum::<f64>();
    let falls = targets.iter().any(|labels| dice(&tried, labels) < dice(&maps, labels));
    if mean(&tried) > mean(&maps) && !falls {
        steps.push(foreground);
        maps = tried;
    }
    for labels in targets.iter().filter(|_| targets.len() > 1) {
        let tried = kept(&maps, labels);
        if dice(&tried, labels) > dice(&maps, labels) {
            steps.push(labels.to_vec());
            maps = tried;
        }
    }
    steps
}

#[test]
fn deciding_on_several_rules_at_once_is_deciding_on_one_after_the_other() {
    let plain = description(json!({"background": 0, "a": 1, "b": 2, "c": 3, "ignore": 4}));
    let regions = description(json!({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 1, "ignore": 4}));
    let kinds: [(Made, &[&[i16]]); 2] = [(plain, &[&[1], &[2], &[3]]), (regions, &[&[1, 2, 3], &[2, 3], &[1]])];
    arbtest::arbtest(|source| {
        let mut case = || -> arbtest::arbitrary::Result<Case> {
            let mut reference = Vec::new();
            let mut prediction = Vec::new();
            for _ in 0..40 {
                let label: i16 = if source.ratio(1, 2)? { 0 } else { source.int_in_range(1..=4)? };
                let seen = if source.ratio(1, 4)? { source.int_in_range(0..=3)? } else { label % 4 };
                reference.push(label);
                prediction.push(seen);
            }
            let map = |voxels| Array3::from_shape_vec((2, 4, 5), voxels).expect("40 voxels");
            Ok(Case { reference: map(reference), prediction: map(prediction) })
        };
        let cases = [case()?, case()?];
        let (description, targets) = &kinds[usize::from(source.arbitrary::<bool>()?)];
        assert_eq!(rules_of("nnunet-v2", &cases, description), tried_one_by_one(&cases, targets, Some(4)));
        Ok(())
    })
    .budget_ms(2000);
}

#[test]
fn in_2018_a_label_that_is_one_component_in_every_reference_gets_its_rule() {
    let cases = [
        Case { reference: array![[[1, 1, 0, 2]]], prediction: array![[[1, 0, 1, 2]]] },
        Case { reference: array![[[2, 1, 0, 2]]], prediction: array![[[1, 1, 0, 2]]] },
    ];
    assert_eq!(rules_of("nnunet-2018", &cases, &two_labels()), [[1]]);
}

#[test]
fn in_2018_a_label_that_one_reference_lacks_gets_no_rule() {
    let cases = [
        Case { reference: array![[[1, 0, 2]]], prediction: array![[[0, 0, 0]]] },
        Case { reference: array![[[0, 0, 2]]], prediction: array![[[0, 0, 0]]] },
    ];
    assert_eq!(rules_of("nnunet-2018", &cases, &two_labels()), [[2]]);
}

#[test]
fn without_a_method_label_images_are_passed_on() {
    let case = Case { reference: array![[[1, 1, 0]]], prediction: array![[[1, 0, 1]]] };
    let finished = run("none", &[case], &two_labels());
    assert!(steps(&finished.port("rules").document()).is_empty());
    assert_eq!(labels_of(finished.port("labels"), "pat_0"), array![[[1, 0, 1]]]);
}

#[test]
fn given_rules_are_applied_to_images_without_reference() {
    let case = Case { reference: array![[[1, 1, 0, 0]]], prediction: array![[[1, 1, 0, 1]]] };
    let fitted = run("nnunet-v2", &[case], &two_labels());
    let rules = fitted.port("rules");
    let bench = Bench::new();
    let labels = drawn(&bench, "new", &array![[[2, 1, 0, 1, 1]]]);
    let inputs = [("labels", &labels), ("given", rules), ("description", &two_labels())];
    let finished = bench.node("postprocess").run(&inputs);
    assert_eq!(labels_of(finished.port("labels"), "new"), array![[[2, 0, 0, 1, 1]]]);
    assert_eq!(finished.port("rules").document(), rules.document());
}

#[test]
fn rules_without_examples_to_find_them_on_are_an_error_with_a_way_out() {
    let bench = Bench::new();
    let labels = drawn(&bench, "new", &array![[[1]]]);
    let finished = bench.node("postprocess").try_run(&[("labels", &labels), ("description", &two_labels())]);
    let report = finished.failure();
    assert_eq!(report.message, "there are no label images with references to find rules on");
    assert_eq!(report.hint.as_deref(), Some("connect `examples` and `references`, or `given` to rules that are known"));
}

#[test]
fn an_example_without_reference_is_named() {
    let bench = Bench::new();
    let labels = united([drawn(&bench, "a", &array![[[1]]]), drawn(&bench, "b", &array![[[1]]])]);
    let references = referenced(&bench, "a", &array![[[1]]]);
    let inputs =
        [("labels", &labels), ("examples", &labels), ("references", &references), ("description", &two_labels())];
    assert_eq!(bench.node("postprocess").try_run(&inputs).failure().details, ["case `b` has no reference"]);
}
