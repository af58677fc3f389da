//! Losses and their gradients against nnU-Net's `DC_and_CE_loss` and `DC_and_BCE_loss`.

use std::collections::BTreeMap;

use ndarray::{ArrayD, ArrayViewD, Axis};
use nnflow_net::loss::{Loss, Target, deep_supervision_weights};
use nnflow_net::probe;
use serde::Deserialize;
use serde_json::Value;

use crate::folder::ArrayEntry;
use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

const VALUE: Tolerance = Tolerance::Relative(1e-5);
const GRADIENT: Tolerance = Tolerance::OfLargestOr(1e-5, 1e-9);
/// nnU-Net computes the weights in 64 bits.
const WEIGHT: Tolerance = Tolerance::Absolute(1e-15);

const CASES: &str = "cases.json";
const WEIGHTS: &str = "deep_supervision_weights.json";

#[derive(Deserialize)]
struct Entry {
    case: String,
    kind: String,
    batch_dice: bool,
    ignore_label: Value,
    do_bg: bool,
    smooth: f64,
    n_outputs: usize,
    deep_supervision_weights: Option<Vec<f64>>,
    loss: f64,
    logits: Vec<ArrayEntry>,
    targets: Vec<ArrayEntry>,
    gradients: Vec<Option<ArrayEntry>>,
}

#[derive(Deserialize)]
struct Weights {
    plain: Vec<f64>,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let entries: Vec<Entry> = folder.list(CASES)?;
    let of_entry = |entry: &Entry| Vector::of(&entry.case, |check| compare_one(check, folder, entry));
    let mut vectors: Vec<Vector> = entries.iter().map(of_entry).collect();
    let weights: BTreeMap<usize, Weights> = folder.json(WEIGHTS)?;
    vectors.extend(weights.iter().map(|(n_outputs, expected)| {
        Vector::of(format!("{WEIGHTS}: {n_outputs} outputs"), |check| {
            check.numbers("weights", &expected.plain, &deep_supervision_weights(*n_outputs), WEIGHT);
            Ok(())
        })
    }));
    Ok(vectors)
}

fn compare_one(check: &mut Check, folder: &Folder, entry: &Entry) -> Result<(), Problem> {
    let weights = deep_supervision_weights(entry.n_outputs);
    if let Some(expected) = &entry.deep_supervision_weights {
        check.numbers("weights of the outputs", expected, &weights, WEIGHT);
    }
    let arrays = [entry.logits.len(), entry.targets.len(), entry.gradients.len()];
    check.equal("number of logits, targets and gradients", &[entry.n_outputs; 3], &arrays);
    let loss = loss_of(folder, entry)?;
    let mut outputs = Vec::new();
    for (logits, target) in entry.logits.iter().zip(&entry.targets) {
        let labels = match loss.target {
            Target::Labels { .. } => folder.entry(&entry.case, target)?,
            Target::Regions { .. } => combinations(&folder.entry::<u8>(&entry.case, target)?.view(), logits.shape[1]),
        };
        outputs.push((folder.entry::<f32>(&entry.case, logits)?, labels));
    }
    let found = probe::loss(&loss, &outputs, &weights).map_err(Problem::refused)?;
    check.number("loss", entry.loss, found.value, VALUE);
    for (index, (expected, found)) in entry.gradients.iter().zip(&found.gradients).enumerate() {
        match (expected, found) {
            (Some(expected), Some(found)) => {
                let expected: ArrayD<f32> = folder.entry(&entry.case, expected)?;
                check.array(format!("gradient of output {index}"), &expected, found, GRADIENT);
            }
            (None, None) => {}
            (expected, found) => {
                check.equal(format!("whether output {index} has a gradient"), &expected.is_some(), &found.is_some());
            }
        }
    }
    Ok(())
}

fn loss_of(folder: &Folder, entry: &Entry) -> Result<Loss, Problem> {
    let n_classes = entry.logits.first().and_then(|logits| logits.shape.get(1)).copied().unwrap_or_default();
    let target = match (entry.kind.as_str(), &entry.ignore_label) {
        ("ce", Value::Null) => Target::Labels { ignore: None },
        ("ce", Value::Number(label)) => Target::Labels { ignore: label.as_i64().map(|label| label as i16) },
        ("bce", Value::Null) if n_classes < 15 => Target::Regions { regions: regions(n_classes), ignore: None },
        ("bce", Value::String(_)) if n_classes < 14 => {
            Target::Regions { regions: regions(n_classes), ignore: Some(1 << n_classes) }
        }
        (kind, ignore) => {
            let what = format!("kind `{kind}` with `ignore_label` `{ignore}` and {n_classes} classes");
            return Err(Problem::not_understood(folder.path(&format!("{CASES}: {}", entry.case)), what));
        }
    };
    let loss = Loss::nnunet(target, entry.batch_dice);
    Ok(Loss { smooth: entry.smooth, dice_of_background: entry.do_bg, ..loss })
}

/// The labels of each region, where a label is a combination of regions: bit `i` stands for region `i`.
///
/// The vectors have a channel a region, training has labels; with a label for each combination nothing is lost.
fn regions(n_regions: usize) -> Vec<Vec<i16>> {
    (0..n_regions).map(|region| (0..1 << n_regions).filter(|label: &i16| label >> region & 1 == 1).collect()).collect()
}

/// Channels `[sample, region, …]` as labels `[sample, 1, …]`; a channel behind those of the regions marks what is ignored.
fn combinations(channels: &ArrayViewD<'_, u8>, n_regions: usize) -> ArrayD<i16> {
    let mut labels = channels.index_axis(Axis(1), 0).mapv(|_| 0_i16);
    for (region, channel) in channels.axis_iter(Axis(1)).enumerate() {
        labels.zip_mut_with(&channel, |label, &inside| match inside {
            0 => {}
            _ if region < n_regions => *label |= 1 << region,
            _ => *label = 1 << n_regions,
        });
    }
    labels.insert_axis(Axis(1))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_label_stands_for_each_combination_of_regions() {
        assert_eq!(regions(2), [vec![1, 3], vec![2, 3]]);
        // One sample of four voxels: none, the first, both, ignored whatever its regions.
        let channels = array![[[0_u8, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1]]].into_dyn();
        assert_eq!(combinations(&channels.view(), 2), array![[[0_i16, 1, 3, 4]]].into_dyn());
    }
}
