//! The measures of all cases as a table: what `cases.csv` holds, and what runs are compared by.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;
use std::path::{Path, PathBuf};

use nnflow_io::summary::{Metrics, Summary};

use super::case::MeasuredCase;

/// A file of a row for each case and structure.
pub const CASES: &str = "cases.csv";
/// nnU-Net's file.
const SUMMARY: &str = "summary.json";
/// The columns that name a row.
const CASE: &str = "case";
const LABEL: &str = "label";
/// The columns of counts, which are written and not read.
const COUNTS: [&str; 6] = ["tp", "fp", "fn", "tn", "n_pred", "n_ref"];

/// What is measured of a structure in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Dice.
    Dice,
    /// Intersection over union.
    Iou,
    /// Normalised surface Dice.
    Nsd,
    /// 95th percentile of the Hausdorff distance, in mm.
    Hd95,
    /// Hausdorff distance, in mm.
    Hd,
    /// Average symmetric surface distance, in mm.
    Assd,
    /// Volume of the prediction less that of the reference, in mm³.
    VolumeError,
    /// The same as a share of the reference's volume.
    RelativeVolumeError,
}

/// Which values of a measure are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Large ones.
    Higher,
    /// Small ones.
    Lower,
    /// Those near to zero.
    NearerToZero,
}

impl Measure {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 8] = [
        Self::Dice,
        Self::Iou,
        Self::Nsd,
        Self::Hd95,
        Self::Hd,
        Self::Assd,
        Self::VolumeError,
        Self::RelativeVolumeError,
    ];

    /// As it is written in `cases.csv`, `statistics.json` and `[expect]`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dice => "dice",
            Self::Iou => "iou",
            Self::Nsd => "nsd",
            Self::Hd95 => "hd95",
            Self::Hd => "hd",
            Self::Assd => "assd",
            Self::VolumeError => "volume_error",
            Self::RelativeVolumeError => "relative_volume_error",
        }
    }

    /// The measure of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.name() == name)
    }

    /// Which values are good.
    #[must_use]
    pub fn better(self) -> Better {
        match self {
            Self::Dice | Self::Iou | Self::Nsd => Better::Higher,
            Self::Hd95 | Self::Hd | Self::Assd => Better::Lower,
            Self::VolumeError | Self::RelativeVolumeError => Better::NearerToZero,
        }
    }

    /// Whether it is one of surfaces.
    pub(crate) fn is_of_surfaces(self) -> bool {
        matches!(self, Self::Nsd | Self::Hd95 | Self::Hd | Self::Assd)
    }
}

/// A number for each measure, NaN where it does not count or was not measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values([f64; Measure::ALL.len()]);

impl Values {
    /// The number that a function gives for each measure.
    #[must_use]
    pub fn from_fn(value: impl FnMut(Measure) -> f64) -> Self {
        Self(Measure::ALL.map(value))
    }
}

impl Index<Measure> for Values {
    type Output = f64;

    fn index(&self, measure: Measure) -> &f64 {
        &self.0[measure as usize]
    }
}

/// A file that holds no measures of cases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A folder without any of the files that are looked for.
    #[error("`{}` holds neither `{CASES}` nor `{SUMMARY}`", folder.display())]
    Nothing {
        /// The folder.
        folder: PathBuf,
    },
    /// The table cannot be read.
    #[error("cannot use `{}`", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: csv::Error,
    },
    /// A table without a column that names the rows.
    #[error("`{}` has no column `{column}`", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column that is missing.
        column: &'static str,
    },
    /// What should be a number and is none.
    #[error("`{}` (line {line}): expected a number as `{column}`, found `{found}`", path.display())]
    Number {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What stands there.
        found: String,
    },
    /// The summary cannot be read.
    #[error(transparent)]
    Summary(#[from] nnflow_io::json::JsonError),
}

/// The measures of cases, by label or region, then by case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CaseTable(BTreeMap<String, BTreeMap<String, Values>>);

