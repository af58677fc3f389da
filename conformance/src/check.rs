//! One vector: what was expected, what was found, and how far the two may be apart.

use std::any::Any;
use std::fmt::{self, Debug, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ndarray::{ArrayBase, Data, Dimension};
use serde_json::Value;

use crate::Problem;

/// Longest text of a value in a report.
const LONGEST: usize = 240;

/// How far a value may be from what is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// In units of the value.
    Absolute(f64),
    /// As a part of the expected value itself.
    Relative(f64),
    /// As a part of the largest expected value of the array.
    OfLargest(f64),
    /// As a part of the largest expected value of the array, or in units of the value where that is more.
    OfLargestOr(f64, f64),
}

/// How far something was, and may be, from what is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// How far it was.
    pub value: f64,
    /// How far it may be; 0 where it has to be equal.
    pub tolerance: f64,
    /// What both are measured in.
    pub unit: &'static str,
}

/// A difference beyond the tolerance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What was compared.
    pub what: String,
    /// What nnU-Net has.
    pub expected: String,
    /// What nnflow has.
    pub found: String,
}

/// Whether a vector is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is within its tolerance.
    Met,
    /// Something is not.
    Missed(Vec<Mismatch>),
}

/// What was found out about a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// Where it lies within the folder of its component.
    pub name: String,
    /// Of all that was compared, what came closest to its tolerance, or went furthest beyond.
    pub deviation: Deviation,
    /// Whether it is met.
    pub verdict: Verdict,
    /// What could not be compared, and why.
    pub note: Option<String>,
}

/// Collects the comparisons of a vector.
#[derive(Debug)]
pub struct Check {
    worst: Deviation,
    mismatches: Vec<Mismatch>,
    note: Option<String>,
}

impl Deviation {
    /// Nothing was apart.
    pub const NONE: Self = Self { value: 0.0, tolerance: 0.0, unit: "" };

    /// The deviation as a part of what is allowed.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.value == 0.0 { 0.0 } else { self.value / self.tolerance }
    }

    /// Whether this says more than `other`: it is nearer to its limit, or both are at 0 and only this one has a limit.
    #[must_use]
    pub fn outweighs(&self, other: &Self) -> bool {
        (self.share(), self.tolerance) > (other.share(), other.tolerance)
    }
}

impl Display for Deviation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tolerance == 0.0 && self.value == 0.0 {
            return formatter.write_str("none: all equal");
        }
        if self.value == 0.0 {
            return write!(formatter, "none of {:.0e} {}", self.tolerance, self.unit);
        }
        write!(formatter, "{:.1e} of {:.0e} {}", self.value, self.tolerance, self.unit)
    }
}

