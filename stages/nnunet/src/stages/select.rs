//! `select`: the configuration, or pair of configurations, that does best on cases that its networks have not seen.

use std::collections::BTreeMap;

use nnflow_io::json::float;
use nnflow_io::summary::Summary;
use nnflow_stage::{
    Artifact, Axes, Context, InputPort, InputValue, Member, OutputPort, Parameter, ParameterKind, Parameters, Phase,
    PhaseKind, Read, Runner, Stage, StageError, StageSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ensemble::{PAIR, PAIR_SEPARATOR};
use crate::documents::{CONFIGURATION, slice, unknown_port};
use crate::segmentation::write_document;

/// The stage.
pub(crate) struct Select;

/// The record of the decision, a [`Choice`].
const CHOICE: &str = "choice.json";
/// The version of its form.
const CHOICE_VERSION: u32 = 1;

static SPEC: StageSpec = StageSpec {
    name: "select",
    version: 1,
    summary: "chooses the configuration or pair that does best in cross-validation",
    docs: include_str!("select/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "singles",
            kinds: &["summary"],
            read: Read::Document,
            per_case: false,
            many: true,
            optional: false,
            doc: "`summary.json` of each configuration over all cases, gathered over the axis `configuration`",
        },
        InputPort {
            name: "single_labels",
            kinds: &["labels"],
            read: Read::Whole,
            per_case: true,
            many: true,
            optional: false,
            doc: "the label images of each configuration, gathered over its folds too",
        },
        InputPort {
            name: "pairs",
            kinds: &["summary"],
            read: Read::Document,
            per_case: false,
            many: true,
            optional: true,
            doc: "`summary.json` of each pair over all cases, gathered over the axis `pair`",
        },
        InputPort {
            name: "pair_labels",
            kinds: &["labels"],
            read: Read::Whole,
            per_case: true,
            many: true,
            optional: true,
            doc: "the label images of each pair",
        },
    ],
    outputs: &[
        OutputPort {
            name: "choice",
            kind: "choice",
            per_case: false,
            optional: false,
            document: Some(CHOICE),
            doc: "`choice.json`: members, score and candidates",
        },
        OutputPort {
            name: "labels",
            kind: "labels",
            per_case: true,
            optional: false,
            document: None,
            doc: "the winner's label images",
        },
    ],
    parameters: &[Parameter {
        name: "restrict",
        kind: ParameterKind::List(&ParameterKind::Text),
        default: "[]",
        unit: "",
        doc: "the configurations that are considered, alone and in pairs; empty means all",
    }],
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[Phase {
        name: "select",
        kind: PhaseKind::Whole,
        reads: &["singles", "single_labels", "pairs", "pair_labels"],
        makes: &["choice", "labels"],
        parameters: None,
    }],
};

/// What is read of a `summary.json`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Judged {
    #[serde(with = "float")]
    dice: f64,
    cases: usize,
}

/// A configuration or a pair, and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Candidate {
    /// Its configurations.
    members: Vec<String>,
    /// Mean foreground Dice in cross-validation.
    #[serde(with = "float")]
    score: f64,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choice {
    version: u32,
    /// The configurations of the winner.
    pub(crate) members: Vec<String>,
    /// The winner's mean foreground Dice in cross-validation.
    #[serde(with = "float")]
    pub(crate) score: f64,
    candidates: Vec<Candidate>,
}

impl Choice {
    /// The choice in a document.
    pub(crate) fn from_document(document: &Value) -> Result<Self, StageError> {
        let choice = Self::deserialize(document)
            .map_err(|error| StageError::input(format!("`{CHOICE}` cannot be used: {error}")))?;
        if choice.version != CHOICE_VERSION {
            let found = choice.version;
            return Err(StageError::input(format!("`{CHOICE}` has version {found}, expected {CHOICE_VERSION}")));
        }
        Ok(choice)
    }
}

