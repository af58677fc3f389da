//! What is measured: each row of the tables is one entry here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs::{Programs, named, run};
use super::subject::Subject;
use crate::error::Error;

/// Rows that belong together: they run in order, each on what the ones before it have left.
pub(crate) struct Group {
    /// The name for `--only`.
    pub(crate) name: &'static str,
    /// The heading in the tables.
    pub(crate) title: &'static str,
    /// What the rows are measured on.
    pub(crate) subjects: Subjects,
    /// Puts what both programs start from into an empty folder; not timed.
    pub(crate) begin: fn(&Place<'_>) -> Result<(), Error>,
    /// The rows.
    pub(crate) rows: &'static [Row],
}

/// What a group is measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subjects {
    /// Each dataset.
    Datasets,
    /// The first dataset: what is measured does not depend on it.
    OneDataset,
    /// The answers of networks.
    Logits,
    /// Patches of several sizes.
    Patches,
}

/// One step that both programs take.
pub(crate) struct Row {
    /// What it is, in the tables.
    pub(crate) name: &'static str,
    /// nnU-Net's command; none where it has nothing like it.
    pub(crate) nnunet: Option<fn(&Place<'_>) -> Command>,
    /// nnflow's command.
    pub(crate) nnflow: fn(&Place<'_>) -> Command,
    /// How the results are held against each other.
    pub(crate) results: Option<Results>,
}

/// Where results lie, relative to the place.
pub(crate) struct Results {
    /// What `compare.py` calls the comparison.
    pub(crate) comparison: &'static str,
    /// nnU-Net's file or folder.
    pub(crate) theirs: fn(&Place<'_>) -> PathBuf,
    /// The node whose artifacts are written to `show` before they are compared.
    pub(crate) node: Option<&'static str>,
    /// nnflow's file or folder.
    pub(crate) ours: &'static str,
}

/// The folder in which a group works on a subject, empty for each pair.
pub(crate) struct Place<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) subject: &'a Subject,
    pub(crate) folder: PathBuf,
    /// What all pairs share.
    pub(crate) shared: PathBuf,
}

pub(crate) const WORKFLOW: &str = "workflow.toml";
pub(crate) const PREPARED: &str = "preprocessed";

/// All that is measured.
pub(crate) static GROUPS: [Group; 5] = [
    Group {
        name: "start-up",
        title: "Start-up: the help of a command",
        subjects: Subjects::OneDataset,
        begin: |_| Ok(()),
        rows: &[Row {
            name: "print help",
            nnunet: Some(|place| with(place.nnunet("nnUNetv2_preprocess"), ["--help"])),
            nnflow: |place| with(place.programs.nnflow(), ["run", "--help"]),
            results: None,
        }],
    },
    Group {
        name: "at-once",
        title: "From images to preprocessed cases of 2d and 3d_fullres, in one command",
        subjects: Subjects::Datasets,
        begin: begin_workflow,
        rows: &[Row {
            name: "all",
            nnunet: Some(|place| {
                let workers = place.workers();
                let command = place.nnunet_on("nnUNetv2_plan_and_preprocess");
                with(command, ["-npfp", &workers, "-c", "2d", "3d_fullres", "-np", &workers, &workers])
            }),
            nnflow: |place| place.run_until("resample"),
            results: PREPROCESSED_3D,
        }],
    },
    Group {
        name: "step-by-step",
        title: "The same, step by step",
        subjects: Subjects::Datasets,
        begin: begin_workflow,
        rows: &[
            Row {
                name: "fingerprint",
                nnunet: Some(|place| with(place.nnunet_on("nnUNetv2_extract_fingerprint"), ["-np", &place.workers()])),
                nnflow: |place| place.run_until("fingerprint"),
                results: Some(Results {
                    comparison: "fingerprint",
                    theirs: |place| place.their_dataset().join("dataset_fingerprint.json"),
                    node: Some("fingerprint"),
                    ours: "show/fingerprint/dataset_fingerprint.json",
                }),
            },
            Row {
                name: "plan",
                nnunet: Some(|place| place.nnunet_on("nnUNetv2_plan_experiment")),
                nnflow: |place| place.run_until("plan"),
                results: Some(Results {
                    comparison: "plans",
                    theirs: |place| place.their_dataset().join("nnUNetPlans.json"),
                    node: Some("plan"),
                    ours: "show/plans.json",
                }),
            },
            Row {
                name: "preprocess 2d",
                nnunet: Some(|place| place.nnunet_preprocess("2d")),
                nnflow: |place| place.run_until("resample[2d]"),
                results: Some(Results {
                    comparison: "preprocessed",
                    theirs: |place| place.their_dataset().join("nnUNetPlans_2d"),
                    node: Some("resample[2d]"),
                    ours: "show",
                }),
            },
            Row {
                name: "preprocess 3d_fullres",
                nnunet: Some(|place| place.nnunet_preprocess("3d_fullres")),
                nnflow: |place| place.run_until("resample[3d_fullres]"),
                results: PREPROCESSED_3D,
            },
        ],
    },
    Group {
        name: "label-images",
        title: "A folder of label images",
        subjects: Subjects::Datasets,
        begin: begin_label_images,
        rows: &[
            Row {
                name: "evaluate",
                nnunet: Some(nnunet_evaluate),
                nnflow: |place| {
                    // What nnU-Net measures, and no more.
                    with(place.stage("evaluate", &["labels"]), ["--with", "surfaces=false", "--with", "resamples=0"])
                },
                results: SUMMARY,
            },
            Row {
                name: "evaluate with surfaces and intervals",
                nnunet: None,
                nnflow: |place| place.stage("evaluate", &["labels"]),
                results: SUMMARY,
            },
            Row {
                name: "determine and apply postprocessing",
                nnunet: Some(|place| {
                    let mut command = place.nnunet("nnUNetv2_determine_postprocessing");
                    command.arg("-i").arg(place.theirs()).arg("-ref").arg(place.references());
                    command.arg("-dataset_json").arg(place.description()).arg("-plans_json").arg(place.plans());
                    with(command, ["-np", &place.workers()])
                }),
                nnflow: |place| place.stage("postprocess", &["labels", "examples"]),
                results: Some(Results {
                    comparison: "postprocessing",
                    theirs: |place| place.theirs(),
                    node: None,
                    ours: "postprocess",
                }),
            },
        ],
    },
    Group {
        name: "export",
        title: "From a network's answer to a label image",
        subjects: Subjects::Logits,
        begin: |_| Ok(()),
        rows: &[Row {
            name: "export",
            nnunet: Some(|place| {
                let command = place.programs.script("export.py");
                command.arg_of(&place.subject.folder).arg_of(place.folder.join("theirs"))
            }),
            nnflow: |place| place.export(),
            results: Some(Results {
                comparison: "labels",
                theirs: |place| place.folder.join("theirs.nii.gz"),
                node: None,
                ours: "export/labels/case/labels.nii.gz",
            }),
        }],
    },
];

const PREPROCESSED_3D: Option<Results> = Some(Results {
    comparison: "preprocessed",
    theirs: |place| place.their_dataset().join("nnUNetPlans_3d_fullres"),
    node: Some("resample[3d_fullres]"),
    ours: "show",
});

const SUMMARY: Option<Results> = Some(Results {
    comparison: "summary",
    theirs: |place| place.folder.join("summary.json"),
    node: None,
    ours: "evaluate/summary/summary.json",
});

fn nnunet_evaluate(place: &Place<'_>) -> Command {
    let mut command = place.nnunet("nnUNetv2_evaluate_folder");
    command.arg(place.references()).arg(place.predictions());
    command.arg("-djfile").arg(place.description()).arg("-pfile").arg(place.plans());
    with(command, ["-np", &place.workers(), "-o"]).arg_of(place.folder.join("summary.json"))
}

impl Place<'_> {
    /// nnU-Net's program, with its folders.
    fn nnunet(&self, name: &str) -> Command {
        in_folders(self.programs.nnunet(name), &self.folder)
    }

