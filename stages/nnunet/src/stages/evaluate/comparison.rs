//! Two runs side by side, case by case.

use std::collections::{BTreeMap, BTreeSet};

use nnflow_kernels::statistics::{Bootstrap, sign_flip};
use serde::Serialize;

use super::table::{Better, CaseTable, Measure};

/// The name of the mean over labels, where else a label stands.
pub const FOREGROUND: &str = "foreground_mean";
/// Where random numbers begin: the same runs have the same intervals everywhere.
const SEED: u64 = 0;

/// How runs are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonSettings {
    /// What is compared.
    pub measures: Vec<Measure>,
    /// The level of the intervals of confidence.
    pub confidence: f64,
    /// Resamples of the bootstrap.
    pub resamples: u32,
    /// Permutations of the test, where there are more than can all be gone through.
    pub permutations: u32,
}

impl Default for ComparisonSettings {
    fn default() -> Self {
        let measures = vec![Measure::Dice, Measure::Nsd, Measure::Hd95];
        Self { measures, confidence: 0.95, resamples: 10_000, permutations: 10_000 }
    }
}

/// Two runs side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// How many cases both have.
    pub cases: usize,
    /// Cases that only the first one has.
    pub only_first: Vec<String>,
    /// Cases that only the second one has.
    pub only_second: Vec<String>,
    /// Labels that only one of them has.
    pub other_labels: Vec<String>,
    /// The level of the intervals.
    pub confidence: f64,
    /// For each measure that both have, the labels and the mean over them.
    pub rows: Vec<ComparisonRow>,
}

/// One measure of one label; numbers over the cases in which it is a number in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparisonRow {
    /// The measure's name.
    pub measure: &'static str,
    /// The label or region, or `foreground_mean`.
    pub label: String,
    /// How many cases count.
    pub cases: usize,
    /// The mean of the first run.
    pub first: f64,
    /// The mean of the second run.
    pub second: f64,
    /// The second mean less the first: the mean of the differences case by case.
    pub difference: f64,
    /// Its interval of confidence.
    pub interval: Option<[f64; 2]>,
    /// The p-value of the sign-flip test that neither run is better.
    pub p_value: f64,
    /// Cases in which the second run is better.
    pub better: usize,
    /// Cases in which it is worse.
    pub worse: usize,
    /// Cases in which both are the same.
    pub equal: usize,
}

/// Compares two runs.
///
/// Of volume errors the sizes are compared, whatever their signs. The mean over labels is that of the labels which count
/// in both runs for at least one case; a case's share in it is what the case adds to the means of its labels.
#[must_use]
pub fn compare(first: &CaseTable, second: &CaseTable, settings: &ComparisonSettings) -> Comparison {
    let (cases, other_cases) = (first.cases(), second.cases());
    let (labels, other_labels) = (first.labels().collect::<BTreeSet<_>>(), second.labels().collect::<BTreeSet<_>>());
    let owned = |names: &mut dyn Iterator<Item = &&str>| names.map(|name| (*name).to_owned()).collect();
    let rows = settings.measures.iter().flat_map(|measure| Pairs::of(first, second, *measure).rows(settings));
    Comparison {
        cases: cases.intersection(&other_cases).count(),
        only_first: owned(&mut cases.difference(&other_cases)),
        only_second: owned(&mut other_cases.difference(&cases)),
        other_labels: owned(&mut labels.symmetric_difference(&other_labels)),
        confidence: settings.confidence,
        rows: rows.collect(),
    }
}

/// The numbers of a measure that both runs have.
struct Pairs<'t> {
    measure: Measure,
    /// By label, then by case: the numbers of both runs.
    labels: BTreeMap<&'t str, BTreeMap<&'t str, [f64; 2]>>,
    cases: Vec<&'t str>,
}

