//! `evaluate`: how well label images agree with references, case by case and for the dataset.

pub(crate) mod measures;

use nnflow_io::summary::CaseMetrics;
use nnflow_kernels::metrics::Confusion;
use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameters, Phase, PhaseKind, Read, ResourceQuery, Resources, Runner, Stage,
    StageError, StageSpec,
};
use serde_json::Value;

use self::measures::{Targets, summarize};
use crate::case::read_json;
use crate::documents::unknown_port;
use crate::segmentation::{Segmentation, ending_of, largest_case, read_reference, write_document};

/// The stage.
pub(crate) struct Evaluate;

/// The metrics of a case, a [`CaseMetrics`].
const MEASURES: &str = "measures.json";
/// Bytes for each voxel: the file as it is read, and both label maps.
const BYTES_A_VOXEL: u64 = 10;
/// Memory that any task needs.
const MEMORY_FLOOR: u64 = 64 << 20;

static SPEC: StageSpec = StageSpec {
    name: "evaluate",
    version: 1,
    summary: "compares label images with references: Dice, IoU and counts",
    docs: include_str!("evaluate/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "labels",
            kinds: &["labels"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "the label images that are judged; which cases are evaluated is decided by them",
        },
        InputPort {
            name: "references",
            kinds: &["cases"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "the cases with the labels that they are judged by",
        },
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`dataset.json`; read are the foreground labels or regions and the ignore label",
        },
    ],
    outputs: &[
        OutputPort {
            name: "measures",
            kind: "measures",
            per_case: true,
            optional: false,
            document: None,
            doc: "`measures.json`: Dice, IoU and counts (voxels) of each label or region",
        },
        OutputPort {
            name: "summary",
            kind: "summary",
            per_case: false,
            optional: false,
            document: Some("summary.json"),
            doc: "`summary.json`, as nnU-Net writes it",
        },
    ],
    parameters: &[],
    axes: &[],
    draws: false,
    phases: &[
        Phase {
            name: "case",
            kind: PhaseKind::PerCase,
            reads: &["labels", "references", "description"],
            makes: &["measures"],
            parameters: None,
        },
        Phase { name: "reduce", kind: PhaseKind::Whole, reads: &["measures"], makes: &["summary"], parameters: None },
    ],
};

impl Stage for Evaluate {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, _: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "description" => Targets::slice(document),
            _ => Err(unknown_port(port)),
        }
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let bytes = match query.phase {
            "case" => largest_case(query, "references").saturating_mul(BYTES_A_VOXEL),
            _ => query.input_bytes.saturating_mul(4),
        };
        Resources { threads: 1, memory_bytes: bytes.saturating_add(MEMORY_FLOOR) }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        match context.phase() {
            "case" => evaluate_case(context),
            _ => reduce(context),
        }
    }
}

fn evaluate_case(context: &mut Context<'_>) -> Result<(), StageError> {
    let case = context.item()?;
    let targets: Targets = context.parsed("description")?;
    let prediction = context.artifact("labels")?;
    let segmentation = Segmentation::read(prediction, case)?;
    let (reference, record) = read_reference(context.artifact("references")?, case)?;
    let confusion = Confusion::between(reference.view(), segmentation.labels.view(), targets.ignore)
        .map_err(|error| StageError::input(format!("case `{case}` cannot be evaluated: {error}")))?;
    let measures = CaseMetrics {
        metrics: targets.measure(&confusion),
        prediction_file: format!("{case}{}", ending_of(prediction, case)?),
        reference_file: format!("{case}{}", record.file_ending),
    };
    write_document(&mut context.output("measures"), MEASURES, &measures)
}

fn reduce(context: &mut Context<'_>) -> Result<(), StageError> {
    let measures = context.items("measures")?;
    let cases: Vec<CaseMetrics> =
        measures.into_values().map(|artifact| read_json(artifact, MEASURES)).collect::<Result<_, _>>()?;
    if cases.is_empty() {
        return Err(StageError::input("there is no case to evaluate"));
    }
    write_document(&mut context.output("summary"), "summary.json", &summarize(cases))
}