impl Vector {
    /// Compares a vector; what stops the comparison counts as a mismatch, a panic too.
    pub fn of(name: impl Into<String>, compare: impl FnOnce(&mut Check) -> Result<(), Problem>) -> Self {
        let mut check = Check { worst: Deviation::NONE, mismatches: Vec::new(), note: None };
        // A panic is a defect of this one vector; the others still have something to say.
        match catch_unwind(AssertUnwindSafe(|| compare(&mut check))) {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => check.stop(problem.to_string()),
            Err(panic) => check.stop(format!("a panic: {}", message_of(&*panic))),
        }
        let verdict = if check.mismatches.is_empty() { Verdict::Met } else { Verdict::Missed(check.mismatches) };
        Self { name: name.into(), deviation: check.worst, verdict, note: check.note }
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

impl Check {
    /// Counts it as a mismatch that the comparison could not go on.
    fn stop(&mut self, found: String) {
        let what = "the comparison".to_owned();
        self.mismatches.push(Mismatch { what, expected: "a result".to_owned(), found });
    }

    /// Says what could not be compared, and why.
    pub fn note(&mut self, note: impl Into<String>) {
        self.note = Some(note.into());
    }

    /// Counts a mismatch.
    pub fn miss(&mut self, what: impl Display, expected: &(impl Debug + ?Sized), found: &(impl Debug + ?Sized)) {
        self.mismatches.push(Mismatch {
            what: what.to_string(),
            expected: shortened(&format!("{expected:?}")),
            found: shortened(&format!("{found:?}")),
        });
    }

    /// Both have to be equal.
    pub fn equal<T: PartialEq + Debug + ?Sized>(&mut self, what: impl Display, expected: &T, found: &T) {
        if expected != found {
            self.miss(what, expected, found);
        }
    }

    /// Both documents have to be equal; told is the first place where they are not.
    pub fn documents(&mut self, what: impl Display, expected: &Value, found: &Value) {
        if let Some((place, expected, found)) = first_difference(String::new(), expected, found) {
            self.miss(format!("{what}, at `{place}`"), &Plain(expected), &Plain(found));
        }
    }

    /// A number has to be within its tolerance; two that are not numbers are equal.
    pub fn number(&mut self, what: impl Display, expected: f64, found: f64, tolerance: Tolerance) {
        let deviation = tolerance.between(expected, found, expected.abs());
        if self.weigh(deviation) {
            self.miss(what, &expected, &found);
        }
    }

    /// Numbers, one by one.
    pub fn numbers(&mut self, what: impl Display, expected: &[f64], found: &[f64], tolerance: Tolerance) {
        let (expected, found) = (ndarray::ArrayView1::from(expected), ndarray::ArrayView1::from(found));
        self.array(what, &expected, &found, tolerance);
    }

    /// Arrays of one shape, value by value.
    pub fn array<A, S, R, D>(
        &mut self,
        what: impl Display,
        expected: &ArrayBase<S, D>,
        found: &ArrayBase<R, D>,
        tolerance: Tolerance,
    ) where
        A: Copy + Into<f64>,
        S: Data<Elem = A>,
        R: Data<Elem = A>,
        D: Dimension,
    {
        if expected.shape() != found.shape() {
            self.miss(format!("{what}: shape"), expected.shape(), found.shape());
            return;
        }
        let largest = expected.iter().fold(0.0_f64, |largest, &value| largest.max(value.into().abs()));
        let deviations = expected
            .iter()
            .zip(found)
            .map(|(&expected, &found)| tolerance.between(expected.into(), found.into(), largest));
        let mut worst = (0, Deviation::NONE);
        let mut beyond = 0_usize;
        for (place, deviation) in deviations.enumerate() {
            beyond += usize::from(deviation.value > deviation.tolerance);
            if deviation.outweighs(&worst.1) {
                worst = (place, deviation);
            }
        }
        if !self.weigh(worst.1) {
            return;
        }
        let value = |array: &mut dyn Iterator<Item = f64>| array.nth(worst.0).unwrap_or(f64::NAN);
        let (expected_value, found_value) =
            (value(&mut expected.iter().map(|&v| v.into())), value(&mut found.iter().map(|&v| v.into())));
        let what = format!(
            "{what}: {beyond} of {} values, the worst ({}) at {:?}",
            expected.len(),
            worst.1,
            place_in(expected.shape(), worst.0)
        );
        self.miss(what, &expected_value, &found_value);
    }

    /// Arrays of labels of one shape, of which a share may differ.
    pub fn labels<A, S, R, D>(
        &mut self,
        what: impl Display,
        expected: &ArrayBase<S, D>,
        found: &ArrayBase<R, D>,
        share: f64,
    ) where
        A: Copy + PartialEq + Debug,
        S: Data<Elem = A>,
        R: Data<Elem = A>,
        D: Dimension,
    {
        if expected.shape() != found.shape() {
            self.miss(format!("{what}: shape"), expected.shape(), found.shape());
            return;
        }
        let differing = expected.iter().zip(found).enumerate().filter(|(_, (expected, found))| expected != found);
        let differing: Vec<(usize, (&A, &A))> = differing.collect();
        let value = differing.len() as f64 / expected.len().max(1) as f64;
        if !self.weigh(Deviation { value, tolerance: share, unit: "of all voxels" }) {
            return;
        }
        if let Some((place, (expected_label, found_label))) = differing.first() {
            let place = place_in(expected.shape(), *place);
            let what = format!("{what}: {} of {} voxels, the first at {place:?}", differing.len(), expected.len());
            self.miss(what, expected_label, found_label);
        }
    }

    /// Takes a deviation; tells whether it is too large.
    fn weigh(&mut self, deviation: Deviation) -> bool {
        if deviation.outweighs(&self.worst) {
            self.worst = deviation;
        }
        deviation.value > deviation.tolerance
    }
}

impl Tolerance {
    /// The deviation of a value; `largest` is the largest of what is expected around it.
    fn between(self, expected: f64, found: f64, largest: f64) -> Deviation {
        let apart =
            if expected == found || (expected.is_nan() && found.is_nan()) { 0.0 } else { (expected - found).abs() };
        let apart = if apart.is_nan() { f64::INFINITY } else { apart };
        let (scale, tolerance, unit) = match self {
            Self::Absolute(tolerance) => (1.0, tolerance, "absolute"),
            Self::Relative(tolerance) => (expected.abs(), tolerance, "relative"),
            Self::OfLargest(tolerance) => (largest, tolerance, "of the largest value"),
            Self::OfLargestOr(share, floor) if share * largest >= floor => (largest, share, "of the largest value"),
            Self::OfLargestOr(_, floor) => (1.0, floor, "absolute"),
        };
        // Where nothing but 0 is expected there is nothing to be relative to.
        let value = if scale > 0.0 { apart / scale } else { apart };
        Deviation { value, tolerance, unit }
    }
}

/// JSON as it is written in files.
struct Plain<'a>(&'a Value);

impl Debug for Plain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self.0, formatter)
    }
}