    fn nnunet_on(&self, name: &str) -> Command {
        with(self.nnunet(name), ["-d", self.subject.number()])
    }

    fn nnunet_preprocess(&self, configuration: &str) -> Command {
        with(self.nnunet_on("nnUNetv2_preprocess"), ["-c", configuration, "-np", &self.workers()])
    }

    fn their_dataset(&self) -> PathBuf {
        self.folder.join(PREPARED).join(&self.subject.name)
    }

    fn workers(&self) -> String {
        self.programs.workers.to_string()
    }

    fn run_until(&self, node: &str) -> Command {
        with(self.programs.nnflow(), ["run", "--until", node]).arg_of(self.folder.join(WORKFLOW))
    }

    /// Writes what a node has made to a folder, and gives the command for that.
    pub(crate) fn show(&self, node: &str, folder: &Path) -> Command {
        let command = with(self.programs.nnflow(), ["show", node, "--workflow"]);
        command.arg_of(self.folder.join(WORKFLOW)).arg_of("--output").arg_of(folder)
    }

    /// A stage that judges the predictions, which arrive at some of its ports.
    fn stage(&self, stage: &str, ports: &[&str]) -> Command {
        let mut command = with(self.programs.nnflow(), ["stage", "run", stage]);
        for port in ports {
            command.arg("--input").arg(named(port, &self.predictions()));
        }
        command.arg("--input").arg(named("references", &self.references()));
        command.arg("--input").arg(named("description", &self.description()));
        command.arg_of("--output").arg_of(self.folder.join(stage))
    }

