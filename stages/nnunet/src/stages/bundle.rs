//! `bundle`: one artifact with all that is needed to segment new images.

use std::collections::BTreeMap;
use std::path::Path;

use nnflow_io::json::float;
use nnflow_io::plans::{Plans, PlansError};
use nnflow_stage::{
    Artifact, Axes, Context, FileRef, InputPort, InputValue, Member, OutputPort, Parameter, ParameterKind, Parameters,
    Phase, PhaseKind, Read, ResourceQuery, Resources, Runner, Stage, StageError, StageSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::postprocess::rules::RULES;
use super::select::Choice;
use crate::documents::{CONFIGURATION, slice, unknown_port};
use crate::segmentation::write_document;
use crate::train::model::{RECORD, WEIGHTS};
use crate::train::slices::FOLD;

/// The stage.
pub(crate) struct BundleStage;

/// What is in the bundle, a [`Bundle`].
pub(crate) const BUNDLE: &str = "bundle.json";
/// The version of its form.
const BUNDLE_VERSION: u32 = 1;
/// The plan, and the description of the dataset.
const PLANS: &str = "plans.json";
const DESCRIPTION: &str = "dataset.json";
/// Memory for a few documents.
const MEMORY: u64 = 64 << 20;

static SPEC: StageSpec = StageSpec {
    name: "bundle",
    version: 1,
    summary: "collects the networks and all else that prediction needs",
    docs: include_str!("bundle/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "models",
            kinds: &["model"],
            read: Read::Whole,
            per_case: false,
            many: true,
            optional: false,
            doc: "the networks of all configurations and folds",
        },
        InputPort {
            name: "choice",
            kinds: &["choice"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`choice.json`; read are the members and their score",
        },
        InputPort {
            name: "rules",
            kinds: &["rules"],
            read: Read::Whole,
            per_case: false,
            many: false,
            optional: false,
            doc: "`postprocessing.json`",
        },
        InputPort {
            name: "plan",
            kinds: &["plan"],
            read: Read::Whole,
            per_case: false,
            many: false,
            optional: false,
            doc: "`plans.json`",
        },
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Whole,
            per_case: false,
            many: false,
            optional: false,
            doc: "`dataset.json`",
        },
    ],
    outputs: &[OutputPort {
        name: "bundle",
        kind: "bundle",
        per_case: false,
        optional: false,
        document: Some(BUNDLE),
        doc: "`bundle.json`, `dataset.json`, `plans.json`, `postprocessing.json`, `models/<configuration>/fold_<fold>/{weights.safetensors,model.json}`",
    }],
    parameters: &[Parameter {
        name: "recipe",
        kind: ParameterKind::Text,
        default: "\"predict\"",
        unit: "",
        doc: "the recipe that treats new images as the training cases were treated",
    }],
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[Phase {
        name: "bundle",
        kind: PhaseKind::Whole,
        reads: &["models", "choice", "rules", "plan", "description"],
        makes: &["bundle"],
        parameters: None,
    }],
};

/// What is read of `choice.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    members: Vec<String>,
    #[serde(with = "float")]
    score: f64,
}

/// What is in a bundle.
#[derive(Debug, Serialize)]
pub(crate) struct Bundle {
    version: u32,
    /// The recipe that segments new images.
    recipe: String,
    /// The values of a workflow's axes that the model decides.
    axes: BTreeMap<&'static str, Vec<String>>,
    /// The configurations whose probabilities are averaged.
    members: Vec<String>,
    /// The folds of each configuration.
    folds: BTreeMap<String, Vec<String>>,
    /// Mean foreground Dice of the members in cross-validation.
    #[serde(with = "float")]
    score: f64,
}

impl Bundle {
    /// A bundle of these configurations, in the order in which prediction runs them, of which the members are averaged.
    pub(crate) fn new(
        recipe: String,
        configurations: Vec<String>,
        members: Vec<String>,
        folds: BTreeMap<String, Vec<String>>,
        score: f64,
    ) -> Self {
        let axes = BTreeMap::from([(CONFIGURATION, configurations)]);
        Self { version: BUNDLE_VERSION, recipe, axes, members, folds, score }
    }
}

