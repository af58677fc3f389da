//! A small pipeline of stages that do nothing, and a recipe made of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nnflow_stage::{
    Context, InputPort, OutputPort, Parameter, ParameterKind, Read, Runner, Stage, StageError, StageSpec,
};

use crate::diagnostic::{Diagnostics, Source, SourceKind};
use crate::workflow::{Graph, LoadOptions, Recipe, SourceSpec, StageTable, Workflow, graph, settled, understand};

const fn input(name: &'static str, kinds: &'static [&'static str]) -> InputPort {
    InputPort { name, kinds, read: Read::Whole, per_case: false, many: false, optional: false, doc: "" }
}

const fn cases(name: &'static str, kinds: &'static [&'static str]) -> InputPort {
    InputPort { per_case: true, ..input(name, kinds) }
}

const fn output(name: &'static str, kind: &'static str) -> OutputPort {
    OutputPort { name, kind, per_case: false, optional: false, document: None, doc: "" }
}

const fn case_output(name: &'static str, kind: &'static str) -> OutputPort {
    OutputPort { per_case: true, ..output(name, kind) }
}

const EMPTY: StageSpec = StageSpec {
    name: "",
    version: 1,
    summary: "",
    docs: "",
    runner: Runner::Native,
    inputs: &[],
    outputs: &[],
    parameters: &[],
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[],
};

const fn parameter(name: &'static str, kind: ParameterKind, default: &'static str) -> Parameter {
    Parameter { name, kind, default, unit: "", doc: "" }
}

const RATE: ParameterKind = ParameterKind::Number { minimum: 0.0, maximum: 1.0 };

const OPTIMIZER: &[Parameter] = &[
    parameter("name", ParameterKind::Choice(&["sgd", "adam"]), "\"sgd\""),
    parameter("learning_rate", RATE, "0.01"),
    parameter("betas", ParameterKind::List(&RATE), "[0.9, 0.999]"),
    parameter("clip", ParameterKind::Optional(&RATE), "null"),
];

static SPECS: &[Fake] = &[
    Fake(StageSpec {
        name: "ingest",
        inputs: &[cases("files", &["raw"])],
        outputs: &[case_output("cases", "cases")],
        ..EMPTY
    }),
    Fake(StageSpec {
        name: "plan",
        inputs: &[
            InputPort { read: Read::Names, ..cases("cases", &["cases"]) },
            input("description", &["description"]),
        ],
        outputs: &[output("plan", "plan"), output("reasons", "reasons")],
        ..EMPTY
    }),
    Fake(StageSpec {
        name: "resample",
        inputs: &[cases("cases", &["cases"]), input("plan", &["plan"])],
        outputs: &[case_output("cases", "prepared")],
        parameters: &[parameter("image_order", ParameterKind::Integer { minimum: 0, maximum: 5 }, "3")],
        axes: &["configuration"],
        ..EMPTY
    }),
    Fake(StageSpec {
        name: "train",
        inputs: &[
            cases("cases", &["prepared"]),
            input("plan", &["plan"]),
            InputPort { optional: true, ..cases("previous", &["labels"]) },
        ],
        outputs: &[output("model", "model")],
        parameters: &[
            parameter("epochs", ParameterKind::Integer { minimum: 1, maximum: 100_000 }, "1000"),
            parameter("optimizer", ParameterKind::Table(OPTIMIZER), "{}"),
        ],
        axes: &["configuration", "fold"],
        draws: true,
        resumes: false,
        ..EMPTY
    }),
    Fake(StageSpec {
        name: "predict",
        inputs: &[cases("cases", &["prepared"]), input("model", &["model"])],
        outputs: &[
            case_output("labels", "labels"),
            case_output("next_stage", "labels"),
            case_output("probabilities", "probabilities"),
        ],
        ..EMPTY
    }),
    Fake(StageSpec {
        name: "ensemble",
        inputs: &[InputPort { many: true, ..cases("probabilities", &["probabilities"]) }, input("plan", &["plan"])],
        outputs: &[case_output("labels", "labels"), case_output("mean", "probabilities")],
        ..EMPTY
    }),
    Fake(StageSpec {
        name: "evaluate",
        inputs: &[cases("labels", &["labels"]), cases("references", &["cases"])],
        outputs: &[OutputPort { document: Some("summary.json"), ..output("summary", "summary") }],
        ..EMPTY
    }),
    Fake(StageSpec {
        name: "select",
        inputs: &[InputPort { many: true, ..input("summaries", &["summary"]) }],
        outputs: &[output("choice", "choice")],
        ..EMPTY
    }),
    Fake(StageSpec {
        name: "show",
        inputs: &[input("model", &["model", "choice"])],
        outputs: &[output("page", "page")],
        ..EMPTY
    }),
];

/// A stage that is only declared.
#[derive(Debug)]
struct Fake(StageSpec);

impl Stage for Fake {
    fn spec(&self) -> &'static StageSpec {
        let own = SPECS.iter().find(|other| other.0.name == self.0.name);
        &own.expect("invariant: every fake stands in the table").0
    }

    fn run(&self, _: &mut Context<'_>) -> Result<(), StageError> {
        Err(StageError::internal("a fake does nothing"))
    }
}

/// The stages above.
pub(super) struct Fakes;

impl StageTable for Fakes {
    fn stage(&self, name: &str) -> Option<&'static dyn Stage> {
        SPECS.iter().find(|fake| fake.0.name == name).map(|fake| fake as &dyn Stage)
    }

    fn names(&self) -> Vec<&'static str> {
        SPECS.iter().map(|fake| fake.0.name).collect()
    }
}