impl CaseTable {
    /// The table of measured cases.
    pub(crate) fn of<'a>(cases: impl IntoIterator<Item = (&'a str, &'a MeasuredCase)>) -> Self {
        let mut table = Self::default();
        for (case, measured) in cases {
            for (label, values) in measured.values() {
                table.insert(label, case.to_owned(), values);
            }
        }
        table
    }

    /// Reads `cases.csv`, nnU-Net's `summary.json`, or a folder that holds one of them, as `nnflow show NODE --output`
    /// writes it.
    ///
    /// # Errors
    /// [`TableError`] with the file, the line and what is expected there.
    pub fn read(path: &Path) -> Result<Self, TableError> {
        if path.is_dir() {
            let names = ["cases.csv", "statistics/cases.csv", "summary.json", "summary/summary.json"];
            let found = names.iter().map(|name| path.join(name)).find(|path| path.is_file());
            return Self::read(&found.ok_or_else(|| TableError::Nothing { folder: path.to_path_buf() })?);
        }
        if path.extension().is_some_and(|ending| ending == "json") {
            return Ok(Self::of_summary(&nnflow_io::json::read(path)?));
        }
        Self::read_csv(path)
    }

    /// Reads a `cases.csv`, whatever the file is called.
    ///
    /// # Errors
    /// [`TableError`] with the file, the line and what is expected there.
    pub fn read_csv(path: &Path) -> Result<Self, TableError> {
        let unreadable = |source| TableError::Table { path: path.to_path_buf(), source };
        Self::from_csv(csv::Reader::from_path(path).map_err(unreadable)?, path)
    }

    /// The table of a summary, whose cases are called by the names of their files.
    fn of_summary(summary: &Summary) -> Self {
        let mut table = Self::default();
        for case in &summary.metric_per_case {
            for (label, metrics) in &case.metrics {
                table.insert(label.clone(), case_of(&case.prediction_file), overlap(metrics));
            }
        }
        table
    }

    fn from_csv<R: std::io::Read>(mut reader: csv::Reader<R>, path: &Path) -> Result<Self, TableError> {
        let unreadable = |source| TableError::Table { path: path.to_path_buf(), source };
        let columns = Columns::of(reader.headers().map_err(unreadable)?, path)?;
        let mut table = Self::default();
        for row in reader.records() {
            let row = row.map_err(unreadable)?;
            let text = |column: usize| row.get(column).unwrap_or_default().to_owned();
            table.insert(text(columns.label), text(columns.case), columns.values(&row, path)?);
        }
        Ok(table)
    }

    fn insert(&mut self, label: String, case: String, values: Values) {
        self.0.entry(label).or_default().insert(case, values);
    }

    /// The labels and regions.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The cases.
    #[must_use]
    pub fn cases(&self) -> BTreeSet<&str> {
        self.0.values().flat_map(BTreeMap::keys).map(String::as_str).collect()
    }

    /// The measures of a structure in a case.
    #[must_use]
    pub fn get(&self, label: &str, case: &str) -> Option<&Values> {
        self.0.get(label)?.get(case)
    }
}

fn overlap(metrics: &Metrics) -> Values {
    Values::from_fn(|measure| match measure {
        Measure::Dice => metrics.dice,
        Measure::Iou => metrics.iou,
        _ => f64::NAN,
    })
}

/// The name of a case by the path of its label image, whatever the image's ending.
fn case_of(file: &str) -> String {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let endings = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".tif", ".tiff", ".png", ".bmp", ".hdr", ".img"];
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned()
}

/// Where the columns of a table are.
struct Columns {
    case: usize,
    label: usize,
    measures: Vec<(Measure, usize)>,
}

