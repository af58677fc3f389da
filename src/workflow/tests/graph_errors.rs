//! What a person sees whose stages cannot be joined to a graph.

use insta::assert_snapshot;

use super::fixtures::errors_below_head;

#[test]
fn an_axis_that_the_stage_needs_is_missing() {
    assert_snapshot!(errors_below_head(
        r#"[stages.resample]
over = []
when = "every plan"
"#,
    ), @r#"
    error: `resample` must run over axis `configuration`
      --> recipe base:13:9
       |
    13 | [stages.resample]
       |         ^^^^^^^^ `resample` looks up what it needs by `configuration`
       |
       = hint: add "configuration" to `stages.resample.over`
    "#);
}

#[test]
fn a_pick_names_an_axis_that_the_producer_lacks() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
plan = "plan[configuration=2d]"
cases = "resample[config=2d]"
"#,
    ), @r#"
    error: `plan` does not run over an axis `configuration`
     --> spleen.toml:4:14
      |
    4 | plan = "plan[configuration=2d]"
      |              ^^^^^^^^^^^^^ `plan` runs over no axis

    error: `resample` does not run over an axis `config`
     --> spleen.toml:5:19
      |
    5 | cases = "resample[config=2d]"
      |                   ^^^^^^ `resample` runs over `configuration`
      |
      = hint: did you mean `configuration`?
    "#);
}

#[test]
fn a_pick_names_an_unknown_value() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
cases = "resample[configuration=3d_lowers]"
"#,
    ), @r#"
    error: axis `configuration` has no value `3d_lowers`
     --> spleen.toml:4:33
      |
    4 | cases = "resample[configuration=3d_lowers]"
      |                                 ^^^^^^^^^ neither a value of `configuration` nor an axis of `train`
      |
      = hint: did you mean `3d_lowres`?
    "#);
}

#[test]
fn a_pick_names_a_value_that_was_narrowed_away() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
configuration = ["2d", "3d_cascade"]
"#,
    ), @r#"
    error: axis `configuration` lacks the value `3d_lowres` in this workflow
      --> recipe base:24:51
       |
    24 | inputs.previous = { from = "predict[configuration=3d_lowres].next_stage", when = "configuration == '3d_cascade'" }
       |                                                   ^^^^^^^^^ picked here
       |
      ::: spleen.toml:4:1
       |
     4 | configuration = ["2d", "3d_cascade"]
       | ------------- has `2d`, `3d_cascade`
       |
       = hint: add "3d_lowres" to `axes.configuration`
    "#);
}

#[test]
fn one_artifact_is_taken_but_several_arrive() {
    assert_snapshot!(errors_below_head(
        r#"[stages.show]
inputs = { model = "train" }
"#,
    ), @r#"
    error: `show.model` takes one artifact, but 6 arrive at `show`: `train[2d,0]`, `train[2d,1]`, `train[3d_lowres,0]`, …
     --> spleen.toml:4:20
      |
    4 | inputs = { model = "train" }
      |                    ^^^^^^^ gathers over `configuration`
      |
      = hint: pick one with `[configuration=VALUE]`, or add "configuration" to `stages.show.over`
    "#);
}

#[test]
fn a_second_producer_where_one_is_taken() {
    assert_snapshot!(errors_below_head(
        r#"[stages.show]
inputs = { model = ["train", "select"] }
"#,
    ), @r#"
    error: `show.model` takes one producer
     --> spleen.toml:4:30
      |
    4 | inputs = { model = ["train", "select"] }
      |                              ^^^^^^^^ a second producer
      |
      = hint: name one of them, or give each a `when` so that only one counts
    "#);
}

#[test]
fn an_input_gets_nothing_for_some_nodes() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
plan = { from = "plan", when = "configuration == '2d'" }
"#,
    ), @r#"
    error: nothing arrives at input `plan` of `train[3d_lowres,0]`
     --> spleen.toml:4:17
      |
    4 | plan = { from = "plan", when = "configuration == '2d'" }
      |                 ^^^^^^ gives nothing for these values on the axes
    "#);
}

#[test]
fn a_stage_reads_itself() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
previous = "train"

[stages.ensemble.inputs]
probabilities = "ensemble"
"#,
    ), @r#"
    error: `train` reads what it makes itself
     --> spleen.toml:4:12
      |
    4 | previous = "train"
      |            ^^^^^^^ this is the same stage

    error: `ensemble` reads what it makes itself
     --> spleen.toml:7:17
      |
    7 | probabilities = "ensemble"
      |                 ^^^^^^^^^^ this is the same stage
    "#);
}

#[test]
fn a_node_reads_itself() {
    assert_snapshot!(errors_below_head(
        r#"[stages.ensemble.inputs]
probabilities = "ensemble[pair=2d+3d_lowres]"
"#,
    ), @r#"
    error: `ensemble[2d+3d_lowres]` reads what it makes itself
     --> spleen.toml:4:17
      |
    4 | probabilities = "ensemble[pair=2d+3d_lowres]"
      |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ leads back to the same node
      |
      = hint: give the input a `when` that leaves this node out
    "#);
}

#[test]
fn a_pick_follows_an_axis_that_does_not_fit() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
pair = { pairs = "fold" }
"#,
    ), @r#"
    error: axis `configuration` lacks the value `0`, which axis `pair` asks for
      --> recipe base:37:51
       |
     3 | configuration = ["2d", "3d_lowres", "3d_cascade"]
       | ------------- has `2d`, `3d_lowres`, `3d_cascade`
    ...
    37 | inputs = { probabilities = "predict[configuration=pair]", plan = "plan" }
       |                                                   ^^^^ picked here
    "#);
}

