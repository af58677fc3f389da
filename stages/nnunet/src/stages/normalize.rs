//! `normalize`: intensities on a common scale.
//!
//! The stage stands before `resample` (v2) or behind it (2018). What it meets first, raw case or prepared one, decides
//! whether it crops and transposes; the rest is the same.

mod schemes;

use nnflow_io::array::ArrayOptions;
use nnflow_kernels::geometry::Transpose;
use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameter, ParameterKind, Parameters, Phase, PhaseKind, Read, ResourceQuery,
    Resources, Runner, Stage, StageError, StageSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::schemes::{Channel, Outside, apply};
use crate::case::{IMAGE, LABEL, PreparedCase, RECORD, size_of_case};
use crate::documents::{CONFIGURATION, PlannedConfiguration, slice, unknown_port};
use crate::locations;

/// The stage.
pub(crate) struct Normalize;

/// Memory that any task needs.
const MEMORY_FLOOR: u64 = 64 << 20;
/// Bytes for each value of the image: the image itself, and a copy while its axes are reordered.
const BYTES_OF_VALUE: u64 = 8;
/// Bytes for each voxel: labels twice, masks, and one channel in C order.
const BYTES_OF_VOXEL: u64 = 12;

static SPEC: StageSpec = StageSpec {
    name: "normalize",
    version: 1,
    summary: "brings the intensities of each case to a common scale",
    docs: include_str!("normalize/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "cases",
            kinds: &["cases", "prepared"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "raw cases, or resampled ones",
        },
        InputPort {
            name: "crop",
            kinds: &["crop"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: true,
            doc: "the nonzero region of each case; needed where the cases are raw",
        },
        InputPort {
            name: "plan",
            kinds: &["plan"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`plans.json`; read are the normalisation of each channel, its foreground intensities if it is CT, and the order of the axes",
        },
    ],
    outputs: &[OutputPort {
        name: "prepared",
        kind: "prepared",
        per_case: true,
        optional: false,
        document: None,
        doc: "`image.nna` (f32, [c, a0, a1, a2]), `label.nna` (i16, -1 outside the nonzero region), `case.json`; class locations if the cases have them",
    }],
    parameters: &[Parameter {
        name: "outside",
        kind: ParameterKind::Choice(&["keep", "zero"]),
        default: "\"keep\"",
        unit: "",
        doc: "what becomes of voxels outside the nonzero region, in channels that are normalised within it: `keep` (v2) or `zero` (2018, where resampling has blurred the border)",
    }],
    axes: &[CONFIGURATION],
    draws: false,
    resumes: false,
    phases: &[Phase {
        name: "case",
        kind: PhaseKind::PerCase,
        reads: &["cases", "crop", "plan"],
        makes: &["prepared"],
        parameters: None,
    }],
};

/// What is read of a plan.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanSlice {
    transpose_forward: Transpose,
    channels: Vec<Channel>,
}

impl PlanSlice {
    fn of(document: &Value, axes: &Axes) -> Result<Self, StageError> {
        let planned = PlannedConfiguration::new(document, axes)?;
        let channels = Channel::all(&planned)?;
        Ok(Self { transpose_forward: planned.plans.transpose_forward, channels })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    outside: Outside,
}

impl Stage for Normalize {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, axes: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "plan" => slice(&PlanSlice::of(document, axes)?),
            _ => Err(unknown_port(port)),
        }
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let bytes = size_of_case(query).map_or(query.input_bytes.saturating_mul(16), |(values, record)| {
            let voxels = values / record.channels.max(1) as u64;
            values.saturating_mul(BYTES_OF_VALUE).saturating_add(voxels.saturating_mul(BYTES_OF_VOXEL))
        });
        Resources { threads: 1, memory_bytes: bytes.saturating_add(MEMORY_FLOOR) }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let plan: PlanSlice = context.parsed("plan")?;
        let settings: Settings = context.parameters().parse()?;
        let mut case = PreparedCase::load(context, plan.transpose_forward)?;
        apply(&mut case, &plan.channels, settings.outside)?;
        write(context, &case)
    }
}

/// Writes what has changed and passes on what has not.
fn write(context: &mut Context<'_>, case: &PreparedCase) -> Result<(), StageError> {
    let options = ArrayOptions::default();
    if case.record.prepared.is_none() {
        let mut writer = context.output("prepared");
        case.write_record(&mut writer)?;
        return case.write_arrays(&mut writer, &options);
    }
    let artifact = context.artifact("cases")?;
    let kept_chunk = ArrayOptions { chunk: Some(crate::case::open(artifact, IMAGE)?.chunk()) };
    let mut writer = context.output("prepared");
    case.write_image(&mut writer, &kept_chunk)?;
    for name in [RECORD, LABEL, locations::INDEX, locations::VOXELS] {
        if let Some(file) = artifact.file(name) {
            writer.forward(name, file);
        }
    }
    Ok(())
}
