//! What is measured of networks: each row of their tables is one entry here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::programs::run;
use super::rows::{ArgOf, Group, PREPARED, Place, Results, Row, Subjects, WORKFLOW, in_folders, lay_out, with};
use crate::error::Error;

/// Cases that are predicted.
const IMAGES: usize = 12;

/// The channels and labels of the first dataset, real or not.
const CHANNELS_AND_OUTPUTS: [&str; 2] = ["1", "3"];

const PREDICTIONS: Option<Results> =
    Some(Results { comparison: "predictions", theirs: |place| place.folder.join("theirs"), node: None, ours: "ours" });

/// A part of a network that both programs time themselves.
macro_rules! step {
    ($name:literal, $what:literal, $configuration:literal, $count:literal) => {
        Row {
            name: $name,
            nnunet: Some(|place| {
                let script = place.programs.script("steps.py").arg_of($what);
                in_folders(script.arg_of(place.preprocessed()), &place.shared).arg_of($configuration).arg_of($count)
            }),
            nnflow: |place| place.our_step($what, $configuration, $count),
            results: None,
        }
    };
}

/// All that is measured.
pub(crate) static NETWORKS: [Group; 4] = [
    Group {
        name: "augmentation",
        title: "Augmentation of a patch with one channel, in one thread",
        subjects: Subjects::Patches,
        begin: |_| Ok(()),
        rows: &[Row {
            name: "one of 100 patches",
            nnunet: Some(|place| place.programs.script("augment.py").arg_of(&place.subject.name).arg_of("100")),
            nnflow: |place| place.programs.example("augment").arg_of(&place.subject.name).arg_of("100"),
            results: None,
        }],
    },
    Group {
        name: "steps",
        title: "The network by itself, on noise",
        subjects: Subjects::OneDataset,
        begin,
        rows: &[
            step!("training step, 2d", "train", "2d", "3"),
            step!("training step, 3d_fullres", "train", "3d_fullres", "5"),
            Row {
                name: "augmentation of a batch by the device, 3d_fullres",
                nnunet: None,
                nnflow: |place| place.our_step("augment", "3d_fullres", "20"),
                results: None,
            },
            step!("sliding window with mirroring, 2d", "predict", "2d", "3"),
            step!("sliding window with mirroring, 3d_fullres", "predict", "3d_fullres", "3"),
        ],
    },
    Group {
        name: "training",
        title: "Two epochs of five batches, from preprocessed cases to a model",
        subjects: Subjects::OneDataset,
        begin,
        rows: &[Row {
            name: "3d_fullres",
            nnunet: Some(|place| place.their_script("train.py").arg_of("3d_fullres")),
            nnflow: train,
            results: None,
        }],
    },
    Group {
        name: "prediction",
        title: "From twelve images to label images, with one model",
        subjects: Subjects::OneDataset,
        begin,
        rows: &[
            Row {
                name: "2d, mirrored",
                nnunet: Some(|place| place.their_prediction("2d")),
                nnflow: |place| place.our_prediction("2d"),
                results: PREDICTIONS,
            },
            Row {
                name: "3d_fullres, mirrored",
                nnunet: Some(|place| place.their_prediction("3d_fullres")),
                nnflow: |place| place.our_prediction("3d_fullres"),
                results: PREDICTIONS,
            },
            Row {
                name: "3d_fullres, not mirrored",
                nnunet: Some(|place| with(place.their_prediction("3d_fullres"), ["--disable_tta"])),
                nnflow: |place| {
                    with(place.our_prediction("3d_fullres"), ["--set", "stages.predict.with.mirroring=false"])
                },
                results: PREDICTIONS,
            },
        ],
    },
];

fn train(place: &Place<'_>) -> Command {
    let node = "train[3d_fullres,0]";
    let mut command = with(place.programs.nnflow(), ["run", "--until", node, "--force", node]);
    for setting in ["epochs=2", "batches_per_epoch=5", "validation_batches=2"] {
        command.arg("--set").arg(format!("stages.train.with.{setting}"));
    }
    command.arg_of(place.shared.join(WORKFLOW))
}

impl Place<'_> {
    /// The dataset's folder among those that nnU-Net has preprocessed.
    fn preprocessed(&self) -> PathBuf {
        self.shared.join(PREPARED).join(&self.subject.name)
    }

    /// nnU-Net's plans, which both programs follow.
    fn planned(&self) -> PathBuf {
        self.preprocessed().join("nnUNetPlans.json")
    }

    fn our_step(&self, what: &str, configuration: &str, count: &str) -> Command {
        let example = self.programs.example("steps").arg_of(what).arg_of(self.planned()).arg_of(configuration);
        with(example, CHANNELS_AND_OUTPUTS).arg_of(count)
    }

    fn their_script(&self, name: &str) -> Command {
        in_folders(self.programs.script(name), &self.shared).arg_of(self.preprocessed())
    }

    fn model(&self, configuration: &str) -> PathBuf {
        self.shared.join(format!("model-{configuration}"))
    }

    fn images(&self) -> PathBuf {
        self.shared.join("images")
    }

    fn their_prediction(&self, configuration: &str) -> Command {
        let command = in_folders(self.programs.nnunet("nnUNetv2_predict_from_modelfolder"), &self.shared);
        let command = command.arg_of("-i").arg_of(self.images()).arg_of("-o").arg_of(self.folder.join("theirs"));
        let (workers, device) = (self.programs.workers.to_string(), self.programs.device());
        let command = command.arg_of("-m").arg_of(self.model(configuration));
        with(command, ["-f", "0", "-device", device, "-npp", &workers, "-nps", &workers])
    }

    fn our_prediction(&self, configuration: &str) -> Command {
        let command = with(self.programs.nnflow(), ["predict"]).arg_of(self.model(configuration));
        command.arg_of(self.images()).arg_of(self.folder.join("ours"))
    }
}

/// What all rows start from, once: preprocessed cases of both programs, models, and images without labels.
fn begin(place: &Place<'_>) -> Result<(), Error> {
    if place.images().exists() {
        return Ok(());
    }
    lay_out(place.subject, &place.shared)?;
    let workers = place.programs.workers.to_string();
    let prepare = in_folders(place.programs.nnunet("nnUNetv2_plan_and_preprocess"), &place.shared);
    let prepare = with(prepare, ["-d", place.subject.number(), "-npfp", &workers, "-c", "2d", "3d_fullres"]);
    run(&mut with(prepare, ["-np", &workers, &workers]))?;
    let workflow = place.shared.join(WORKFLOW);
    run(&mut with(place.programs.nnflow(), ["run", "--until", "resample"]).arg_of(workflow))?;
    for configuration in ["2d", "3d_fullres"] {
        run(&mut place.their_script("model.py").arg_of(configuration).arg_of(place.model(configuration)))?;
    }
    link_images(place)
}

fn link_images(place: &Place<'_>) -> Result<(), Error> {
    let (from, to) = (place.subject.folder.join("imagesTr"), place.images());
    fs::create_dir_all(&to).map_err(Error::io("make", &to))?;
    let entries = fs::read_dir(&from).map_err(Error::io("read", &from))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut images: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(Error::io("read", &from))?;
    images.sort();
    for image in images.iter().take(IMAGES) {
        let link = to.join(image.file_name().unwrap_or_default());
        symlink(image, &link).map_err(Error::io("make", &link))?;
    }
    Ok(())
}
