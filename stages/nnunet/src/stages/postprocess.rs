//! `postprocess`: rules that remove what is more likely a mistake than anatomy.

mod examples;
mod find;
mod label_map;
pub(crate) mod rules;

use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameter, ParameterKind, Parameters, Phase, PhaseKind, Read, ResourceQuery,
    Resources, Runner, Stage, StageError, StageSpec,
};
use serde_json::Value;

use self::examples::{BYTES_A_VOXEL, Cases};
use self::label_map::LabelMap;
use self::rules::{RULES, Rules, apply_all};
use super::evaluate::measures::Targets;
use crate::documents::unknown_port;
use crate::segmentation::{Segmentation, ending_of, largest_case, write_document, write_segmentation};

/// The stage.
pub(crate) struct Postprocess;

/// How many cases are looked at together while rules are sought, if the memory is there.
const CASES_AT_ONCE: u64 = 4;
/// Memory that any task needs.
const MEMORY_FLOOR: u64 = 64 << 20;

static SPEC: StageSpec = StageSpec {
    name: "postprocess",
    version: 1,
    summary: "finds out which component rules help, and applies them",
    docs: include_str!("postprocess/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "labels",
            kinds: &["labels"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "the label images that the rules are applied to",
        },
        InputPort {
            name: "examples",
            kinds: &["labels"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: true,
            doc: "label images of cross-validation, to find out which rules help; needed for `nnunet-v2`",
        },
        InputPort {
            name: "references",
            kinds: &["cases"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: true,
            doc: "the training cases with their labels; needed unless there are no rules to be found",
        },
        InputPort {
            name: "given",
            kinds: &["rules"],
            read: Read::Whole,
            per_case: false,
            many: false,
            optional: true,
            doc: "rules that are known already; none are sought then",
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
            name: "rules",
            kind: "rules",
            per_case: false,
            optional: false,
            document: Some(RULES),
            doc: "`postprocessing.json`: the rules, and the means before and after",
        },
        OutputPort {
            name: "labels",
            kind: "labels",
            per_case: true,
            optional: false,
            document: None,
            doc: "the label images with the rules applied",
        },
    ],
    parameters: &[Parameter {
        name: "method",
        kind: ParameterKind::Choice(&["nnunet-v2", "nnunet-2018", "none"]),
        default: "\"nnunet-v2\"",
        unit: "",
        doc: "how rules are found: by the Dice of cross-validation, by the components of the references, or not at all",
    }],
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[
        Phase {
            name: "fit",
            kind: PhaseKind::Whole,
            reads: &["examples", "references", "given", "description"],
            makes: &["rules"],
            parameters: None,
        },
        Phase {
            name: "apply",
            kind: PhaseKind::PerCase,
            reads: &["labels", "rules"],
            makes: &["labels"],
            parameters: Some(&[]),
        },
    ],
};

impl Stage for Postprocess {
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
        let (threads, voxels) = match query.phase {
            "fit" => (0, largest_case(query, "references").saturating_mul(CASES_AT_ONCE)),
            _ => (1, largest_case(query, "labels")),
        };
        Resources { threads, memory_bytes: voxels.saturating_mul(BYTES_A_VOXEL).saturating_add(MEMORY_FLOOR) }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        match context.phase() {
            "fit" => fit(context),
            _ => apply(context),
        }
    }
}

fn fit(context: &mut Context<'_>) -> Result<(), StageError> {
    if let Some(given) = context.optional_artifact("given")? {
        Rules::read(given)?;
        context.output("rules").forward_all(given);
        return Ok(());
    }
    let method: String = context.parameters().get("method")?;
    let targets: Targets = context.parsed("description")?;
    let rules = match method.as_str() {
        "nnunet-v2" => find::validated(&Cases::with_references(context)?, &targets)?,
        "nnunet-2018" => find::always_single(&Cases::references(context)?, &targets)?,
        _ => Rules::unproven(Vec::new()),
    };
    write_document(&mut context.output("rules"), RULES, &rules)
}

fn apply(context: &mut Context<'_>) -> Result<(), StageError> {
    let case = context.item()?;
    let artifact = context.artifact("labels")?;
    let rules = Rules::read(context.artifact("rules")?)?;
    if rules.steps.is_empty() {
        context.output("labels").forward_all(artifact);
        return Ok(());
    }
    let Segmentation { labels, geometry } = Segmentation::read(artifact, case)?;
    let mut map = LabelMap::new(labels);
    let mut output = context.output("labels");
    if apply_all(&rules.steps, &mut map) {
        write_segmentation(&mut output, map.labels().to_owned(), &geometry, ending_of(artifact, case)?)
    } else {
        output.forward_all(artifact);
        Ok(())
    }
}
