//! Which cases train and which validate, as nnU-Net decides it.
//!
//! Results of cross-validation can be compared only if every fold holds the same cases as in nnU-Net, and a plan, a
//! model or an ensemble that comes from there names its folds by number. So the rules reproduce scikit-learn's `KFold`
//! and NumPy's legacy generator to the order of the cases in the file.

use std::collections::HashSet;

use nnflow_io::splits::Split;
use nnflow_kernels::random::MersenneTwister;

/// Why cases cannot be divided into folds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// Fewer cases than folds.
    #[error("{n_cases} cases cannot be divided into {n_folds} folds: expected at least one case a fold and two folds")]
    TooFew {
        /// Number of cases.
        n_cases: usize,
        /// Number of folds.
        n_folds: usize,
    },
    /// A case that is named twice would train and validate at once.
    #[error("case `{identifier}` is named twice")]
    Twice {
        /// The case.
        identifier: String,
    },
}

/// The numbers behind the rules, with the values of nnU-Net 2.8.1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitSettings {
    /// Number of folds of the cross-validation.
    pub n_folds: usize,
    /// Seed of the generator that shuffles the cases.
    pub seed: u32,
    /// Share of the cases that trains in a fold beyond those of the cross-validation.
    pub random_share: f64,
}

impl Default for SplitSettings {
    fn default() -> Self {
        Self { n_folds: 5, seed: 12345, random_share: 0.8 }
    }
}

/// The folds of a cross-validation: each case validates exactly once.
///
/// The identifiers are sorted by code points and shuffled; each fold validates the next part of them, the first folds
/// one case more where the parts are not equal. Both lists of a fold are in sorted order.
///
/// Equal to `generate_crossval_split` of nnU-Net 2.8.1, so to the contents of its `splits_final.json`.
///
/// # Errors
/// [`SplitError`] if there are fewer cases than folds, fewer than two folds, or a case is named twice.
pub fn cross_validation(identifiers: &[String], settings: &SplitSettings) -> Result<Vec<Split>, SplitError> {
    let sorted = sorted(identifiers)?;
    let (n_cases, n_folds) = (sorted.len(), settings.n_folds);
    if n_folds < 2 || n_cases < n_folds {
        return Err(SplitError::TooFew { n_cases, n_folds });
    }
    let mut shuffled: Vec<usize> = (0..n_cases).collect();
    MersenneTwister::new(settings.seed).shuffle(&mut shuffled);
    let mut rest = shuffled.as_slice();
    let mut folds = Vec::with_capacity(n_folds);
    for fold in 0..n_folds {
        let (validating, others) = rest.split_at(n_cases / n_folds + usize::from(fold < n_cases % n_folds));
        rest = others;
        let validating: HashSet<usize> = validating.iter().copied().collect();
        let (val, train) = (0..n_cases).partition(|index| validating.contains(index));
        folds.push(Split { train: pick(&sorted, train), val: pick(&sorted, val) });
    }
    Ok(folds)
}

/// A fold with a number beyond those of the cross-validation: a random part trains, the rest validates.
///
/// The training cases stand in the order in which they were drawn, the others in sorted order.
///
/// Equal to `nnUNetTrainer.do_split` of nnU-Net 2.8.1 for such a fold.
///
/// # Errors
/// [`SplitError::Twice`] if a case is named twice.
pub fn random_fold(identifiers: &[String], fold: u32, settings: &SplitSettings) -> Result<Split, SplitError> {
    let sorted = sorted(identifiers)?;
    let n_training = (sorted.len() as f64 * settings.random_share) as usize;
    let mut random = MersenneTwister::new(settings.seed.wrapping_add(fold));
    let train = random.choice_without_replacement(sorted.len(), n_training);
    let training: HashSet<usize> = train.iter().copied().collect();
    let val = (0..sorted.len()).filter(|index| !training.contains(index)).collect();
    Ok(Split { train: pick(&sorted, train), val: pick(&sorted, val) })
}

/// The fold in which all cases train, and validate too: nnU-Net's fold `all`.
///
/// # Errors
/// [`SplitError::Twice`] if a case is named twice.
pub fn all_cases(identifiers: &[String]) -> Result<Split, SplitError> {
    let sorted = sorted(identifiers)?;
    Ok(Split { train: sorted.clone(), val: sorted })
}

fn sorted(identifiers: &[String]) -> Result<Vec<String>, SplitError> {
    let mut sorted = identifiers.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SplitError::Twice { identifier: pair[0].clone() }),
        None => Ok(sorted),
    }
}

fn pick(identifiers: &[String], indices: Vec<usize>) -> Vec<String> {
    indices.into_iter().map(|index| identifiers[index].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("case_{number:03}")).collect()
    }

    #[test]
    fn fewer_cases_than_folds_are_an_error() {
        let error = cross_validation(&cases(4), &SplitSettings::default());
        assert_eq!(error, Err(SplitError::TooFew { n_cases: 4, n_folds: 5 }));
    }

    #[test]
    fn a_case_that_is_named_twice_is_an_error() {
        let mut twice = cases(10);
        twice.push("case_003".to_owned());
        let error = cross_validation(&twice, &SplitSettings::default());
        assert_eq!(error, Err(SplitError::Twice { identifier: "case_003".to_owned() }));
    }

    #[test]
    fn ten_cases_validate_in_the_folds_of_scikit_learn() {
        let folds = cross_validation(&cases(10), &SplitSettings::default()).expect("enough cases");
        let numbers: Vec<Vec<&str>> =
            folds.iter().map(|fold| fold.val.iter().map(|name| &name[7..]).collect()).collect();
        assert_eq!(numbers, [["0", "7"], ["3", "9"], ["4", "6"], ["1", "8"], ["2", "5"]]);
    }

    #[test]
    fn every_case_validates_once_and_trains_in_all_other_folds() {
        arbtest::arbtest(|source| {
            let n_folds = source.int_in_range(2..=7)?;
            let all = cases(source.int_in_range(n_folds..=60)?);
            let settings = SplitSettings { n_folds, seed: source.arbitrary()?, ..SplitSettings::default() };
            let folds = cross_validation(&all, &settings).expect("enough cases");
            let mut validated: Vec<String> = folds.iter().flat_map(|fold| fold.val.clone()).collect();
            validated.sort_unstable();
            assert_eq!(validated, all);
            for fold in folds {
                let mut both = [fold.train, fold.val].concat();
                both.sort_unstable();
                assert_eq!(both, all);
            }
            Ok(())
        });
    }
}
