//! `nnflow compare`: two runs side by side, case by case.

use std::path::{Path, PathBuf};

use nnflow_nnunet::stages::evaluate::comparison::{
    Comparison, ComparisonRow, ComparisonSettings, FOREGROUND, compare as compare_tables,
};
use nnflow_nnunet::stages::evaluate::table::{CASES, CaseTable, Measure, TableError};
use nnflow_stage::{ErrorKind, ErrorReport};

use super::outcome::{Exit, Failed, complain, print};
use super::{Opening, target};
use crate::diagnostic::suggestion;
use crate::engine::state::{Port, Slot, State};
use crate::report::list_cases;
use crate::session::Session;

/// Smaller p-values are printed as being below this one.
const SMALLEST_P: f64 = 0.0001;

/// What `nnflow compare` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArguments {
    /// The run to compare with: a workflow's file, a `cases.csv`, nnU-Net's `summary.json`, or a folder with one of them.
    first: PathBuf,
    /// The run that may be better.
    second: PathBuf,
    /// Of workflows, the node whose evaluation is compared, such as `validate[2d]`.
    #[arg(long, value_name = "NODE", default_value = "evaluate")]
    node: String,
    /// The same for the second run only, where the two differ.
    #[arg(long, value_name = "NODE")]
    second_node: Option<String>,
    /// What is compared: `dice`, `iou`, `nsd`, `hd95`, `hd`, `assd`, `volume_error` or `relative_volume_error`; may be given
    /// several times.
    #[arg(long = "measure", value_name = "MEASURE")]
    measures: Vec<String>,
    /// The level of the intervals of confidence.
    #[arg(long, value_name = "LEVEL", default_value_t = 0.95, value_parser = level)]
    confidence: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn level(text: &str) -> Result<f64, String> {
    let level: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.5..1.0).contains(&level) { Ok(level) } else { Err("expected a number from 0.5 to below 1".to_owned()) }
}

/// Compares two runs.
pub(crate) fn compare(arguments: &CompareArguments) -> Result<Exit, Failed> {
    let settings = settings(arguments)?;
    let second_node = arguments.second_node.as_ref().unwrap_or(&arguments.node);
    let first = table(&arguments.first, &arguments.node)?;
    let second = table(&arguments.second, second_node)?;
    let comparison = compare_tables(&first, &second, &settings);
    if comparison.cases == 0 {
        return Err(Failed::input_with_hint(
            "the two runs have no case in common",
            "cases are told apart by their names, which are those of the label images",
        ));
    }
    if arguments.json {
        print(&serde_json::to_string_pretty(&comparison).map_err(std::io::Error::from)?);
        return Ok(Exit::Done);
    }
    warn(&comparison);
    print(&render(&comparison));
    Ok(Exit::Done)
}

fn settings(arguments: &CompareArguments) -> Result<ComparisonSettings, Failed> {
    let defaults = ComparisonSettings { confidence: arguments.confidence, ..ComparisonSettings::default() };
    if arguments.measures.is_empty() {
        return Ok(defaults);
    }
    let measures = arguments.measures.iter().map(|name| {
        Measure::named(name).ok_or_else(|| {
            let names = Measure::ALL.map(Measure::name);
            let hint = suggestion(name, names).unwrap_or_else(|| format!("the measures are {}", names.join(", ")));
            Failed::input_with_hint(format!("there is no measure `{name}`"), hint)
        })
    });
    Ok(ComparisonSettings { measures: measures.collect::<Result<_, _>>()?, ..defaults })
}

/// The measures of the cases of a run.
fn table(run: &Path, node: &str) -> Result<CaseTable, Failed> {
    if run.extension().is_some_and(|ending| ending == "toml") {
        return table_of_workflow(run, node);
    }
    CaseTable::read(run).map_err(|error| unreadable(&error))
}

fn table_of_workflow(path: &Path, node: &str) -> Result<CaseTable, Failed> {
    let session = Session::open(path, &Opening::default().options())?;
    let state = session.settled()?;
    let [node] = target::nodes(&session.graph, node)?[..] else {
        return Err(Failed::input_with_hint(
            format!("`{node}` is several nodes of `{}`", path.display()),
            "name one of them, such as `--node validate[2d]`",
        ));
    };
    let name = &session.graph.node(node).name;
    let Some(file) = cases_of(&state, node) else {
        return Err(Failed::input_with_hint(
            format!("`{name}` of `{}` has no `{CASES}`", path.display()),
            format!("`nnflow run {} --until {name}` makes it, if the node is an evaluation", path.display()),
        ));
    };
    CaseTable::read_csv(&file).map_err(|error| unreadable(&error))
}

