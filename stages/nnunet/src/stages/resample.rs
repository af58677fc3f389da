//! `resample`: every case on the grid of the plan, and where its classes are.

mod options;

use nnflow_io::array::ArrayOptions;
use nnflow_kernels::geometry::Transpose;
use nnflow_kernels::resample::{ResampleError, new_shape, resample_image, resample_labels};
use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameter, ParameterKind, Parameters, Phase, PhaseKind, Read, ResourceQuery,
    Resources, Runner, Stage, StageError, StageSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::options::{Effective, PlannedOptions, Settings};
use crate::case::{PreparedCase, size_of_case};
use crate::documents::{CONFIGURATION, PlannedConfiguration, TargetSpacing, dataset_description, slice, unknown_port};
use crate::locations::{ClassLocations, LocationSettings, LocationTarget, targets};

/// The stage.
pub(crate) struct Resample;

/// Memory that any task needs.
const MEMORY_FLOOR: u64 = 64 << 20;
/// Bytes for each value of the image before: itself and a copy while its axes are reordered.
const BYTES_BEFORE: u64 = 8;
/// Bytes for each value of the image after.
const BYTES_AFTER: u64 = 4;
/// Bytes for each voxel of the larger grid: one channel in double precision between two axes, the shares of two labels,
/// and the places of labelled voxels.
const BYTES_OF_WORK: u64 = 40;
/// Longest edge of a chunk of a slice.
const SLICE_EDGE: usize = 512;

const ORDER: ParameterKind = ParameterKind::Optional(&ParameterKind::Integer { minimum: 0, maximum: 3 });

static SPEC: StageSpec = StageSpec {
    name: "resample",
    version: 1,
    summary: "brings each case onto the grid of the plan and samples where its classes are",
    docs: include_str!("resample/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "cases",
            kinds: &["cases", "prepared"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "raw cases, or normalised ones",
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
            doc: "`plans.json`; read are the spacing, the orders of interpolation and the order of the axes",
        },
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`dataset.json`; read are the labels or regions whose voxels are sampled",
        },
    ],
    outputs: &[OutputPort {
        name: "prepared",
        kind: "prepared",
        per_case: true,
        optional: false,
        document: None,
        doc: "`image.nna` (f32, [c, a0, a1, a2]), `label.nna` (i16, -1 outside the nonzero region), `case.json`; `locations.json` and `locations.nna` where there are labels",
    }],
    parameters: &[
        Parameter {
            name: "image_order",
            kind: ORDER,
            default: "null",
            unit: "",
            doc: "order of the spline for images: 0, 1 or 3; `none` takes the plan's",
        },
        Parameter {
            name: "label_order",
            kind: ORDER,
            default: "null",
            unit: "",
            doc: "order of the interpolation for labels: 0 nearest neighbour, 1 linear for each label; `none` takes the plan's",
        },
        Parameter {
            name: "image_order_z",
            kind: ORDER,
            default: "null",
            unit: "",
            doc: "order for images along an axis that is set apart; `none` takes the plan's. Labels take the nearest there",
        },
        Parameter {
            name: "separate_z",
            kind: ParameterKind::Choice(&["plan", "auto", "always", "never"]),
            default: "\"plan\"",
            unit: "",
            doc: "whether the coarsest axis is set apart: `plan` does what the plan says, `auto` goes by the spacings (more than 3 times the finest)",
        },
        Parameter {
            name: "label_rule",
            kind: ParameterKind::Choice(&["argmax", "threshold"]),
            default: "\"argmax\"",
            unit: "",
            doc: "which label wins a voxel: `argmax`, the one with the largest share (batchgenerators 0.25.5), or `threshold`, the last one with at least one half (batchgenerators up to 0.25.1)",
        },
        Parameter {
            name: "location_seed",
            kind: ParameterKind::Integer { minimum: 0, maximum: u32::MAX as i64 },
            default: "1234",
            unit: "",
            doc: "seed of the sample of class locations, which starts anew with each case",
        },
        Parameter {
            name: "location_minimum",
            kind: ParameterKind::Integer { minimum: 0, maximum: u32::MAX as i64 },
            default: "10000",
            unit: "voxels",
            doc: "voxels of each class that are sampled, or all where it has fewer",
        },
        Parameter {
            name: "location_share",
            kind: ParameterKind::Number { minimum: 0.0, maximum: 1.0 },
            default: "0.01",
            unit: "",
            doc: "share of a class's voxels that are sampled at least",
        },
    ],
    axes: &[CONFIGURATION],
    draws: false,
    resumes: false,
    phases: &[Phase {
        name: "case",
        kind: PhaseKind::PerCase,
        reads: &["cases", "crop", "plan", "description"],
        makes: &["prepared"],
        parameters: None,
    }],
};

/// What is read of a plan.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanSlice {
    transpose_forward: Transpose,
    spacing: TargetSpacing,
    image: PlannedOptions,
    label: PlannedOptions,
}

