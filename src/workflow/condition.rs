//! Conditions: when a stage runs, and when an input is connected.
//!
//! A condition over the axes is decided when the graph is built; one over what arrives at an input only while running, by
//! whoever answers for [`Facts`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nnflow_stage::Axes;

/// A condition over a node's values on the axes and over what arrives at its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `axis == 'value'`, or `axis in ['a', 'b']`.
    OneOf {
        /// The axis.
        axis: String,
        /// The values.
        values: Vec<String>,
    },
    /// `axis != 'value'`, or `axis not in ['a', 'b']`.
    NoneOf {
        /// The axis.
        axis: String,
        /// The values.
        values: Vec<String>,
    },
    /// `axis in input`: the node's value is named by the document that arrives at the input port. Of a derived axis, all
    /// members are.
    Named {
        /// The axis.
        axis: String,
        /// The input port.
        input: String,
    },
    /// `every input`: none of the producers that the input port gathers was skipped.
    Every {
        /// The input port.
        input: String,
    },
    /// `not …`.
    Not(Box<Condition>),
    /// `… and …`.
    All(Vec<Condition>),
    /// `… or …`.
    Any(Vec<Condition>),
}

/// What a condition asks of a run.
pub trait Facts {
    /// What can go wrong in finding out.
    type Error;

    /// Whether the document that arrived at the input port names `value`.
    ///
    /// # Errors
    /// If the document cannot be read.
    fn names(&self, input: &str, value: &str) -> Result<bool, Self::Error>;

    /// Whether none of the producers that the input port gathers was skipped.
    ///
    /// # Errors
    /// If that cannot be told.
    fn every(&self, input: &str) -> Result<bool, Self::Error>;
}

/// Whether a node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Run,
    /// It does not.
    Skip {
        /// Why, as a phrase: "`plan` does not name `3d_lowres`".
        reason: String,
    },
}

/// Members of the derived values that a node has, by axis; an axis that is not derived is absent.
pub type Members = BTreeMap<String, Vec<String>>;

impl Condition {
    /// Whether a node runs.
    ///
    /// What the axes decide is decided without asking for facts.
    ///
    /// # Errors
    /// Whatever `facts` cannot find out.
    pub fn verdict<F: Facts>(&self, axes: &Axes, members: &Members, facts: &F) -> Result<Verdict, F::Error> {
        let objection = Scope { axes, members, facts }.objection(self)?;
        Ok(objection.map_or(Verdict::Run, |reason| Verdict::Skip { reason }))
    }

    /// Whether it holds, as far as the axes decide.
    #[must_use]
    pub fn decided(&self, axes: &Axes) -> Option<bool> {
        match self {
            Self::OneOf { axis, values } => Some(axes.get(axis).is_some_and(|value| values.contains(value))),
            Self::NoneOf { axis, values } => Some(!axes.get(axis).is_some_and(|value| values.contains(value))),
            Self::Named { .. } | Self::Every { .. } => None,
            Self::Not(inner) => inner.decided(axes).map(|holds| !holds),
            Self::All(parts) => decided_by(false, parts, axes),
            Self::Any(parts) => decided_by(true, parts, axes),
        }
    }

    /// The input ports that must have arrived before the condition can be told.
    #[must_use]
    pub fn inputs(&self) -> BTreeSet<&str> {
        match self {
            Self::OneOf { .. } | Self::NoneOf { .. } => BTreeSet::new(),
            Self::Named { input, .. } | Self::Every { input } => BTreeSet::from([input.as_str()]),
            Self::Not(inner) => inner.inputs(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::inputs).collect(),
        }
    }
}

/// What several parts come to, if a single one that is `decisive` settles it.
fn decided_by(decisive: bool, parts: &[Condition], axes: &Axes) -> Option<bool> {
    let mut open = false;
    for part in parts {
        match part.decided(axes) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => open = true,
        }
    }
    if open { None } else { Some(!decisive) }
}

struct Scope<'a, F> {
    axes: &'a Axes,
    members: &'a Members,
    facts: &'a F,
}

impl<F: Facts> Scope<'_, F> {
    /// Why the condition does not hold; nothing if it does.
    fn objection(&self, condition: &Condition) -> Result<Option<String>, F::Error> {
        match condition {
            _ if condition.decided(self.axes) == Some(true) => Ok(None),
            Condition::OneOf { axis, .. } | Condition::NoneOf { axis, .. } => Ok(Some(self.value_phrase(axis))),
            Condition::Named { axis, input } => self.unnamed(axis, input),
            Condition::Every { input } => {
                let holds = self.facts.every(input)?;
                Ok((!holds).then(|| format!("a producer of `{input}` was skipped")))
            }
            Condition::Not(inner) => {
                let holds = self.objection(inner)?.is_none();
                Ok(holds.then(|| format!("`{inner}` holds")))
            }
            Condition::All(parts) => self.first_objection(parts),
            Condition::Any(parts) => self.all_objections(parts),
        }
    }

    fn value_phrase(&self, axis: &str) -> String {
        match self.axes.get(axis) {
            Some(value) => format!("`{axis}` is `{value}`"),
            None => format!("there is no `{axis}`"),
        }
    }

    fn unnamed(&self, axis: &str, input: &str) -> Result<Option<String>, F::Error> {
        let own: Vec<String> = self.axes.get(axis).cloned().into_iter().collect();
        let values = self.members.get(axis).unwrap_or(&own);
        for value in values {
            if !self.facts.names(input, value)? {
                return Ok(Some(format!("`{input}` does not name `{value}`")));
            }
        }
        Ok(None)
    }

    /// What the axes decide comes first, so that no fact is asked for in vain.
    fn first_objection(&self, parts: &[Condition]) -> Result<Option<String>, F::Error> {
        let (decided, open): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.decided(self.axes).is_some());
        for part in decided.into_iter().chain(open) {
            if let Some(reason) = self.objection(part)? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    fn all_objections(&self, parts: &[Condition]) -> Result<Option<String>, F::Error> {
        let mut reasons = Vec::with_capacity(parts.len());
        for part in parts {
            match self.objection(part)? {
                Some(reason) => reasons.push(reason),
                None => return Ok(None),
            }
        }
        Ok(Some(reasons.join(", and ")))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf { axis, values } => write_membership(formatter, axis, values, "==", "in"),
            Self::NoneOf { axis, values } => write_membership(formatter, axis, values, "!=", "not in"),
            Self::Named { axis, input } => write!(formatter, "{axis} in {input}"),
            Self::Every { input } => write!(formatter, "every {input}"),
            Self::Not(inner) => write!(formatter, "not ({inner})"),
            Self::All(parts) => write_joined(formatter, parts, " and "),
            Self::Any(parts) => write_joined(formatter, parts, " or "),
        }
    }
}

fn write_membership(
    formatter: &mut fmt::Formatter<'_>,
    axis: &str,
    values: &[String],
    one: &str,
    several: &str,
) -> fmt::Result {
    match values {
        [value] => write!(formatter, "{axis} {one} '{value}'"),
        _ => {
            let values: Vec<_> = values.iter().map(|value| format!("'{value}'")).collect();
            write!(formatter, "{axis} {several} [{}]", values.join(", "))
        }
    }
}

fn write_joined(formatter: &mut fmt::Formatter<'_>, parts: &[Condition], word: &str) -> fmt::Result {
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            formatter.write_str(word)?;
        }
        match part {
            Condition::All(_) | Condition::Any(_) => write!(formatter, "({part})")?,
            _ => write!(formatter, "{part}")?,
        }
    }
    Ok(())
}
