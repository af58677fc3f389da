//! What a person sees whose stages do not fit what they use.

use insta::assert_snapshot;

use super::fixtures::{errors, errors_below_head};

#[test]
fn a_stage_to_use_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.refine]
uses = "resampel"
"#,
    ), @r#"
    error: there is no stage `resampel` to use
     --> spleen.toml:4:8
      |
    4 | uses = "resampel"
      |        ^^^^^^^^^^ unknown stage
      |
      = hint: did you mean `resample`?
    "#);
}

#[test]
fn a_mistyped_table_was_meant_to_change_a_stage() {
    assert_snapshot!(errors_below_head(
        r#"[stages.trian.with]
epochs = 5
"#,
    ), @r"
    error: there is no stage `trian` to use
     --> spleen.toml:3:9
      |
    3 | [stages.trian.with]
      |         ^^^^^ unknown stage
      |
      = hint: did you mean to change the stage `stages.train`?
    ");
}

#[test]
fn a_parameter_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.with]
epoch = 5
optimizer = { learning_rte = 0.1 }
"#,
    ), @r"
    error: `train` has no parameter `epoch`
     --> spleen.toml:4:1
      |
    4 | epoch = 5
      | ^^^^^ unknown parameter
      |
      = hint: did you mean `epochs`?

    error: `train` has no parameter `optimizer.learning_rte`
     --> spleen.toml:5:15
      |
    5 | optimizer = { learning_rte = 0.1 }
      |               ^^^^^^^^^^^^ unknown parameter
      |
      = hint: did you mean `learning_rate`?
    ");
}

#[test]
fn a_parameter_has_a_bad_value() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.with]
epochs = 0
optimizer = { name = "sdg", betas = [0.9, 2.0], clip = "non" }
"#,
    ), @r#"
    error: parameter `epochs` of `train` must be a whole number from 1 to 100000, but is 0
     --> spleen.toml:4:10
      |
    4 | epochs = 0
      |          ^ expected a whole number from 1 to 100000

    error: parameter `optimizer.name` of `train` must be one of "sgd", "adam", but is "sdg"
     --> spleen.toml:5:22
      |
    5 | optimizer = { name = "sdg", betas = [0.9, 2.0], clip = "non" }
      |                      ^^^^^ expected one of "sgd", "adam"

    error: parameter `optimizer.betas[1]` of `train` must be a number from 0 to 1, but is 2.0
     --> spleen.toml:5:43
      |
    5 | optimizer = { name = "sdg", betas = [0.9, 2.0], clip = "non" }
      |                                           ^^^ expected a number from 0 to 1

    error: parameter `optimizer.clip` of `train` must be a number from 0 to 1, but is "non"
     --> spleen.toml:5:56
      |
    5 | optimizer = { name = "sdg", betas = [0.9, 2.0], clip = "non" }
      |                                                        ^^^^^ expected a number from 0 to 1
    "#);
}

#[test]
fn a_stage_without_parameters_is_given_one() {
    assert_snapshot!(errors_below_head(
        r#"[stages.select.with]
metric = "dice"
"#,
    ), @r#"
    error: `select` has no parameter `metric`
     --> spleen.toml:4:1
      |
    4 | metric = "dice"
      | ^^^^^^ unknown parameter
      |
      = note: stage `select` has no parameters
    "#);
}

#[test]
fn parameters_of_a_recipe_are_replaced_by_no_table() {
    assert_snapshot!(errors_below_head(r#"stages.train.with = 3"#), @r"
    error: `stages.train.with` must be a table, but is the whole number 3
     --> spleen.toml:3:21
      |
    3 | stages.train.with = 3
      |                     ^ expected a table
    ");
}

#[test]
fn a_required_input_is_missing() {
    assert_snapshot!(errors_below_head(r#"[stages.show]"#), @r#"
    error: `show` lacks its input `model`
     --> spleen.toml:3:9
      |
    3 | [stages.show]
      |         ^^^^ needs one of `model`, `choice`
      |
      = hint: connect it: `stages.show.inputs.model = "train"`
    "#);
}

#[test]
fn a_required_input_is_missing_and_nothing_gives_it() {
    assert_snapshot!(errors(
        r#"extends = "base"
dataset.path = "data"
[stages]
select.enabled = false
evaluate.enabled = false
evaluate_ensemble.enabled = false
[stages.choose]
uses = "select"
"#,
    ), @r"
    error: `choose` lacks its input `summaries`
     --> spleen.toml:7:9
      |
    7 | [stages.choose]
      |         ^^^^^^ needs a `summary`
      |
      = hint: no stage of the workflow gives a `summary`
    ");
}

#[test]
fn an_input_is_emptied() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
cases = []
"#,
    ), @r#"
    error: `train` lacks its input `cases`
      --> recipe base:19:9
       |
    19 | [stages.train]
       |         ^^^^^ needs a `prepared` for each case
       |
       = hint: connect it: `stages.train.inputs.cases = "resample"`
    "#);
}

#[test]
fn an_input_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
case = "resample"
"#,
    ), @r#"
    error: `train` has no input `case`
     --> spleen.toml:4:1
      |
    4 | case = "resample"
      | ^^^^ unknown input
      |
      = hint: did you mean `cases`?
    "#);
}

#[test]
fn an_input_is_of_the_wrong_kind() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
plan = "plan.reasons"
cases = "ingest"
"#,
    ), @r#"
    error: `train.plan` needs a `plan`, but `plan.reasons` is a `reasons`
     --> spleen.toml:4:8
      |
    4 | plan = "plan.reasons"
      |        ^^^^^^^^^^^^^^ this is a `reasons`
      |
      = hint: `plan` has an output `plan` of the right kind

    error: `train.cases` needs a `prepared` for each case, but `ingest` gives none
     --> spleen.toml:5:9
      |
    5 | cases = "ingest"
      |         ^^^^^^^^ `ingest` gives `cases` (a `cases` for each case)
      |
      = hint: `resample` gives a `prepared` for each case
    "#);
}