    fn export(&self) -> Command {
        let mut command = with(self.programs.nnflow(), ["stage", "run", "export"]);
        for (port, file) in
            [("logits", "logits"), ("cases", "cases"), ("plan", "plan"), ("description", "dataset.json")]
        {
            command.arg("--input").arg(named(port, &self.subject.folder.join(file)));
        }
        with(command, ["--axis", "configuration=3d_fullres"]).arg_of("--output").arg_of(self.folder.join("export"))
    }

    fn references(&self) -> PathBuf {
        self.subject.folder.join("labelsTr")
    }

    fn description(&self) -> PathBuf {
        self.subject.folder.join("dataset.json")
    }

    /// The plans that nnU-Net asks for: nnflow's, which it reads as its own.
    fn plans(&self) -> PathBuf {
        self.shared.join("plan/plans.json")
    }

    fn predictions(&self) -> PathBuf {
        self.shared.join("predictions")
    }

    /// The predictions as nnU-Net gets them: it writes into their folder.
    fn theirs(&self) -> PathBuf {
        self.folder.join("predictions")
    }
}

/// nnU-Net's folders, and a workflow.
fn begin_workflow(place: &Place<'_>) -> Result<(), Error> {
    lay_out(place.subject, &place.folder)
}

/// nnU-Net's folder of raw data, and a workflow, within a folder.
pub(crate) fn lay_out(subject: &Subject, folder: &Path) -> Result<(), Error> {
    let raw = folder.join("raw");
    fs::create_dir_all(&raw).map_err(Error::io("make", &raw))?;
    let link = raw.join(&subject.name);
    symlink(&subject.folder, &link).map_err(Error::io("make", &link))?;
    let path = folder.join(WORKFLOW);
    let text = format!(
        "# For a benchmark.\nname = \"benchmark\"\nextends = \"nnunet-v2\"\n[dataset]\npath = '{}'\n[axes]\nconfiguration = [\"2d\", \"3d_fullres\"]\n",
        subject.folder.display()
    );
    fs::write(&path, text).map_err(Error::io("write", &path))
}

/// Predictions, once for all pairs, and a copy of them for nnU-Net.
fn begin_label_images(place: &Place<'_>) -> Result<(), Error> {
    begin_workflow(place)?;
    if !place.plans().exists() {
        run(&mut place.run_until("plan"))?;
        run(&mut place.show("plan", &place.shared.join("plan")))?;
        run(place.programs.script("predictions.py").arg(place.references()).arg(place.predictions()))?;
    }
    let (from, to) = (place.predictions(), place.theirs());
    fs::create_dir_all(&to).map_err(Error::io("make", &to))?;
    for entry in fs::read_dir(&from).map_err(Error::io("read", &from))? {
        let entry = entry.map_err(Error::io("read", &from))?;
        fs::copy(entry.path(), to.join(entry.file_name())).map_err(Error::io("copy", entry.path()))?;
    }
    Ok(())
}

/// A program with nnU-Net's folders within another one.
pub(crate) fn in_folders(mut command: Command, folder: &Path) -> Command {
    for (variable, name) in [("nnUNet_raw", "raw"), ("nnUNet_preprocessed", PREPARED), ("nnUNet_results", "out")] {
        command.env(variable, folder.join(name));
    }
    command
}

pub(crate) fn with<const N: usize>(mut command: Command, arguments: [&str; N]) -> Command {
    command.args(arguments);
    command
}

/// An argument added to a command that is passed on.
pub(crate) trait ArgOf {
    fn arg_of(self, argument: impl AsRef<std::ffi::OsStr>) -> Self;
}

impl ArgOf for Command {
    fn arg_of(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.arg(argument);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::network_rows::NETWORKS;
    use super::*;

    #[test]
    fn groups_have_different_names() {
        let all = || GROUPS.iter().chain(&NETWORKS);
        let names: std::collections::BTreeSet<_> = all().map(|group| group.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn only_what_nothing_comes_of_is_not_compared() {
        let silent: Vec<_> = GROUPS.iter().flat_map(|group| group.rows).filter(|row| row.results.is_none()).collect();
        assert_eq!(silent.iter().map(|row| row.name).collect::<Vec<_>>(), ["print help"]);
    }
}