impl<'t> Pairs<'t> {
    fn of(first: &'t CaseTable, second: &'t CaseTable, measure: Measure) -> Self {
        let all = first.cases();
        let size = |value: f64| if measure.better() == Better::NearerToZero { value.abs() } else { value };
        let of_label = |label: &'t str| {
            let pairs = all.iter().filter_map(|case| {
                let pair = [first.get(label, case)?[measure], second.get(label, case)?[measure]].map(size);
                pair.iter().all(|value| value.is_finite()).then_some((*case, pair))
            });
            (label, pairs.collect::<BTreeMap<_, _>>())
        };
        let labels: BTreeMap<_, _> = first.labels().map(of_label).filter(|(_, pairs)| !pairs.is_empty()).collect();
        let cases = labels.values().flat_map(BTreeMap::keys).copied().collect::<BTreeSet<_>>().into_iter().collect();
        Self { measure, labels, cases }
    }

    fn rows(&self, settings: &ComparisonSettings) -> Vec<ComparisonRow> {
        if self.labels.is_empty() {
            return Vec::new();
        }
        let bootstrap = Bootstrap { resamples: settings.resamples, level: settings.confidence, seed: SEED };
        let columns = self.differences();
        let intervals = bootstrap.intervals(self.cases.len(), |cases| mean_differences(&columns, cases));
        let mut rows: Vec<ComparisonRow> = self.labels.iter().map(|(label, pairs)| self.row(label, pairs)).collect();
        rows.push(self.foreground(&rows));
        let shares = columns.iter().map(|column| column.iter().copied().filter(|value| !value.is_nan()).collect());
        let shares = shares.chain(std::iter::once(self.shares()));
        for ((row, interval), shares) in rows.iter_mut().zip(intervals).zip(shares.collect::<Vec<Vec<f64>>>()) {
            row.interval = interval.filter(|_| row.cases > 1).map(|interval| [interval.low, interval.high]);
            row.p_value = sign_flip(&shares, settings.permutations, SEED);
        }
        rows
    }

    fn row(&self, label: &str, pairs: &BTreeMap<&str, [f64; 2]>) -> ComparisonRow {
        let count = pairs.len() as f64;
        let [first, second] = [0, 1].map(|run| pairs.values().map(|pair| pair[run]).sum::<f64>() / count);
        let differences = pairs.values().map(|[first, second]| second - first);
        self.judged(label, [first, second], differences)
    }

    fn foreground(&self, labels: &[ComparisonRow]) -> ComparisonRow {
        let count = labels.len() as f64;
        let first = labels.iter().map(|row| row.first).sum::<f64>() / count;
        let second = labels.iter().map(|row| row.second).sum::<f64>() / count;
        self.judged(FOREGROUND, [first, second], self.shares().into_iter())
    }

    /// A row but for interval and p-value, with the cases counted by their differences.
    fn judged(&self, label: &str, means: [f64; 2], differences: impl Iterator<Item = f64>) -> ComparisonRow {
        let [first, second] = means;
        let (mut higher, mut lower, mut equal) = (0, 0, 0);
        for difference in differences {
            match difference {
                gain if gain > 0.0 => higher += 1,
                loss if loss < 0.0 => lower += 1,
                _ => equal += 1,
            }
        }
        let (better, worse) = if self.measure.better() == Better::Higher { (higher, lower) } else { (lower, higher) };
        ComparisonRow {
            measure: self.measure.name(),
            label: label.to_owned(),
            cases: higher + lower + equal,
            first,
            second,
            difference: second - first,
            interval: None,
            p_value: f64::NAN,
            better,
            worse,
            equal,
        }
    }

    /// For each label the difference in each case, NaN where it is no number in one of both runs.
    fn differences(&self) -> Vec<Vec<f64>> {
        let of_case = |pairs: &BTreeMap<&str, [f64; 2]>, case: &str| {
            pairs.get(case).map_or(f64::NAN, |[first, second]| second - first)
        };
        let of_label = |pairs| self.cases.iter().map(|case| of_case(pairs, case)).collect();
        self.labels.values().map(of_label).collect()
    }

    /// What each case adds to the difference of the means over labels.
    fn shares(&self) -> Vec<f64> {
        let of_label = |pairs: &BTreeMap<&str, [f64; 2]>, case: &str| {
            let [first, second] = pairs.get(case)?;
            Some((second - first) / (pairs.len() * self.labels.len()) as f64)
        };
        let of_case = |case: &&str| self.labels.values().filter_map(|pairs| of_label(pairs, case)).sum();
        self.cases.iter().map(of_case).collect()
    }
}

