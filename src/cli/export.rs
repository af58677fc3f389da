//! `nnflow export`: writes a model as a folder that nnU-Net itself can predict with.

use std::path::PathBuf;

use nnflow_nnunet::foreign;

use super::outcome::{Exit, Failed, print};
use crate::session::model_listing;

/// What `nnflow export` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArguments {
    /// The model: a bundle's folder, or a workflow that has run.
    model: PathBuf,
    /// The folder to write into; it is laid out as nnU-Net's folder of results.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
}

/// Exports the model and tells how nnU-Net predicts with it.
pub(crate) fn export(arguments: &ExportArguments) -> Result<Exit, Failed> {
    let listing = model_listing(&arguments.model)?;
    let files = listing.documents.get("bundle").map_or(&[][..], Vec::as_slice);
    let exported = foreign::export(files, &arguments.output).map_err(|error| error.report())?;
    let several = exported.members.len() > 1;
    for (folder, previous) in exported.folders.iter().zip(&exported.previous) {
        let probabilities = if several { " --save_probabilities" } else { "" };
        let previous = previous.as_ref().map(|name| format!(" -prev_stage_predictions RESULTS_OF_{name}"));
        let (folder, previous) = (folder.display(), previous.unwrap_or_default());
        print(&format!(
            "wrote {folder}\n  nnUNetv2_predict_from_modelfolder -i IMAGES -o RESULTS -m {folder}{previous}{probabilities}"
        ));
    }
    if several {
        print(&format!("then average {} with nnUNetv2_ensemble", exported.members.join(" and ")));
    }
    if let Some(path) = exported.postprocessing {
        print(&format!("then nnUNetv2_apply_postprocessing -pp_pkl_file {}", path.display()));
    }
    Ok(Exit::Done)
}
