//! The expanded workflow: it says everything, and means the same.

use insta::assert_snapshot;
use nnflow_stage::Axes;

use super::fixtures::{Fakes, HEAD, opened, opened_with};
use crate::workflow::{Graph, Producer, expand};

/// A workflow that says something of everything.
const FULL: &str = r#"
extends = "slow"
name = "liver"

[dataset]
path = "data/liver"
cases = ["a", "b"]

[axes]
fold = [0, 4]

[stages.train.with]
optimizer = { name = "adam", clip = 0.5 }

[stages.train.resources]
memory = "12 GiB"

[stages.select]
enabled = false

[stages.show]
uses = "show"
over = ["fold"]
when = "fold != '4' and not every model"
inputs.model = { from = "train[configuration=2d]", when = "fold in ['0', '4']" }

[expect]
"evaluate.foreground_mean.dice" = ">= 0.88"
"train.wall_seconds" = { max = 7200, severity = "warn" }

[settings]
threads = 4
"#;

#[test]
fn everything_is_told_with_its_origin() {
    let (workflow, _) = opened_with(FULL, &["stages.train.with.epochs=5"]);
    assert_snapshot!(expand(&workflow, &Fakes), @r#"
    name = "liver"  # spleen.toml:3
    seed = 7  # recipe slow:3

    [dataset]
    path = "data/liver"  # spleen.toml:6
    cases = ["a", "b"]  # spleen.toml:7

    [axes]
    configuration = ["2d", "3d_lowres", "3d_cascade"]  # recipe base:3
    fold = { values = [0, 4], known = [1] }  # spleen.toml:10
    pair = { pairs = "configuration" }  # recipe base:5

    [stages.ingest]
    uses = "ingest"  # the table's name
    store = true  # default

    [stages.ingest.inputs]
    files = "dataset"  # recipe base:8

    [stages.plan]
    uses = "plan"  # the table's name
    store = true  # default

    [stages.plan.inputs]
    cases = "ingest"  # recipe base:11
    description = "dataset"  # recipe base:11

    [stages.resample]
    uses = "resample"  # the table's name
    over = ["configuration"]  # recipe base:14
    when = "configuration in plan"  # recipe base:15
    store = false  # recipe base:16

    [stages.resample.inputs]
    cases = "ingest"  # recipe base:17
    plan = "plan"  # recipe base:17

    [stages.resample.with]
    image_order = 3  # default

    [stages.train]
    uses = "train"  # the table's name
    over = ["configuration", "fold"]  # recipe base:20
    when = "configuration in plan"  # recipe base:21
    store = true  # default

    [stages.train.inputs]
    cases = "resample"  # recipe base:22
    plan = "plan"  # recipe base:23
    previous = { from = "predict[configuration=3d_lowres].next_stage", when = "configuration == '3d_cascade'" }  # recipe base:24

    [stages.train.resources]
    memory = "12 GiB"  # spleen.toml:16

    [stages.train.with]
    epochs = 5  # --set

    [stages.train.with.optimizer]
    name = "adam"  # spleen.toml:13
    learning_rate = 0.01  # default
    betas = [0.9, 0.999]  # default
    clip = 0.5  # spleen.toml:13

    [stages.predict]
    uses = "predict"  # the table's name
    over = ["configuration", "fold"]  # recipe base:27
    store = true  # default

    [stages.predict.inputs]
    cases = "resample"  # recipe base:28
    model = "train"  # recipe base:28

    [stages.evaluate]
    uses = "evaluate"  # the table's name
    over = ["configuration"]  # recipe base:31
    store = true  # default

    [stages.evaluate.inputs]
    labels = "predict.labels"  # recipe base:32
    references = "ingest"  # recipe base:32

    [stages.ensemble]
    uses = "ensemble"  # the table's name
    over = ["pair"]  # recipe base:35
    when = "pair in plan and every probabilities"  # recipe base:36
    store = true  # default

    [stages.ensemble.inputs]
    probabilities = "predict[configuration=pair]"  # recipe base:37
    plan = "plan"  # recipe base:37

    [stages.evaluate_ensemble]
    uses = "evaluate"  # recipe base:40
    over = ["pair"]  # recipe base:41
    store = true  # default

    [stages.evaluate_ensemble.inputs]
    labels = "ensemble"  # recipe base:42
    references = "ingest"  # recipe base:42

    [stages.show]
    uses = "show"  # spleen.toml:22
    over = ["fold"]  # spleen.toml:23
    when = "fold != '4' and not every model"  # spleen.toml:24
    store = true  # default

    [stages.show.inputs]
    model = { from = "train[configuration=2d]", when = "fold in ['0', '4']" }  # spleen.toml:25

    [expect]
    "evaluate.foreground_mean.dice" = ">= 0.88"  # spleen.toml:28
    "train.wall_seconds" = { max = 7200, severity = "warn" }  # spleen.toml:29

    [settings]
    threads = 4  # spleen.toml:32
    "#);
}

/// All that a graph says, in its order.
fn described(graph: &Graph) -> Vec<String> {
    let describe = |index: &_| {
        let node = graph.node(*index);
        let mut text = format!("{} {} {:?} {:?} {}", node.name, node.uses, node.parameters, node.resources, node.store);
        text.push_str(&node.condition.as_ref().map(ToString::to_string).unwrap_or_default());
        for input in &node.inputs {
            for source in &input.sources {
                let producer = match &source.producer {
                    Producer::Node(index) => &graph.node(*index).name,
                    Producer::Source(name) => name,
                };
                let axes: &Axes = &source.axes;
                text.push_str(&format!(" {} {producer} {} {axes:?}", input.port.name, source.port.name));
            }
        }
        text
    };
    graph.order().iter().map(describe).collect()
}

#[test]
fn the_expanded_workflow_means_the_same() {
    for text in [HEAD, FULL] {
        let (workflow, graph) = opened(text);
        let (again, expanded) = opened(&expand(&workflow, &Fakes));
        assert_eq!(described(&graph), described(&expanded));
        assert_eq!((again.seed, again.name), (workflow.seed, workflow.name));
        assert_eq!(
            again.dataset.map(|dataset| (dataset.source, dataset.cases)),
            workflow.dataset.map(|dataset| (dataset.source, dataset.cases))
        );
    }
}

#[test]
fn the_expanded_workflow_is_expanded() {
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
    };
    let once = expand(&opened(FULL).0, &Fakes);
    let twice = expand(&opened(&once).0, &Fakes);
    assert_eq!(values(&once), values(&twice));
}
