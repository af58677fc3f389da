//! Folds against `splits_final.json` and the random folds of nnU-Net.

use nnflow_nnunet::split_rules::{SplitSettings, cross_validation, random_fold};
use serde_json::{Value, json};

use crate::vectors;

struct Vector {
    identifiers: Vec<String>,
    expected: Value,
}

fn vectors() -> Vec<Vector> {
    let document = vectors::json(&vectors::folder("splits").join("splits.json"));
    let entries = document.as_array().expect("a list").clone();
    assert!(!entries.is_empty(), "no vectors");
    let identifiers = |entry: &Value| serde_json::from_value(entry["keys_unsorted"].clone()).expect("identifiers");
    entries.into_iter().map(|entry| Vector { identifiers: identifiers(&entry), expected: entry }).collect()
}

#[test]
fn the_folds_are_nnu_nets_in_its_order() {
    for Vector { identifiers, expected } in vectors() {
        let folds = cross_validation(&identifiers, &SplitSettings::default()).expect("enough cases");
        assert_eq!(json!(folds), expected["splits"], "{} cases", identifiers.len());
    }
}

#[test]
fn folds_beyond_the_cross_validation_are_nnu_nets_in_its_order() {
    for Vector { identifiers, expected } in vectors() {
        for (fold, expected) in expected["random_80_20"].as_object().expect("folds by number") {
            let number = fold.parse().expect("a number");
            let found = random_fold(&identifiers, number, &SplitSettings::default()).expect("no case twice");
            assert_eq!(&json!(found), expected, "fold {fold} of {} cases", identifiers.len());
        }
    }
}
