//! `fingerprint`: what the planner has to know of a dataset's images.
//!
//! Drawn samples of the foreground are kept for each case as distinct values with counts. nnU-Net holds up to 10^8
//! numbers a channel instead; the statistics are the same, the memory is bounded by what differs.

mod sample;
mod statistics;

use nnflow_io::fingerprint::Fingerprint;
use nnflow_io::json;
use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameter, ParameterKind, Parameters, Phase, PhaseKind, Read, ResourceQuery,
    Resources, Runner, Stage, StageError, StageSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::sample::{CaseSample, SampleSettings};
use self::statistics::summarize;
use crate::case::{CaseRecord, RawRegion, size_of_case};
use crate::documents::{dataset_description, slice, unknown_port};

/// The stage.
pub(crate) struct FingerprintStage;

/// Memory that any task needs.
const MEMORY_FLOOR: u64 = 64 << 20;
/// Bytes for each voxel of one channel besides the image: labels, mask, foreground values, counts and pairs of them.
const BYTES_OF_SAMPLE: u64 = 32;
/// Peak memory of the summary for each stored byte; distinct values compress to a fifth at best and are held twice.
const SUMMARY_FACTOR: u64 = 12;

static SPEC: StageSpec = StageSpec {
    name: "fingerprint",
    version: 2,
    summary: "measures the dataset: spacings, shapes after cropping, intensities of the foreground",
    docs: include_str!("fingerprint/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "cases",
            kinds: &["cases"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "the cases, with labels",
        },
        InputPort {
            name: "crop",
            kinds: &["crop"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "the nonzero region of each case",
        },
        InputPort {
            name: "set",
            kinds: &["cases"],
            read: Read::Names,
            per_case: true,
            many: false,
            optional: false,
            doc: "the same cases once more; read is only how many there are, as they share the samples",
        },
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`dataset.json`; read is the number of channels",
        },
    ],
    outputs: &[
        OutputPort {
            name: "samples",
            kind: "samples",
            per_case: true,
            optional: false,
            document: None,
            doc: "`sample.json` (shapes and spacing) and `samples.nna` (drawn intensities as distinct values with counts)",
        },
        OutputPort {
            name: "fingerprint",
            kind: "fingerprint",
            per_case: false,
            optional: false,
            document: Some("dataset_fingerprint.json"),
            doc: "`dataset_fingerprint.json`, with the keys of nnU-Net's file",
        },
    ],
    parameters: &[
        Parameter {
            name: "samples",
            kind: ParameterKind::Integer { minimum: 1, maximum: 4_000_000_000 },
            default: "100000000",
            unit: "voxels",
            doc: "foreground voxels drawn for each channel, shared out equally to all cases",
        },
        Parameter {
            name: "seed",
            kind: ParameterKind::Integer { minimum: 0, maximum: u32::MAX as i64 },
            default: "1234",
            unit: "",
            doc: "seed of the generator of the draws, which starts anew with each case",
        },
    ],
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[
        Phase {
            name: "case",
            kind: PhaseKind::PerCase,
            reads: &["cases", "crop", "set"],
            makes: &["samples"],
            parameters: None,
        },
        Phase {
            name: "reduce",
            kind: PhaseKind::Whole,
            reads: &["samples", "description"],
            makes: &["fingerprint"],
            parameters: Some(&[]),
        },
    ],
};

/// What the phase of the cases knows of the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseSet {
    n_cases: usize,
}

/// What is read of `dataset.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    channels: usize,
}

impl Stage for FingerprintStage {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, _: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "set" => slice(&CaseSet { n_cases: document.as_array().map_or(0, Vec::len) }),
            "description" => slice(&Declared { channels: dataset_description(document)?.channel_names.len() }),
            _ => Err(unknown_port(port)),
        }
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let bytes = match (query.phase, size_of_case(query)) {
            ("case", Some((values, record))) => {
                let voxels = values / record.channels.max(1) as u64;
                values.saturating_mul(4).saturating_add(voxels.saturating_mul(BYTES_OF_SAMPLE))
            }
            _ => query.input_bytes.saturating_mul(SUMMARY_FACTOR),
        };
        Resources { threads: 1, memory_bytes: bytes.saturating_add(MEMORY_FLOOR) }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        match context.phase() {
            "case" => draw_case(context),
            "reduce" => reduce(context),
            phase => Err(StageError::internal(format!("stage `fingerprint` has no phase `{phase}`"))),
        }
    }
}

fn draw_case(context: &mut Context<'_>) -> Result<(), StageError> {
    let settings: SampleSettings = context.parameters().parse()?;
    let set: CaseSet = context.parsed("set")?;
    let cases = context.artifact("cases")?;
    let record = CaseRecord::read(cases)?;
    if !record.labelled {
        return Err(StageError::input(format!(
            "case `{}` has no labels: a fingerprint needs its foreground",
            record.identifier
        ))
        .with_hint("set `labels = \"required\"` for the stage `ingest`"));
    }
    let region = RawRegion::read(cases, &record, context.artifact("crop")?)?;
    let sample = CaseSample::draw(&record, &region, settings.of_each(set.n_cases)?, settings.seed);
    sample.write(&mut context.output("samples"))
}

fn reduce(context: &mut Context<'_>) -> Result<(), StageError> {
    let declared: Declared = context.parsed("description")?;
    let samples = context.items("samples")?;
    let fingerprint: Fingerprint = summarize(&samples, declared.channels)?;
    let text = json::to_vec(&fingerprint).map_err(|error| StageError::internal(error.to_string()))?;
    context.output("fingerprint").bytes("dataset_fingerprint.json", &text)
}