/// The table of cases among what a node has made.
fn cases_of(state: &State<'_>, node: petgraph::graph::NodeIndex) -> Option<PathBuf> {
    let made = state.nodes[node.index()].ports.values().filter_map(|port| match port {
        Port::One(Slot::Made(held)) => held.artifact.file(CASES),
        _ => None,
    });
    let path = made.map(|file| state.store.object_path(&file.digest)).next()?;
    path.is_file().then_some(path)
}

fn unreadable(error: &TableError) -> Failed {
    let sources = std::iter::successors(std::error::Error::source(error), |source| source.source());
    let message = sources.fold(error.to_string(), |message, source| format!("{message}: {source}"));
    let hint = matches!(error, TableError::Nothing { .. })
        .then(|| "`nnflow show evaluate --output DIR` writes such a folder".to_owned());
    Failed::Report(ErrorReport { hint, ..ErrorReport::new(ErrorKind::Input, message) })
}

/// Tells what is left out.
fn warn(comparison: &Comparison) {
    for (cases, which) in [(&comparison.only_first, "first"), (&comparison.only_second, "second")] {
        if !cases.is_empty() {
            let names: Vec<&str> = cases.iter().map(String::as_str).collect();
            complain(&format!("warning: cases of the {which} run only are left out: {}", list_cases(&names)));
        }
    }
    if !comparison.other_labels.is_empty() {
        complain(&format!("warning: labels of one run only are left out: {}", comparison.other_labels.join(", ")));
    }
}

fn render(comparison: &Comparison) -> String {
    let width = comparison.rows.iter().map(|row| row.label.len()).max().unwrap_or(0).max(FOREGROUND.len());
    let level = format!("{}% interval", (comparison.confidence * 1e4).round() / 1e2);
    let mut text = format!("{} cases that both runs have\n", comparison.cases);
    for rows in comparison.rows.chunk_by(|row, next| row.measure == next.measure) {
        let measure = rows.first().map_or("", |row| row.measure);
        text.push_str(&format!(
            "\n{measure:<width$} {:>5} {:>9} {:>9} {:>10}  {level:<22} {:>7} {:>6} {:>6} {:>6}\n",
            "cases", "first", "second", "difference", "p", "better", "worse", "equal"
        ));
        rows.iter().for_each(|row| text.push_str(&line(row, width)));
    }
    text.push_str(
        "\nThe difference is the second run less the first, case by case; its interval is a percentile bootstrap over \
         cases.\np: two-sided sign-flip permutation test of no difference, not corrected for the number of rows.\n",
    );
    text
}

fn line(row: &ComparisonRow, width: usize) -> String {
    let interval = row.interval.map_or_else(String::new, |[low, high]| format!("[{low:+.4}, {high:+.4}]"));
    let p = if row.p_value < SMALLEST_P { format!("<{SMALLEST_P}") } else { format!("{:.4}", row.p_value) };
    format!(
        "{:<width$} {:>5} {:>9.4} {:>9.4} {:>+10.4}  {interval:<22} {p:>7} {:>6} {:>6} {:>6}\n",
        row.label, row.cases, row.first, row.second, row.difference, row.better, row.worse, row.equal
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_share() {
        assert_eq!(level("0.9"), Ok(0.9));
        assert!(level("95").is_err() && level("x").is_err());
    }

    #[test]
    fn a_p_value_below_what_is_printed_is_told_as_that() {
        let row = ComparisonRow {
            measure: "dice",
            label: "1".to_owned(),
            cases: 20,
            first: 0.5,
            second: 0.75,
            difference: 0.25,
            interval: Some([0.125, 0.5]),
            p_value: 0.00002,
            better: 20,
            worse: 0,
            equal: 0,
        };
        assert_eq!(
            line(&row, 3),
            "1      20    0.5000    0.7500    +0.2500  [+0.1250, +0.5000]     <0.0001     20      0      0\n"
        );
    }
}
