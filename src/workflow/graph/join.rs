//! Joining: which nodes of a producer arrive at which node of a consumer.
//!
//! An axis that both have is matched, an axis that only the producer has is gathered, and a reference may pick. What does
//! not depend on the single node is worked out once for each reference, so that joining costs as much as there are edges.

use nnflow_stage::Axes;

use super::check::CheckedReference;
use crate::diagnostic::{Diagnostic, listed};
use crate::workflow::model::{Axis, StageDeclaration, Workflow};
use crate::workflow::reference::{ALL_VALUES, Pick};

/// A stage multiplied along its axes: node `first + Σ digit · stride` has the values at these digits.
#[derive(Debug)]
pub(super) struct Layout<'w> {
    pub(super) axes: Vec<&'w Axis>,
    pub(super) strides: Vec<usize>,
    pub(super) first: usize,
    pub(super) count: usize,
}

impl<'w> Layout<'w> {
    /// The layout of a stage whose nodes begin at `first`; nothing if there are too many to count.
    pub(super) fn new(workflow: &'w Workflow, stage: &StageDeclaration, first: usize) -> Option<Self> {
        let axes: Vec<&Axis> = stage.over.iter().filter_map(|name| workflow.axis(&name.value)).collect();
        let mut strides = vec![1; axes.len()];
        let mut count: usize = 1;
        for (axis, stride) in axes.iter().zip(&mut strides).rev() {
            *stride = count;
            count = count.checked_mul(axis.values.len())?;
        }
        Some(Self { axes, strides, first, count })
    }

    /// The position of the value on each axis of the node `number`, counted from the stage's first.
    pub(super) fn digits(&self, number: usize) -> Vec<usize> {
        let digit = |(axis, stride): (&&Axis, &usize)| number / stride % axis.values.len().max(1);
        self.axes.iter().zip(&self.strides).map(digit).collect()
    }

    fn position(&self, axis: &str) -> Option<usize> {
        self.axes.iter().position(|other| other.name == axis)
    }
}

/// Which values of one axis of the producer a consumer sees.
#[derive(Debug)]
enum Rule {
    /// The consumer's own value on the same axis, at this position in its `over`.
    Same(usize),
    /// These, whoever the consumer is.
    Fixed(Vec<usize>),
    /// Those that belong to the consumer's value on another axis, at this position in its `over`.
    /// A value that has no such is told.
    Depends(usize, Vec<Result<Vec<usize>, String>>),
}

/// How the nodes of a producer are joined to those of a consumer.
#[derive(Debug)]
pub(super) struct Join<'j, 'w> {
    producer: &'j Layout<'w>,
    rules: Vec<Rule>,
    reference: &'j CheckedReference<'w>,
}

impl<'j, 'w> Join<'j, 'w> {
    /// Works out the rules of a reference from `consumer` to `producer`.
    pub(super) fn new(reference: &'j CheckedReference<'w>, consumer: &Layout<'w>, producer: &'j Layout<'w>) -> Self {
        let rules = producer.axes.iter().map(|axis| {
            let picks = &reference.reference.picks;
            match picks.iter().find(|pick| pick.axis.value == axis.name) {
                Some(pick) => pick_rule(axis, pick, consumer),
                None => match consumer.position(&axis.name) {
                    Some(position) => Rule::Same(position),
                    None => Rule::Fixed((0..axis.values.len()).collect()),
                },
            }
        });
        Self { producer, rules: rules.collect(), reference }
    }

    /// The nodes that arrive at the consumer with these digits, each with its values on the axes not shared.
    ///
    /// # Errors
    /// If a value is picked that the axis does not have in this workflow.
    pub(super) fn producers(&self, consumer: &[usize]) -> Result<Vec<(usize, Axes)>, Diagnostic> {
        let mut found = vec![(self.producer.first, Axes::new())];
        for ((axis, stride), rule) in self.producer.axes.iter().zip(&self.producer.strides).zip(&self.rules) {
            let same;
            let (digits, told): (&[usize], bool) = match rule {
                Rule::Same(position) => {
                    same = [consumer[*position]];
                    (&same, false)
                }
                Rule::Fixed(digits) => (digits, true),
                Rule::Depends(position, digits) => match &digits[consumer[*position]] {
                    Ok(digits) => (digits, true),
                    Err(absent) => return Err(self.absent_value(axis, absent)),
                },
            };
            if digits.is_empty() && matches!(rule, Rule::Fixed(_)) && !axis.values.is_empty() {
                return Err(self.absent_value(axis, ""));
            }
            found = extended(&found, axis, *stride, digits, told);
        }
        Ok(found)
    }

    /// The axes along which several nodes may arrive at one consumer.
    pub(super) fn gathered(&self) -> Vec<&str> {
        let several = |rule: &Rule| match rule {
            Rule::Same(_) => false,
            Rule::Fixed(digits) => digits.len() > 1,
            Rule::Depends(_, digits) => digits.iter().flatten().any(|digits| digits.len() > 1),
        };
        let axes = self.producer.axes.iter().zip(&self.rules);
        axes.filter(|(_, rule)| several(rule)).map(|(axis, _)| axis.name.as_str()).collect()
    }

    /// The error that `axis` lacks the value `absent`, or if that is empty, the one that is picked.
    fn absent_value(&self, axis: &Axis, absent: &str) -> Diagnostic {
        let reference = &self.reference.reference;
        let Some(pick) = reference.picks.iter().find(|pick| pick.axis.value == axis.name) else {
            return Diagnostic::error(format!("axis `{}` has no values", axis.name))
                .at(&reference.place, "joined here");
        };
        let picked = &pick.value.value;
        let has = format!("has {}", listed(axis.values.iter().map(|value| value.name.as_str())));
        if absent.is_empty() {
            return Diagnostic::error(format!("axis `{}` lacks the value `{picked}` in this workflow", axis.name))
                .at(&pick.value.place, "picked here")
                .context(&axis.place, has)
                .hint(format!("add \"{picked}\" to `axes.{}`", axis.name));
        }
        Diagnostic::error(format!("axis `{}` lacks the value `{absent}`, which axis `{picked}` asks for", axis.name))
            .at(&pick.value.place, "picked here")
            .context(&axis.place, has)
    }
}

fn extended(found: &[(usize, Axes)], axis: &Axis, stride: usize, digits: &[usize], told: bool) -> Vec<(usize, Axes)> {
    let mut longer = Vec::with_capacity(found.len() * digits.len());
    for (node, axes) in found {
        for digit in digits {
            let mut axes = axes.clone();
            if told {
                axes.insert(axis.name.clone(), axis.values[*digit].name.clone());
            }
            longer.push((node + digit * stride, axes));
        }
    }
    longer
}

/// A value of the axis itself goes first, then an axis of the consumer.
fn pick_rule(axis: &Axis, pick: &Pick, consumer: &Layout<'_>) -> Rule {
    if pick.value.value == ALL_VALUES {
        return Rule::Fixed((0..axis.values.len()).collect());
    }
    let position_of = |name: &str| axis.values.iter().position(|value| value.name == name);
    if let Some(digit) = position_of(&pick.value.value) {
        return Rule::Fixed(vec![digit]);
    }
    let Some(position) = consumer.position(&pick.value.value) else { return Rule::Fixed(Vec::new()) };
    let digit = |name: &String| position_of(name).ok_or_else(|| name.clone());
    let digits = consumer.axes[position].values.iter().map(|value| {
        let own = std::slice::from_ref(&value.name);
        let names = if value.members.is_empty() { own } else { &value.members };
        names.iter().map(digit).collect()
    });
    Rule::Depends(position, digits.collect())
}
