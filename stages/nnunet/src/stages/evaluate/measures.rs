//! Overlap of label images with references, and its means.

use std::collections::BTreeMap;

use nnflow_io::summary::{CaseMetrics, MeanMetrics, Metrics, Summary};
use nnflow_kernels::metrics::{Confusion, Counts};
use nnflow_kernels::statistics::mean_of_numbers;
use nnflow_stage::StageError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::documents::{dataset_description, slice};
use crate::locations::LocationTarget as Target;

/// The metrics of one case, by label or region.
pub(crate) type CaseMeasures = BTreeMap<String, Metrics>;

/// What is evaluated: what comparing reads of `dataset.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Targets {
    /// Foreground labels or regions, in the order of the dataset.
    pub(crate) targets: Vec<Target>,
    /// The label of voxels that nobody annotated.
    pub(crate) ignore: Option<i16>,
}

impl Targets {
    /// The slice of a `dataset.json`.
    pub(crate) fn slice(document: &Value) -> Result<Value, StageError> {
        let labels = dataset_description(document)?.labels;
        let targets = labels.foreground_targets().iter().map(Target::from).collect();
        slice(&Self { targets, ignore: labels.ignore() })
    }

    /// The metrics of a case.
    pub(crate) fn measure(&self, confusion: &Confusion) -> CaseMeasures {
        self.targets.iter().map(|target| (target.name.clone(), metrics(confusion.counts(&target.labels)))).collect()
    }
}

fn metrics(counts: Counts) -> Metrics {
    Metrics {
        dice: counts.dice(),
        false_negatives: counts.fn_,
        false_positives: counts.fp,
        iou: counts.iou(),
        true_negatives: counts.tn,
        true_positives: counts.tp,
        predicted: counts.predicted(),
        referenced: counts.reference(),
    }
}

/// Means over cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Means {
    /// Mean over all labels or regions.
    pub(crate) foreground_mean: MeanMetrics,
    /// Mean over cases, by label or region.
    pub(crate) mean: BTreeMap<String, MeanMetrics>,
}

impl Means {
    /// The means over the cases in which a number is not NaN, and the plain mean of these.
    pub(crate) fn over<'a>(cases: impl IntoIterator<Item = &'a CaseMeasures>) -> Self {
        let mut columns: BTreeMap<&str, Vec<[f64; COLUMNS]>> = BTreeMap::new();
        for (name, metrics) in cases.into_iter().flatten() {
            columns.entry(name).or_default().push(row(metrics));
        }
        let means = |rows: &Vec<[f64; COLUMNS]>| {
            std::array::from_fn(|column| mean_of_numbers(rows.iter().map(|row| row[column])))
        };
        let mean: BTreeMap<&str, [f64; COLUMNS]> = columns.iter().map(|(name, rows)| (*name, means(rows))).collect();
        let count = mean.len() as f64;
        let foreground = std::array::from_fn(|column| mean.values().map(|row| row[column]).sum::<f64>() / count);
        Self {
            foreground_mean: mean_metrics(foreground),
            mean: mean.into_iter().map(|(name, row)| (name.to_owned(), mean_metrics(row))).collect(),
        }
    }
}

/// The summary of a dataset; its cases are put in the order of their files, as nnU-Net lists them.
pub(crate) fn summarize(mut cases: Vec<CaseMetrics>) -> Summary {
    cases.sort_by(|first, second| first.prediction_file.cmp(&second.prediction_file));
    let Means { foreground_mean, mean } = Means::over(cases.iter().map(|case| &case.metrics));
    Summary { foreground_mean, mean, metric_per_case: cases }
}

/// Numbers of [`Metrics`].
const COLUMNS: usize = 8;

fn row(metrics: &Metrics) -> [f64; COLUMNS] {
    let counts = [metrics.false_negatives, metrics.false_positives, metrics.true_negatives, metrics.true_positives];
    let [false_negatives, false_positives, true_negatives, true_positives] = counts.map(|count| count as f64);
    let sizes = [metrics.predicted as f64, metrics.referenced as f64];
    let ratios = [metrics.dice, metrics.iou];
    [ratios[0], false_negatives, false_positives, ratios[1], true_negatives, true_positives, sizes[0], sizes[1]]
}

