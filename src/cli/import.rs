//! `nnflow import`: turns a model of nnU-Net's into a bundle.

use std::path::{Path, PathBuf};

use nnflow_cache::{Artifact, FileEntry, hash_file};
use nnflow_nnunet::foreign::{self, ImportOptions, Imported};
use nnflow_nnunet::sources::SourceFile;

use super::outcome::{Exit, Failed, complain, print};
use crate::session::model_listing;

/// What `nnflow import` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArguments {
    /// The model: a folder of nnU-Net's results, of a dataset or of one configuration, or a zip that nnU-Net has exported.
    model: PathBuf,
    /// The bundle's folder, which must not exist yet.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// A configuration, such as `3d_fullres`; several are averaged. What nnU-Net chose, or the only one, by default.
    #[arg(long, value_name = "NAME")]
    configuration: Vec<String>,
    /// A fold, such as `0` or `all`; all that were trained by default.
    #[arg(long, value_name = "FOLD")]
    fold: Vec<String>,
    /// Which checkpoint of each fold.
    #[arg(long, value_parser = ["final", "best", "latest"], default_value = "final")]
    checkpoint: String,
    /// The trainer, where several have trained, such as `nnUNetTrainer`.
    #[arg(long)]
    trainer: Option<String>,
    /// The plans, where there are several, such as `nnUNetPlans`.
    #[arg(long)]
    plans: Option<String>,
    /// Leave out the postprocessing that nnU-Net found to help.
    #[arg(long)]
    no_postprocessing: bool,
}

/// Imports the model and tells what is in it.
pub(crate) fn import(arguments: &ImportArguments) -> Result<Exit, Failed> {
    let options = ImportOptions {
        configurations: arguments.configuration.clone(),
        folds: arguments.fold.clone(),
        checkpoint: arguments.checkpoint.clone(),
        trainer: arguments.trainer.clone(),
        plans: arguments.plans.clone(),
        postprocessing: !arguments.no_postprocessing,
    };
    let output = &arguments.output;
    let imported = foreign::import(&arguments.model, &options, output).map_err(|error| error.report())?;
    imported.notes.iter().for_each(|note| complain(&format!("note: {note}")));
    print(&describe(&imported));
    let digest = digest(output)?;
    let output = output.display();
    print(&format!("wrote bundle {digest} to {output}; next: nnflow predict {output} IMAGES RESULTS"));
    Ok(Exit::Done)
}

fn describe(imported: &Imported) -> String {
    let mut text = String::new();
    for network in &imported.networks {
        text.push_str(&format!("imported {network}\n"));
    }
    if let [_, _, ..] = imported.members.as_slice() {
        text.push_str(&format!("averaged: {}\n", imported.members.join(", ")));
    }
    match imported.steps {
        0 => text.push_str("no postprocessing"),
        1 => text.push_str("postprocessing of 1 step, as cross-validation found it to help"),
        steps => text.push_str(&format!("postprocessing of {steps} steps, as cross-validation found it to help")),
    }
    text
}

/// The digest that the bundle has as an artifact: the same for the same networks, wherever they lay.
fn digest(folder: &Path) -> Result<String, Failed> {
    let listing = model_listing(folder)?;
    let files = listing.documents.get("bundle").into_iter().flatten();
    let entry = |file: &SourceFile| {
        let (digest, bytes) = hash_file(&file.path)?;
        Ok::<_, Failed>(FileEntry { name: file.name.clone(), digest, bytes, incidental: false })
    };
    let artifact = Artifact::new(files.map(entry).collect::<Result<_, _>>()?);
    Ok(artifact.map_err(|error| Failed::input(error.to_string()))?.digest().short())
}
