//! What is wrong with a case.

use std::collections::BTreeMap;

use ndarray::{ArrayView3, ArrayViewMut4, Axis};
use nnflow_io::image::Geometry;
use nnflow_stage::StageError;

/// Undeclared labels that are named one by one.
const NAMED_LABELS: usize = 8;

/// Everything that was found while a case was read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<String>,
    warnings: Vec<String>,
    hints: Vec<&'static str>,
}

impl Findings {
    /// Adds something that makes the case unusable.
    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Adds something that makes the case unusable, and what to do about it.
    pub(super) fn problem_with_hint(&mut self, problem: String, hint: &'static str) {
        self.problems.push(problem);
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
    }

    /// What is odd without being wrong.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The error with all problems, if there are any.
    pub(super) fn into_result(self, identifier: &str) -> Result<(), StageError> {
        let plural = match self.problems.len() {
            0 => return Ok(()),
            1 => "",
            _ => "s",
        };
        let message = format!("case `{identifier}` has {} problem{plural}", self.problems.len());
        let error = StageError::input(message).with_details(self.problems);
        Err(if self.hints.is_empty() { error } else { error.with_hint(self.hints.join("; ")) })
    }
}

/// Compares the grid of a file with that of the first image: shape and spacing have to be equal, while a different origin
/// or direction is only odd, as images that are saved apart often have one.
pub(super) fn compare_grids(what: &str, found: &Geometry, first: &Geometry, findings: &mut Findings) {
    for difference in first.differences(found) {
        let (field, expected, found) = (difference.field, list(&difference.first), list(&difference.second));
        let told = format!("{what} has {field} `{found}`, the first image `{expected}`");
        match field {
            "shape" => findings.problem(format!("{told} (voxels, z y x)")),
            "spacing" => findings.problem(format!("{told} (mm, z y x)")),
            _ => findings.warnings.push(format!("{told}; nnU-Net ignores this, and so does nnflow")),
        }
    }
}

/// Numbers as a person writes them: `[4, 5, 0.5]`.
fn list(values: &[f64]) -> String {
    let values: Vec<String> = values.iter().map(f64::to_string).collect();
    format!("[{}]", values.join(", "))
}

/// Looks for intensities that are no numbers; they become 0 where `zero` asks for it, and are a problem else.
pub(super) fn check_values(mut voxels: ArrayViewMut4<'_, f32>, zero: bool, findings: &mut Findings) {
    for (number, channel) in voxels.axis_iter(Axis(0)).enumerate() {
        let mut odd = channel.indexed_iter().filter(|(_, value)| !value.is_finite());
        let Some(((z, y, x), value)) = odd.next() else { continue };
        let count = 1 + odd.count();
        let told = format!(
            "channel {number} has {count} voxels that are no finite number, the first `{value}` at voxel [{z}, {y}, {x}] (z, y, x)"
        );
        if zero {
            findings.warnings.push(format!("{told}; they count as 0"));
            continue;
        }
        findings.problem_with_hint(
            told,
            "replace them, leave the case out, or set `non_finite = \"zero\"` for `ingest`: one such voxel makes the whole \
             case NaN when it is normalised",
        );
    }
    if zero {
        voxels.mapv_inplace(|value| if value.is_finite() { value } else { 0.0 });
    }
}

/// Looks for labels that `dataset.json` does not name.
pub(super) fn check_labels(labels: ArrayView3<'_, i16>, declared: &[i16], findings: &mut Findings) {
    let unknown = undeclared(labels, declared);
    if unknown.is_empty() {
        return;
    }
    let named = unknown.iter().take(NAMED_LABELS).map(|(label, count)| format!("`{label}` ({count} voxels)"));
    let mut list = named.collect::<Vec<_>>().join(", ");
    if let Some(more) = unknown.len().checked_sub(NAMED_LABELS).filter(|&more| more > 0) {
        list.push_str(&format!(" and {more} more"));
    }
    findings.problem_with_hint(
        format!("the label image has labels that `dataset.json` does not name: {list}; expected {declared:?}"),
        "name them under `labels` in `dataset.json`, or change them in the label image",
    );
}

/// Labels that are not declared, with their numbers of voxels.
fn undeclared(labels: ArrayView3<'_, i16>, declared: &[i16]) -> BTreeMap<i16, usize> {
    let mut known = vec![false; 1 << 16];
    for &label in declared {
        known[usize::from(label as u16)] = true;
    }
    let mut unknown = BTreeMap::new();
    for &label in labels {
        if !known[usize::from(label as u16)] {
            *unknown.entry(label).or_insert(0) += 1;
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn undeclared_labels_are_counted() {
        let labels = array![[[0, 1, 7, 7, -1]]];
        assert_eq!(undeclared(labels.view(), &[0, 1]), BTreeMap::from([(-1, 1), (7, 2)]));
    }

    #[test]
    fn many_undeclared_labels_are_not_all_named() {
        let labels = ndarray::Array3::from_shape_fn((1, 1, 100), |(_, _, x)| x as i16);
        let mut findings = Findings::default();
        check_labels(labels.view(), &[0], &mut findings);
        assert!(findings.problems[0].contains("and 91 more"), "{:?}", findings.problems);
    }

    #[test]
    fn values_that_are_no_numbers_can_count_as_zero() {
        let mut voxels = array![[[[1.0, f32::NAN]]], [[[f32::INFINITY, 2.0]]]];
        let mut findings = Findings::default();
        check_values(voxels.view_mut(), true, &mut findings);
        assert_eq!(voxels, array![[[[1.0, 0.0]]], [[[0.0, 2.0]]]]);
        assert_eq!((findings.problems.len(), findings.warnings.len()), (0, 2));
    }

    #[test]
    fn a_hint_is_given_once() {
        let mut findings = Findings::default();
        findings.problem_with_hint("a".to_owned(), "do this");
        findings.problem_with_hint("b".to_owned(), "do this");
        let report = findings.into_result("x").expect_err("two problems").report();
        assert_eq!((report.details.len(), report.hint.as_deref()), (2, Some("do this")));
    }
}