impl PlanSlice {
    fn of(document: &Value, axes: &Axes) -> Result<Self, StageError> {
        let planned = PlannedConfiguration::new(document, axes)?;
        let (image, label) = PlannedOptions::of(&planned)?;
        let spacing = planned.target_spacing()?;
        Ok(Self { transpose_forward: planned.plans.transpose_forward, spacing, image, label })
    }
}

/// What is read of `dataset.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescriptionSlice {
    targets: Vec<LocationTarget>,
}

impl Stage for Resample {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, axes: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "plan" => slice(&PlanSlice::of(document, axes)?),
            "description" => slice(&DescriptionSlice { targets: targets(&dataset_description(document)?.labels) }),
            _ => Err(unknown_port(port)),
        }
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let bytes = estimate(query).unwrap_or_else(|| query.input_bytes.saturating_mul(64));
        Resources { threads: 1, memory_bytes: bytes.saturating_add(MEMORY_FLOOR) }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let plan: PlanSlice = context.parsed("plan")?;
        let description: DescriptionSlice = context.parsed("description")?;
        let settings: Settings = context.parameters().parse()?;
        let effective = Effective::new(&plan.image, &plan.label, &settings)?;
        let case = PreparedCase::load(context, plan.transpose_forward)?;
        let labelled = case.record.labelled;
        let case = onto_grid(case, plan.spacing, &effective)?;
        let locations = if labelled { Some(draw(&case, description.targets, &settings.locations())?) } else { None };
        let mut writer = context.output("prepared");
        case.write_record(&mut writer)?;
        case.write_arrays(&mut writer, &chunks(plan.spacing, case.grid.shape))?;
        locations.map_or(Ok(()), |locations| locations.write(&mut writer))
    }
}

/// Resamples image and labels of a case.
///
/// A spacing that is far too small, as a typing error makes it, is refused before memory for it is asked for.
fn onto_grid(case: PreparedCase, target: TargetSpacing, options: &Effective) -> Result<PreparedCase, StageError> {
    let current = case.grid.spacing;
    let spacing = target.of_case(current)?;
    let shape = new_shape(case.grid.shape, current, spacing);
    if shape.iter().try_fold(1_u32, |voxels, &extent| voxels.checked_mul(u32::try_from(extent).ok()?)).is_none() {
        return Err(StageError::input(format!(
            "case `{}` would have shape `{shape:?}` at the spacing `{:?}` mm: expected less than 2^32 voxels",
            case.record.identifier,
            spacing.values()
        ))
        .with_hint("check `spacing` of the configuration in the plan"));
    }
    let PreparedCase { record, mut grid, mut image, mut label } = case;
    if shape != grid.shape {
        let failed = |error: ResampleError| {
            StageError::input(format!(
                "case `{}` cannot be resampled to a spacing of {:?} mm: {error}",
                record.identifier,
                spacing.values()
            ))
        };
        // One after the other, so that what is not needed any more is given back before the other one starts.
        image = resample_image(image.view(), shape, current, spacing, &options.image).map_err(failed)?;
        label = resample_labels(label.view(), shape, current, spacing, &options.label, options.label_rule)
            .map_err(failed)?;
    }
    grid.shape = shape;
    grid.spacing = spacing;
    Ok(PreparedCase { record, grid, image, label })
}

fn draw(
    case: &PreparedCase,
    targets: Vec<LocationTarget>,
    settings: &LocationSettings,
) -> Result<ClassLocations, StageError> {
    ClassLocations::draw(case.label.view(), targets, settings)
        .map_err(|error| StageError::input(format!("case `{}`: {error}", case.record.identifier)))
}

/// Chunks for how training reads: cubes, or single slices.
fn chunks(target: TargetSpacing, [_, rows, columns]: [usize; 3]) -> ArrayOptions {
    match target {
        TargetSpacing::Volume(_) => ArrayOptions::default(),
        TargetSpacing::Slices(_) => ArrayOptions { chunk: Some([1, 1, rows.min(SLICE_EDGE), columns.min(SLICE_EDGE)]) },
    }
}

/// Peak memory in bytes: the arrays before and after, and the working memory of one channel.
fn estimate(query: &ResourceQuery<'_>) -> Option<u64> {
    let (values, record) = size_of_case(query)?;
    let plan = query.inputs.get("plan")?.iter().find_map(|member| match &member.value {
        nnflow_stage::InputValue::Document(document) => PlanSlice::deserialize(document).ok(),
        _ => None,
    })?;
    let current = match &record.prepared {
        Some(grid) => grid.spacing,
        None => plan.transpose_forward.apply_spacing(record.geometry.spacing),
    };
    let target = plan.spacing.of_case(current).ok()?;
    let growth: f64 = (0..3).map(|axis| current[axis] / target[axis]).product();
    let after = (values as f64 * growth).ceil() as u64;
    let voxels = values.max(after) / record.channels.max(1) as u64;
    let arrays = values.saturating_mul(BYTES_BEFORE).saturating_add(after.saturating_mul(BYTES_AFTER));
    Some(arrays.saturating_add(voxels.saturating_mul(BYTES_OF_WORK)))
}
