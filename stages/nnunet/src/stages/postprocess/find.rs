//! How rules are found.

use std::collections::BTreeSet;

use nnflow_kernels::metrics::{Confusion, Counts};
use nnflow_kernels::statistics::mean_of_numbers;
use nnflow_stage::{Artifact, StageError};

use super::examples::{Cases, Example, Files};
use super::label_map::Superfluous;
use super::rules::{Rules, Step, apply_all};
use crate::locations::LocationTarget as Target;
use crate::stages::evaluate::measures::{Means, Targets};

/// The rules that raise the Dice of cross-validation: nnU-Net 2.8.1 `determine_postprocessing`.
pub(crate) fn validated(cases: &Cases<'_, Files<'_>>, targets: &Targets) -> Result<Rules, StageError> {
    let (before, with_union) = try_union(cases, targets)?;
    let mut steps = Vec::new();
    if helps_all(&before, &with_union) {
        steps.push(Step::keep_largest(&foreground(targets)));
    }
    if targets.targets.len() > 1 {
        for group in disjoint_groups(&targets.targets) {
            let gains = try_each(cases, targets.ignore, &group, &steps)?;
            let helping = group.iter().zip(gains).filter(|(_, gain)| gain.after > gain.before);
            steps.extend(helping.map(|(target, _)| Step::keep_largest(&target.labels)));
        }
    }
    let after = if steps.is_empty() { before.clone() } else { means_with(cases, targets, &steps)? };
    Ok(Rules::proven(steps, before, after))
}

/// A rule for each target that is one component in every reference: arXiv:1809.10486.
pub(crate) fn always_single(cases: &Cases<'_, &Artifact>, targets: &Targets) -> Result<Rules, StageError> {
    let single = cases.each("components of the references", |map| {
        let is_single = |target: &Target| map.components(&target.labels) == 1;
        targets.targets.iter().map(is_single).collect::<Vec<bool>>()
    })?;
    let everywhere = targets.targets.iter().enumerate().filter(|(index, _)| single.iter().all(|case| case[*index]));
    Ok(Rules::unproven(everywhere.map(|(_, target)| Step::keep_largest(&target.labels)).collect()))
}

/// All foreground labels, ascending.
fn foreground(targets: &Targets) -> Vec<i16> {
    let labels: BTreeSet<i16> = targets.targets.iter().flat_map(|target| &target.labels).copied().collect();
    labels.into_iter().collect()
}

/// The means without any rule, and with that of the union of all foreground labels.
fn try_union(cases: &Cases<'_, Files<'_>>, targets: &Targets) -> Result<(Means, Means), StageError> {
    let union = foreground(targets);
    let measured = cases.each("all foreground", |mut example| {
        let before = example.confusion(targets.ignore)?;
        let changed = example.map.keep_largest(&union);
        let after =
            if changed { targets.measure(&example.confusion(targets.ignore)?) } else { targets.measure(&before) };
        Ok((targets.measure(&before), after))
    })?;
    let before = Means::over(measured.iter().map(|(before, _)| before));
    Ok((before, Means::over(measured.iter().map(|(_, after)| after))))
}

/// Whether the mean foreground Dice rises and that of no target falls; never where one of them is NaN.
fn helps_all(before: &Means, after: &Means) -> bool {
    let falls = |(name, mean): (&String, _)| before.mean.get(name).is_some_and(|old| dice(mean) < dice(old));
    dice(&after.foreground_mean) > dice(&before.foreground_mean) && !after.mean.iter().any(falls)
}

fn dice(mean: &nnflow_io::summary::MeanMetrics) -> f64 {
    mean.dice
}

/// The mean Dice of a target without and with its rule.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Gain {
    before: f64,
    after: f64,
}

/// What the rule of each target of a group would gain on top of the rules that are taken already.
///
/// The targets share no label, so that taking one rule changes nothing for the others: one look at each case decides on
/// all of them.
fn try_each(
    cases: &Cases<'_, Files<'_>>,
    ignore: Option<i16>,
    group: &[&Target],
    taken: &[Step],
) -> Result<Vec<Gain>, StageError> {
    let gains = cases.each("single labels", |mut example| {
        apply_all(taken, &mut example.map);
        let confusion = example.confusion(ignore)?;
        Ok(group.iter().map(|target| gain(&example, &confusion, target, ignore)).collect::<Vec<Gain>>())
    })?;
    let mean = |index: usize| Gain {
        before: mean_of_numbers(gains.iter().map(|case| case[index].before)),
        after: mean_of_numbers(gains.iter().map(|case| case[index].after)),
    };
    Ok((0..group.len()).map(mean).collect())
}

/// What the rule of a target gains in one case; only the voxels that it removes are counted anew.
fn gain(example: &Example, confusion: &Confusion, target: &Target, ignore: Option<i16>) -> Gain {
    let before = confusion.counts(&target.labels);
    let after = match example.map.superfluous(&target.labels) {
        Some(superfluous) => without(before, &superfluous, example, target, ignore),
        None => before,
    };
    Gain { before: before.dice(), after: after.dice() }
}

fn without(
    mut counts: Counts,
    superfluous: &Superfluous,
    example: &Example,
    target: &Target,
    ignore: Option<i16>,
) -> Counts {
    for reference in superfluous.of(example.reference()).filter(|reference| Some(*reference) != ignore) {
        if target.labels.contains(&reference) {
            counts.tp -= 1;
            counts.fn_ += 1;
        } else {
            counts.fp -= 1;
            counts.tn += 1;
        }
    }
    counts
}

/// Targets in their order, cut where one shares a label with another of its group.
fn disjoint_groups(targets: &[Target]) -> Vec<Vec<&Target>> {
    let mut groups: Vec<Vec<&Target>> = Vec::new();
    for target in targets {
        let shares = |other: &&Target| other.labels.iter().any(|label| target.labels.contains(label));
        match groups.last_mut().filter(|group| !group.iter().any(shares)) {
            Some(group) => group.push(target),
            None => groups.push(vec![target]),
        }
    }
    groups
}

fn means_with(cases: &Cases<'_, Files<'_>>, targets: &Targets, steps: &[Step]) -> Result<Means, StageError> {
    let measured = cases.each("all rules", |mut example| {
        apply_all(steps, &mut example.map);
        Ok(targets.measure(&example.confusion(targets.ignore)?))
    })?;
    Ok(Means::over(&measured))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(labels: &[i16]) -> Target {
        Target { name: format!("{labels:?}"), labels: labels.to_vec() }
    }

    #[test]
    fn labels_are_all_tried_at_once() {
        let targets = [target(&[1]), target(&[2]), target(&[3])];
        assert_eq!(disjoint_groups(&targets).len(), 1);
    }

    #[test]
    fn nested_regions_are_tried_one_after_the_other() {
        let targets = [target(&[1, 2, 3]), target(&[2, 3]), target(&[3])];
        assert_eq!(disjoint_groups(&targets).len(), 3);
    }

    #[test]
    fn the_foreground_has_each_label_once() {
        let targets = Targets { targets: vec![target(&[1, 2, 3]), target(&[2, 3])], ignore: Some(4) };
        assert_eq!(foreground(&targets), [1, 2, 3]);
    }
}