/// The first place where two documents differ, with what each has there.
fn first_difference<'a>(
    place: String,
    expected: &'a Value,
    found: &'a Value,
) -> Option<(String, &'a Value, &'a Value)> {
    match (expected, found) {
        (Value::Object(e), Value::Object(f)) if e.keys().eq(f.keys()) => {
            e.iter().zip(f.values()).find_map(|((key, e), f)| first_difference(format!("{place}/{key}"), e, f))
        }
        (Value::Array(e), Value::Array(f)) if e.len() == f.len() => {
            let mut pairs = e.iter().zip(f).enumerate();
            pairs.find_map(|(index, (e, f))| first_difference(format!("{place}/{index}"), e, f))
        }
        _ => (expected != found).then_some((place, expected, found)),
    }
}

/// The index of the `place`-th value in C order.
fn place_in(shape: &[usize], mut place: usize) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&extent| {
            let position = place % extent.max(1);
            place /= extent.max(1);
            position
        })
        .collect();
    index.reverse();
    index
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use serde_json::json;

    use super::*;

    fn vector(compare: impl FnOnce(&mut Check)) -> Vector {
        Vector::of("vector", |check| {
            compare(check);
            Ok(())
        })
    }

    fn is_met(compare: impl FnOnce(&mut Check)) -> bool {
        vector(compare).verdict == Verdict::Met
    }

    #[test]
    fn a_value_at_the_limit_is_met_and_one_beyond_is_not() {
        let number = |found| is_met(|check| check.number("n", 2.0, found, Tolerance::Relative(0.25)));
        assert!(number(2.5) && number(1.5));
        assert!(!number(2.75));
    }

    #[test]
    fn what_is_not_a_number_is_met_only_by_its_like() {
        let number = |expected, found| is_met(|check| check.number("n", expected, found, Tolerance::Absolute(1.0)));
        assert!(number(f64::NAN, f64::NAN));
        assert!(!number(f64::NAN, 0.0) && !number(0.0, f64::NAN) && !number(0.0, f64::INFINITY));
    }

    #[test]
    fn the_worst_value_of_an_array_is_told_with_its_place() {
        let (expected, found) = (array![[1.0_f32, 2.0], [4.0, 8.0]], array![[1.0_f32, 2.5], [5.0, 8.0]]);
        let vector = vector(|check| check.array("image", &expected, &found, Tolerance::OfLargest(0.1)));
        let mismatch = Mismatch {
            what: "image: 1 of 4 values, the worst (1.2e-1 of 1e-1 of the largest value) at [1, 0]".to_owned(),
            expected: "4.0".to_owned(),
            found: "5.0".to_owned(),
        };
        assert_eq!(vector.verdict, Verdict::Missed(vec![mismatch]));
    }

    #[test]
    fn arrays_of_two_shapes_are_never_met() {
        assert!(!is_met(|check| check.labels("labels", &array![[1_i16, 2]], &array![[1_i16], [2]], 1.0)));
    }

    #[test]
    fn labels_may_differ_in_a_share_of_the_voxels() {
        let labels = |share| is_met(|check| check.labels("labels", &array![1, 2, 3, 4], &array![1, 2, 3, 5], share));
        assert!(labels(0.25) && !labels(0.2));
    }

    #[test]
    fn what_came_closest_to_its_limit_is_the_deviation_of_a_vector() {
        let vector = vector(|check| {
            check.number("far from its limit", 0.0, 0.5, Tolerance::Absolute(100.0));
            check.number("near to its limit", 0.0, 0.25, Tolerance::Absolute(0.5));
        });
        assert_eq!((vector.deviation.value, vector.deviation.tolerance), (0.25, 0.5));
    }

    #[test]
    fn the_first_difference_of_two_documents_is_told_with_its_place() {
        let (expected, found) = (json!([{"train": ["a", "b"]}]), json!([{"train": ["a", "c"]}]));
        let vector = vector(|check| check.documents("folds", &expected, &found));
        let mismatch = Mismatch {
            what: "folds, at `/0/train/1`".to_owned(),
            expected: "\"b\"".to_owned(),
            found: "\"c\"".to_owned(),
        };
        assert_eq!(vector.verdict, Verdict::Missed(vec![mismatch]));
    }

    #[test]
    fn a_panic_is_a_mismatch_of_its_vector() {
        let vector = Vector::of("vector", |_| panic!("out of range"));
        assert!(matches!(&vector.verdict, Verdict::Missed(missed) if missed[0].found == "a panic: out of range"));
    }
}