#[test]
fn stages_form_a_loop() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
previous = "predict.next_stage"
"#,
    ), @r#"
    error: the stages form a loop: `train[2d,0]` → `predict[2d,0]` → `train[2d,0]`
      --> spleen.toml:4:12
       |
     4 | previous = "predict.next_stage"
       |            ^^^^^^^^^^^^^^^^^^^^ `train` needs `predict`
       |
      ::: recipe base:28:40
       |
    28 | inputs = { cases = "resample", model = "train" }
       |                                        ------- `predict` needs `train`
    "#);
}

#[test]
fn the_condition_of_a_stage_looks_at_an_unknown_input() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train]
when = "configuration in plans"

[stages.evaluate]
when = "every label"
"#,
    ), @r#"
    error: `train` has no input `plans`
     --> spleen.toml:4:26
      |
    4 | when = "configuration in plans"
      |                          ^^^^^ unknown input
      |
      = hint: did you mean `plan`?

    error: `evaluate` has no input `label`
     --> spleen.toml:7:15
      |
    7 | when = "every label"
      |               ^^^^^ unknown input
      |
      = hint: did you mean `labels`?
    "#);
}

#[test]
fn the_condition_of_a_stage_looks_at_an_unconnected_input() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train]
when = "every previous"
inputs.previous = []
"#,
    ), @r#"
    error: the condition of `train` looks at its input `previous`, which is not connected
     --> spleen.toml:4:15
      |
    4 | when = "every previous"
      |               ^^^^^^^^ not connected
    "#);
}

#[test]
fn the_values_of_an_axis_are_the_models_and_there_is_none() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
configuration = { from = "model" }
"#,
    ), @r#"
    error: the values of axis `configuration` are not known
     --> spleen.toml:4:1
      |
    4 | configuration = { from = "model" }
      | ^^^^^^^^^^^^^ the model decides them
      |
      = hint: name the model: a table `[model]` with `path`
    "#);
}

#[test]
fn an_expectation_names_an_unknown_stage() {
    assert_snapshot!(errors_below_head(
        r#"[expect]
"evalute.dice" = ">= 0.8"
"#,
    ), @r#"
    error: there is no stage `evalute`
     --> spleen.toml:4:2
      |
    4 | "evalute.dice" = ">= 0.8"
      |  ^^^^^^^ unknown stage
      |
      = hint: did you mean `evaluate`?
    "#);
}

#[test]
fn an_expectation_names_an_unknown_node() {
    assert_snapshot!(errors_below_head(
        r#"[expect]
"evaluate[3d_fullres].dice" = ">= 0.8"
"evaluate[fold=0].dice" = ">= 0.8"
"train[2d,0,1].seconds" = "< 3"
"#,
    ), @r#"
    error: there is no node `evaluate[3d_fullres]`
     --> spleen.toml:4:2
      |
    4 | "evaluate[3d_fullres].dice" = ">= 0.8"
      |  ^^^^^^^^^^^^^^^^^^^^ no such node
      |
      = hint: axis `configuration` has `2d`, `3d_cascade`, `3d_lowres`

    error: `evaluate[fold=0]` does not fit the axes of `evaluate`
     --> spleen.toml:5:2
      |
    5 | "evaluate[fold=0].dice" = ">= 0.8"
      |  ^^^^^^^^^^^^^^^^ `evaluate` runs over `configuration`

    error: `train[2d,0,1]` does not fit the axes of `train`
     --> spleen.toml:6:2
      |
    6 | "train[2d,0,1].seconds" = "< 3"
      |  ^^^^^^^^^^^^^ `train` runs over `configuration`, `fold`
    "#);
}

#[test]
fn errors_of_all_kinds_are_told_together() {
    assert_snapshot!(errors_below_head(
        r#"sed = 1

[axes]
fold = [0, 0]

[stages.train]
when = "configuration is '2d'"

[stages.resample.with]
image_order = 9

[stages.evaluate.inputs]
labels = "predicts.labels"

[expect]
"evalute.dice" = ">= 0.8"
"#,
    ), @r#"
    error: a workflow has no key `sed`
     --> spleen.toml:3:1
      |
    3 | sed = 1
      | ^^^ unknown key
      |
      = hint: did you mean `seed`?

    error: axis `fold` has the value `0` twice
     --> spleen.toml:6:12
      |
    6 | fold = [0, 0]
      |         -  ^ the second time
      |         |
      |         the first time

    error: `configuration is '2d'` is not a condition
     --> spleen.toml:9:23
      |
    9 | when = "configuration is '2d'"
      |                       ^^ expected `==`, `!=`, `in` or `not in`
      |
      = note: conditions are `AXIS == 'VALUE'`, `AXIS in ['A', 'B']`, `AXIS in INPUT` and `every INPUT`, joined by `and`, `or`, `not`

    error: parameter `image_order` of `resample` must be a whole number from 0 to 5, but is 9
      --> spleen.toml:12:15
       |
    12 | image_order = 9
       |               ^ expected a whole number from 0 to 5

    error: there is no stage `predicts`
      --> spleen.toml:15:11
       |
    15 | labels = "predicts.labels"
       |           ^^^^^^^^ unknown stage
       |
       = hint: did you mean `predict`?

    error: there is no stage `evalute`
      --> spleen.toml:18:2
       |
    18 | "evalute.dice" = ">= 0.8"
       |  ^^^^^^^ unknown stage
       |
       = hint: did you mean `evaluate`?
    "#);
}