impl Stage for BundleStage {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, _: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "choice" => {
                let Choice { members, score, .. } = Choice::from_document(document)?;
                slice(&Chosen { members, score })
            }
            _ => Err(unknown_port(port)),
        }
    }

    fn resources(&self, _: &ResourceQuery<'_>) -> Resources {
        // Weights are passed on and never read.
        Resources { threads: 1, memory_bytes: MEMORY }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let Chosen { members, score } = context.parsed("choice")?;
        let configurations = with_previous_stages(&members, &plans(context)?)?;
        let models = models(context.members("models"))?;
        let documents = [("description", DESCRIPTION), ("plan", PLANS), ("rules", RULES)];
        for (port, name) in documents {
            let file = file(context.artifact(port)?, name, port)?;
            context.output("bundle").forward(name, file);
        }
        let mut folds = BTreeMap::new();
        for (configuration, networks) in networks_of(&configurations, &models)? {
            forward_networks(context, configuration, networks)?;
            folds.insert(configuration.to_owned(), networks.iter().map(|(fold, _)| (*fold).to_owned()).collect());
        }
        let recipe = context.parameters().get("recipe")?;
        let bundle = Bundle::new(recipe, configurations, members, folds, score);
        write_document(&mut context.output("bundle"), BUNDLE, &bundle)
    }
}

/// The fold and the files of a network.
type Network<'a> = (&'a str, &'a Artifact);
/// The networks of each configuration in the order in which they arrived.
type Networks<'a> = BTreeMap<&'a str, Vec<Network<'a>>>;

fn models(members: &[Member]) -> Result<Networks<'_>, StageError> {
    let mut networks = Networks::new();
    for member in members {
        let axis = |name: &str| {
            member.axes.get(name).map(String::as_str).ok_or_else(|| {
                StageError::input(format!("a model arrived without its value on the axis `{name}`"))
                    .with_hint("`bundle` gathers models over `configuration` and `fold`: run it over none of them")
            })
        };
        let (configuration, fold) = (axis(CONFIGURATION)?, axis(FOLD)?);
        let InputValue::One(artifact) = &member.value else {
            return Err(StageError::internal("input `models` was read as artifacts, but is something else"));
        };
        let folds = networks.entry(configuration).or_default();
        if folds.iter().any(|(other, _)| *other == fold) {
            return Err(StageError::input(format!("two models of `{configuration}`, fold `{fold}` arrived")));
        }
        folds.push((fold, artifact));
    }
    Ok(networks)
}

/// The networks of these configurations.
fn networks_of<'a, 'b>(
    configurations: &'b [String],
    models: &'b Networks<'a>,
) -> Result<Vec<(&'b str, &'b Vec<Network<'a>>)>, StageError> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in configurations {
        match models.get(name.as_str()) {
            Some(networks) => found.push((name.as_str(), networks)),
            None => missing.push(format!("no model of configuration `{name}` arrived")),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    Err(StageError::input("the bundle lacks networks").with_details(missing))
}

fn forward_networks(
    context: &mut Context<'_>,
    configuration: &str,
    networks: &[Network<'_>],
) -> Result<(), StageError> {
    for (fold, artifact) in networks {
        for name in [WEIGHTS, RECORD] {
            let file = file(artifact, name, "models")?;
            context.output("bundle").forward(&format!("models/{configuration}/fold_{fold}/{name}"), file);
        }
    }
    Ok(())
}

fn plans(context: &Context<'_>) -> Result<Plans, StageError> {
    let text = fs_err::read(context.file("plan", PLANS)?)?;
    Plans::from_slice(&text, Path::new(PLANS)).map_err(unusable_plan)
}

/// The members, each after the configurations whose segmentations it takes as input.
fn with_previous_stages(members: &[String], plans: &Plans) -> Result<Vec<String>, StageError> {
    let mut previous: Vec<String> = Vec::new();
    for member in members {
        let mut chain = Vec::new();
        let mut stage = plans.configuration(member).map_err(unusable_plan)?.previous_stage;
        while let Some(name) = stage {
            if chain.contains(&name) {
                return Err(StageError::input(format!("`previous_stage` of the plan leads from `{name}` back to it")));
            }
            stage = plans.configuration(&name).map_err(unusable_plan)?.previous_stage;
            chain.push(name);
        }
        previous.extend(chain.into_iter().rev());
    }
    let mut ordered: Vec<String> = Vec::new();
    for name in previous.iter().chain(members) {
        if !ordered.contains(name) {
            ordered.push(name.clone());
        }
    }
    Ok(ordered)
}

fn file<'a>(artifact: &'a Artifact, name: &str, port: &str) -> Result<&'a FileRef, StageError> {
    artifact.file(name).ok_or_else(|| StageError::input(format!("input `{port}` has no file `{name}`")))
}

fn unusable_plan(error: PlansError) -> StageError {
    StageError::input(error.to_string())
}
