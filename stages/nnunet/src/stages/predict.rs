//! `predict`: the network's answer for each case, on the image's own grid.

mod memory;

use std::collections::BTreeMap;

use nnflow_stage::{
    Axes, Context, InputPort, Parameter, ParameterKind, Parameters, Phase, PhaseKind, Read, ResourceQuery, Resources,
    Runner, Stage, StageError, StageSpec,
};
use serde_json::Value;

use crate::documents::unknown_port;
use crate::export::{ExportPlan, OUTPUTS, PLAN};
use crate::train::settings::{COUNT, POSITIVE, PRECISIONS, parameter};
use crate::train::slices::{Classes, FoldCases};

/// The stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Predict;

/// Bytes for each byte of a compressed case that is read, where there is no record to tell more.
const BYTES_A_BYTE: u64 = 64;

/// What libtorch itself takes.
const BASE_BYTES: u64 = 1 << 30;

static PARAMETERS: &[Parameter] = &[
    parameter(
        "folds",
        ParameterKind::List(&ParameterKind::Text),
        "[]",
        "",
        "of a bundle, the folds whose networks are averaged, such as `[\"0\", \"3\"]`; all if empty",
    ),
    parameter(
        "step",
        ParameterKind::Number { minimum: 0.05, maximum: 1.0 },
        "0.5",
        "patches",
        "distance of neighbouring windows at most",
    ),
    parameter(
        "mirroring",
        ParameterKind::Boolean,
        "true",
        "",
        "whether the mean is taken over the image mirrored along all axes that training mirrored",
    ),
    parameter(
        "average",
        ParameterKind::Choice(&["logits", "probabilities"]),
        "\"logits\"",
        "",
        "what is averaged over windows, mirrorings and folds: logits, as nnU-Net v2, or probabilities, as in 2018",
    ),
    parameter(
        "precision",
        PRECISIONS,
        "\"auto\"",
        "",
        "what networks compute in; `auto` is `float16` on a GPU, as in nnU-Net, and `float32` on a CPU",
    ),
    parameter(
        "sums",
        ParameterKind::Choice(&["float32", "float16"]),
        "\"float32\"",
        "",
        "how sums over windows are kept: in 32 bits, or in 16 as nnU-Net has them, to meet its rounding",
    ),
    parameter(
        "probabilities",
        ParameterKind::Boolean,
        "true",
        "",
        "whether the probabilities of all classes are kept, as ensembles need them",
    ),
    parameter(
        "next_stage_from",
        ParameterKind::Choice(&["logits", "labels"]),
        "\"logits\"",
        "",
        "of a cascade's first stage: whether its segmentation on the grid of the next one comes from resampled logits, as nnU-Net trains with, or from resampled labels, as nnU-Net predicts with",
    ),
    parameter(
        "windows_per_batch",
        COUNT,
        "4",
        "windows",
        "how many windows a GPU takes at a time; no result depends on it",
    ),
    parameter(
        "gpu_sums",
        POSITIVE,
        "4.0",
        "GiB",
        "how much of a GPU's memory the sums over windows may take; larger ones stay in main memory; no result depends on it",
    ),
];

static SPEC: StageSpec = StageSpec {
    name: "predict",
    version: 2,
    summary: "segments cases with one or several trained networks",
    docs: "Slides a window over each case, half a patch at a time, weights what the network says by a Gaussian so that the centres of\n\
windows count more, averages over mirrored images and over networks, brings the result back to the image's own grid class by\n\
class, and takes the class with the highest value (or each region whose probability is above one half).\n\
\n\
With `split` connected, only the validation cases of the fold are predicted; otherwise all cases are.\n\
Equal to `nnUNetPredictor.predict_sliding_window_return_logits` and `convert_predicted_logits_to_segmentation_with_correct_shape`\n\
of nnU-Net 2.8.1, with sums in float32.\n\
\n\
Memory: the weights, the sums of all classes on the grid of the preprocessed case, and whichever is more: the image with the\n\
windows that all threads predict at a time, or 2 bytes for each voxel of the image with the scores that are read at a time, an\n\
eighth of what the node was granted (`[stages.predict.resources] memory`), at most 256 MiB. Probabilities take 8 bytes more for\n\
each voxel, and one class at a time.",
    runner: Runner::Torch,
    inputs: &[
        InputPort {
            name: "cases",
            kinds: &["prepared"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "preprocessed cases",
        },
        InputPort {
            name: "model",
            kinds: &["model", "bundle"],
            read: Read::Whole,
            per_case: false,
            many: true,
            optional: false,
            doc: "the networks: one, several folds, or a bundle, of which those of the configuration are used",
        },
        PLAN,
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "labels, regions, file ending",
        },
        InputPort {
            name: "split",
            kinds: &["split"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: true,
            doc: "the folds; if connected, only the validation cases of the node's fold are predicted",
        },
        InputPort {
            name: "previous",
            kinds: &["next_stage"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: true,
            doc: "in a cascade, the segmentations of the stage before",
        },
    ],
    outputs: OUTPUTS,
    parameters: PARAMETERS,
    axes: &["configuration"],
    draws: false,
    resumes: false,
    phases: &[Phase {
        name: "case",
        kind: PhaseKind::PerCase,
        reads: &["cases", "model", "plan", "description", "split", "previous"],
        makes: &["labels", "probabilities", "next_stage"],
        parameters: None,
    }],
};

impl Stage for Predict {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, axes: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "plan" => ExportPlan::slice(document, axes),
            "description" => Classes::slice(document),
            // Which cases are predicted is decided by `items`; what a case's result depends on is not the fold.
            "split" => FoldCases::slice(document, axes),
            _ => Err(unknown_port(port)),
        }
    }

    fn items(
        &self,
        _: &str,
        available: &[String],
        documents: &BTreeMap<String, Value>,
    ) -> Result<Vec<String>, StageError> {
        let Some(document) = documents.get("split") else { return Ok(available.to_vec()) };
        let fold: FoldCases = serde_json::from_value(document.clone())
            .map_err(|error| StageError::internal(format!("the fold is no fold: {error}")))?;
        let missing: Vec<String> = fold.val.iter().filter(|case| !available.contains(case)).cloned().collect();
        if !missing.is_empty() {
            return Err(StageError::input("the fold names cases that the dataset does not have").with_details(missing));
        }
        Ok(fold.val)
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let bytes = memory::estimate(query).unwrap_or_else(|| query.input_bytes.saturating_mul(BYTES_A_BYTE));
        Resources { threads: 0, memory_bytes: bytes.saturating_add(BASE_BYTES) }
    }

    fn run(&self, _: &mut Context<'_>) -> Result<(), StageError> {
        Err(StageError::internal("`predict` runs in the worker `nnflow-torch`"))
    }
}
