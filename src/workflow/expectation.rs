//! Expectations: what the numbers of a run must reach.

use std::fmt;

use super::pattern::NodePattern;
use super::read::{Fields, mismatch, number};
use super::tree::{Entry, Value, ValueKind, shortened};
use crate::diagnostic::{Diagnostic, Diagnostics, Located, Place, Severity};

/// What a number of the results must reach.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// The nodes whose results hold the number.
    pub node: Located<NodePattern>,
    /// The path to the number, such as `["foreground_mean", "dice"]`.
    pub metric: Vec<String>,
    /// What it must satisfy, all of them.
    pub bounds: Vec<Bound>,
    /// Whether a run that falls short fails.
    pub severity: Severity,
    /// The key as it is written: `evaluate.foreground_mean.dice`.
    pub key: String,
    /// The place of the expectation's value.
    pub place: Place,
}

impl Expectation {
    /// Whether the number satisfies all bounds; what is not a number satisfies none.
    #[must_use]
    pub fn met_by(&self, number: f64) -> bool {
        self.bounds.iter().all(|bound| bound.met_by(number))
    }
}

/// One side of an expectation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// How the number compares to the limit.
    pub comparison: Comparison,
    /// The limit.
    pub limit: f64,
}

impl Bound {
    /// Whether the number satisfies the bound; what is not a number does not.
    #[must_use]
    pub fn met_by(&self, number: f64) -> bool {
        match self.comparison {
            Comparison::AtLeast => number >= self.limit,
            Comparison::MoreThan => number > self.limit,
            Comparison::AtMost => number <= self.limit,
            Comparison::LessThan => number < self.limit,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.comparison.symbol(), self.limit)
    }
}

/// How a number compares to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `>=`.
    AtLeast,
    /// `>`.
    MoreThan,
    /// `<=`.
    AtMost,
    /// `<`.
    LessThan,
}

impl Comparison {
    /// As it is written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::MoreThan => ">",
            Self::AtMost => "<=",
            Self::LessThan => "<",
        }
    }
}

const EXPECTED: &str = "a bound such as \">= 0.88\", or a table with `min` or `max`";

/// Reads one entry of `[expect]`.
pub(super) fn read(entry: &Entry, diagnostics: &mut Diagnostics) -> Option<Expectation> {
    let path = format!("expect.\"{}\"", shortened(&entry.key));
    let (node, metric) = subject(entry).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()?;
    let (bounds, severity) = match &entry.value.kind {
        ValueKind::Table(_) => table(&entry.value, &path, diagnostics)?,
        _ => {
            (vec![bound(&entry.value, &path).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()?], Severity::Error)
        }
    };
    Some(Expectation { node, metric, bounds, severity, key: entry.key.clone(), place: entry.value.place.clone() })
}

/// The nodes and the path to the number, out of a key such as `evaluate[2d].foreground_mean.dice`.
fn subject(entry: &Entry) -> Result<(Located<NodePattern>, Vec<String>), Diagnostic> {
    let key = &entry.key;
    let malformed = |expected: &str| {
        Diagnostic::error(format!("`{}` does not name a number of a stage", shortened(key)))
            .at(&entry.key_place, expected.to_owned())
            .hint("write the key in quotes, the stage first: \"evaluate.foreground_mean.dice\" = \">= 0.88\"")
    };
    let brackets = key.find(']').unwrap_or(0);
    let point = key[brackets..].find('.').map(|at| brackets + at);
    let point = point.ok_or_else(|| malformed("expected `stage.path.to.number`"))?;
    let node = NodePattern::parse(&key[..point]).map_err(malformed)?;
    let metric: Vec<String> = key[point + 1..].split('.').map(str::to_owned).collect();
    if metric.iter().any(String::is_empty) {
        return Err(malformed("expected a name between any two points"));
    }
    Ok((Located::new(node, entry.key_place.within_string(key, 0..point)), metric))
}

fn bound(value: &Value, path: &str) -> Result<Bound, Diagnostic> {
    let malformed = || mismatch(value, path, EXPECTED).maybe_hint(bound_hint(value));
    let ValueKind::String(text) = &value.kind else { return Err(malformed()) };
    // The longer symbols come first, so that `>=` is not read as `>`.
    let comparisons = [Comparison::AtLeast, Comparison::AtMost, Comparison::MoreThan, Comparison::LessThan];
    let found = comparisons.into_iter().find_map(|comparison| {
        let limit = text.trim().strip_prefix(comparison.symbol())?.trim().parse::<f64>().ok()?;
        limit.is_finite().then_some(Bound { comparison, limit })
    });
    found.ok_or_else(malformed)
}

fn bound_hint(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::Integer(number) => Some(format!("did you mean \">= {number}\"?")),
        ValueKind::Float(number) => Some(format!("did you mean \">= {number}\"?")),
        ValueKind::String(text) => {
            let digits =
                text.trim_start_matches(|character: char| !character.is_ascii_digit() && !"+-.".contains(character));
            let number: f64 = digits.trim().parse().ok()?;
            Some(format!("did you mean \">= {number}\"? the comparisons are `>=`, `>`, `<=` and `<`"))
        }
        _ => None,
    }
}

fn table(value: &Value, path: &str, diagnostics: &mut Diagnostics) -> Option<(Vec<Bound>, Severity)> {
    let mut fields = Fields::new(value.as_table()?, path);
    let before = diagnostics.len();
    let minimum = fields.read("min", diagnostics, number);
    let maximum = fields.read("max", diagnostics, number);
    let severity = fields.read("severity", diagnostics, severity).unwrap_or(Severity::Error);
    fields.finish(diagnostics);
    if diagnostics.len() == before {
        match (minimum, maximum) {
            (None, None) => diagnostics.push(mismatch(value, path, EXPECTED)),
            (Some(minimum), Some(maximum)) if minimum > maximum => diagnostics.push(
                Diagnostic::error(format!("no number is at least {minimum} and at most {maximum}"))
                    .at(&value.place, "expected `min` to be at most `max`"),
            ),
            _ => {}
        }
    }
    let minimum = minimum.map(|limit| Bound { comparison: Comparison::AtLeast, limit });
    let maximum = maximum.map(|limit| Bound { comparison: Comparison::AtMost, limit });
    (diagnostics.len() == before).then(|| (minimum.into_iter().chain(maximum).collect(), severity))
}

fn severity(value: &Value, path: &str) -> Result<Severity, Diagnostic> {
    match &value.kind {
        ValueKind::String(word) if word == "error" => Ok(Severity::Error),
        ValueKind::String(word) if word == "warn" => Ok(Severity::Warning),
        _ => Err(mismatch(value, path, "\"error\" or \"warn\"")),
    }
}
