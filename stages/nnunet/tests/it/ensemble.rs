//! The stage `ensemble`, by hand.

use ndarray::{Array3, Array4, array};
use nnflow_io::array::{ArrayOptions, write_array};
use serde_json::{Value, json};

use crate::harness::{Bench, Finished, Made, MadeInTests};
use crate::labelled::{drawn, labels_of, referenced};

const CASE: &str = "case";

/// Probabilities as `predict` makes them.
fn probabilities(bench: &Bench, values: &Array4<f32>) -> Made {
    let path = bench.fresh_folder().join("probabilities.nna");
    write_array(&path, values.view(), &ArrayOptions::default()).expect("written");
    Made::case(CASE, &[("probabilities.nna", &path)])
}

/// What configurations `a`, `b`, … say of the case.
struct Members {
    bench: Bench,
    shape: [usize; 3],
    labels: Vec<Made>,
    probabilities: Vec<Made>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Members {
    fn new(members: &[Array4<f32>]) -> Self {
        let bench = Bench::new();
        let (_, z, y, x) = members[0].dim();
        let labels = (1..).zip(members).map(|(number, _)| drawn(&bench, CASE, &Array3::from_elem((z, y, x), number)));
        Self {
            labels: labels.collect(),
            probabilities: members.iter().map(|member| probabilities(&bench, member)).collect(),
            shape: [z, y, x],
            bench,
        }
    }

    fn gathered(made: &[Made]) -> Made {
        let axes: Vec<[(&str, &str); 1]> = NAMES.iter().map(|name| [("configuration", *name)]).collect();
        Made::gathered(made.iter().zip(&axes).map(|(made, axes)| (axes.as_slice(), made.clone())).collect())
    }

    fn run(&self, node: crate::harness::Node<'_>, description: Value, others: &[(&'static str, &Made)]) -> Finished {
        let cases = referenced(&self.bench, CASE, &Array3::zeros(self.shape));
        let (labels, probabilities) = (Self::gathered(&self.labels), Self::gathered(&self.probabilities));
        let description = Made::Document(description);
        let mut inputs = vec![("labels", &labels), ("cases", &cases), ("description", &description)];
        if !self.probabilities.is_empty() {
            inputs.push(("probabilities", &probabilities));
        }
        inputs.extend_from_slice(others);
        node.try_run(&inputs)
    }
}

fn labels_found(finished: &Finished) -> Array3<i16> {
    assert!(finished.failures.is_empty(), "{:?}", finished.failures);
    labels_of(finished.port("labels"), CASE)
}

fn two_labels() -> Value {
    json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "tumour": 2}, "numTraining": 1, "file_ending": ".nii.gz"})
}

/// Three classes, one row of two voxels; class `class` is sure.
fn sure_of(class: usize) -> Array4<f32> {
    Array4::from_shape_fn((3, 1, 1, 2), |(other, ..)| f32::from(u8::from(other == class)))
}

#[test]
fn a_region_is_painted_where_its_mean_is_above_one_half() {
    let regions = json!({
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "whole": [1, 2], "core": 2}, "numTraining": 1,
        "file_ending": ".nii.gz", "regions_class_order": [1, 2],
    });
    let first = array![[[[0.75, 0.75, 0.5]]], [[[0.0, 0.75, 0.0]]]];
    let second = array![[[[0.5, 0.5, 0.5]]], [[[0.5, 0.5, 1.0]]]];
    let members = Members::new(&[first, second]);
    let finished = members.run(members.bench.node("ensemble"), regions, &[]);
    // Means of the regions: 0.625, 0.625, 0.5 and 0.25, 0.625, 0.5; one half is not above one half.
    assert_eq!(labels_found(&finished), array![[[1, 2, 0]]]);
}

#[test]
fn labels_that_are_not_consecutive_are_those_of_the_dataset() {
    let labels = json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 2, "tumour": 5}, "numTraining": 1, "file_ending": ".nii.gz"});
    let members = Members::new(&[sure_of(2), sure_of(2)]);
    let finished = members.run(members.bench.node("ensemble"), labels, &[]);
    assert_eq!(labels_found(&finished), array![[[5, 5]]]);
}

#[test]
fn a_member_that_is_alone_is_passed_on_without_probabilities() {
    let mut members = Members::new(&[sure_of(2)]);
    members.probabilities.clear();
    let finished = members.run(members.bench.node("ensemble"), two_labels(), &[]);
    let forwarded = &finished.port("labels").items()[CASE].files[0].digest;
    assert_eq!(*forwarded, members.labels[0].items()[CASE].files[0].digest);
}

#[test]
fn only_the_members_of_a_bundle_take_part() {
    let members = Members::new(&[sure_of(2), sure_of(1), sure_of(1)]);
    let bundle =
        Made::Document(json!({"version": 1, "members": ["b", "c"], "axes": {"configuration": ["a", "b", "c"]}}));
    let finished = members.run(members.bench.node("ensemble"), two_labels(), &[("choice", &bundle)]);
    assert_eq!(labels_found(&finished), array![[[1, 1]]]);
}

#[test]
fn a_bundle_with_one_member_passes_its_labels_on() {
    let members = Members::new(&[sure_of(1), sure_of(1)]);
    let bundle = Made::Document(json!({"members": ["b"]}));
    let finished = members.run(members.bench.node("ensemble"), two_labels(), &[("choice", &bundle)]);
    assert_eq!(labels_found(&finished), array![[[2, 2]]]);
}

#[test]
fn a_missing_member_of_a_pair_is_named() {
    let members = Members::new(&[sure_of(1), sure_of(1)]);
    let node = members.bench.node("ensemble").at("pair", "a+c");
    let finished = members.run(node, two_labels(), &[]);
    assert_eq!(finished.failure().message, "case `case` has no labels of the configuration `c`");
}

#[test]
fn missing_probabilities_are_told_with_a_way_out() {
    let mut members = Members::new(&[sure_of(1), sure_of(1)]);
    members.probabilities.pop();
    let finished = members.run(members.bench.node("ensemble"), two_labels(), &[]);
    let report = finished.failure();
    assert_eq!(report.message, "case `case` has label images of 2 networks, but probabilities of 1");
    assert!(report.hint.as_deref().is_some_and(|hint| hint.contains("probabilities = true")), "{report:?}");
}

#[test]
fn probabilities_of_another_grid_are_told_with_both_shapes() {
    let mut members = Members::new(&[sure_of(1), sure_of(1)]);
    members.shape = [1, 1, 3];
    let finished = members.run(members.bench.node("ensemble"), two_labels(), &[]);
    assert_eq!(
        finished.failure().message,
        "the probabilities of case `case` have shape `[3, 1, 1, 2]`, expected `[3, 1, 1, 3]` (class, z, y, x)"
    );
}
