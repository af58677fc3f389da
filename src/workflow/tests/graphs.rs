//! The graph: how stages multiply, and which nodes are joined to which.

use insta::assert_snapshot;

use super::fixtures::{Fakes, HEAD, SOURCES, axis_values, open, opened, opened_with, options};
use crate::workflow::{Graph, LoadOptions, Node, Producer, build_graph};

fn base() -> Graph {
    opened(HEAD).1
}

fn node<'g>(graph: &'g Graph, name: &str) -> &'g Node {
    let found = graph.find(name).unwrap_or_else(|error| panic!("{error}"));
    graph.node(found[0])
}

/// The producers of an input, each with its output and what is told of its axes.
fn sources(graph: &Graph, name: &str, port: &str) -> Vec<String> {
    let input = node(graph, name).input(port);
    let sources = input.into_iter().flat_map(|input| &input.sources);
    let described = sources.map(|source| {
        let producer = match &source.producer {
            Producer::Node(index) => graph.node(*index).name.clone(),
            Producer::Source(name) => name.clone(),
        };
        let axes: Vec<_> = source.axes.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
        format!("{producer} {} {}", source.port.name, axes.join(",")).trim_end().to_owned()
    });
    described.collect()
}

fn names(graph: &Graph, pattern: &str) -> Vec<String> {
    let found = graph.find(pattern).unwrap_or_else(|error| panic!("{error}"));
    found.into_iter().map(|index| graph.node(index).name.clone()).collect()
}

