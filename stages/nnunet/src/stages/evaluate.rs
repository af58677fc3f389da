//! `evaluate`: how well label images agree with references, case by case and for the dataset.

mod case;
pub mod comparison;
pub(crate) mod measures;
mod statistics;
pub mod table;

use std::collections::BTreeMap;

use nnflow_io::summary::CaseMetrics;
use nnflow_kernels::metrics::{Confusion, LabelPair};
use nnflow_kernels::statistics::Bootstrap;
use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameter, ParameterKind, Parameters, Phase, PhaseKind, Read, ResourceQuery,
    Resources, Runner, Stage, StageError, StageSpec,
};
use serde::Deserialize;
use serde_json::Value;

use self::case::{CaseSettings, MeasuredCase, measure, voxel_volume};
use self::measures::{Targets, summarize};
use self::statistics::statistics;
use self::table::{CASES, CaseTable, Measure, csv_text};
use crate::case::read_json;
use crate::documents::unknown_port;
use crate::segmentation::{Segmentation, ending_of, largest_case, read_reference, write_document};

/// The stage.
pub(crate) struct Evaluate;

/// What was measured of a case, a [`MeasuredCase`].
const MEASURES: &str = "measures.json";
/// What all cases say together.
const STATISTICS: &str = "statistics.json";
/// Where the random numbers of intervals begin: the same cases have the same intervals in every workflow.
const BOOTSTRAP_SEED: u64 = 0;
/// Bytes for each voxel: both label maps; then the file as it is read, or the distances within the largest structure.
const BYTES_A_VOXEL: u64 = 16;
/// Memory that any task needs.
const MEMORY_FLOOR: u64 = 64 << 20;

static SPEC: StageSpec = StageSpec {
    name: "evaluate",
    version: 2,
    summary: "compares label images with references: overlap, surfaces, volumes, with intervals of confidence",
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
            doc: "`measures.json`: all that is measured of each label or region",
        },
        // It stands before the summary, so that a number that both have is told with its interval.
        OutputPort {
            name: "statistics",
            kind: "statistics",
            per_case: false,
            optional: false,
            document: Some(STATISTICS),
            doc: "`statistics.json`: means with intervals and medians; `cases.csv`: a row for each case and label",
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
    parameters: PARAMETERS,
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[
        Phase {
            name: "case",
            kind: PhaseKind::PerCase,
            reads: &["labels", "references", "description"],
            makes: &["measures"],
            parameters: Some(&["surfaces", "tolerances", "one_sided"]),
        },
        Phase {
            name: "reduce",
            kind: PhaseKind::Whole,
            reads: &["measures"],
            makes: &["statistics", "summary"],
            parameters: Some(&["surfaces", "confidence", "resamples"]),
        },
    ],
};

const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "surfaces",
        kind: ParameterKind::Boolean,
        default: "true",
        unit: "",
        doc: "whether distances of surfaces are measured: `hd`, `hd95`, `assd`, `nsd`",
    },
    Parameter {
        name: "tolerances",
        kind: ParameterKind::List(&ParameterKind::Number { minimum: 0.0, maximum: 1e6 }),
        default: "[1.0]",
        unit: "mm",
        doc: "how far a surface may be off for `nsd`: one number for all labels or regions, or one for each in the order \
              of `dataset.json`. What experts differ by among themselves is the usual choice",
    },
    Parameter {
        name: "one_sided",
        kind: ParameterKind::Choice(&["diagonal", "leave_out"]),
        default: "\"diagonal\"",
        unit: "",
        doc: "what a distance is where only the reference or only the prediction has the structure: the diagonal of the \
              image, or no number, which makes the mean one over the other cases",
    },
    Parameter {
        name: "confidence",
        kind: ParameterKind::Number { minimum: 0.5, maximum: 0.9999 },
        default: "0.95",
        unit: "",
        doc: "level of the intervals",
    },
    Parameter {
        name: "resamples",
        kind: ParameterKind::Integer { minimum: 0, maximum: 1_000_000 },
        default: "2000",
        unit: "",
        doc: "resamples of the bootstrap that the intervals come from; 0 for no intervals",
    },
];

/// The parameters that putting cases together reads.
#[derive(Debug, Clone, Copy, Deserialize)]
struct ReduceSettings {
    surfaces: bool,
    confidence: f64,
    resamples: u32,
}

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
    let settings: CaseSettings = context.parameters().parse()?;
    let prediction = context.artifact("labels")?;
    let segmentation = Segmentation::read(prediction, case)?;
    let (reference, record) = read_reference(context.artifact("references")?, case)?;
    let spacing = record.geometry.spacing;
    let unlike = |error| StageError::input(format!("case `{case}` cannot be evaluated: {error}"));
    let (reference, labels) = (reference.view(), segmentation.labels.view());
    let confusion = Confusion::between(reference, labels, targets.ignore).map_err(unlike)?;
    let pair = LabelPair::new(reference, labels, targets.ignore, spacing).map_err(unlike)?;
    let volume = voxel_volume(record.geometry.shape, spacing);
    let overlap = CaseMetrics {
        metrics: targets.measure(&confusion),
        prediction_file: format!("{case}{}", ending_of(prediction, case)?),
        reference_file: format!("{case}{}", record.file_ending),
    };
    let measured = MeasuredCase { overlap, further: measure(&pair, &confusion, &targets, &settings, volume)? };
    write_document(&mut context.output("measures"), MEASURES, &measured)
}

fn reduce(context: &mut Context<'_>) -> Result<(), StageError> {
    let settings: ReduceSettings = context.parameters().parse()?;
    let measured = context.items("measures")?;
    let cases: BTreeMap<&str, MeasuredCase> = measured
        .into_iter()
        .map(|(case, artifact)| Ok((case, read_json(artifact, MEASURES)?)))
        .collect::<Result<_, StageError>>()?;
    if cases.is_empty() {
        return Err(StageError::input("there is no case to evaluate"));
    }
    let is_taken = |measure: &Measure| settings.surfaces || !measure.is_of_surfaces();
    let measures: Vec<Measure> = Measure::ALL.into_iter().filter(is_taken).collect();
    let bootstrap = Bootstrap { resamples: settings.resamples, level: settings.confidence, seed: BOOTSTRAP_SEED };
    let rows = || cases.iter().map(|(case, measured)| (*case, measured));
    let document = statistics(&CaseTable::of(rows()), &measures, &bootstrap);
    let document =
        document.map_err(|error| StageError::internal(format!("`{STATISTICS}` cannot be written: {error}")))?;
    let table = csv_text(rows(), &measures)
        .map_err(|error| StageError::internal(format!("`{CASES}` cannot be written: {error}")))?;
    let mut output = context.output("statistics");
    write_document(&mut output, STATISTICS, &document)?;
    output.bytes(CASES, &table)?;
    let overlaps = cases.into_values().map(|measured| measured.overlap).collect();
    write_document(&mut context.output("summary"), "summary.json", &summarize(overlaps))
}
