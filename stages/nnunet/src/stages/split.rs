//! `split`: which cases train and which validate.

use std::collections::BTreeSet;

use nnflow_io::json;
use nnflow_io::splits::{Split, check};
use nnflow_stage::{
    Context, InputPort, OutputPort, Parameter, ParameterKind, Phase, PhaseKind, Read, Runner, Stage, StageError,
    StageSpec,
};
use serde::Deserialize;

use crate::split_rules::{SplitSettings, cross_validation, random_fold};

/// The stage.
pub(crate) struct SplitStage;

static SPEC: StageSpec = StageSpec {
    name: "split",
    version: 1,
    summary: "divides the cases into the folds of the cross-validation",
    docs: "Divides the cases into folds: each case validates in one of them and trains in the others.\n\n\
        1. Where the dataset brings a `splits_final.json`, its folds are taken as they are, after a check: every case that it names exists, no case trains and validates in the same fold, every fold trains.\n\
        2. Else the identifiers are sorted and shuffled by NumPy's `RandomState(seed)`; each fold validates the next part, the first folds one case more where the parts are not equal.\n\
        3. `random_folds` further folds follow: `random_share` of the cases train, drawn by `RandomState(seed + number of the fold)`, the rest validates.\n\n\
        Fold `all` needs no entry: it trains and validates with every case.\n\n\
        Source: nnU-Net 2.8.1, `generate_crossval_split` (scikit-learn's `KFold`) and `nnUNetTrainer.do_split`.",
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "cases",
            kinds: &["cases", "raw", "prepared"],
            read: Read::Names,
            per_case: true,
            many: false,
            optional: false,
            doc: "the cases; only their identifiers are read",
        },
        InputPort {
            name: "splits",
            kinds: &["split"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: true,
            doc: "folds that the dataset brings along",
        },
    ],
    outputs: &[OutputPort {
        name: "split",
        kind: "split",
        per_case: false,
        optional: false,
        document: Some("splits_final.json"),
        doc: "`splits_final.json`: for each fold the cases under `train` and `val`",
    }],
    parameters: &[
        Parameter {
            name: "folds",
            kind: ParameterKind::Integer { minimum: 2, maximum: 1000 },
            default: "5",
            unit: "",
            doc: "folds of the cross-validation",
        },
        Parameter {
            name: "seed",
            kind: ParameterKind::Integer { minimum: 0, maximum: u32::MAX as i64 },
            default: "12345",
            unit: "",
            doc: "seed of the generator that shuffles the cases",
        },
        Parameter {
            name: "random_folds",
            kind: ParameterKind::Integer { minimum: 0, maximum: 1000 },
            default: "0",
            unit: "",
            doc: "further folds beyond the cross-validation, each a random division of its own",
        },
        Parameter {
            name: "random_share",
            kind: ParameterKind::Number { minimum: 0.0, maximum: 1.0 },
            default: "0.8",
            unit: "",
            doc: "share of the cases that trains in a further fold",
        },
    ],
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[Phase {
        name: "split",
        kind: PhaseKind::Whole,
        reads: &["cases", "splits"],
        makes: &["split"],
        parameters: None,
    }],
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    folds: usize,
    seed: u32,
    random_folds: u32,
    random_share: f64,
}

impl Stage for SplitStage {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let settings: Settings = context.parameters().parse()?;
        let identifiers: Vec<String> = context.parsed("cases")?;
        let splits = if context.members("splits").is_empty() {
            make(&identifiers, &settings)?
        } else {
            let given: Vec<Split> = context.parsed("splits")?;
            verified(given, identifiers)?
        };
        let text = json::to_vec(&splits).map_err(|error| StageError::internal(error.to_string()))?;
        context.output("split").bytes("splits_final.json", &text)
    }
}

fn make(identifiers: &[String], settings: &Settings) -> Result<Vec<Split>, StageError> {
    let rules = SplitSettings { n_folds: settings.folds, seed: settings.seed, random_share: settings.random_share };
    let mut splits = cross_validation(identifiers, &rules).map_err(|error| {
        StageError::input(error.to_string()).with_hint("set `folds` of the stage `split`, or train fold `all` only")
    })?;
    let first = splits.len() as u32;
    for fold in first..first + settings.random_folds {
        splits.push(random_fold(identifiers, fold, &rules).map_err(|error| StageError::input(error.to_string()))?);
    }
    Ok(splits)
}

fn verified(splits: Vec<Split>, identifiers: Vec<String>) -> Result<Vec<Split>, StageError> {
    let identifiers: BTreeSet<String> = identifiers.into_iter().collect();
    let problems = check(&splits, &identifiers);
    if problems.is_empty() {
        return Ok(splits);
    }
    Err(StageError::input("the dataset's own `splits_final.json` does not fit its cases")
        .with_details(problems.iter().map(ToString::to_string))
        .with_hint("mend the file, or remove it: folds are then made from the identifiers of the cases"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("case_{number:02}")).collect()
    }

    #[test]
    fn random_folds_follow_the_cross_validation() {
        let settings = Settings { folds: 5, seed: 12345, random_folds: 2, random_share: 0.8 };
        let splits = make(&cases(10), &settings).expect("enough cases");
        assert_eq!(splits.len(), 7);
        assert_eq!(splits[6].train.len(), 8);
    }

    #[test]
    fn folds_that_name_an_unknown_case_are_refused() {
        let foreign = Split { train: vec!["case_00".to_owned()], val: vec!["case_99".to_owned()] };
        let report = verified(vec![foreign], cases(2)).expect_err("unknown case").report();
        assert!(report.details[0].contains("`case_99`"), "{report:?}");
    }
}
