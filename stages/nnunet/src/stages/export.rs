//! `export`: from scores that something else computed to labels on the image's own grid.

use nnflow_stage::{
    Axes, Context, InputPort, Parameter, ParameterKind, Parameters, Phase, PhaseKind, Read, ResourceQuery, Resources,
    Runner, Stage, StageError, StageSpec,
};
use serde::Deserialize;
use serde_json::Value;

use crate::case::{CaseRecord, size_of_case};
use crate::documents::{CONFIGURATION, unknown_port};
use crate::export::{
    ExportPlan, ExportSize, Exporter, NextStageFrom, OUTPUTS, PLAN, ScoreKind, Scores, StoredScores, Wanted, slab_bytes,
};
use crate::train::slices::Classes;

/// The stage.
pub(crate) struct Export;

/// Bytes for each byte that is read, where there is no record to tell more.
const BYTES_A_BYTE: u64 = 4;

static SPEC: StageSpec = StageSpec {
    name: "export",
    version: 1,
    summary: "makes labels on the image's own grid of scores that something else computed",
    docs: include_str!("export/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "logits",
            kinds: &["logits"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "`logits.npy` or `logits.nna` (f32, [class, a0, a1, a2]) on the grid of the preprocessed case",
        },
        InputPort {
            name: "cases",
            kinds: &["prepared"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "preprocessed cases; read are their grids",
        },
        PLAN,
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`dataset.json`; read are the labels or regions that the classes stand for",
        },
    ],
    outputs: OUTPUTS,
    parameters: &[
        Parameter {
            name: "values",
            kind: ParameterKind::Choice(&["logits", "probabilities"]),
            default: "\"logits\"",
            unit: "",
            doc: "what the scores are",
        },
        Parameter {
            name: "probabilities",
            kind: ParameterKind::Boolean,
            default: "false",
            unit: "",
            doc: "whether the probabilities of all classes are kept",
        },
        Parameter {
            name: "next_stage_from",
            kind: ParameterKind::Choice(&["logits", "labels"]),
            default: "\"logits\"",
            unit: "",
            doc: "of a cascade's first stage: whether its segmentation on the grid of the next one comes from resampled scores or from resampled labels",
        },
    ],
    axes: &[CONFIGURATION],
    draws: false,
    resumes: false,
    phases: &[Phase {
        name: "case",
        kind: PhaseKind::PerCase,
        reads: &["logits", "cases", "plan", "description"],
        makes: &["labels", "probabilities", "next_stage"],
        parameters: None,
    }],
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    values: ScoreKind,
    probabilities: bool,
    next_stage_from: NextStageFrom,
}

impl Stage for Export {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, axes: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "plan" => ExportPlan::slice(document, axes),
            "description" => Classes::slice(document),
            _ => Err(unknown_port(port)),
        }
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let size = size_of_case(query).and_then(|(_, record)| {
            let classes = Classes::deserialize(query.document("description")?).ok()?;
            ExportSize::of(&record, classes.outputs())
        });
        let probabilities = query.parameters.get("probabilities").unwrap_or(false);
        let has_next_stage = query.document("plan").is_some_and(|plan| !plan["next_stage"].is_null());
        let bytes = size.map(|size| size.peak(probabilities, has_next_stage));
        let memory_bytes = bytes.unwrap_or_else(|| query.input_bytes.saturating_mul(BYTES_A_BYTE));
        Resources { threads: 0, memory_bytes }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let settings: Settings = context.parameters().parse()?;
        let plan: ExportPlan = context.parsed("plan")?;
        let classes: Classes = context.parsed("description")?;
        let record = CaseRecord::read(context.artifact("cases")?)?;
        let grid = record.prepared_grid()?;
        let stored = StoredScores::open(context.artifact("logits")?, &record.identifier)?;
        let slab_bytes = slab_bytes(context.resources().memory_bytes);
        let exporter = Exporter { record: &record, grid, classes: &classes, plan: &plan, slab_bytes };
        let wanted = Wanted { probabilities: settings.probabilities, next_stage: settings.next_stage_from };
        exporter.export(context, Scores { kind: settings.values, values: &stored }, wanted)
    }
}
