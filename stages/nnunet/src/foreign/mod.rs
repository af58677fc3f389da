//! Models in nnU-Net's own form: reading them into a bundle, and writing a bundle as one.
//!
//! nnU-Net keeps a trained configuration in a folder `TRAINER__PLANS__CONFIGURATION` with `plans.json`, `dataset.json` and
//! a checkpoint a fold; several of them lie beside each other in the folder of a dataset, and nnU-Net exports such a folder
//! as a zip. [`import()`] takes any of these, looks for the folder's other files (the choice of the best configuration, the
//! postprocessing, a cascade's first stage), and writes a bundle: weights as safetensors, everything else as JSON.
//! [`export()`] goes the other way.
//!
//! What was trained by strangers is not trusted. Checkpoints are pickles, of which nothing is run
//! ([`nnflow_io::pickle`]); every tensor is held against the network that the plans describe, by name, shape and
//! finiteness, before a bundle appears; a zip is not unpacked, and only files with nnU-Net's names are read from it.
//!
//! Reference: nnU-Net 2.8.1 `nnUNetPredictor.initialize_from_trained_model_folder`, `export_pretrained_model`,
//! `find_best_configuration`; plans of versions since 2.0.

mod checkpoint;
mod choice;
mod export;
mod files;
mod import;
mod postprocessing;
#[cfg(test)]
mod tests;

pub use export::{Exported, export};
pub use files::is_foreign;
pub use import::{IMPORT_VERSION, Imported, import, needed_files};

/// Which of a model's networks are imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// Configurations whose probabilities are averaged; what nnU-Net chose, or the only one, if empty.
    pub configurations: Vec<String>,
    /// Folds; all that have a checkpoint if empty.
    pub folds: Vec<String>,
    /// Which checkpoint of a fold: `final`, `best` or `latest`.
    pub checkpoint: String,
    /// The trainer, where several have trained.
    pub trainer: Option<String>,
    /// The plans, where there are several.
    pub plans: Option<String>,
    /// Whether the postprocessing is taken that nnU-Net found to help.
    pub postprocessing: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            configurations: Vec::new(),
            folds: Vec::new(),
            checkpoint: "final".to_owned(),
            trainer: None,
            plans: None,
            postprocessing: true,
        }
    }
}

/// What a fold's folder is called: this and the fold.
const FOLD_PREFIX: &str = "fold_";
/// Between trainer, plans and configuration in a folder's name.
const SEPARATOR: &str = "__";
/// The choice of the best configuration, in the folder of a dataset.
const INFERENCE: &str = "inference_information.json";
/// Folders of the results of cross-validation; their name goes on with the folds.
const CROSS_VALIDATION: &str = "crossval_results_folds_";
/// nnU-Net's plans, the dataset's description, and what the plans were made from.
const PLANS: &str = "plans.json";
const DESCRIPTION: &str = "dataset.json";
const FINGERPRINT: &str = "dataset_fingerprint.json";
/// How good cross-validation was.
const SUMMARY: &str = "summary.json";

/// The file of a checkpoint.
fn checkpoint_file(name: &str) -> String {
    format!("checkpoint_{name}.pth")
}
