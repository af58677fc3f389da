//! `ensemble`: the mean of what several networks say, and the labels that follow from it.

use ndarray::{Array3, Array4, Axis};
use nnflow_io::array::ArrayFile;
use nnflow_kernels::decision::{ArgMax, paint_region};
use nnflow_stage::{
    Artifact, Axes, Context, InputPort, InputValue, Member, OutputPort, Parameter, ParameterKind, Parameters, Phase,
    PhaseKind, Read, ResourceQuery, Resources, Runner, Stage, StageError, StageSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{CaseRecord, open, unreadable};
use crate::documents::{CONFIGURATION, slice, unknown_port};
use crate::export::{PROBABILITIES, write_probabilities};
use crate::segmentation::largest_case;
use crate::segmentation::write_segmentation;
use crate::train::slices::Classes;

/// The stage.
pub(crate) struct Ensemble;

/// The axis whose values name two configurations.
pub(crate) const PAIR: &str = "pair";
/// What stands between the two configurations of a pair.
pub(crate) const PAIR_SEPARATOR: char = '+';
/// The probability above which a voxel belongs to a region.
const REGION_THRESHOLD: f32 = 0.5;
/// Bytes for each voxel: the sum, a member, the best value so far, the labels twice.
const BYTES_A_VOXEL: u64 = 16;
/// Memory that any task needs.
const MEMORY_FLOOR: u64 = 64 << 20;

static SPEC: StageSpec = StageSpec {
    name: "ensemble",
    version: 1,
    summary: "averages the probabilities of several networks",
    docs: include_str!("ensemble/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "labels",
            kinds: &["labels"],
            read: Read::Whole,
            per_case: true,
            many: true,
            optional: false,
            doc: "the members' label images; one that is alone is passed on",
        },
        InputPort {
            name: "probabilities",
            kinds: &["probabilities"],
            read: Read::Whole,
            per_case: true,
            many: true,
            optional: true,
            doc: "the members' probabilities on the image's own grid; needed where there is more than one member",
        },
        InputPort {
            name: "cases",
            kinds: &["cases"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "the cases; read is the grid of the image, onto which labels are written",
        },
        InputPort {
            name: "choice",
            kinds: &["choice", "bundle"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: true,
            doc: "`choice.json` or `bundle.json`; read are the members, all others are left out",
        },
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
    outputs: &[
        OutputPort {
            name: "labels",
            kind: "labels",
            per_case: true,
            optional: false,
            document: None,
            doc: "`labels.nii.gz`, or with the dataset's own ending: labels on the image's own grid",
        },
        OutputPort {
            name: "probabilities",
            kind: "probabilities",
            per_case: true,
            optional: true,
            document: None,
            doc: "`probabilities.nna` (f32, [class, z, y, x]) on the image's own grid, if asked for",
        },
    ],
    parameters: &[Parameter {
        name: "probabilities",
        kind: ParameterKind::Boolean,
        default: "false",
        unit: "",
        doc: "whether the mean probabilities are kept too",
    }],
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[Phase {
        name: "case",
        kind: PhaseKind::PerCase,
        reads: &["labels", "probabilities", "cases", "choice", "description"],
        makes: &["labels", "probabilities"],
        parameters: None,
    }],
};

/// What is read of `dataset.json`, with the node's own pair, so that a member that is missing is noticed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    classes: Classes,
    pair: Option<String>,
}

/// What is read of a choice or a bundle.
#[derive(Debug, Serialize, Deserialize)]
struct Chosen {
    members: Vec<String>,
}

impl Stage for Ensemble {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, axes: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "description" => {
                let classes = Classes::slice(document)?;
                Ok(serde_json::json!({ "classes": classes, "pair": axes.get(PAIR) }))
            }
            "choice" => {
                let chosen = Chosen::deserialize(document).map_err(|error| {
                    StageError::input(format!("the document at input `choice` does not name members: {error}"))
                })?;
                slice(&chosen)
            }
            _ => Err(unknown_port(port)),
        }
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let kept = query.parameters.get("probabilities").unwrap_or(false);
        let documents = query.inputs.get("description").and_then(|members| members.first());
        let classes = documents.and_then(|member| match &member.value {
            InputValue::Document(document) => Declared::deserialize(document).ok(),
            _ => None,
        });
        let outputs = if kept { classes.map_or(0, |declared| declared.classes.outputs()) } else { 0 };
        let bytes_a_voxel = BYTES_A_VOXEL + 4 * outputs as u64;
        let memory_bytes = largest_case(query, "cases").saturating_mul(bytes_a_voxel).saturating_add(MEMORY_FLOOR);
        Resources { threads: 1, memory_bytes }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let kept: bool = context.parameters().get("probabilities")?;
        let Declared { classes, pair } = context.parsed("description")?;
        let wanted = wanted(context, pair.as_deref())?;
        let labels = members(context, "labels", wanted.as_deref())?;
        let probabilities = members(context, "probabilities", wanted.as_deref())?;
        if probabilities.len() != labels.len() && (labels.len() > 1 || kept) {
            return Err(without_probabilities(context.item()?, labels.len(), probabilities.len()));
        }
        if let [only] = labels.as_slice() {
            context.output("labels").forward_all(only);
            if kept {
                probabilities.iter().for_each(|only| context.output("probabilities").forward_all(only));
            }
            return Ok(());
        }
        average(context, &classes, &probabilities, kept)
    }
}