#[test]
fn a_stage_has_a_node_for_each_combination_of_values() {
    let expected = [
        "train[2d,0]",
        "train[2d,1]",
        "train[3d_lowres,0]",
        "train[3d_lowres,1]",
        "train[3d_cascade,0]",
        "train[3d_cascade,1]",
    ];
    let graph = base();
    let mut found = names(&graph, "train");
    found.sort();
    let mut expected = expected.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn values_stand_in_the_order_of_over() {
    let (_, graph) = opened(&format!("{HEAD}[stages.predict]\nover = [\"fold\", \"configuration\"]\n"));
    assert_eq!(names(&graph, "predict[1,2d]"), ["predict[1,2d]"]);
}

#[test]
fn shared_axes_are_matched() {
    assert_eq!(sources(&base(), "predict[2d,1]", "model"), ["train[2d,1] model"]);
}

#[test]
fn an_axis_that_only_the_consumer_has_gives_every_node_the_same() {
    let graph = base();
    assert_eq!(sources(&graph, "train[2d,0]", "cases"), ["resample[2d] cases"]);
    assert_eq!(sources(&graph, "train[2d,1]", "cases"), ["resample[2d] cases"]);
}

#[test]
fn an_axis_that_only_the_producer_has_is_gathered() {
    assert_eq!(
        sources(&base(), "evaluate[2d]", "labels"),
        ["predict[2d,0] labels fold=0", "predict[2d,1] labels fold=1"]
    );
}

#[test]
fn a_pick_takes_one_value_and_tells_it() {
    assert_eq!(
        sources(&base(), "train[3d_cascade,1]", "previous"),
        ["predict[3d_lowres,1] next_stage configuration=3d_lowres"]
    );
}

#[test]
fn an_input_whose_condition_is_false_is_not_connected() {
    let graph = base();
    assert!(node(&graph, "train[2d,0]").input("previous").is_none());
    assert!(node(&graph, "train[3d_lowres,0]").input("previous").is_none());
}

#[test]
fn a_pair_picks_both_its_members() {
    let found = sources(&base(), "ensemble[2d+3d_cascade]", "probabilities");
    assert_eq!(
        found,
        [
            "predict[2d,0] probabilities configuration=2d,fold=0",
            "predict[2d,1] probabilities configuration=2d,fold=1",
            "predict[3d_cascade,0] probabilities configuration=3d_cascade,fold=0",
            "predict[3d_cascade,1] probabilities configuration=3d_cascade,fold=1",
        ]
    );
}

#[test]
fn a_pick_can_follow_another_axis_of_the_consumer() {
    let text = "[axes]\ntarget = [\"2d\", \"3d_lowres\"]\n[stages.compare]\nuses = \"evaluate\"\nover = [\"target\"]\n\
                inputs = { labels = \"predict[configuration=target,fold=0].labels\", references = \"ingest\" }\n";
    let (_, graph) = opened(&format!("{HEAD}{text}"));
    assert_eq!(
        sources(&graph, "compare[3d_lowres]", "labels"),
        ["predict[3d_lowres,0] labels configuration=3d_lowres,fold=0"]
    );
}

#[test]
fn pairs_are_all_unordered_pairs_in_order() {
    let found = names(&base(), "ensemble");
    assert_eq!(found, ["ensemble[2d+3d_lowres]", "ensemble[2d+3d_cascade]", "ensemble[3d_lowres+3d_cascade]"]);
}

#[test]
fn a_node_knows_the_members_of_its_pair() {
    let graph = base();
    assert_eq!(node(&graph, "ensemble[2d+3d_lowres]").members["pair"], ["2d", "3d_lowres"]);
}

#[test]
fn one_value_gives_no_pair_and_a_list_of_producers_goes_without() {
    let (_, graph) = opened(&format!("{HEAD}axes.configuration = [\"2d\"]\n"));
    assert_eq!(sources(&graph, "select", "summaries"), ["evaluate[2d] summary configuration=2d"]);
}

#[test]
fn several_references_stand_in_their_order() {
    let found = sources(&base(), "select", "summaries");
    assert_eq!(found.first().map(String::as_str), Some("evaluate[2d] summary configuration=2d"));
    assert_eq!(
        found.last().map(String::as_str),
        Some("evaluate_ensemble[3d_lowres+3d_cascade] summary pair=3d_lowres+3d_cascade")
    );
}

#[test]
fn a_source_is_told_apart_by_the_kind_that_is_needed() {
    let graph = base();
    assert_eq!(sources(&graph, "ingest", "files"), ["dataset cases"]);
    assert_eq!(sources(&graph, "plan", "description"), ["dataset description"]);
}

#[test]
fn inputs_stand_in_the_order_of_the_ports() {
    let (_, graph) =
        opened(&format!("{HEAD}[stages.plan]\ninputs = {{ description = \"dataset\", cases = \"ingest\" }}\n"));
    let ports: Vec<_> = node(&graph, "plan").inputs.iter().map(|input| input.port.name).collect();
    assert_eq!(ports, ["cases", "description"]);
}

#[test]
fn every_producer_comes_before_its_consumers() {
    let graph = base();
    let position = |index| graph.order().iter().position(|other| *other == index);
    assert_eq!(graph.order().len(), graph.inner().node_count());
    for edge in graph.inner().edge_indices() {
        let (from, to) = graph.inner().edge_endpoints(edge).expect("an edge has ends");
        assert!(position(from) < position(to), "{} before {}", graph.node(from).name, graph.node(to).name);
    }
}

#[test]
fn the_order_is_that_of_the_declaration_where_there_is_a_choice() {
    let graph = base();
    let order: Vec<_> = graph.order().iter().map(|index| graph.node(*index).name.as_str()).collect();
    assert_snapshot!(order.join("\n"), @r"
    ingest
    plan
    resample[2d]
    resample[3d_lowres]
    resample[3d_cascade]
    train[2d,0]
    train[2d,1]
    train[3d_lowres,0]
    train[3d_lowres,1]
    predict[2d,0]
    predict[2d,1]
    predict[3d_lowres,0]
    train[3d_cascade,0]
    predict[3d_lowres,1]
    train[3d_cascade,1]
    predict[3d_cascade,0]
    predict[3d_cascade,1]
    evaluate[2d]
    evaluate[3d_lowres]
    evaluate[3d_cascade]
    ensemble[2d+3d_lowres]
    ensemble[2d+3d_cascade]
    ensemble[3d_lowres+3d_cascade]
    evaluate_ensemble[2d+3d_lowres]
    evaluate_ensemble[2d+3d_cascade]
    evaluate_ensemble[3d_lowres+3d_cascade]
    select
    ");
}

#[test]
fn ancestors_are_all_that_a_node_needs() {
    let graph = base();
    let wanted = graph.find("train[3d_cascade,0]").expect("a node");
    let mut needed: Vec<_> =
        graph.ancestors(&wanted).into_iter().map(|index| graph.node(index).name.as_str()).collect();
    needed.sort_unstable();
    assert_eq!(
        needed,
        [
            "ingest",
            "plan",
            "predict[3d_lowres,0]",
            "resample[3d_cascade]",
            "resample[3d_lowres]",
            "train[3d_cascade,0]",
            "train[3d_lowres,0]"
        ]
    );
}

#[test]
fn descendants_are_all_that_need_a_node() {
    let graph = base();
    let wanted = graph.find("evaluate[2d]").expect("a node");
    let needing: Vec<_> = graph.descendants(&wanted).into_iter().map(|index| graph.node(index).name.as_str()).collect();
    assert_eq!(needing, ["evaluate[2d]", "select"]);
}

#[test]
fn patterns_name_nodes_by_position_by_axis_and_by_star() {
    let graph = base();
    assert_eq!(names(&graph, "train[2d,*]"), ["train[2d,0]", "train[2d,1]"]);
    assert_eq!(names(&graph, "train[fold=1,configuration=3d_c*]"), ["train[3d_cascade,1]"]);
    assert_eq!(names(&graph, "plan"), ["plan"]);
    assert_eq!(names(&graph, "resample[3d_*]"), ["resample[3d_lowres]", "resample[3d_cascade]"]);
}

#[test]
fn a_pattern_that_names_nothing_says_what_there_is() {
    let graph = base();
    let told: Vec<_> = ["trian", "train[3d]", "train[0][1]", "plan[2d]"]
        .map(|pattern| graph.find(pattern).expect_err("no such node").to_string())
        .to_vec();
    assert_snapshot!(told.join("\n\n"), @r"
    error: there is no stage `trian`
     --> node:1:1
      |
    1 | trian
      | ^^^^^ unknown stage
      |
      = hint: did you mean `train`?

    error: there is no node `train[3d]`
     --> node:1:1
      |
    1 | train[3d]
      | ^^^^^^^^^ no such node
      |
      = hint: axis `configuration` has `2d`, `3d_cascade`, `3d_lowres`

    error: `train[0][1]` does not name nodes
     --> node:1:1
      |
    1 | train[0][1]
      | ^^^^^^^^^^^ expected values such as `3d_fullres`, `*` or `fold=0` in the brackets
      |
      = hint: for example `train`, `train[3d_fullres,*]` or `train[fold=0]`

    error: `plan[2d]` does not fit the axes of `plan`
     --> node:1:1
      |
    1 | plan[2d]
      | ^^^^^^^^ `plan` runs over no axis
    ");
}

#[test]
fn a_condition_that_always_holds_is_gone_and_one_that_never_does_stays() {
    let (_, graph) = opened(&format!("{HEAD}stages.predict.when = \"configuration != '2d'\"\n"));
    assert!(node(&graph, "predict[3d_lowres,0]").condition.is_none());
    assert!(node(&graph, "predict[2d,0]").never_runs());
    assert!(!node(&graph, "train[2d,0]").never_runs());
}

#[test]
fn a_node_that_never_runs_may_lack_its_inputs() {
    let text = "[stages.train]\nwhen = \"configuration == '2d'\"\n\
                [stages.train.inputs]\nplan = { from = \"plan\", when = \"configuration == '2d'\" }\n";
    let (_, graph) = opened(&format!("{HEAD}{text}"));
    assert!(node(&graph, "train[3d_lowres,0]").input("plan").is_none());
}

#[test]
fn nodes_have_all_parameters() {
    let (_, graph) = opened_with(HEAD, &["stages.train.with.optimizer.name=adam"]);
    let parameters = serde_json::to_value(&node(&graph, "train[2d,0]").parameters).expect("JSON");
    assert_eq!(
        parameters,
        serde_json::json!({
            "epochs": 1000,
            "optimizer": { "name": "adam", "learning_rate": 0.01, "betas": [0.9, 0.999], "clip": null },
        })
    );
}

#[test]
fn a_stage_can_be_used_under_another_name() {
    let graph = base();
    let ensemble = node(&graph, "evaluate_ensemble[2d+3d_lowres]");
    assert_eq!((ensemble.uses, ensemble.stage.as_str()), ("evaluate", "evaluate_ensemble"));
}

#[test]
fn axes_of_the_model_have_the_values_that_are_given() {
    let options = LoadOptions { axis_values: axis_values("configuration", &["2d", "3d_lowres"]), ..options() };
    let (_, graph) =
        open(&format!("{HEAD}axes.configuration = {{ from = \"model\" }}\n"), &options).expect("nothing is wrong");
    assert_eq!(names(&graph, "resample"), ["resample[2d]", "resample[3d_lowres]"]);
    assert_eq!(names(&graph, "ensemble"), ["ensemble[2d+3d_lowres]"]);
}

#[test]
fn a_graph_of_thousands_of_nodes_is_whole() {
    let values: Vec<_> = (0..250).map(|number| number.to_string()).collect();
    let text = format!("{HEAD}[axes]\nfold = [{}]\n[stages.select]\nenabled = false\n", values.join(", "));
    let (workflow, graph) = opened(&text);
    let (single, configurations, pairs) = (2, 3, 3);
    assert_eq!(graph.len(), single + 2 * configurations + 2 * configurations * 250 + 2 * pairs);
    let again = build_graph(&workflow, &Fakes, SOURCES).expect("nothing is wrong");
    let order =
        |graph: &Graph| -> Vec<String> { graph.order().iter().map(|index| graph.node(*index).name.clone()).collect() };
    assert_eq!(order(&graph), order(&again));
}

#[test]
fn too_many_nodes_are_refused() {
    let values: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
    let axis = values.join(", ");
    let text = format!(
        "{HEAD}[axes]\na = [{axis}]\nb = [{axis}]\nc = [{axis}]\n[stages.plan]\nover = [\"a\", \"b\", \"c\"]\n"
    );
    let errors = open(&text, &options()).expect_err("a billion nodes").to_string();
    assert!(errors.contains("gives too many nodes"), "{errors}");
}

#[test]
fn too_many_connections_are_refused() {
    let values: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
    let axis = values.join(", ");
    let text = format!(
        "{HEAD}[axes]\na = [{axis}]\nb = [{axis}]\n[stages.many]\nuses = \"ingest\"\nover = [\"a\"]\ninputs.files = \"dataset\"\n\
         [stages.other]\nuses = \"plan\"\nover = [\"b\"]\ninputs = {{ cases = \"many\", description = \"dataset\" }}\n"
    );
    let errors = open(&text, &options()).expect_err("a million connections").to_string();
    assert!(errors.contains("connections"), "{errors}");
}

#[test]
fn the_graph_is_drawn_for_graphviz() {
    let (_, graph) = opened(SMALL);
    assert_snapshot!(graph.to_dot(), @r#"
    digraph workflow {
      rankdir=LR;
      node [shape=box, fontname="sans-serif"];
      "dataset" [shape=cylinder];
      "ingest";
      "plan";
      "resample[2d]";
      "resample[3d]";
      "dataset" -> "ingest";
      "dataset" -> "plan";
      "ingest" -> "plan";
      "ingest" -> "resample[2d]";
      "plan" -> "resample[2d]";
      "ingest" -> "resample[3d]";
      "plan" -> "resample[3d]";
    }
    "#);
}

#[test]
fn the_graph_is_drawn_for_mermaid() {
    let (_, graph) = opened(SMALL);
    assert_snapshot!(graph.to_mermaid(), @r#"
    flowchart LR
      dataset[("dataset")]
      ingest["ingest"]
      plan["plan"]
      resample_5b_2d_5d_["resample[2d]"]
      resample_5b_3d_5d_["resample[3d]"]
      dataset --> ingest
      dataset --> plan
      ingest --> plan
      ingest --> resample_5b_2d_5d_
      plan --> resample_5b_2d_5d_
      ingest --> resample_5b_3d_5d_
      plan --> resample_5b_3d_5d_
    "#);
}

#[test]
fn the_graph_is_drawn_by_stages() {
    let drawing = base().to_svg();
    assert_eq!(drawing.matches("<rect").count(), 1 + 1 + 9, "the paper, the dataset and nine stages");
    assert!(drawing.contains("configuration × fold: 6"), "{drawing}");
    assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>\n"));
}

/// A workflow with few nodes.
const SMALL: &str = "dataset.path = \"data\"\naxes.configuration = [\"2d\", \"3d\"]\n\
                     stages.ingest.inputs.files = \"dataset\"\n\
                     stages.plan.inputs = { cases = \"ingest\", description = \"dataset\" }\n\
                     [stages.resample]\nover = [\"configuration\"]\ninputs = { cases = \"ingest\", plan = \"plan\" }\n";
