//! The stage `evaluate` against nnU-Net's `summary.json`.

use std::collections::BTreeMap;

use nnflow_io::json;
use nnflow_io::summary::{MeanMetrics, Metrics, Summary};
use nnflow_nnunet::workbench::Bench;
use serde_json::Value;

use crate::labels::LabelledSet;
use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

/// Of ratios and means.
const RATIO: Tolerance = Tolerance::Relative(1e-12);

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let sets = folder.subfolders("")?;
    Ok(sets.iter().map(|set| Vector::of(set, |check| compare_one(check, folder, set))).collect())
}

fn compare_one(check: &mut Check, folder: &Folder, set: &str) -> Result<(), Problem> {
    let bench = Bench::new()?;
    let labelled = LabelledSet::read(&bench, folder, set)?;
    compare_summary(check, folder, &format!("{set}/summary.json"), &bench, &labelled)
}

/// What `evaluate` says of a set against the summary that nnU-Net wrote of it.
pub(super) fn compare_summary(
    check: &mut Check,
    folder: &Folder,
    file: &str,
    bench: &Bench,
    set: &LabelledSet,
) -> Result<(), Problem> {
    let inputs = [("labels", &set.predictions), ("references", &set.references), ("description", &set.description)];
    let finished = bench.node("evaluate")?.run(&inputs)?;
    let document = finished.port("summary")?.read_document()?;
    let found: Summary = serde_json::from_value(document).map_err(Problem::refused)?;
    let expected: Summary = folder.json(file)?;
    compare_text(check, folder, file, &expected)?;
    compare_cases(check, &expected, &found);
    compare_means(check, "mean", &expected.mean, &found.mean);
    compare_mean(check, "foreground_mean", &expected.foreground_mean, &found.foreground_mean);
    compare_statistics(check, &expected, &finished.port("statistics")?.read_document()?);
    Ok(())
}

/// The means among the statistics, which are more than nnU-Net has, are nnU-Net's.
fn compare_statistics(check: &mut Check, expected: &Summary, found: &Value) {
    let mean = |estimate: &Value| estimate["mean"].as_f64().unwrap_or(f64::NAN);
    let foreground = mean(&found["foreground_mean"]["dice"]);
    check.number("statistics: mean Dice of the foreground", expected.foreground_mean.dice, foreground, RATIO);
    for (structure, expected) in &expected.mean {
        let found = &found["labels"][structure];
        check.number(format!("statistics: mean Dice of {structure}"), expected.dice, mean(&found["dice"]), RATIO);
        check.number(format!("statistics: mean IoU of {structure}"), expected.iou, mean(&found["iou"]), RATIO);
    }
}

/// nnU-Net's file, read and written again, is the same but for indentation.
fn compare_text(check: &mut Check, folder: &Folder, file: &str, summary: &Summary) -> Result<(), Problem> {
    let path = folder.path(file);
    let squeezed = |bytes: &[u8]| String::from_utf8_lossy(bytes).split_whitespace().collect::<String>();
    let expected = fs_err::read(&path).map_err(|error| Problem::unreadable(path, error))?;
    let found = json::to_vec(summary).map_err(Problem::refused)?;
    check.equal(format!("{file}, read and written again"), &squeezed(&expected), &squeezed(&found));
    Ok(())
}

fn compare_cases(check: &mut Check, expected: &Summary, found: &Summary) {
    let names = |summary: &Summary| -> Vec<String> {
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        summary.metric_per_case.iter().map(|case| name(&case.prediction_file)).collect()
    };
    check.equal("cases", &names(expected), &names(found));
    for (expected, found) in expected.metric_per_case.iter().zip(&found.metric_per_case) {
        let case = &expected.prediction_file;
        check.equal(format!("{case}: structures"), &keys(&expected.metrics), &keys(&found.metrics));
        for (structure, expected) in &expected.metrics {
            let Some(found) = found.metrics.get(structure) else { continue };
            check.number(format!("{case}: Dice of {structure}"), expected.dice, found.dice, RATIO);
            check.number(format!("{case}: IoU of {structure}"), expected.iou, found.iou, RATIO);
            let counts = |metrics: &Metrics| Metrics { dice: 0.0, iou: 0.0, ..*metrics };
            check.equal(format!("{case}: counts of {structure}"), &counts(expected), &counts(found));
        }
    }
}

fn keys<T>(table: &BTreeMap<String, T>) -> Vec<&String> {
    table.keys().collect()
}

/// Means by structure.
pub(super) fn compare_means(
    check: &mut Check,
    what: &str,
    expected: &BTreeMap<String, MeanMetrics>,
    found: &BTreeMap<String, MeanMetrics>,
) {
    check.equal(format!("{what}: structures"), &keys(expected), &keys(found));
    for (structure, expected) in expected {
        if let Some(found) = found.get(structure) {
            compare_mean(check, &format!("{what} of {structure}"), expected, found);
        }
    }
}

/// The means of one structure, or of all of them.
pub(super) fn compare_mean(check: &mut Check, what: &str, expected: &MeanMetrics, found: &MeanMetrics) {
    let values = |mean: &MeanMetrics| {
        [
            ("Dice", mean.dice),
            ("IoU", mean.iou),
            ("TP", mean.true_positives),
            ("FP", mean.false_positives),
            ("FN", mean.false_negatives),
            ("TN", mean.true_negatives),
            ("n_pred", mean.predicted),
            ("n_ref", mean.referenced),
        ]
    };
    for ((name, expected), (_, found)) in values(expected).into_iter().zip(values(found)) {
        check.number(format!("{what}: {name}"), expected, found, RATIO);
    }
}