#[test]
fn an_input_takes_all_cases_and_not_one() {
    assert_snapshot!(errors_below_head(
        r#"[stages.pages]
uses = "show"
inputs = { model = "predict.labels" }
"#,
    ), @r#"
    error: `pages.model` needs one of `model`, `choice`, but `predict.labels` is a `labels` for each case
     --> spleen.toml:5:20
      |
    5 | inputs = { model = "predict.labels" }
      |                    ^^^^^^^^^^^^^^^^ this is a `labels` for each case
      |
      = hint: `train` gives one of `model`, `choice`
    "#);
}

#[test]
fn a_reference_has_several_outputs_to_offer() {
    assert_snapshot!(errors_below_head(
        r#"[stages.evaluate.inputs]
labels = "predict"
"#,
    ), @r#"
    error: `predict` has several outputs that `evaluate.labels` can take
     --> spleen.toml:4:10
      |
    4 | labels = "predict"
      |          ^^^^^^^^^ could be `labels`, `next_stage`
      |
      = hint: name the output, such as `predict.labels`
    "#);
}

#[test]
fn an_output_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.evaluate.inputs]
labels = "predict.label"
"#,
    ), @r#"
    error: `predict` has no output `label`
     --> spleen.toml:4:19
      |
    4 | labels = "predict.label"
      |                   ^^^^^ unknown output
      |
      = hint: did you mean `labels`?
    "#);
}

#[test]
fn a_producer_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
cases = "resampel"
"#,
    ), @r#"
    error: there is no stage `resampel`
     --> spleen.toml:4:10
      |
    4 | cases = "resampel"
      |          ^^^^^^^^ unknown stage
      |
      = hint: did you mean `resample`?
    "#);
}

#[test]
fn a_producer_is_disabled() {
    assert_snapshot!(errors_below_head(
        r#"[stages.resample]
enabled = false
"#,
    ), @r#"
    error: stage `resample` is disabled, but its results are needed
      --> recipe base:22:16
       |
    22 | inputs.cases = "resample"
       |                ^^^^^^^^^^ needed here
       |
      ::: spleen.toml:4:1
       |
     4 | enabled = false
       | ------- disabled here

    error: stage `resample` is disabled, but its results are needed
      --> recipe base:28:20
       |
    28 | inputs = { cases = "resample", model = "train" }
       |                    ^^^^^^^^^^ needed here
       |
      ::: spleen.toml:4:1
       |
     4 | enabled = false
       | ------- disabled here
    "#);
}

#[test]
fn the_dataset_is_missing() {
    assert_snapshot!(errors(r#"extends = "base""#), @r#"
    error: the workflow has no dataset
     --> recipe base:8:20
      |
    8 | inputs = { files = "dataset" }
      |                    ^^^^^^^^^ needed here
      |
      = hint: add a table `[dataset]` with `path = "data/Dataset004_Hippocampus"`
    "#);
}

#[test]
fn the_model_is_missing() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train]
enabled = false

[stages.predict.inputs]
model = "model"
"#,
    ), @r#"
    error: the workflow has no model
     --> spleen.toml:7:9
      |
    7 | model = "model"
      |         ^^^^^^^ needed here
      |
      = hint: add a table `[model]` with `path = "model"`
    "#);
}

#[test]
fn a_stage_has_the_name_of_a_source() {
    assert_snapshot!(errors_below_head(
        r#"[stages.dataset]
uses = "select"
inputs = { summaries = "evaluate" }
"#,
    ), @r"
    error: a stage cannot be called `dataset`
     --> spleen.toml:3:9
      |
    3 | [stages.dataset]
      |         ^^^^^^^ the name of a source of the workflow
    ");
}
