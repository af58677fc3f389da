//! What a person sees whose conditions, references or files cannot be understood.

use insta::assert_snapshot;

use super::fixtures::{errors, errors_below_head, set_errors};

#[test]
fn a_condition_cannot_be_read() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train]
when = "configuration = '2d'"

[stages.predict]
when = "configuration in plan and"

[stages.resample]
when = "(configuration == '2d"
"#,
    ), @r#"
    error: `configuration = '2d'` is not a condition
     --> spleen.toml:4:23
      |
    4 | when = "configuration = '2d'"
      |                       ^ expected `==`, `!=`, `in` or `not in`
      |
      = note: conditions are `AXIS == 'VALUE'`, `AXIS in ['A', 'B']`, `AXIS in INPUT` and `every INPUT`, joined by `and`, `or`, `not`

    error: `configuration in plan and` is not a condition
     --> spleen.toml:7:33
      |
    7 | when = "configuration in plan and"
      |                                 ^ expected an axis
      |
      = note: conditions are `AXIS == 'VALUE'`, `AXIS in ['A', 'B']`, `AXIS in INPUT` and `every INPUT`, joined by `and`, `or`, `not`

    error: `(configuration == '2d` is not a condition
      --> spleen.toml:10:27
       |
    10 | when = "(configuration == '2d"
       |                           ^^^ expected a closing '
       |
       = note: conditions are `AXIS == 'VALUE'`, `AXIS in ['A', 'B']`, `AXIS in INPUT` and `every INPUT`, joined by `and`, `or`, `not`
    "#);
}

#[test]
fn a_condition_names_an_axis_that_the_stage_lacks() {
    assert_snapshot!(errors_below_head(
        r#"[stages.resample]
when = "fold == '0'"

[stages.train]
when = "configration in plan"
"#,
    ), @r#"
    error: `resample` does not run over axis `fold`
     --> spleen.toml:4:9
      |
    4 | when = "fold == '0'"
      |         ^^^^ `resample` runs over `configuration`
      |
      = hint: add "fold" to `over`

    error: there is no axis `configration`
     --> spleen.toml:7:9
      |
    7 | when = "configration in plan"
      |         ^^^^^^^^^^^^ unknown axis
      |
      = hint: did you mean `configuration`?
    "#);
}

#[test]
fn a_condition_names_an_unknown_value() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train]
when = "configuration in ['2d', '3d_lowers']"
"#,
    ), @r#"
    error: axis `configuration` has no value `3d_lowers`
     --> spleen.toml:4:33
      |
    4 | when = "configuration in ['2d', '3d_lowers']"
      |                                 ^^^^^^^^^^^ unknown value
      |
      = hint: did you mean `3d_lowres`?
    "#);
}

#[test]
fn the_condition_of_an_input_depends_on_a_run() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
previous = { from = "predict.labels", when = "configuration in plan" }
"#,
    ), @r#"
    error: `stages.train.inputs.previous.when` depends on what arrives at an input
     --> spleen.toml:4:64
      |
    4 | previous = { from = "predict.labels", when = "configuration in plan" }
      |                                                                ^^^^ known only while running
      |
      = hint: whether an input is connected is decided by axes alone; put this into the stage's own `when`
    "#);
}

#[test]
fn a_reference_cannot_be_read() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
cases = "resample[configuration"
plan = "plan plan"
previous = "predict[configuration=2d,configuration=3d_lowres].labels"
"#,
    ), @r#"
    error: `resample[configuration` is not a reference
     --> spleen.toml:4:18
      |
    4 | cases = "resample[configuration"
      |                  ^^^^^^^^^^^^^^ expected a closing `]`
      |
      = note: references are `STAGE`, `STAGE.PORT`, `STAGE[AXIS=VALUE]` and `STAGE[AXIS=VALUE].PORT`

    error: `plan plan` is not a reference
     --> spleen.toml:5:9
      |
    5 | plan = "plan plan"
      |         ^^^^^^^^^ expected the name of a stage
      |
      = note: references are `STAGE`, `STAGE.PORT`, `STAGE[AXIS=VALUE]` and `STAGE[AXIS=VALUE].PORT`

    error: `predict[configuration=2d,configuration=3d_lowres].labels` is not a reference
     --> spleen.toml:6:38
      |
    6 | previous = "predict[configuration=2d,configuration=3d_lowres].labels"
      |                                      ^^^^^^^^^^^^^ `configuration` is picked twice
      |
      = note: references are `STAGE`, `STAGE.PORT`, `STAGE[AXIS=VALUE]` and `STAGE[AXIS=VALUE].PORT`
    "#);
}

