//! The table of all stages.

use nnflow_stage::Stage;

use crate::stages::bundle::BundleStage;
use crate::stages::crop::Crop;
use crate::stages::ensemble::Ensemble;
use crate::stages::evaluate::Evaluate;
use crate::stages::export::Export;
use crate::stages::fingerprint::FingerprintStage;
use crate::stages::ingest::Ingest;
use crate::stages::normalize::Normalize;
use crate::stages::plan::Plan;
use crate::stages::postprocess::Postprocess;
use crate::stages::predict::Predict;
use crate::stages::resample::Resample;
use crate::stages::select::Select;
use crate::stages::split::SplitStage;
use crate::stages::train::Train;

/// Every stage, in the order of the pipeline.
pub static STAGES: &[&dyn Stage] = &[
    &Ingest,
    &Crop,
    &FingerprintStage,
    &Plan,
    &SplitStage,
    &Normalize,
    &Resample,
    &Train,
    &Predict,
    &Export,
    &Ensemble,
    &Evaluate,
    &Select,
    &Postprocess,
    &BundleStage,
];

/// The stage of this name.
#[must_use]
pub fn stage(name: &str) -> Option<&'static dyn Stage> {
    STAGES.iter().copied().find(|stage| stage.spec().name == name)
}
