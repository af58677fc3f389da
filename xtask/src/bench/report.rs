//! The figures as tables for people and as JSON for programs.

use std::fs;

use super::cost::Cost;
use super::json::Json;
use super::machine::Machine;
use super::runner::Measured;
use super::statistics::Spread;
use super::suite::Suite;
use crate::checkout::Checkout;
use crate::error::Error;

/// The page with the tables.
const PAGE: &str = "docs/benchmarks.md";

const HEADER: &str = "\
| data | step | wall, nnU-Net | nnflow | ratio | CPU, nnU-Net | nnflow | ratio | memory, nnU-Net | nnflow | ratio | deviation |
| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |
";

/// All that was measured.
pub(crate) struct Report<'a> {
    pub(crate) suite: &'a Suite,
    pub(crate) machine: &'a Machine,
    pub(crate) pairs: usize,
    pub(crate) measured: &'a [Measured],
}

impl Report<'_> {
    /// Prints the tables; writes them to the page where everything was measured.
    ///
    /// # Errors
    /// If a file cannot be written, or results differ by more than is right.
    pub(crate) fn publish(&self, checkout: &Checkout, is_whole: bool) -> Result<(), Error> {
        let tables = self.tables();
        println!("{tables}");
        if is_whole {
            let page = checkout.root().join(PAGE);
            let text = fs::read_to_string(&page).map_err(Error::io("read", &page))?;
            let text = replace_between(&text, self.suite, &tables).ok_or_else(|| Error::Bench {
                message: format!("`{PAGE}` has no place for figures"),
                remedy: Some(format!(
                    "put the lines `{}` and `{}` where they belong",
                    self.suite.begin, self.suite.end
                )),
            })?;
            fs::write(&page, text).map_err(Error::io("write", &page))?;
            let figures = checkout.root().join(self.suite.figures);
            fs::write(&figures, format!("{}\n", self.to_json())).map_err(Error::io("write", &figures))?;
            eprintln!("wrote `{PAGE}` and `{}`", self.suite.figures);
        }
        match self.measured.iter().find(|measured| !measured.agreement.holds()) {
            None => Ok(()),
            Some(Measured { subject, step, agreement, .. }) => Err(Error::Bench {
                message: format!("the results of `{step}` on {subject} differ: {agreement}"),
                remedy: None,
            }),
        }
    }

    fn tables(&self) -> String {
        let mut text = self.machine.paragraph(self.pairs);
        let mut title = "";
        for measured in self.measured {
            if measured.title != title {
                title = measured.title;
                text.push_str(&format!("\n### {title}\n\n{HEADER}"));
            }
            text.push_str(&row(measured));
        }
        text
    }

    fn to_json(&self) -> Json {
        let rows = self.measured.iter().map(|measured| {
            let deviations = measured.agreement.0.iter().map(|deviation| {
                Json::Table(vec![
                    ("name", deviation.name.as_str().into()),
                    ("largest", deviation.largest.into()),
                    ("limit", deviation.limit.into()),
                ])
            });
            Json::Table(vec![
                ("group", measured.title.into()),
                ("data", measured.subject.as_str().into()),
                ("step", measured.step.into()),
                ("nnunet", costs(&measured.nnunet)),
                ("nnflow", costs(&measured.nnflow)),
                ("deviations", deviations.collect()),
            ])
        });
        Json::Table(vec![("machine", self.machine.to_json()), ("rows", rows.collect())])
    }
}

fn costs(costs: &[Cost]) -> Json {
    let each = |figure: fn(&Cost) -> f64| costs.iter().map(figure).collect();
    Json::Table(vec![
        ("wall_seconds", each(|cost| cost.wall)),
        ("cpu_seconds", each(|cost| cost.cpu)),
        ("peak_bytes", each(|cost| cost.memory)),
    ])
}

/// One figure of a run, and how it is told.
type Figure = (fn(&Cost) -> f64, fn(f64) -> String);

fn row(measured: &Measured) -> String {
    let figures: [Figure; 3] = [(|cost| cost.wall, seconds), (|cost| cost.cpu, seconds), (|cost| cost.memory, bytes)];
    let cells = figures.map(|(figure, told)| {
        let of = |costs: &[Cost]| Spread::of(costs.iter().map(figure)).median;
        let pairs = measured.nnunet.iter().zip(&measured.nnflow);
        let ratio = Spread::of_ratios(pairs.map(|(theirs, ours)| (figure(theirs), figure(ours))));
        format!("{} | {} | {}", told(of(&measured.nnunet)), told(of(&measured.nnflow)), times(ratio))
    });
    format!("| {} | {} | {} | {} |\n", measured.subject, measured.step, cells.join(" | "), measured.agreement)
}