/// The configurations that shall take part; all that arrive where nothing says which.
fn wanted(context: &Context<'_>, pair: Option<&str>) -> Result<Option<Vec<String>>, StageError> {
    if context.members("choice").is_empty() {
        return Ok(pair.map(|pair| pair.split(PAIR_SEPARATOR).map(str::to_owned).collect()));
    }
    Ok(Some(context.parsed::<Chosen>("choice")?.members))
}

/// What the members that are wanted have at a port for the case.
fn members<'a>(context: &Context<'a>, port: &str, wanted: Option<&[String]>) -> Result<Vec<&'a Artifact>, StageError> {
    let configuration = |member: &Member| member.axes.get(CONFIGURATION).cloned().unwrap_or_default();
    let arrived = context.members(port);
    let taken: Vec<&Member> =
        arrived.iter().filter(|member| wanted.is_none_or(|wanted| wanted.contains(&configuration(member)))).collect();
    let missing = wanted.into_iter().flatten().find(|name| !taken.iter().any(|member| configuration(member) == **name));
    // Probabilities are missed only where they are needed.
    if let Some(name) = missing.filter(|_| port == "labels") {
        let case = context.item()?;
        return Err(StageError::input(format!("case `{case}` has no labels of the configuration `{name}`")));
    }
    let artifact = |member: &&'a Member| match &member.value {
        InputValue::One(artifact) => Ok(artifact),
        _ => Err(StageError::internal(format!("input `{port}` was read for one case, but is not"))),
    };
    taken.iter().map(artifact).collect()
}

fn without_probabilities(case: &str, labels: usize, probabilities: usize) -> StageError {
    StageError::input(format!(
        "case `{case}` has label images of {labels} networks, but probabilities of {probabilities}"
    ))
    .with_hint("connect `probabilities` to the same producers as `labels`, and let `predict` keep them: `with = { probabilities = true }`")
}

fn average(
    context: &mut Context<'_>,
    classes: &Classes,
    probabilities: &[&Artifact],
    kept: bool,
) -> Result<(), StageError> {
    let record = CaseRecord::read(context.artifact("cases")?)?;
    let mean = Mean::open(probabilities, &record, classes.outputs())?;
    let [z, y, x] = record.geometry.shape;
    let mut means = kept.then(|| Array4::zeros((classes.outputs(), z, y, x)));
    let labels = decide(classes, record.geometry.shape, |class| {
        context.check_cancelled()?;
        let mean = mean.class(class)?;
        if let Some(means) = &mut means {
            means.index_axis_mut(Axis(0), class).assign(&mean);
        }
        Ok(mean)
    })?;
    write_segmentation(&mut context.output("labels"), labels, &record.geometry, &record.file_ending)?;
    means.map_or(Ok(()), |means| write_probabilities(context, &means))
}

/// The labels that the probabilities of the classes, which are asked for one after the other, stand for.
fn decide(
    classes: &Classes,
    shape: [usize; 3],
    mut probabilities: impl FnMut(usize) -> Result<Array3<f32>, StageError>,
) -> Result<Array3<i16>, StageError> {
    if classes.regions.is_none() {
        let mut winner = ArgMax::new(shape);
        for class in 0..classes.outputs() {
            winner.offer(probabilities(class)?.view());
        }
        return Ok(classes.label_values(winner.into_labels()));
    }
    let mut labels = Array3::zeros(shape);
    for (region, &label) in classes.region_order()?.iter().enumerate() {
        paint_region(labels.view_mut(), probabilities(region)?.view(), REGION_THRESHOLD, label);
    }
    Ok(labels)
}

/// The mean of several members' probabilities, class by class.
struct Mean {
    members: Vec<ArrayFile>,
}

impl Mean {
    fn open(artifacts: &[&Artifact], record: &CaseRecord, classes: usize) -> Result<Self, StageError> {
        let [z, y, x] = record.geometry.shape;
        let expected = [classes, z, y, x];
        let members: Vec<ArrayFile> =
            artifacts.iter().map(|artifact| open(artifact, PROBABILITIES)).collect::<Result<_, _>>()?;
        match members.iter().map(ArrayFile::shape).find(|found| *found != expected) {
            Some(found) => Err(StageError::input(format!(
                "the probabilities of case `{}` have shape `{found:?}`, expected `{expected:?}` (class, z, y, x)",
                record.identifier
            ))),
            None => Ok(Self { members }),
        }
    }

    /// The sum in the order of the members, divided by their number.
    fn class(&self, class: usize) -> Result<Array3<f32>, StageError> {
        let read = |member: &ArrayFile| {
            let [_, z, y, x] = member.shape();
            let one = member.read_box(class..class + 1, [0; 3], [z, y, x], 0.0_f32).map_err(unreadable)?;
            Ok::<_, StageError>(one.index_axis_move(Axis(0), 0))
        };
        let mut members = self.members.iter();
        let first = members.next().ok_or_else(|| StageError::internal("there is no member to average"))?;
        let mut sum = read(first)?;
        for member in members {
            sum += &read(member)?;
        }
        let count = self.members.len() as f32;
        sum.par_mapv_inplace(|value| value / count);
        Ok(sum)
    }
}
