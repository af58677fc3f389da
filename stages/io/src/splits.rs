//! `splits_final.json`: which cases each fold trains with and which it is validated on.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One fold; a `splits_final.json` is a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Identifiers of the cases to train with, in nnU-Net's order.
    pub train: Vec<String>,
    /// Identifiers of the cases to validate on, in nnU-Net's order.
    pub val: Vec<String>,
}

/// One thing that is wrong with the folds of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SplitProblem {
    /// A case that the dataset does not have.
    UnknownCase {
        /// Number of the fold.
        fold: usize,
        /// The case.
        identifier: String,
    },
    /// A case that a fold is validated on although it trains with it.
    Leak {
        /// Number of the fold.
        fold: usize,
        /// The case.
        identifier: String,
    },
    /// A fold without a case to train with.
    NothingToTrain {
        /// Number of the fold.
        fold: usize,
    },
}

impl fmt::Display for SplitProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCase { fold, identifier } => {
                write!(formatter, "fold {fold} names the case `{identifier}`, which the dataset does not have")
            }
            Self::Leak { fold, identifier } => {
                write!(formatter, "fold {fold} trains with the case `{identifier}` and is validated on it")
            }
            Self::NothingToTrain { fold } => write!(formatter, "fold {fold} has no case to train with"),
        }
    }
}

/// All that is wrong with folds for a dataset of these cases.
#[must_use]
pub fn check(splits: &[Split], identifiers: &BTreeSet<String>) -> Vec<SplitProblem> {
    splits.iter().enumerate().flat_map(|(fold, split)| check_fold(fold, split, identifiers)).collect()
}

fn check_fold(fold: usize, split: &Split, identifiers: &BTreeSet<String>) -> Vec<SplitProblem> {
    let train: BTreeSet<&String> = split.train.iter().collect();
    let all: BTreeSet<&String> = split.train.iter().chain(&split.val).collect();
    let unknown = all.into_iter().filter(|identifier| !identifiers.contains(*identifier));
    let unknown = unknown.map(|identifier| SplitProblem::UnknownCase { fold, identifier: identifier.clone() });
    let leaks = split.val.iter().filter(|identifier| train.contains(identifier));
    let leaks = leaks.map(|identifier| SplitProblem::Leak { fold, identifier: identifier.clone() });
    let empty = train.is_empty().then_some(SplitProblem::NothingToTrain { fold });
    unknown.chain(leaks).chain(empty).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(train: &[&str], val: &[&str]) -> Split {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Split { train: owned(train), val: owned(val) }
    }

    fn problems(splits: &[Split]) -> Vec<String> {
        let identifiers = ["a", "b", "c"].map(str::to_owned).into();
        check(splits, &identifiers).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_file_is_a_list_of_train_and_val() {
        let text = r#"[{"train":["a","b"],"val":["c"]}]"#;
        let splits: Vec<Split> = serde_json::from_str(text).expect("parses");
        assert_eq!(serde_json::to_string(&splits).expect("serialises"), text);
    }

    #[test]
    fn sound_folds_have_no_problems() {
        assert_eq!(problems(&[split(&["a", "b"], &["c"]), split(&["c"], &["a", "b"])]), [""; 0]);
    }

    #[test]
    fn an_unknown_case_is_named() {
        assert_eq!(
            problems(&[split(&["a"], &["b"]), split(&["a", "x"], &["b"])]),
            ["fold 1 names the case `x`, which the dataset does not have"]
        );
    }

    #[test]
    fn a_case_on_both_sides_is_named() {
        assert_eq!(problems(&[split(&["a", "b"], &["b"])]), ["fold 0 trains with the case `b` and is validated on it"]);
    }

    #[test]
    fn a_fold_without_training_cases_is_named() {
        assert_eq!(problems(&[split(&[], &["b"])]), ["fold 0 has no case to train with"]);
    }
}
