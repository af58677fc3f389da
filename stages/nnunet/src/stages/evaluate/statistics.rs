//! `statistics.json`: means, medians and intervals over cases.

use std::collections::BTreeMap;

use nnflow_io::json::float;
use nnflow_kernels::statistics::{Bootstrap, median_of_numbers};
use serde::Serialize;

use super::table::{CaseTable, Measure};

/// The version of the document's form.
const VERSION: u32 = 1;

/// What all cases say together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Statistics {
    version: u32,
    /// Cases that were evaluated.
    cases: usize,
    /// The level of the intervals.
    confidence: f64,
    /// The resamples that they were drawn from.
    resamples: u32,
    /// Mean over all labels or regions, by measure.
    foreground_mean: Estimates,
    /// By label or region, then by measure.
    labels: BTreeMap<String, Estimates>,
}

/// Estimates in the order of their measures.
type Estimates = serde_json::Map<String, serde_json::Value>;

/// What the cases say about one measure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Estimate {
    /// Mean over the cases that count.
    #[serde(with = "float")]
    mean: f64,
    /// Its interval of confidence.
    interval: Option<[f64; 2]>,
    /// Median over the cases that count.
    #[serde(with = "float")]
    median: f64,
    /// How many cases count: those with a number.
    cases: usize,
}

/// The measures of cases as a matrix: a row for each case, in it a number for each label and measure.
struct Matrix<'t> {
    labels: Vec<&'t str>,
    measures: &'t [Measure],
    rows: Vec<Vec<f64>>,
}

impl<'t> Matrix<'t> {
    fn of(table: &'t CaseTable, measures: &'t [Measure]) -> Self {
        let labels: Vec<&str> = table.labels().collect();
        let row = |case| {
            let values = labels.iter().map(move |label| table.get(label, case));
            let numbers = |values: Option<&super::table::Values>| {
                measures
                    .iter()
                    .map(move |measure| values.map_or(f64::NAN, |values| values[*measure]))
                    .collect::<Vec<_>>()
            };
            values.flat_map(numbers).collect()
        };
        let rows = table.cases().into_iter().map(row).collect();
        Self { labels, measures, rows }
    }

    fn columns(&self) -> usize {
        self.labels.len() * self.measures.len()
    }

    /// The mean of each column over some of the rows, and then of each measure over all labels.
    fn means(&self, rows: &[usize]) -> Vec<f64> {
        let mut sums = vec![(0.0, 0_u32); self.columns()];
        for row in rows.iter().filter_map(|row| self.rows.get(*row)) {
            for ((sum, count), value) in sums.iter_mut().zip(row).filter(|(_, value)| !value.is_nan()) {
                *sum += value;
                *count += 1;
            }
        }
        let means: Vec<f64> = sums.into_iter().map(|(sum, count)| sum / f64::from(count)).collect();
        let foreground = self.over_labels(&means);
        means.into_iter().chain(foreground).collect()
    }

    /// The plain mean of each measure over all labels, which is no number if it is none for one of them.
    fn over_labels(&self, columns: &[f64]) -> Vec<f64> {
        let width = self.measures.len();
        let of_measure = |measure: usize| columns.iter().skip(measure).step_by(width).sum::<f64>();
        (0..width).map(|measure| of_measure(measure) / self.labels.len() as f64).collect()
    }

    /// The cases that count: for each column, and then for each measure over all labels.
    fn counts(&self) -> Vec<usize> {
        let width = self.measures.len();
        let in_column = |column: usize| self.rows.iter().filter(|row| !row[column].is_nan()).count();
        let in_any = |measure: usize| {
            let counts = |row: &&Vec<f64>| row.iter().skip(measure).step_by(width).any(|value| !value.is_nan());
            self.rows.iter().filter(counts).count()
        };
        (0..self.columns()).map(in_column).chain((0..width).map(in_any)).collect()
    }

    fn estimates(&self, bootstrap: &Bootstrap) -> Vec<Estimate> {
        let all: Vec<usize> = (0..self.rows.len()).collect();
        let medians: Vec<f64> =
            (0..self.columns()).map(|column| median_of_numbers(self.rows.iter().map(|row| row[column]))).collect();
        let over_labels = self.over_labels(&medians);
        let intervals = bootstrap.intervals(self.rows.len(), |rows| self.means(rows));
        let means = self.means(&all).into_iter().zip(medians.into_iter().chain(over_labels));
        let estimates = means.zip(intervals).zip(self.counts());
        estimates
            .map(|(((mean, median), interval), cases)| {
                let interval = interval.filter(|_| !mean.is_nan() && cases > 1);
                Estimate { mean, interval: interval.map(|interval| [interval.low, interval.high]), median, cases }
            })
            .collect()
    }
}

/// The statistics of some measures of all cases.
pub(crate) fn statistics(
    table: &CaseTable,
    measures: &[Measure],
    bootstrap: &Bootstrap,
) -> Result<Statistics, serde_json::Error> {
    let matrix = Matrix::of(table, measures);
    let estimates = matrix.estimates(bootstrap);
    let mut groups = estimates.chunks(measures.len().max(1));
    let named = |group: &[Estimate]| -> Result<Estimates, serde_json::Error> {
        let pairs = measures.iter().zip(group);
        pairs.map(|(measure, estimate)| Ok((measure.name().to_owned(), serde_json::to_value(estimate)?))).collect()
    };
    let labels = matrix.labels.iter().zip(&mut groups);
    let labels = labels.map(|(label, group)| Ok(((*label).to_owned(), named(group)?))).collect::<Result<_, _>>()?;
    Ok(Statistics {
        version: VERSION,
        cases: matrix.rows.len(),
        confidence: bootstrap.level,
        resamples: bootstrap.resamples,
        foreground_mean: named(groups.next().unwrap_or_default())?,
        labels,
    })
}