fn mean_metrics(row: [f64; COLUMNS]) -> MeanMetrics {
    let [dice, false_negatives, false_positives, iou, true_negatives, true_positives, predicted, referenced] = row;
    MeanMetrics { dice, false_negatives, false_positives, iou, true_negatives, true_positives, predicted, referenced }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    fn targets() -> Targets {
        let target = |name: &str, labels: &[i16]| Target { name: name.to_owned(), labels: labels.to_vec() };
        Targets { targets: vec![target("1", &[1]), target("(1, 2)", &[1, 2])], ignore: Some(3) }
    }

    fn measure(reference: &Array3<i16>, prediction: &Array3<i16>) -> CaseMeasures {
        let targets = targets();
        let confusion = Confusion::between(reference.view(), prediction.view(), targets.ignore).expect("same shape");
        targets.measure(&confusion)
    }

    #[test]
    fn counts_and_ratios_by_hand() {
        let measures = measure(&array![[[0, 1, 1, 2, 3, 3]]], &array![[[1, 1, 2, 2, 1, 0]]]);
        let expected = Metrics {
            dice: 0.5,
            false_negatives: 1,
            false_positives: 1,
            iou: 1.0 / 3.0,
            true_negatives: 1,
            true_positives: 1,
            predicted: 2,
            referenced: 2,
        };
        assert_eq!(measures["1"], expected);
    }

    #[test]
    fn a_region_is_one_structure() {
        let measures = measure(&array![[[0, 1, 1, 2]]], &array![[[0, 2, 1, 1]]]);
        assert_eq!(measures["(1, 2)"].dice, 1.0);
    }

    #[test]
    fn means_leave_out_what_is_no_number() {
        let absent = measure(&array![[[0, 0]]], &array![[[0, 0]]]);
        let half = measure(&array![[[1, 1, 0]]], &array![[[1, 0, 1]]]);
        assert_eq!(Means::over([&absent, &half]).mean["1"].dice, 0.5);
    }

    #[test]
    fn a_structure_that_is_nowhere_makes_the_foreground_mean_no_number() {
        let case = measure(&array![[[2, 0]]], &array![[[2, 0]]]);
        let means = Means::over([&case]);
        assert!(means.mean["1"].dice.is_nan() && means.foreground_mean.dice.is_nan());
        assert_eq!(means.mean["(1, 2)"].dice, 1.0);
    }

    #[test]
    fn the_foreground_mean_is_that_of_the_structures_not_of_the_cases() {
        let only_two = measure(&array![[[2, 2]]], &array![[[0, 0]]]);
        let both = measure(&array![[[1, 2]]], &array![[[1, 2]]]);
        // Structure 1 has the mean 1, as it is in one case only; the region has (0 + 1) / 2.
        assert_eq!(Means::over([&only_two, &both]).foreground_mean.dice, 0.75);
    }

    #[test]
    fn cases_stand_in_the_order_of_their_files() {
        let case = |name: &str| CaseMetrics {
            metrics: CaseMeasures::new(),
            prediction_file: name.to_owned(),
            reference_file: name.to_owned(),
        };
        let summary = summarize(vec![case("a.nii.gz"), case("a-1.nii.gz")]);
        assert_eq!(summary.metric_per_case[0].prediction_file, "a-1.nii.gz");
    }

    #[test]
    fn a_map_held_against_itself_has_dice_one_or_none() {
        arbtest::arbtest(|source| {
            let voxels: Vec<i16> = (0..24).map(|_| source.int_in_range(0..=3)).collect::<Result<_, _>>()?;
            let map = Array3::from_shape_vec((2, 3, 4), voxels).expect("24 voxels");
            for metrics in measure(&map, &map).into_values() {
                assert!(metrics.dice == 1.0 || (metrics.dice.is_nan() && metrics.referenced == 0), "{metrics:?}");
            }
            Ok(())
        });
    }

    #[test]
    fn dice_does_not_mind_which_side_is_the_reference() {
        arbtest::arbtest(|source| {
            let mut map = || -> arbtest::arbitrary::Result<Array3<i16>> {
                let voxels: Vec<i16> = (0..24).map(|_| source.int_in_range(0..=2)).collect::<Result<_, _>>()?;
                Ok(Array3::from_shape_vec((2, 3, 4), voxels).expect("24 voxels"))
            };
            let (first, second) = (map()?, map()?);
            let (there, back) = (measure(&first, &second), measure(&second, &first));
            for (name, metrics) in there {
                assert_eq!(metrics.dice.to_bits(), back[&name].dice.to_bits(), "{name}");
            }
            Ok(())
        });
    }
}