impl Columns {
    fn of(header: &csv::StringRecord, path: &Path) -> Result<Self, TableError> {
        let place = |name: &str| header.iter().position(|column| column.trim() == name);
        let needed = |column| place(column).ok_or_else(|| TableError::Column { path: path.to_path_buf(), column });
        let measures = Measure::ALL.into_iter().filter_map(|measure| Some((measure, place(measure.name())?)));
        Ok(Self { case: needed(CASE)?, label: needed(LABEL)?, measures: measures.collect() })
    }

    /// The numbers of a row; an empty field and `NaN` are no number.
    fn values(&self, row: &csv::StringRecord, path: &Path) -> Result<Values, TableError> {
        let mut values = Values([f64::NAN; Measure::ALL.len()]);
        for (measure, column) in &self.measures {
            let found = row.get(*column).unwrap_or_default().trim();
            if !found.is_empty() {
                values.0[*measure as usize] = found.parse().map_err(|_| TableError::Number {
                    path: path.to_path_buf(),
                    line: row.position().map_or(0, csv::Position::line),
                    column: measure.name(),
                    found: found.to_owned(),
                })?;
            }
        }
        Ok(values)
    }
}

/// The text of `cases.csv`: a row for each case and structure, with the measures that were taken, and counts of voxels.
pub(crate) fn csv_text<'a>(
    cases: impl IntoIterator<Item = (&'a str, &'a MeasuredCase)>,
    measures: &[Measure],
) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = measures.iter().map(|measure| measure.name());
    writer.write_record([CASE, LABEL].into_iter().chain(names).chain(COUNTS))?;
    for (case, measured) in cases {
        let values = measured.values();
        for (label, metrics) in &measured.overlap.metrics {
            let numbers = measures.iter().map(|measure| field(values[label][*measure]));
            let fields = [case.to_owned(), label.clone()].into_iter().chain(numbers).chain(counts(metrics));
            writer.write_record(fields)?;
        }
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// A number as spreadsheets read it; what is none is an empty field.
fn field(value: f64) -> String {
    if value.is_nan() { String::new() } else { value.to_string() }
}

fn counts(metrics: &Metrics) -> [String; COUNTS.len()] {
    let Metrics { true_positives, false_positives, false_negatives, true_negatives, predicted, referenced, .. } =
        metrics;
    [true_positives, false_positives, false_negatives, true_negatives, predicted, referenced].map(u64::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CaseTable, TableError> {
        CaseTable::from_csv(csv::Reader::from_reader(text.as_bytes()), Path::new("cases.csv"))
    }

    #[test]
    fn columns_may_stand_in_any_order_beside_others() {
        let table = parse("label,note,hd95,case\n\"(1, 2)\",\"a \"\"b\"\"\",3.5,one\n1,,,one\n").expect("a table");
        assert_eq!(table.get("(1, 2)", "one").map(|values| values[Measure::Hd95]), Some(3.5));
        assert!(table.get("1", "one").is_some_and(|values| values[Measure::Hd95].is_nan()));
    }

    #[test]
    fn what_is_no_number_is_told_with_its_line() {
        let error = parse("case,label,dice\na,1,0.5\nb,1,good\n").expect_err("no number");
        assert_eq!(error.to_string(), "`cases.csv` (line 3): expected a number as `dice`, found `good`");
    }

    #[test]
    fn a_table_without_cases_is_told() {
        let error = parse("subject,label,dice\na,1,0.5\n").expect_err("no column `case`");
        assert_eq!(error.to_string(), "`cases.csv` has no column `case`");
    }

    #[test]
    fn a_case_is_called_by_its_file_without_folder_and_ending() {
        let names = ["/data/labels/case_1.nii.gz", "case.1.nrrd", "C:\\labels\\case_2.png", "case_3"].map(case_of);
        assert_eq!(names, ["case_1", "case.1", "case_2", "case_3"]);
    }

    #[test]
    fn every_measure_is_found_by_its_name() {
        assert!(Measure::ALL.into_iter().all(|measure| Measure::named(measure.name()) == Some(measure)));
        assert_eq!(Measure::named("dices"), None);
    }
}