/// What the engine gives.
pub(super) const SOURCES: &[SourceSpec] = &[
    SourceSpec { name: "dataset", outputs: &[case_output("cases", "raw"), output("description", "description")] },
    SourceSpec { name: "model", outputs: &[output("model", "model"), output("plan", "plan")] },
];

/// A whole pipeline with a cascade and with pairs, as the real recipes have.
pub(super) const BASE: &str = r#"
[axes]
configuration = ["2d", "3d_lowres", "3d_cascade"]
fold = [0, 1]
pair = { pairs = "configuration" }

[stages.ingest]
inputs = { files = "dataset" }

[stages.plan]
inputs = { cases = "ingest", description = "dataset" }

[stages.resample]
over = ["configuration"]
when = "configuration in plan"
store = false
inputs = { cases = "ingest", plan = "plan" }

[stages.train]
over = ["configuration", "fold"]
when = "configuration in plan"
inputs.cases = "resample"
inputs.plan = "plan"
inputs.previous = { from = "predict[configuration=3d_lowres].next_stage", when = "configuration == '3d_cascade'" }

[stages.predict]
over = ["configuration", "fold"]
inputs = { cases = "resample", model = "train" }

[stages.evaluate]
over = ["configuration"]
inputs = { labels = "predict.labels", references = "ingest" }

[stages.ensemble]
over = ["pair"]
when = "pair in plan and every probabilities"
inputs = { probabilities = "predict[configuration=pair]", plan = "plan" }

[stages.evaluate_ensemble]
uses = "evaluate"
over = ["pair"]
inputs = { labels = "ensemble", references = "ingest" }

[stages.select]
inputs = { summaries = ["evaluate", "evaluate_ensemble"] }
"#;

pub(super) const RECIPES: &[Recipe] = &[
    Recipe { name: "base", text: BASE },
    Recipe {
        name: "slow",
        text: "extends = \"base\"\nname = \"slow\"\nseed = 7\n\n[stages.train.with]\nepochs = 2000\n",
    },
];

pub(super) fn options() -> LoadOptions<'static> {
    LoadOptions { recipes: RECIPES, ..LoadOptions::default() }
}

/// The first lines of a workflow that has nothing wrong.
pub(super) const HEAD: &str = "extends = \"base\"\ndataset.path = \"data\"\n";

/// Loads a text and builds its graph, as [`crate::workflow::load_graph`] does with a file.
pub(super) fn open(text: &str, options: &LoadOptions<'_>) -> Result<(Workflow, Graph), Diagnostics> {
    let source = Source::new("spleen.toml", text, SourceKind::Generated);
    let (workflow, mut diagnostics) = understand(source, Some(Path::new("/work")), options)?;
    let graph = graph::build(&workflow, &Fakes, SOURCES, &mut diagnostics);
    let root = Arc::clone(&workflow.root);
    settled((workflow, graph), diagnostics, &root)
}

/// The workflow and the graph of a text that has nothing wrong.
pub(super) fn opened(text: &str) -> (Workflow, Graph) {
    open(text, &options()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Everything that is wrong with a text, as it is shown.
pub(super) fn errors(text: &str) -> String {
    open(text, &options()).expect_err("something is wrong with this workflow").to_string()
}

/// Everything that is wrong with what stands below the head of a workflow.
pub(super) fn errors_below_head(text: &str) -> String {
    errors(&format!("{HEAD}{text}"))
}

/// Everything that is wrong with these arguments of `--set`.
pub(super) fn set_errors(sets: &[&str]) -> String {
    let options = LoadOptions { sets: sets.iter().map(|set| (*set).to_owned()).collect(), ..options() };
    open(HEAD, &options).expect_err("something is wrong with these arguments").to_string()
}

/// The workflow and the graph with these arguments of `--set`.
pub(super) fn opened_with(text: &str, sets: &[&str]) -> (Workflow, Graph) {
    let options = LoadOptions { sets: sets.iter().map(|set| (*set).to_owned()).collect(), ..options() };
    open(text, &options).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Axis values for [`LoadOptions::axis_values`].
pub(super) fn axis_values(axis: &str, values: &[&str]) -> BTreeMap<String, Vec<String>> {
    BTreeMap::from([(axis.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())])
}