impl Stage for Select {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, _: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "singles" | "pairs" => {
                let summary = Summary::deserialize(document).map_err(|error| {
                    StageError::input(format!("the document at input `{port}` is no `summary.json`: {error}"))
                })?;
                slice(&Judged { dice: summary.foreground_mean.dice, cases: summary.metric_per_case.len() })
            }
            _ => Err(unknown_port(port)),
        }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let restrict: Vec<String> = context.parameters().get("restrict")?;
        let entrants = entrants(context, &restrict)?;
        let winner = winner(&entrants)?;
        if winner.judged.dice.is_nan() {
            context.log("every candidate's score is NaN, as some label is in no case; the first candidate is taken");
        }
        let labels = winner.labels(context)?;
        if labels.len() != winner.judged.cases {
            return Err(StageError::input(format!(
                "`{}` was judged on {} cases, but has label images of {}",
                winner.name(),
                winner.judged.cases,
                labels.len()
            )));
        }
        context.declare_items("labels");
        for (case, artifact) in labels {
            context.output_item("labels", case).forward_all(artifact);
        }
        let candidate = |entrant: &Entrant<'_>| Candidate { members: entrant.members(), score: entrant.judged.dice };
        let choice = Choice {
            version: CHOICE_VERSION,
            members: winner.members(),
            score: winner.judged.dice,
            candidates: entrants.iter().map(candidate).collect(),
        };
        write_document(&mut context.output("choice"), CHOICE, &choice)
    }
}

/// A candidate with where its label images are.
#[derive(Debug, Clone, Copy)]
struct Entrant<'a> {
    axis: &'static str,
    value: &'a str,
    label_port: &'static str,
    judged: Judged,
}

impl<'a> Entrant<'a> {
    fn name(&self) -> &'a str {
        self.value
    }

    fn members(&self) -> Vec<String> {
        match self.axis {
            PAIR => self.value.split(PAIR_SEPARATOR).map(str::to_owned).collect(),
            _ => vec![self.value.to_owned()],
        }
    }

    /// The label images of all cases, united over folds.
    fn labels(&self, context: &Context<'a>) -> Result<BTreeMap<&'a str, &'a Artifact>, StageError> {
        let own = |member: &&Member| member.axes.get(self.axis).is_some_and(|value| value == self.value);
        let mut united = BTreeMap::new();
        for member in context.members(self.label_port).iter().filter(own) {
            let InputValue::Items(items) = &member.value else {
                return Err(StageError::internal(format!("input `{}` was read per case, but is not", self.label_port)));
            };
            for (case, artifact) in items {
                if united.insert(case.as_str(), artifact).is_some() {
                    return Err(StageError::input(format!("`{}` has two label images of case `{case}`", self.value)));
                }
            }
        }
        Ok(united)
    }
}

/// All that take part, singles first.
fn entrants<'a>(context: &Context<'a>, restrict: &[String]) -> Result<Vec<Entrant<'a>>, StageError> {
    let ports = [("singles", CONFIGURATION, "single_labels"), ("pairs", PAIR, "pair_labels")];
    let mut entrants = Vec::new();
    for (port, axis, label_port) in ports {
        for member in context.members(port) {
            let value = member.axes.get(axis).ok_or_else(|| {
                StageError::input(format!("what arrived at input `{port}` has no value on the axis `{axis}`"))
                    .with_hint(format!("connect `{port}` to a stage that runs over `{axis}`, and `select` over none"))
            })?;
            let InputValue::Document(document) = &member.value else {
                return Err(StageError::internal(format!("input `{port}` was read as a document, but is none")));
            };
            let judged = Judged::deserialize(document)
                .map_err(|error| StageError::internal(format!("a slice of `{port}` cannot be read: {error}")))?;
            entrants.push(Entrant { axis, value, label_port, judged });
        }
    }
    restricted(entrants, restrict)
}