/// The mean difference of each label over some of the cases, and then the mean over all labels.
fn mean_differences(columns: &[Vec<f64>], cases: &[usize]) -> Vec<f64> {
    let numbers = |column: &Vec<f64>| {
        let numbers = cases.iter().filter_map(|case| column.get(*case)).filter(|value| !value.is_nan());
        let (sum, count) = numbers.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
        sum / f64::from(count)
    };
    let mut means: Vec<f64> = columns.iter().map(numbers).collect();
    means.push(means.iter().sum::<f64>() / means.len() as f64);
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> CaseTable {
        let file = tempfile::Builder::new().suffix(".csv").tempfile().expect("a temporary file");
        fs_err::write(file.path(), text).expect("written");
        CaseTable::read(file.path()).expect("a table")
    }

    fn compared(first: &str, second: &str, measure: Measure) -> Comparison {
        let settings = ComparisonSettings { measures: vec![measure], ..ComparisonSettings::default() };
        compare(&table(first), &table(second), &settings)
    }

    const FIRST: &str = "case,label,dice,hd95,volume_error\n\
        a,1,0.5,4,-2\nb,1,0.6,5,1\nc,1,0.7,6,0\na,2,0.9,1,1\nb,2,,,\nc,2,0.7,2,1\n";
    const SECOND: &str = "case,label,dice,hd95,volume_error\n\
        a,1,0.6,3,2\nb,1,0.5,3,1\nc,1,0.7,5,1\na,2,0.8,1,1\nb,2,0.4,9,1\nc,2,1,1,1\n";

    #[test]
    fn a_label_is_compared_over_the_cases_that_both_have() {
        let row = &compared(FIRST, SECOND, Measure::Dice).rows[1];
        assert_eq!((row.label.as_str(), row.cases, row.better, row.worse, row.equal), ("2", 2, 1, 1, 0));
        assert!((row.first - 0.8).abs() < 1e-12 && (row.difference - 0.1).abs() < 1e-12);
        // Of the four signs of -0.1 and 0.3 all plus, all minus and the two that give 0.4: all are as extreme as 0.2.
        assert_eq!(row.p_value, 1.0);
    }

    #[test]
    fn the_foreground_is_the_mean_over_labels() {
        let row = &compared(FIRST, SECOND, Measure::Dice).rows[2];
        // Label 1: 0.6 and 0.6; label 2: 0.8 and 0.9.
        assert_eq!((row.label.as_str(), row.cases), (FOREGROUND, 3));
        assert!((row.first - 0.7).abs() < 1e-12 && (row.second - 0.75).abs() < 1e-12);
    }

    #[test]
    fn of_distances_the_smaller_one_is_better() {
        let row = &compared(FIRST, SECOND, Measure::Hd95).rows[0];
        assert_eq!((row.better, row.worse), (3, 0));
        assert!((row.difference + 4.0 / 3.0).abs() < 1e-12);
        assert_eq!(row.p_value, 0.25);
    }

    #[test]
    fn of_volume_errors_the_size_is_compared() {
        let row = &compared(FIRST, SECOND, Measure::VolumeError).rows[0];
        assert_eq!((row.better, row.worse, row.equal), (0, 1, 2));
    }

    #[test]
    fn the_interval_holds_the_difference() {
        for row in compared(FIRST, SECOND, Measure::Dice).rows {
            let [low, high] = row.interval.expect("several cases");
            assert!(low <= row.difference && row.difference <= high, "{row:?}");
        }
    }

    #[test]
    fn a_run_held_against_itself_is_no_better() {
        for row in compared(FIRST, FIRST, Measure::Dice).rows {
            assert_eq!((row.difference, row.interval, row.p_value), (0.0, Some([0.0, 0.0]), 1.0));
        }
    }

    #[test]
    fn what_only_one_run_has_is_told() {
        let comparison = compared(FIRST, "case,label,dice\na,1,1\nd,3,1\n", Measure::Dice);
        assert_eq!(
            (comparison.cases, comparison.only_first, comparison.only_second),
            (1, vec!["b".to_owned(), "c".to_owned()], vec!["d".to_owned()])
        );
        assert_eq!(comparison.other_labels, ["2", "3"]);
    }

    #[test]
    fn a_measure_that_one_run_lacks_has_no_rows() {
        assert!(compared(FIRST, "case,label,dice\na,1,1\n", Measure::Hd95).rows.is_empty());
    }
}
