//! `nnflow predict`: segments new images with a trained model.

use std::path::{Path, PathBuf};

use nnflow_nnunet::foreign::ImportOptions;

use super::inspect::write_artifact;
use super::machine::MachineArguments;
use super::outcome::{Exit, Failed, print};
use super::run::{RunOptions, run_session};
use crate::engine::state::{Port, Slot};
use crate::session::{OpenOptions, Session, bundle_folder, prediction_recipe};

/// The folder, within the output's, that holds work under way.
const WORK_FOLDER: &str = ".nnflow";

/// What `nnflow predict` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct PredictArguments {
    /// The model: a bundle's folder, a workflow that has run, or a model of nnU-Net's, as a folder or as a zip.
    model: PathBuf,
    /// The folder of images, named as those that the model was trained on: `CASE_0000.nii.gz`.
    input: PathBuf,
    /// The folder that takes the label images.
    output: PathBuf,
    /// Change a value, as `stages.predict.with.mirroring=false`; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// A fold whose network takes part, such as `0` or `all`; may be given several times. All by default.
    #[arg(long, value_name = "FOLD")]
    fold: Vec<String>,
    /// Which checkpoint of each fold, of a model of nnU-Net's.
    #[arg(long, value_parser = ["final", "best", "latest"], default_value = "final")]
    checkpoint: String,
    /// Also write the class probabilities of each case.
    #[arg(long)]
    probabilities: bool,
    /// Keep the folder of intermediate results, so that predicting the same images again is instant.
    #[arg(long)]
    keep_work: bool,
    /// Print nothing but errors.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    machine: MachineArguments,
}

/// Runs the recipe `predict` over a folder of images and writes one label image a case.
///
/// What was done is kept until all is done, so that an interrupted prediction goes on where it was.
pub(crate) fn predict(arguments: &PredictArguments) -> Result<Exit, Failed> {
    let absolute = |path: &Path, what: &str| {
        fs_err::canonicalize(path).map_err(|_| Failed::input(format!("there is no {what} `{}`", path.display())))
    };
    let (model, input) = (absolute(&arguments.model, "model")?, absolute(&arguments.input, "folder of images")?);
    fs_err::create_dir_all(&arguments.output)?;
    let output = fs_err::canonicalize(&arguments.output)?;
    let work = output.join(WORK_FOLDER);
    let import = ImportOptions { checkpoint: arguments.checkpoint.clone(), ..ImportOptions::default() };
    let model = bundle_folder(&model, &work, &import)?;
    let text = workflow_text(&model, &input)?;
    let mut sets = arguments.sets.clone();
    if !arguments.fold.is_empty() {
        sets.push(format!("stages.predict.with.folds={}", toml::Value::from(arguments.fold.clone())));
    }
    if arguments.probabilities {
        sets.push("stages.ensemble.with.probabilities=true".to_owned());
    }
    let options = OpenOptions { sets, store: Some(work.clone()), ..OpenOptions::default() };
    let session = Session::open_text("predict", &text, &output, &options)?;
    let run = RunOptions {
        machine: arguments.machine.clone(),
        keep_going: true,
        leaves_out_bad_cases: true,
        quiet: arguments.quiet,
        ..RunOptions::default()
    };
    let ran = run_session(&session, &run)?;
    let written = write_results(&session, &output, arguments.probabilities)?;
    print(&format!("wrote {written} label images to {}", arguments.output.display()));
    drop(session);
    if ran.exit == Exit::Done && !arguments.keep_work {
        fs_err::remove_dir_all(&work)?;
    }
    Ok(ran.exit)
}

fn workflow_text(model: &Path, input: &Path) -> Result<String, Failed> {
    let quoted = |path: &Path| {
        let text = path
            .to_str()
            .ok_or_else(|| Failed::input(format!("the path `{}` is not valid Unicode", path.display())))?;
        Ok::<_, Failed>(toml::Value::String(text.to_owned()).to_string())
    };
    Ok(format!(
        "name = \"predict\"\nextends = \"{}\"\n\n[dataset]\npath = {}\n\n[model]\npath = {}\n",
        prediction_recipe(model)?,
        quoted(input)?,
        quoted(model)?
    ))
}

/// Writes what the last stage of the recipe made, as far as it got.
fn write_results(session: &Session, output: &Path, probabilities: bool) -> Result<usize, Failed> {
    let state = session.settled()?;
    let mut written = 0;
    for (pattern, port, folder) in
        [("postprocess", "labels", None), ("ensemble", "probabilities", Some("probabilities"))]
    {
        if folder.is_some() && !probabilities {
            continue;
        }
        let folder = folder.map_or_else(|| output.to_path_buf(), |name| output.join(name));
        for node in super::target::nodes(&session.graph, pattern)? {
            let Some(Port::Items(Some(slots))) = state.nodes[node.index()].ports.get(port) else { continue };
            for (case, slot) in slots {
                if let Slot::Made(held) = slot {
                    write_artifact(&session.store, &held.artifact, Some(case), &folder)?;
                    written += usize::from(port == "labels");
                }
            }
        }
    }
    Ok(written)
}