/// Those whose configurations are all in the list; all of them where it is empty.
fn restricted<'a>(entrants: Vec<Entrant<'a>>, restrict: &[String]) -> Result<Vec<Entrant<'a>>, StageError> {
    let allowed =
        |entrant: &&Entrant<'_>| restrict.is_empty() || entrant.members().iter().all(|name| restrict.contains(name));
    let left: Vec<Entrant<'a>> = entrants.iter().filter(allowed).copied().collect();
    if left.is_empty() {
        let names: Vec<String> = entrants.iter().map(|entrant| format!("`{}`", entrant.name())).collect();
        return Err(StageError::input(format!(
            "`restrict` leaves no candidate: expected some of {}, found {restrict:?}",
            names.join(", ")
        )));
    }
    Ok(left)
}

/// The first with the highest score.
fn winner<'a>(entrants: &[Entrant<'a>]) -> Result<Entrant<'a>, StageError> {
    let [first, others @ ..] = entrants else {
        return Err(StageError::input("there is no candidate to choose from"));
    };
    if let Some(other) = others.iter().find(|other| other.judged.cases != first.judged.cases) {
        return Err(StageError::input(format!(
            "`{}` was judged on {} cases and `{}` on {}: their scores cannot be compared",
            first.name(),
            first.judged.cases,
            other.name(),
            other.judged.cases
        )));
    }
    let better = |best: Entrant<'a>, other: &Entrant<'a>| {
        let wins = other.judged.dice > best.judged.dice || (best.judged.dice.is_nan() && !other.judged.dice.is_nan());
        if wins { *other } else { best }
    };
    Ok(others.iter().fold(*first, better))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrant(value: &'static str, dice: f64) -> Entrant<'static> {
        let axis = if value.contains(PAIR_SEPARATOR) { PAIR } else { CONFIGURATION };
        Entrant { axis, value, label_port: "single_labels", judged: Judged { dice, cases: 3 } }
    }

    fn winner_of(entrants: &[Entrant<'static>]) -> &'static str {
        winner(entrants).expect("candidates").value
    }

    #[test]
    fn the_highest_score_wins() {
        assert_eq!(
            winner_of(&[entrant("2d", 0.8), entrant("3d_fullres", 0.9), entrant("2d+3d_fullres", 0.85)]),
            "3d_fullres"
        );
    }

    #[test]
    fn the_first_of_equal_scores_wins() {
        assert_eq!(
            winner_of(&[entrant("2d", 0.8), entrant("3d_fullres", 0.9), entrant("2d+3d_fullres", 0.9)]),
            "3d_fullres"
        );
    }

    #[test]
    fn a_score_that_is_no_number_never_wins() {
        assert_eq!(winner_of(&[entrant("2d", f64::NAN), entrant("3d_fullres", 0.1)]), "3d_fullres");
        assert_eq!(winner_of(&[entrant("2d", 0.1), entrant("3d_fullres", f64::NAN)]), "2d");
    }

    #[test]
    fn without_any_number_the_first_is_taken() {
        assert_eq!(winner_of(&[entrant("2d", f64::NAN), entrant("3d_fullres", f64::NAN)]), "2d");
    }

    #[test]
    fn a_pair_is_left_out_with_any_of_its_members() {
        let all = vec![entrant("2d", 0.1), entrant("3d_lowres", 0.2), entrant("2d+3d_lowres", 0.3)];
        let left = restricted(all, &["2d".to_owned()]).expect("one is left");
        assert_eq!(left.iter().map(Entrant::name).collect::<Vec<_>>(), ["2d"]);
    }

    #[test]
    fn scores_of_other_numbers_of_cases_are_not_compared() {
        let mut other = entrant("3d_fullres", 0.9);
        other.judged.cases = 2;
        let error = winner(&[entrant("2d", 0.8), other]).expect_err("not comparable");
        assert_eq!(
            error.to_string(),
            "`2d` was judged on 3 cases and `3d_fullres` on 2: their scores cannot be compared"
        );
    }
}
