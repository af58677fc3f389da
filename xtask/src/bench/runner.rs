//! Runs the programs in turns.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::comparison::Agreement;
use super::cost::{Cost, measure};
use super::options::Options;
use super::programs::{Programs, run};
use super::rows::{Group, Place, Results, Row, Subjects};
use super::subject::{Subject, logits, patches};
use crate::error::Error;

/// A row of the tables with its figures.
pub(crate) struct Measured {
    /// The group's heading.
    pub(crate) title: &'static str,
    /// What was worked on.
    pub(crate) subject: String,
    /// The step.
    pub(crate) step: &'static str,
    /// Runs of nnU-Net; none where it does not take part.
    pub(crate) nnunet: Vec<Cost>,
    /// Runs of nnflow, in the same order.
    pub(crate) nnflow: Vec<Cost>,
    /// How far the results agree.
    pub(crate) agreement: Agreement,
}

/// Runs what is asked for.
pub(crate) struct Runner<'a> {
    programs: &'a Programs,
    options: &'a Options,
    scratch: PathBuf,
}

impl<'a> Runner<'a> {
    /// A runner that works in an empty folder.
    pub(crate) fn new(programs: &'a Programs, options: &'a Options, scratch: PathBuf) -> Self {
        Self { programs, options, scratch }
    }

    /// The groups on all subjects that are asked for.
    ///
    /// # Errors
    /// If a program fails, or the results cannot be compared.
    pub(crate) fn all(&self, groups: &[Group], datasets: &[Subject]) -> Result<Vec<Measured>, Error> {
        let mut measured = Vec::new();
        for group in groups {
            let subjects = match group.subjects {
                Subjects::Datasets => datasets.to_vec(),
                Subjects::OneDataset => datasets.iter().take(1).cloned().collect(),
                Subjects::Logits if self.options.wants(group.name, "") => logits(self.programs, &self.scratch)?,
                Subjects::Logits => Vec::new(),
                Subjects::Patches => patches(&self.scratch)?,
            };
            for subject in subjects.iter().filter(|subject| self.options.wants(group.name, &subject.name)) {
                subject.warm()?;
                measured.extend(self.group(group, subject)?);
            }
        }
        Ok(measured)
    }

    fn group(&self, group: &Group, subject: &Subject) -> Result<Vec<Measured>, Error> {
        let mut measured: Vec<_> = group.rows.iter().map(|row| Measured::new(group, subject, row)).collect();
        let folder = self.scratch.join(group.name).join(subject.name.replace([' ', ','], "-"));
        for pair in 0..self.options.pairs {
            let place = Place {
                programs: self.programs,
                subject,
                folder: folder.join(format!("pair-{pair}")),
                shared: folder.join("shared"),
            };
            fs::create_dir_all(&place.folder).map_err(Error::io("make", &place.folder))?;
            (group.begin)(&place)?;
            for (row, measured) in group.rows.iter().zip(&mut measured) {
                eprintln!("{}, {}, {} of {}", subject.name, row.name, pair + 1, self.options.pairs);
                if let (true, Some(command)) = (subject.for_both, row.nnunet) {
                    measured.nnunet.push(self.measure(command(&place), &place, "nnunet", row)?);
                }
                measured.nnflow.push(self.measure((row.nnflow)(&place), &place, "nnflow", row)?);
                if let (0, true, Some(results)) = (pair, subject.for_both, &row.results) {
                    measured.agreement = self.compare(results, &place)?;
                }
            }
            // The folder stays until all is measured: ext4 is slow at making files for minutes after others were removed.
        }
        Ok(measured)
    }

    fn measure(&self, mut command: Command, place: &Place<'_>, program: &str, row: &Row) -> Result<Cost, Error> {
        let log = self.scratch.join(format!("{program}-{}.log", row.name.replace(' ', "-")));
        command.current_dir(&place.folder);
        let cost = measure(&mut command, &log)?;
        eprintln!("  {program}: {:.2} s, {:.2} s CPU, {:.0} MiB", cost.wall, cost.cpu, cost.memory / 1_048_576.0);
        Ok(cost)
    }

    /// Holds the results of the first pair against each other; what both programs make does not change.
    fn compare(&self, results: &Results, place: &Place<'_>) -> Result<Agreement, Error> {
        if let Some(node) = results.node {
            let shown = place.folder.join("show");
            if shown.exists() {
                fs::remove_dir_all(&shown).map_err(Error::io("remove", &shown))?;
            }
            run(&mut place.show(node, &shown))?;
        }
        let mut compare = self.programs.script("compare.py");
        compare.arg(results.comparison).arg((results.theirs)(place)).arg(place.folder.join(results.ours));
        let agreement = Agreement::parse(&run(&mut compare)?).ok_or_else(|| Error::Bench {
            message: format!("comparing {} gave nothing to read", results.comparison),
            remedy: None,
        })?;
        eprintln!("  results: {agreement}");
        Ok(agreement)
    }
}

impl Measured {
    fn new(group: &Group, subject: &Subject, row: &Row) -> Self {
        Self {
            title: group.title,
            subject: subject.name.clone(),
            step: row.name,
            nnunet: Vec::new(),
            nnflow: Vec::new(),
            agreement: Agreement::default(),
        }
    }
}
