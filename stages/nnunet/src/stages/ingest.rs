//! `ingest`: from the files of a case to arrays that every other stage can rely on.
//!
//! A dataset's mistakes show here or hours later in a training that does not learn. So every case is read in full and
//! checked against `dataset.json`, and all that is wrong with it is said at once; the other cases go on.

mod check;
mod files;

use ndarray::{Array3, Array4};
use nnflow_io::array::{ArrayOptions, write_array};
use nnflow_io::image::Geometry;
use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameter, ParameterKind, Parameters, Phase, PhaseKind, Read, ResourceQuery,
    Resources, Runner, Stage, StageError, StageSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::check::{Findings, check_labels, check_values, compare_grids};
use self::files::{CaseFiles, read_channels, read_label};
use crate::case::{CaseRecord, IMAGE, RECORD, unreadable, write_label};
use crate::documents::{dataset_description, slice, unknown_port};

/// The stage.
pub(crate) struct Ingest;

/// Peak memory for each byte that is read: voxels of compressed files are about a third as long as in memory, and one
/// file is held twice while it is added to the others.
const MEMORY_FACTOR: u64 = 12;
/// Memory that any task needs.
const MEMORY_FLOOR: u64 = 64 << 20;
/// Readers of nnU-Net that turn images about while reading them.
const TURNING_READERS: [&str; 2] = ["NibabelIOWithReorient", "SimpleITKIOWithReorient"];

static SPEC: StageSpec = StageSpec {
    name: "ingest",
    version: 2,
    summary: "reads the images and labels of each case and checks them",
    docs: include_str!("ingest/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "files",
            kinds: &["raw"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "the files of each case: `0000.nii.gz`, `0001.nii.gz`, … and `label.nii.gz`, with the dataset's file ending; for TIFF volumes also `spacing.json`",
        },
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`dataset.json`; read are the number of channels, the file ending and the labels",
        },
    ],
    outputs: &[OutputPort {
        name: "cases",
        kind: "cases",
        per_case: true,
        optional: false,
        document: None,
        doc: "`image.nna` (f32, [c, z, y, x]), `label.nna` (i16, [1, z, y, x]; not without labels) and `case.json` (grid of the file)",
    }],
    parameters: &[
        Parameter {
            name: "labels",
            kind: ParameterKind::Choice(&["required", "none"]),
            default: "\"required\"",
            unit: "",
            doc: "`required`: a case without label image is an error; `none`: label images are not looked at, as for prediction",
        },
        Parameter {
            name: "non_finite",
            kind: ParameterKind::Choice(&["refuse", "zero"]),
            default: "\"refuse\"",
            unit: "",
            doc: "intensities that are NaN or infinite: `refuse`: the case cannot be used; `zero`: they count as 0, as SimpleITK reads them from NIfTI files",
        },
    ],
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[Phase {
        name: "case",
        kind: PhaseKind::PerCase,
        reads: &["files", "description"],
        makes: &["cases"],
        parameters: None,
    }],
};

/// What `ingest` reads of `dataset.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    channels: usize,
    file_ending: String,
    /// Every label that a voxel may have, ascending; absent where labels are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<i16>>,
}

impl Declared {
    fn of(document: &Value, parameters: &Parameters) -> Result<Self, StageError> {
        let description = dataset_description(document)?;
        if let Some(reader) = description.image_reader_writer.filter(|name| TURNING_READERS.contains(&name.as_str())) {
            return Err(StageError::input(format!(
                "`overwrite_image_reader_writer` of `dataset.json` asks for `{reader}`, which turns images while it reads them"
            ))
            .with_hint("remove the key: images are read, and labels written, with the orientation of the files"));
        }
        let named = || description.labels.all().into_iter().chain(description.labels.ignore()).collect();
        Ok(Self {
            channels: description.channel_names.len(),
            file_ending: description.file_ending,
            labels: are_required(parameters)?.then(named),
        })
    }
}

fn are_required(parameters: &Parameters) -> Result<bool, StageError> {
    Ok(parameters.get::<String>("labels")? == "required")
}

impl Stage for Ingest {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, _: &Axes, parameters: &Parameters) -> Result<Value, StageError> {
        match port {
            "description" => slice(&Declared::of(document, parameters)?),
            _ => Err(unknown_port(port)),
        }
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let memory_bytes = query.input_bytes.saturating_mul(MEMORY_FACTOR).saturating_add(MEMORY_FLOOR);
        Resources { threads: 1, memory_bytes }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let identifier = context.item()?.to_owned();
        let declared: Declared = context.parsed("description")?;
        let mut findings = Findings::default();
        let files = CaseFiles::of(context.artifact("files")?, &mut findings);
        let mut case = read_case(&files, &declared, &mut findings);
        if let Some(case) = &mut case {
            let zero = context.parameters().get::<String>("non_finite")? == "zero";
            check_values(case.voxels.view_mut(), zero, &mut findings);
        }
        for warning in findings.warnings() {
            context.log(format!("case `{identifier}`: {warning}"));
        }
        findings.into_result(&identifier)?;
        let case = case.ok_or_else(|| StageError::internal("a case without problems could not be read"))?;
        write_case(context, identifier, declared, case)
    }
}

/// A case that has been read.
struct ReadCase {
    voxels: Array4<f32>,
    geometry: Geometry,
    label: Option<Array3<i16>>,
}

/// Reads everything and checks all but intensities; what is wrong goes to `findings`, and the case is there only if it could be read whole.
fn read_case(files: &CaseFiles<'_>, declared: &Declared, findings: &mut Findings) -> Option<ReadCase> {
    let image = read_channels(files, declared.channels, findings);
    let geometry = image.as_ref().map(|(_, geometry)| geometry);
    let label = declared.labels.as_ref().and_then(|declared| {
        let (label, grid) = read_label(files, findings)?;
        check_labels(label.view(), declared, findings);
        if let Some(geometry) = geometry {
            compare_grids("the label image", &grid, geometry, findings);
        }
        Some(label)
    });
    let (voxels, geometry) = image?;
    Some(ReadCase { voxels, geometry, label })
}

fn write_case(
    context: &mut Context<'_>,
    identifier: String,
    declared: Declared,
    case: ReadCase,
) -> Result<(), StageError> {
    let ReadCase { voxels, geometry, label } = case;
    let record = CaseRecord {
        identifier,
        channels: voxels.dim().0,
        file_ending: declared.file_ending,
        labelled: label.is_some(),
        geometry,
        prepared: None,
    };
    let mut writer = context.output("cases");
    writer.json(RECORD, &record)?;
    let options = ArrayOptions::default();
    write_array(&writer.file(IMAGE)?, voxels.view(), &options).map_err(unreadable)?;
    match label {
        Some(label) => write_label(&mut writer, label.view(), &options),
        None => Ok(()),
    }
}
