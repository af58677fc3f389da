//! What was found out about all components, in words.

use std::fmt;

use crate::{Deviation, Problem, Vector, Verdict};

/// Differences of one vector that are printed; the rest is counted.
const MOST_MISMATCHES: usize = 5;

/// What was found out about a component.
#[derive(Debug)]
pub enum Outcome {
    /// Its vectors were compared.
    Compared(Vec<Vector>),
    /// It could not be compared.
    Failed(Problem),
    /// There is nothing yet to compare it with.
    LeftOut(&'static str),
}

/// What was found out about all components.
#[derive(Debug, Default)]
pub struct Report {
    components: Vec<(String, Outcome)>,
}

impl Report {
    pub(crate) fn add(&mut self, component: &str, compared: Result<Vec<Vector>, Problem>) {
        let outcome = compared.map_or_else(Outcome::Failed, Outcome::Compared);
        self.components.push((component.to_owned(), outcome));
    }

    pub(crate) fn leave_out(&mut self, component: &str, why: &'static str) {
        self.components.push((component.to_owned(), Outcome::LeftOut(why)));
    }

    /// The components, in the order in which they were compared.
    #[must_use]
    pub fn components(&self) -> &[(String, Outcome)] {
        &self.components
    }

    /// Whether every vector is met, and no component is missing.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.components.iter().all(|(_, outcome)| match outcome {
            Outcome::Compared(vectors) => n_met(vectors) == vectors.len(),
            Outcome::Failed(_) => false,
            Outcome::LeftOut(_) => true,
        })
    }
}

fn n_met(vectors: &[Vector]) -> usize {
    vectors.iter().filter(|vector| vector.verdict == Verdict::Met).count()
}

fn largest(vectors: &[Vector]) -> Deviation {
    let deviations = vectors.iter().map(|vector| vector.deviation);
    deviations.fold(Deviation::NONE, |worst, deviation| if deviation.outweighs(&worst) { deviation } else { worst })
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:<12} {:>7} {:>5}  largest deviation of what is allowed", "component", "vectors", "met")?;
        for (name, outcome) in &self.components {
            match outcome {
                Outcome::Compared(vectors) => {
                    let (met, largest) = (n_met(vectors), largest(vectors));
                    writeln!(formatter, "{name:<12} {:>7} {met:>5}  {largest}", vectors.len())?;
                    write_vectors(formatter, vectors)?;
                }
                Outcome::Failed(problem) => writeln!(formatter, "{name:<12} {:>7} {:>5}  FAILED: {problem}", 0, 0)?,
                Outcome::LeftOut(why) => writeln!(formatter, "{name:<12} not covered yet: {why}")?,
            }
        }
        write_total(formatter, self)
    }
}

fn write_vectors(formatter: &mut fmt::Formatter<'_>, vectors: &[Vector]) -> fmt::Result {
    for vector in vectors {
        if let Some(note) = &vector.note {
            writeln!(formatter, "  {}: {note}", vector.name)?;
        }
        let Verdict::Missed(mismatches) = &vector.verdict else { continue };
        for mismatch in mismatches.iter().take(MOST_MISMATCHES) {
            writeln!(formatter, "  NOT MET {}: {}", vector.name, mismatch.what)?;
            writeln!(formatter, "    expected {}", mismatch.expected)?;
            writeln!(formatter, "    found    {}", mismatch.found)?;
        }
        if let Some(more) = mismatches.len().checked_sub(MOST_MISMATCHES + 1) {
            writeln!(formatter, "  NOT MET {}: {} differences more", vector.name, more + 1)?;
        }
    }
    Ok(())
}

fn write_total(formatter: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let compared = report.components.iter().filter_map(|(_, outcome)| match outcome {
        Outcome::Compared(vectors) => Some((vectors.len(), n_met(vectors))),
        Outcome::Failed(_) | Outcome::LeftOut(_) => None,
    });
    let (all, met) = compared.fold((0, 0), |(all, met), (more, more_met)| (all + more, met + more_met));
    let verdict = if report.is_met() { "everything is met" } else { "NOT everything is met" };
    write!(formatter, "{verdict}: {met} of {all} vectors")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::Tolerance;

    #[test]
    fn a_report_tells_each_component_and_what_is_not_met() {
        let mut report = Report::default();
        let near = Vector::of("near", |check| {
            check.number("value", 1.0, 1.25, Tolerance::Relative(0.5));
            check.note("half of it could not be compared");
            Ok(())
        });
        let far = Vector::of("far", |check| {
            check.equal("fold", &[1, 2], &[2, 1]);
            Ok(())
        });
        report.add("infer", Ok(vec![near, far]));
        report.add("loss", Err(Problem::missing(PathBuf::from("golden/loss"))));
        report.leave_out("model", "weights cannot be read");
        let text = "\
component    vectors   met  largest deviation of what is allowed
infer              2     1  2.5e-1 of 5e-1 relative
  near: half of it could not be compared
  NOT MET far: fold
    expected [1, 2]
    found    [2, 1]
loss               0     0  FAILED: there are no vectors in `golden/loss`
model        not covered yet: weights cannot be read
NOT everything is met: 1 of 2 vectors";
        assert_eq!(report.to_string(), text);
        assert!(!report.is_met());
    }

    #[test]
    fn what_is_not_covered_yet_does_not_count() {
        let mut report = Report::default();
        report.add("splits", Ok(vec![Vector::of("splits.json[0]", |_| Ok(()))]));
        report.leave_out("model", "weights cannot be read");
        assert!(report.is_met());
    }
}
