//! Folds against `splits_final.json` and the random folds of nnU-Net.

use std::collections::BTreeMap;

use nnflow_nnunet::split_rules::{SplitSettings, cross_validation, random_fold};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Check, Folder, Problem, Surroundings, Vector};

const FILE: &str = "splits.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    n: usize,
    keys_unsorted: Vec<String>,
    splits: Value,
    random_80_20: BTreeMap<u32, Value>,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let entries: Vec<Entry> = folder.list(FILE)?;
    let named = entries.iter().enumerate();
    Ok(named.map(|(index, entry)| Vector::of(format!("{FILE}[{index}]"), |check| compare_one(check, entry))).collect())
}

fn compare_one(check: &mut Check, entry: &Entry) -> Result<(), Problem> {
    let (identifiers, settings) = (&entry.keys_unsorted, SplitSettings::default());
    check.equal("number of cases", &entry.n, &identifiers.len());
    let folds = cross_validation(identifiers, &settings).map_err(Problem::refused)?;
    check.documents("folds of the cross-validation", &entry.splits, &json!(folds));
    for (fold, expected) in &entry.random_80_20 {
        let found = random_fold(identifiers, *fold, &settings).map_err(Problem::refused)?;
        check.documents(format!("random fold {fold}"), expected, &json!(found));
    }
    Ok(())
}