/// Stands where there is no figure.
const ABSENT: &str = "—";

/// Three digits that count.
fn digits(number: f64) -> String {
    match number {
        number if number >= 99.95 => format!("{number:.0}"),
        number if number >= 9.995 => format!("{number:.1}"),
        number => format!("{number:.2}"),
    }
}

fn seconds(seconds: f64) -> String {
    if seconds.is_nan() { ABSENT.to_owned() } else { format!("{} s", digits(seconds)) }
}

fn bytes(bytes: f64) -> String {
    const MEBI: f64 = 1_048_576.0;
    match bytes / MEBI {
        mebibytes if mebibytes.is_nan() => ABSENT.to_owned(),
        mebibytes if mebibytes >= 1024.0 => format!("{} GiB", digits(mebibytes / 1024.0)),
        mebibytes => format!("{} MiB", digits(mebibytes)),
    }
}

/// A ratio with its spread, if it has one.
fn times(ratio: Spread) -> String {
    let number = |number: f64| if number >= 9.95 { format!("{number:.0}") } else { format!("{number:.1}") };
    let [least, median, most] = [ratio.least, ratio.median, ratio.most].map(number);
    match () {
        () if ratio.median.is_nan() => String::new(),
        () if least == most => format!("**{median}**"),
        () => format!("**{median}** ({least} to {most})"),
    }
}

fn replace_between(page: &str, suite: &Suite, tables: &str) -> Option<String> {
    let Suite { begin, end, .. } = suite;
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{tables}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::super::comparison::Agreement;
    use super::super::suite::{DATA, NETWORK};
    use super::*;

    const MIB: f64 = 1_048_576.0;

    fn measured() -> Measured {
        let cost = |wall, cpu, memory| Cost { wall, cpu, memory };
        Measured {
            title: "All",
            subject: "Dataset004".to_owned(),
            step: "plan",
            nnunet: vec![cost(6.0, 8.0, 2048.0 * MIB), cost(8.0, 8.0, 2048.0 * MIB)],
            nnflow: vec![cost(0.5, 0.04, 16.0 * MIB), cost(0.5, 0.04, 16.0 * MIB)],
            agreement: Agreement::parse("plan\t0\t0").expect("a line of three parts"),
        }
    }

    #[test]
    fn a_row_has_medians_and_ratios() {
        let expected = "| Dataset004 | plan | 7.00 s | 0.50 s | **14** (12 to 16) | 8.00 s | 0.04 s | **200** | 2.00 GiB \
                        | 16.0 MiB | **128** | equal |\n";
        assert_eq!(row(&measured()), expected);
    }

    #[test]
    fn what_nnunet_does_not_do_is_said() {
        let alone = Measured { nnunet: Vec::new(), agreement: Agreement::default(), ..measured() };
        let expected = "| Dataset004 | plan | — | 0.50 s |  | — | 0.04 s |  | — | 16.0 MiB |  | not compared |\n";
        assert_eq!(row(&alone), expected);
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_header() {
        let cells = |line: &str| line.matches('|').count();
        assert_eq!(cells(&row(&measured())), cells(HEADER.lines().next().unwrap_or_default()));
    }

    #[test]
    fn figures_replace_those_of_the_last_time_and_nothing_else() {
        let place = |text: &str| format!("before\n{}\n{text}\n{}\nafter\n", DATA.begin, DATA.end);
        assert_eq!(replace_between(&place("old"), &DATA, "new\n"), Some(place("new")));
        assert_eq!(replace_between("a page without a place", &DATA, "new"), None);
    }

    #[test]
    fn the_page_has_a_place_for_each_suite() {
        let page = include_str!("../../../docs/benchmarks.md");
        assert!([&DATA, &NETWORK].into_iter().all(|suite| replace_between(page, suite, "").is_some()));
    }

    #[test]
    fn three_digits_are_told() {
        assert_eq!([0.104, 9.996, 99.96, 1234.5].map(digits), ["0.10", "10.0", "100", "1234"]);
    }
}
