//! Why a plan is as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// For places in a plan one sentence each that says why they have their value, in the order of the plan.
///
/// A place is the keys that lead to it, joined by dots: `configurations.3d_fullres.patch_size`. A sentence holds for
/// everything inside its place that has none of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reasons(Map<String, Value>);

impl Reasons {
    /// The sentence for a place, or for the innermost one around it that has a sentence.
    #[must_use]
    pub fn why(&self, path: &str) -> Option<&str> {
        let outwards = std::iter::successors(Some(path), |path| path.rsplit_once('.').map(|(outer, _)| outer));
        outwards.filter_map(|path| self.0.get(path)).find_map(Value::as_str)
    }

    /// Places and sentences.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_str()?)))
    }

    /// Adds a sentence.
    pub(super) fn add(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.0.insert(path.into(), Value::String(text.into()));
    }
}

/// Extents as a person writes them: `40x56x40`.
pub(super) fn extents<T: std::fmt::Display>(values: &[T]) -> String {
    join(values, "x")
}

/// Distances in millimetres: `3 x 0.78 x 0.78 mm`, to a hundred-thousandth.
pub(super) fn millimetres(values: &[f64]) -> String {
    let rounded: Vec<f64> = values.iter().map(|value| (value * 1e5).round() / 1e5).collect();
    format!("{} mm", join(&rounded, " x "))
}

/// A large number with a unit of thousands: `560.0 M`.
pub(super) fn large(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{:.2} G", value / 1e9),
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e3 => format!("{:.1} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

/// Values in a row.
pub(super) fn join<T: std::fmt::Display>(values: &[T], separator: &str) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_a_sentence_has_that_of_the_place_around_it() {
        let mut reasons = Reasons::default();
        reasons.add("a", "outer");
        reasons.add("a.b", "inner");
        assert_eq!((reasons.why("a.b.0"), reasons.why("a.c"), reasons.why("b")), (Some("inner"), Some("outer"), None));
    }
}
