//! The stage `evaluate`, by hand.

use ndarray::{Array3, array};
use nnflow_io::summary::Summary;
use serde_json::{Value, json};

use crate::harness::{Bench, Finished, Made, MadeInTests};
use crate::labelled::{drawn, referenced, united};

fn summary(finished: &Finished) -> Summary {
    serde_json::from_value(finished.port("summary").document()).expect("a summary")
}

fn description(labels: Value) -> Made {
    Made::Document(json!({
        "channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz",
        "regions_class_order": [1, 2],
    }))
}

fn two_labels() -> Made {
    description(json!({"background": 0, "organ": 1, "tumour": 2}))
}

fn evaluate_one(reference: &Array3<i16>, prediction: &Array3<i16>, description: &Made) -> Finished {
    let bench = Bench::new();
    let (labels, references) = (drawn(&bench, "pat_1", prediction), referenced(&bench, "pat_1", reference));
    bench.node("evaluate").try_run(&[("labels", &labels), ("references", &references), ("description", description)])
}

#[test]
fn regions_are_keyed_as_python_writes_tuples() {
    let labels = json!({"background": 0, "whole": [1, 2], "core": 2});
    let map = array![[[0, 1, 2]]];
    let summary = summary(&evaluate_one(&map, &map, &description(labels)));
    assert_eq!(summary.mean.keys().collect::<Vec<_>>(), ["(1, 2)", "2"]);
}

#[test]
fn what_nobody_annotated_is_not_counted() {
    let labels = json!({"background": 0, "organ": 1, "ignore": 2});
    let finished = evaluate_one(&array![[[1, 0, 2, 2]]], &array![[[1, 0, 1, 0]]], &description(labels));
    let metrics = summary(&finished).metric_per_case[0].metrics["1"];
    assert_eq!((metrics.true_positives, metrics.false_positives, metrics.true_negatives), (1, 0, 1));
}

#[test]
fn maps_of_two_shapes_are_told_with_case_and_shapes() {
    let finished = evaluate_one(&Array3::zeros((1, 2, 3)), &Array3::zeros((1, 2, 4)), &two_labels());
    assert_eq!(
        finished.failure().message,
        "case `pat_1` cannot be evaluated: the prediction has shape `[1, 2, 4]`, its reference `[1, 2, 3]`"
    );
}

#[test]
fn a_case_without_reference_labels_is_told() {
    let bench = Bench::new();
    let labels = drawn(&bench, "pat_1", &array![[[0, 1]]]);
    let references = referenced(&bench, "pat_1", &array![[[0, 1]]]);
    let record = &references.items()["pat_1"].file("case.json").expect("a record").path;
    let text = std::fs::read_to_string(record).expect("a record").replace("\"labelled\":true", "\"labelled\":false");
    std::fs::write(record, text).expect("written");
    let finished = bench.node("evaluate").try_run(&[
        ("labels", &labels),
        ("references", &references),
        ("description", &two_labels()),
    ]);
    assert_eq!(finished.failure().message, "case `pat_1` has no reference labels");
}

fn statistics(finished: &Finished) -> Value {
    finished.port("statistics").document()
}

fn cases_csv(finished: &Finished) -> String {
    let Made::One(artifact, _) = finished.port("statistics") else { panic!("one artifact") };
    let file = artifact.file("cases.csv").expect("a table");
    std::fs::read_to_string(&file.path).expect("a table")
}

/// Two cases with organ and tumour; in the second one nobody found the tumour.
fn evaluate_two(parameters: Value) -> Finished {
    let bench = Bench::new();
    let found = array![[[0, 1, 1, 2, 0]]];
    let missed = array![[[0, 1, 1, 1, 0]]];
    let labels = united([drawn(&bench, "pat_1", &found), drawn(&bench, "pat_2", &missed)]);
    let references = united([referenced(&bench, "pat_1", &found), referenced(&bench, "pat_2", &found)]);
    bench.node("evaluate").with(parameters).run(&[
        ("labels", &labels),
        ("references", &references),
        ("description", &two_labels()),
    ])
}