#[test]
fn an_input_does_not_say_from_where() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs.previous]
from = 3

[stages.predict.inputs]
model = { when = "fold == '0'" }
cases = 3
"#,
    ), @r#"
    error: `stages.train.inputs.previous.from` must be a text, but is the whole number 3
     --> spleen.toml:4:8
      |
    4 | from = 3
      |        ^ expected a text
      |
      = hint: write "3"

    error: `stages.predict.inputs.model` does not say what it is connected to
     --> spleen.toml:7:9
      |
    7 | model = { when = "fold == '0'" }
      |         ^^^^^^^^^^^^^^^^^^^^^^^^ expected `from = "STAGE"`

    error: `stages.predict.inputs.cases` must be a stage such as "plan", "train[fold=0]" or "predict.labels", but is the whole number 3
     --> spleen.toml:8:9
      |
    8 | cases = 3
      |         ^ expected a stage such as "plan", "train[fold=0]" or "predict.labels"
    "#);
}

#[test]
fn a_producer_is_named_twice() {
    assert_snapshot!(errors_below_head(
        r#"[stages.select.inputs]
summaries = ["evaluate", "evaluate_ensemble", "evaluate"]
"#,
    ), @r#"
    error: `stages.select.inputs.summaries` names the same producer twice
     --> spleen.toml:4:47
      |
    4 | summaries = ["evaluate", "evaluate_ensemble", "evaluate"]
      |              ---------- the first time        ^^^^^^^^^^ the second time
    "#);
}

#[test]
fn an_expectation_is_no_bound() {
    assert_snapshot!(errors_below_head(
        r#"[expect]
"evaluate.dice" = "0.8"
"evaluate.iou" = 0.7
"train.seconds" = { max = "1h" }
"select.a" = ">= nan"
"#,
    ), @r#"
    error: `expect."evaluate.dice"` must be a bound such as ">= 0.88", or a table with `min` or `max`, but is the text "0.8"
     --> spleen.toml:4:19
      |
    4 | "evaluate.dice" = "0.8"
      |                   ^^^^^ expected a bound such as ">= 0.88", or a table with `min` or `max`
      |
      = hint: did you mean ">= 0.8"? the comparisons are `>=`, `>`, `<=` and `<`

    error: `expect."evaluate.iou"` must be a bound such as ">= 0.88", or a table with `min` or `max`, but is the number 0.7
     --> spleen.toml:5:18
      |
    5 | "evaluate.iou" = 0.7
      |                  ^^^ expected a bound such as ">= 0.88", or a table with `min` or `max`
      |
      = hint: did you mean ">= 0.7"?

    error: `expect."train.seconds".max` must be a number, but is the text "1h"
     --> spleen.toml:6:27
      |
    6 | "train.seconds" = { max = "1h" }
      |                           ^^^^ expected a number

    error: `expect."select.a"` must be a bound such as ">= 0.88", or a table with `min` or `max`, but is the text ">= nan"
     --> spleen.toml:7:14
      |
    7 | "select.a" = ">= nan"
      |              ^^^^^^^^ expected a bound such as ">= 0.88", or a table with `min` or `max`
    "#);
}

#[test]
fn an_expectation_cannot_be_met() {
    assert_snapshot!(errors_below_head(
        r#"[expect]
"evaluate.dice" = { min = 0.9, max = 0.8, severity = "fatal" }
"evaluate.iou" = { min = 0.9, max = 0.8 }
"evaluate.x" = {}
"#,
    ), @r#"
    error: `expect."evaluate.dice".severity` must be "error" or "warn", but is the text "fatal"
     --> spleen.toml:4:54
      |
    4 | "evaluate.dice" = { min = 0.9, max = 0.8, severity = "fatal" }
      |                                                      ^^^^^^^ expected "error" or "warn"

    error: no number is at least 0.9 and at most 0.8
     --> spleen.toml:5:18
      |
    5 | "evaluate.iou" = { min = 0.9, max = 0.8 }
      |                  ^^^^^^^^^^^^^^^^^^^^^^^^ expected `min` to be at most `max`

    error: `expect."evaluate.x"` must be a bound such as ">= 0.88", or a table with `min` or `max`, but is a table
     --> spleen.toml:6:16
      |
    6 | "evaluate.x" = {}
      |                ^^ expected a bound such as ">= 0.88", or a table with `min` or `max`
    "#);
}

#[test]
fn an_expectation_names_no_number() {
    assert_snapshot!(errors_below_head(
        r#"[expect]
evaluate.dice = ">= 0.8"
"evaluate[2d" = ">= 0.8"
"evaluate..dice" = ">= 0.8"
"#,
    ), @r#"
    error: `evaluate` does not name a number of a stage
     --> spleen.toml:4:1
      |
    4 | evaluate.dice = ">= 0.8"
      | ^^^^^^^^ expected `stage.path.to.number`
      |
      = hint: write the key in quotes, the stage first: "evaluate.foreground_mean.dice" = ">= 0.88"

    error: `evaluate[2d` does not name a number of a stage
     --> spleen.toml:5:1
      |
    5 | "evaluate[2d" = ">= 0.8"
      | ^^^^^^^^^^^^^ expected `stage.path.to.number`
      |
      = hint: write the key in quotes, the stage first: "evaluate.foreground_mean.dice" = ">= 0.88"

    error: `evaluate..dice` does not name a number of a stage
     --> spleen.toml:6:1
      |
    6 | "evaluate..dice" = ">= 0.8"
      | ^^^^^^^^^^^^^^^^ expected a name between any two points
      |
      = hint: write the key in quotes, the stage first: "evaluate.foreground_mean.dice" = ">= 0.88"
    "#);
}

#[test]
fn a_recipe_is_unknown() {
    assert_snapshot!(errors(r#"extends = "bass""#), @r#"
    error: there is no recipe `bass`
     --> spleen.toml:1:11
      |
    1 | extends = "bass"
      |           ^^^^^^ unknown recipe
      |
      = note: a file is extended by its path, such as `./base.toml`
      = hint: did you mean `base`?
    "#);
}

#[test]
fn a_text_without_a_file_extends_a_file() {
    assert_snapshot!(errors(r#"extends = "./base.toml""#), @r#"
    error: spleen.toml cannot extend a file
     --> spleen.toml:1:11
      |
    1 | extends = "./base.toml"
      |           ^^^^^^^^^^^^^ expected the name of a recipe
    "#);
}

#[test]
fn a_workflow_is_empty() {
    assert_snapshot!(errors(""), @r#"
    error: workflow `spleen.toml` is empty
     |
     = hint: extend a recipe, such as `extends = "nnunet-v2"`, or declare a stage as `[stages.NAME]`
    "#);
}

#[test]
fn a_workflow_has_no_stages() {
    assert_snapshot!(errors(r#"name = "a""#), @r#"
    error: workflow `spleen.toml` has no stages
     |
     = hint: extend a recipe, such as `extends = "nnunet-v2"`, or declare a stage as `[stages.NAME]`
    "#);
}

#[test]
fn all_syntax_errors_are_told() {
    assert_snapshot!(errors(
        r#"name = 
seed = 3 3
[stages.train
over = ["fold"
"#,
    ), @r#"
    error: this is not TOML: string values must be quoted
     --> spleen.toml:1:8
      |
    1 | name = 
      |        ^ expected literal string

    error: this is not TOML: string values must be quoted
     --> spleen.toml:2:8
      |
    2 | seed = 3 3
      |        ^^^ expected literal string

    error: this is not TOML: unclosed table
     --> spleen.toml:3:14
      |
    3 | [stages.train
      |              ^ expected `]`

    error: this is not TOML: unclosed array
     --> spleen.toml:4:15
      |
    4 | over = ["fold"
      |               ^ expected `]`
    "#);
}

#[test]
fn a_key_is_written_twice() {
    assert_snapshot!(errors_below_head(
        r#"seed = 1
seed = 2
"#,
    ), @r"
    error: this is not TOML: duplicate key
     --> spleen.toml:4:1
      |
    4 | seed = 2
      | ^^^^
    ");
}

#[test]
fn json_is_not_toml() {
    assert_snapshot!(errors(r#"{"name": "a"}"#), @r#"
    error: `spleen.toml` is not TOML
     |
     = hint: it looks like JSON; a workflow is TOML, with lines such as `extends = "nnunet-v2"`

    error: this is not TOML: invalid key-value pair
     --> spleen.toml:1:1
      |
    1 | {"name": "a"}
      | ^ expected key
    "#);
}

#[test]
fn binary_data_is_not_toml() {
    assert_snapshot!(errors("\u{0}\u{1}\u{fffd}\u{0}abc\u{7}"), @r"
    error: this is not TOML: invalid unquoted key
     --> spleen.toml:1:1
      |
    1 | ␀␁�␀abc␇
      | ^^^^ expected letters, numbers, `-`, `_`

    error: this is not TOML: invalid unquoted key
     --> spleen.toml:1:8
      |
    1 | ␀␁�␀abc␇
      |        ^ expected letters, numbers, `-`, `_`

    error: this is not TOML: key with no value
     --> spleen.toml:1:9
      |
    1 | ␀␁�␀abc␇
      |         ^ expected `=`
    ");
}

#[test]
fn a_set_key_is_unknown() {
    assert_snapshot!(set_errors(&[r#"stages.train.with.epoch=5"#, r#"stages.trian.with.epochs=5"#, r#"sede=3"#]), @r"
    error: a workflow has no key `sede`
     --> --set:1:1
      |
    1 | sede=3
      | ^^^^ unknown key
      |
      = hint: did you mean `seed`?

    error: `train` has no parameter `epoch`
     --> --set:1:19
      |
    1 | stages.train.with.epoch=5
      |                   ^^^^^ unknown parameter
      |
      = hint: did you mean `epochs`?

    error: there is no stage `trian` to use
     --> --set:1:8
      |
    1 | stages.trian.with.epochs=5
      |        ^^^^^ unknown stage
      |
      = hint: did you mean to change the stage `stages.train`?
    ");
}

#[test]
fn a_set_value_has_the_wrong_type() {
    assert_snapshot!(set_errors(&[r#"seed=abc"#, r#"stages.train.store=1"#]), @r#"
    error: `seed` must be a whole number of at least 0, but is the text "abc"
     --> --set:1:6
      |
    1 | seed=abc
      |      ^^^ expected a whole number of at least 0

    error: `stages.train.store` must be `true` or `false`, but is the whole number 1
     --> --set:1:20
      |
    1 | stages.train.store=1
      |                    ^ expected `true` or `false`
    "#);
}

#[test]
fn a_set_without_value() {
    assert_snapshot!(set_errors(&[r#"stages.train.with.epochs"#, r#"=3"#, r#"[stages]"#]), @r"
    error: `--set stages.train.with.epochs` is not a key and a value
     --> --set:1:1
      |
    1 | stages.train.with.epochs
      | ^^^^^^^^^^^^^^^^^^^^^^^^ expected `key.key=value`
      |
      = hint: for example `--set stages.train.with.epochs=5`

    error: `--set =3` is not a key and a value
     --> --set:1:1
      |
    1 | =3
      | ^^ expected `key.key=value`
      |
      = hint: for example `--set stages.train.with.epochs=5`

    error: `--set [stages]` is not a key and a value
     --> --set:1:1
      |
    1 | [stages]
      | ^^^^^^^^ expected `key.key=value`
      |
      = hint: for example `--set stages.train.with.epochs=5`
    ");
}
