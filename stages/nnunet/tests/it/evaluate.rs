//! The stage `evaluate` against `summary.json` of nnU-Net.

use std::path::{Path, PathBuf};

use ndarray::{Array3, array};
use nnflow_io::summary::{MeanMetrics, Metrics, Summary};
use serde_json::{Value, json};

use crate::harness::{Bench, Finished, Made};
use crate::labelled::{drawn, label_images, referenced, references};
use crate::vectors;

/// Of ratios and means.
const TOLERANCE: f64 = 1e-12;

/// The sets of vectors.
fn sets() -> Vec<PathBuf> {
    let sets = vectors::subfolders(&vectors::folder("evaluate"));
    assert!(!sets.is_empty(), "no vectors");
    sets
}

fn evaluate(set: &Path) -> Summary {
    let bench = Bench::new();
    let finished = bench.node("evaluate").run(&[
        ("labels", &label_images(&set.join("prediction"))),
        ("references", &references(&bench, &set.join("reference"))),
        ("description", &Made::Document(vectors::json(&set.join("dataset.json")))),
    ]);
    summary(&finished)
}

fn summary(finished: &Finished) -> Summary {
    serde_json::from_value(finished.port("summary").document()).expect("a summary")
}

fn expected(set: &Path) -> Summary {
    nnflow_io::json::read(&set.join("summary.json")).expect("a summary")
}

fn same(found: f64, expected: f64) -> bool {
    (found.is_nan() && expected.is_nan()) || (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
}

pub(crate) fn assert_same_mean(found: &MeanMetrics, expected: &MeanMetrics, what: &str) {
    let values = |mean: &MeanMetrics| {
        [
            mean.dice,
            mean.iou,
            mean.true_positives,
            mean.false_positives,
            mean.false_negatives,
            mean.true_negatives,
            mean.predicted,
            mean.referenced,
        ]
    };
    for (found_value, expected_value) in values(found).into_iter().zip(values(expected)) {
        assert!(same(found_value, expected_value), "{what}: {found:?} is not {expected:?}");
    }
}

fn assert_same_case(found: &Metrics, expected: &Metrics, what: &str) {
    assert!(same(found.dice, expected.dice) && same(found.iou, expected.iou), "{what}: {found:?} is not {expected:?}");
    let counts = |metrics: &Metrics| Metrics { dice: 0.0, iou: 0.0, ..*metrics };
    assert_eq!(counts(found), counts(expected), "{what}");
}

#[test]
fn every_case_has_nnu_nets_metrics() {
    for set in sets() {
        let (found, expected) = (evaluate(&set), expected(&set));
        assert_eq!(found.metric_per_case.len(), expected.metric_per_case.len(), "{}", set.display());
        for (found, expected) in found.metric_per_case.iter().zip(&expected.metric_per_case) {
            assert!(found.metrics.keys().eq(expected.metrics.keys()), "{}", expected.prediction_file);
            for (name, metrics) in &expected.metrics {
                assert_same_case(&found.metrics[name], metrics, &expected.prediction_file);
            }
        }
    }
}

#[test]
fn the_means_are_nnu_nets() {
    for set in sets() {
        let (found, expected) = (evaluate(&set), expected(&set));
        assert!(found.mean.keys().eq(expected.mean.keys()), "{}", set.display());
        for (name, mean) in &expected.mean {
            assert_same_mean(&found.mean[name], mean, name);
        }
        assert_same_mean(&found.foreground_mean, &expected.foreground_mean, "foreground");
    }
}

#[test]
fn cases_are_named_by_their_files_in_nnu_nets_order() {
    for set in sets() {
        let names = |summary: Summary| -> Vec<String> {
            let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
            summary.metric_per_case.iter().map(|case| name(&case.prediction_file)).collect()
        };
        assert_eq!(names(evaluate(&set)), names(expected(&set)));
    }
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