#[test]
fn a_structure_that_nobody_found_is_as_far_away_as_the_image_allows() {
    let tumour = &statistics(&evaluate_two(json!({})))["labels"]["2"];
    // The image is a row of five voxels of 1 mm.
    assert_eq!((&tumour["hd95"]["mean"], &tumour["hd95"]["cases"]), (&json!(2.0), &json!(2)));
    assert_eq!((&tumour["nsd"]["mean"], &tumour["volume_error"]["mean"]), (&json!(0.5), &json!(-0.5)));
}

#[test]
fn a_structure_that_nobody_found_may_be_left_out() {
    let tumour = &statistics(&evaluate_two(json!({"one_sided": "leave_out"})))["labels"]["2"];
    assert_eq!((&tumour["hd95"]["mean"], &tumour["hd95"]["cases"]), (&json!(0.0), &json!(1)));
    assert_eq!(tumour["nsd"]["mean"], json!(0.5));
}

#[test]
fn each_label_may_have_a_tolerance_of_its_own() {
    let organ = |tolerances: Value| statistics(&evaluate_two(tolerances))["labels"]["1"]["nsd"]["mean"].clone();
    // In the second case each side's surface is two ends of a row, one of which is 1 mm off.
    assert_eq!(organ(json!({"tolerances": [0.5, 1.0]})), json!(0.75));
    assert_eq!(organ(json!({"tolerances": [1.0, 0.5]})), json!(1.0));
}

#[test]
fn tolerances_have_to_be_as_many_as_labels() {
    let bench = Bench::new();
    let map = array![[[0, 1, 2]]];
    let finished = bench.node("evaluate").with(json!({"tolerances": [1, 2, 3]})).try_run(&[
        ("labels", &drawn(&bench, "pat_1", &map)),
        ("references", &referenced(&bench, "pat_1", &map)),
        ("description", &two_labels()),
    ]);
    assert_eq!(
        finished.failure().message,
        "`tolerances` has 3 numbers, but the dataset has 2 foreground labels or regions"
    );
}

#[test]
fn the_table_has_a_row_for_each_case_and_label() {
    let expected = "\
        case,label,dice,iou,nsd,hd95,hd,assd,volume_error,relative_volume_error,tp,fp,fn,tn,n_pred,n_ref\n\
        pat_1,1,1,1,1,0,0,0,0,0,2,0,0,3,2,2\n\
        pat_1,2,1,1,1,0,0,0,0,0,1,0,0,4,1,1\n\
        pat_2,1,0.8,0.6666666666666666,1,0.95,1,0.5,1,0.5,2,1,0,2,3,2\n\
        pat_2,2,0,0,0,4,4,4,-1,-1,0,0,1,4,0,1\n";
    assert_eq!(cases_csv(&evaluate_two(json!({}))), expected);
}

#[test]
fn without_surfaces_the_table_has_none() {
    let finished = evaluate_two(json!({"surfaces": false}));
    assert!(cases_csv(&finished).starts_with("case,label,dice,iou,volume_error,relative_volume_error,tp,"));
    assert!(statistics(&finished)["foreground_mean"].get("hd95").is_none());
}

#[test]
fn the_interval_of_two_cases_is_their_range() {
    // The resampled means are 0.8, 0.9 and 1, with probabilities 1/4, 1/2 and 1/4.
    let dice = &statistics(&evaluate_two(json!({})))["labels"]["1"]["dice"];
    assert_eq!((&dice["interval"], &dice["median"]), (&json!([0.8, 1.0]), &json!(0.9)));
}

#[test]
fn without_resamples_there_is_no_interval() {
    let finished = evaluate_two(json!({"resamples": 0}));
    assert_eq!(statistics(&finished)["foreground_mean"]["dice"]["interval"], Value::Null);
}
