//! The stage `export` on the scores that nnU-Net's `convert_predicted_logits_to_segmentation_with_correct_shape` was given;
//! whether it makes of them what nnU-Net does is a matter of the conformance tests.

use std::path::{Path, PathBuf};

use ndarray::{Array, Array3, Array4, Axis, Dimension};
use ndarray_npy::{ReadableElement, read_npy, write_npy};
use nnflow_io::array::{ArrayFile, ArrayOptions, write_array};
use nnflow_io::image::Geometry;
use nnflow_kernels::geometry::{BoundingBox, Spacing, Transpose};
use nnflow_nnunet::case::{CaseRecord, PreparedGrid};
use serde_json::{Value, json};

use crate::harness::{Bench, Finished, Made, MadeInTests};
use crate::labelled::labels_of;
use crate::vectors;

const CASE: &str = "case";

/// The vectors are younger than other sets of the same structure, which may lack them.
fn folder() -> PathBuf {
    let given = vectors::folder("export");
    if given.is_dir() { given } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/export") }
}

fn entries() -> Vec<Value> {
    let listed = vectors::json(&folder().join("cases.json"));
    let listed = listed.as_array().expect("a list").clone();
    assert!(!listed.is_empty(), "no vectors");
    listed
}

fn npy<T: ReadableElement, D: Dimension>(path: &Path) -> Array<T, D> {
    read_npy(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn field<T: serde::de::DeserializeOwned>(entry: &Value, name: &str) -> T {
    serde_json::from_value(entry[name].clone()).unwrap_or_else(|error| panic!("`{name}` of {entry}: {error}"))
}

fn array_of<T: ReadableElement, D: Dimension>(entry: &Value, name: &str) -> Array<T, D> {
    npy(&folder().join(entry["case"].as_str().expect("a name")).join(format!("{name}.npy")))
}

/// The record of a preprocessed case.
fn record(entry: &Value) -> CaseRecord {
    CaseRecord {
        identifier: CASE.to_owned(),
        channels: 1,
        file_ending: ".nii.gz".to_owned(),
        labelled: false,
        geometry: Geometry::new(field(entry, "shape"), field::<Spacing>(entry, "spacing")),
        prepared: Some(PreparedGrid {
            transpose_forward: field::<Transpose>(entry, "transpose_forward"),
            cropped_to: field::<BoundingBox>(entry, "cropped_to"),
            shape: field(entry, "scores_shape"),
            spacing: field::<Spacing>(entry, "scores_spacing"),
        }),
    }
}

fn description(entry: &Value) -> Value {
    let mut description = json!({
        "channel_names": {"0": "CT"}, "labels": entry["labels"], "numTraining": 1, "file_ending": ".nii.gz"
    });
    if !entry["regions_class_order"].is_null() {
        description["regions_class_order"] = entry["regions_class_order"].clone();
    }
    description
}

/// A plan whose scores are resampled as nnU-Net's planner says.
fn plan() -> Value {
    vectors::json(&vectors::folder("evaluate").join("labels").join("plans.json"))
}

/// Runs the stage on the scores in a file.
fn run(bench: &Bench, entry: &Value, scores: (&str, &Path), parameters: Value) -> Finished {
    let path = bench.fresh_folder().join("case.json");
    std::fs::write(&path, serde_json::to_vec(&record(entry)).expect("a record")).expect("written");
    let cases = Made::case(CASE, &[("case.json", &path)]);
    let logits = Made::case(CASE, &[scores]);
    let (plan, description) = (Made::Document(plan()), Made::Document(description(entry)));
    let inputs = [("logits", &logits), ("cases", &cases), ("plan", &plan), ("description", &description)];
    bench.node("export").at("configuration", "3d_fullres").with(parameters).try_run(&inputs)
}

fn of_vector(bench: &Bench, entry: &Value) -> Finished {
    let path = folder().join(entry["case"].as_str().expect("a name")).join("logits.npy");
    let finished = run(bench, entry, ("logits.npy", &path), json!({"probabilities": true}));
    assert!(finished.failures.is_empty(), "{:?}", finished.failures);
    finished
}

fn probabilities_of(finished: &Finished) -> Array4<f32> {
    let made = &finished.port("probabilities").items()[CASE].file("probabilities.nna").expect("an array").path;
    ArrayFile::open(made).expect("an array").read_all().expect("an array")
}

#[test]
fn labels_are_the_same_whether_or_not_probabilities_are_kept() {
    for entry in entries() {
        let bench = Bench::new();
        let path = folder().join(entry["case"].as_str().expect("a name")).join("logits.npy");
        let without = run(&bench, &entry, ("logits.npy", &path), json!({}));
        let with = of_vector(&bench, &entry);
        assert_eq!(labels_of(without.port("labels"), CASE), labels_of(with.port("labels"), CASE), "{}", entry["case"]);
        assert!(without.made.keys().all(|port| *port == "labels"), "{:?}", without.made);
    }
}

/// The scores of the first vector, stored as nnflow stores arrays.
#[test]
fn scores_are_read_from_either_kind_of_file() {
    let (bench, entry) = (Bench::new(), &entries()[0]);
    let logits: Array4<f32> = array_of(entry, "logits");
    let path = bench.fresh_folder().join("logits.nna");
    write_array(&path, logits.view(), &ArrayOptions { chunk: Some([1, 2, 3, 4]) }).expect("written");
    let expected: Array3<u8> = array_of(entry, "labels");
    let finished = run(&bench, entry, ("logits.nna", &path), json!({}));
    assert_eq!(labels_of(finished.port("labels"), CASE), expected.mapv(i16::from));
}

/// Resampling is linear, so probabilities that are averaged before it are probabilities after it.
#[test]
fn probabilities_are_resampled_as_they_are() {
    let (bench, entry) = (Bench::new(), &entries()[0]);
    let mut scores: Array4<f32> = array_of(entry, "logits");
    scores.mapv_inplace(f32::exp);
    let sums = scores.sum_axis(Axis(0));
    scores.axis_iter_mut(Axis(0)).for_each(|mut class| class /= &sums);
    let path = bench.fresh_folder().join("logits.npy");
    write_npy(&path, &scores).expect("written");
    let parameters = json!({"values": "probabilities", "probabilities": true});
    let found = probabilities_of(&run(&bench, entry, ("logits.npy", &path), parameters));
    assert!(found.sum_axis(Axis(0)).iter().all(|sum| (sum - 1.0).abs() < 1e-5));
}

fn complaint(bench: &Bench, entry: &Value, scores: &Array4<f32>) -> String {
    let path = bench.fresh_folder().join("logits.npy");
    write_npy(&path, scores).expect("written");
    let finished = run(bench, entry, ("logits.npy", &path), json!({}));
    finished.failure().message.clone()
}

#[test]
fn scores_of_another_grid_or_other_classes_are_refused() {
    let (bench, entry) = (Bench::new(), &entries()[0]);
    let logits: Array4<f32> = array_of(entry, "logits");
    let mut shape = [logits.len_of(Axis(0)), logits.len_of(Axis(1)), logits.len_of(Axis(2)), logits.len_of(Axis(3))];
    shape[3] += 1;
    assert!(complaint(&bench, entry, &Array4::zeros(shape)).contains("have the shape"));
    shape[3] -= 1;
    shape[0] -= 1;
    assert!(complaint(&bench, entry, &Array4::zeros(shape)).contains("have the shape"));
}

#[test]
fn scores_that_are_not_finite_are_refused() {
    let (bench, entry) = (Bench::new(), &entries()[0]);
    let mut logits: Array4<f32> = array_of(entry, "logits");
    logits[[1, 2, 3, 4]] = f32::NAN;
    assert!(complaint(&bench, entry, &logits).contains("not finite"));
}

#[test]
fn a_case_without_scores_is_named() {
    let (bench, entry) = (Bench::new(), &entries()[0]);
    let other = bench.fresh_folder().join("other.npy");
    std::fs::write(&other, b"").expect("written");
    let finished = run(&bench, entry, ("other.npy", &other), json!({}));
    assert!(finished.failure().message.contains("case `case` has no scores"), "{:?}", finished.failures);
}
