//! Patterns that name nodes: `train`, `train[3d_fullres,*]`, `train[fold=0]`.

use std::fmt;

use super::read::is_name;

/// A pattern that names one or several nodes of one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePattern {
    /// The stage's name in the workflow.
    pub stage: String,
    /// What is asked of the values on the axes; nothing means all nodes.
    pub selectors: Vec<Selector>,
}

/// What is asked of the value on one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The axis; if absent, the one at this selector's position in `over`.
    pub axis: Option<String>,
    /// The value, in which `*` stands for any characters.
    pub value: String,
}

impl NodePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What was expected, as a phrase.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (stage, brackets) = match text.split_once('[') {
            Some((stage, rest)) => (stage, Some(rest.strip_suffix(']').ok_or("expected a closing `]` at the end")?)),
            None => (text, None),
        };
        if !is_name(stage) {
            return Err("expected the name of a stage");
        }
        let selectors = brackets.map_or(Ok(Vec::new()), |inner| inner.split(',').map(Selector::parse).collect())?;
        Ok(Self { stage: stage.to_owned(), selectors })
    }
}

impl Selector {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (axis, value) = match text.split_once('=') {
            Some((axis, value)) => (Some(axis.trim()), value.trim()),
            None => (None, text.trim()),
        };
        let allowed = |character: char| character.is_ascii_alphanumeric() || "_-.+*".contains(character);
        if value.is_empty() || !value.chars().all(allowed) || axis.is_some_and(|axis| !is_name(axis)) {
            return Err("expected values such as `3d_fullres`, `*` or `fold=0` in the brackets");
        }
        Ok(Self { axis: axis.map(str::to_owned), value: value.to_owned() })
    }

    /// Whether a value is one that the selector asks for.
    #[must_use]
    pub fn takes(&self, value: &str) -> bool {
        wildcard_match(&self.value, value)
    }
}

/// Whether `text` is `pattern` with every `*` replaced by some characters.
fn wildcard_match(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

impl fmt::Display for NodePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.stage)?;
        if self.selectors.is_empty() {
            return Ok(());
        }
        let selectors: Vec<_> = self.selectors.iter().map(ToString::to_string).collect();
        write!(formatter, "[{}]", selectors.join(","))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.axis {
            Some(axis) => write!(formatter, "{axis}={}", self.value),
            None => formatter.write_str(&self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "3d_fullres", true),
            ("3d_*", "3d_fullres", true),
            ("3d_*", "2d", false),
            ("*res", "3d_fullres", true),
            ("3d*f*res", "3d_fullres", true),
            ("a*a", "a", false),
            ("2d", "2d+3d", false),
        ] {
            assert_eq!(wildcard_match(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_are_written_as_they_are_read() {
        for text in ["train", "train[3d_fullres,*]", "train[fold=0]", "ensemble[2d+3d_fullres]"] {
            assert_eq!(NodePattern::parse(text).map(|pattern| pattern.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "[2d]", "train[", "train[]", "train[a,]", "train[a]b", "tra in", "train[fo ld=0]"] {
            assert!(NodePattern::parse(text).is_err(), "{text}");
        }
    }
}
