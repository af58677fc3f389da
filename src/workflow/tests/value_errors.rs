//! What a person sees whose keys, values or axes cannot be understood.

use insta::assert_snapshot;

use super::fixtures::{errors, errors_below_head};

#[test]
fn a_key_at_the_top_is_unknown() {
    assert_snapshot!(errors_below_head(r#"sed = 3"#), @r"
    error: a workflow has no key `sed`
     --> spleen.toml:3:1
      |
    3 | sed = 3
      | ^^^ unknown key
      |
      = hint: did you mean `seed`?
    ");
}

#[test]
fn a_key_of_a_stage_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train]
over_ = ["fold"]
wiht = { epochs = 3 }
"#,
    ), @r#"
    error: `stages.train` has no key `over_`
     --> spleen.toml:4:1
      |
    4 | over_ = ["fold"]
      | ^^^^^ unknown key
      |
      = hint: did you mean `over`?

    error: `stages.train` has no key `wiht`
     --> spleen.toml:5:1
      |
    5 | wiht = { epochs = 3 }
      | ^^^^ unknown key
      |
      = hint: did you mean `with`?
    "#);
}

#[test]
fn a_key_of_the_dataset_is_unknown() {
    assert_snapshot!(errors_below_head(r#"dataset.case = ["a"]"#), @r#"
    error: `dataset` has no key `case`
     --> spleen.toml:3:9
      |
    3 | dataset.case = ["a"]
      |         ^^^^ unknown key
      |
      = hint: did you mean `cases`?
    "#);
}

#[test]
fn a_key_of_the_resources_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.resources]
gpus = 1
"#,
    ), @r"
    error: `stages.train.resources` has no key `gpus`
     --> spleen.toml:4:1
      |
    4 | gpus = 1
      | ^^^^ unknown key
      |
      = hint: did you mean `gpu`?
    ");
}

#[test]
fn a_key_of_the_settings_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[settings]
gpu = 1
"#,
    ), @r"
    error: `settings` has no key `gpu`
     --> spleen.toml:4:1
      |
    4 | gpu = 1
      | ^^^ unknown key
      |
      = hint: did you mean `gpus`?
    ");
}

#[test]
fn a_key_of_the_model_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[model]
path = "m"
fold = 3
"#,
    ), @r"
    error: `model` has no key `fold`
     --> spleen.toml:5:1
      |
    5 | fold = 3
      | ^^^^ unknown key
      |
      = hint: there is `path`
    ");
}

#[test]
fn a_key_of_an_axis_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
pair = { pairs = "configuration", off = 1 }
"#,
    ), @r#"
    error: `axes.pair` has no key `off`
     --> spleen.toml:4:35
      |
    4 | pair = { pairs = "configuration", off = 1 }
      |                                   ^^^ unknown key
      |
      = hint: there is `pairs`, `from`, `values`
    "#);
}

#[test]
fn a_key_of_an_input_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.inputs]
previous = { from = "predict.labels", If = "x" }
"#,
    ), @r#"
    error: `stages.train.inputs.previous` has no key `If`
     --> spleen.toml:4:39
      |
    4 | previous = { from = "predict.labels", If = "x" }
      |                                       ^^ unknown key
      |
      = hint: there is `from`, `when`
    "#);
}

#[test]
fn a_key_of_an_expectation_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[expect]
"evaluate.dice" = { minimum = 0.8 }
"#,
    ), @r#"
    error: `expect."evaluate.dice"` has no key `minimum`
     --> spleen.toml:4:21
      |
    4 | "evaluate.dice" = { minimum = 0.8 }
      |                     ^^^^^^^ unknown key
      |
      = hint: did you mean `min`?
    "#);
}

#[test]
fn values_have_the_wrong_type() {
    assert_snapshot!(errors_below_head(
        r#"seed = "1"
name = 3

[stages.train]
store = "no"
over = "fold"

[settings]
threads = 0
"#,
    ), @r#"
    error: `seed` must be a whole number of at least 0, but is the text "1"
     --> spleen.toml:3:8
      |
    3 | seed = "1"
      |        ^^^ expected a whole number of at least 0

    error: `name` must be a text, but is the whole number 3
     --> spleen.toml:4:8
      |
    4 | name = 3
      |        ^ expected a text
      |
      = hint: write "3"

    error: `stages.train.store` must be `true` or `false`, but is the text "no"
     --> spleen.toml:7:9
      |
    7 | store = "no"
      |         ^^^^ expected `true` or `false`

    error: `stages.train.over` must be a list of axes, but is the text "fold"
     --> spleen.toml:8:8
      |
    8 | over = "fold"
      |        ^^^^^^ expected a list of axes
      |
      = hint: write ["fold"]

    error: `settings.threads` must be a whole number of at least 1, but is the whole number 0
      --> spleen.toml:11:11
       |
    11 | threads = 0
       |           ^ expected a whole number of at least 1
    "#);
}

#[test]
fn a_table_is_expected() {
    assert_snapshot!(errors_below_head(r#"stages.train = 3"#), @r"
    error: `stages.train` must be a table, but is the whole number 3
     --> spleen.toml:3:16
      |
    3 | stages.train = 3
      |                ^ expected a table
    ");
}

#[test]
fn the_axes_are_no_table() {
    assert_snapshot!(errors_below_head(r#"axes = [1]"#), @r"
    error: `axes` must be a table, but is a list
     --> spleen.toml:3:8
      |
    3 | axes = [1]
      |        ^^^ expected a table
    ");
}

#[test]
fn a_seed_cannot_be_negative() {
    assert_snapshot!(errors_below_head(r#"seed = -1"#), @r"
    error: `seed` must be a whole number of at least 0, but is the whole number -1
     --> spleen.toml:3:8
      |
    3 | seed = -1
      |        ^^ expected a whole number of at least 0
    ");
}

#[test]
fn a_whole_number_is_too_large() {
    assert_snapshot!(errors_below_head(r#"seed = 99999999999999999999"#), @r"
    error: `99999999999999999999` is too large for a whole number
     --> spleen.toml:3:8
      |
    3 | seed = 99999999999999999999
      |        ^^^^^^^^^^^^^^^^^^^^ expected at most 64 bits
    ");
}

#[test]
fn a_size_has_no_unit() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.resources]
memory = "12 G"

[settings]
memory = 12
"#,
    ), @r#"
    error: `stages.train.resources.memory` must be a size such as "12 GiB", but is the text "12 G"
     --> spleen.toml:4:10
      |
    4 | memory = "12 G"
      |          ^^^^^^ expected a size such as "12 GiB"
      |
      = hint: did you mean "12 GiB"?

    error: `settings.memory` must be a size such as "12 GiB", but is the whole number 12
     --> spleen.toml:7:10
      |
    7 | memory = 12
      |          ^^ expected a size such as "12 GiB"
    "#);
}

#[test]
fn a_shared_store_is_not_named_as_one_is() {
    assert_snapshot!(errors_below_head(
        r#"[settings]
shared_store = "ftp://example.org/results"
shared_store_mode = "write"
"#,
    ), @r#"
    error: `settings.shared_store`: `ftp://` is no kind of shared store: expected a folder, `s3://`, `gs://`, `http://` or `https://`
     --> spleen.toml:4:16
      |
    4 | shared_store = "ftp://example.org/results"
      |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^ not the address of a shared store
      |
      = hint: for example a folder, or `s3://BUCKET/PREFIX`; access comes from the environment

    error: `settings.shared_store_mode` must be one of "read-write", "read-only", "off", but is the text "write"
     --> spleen.toml:5:21
      |
    5 | shared_store_mode = "write"
      |                     ^^^^^^^ expected one of "read-write", "read-only", "off"
    "#);
}

#[test]
fn a_duration_has_an_unknown_unit() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.resources]
time = "24 hours"
"#,
    ), @r#"
    error: `stages.train.resources.time` must be a duration such as "24h" or "1h 30m", but is the text "24 hours"
     --> spleen.toml:4:8
      |
    4 | time = "24 hours"
      |        ^^^^^^^^^^ expected a duration such as "24h" or "1h 30m"
      |
      = hint: the units are `d`, `h`, `m` and `s`
    "#);
}

#[test]
fn a_device_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train.resources]
device = "gpu"
"#,
    ), @r#"
    error: `stages.train.resources.device` must be one of "auto", "cpu", "cuda", "cuda:0", but is the text "gpu"
     --> spleen.toml:4:10
      |
    4 | device = "gpu"
      |          ^^^^^ expected one of "auto", "cpu", "cuda", "cuda:0"
    "#);
}

#[test]
fn an_axis_is_unknown() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train]
over = ["configuration", "folds"]
"#,
    ), @r#"
    error: there is no axis `folds`
     --> spleen.toml:4:26
      |
    4 | over = ["configuration", "folds"]
      |                          ^^^^^^^ unknown axis
      |
      = hint: did you mean `fold`?
    "#);
}

#[test]
fn an_axis_is_named_twice() {
    assert_snapshot!(errors_below_head(
        r#"[stages.train]
over = ["configuration", "fold", "fold"]
"#,
    ), @r#"
    error: `stages.train.over` names `fold` twice
     --> spleen.toml:4:34
      |
    4 | over = ["configuration", "fold", "fold"]
      |                          ------  ^^^^^^ the second time
      |                          |
      |                          the first time
    "#);
}

#[test]
fn an_axis_has_a_value_twice() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
fold = [0, 1, "0"]
"#,
    ), @r#"
    error: axis `fold` has the value `0` twice
     --> spleen.toml:4:15
      |
    4 | fold = [0, 1, "0"]
      |         -     ^^^ the second time
      |         |
      |         the first time
    "#);
}

#[test]
fn an_axis_has_no_values() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
fold = []
"#,
    ), @r"
    error: `axes.fold` must be a list of 1 to 10000 values, but is an empty list
     --> spleen.toml:4:8
      |
    4 | fold = []
      |        ^^ expected a list of 1 to 10000 values
    ");
}

#[test]
fn an_axis_value_cannot_stand_in_a_name() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
fold = [0, "a b", 1.5]
"#,
    ), @r#"
    error: `axes.fold` must be a whole number or a text of letters, digits, `_`, `-`, `.` and `+`, but is the text "a b"
     --> spleen.toml:4:12
      |
    4 | fold = [0, "a b", 1.5]
      |            ^^^^^ expected a whole number or a text of letters, digits, `_`, `-`, `.` and `+`

    error: `axes.fold` must be a whole number or a text of letters, digits, `_`, `-`, `.` and `+`, but is the number 1.5
     --> spleen.toml:4:19
      |
    4 | fold = [0, "a b", 1.5]
      |                   ^^^ expected a whole number or a text of letters, digits, `_`, `-`, `.` and `+`
    "#);
}

#[test]
fn an_axis_has_a_name_that_means_something() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
every = [1]
"#,
    ), @r"
    error: `every` cannot be the name of an axis
     --> spleen.toml:4:1
      |
    4 | every = [1]
      | ^^^^^ this word has a meaning in conditions
    ");
}

#[test]
fn a_derived_axis_has_an_unknown_base() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
pair = { pairs = "config" }
"#,
    ), @r#"
    error: there is no axis `config`
     --> spleen.toml:4:18
      |
    4 | pair = { pairs = "config" }
      |                  ^^^^^^^^ unknown axis
      |
      = hint: did you mean `configuration`?
    "#);
}

#[test]
fn a_derived_axis_has_a_derived_base() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
square = { pairs = "pair" }
"#,
    ), @r#"
    error: axis `square` is derived from `pair`, which is derived itself
     --> spleen.toml:4:20
      |
    4 | square = { pairs = "pair" }
      |                    ^^^^^^ expected an axis with values of its own
    "#);
}

#[test]
fn a_derived_axis_has_itself_as_base() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
pair = { pairs = "pair" }
"#,
    ), @r#"
    error: axis `pair` is derived from itself
     --> spleen.toml:4:18
      |
    4 | pair = { pairs = "pair" }
      |                  ^^^^^^ expected another axis
    "#);
}

#[test]
fn two_pairs_have_the_same_name() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
letter = ["a", "b+c", "a+b", "c"]
letters = { pairs = "letter" }
"#,
    ), @r#"
    error: two pairs of axis `letter` are both called `a+b+c`
     --> spleen.toml:5:21
      |
    5 | letters = { pairs = "letter" }
      |                     ^^^^^^^^ a + b+c and a+b + c
      |
      = hint: give the values names without `+`
    "#);
}

#[test]
fn an_axis_has_no_origin() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
pair = {}
"#,
    ), @r#"
    error: axis `pair` does not say where its values come from
     --> spleen.toml:4:8
      |
    4 | pair = {}
      |        ^^ expected `pairs = "AXIS"` or `from = "model"`
    "#);
}

#[test]
fn an_axis_has_two_origins() {
    assert_snapshot!(errors_below_head(
        r#"[axes]
pair = { pairs = "fold", from = "model" }
"#,
    ), @r#"
    error: axis `pair` has both `pairs` and `from`
     --> spleen.toml:4:8
      |
    4 | pair = { pairs = "fold", from = "model" }
      |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ expected only one of them
    "#);
}

#[test]
fn the_dataset_says_nothing() {
    assert_snapshot!(errors(
        r#"extends = "base"
[dataset]
"#,
    ), @r#"
    error: `dataset` does not say where the images are
     --> spleen.toml:2:1
      |
    2 | [dataset]
      | ^^^^^^^^^ expected `path`, `fetch` or `phantom`
      |
      = hint: for example `path = "data/Dataset004_Hippocampus"`
    "#);
}

#[test]
fn the_dataset_lies_in_two_places() {
    assert_snapshot!(errors_below_head("dataset.phantom = { cases = 12 }"), @r#"
    error: `dataset` says more than once where the images are
     --> spleen.toml:3:19
      |
    2 | dataset.path = "data"
      |                ------ the other one
    3 | dataset.phantom = { cases = 12 }
      |                   ^^^^^^^^^^^^^^ expected only one of `path`, `fetch` and `phantom`
    "#);
}

#[test]
fn a_dataset_to_fetch_lacks_its_digest() {
    assert_snapshot!(errors(
        r#"extends = "base"
[dataset]
fetch = { url = "example.org/a.tar" }
"#,
    ), @r#"
    error: `dataset.fetch` lacks `blake3`
     --> spleen.toml:3:9
      |
    3 | fetch = { url = "example.org/a.tar" }
      |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ expected `{ url = "https://…", blake3 = "…" }`
      |
      = note: without a digest nobody could tell whether the download is what it was

    error: `dataset.fetch.url` must be an address that begins with `https://`, `http://` or `file://`, but is the text "example.org/a.tar"
     --> spleen.toml:3:17
      |
    3 | fetch = { url = "example.org/a.tar" }
      |                 ^^^^^^^^^^^^^^^^^^^ expected an address that begins with `https://`, `http://` or `file://`
    "#);
}

#[test]
fn a_case_is_named_twice() {
    assert_snapshot!(errors_below_head(r#"dataset.cases = ["a", "b", "a"]"#), @r#"
    error: `dataset.cases` names `a` twice
     --> spleen.toml:3:28
      |
    3 | dataset.cases = ["a", "b", "a"]
      |                  ---       ^^^ the second time
      |                  |
      |                  the first time
    "#);
}

#[test]
fn a_stage_has_a_bad_name() {
    assert_snapshot!(errors_below_head(
        r#"[stages."my train"]
uses = "train"
"#,
    ), @r#"
    error: `my train` cannot be the name of a stage
     --> spleen.toml:3:9
      |
    3 | [stages."my train"]
      |         ^^^^^^^^^^ expected letters, digits, `_` and `-`
    "#);
}

#[test]
fn what_slurm_is_told_is_checked() {
    assert_snapshot!(errors_below_head(
        r#"[executor.slurm]
partitoin = "gpu"
gpu = "--gpus=2"
stages = ["trian"]
poll = 10
[stages.train]
"#,
    ), @r#"
    error: `executor.slurm` has no key `partitoin`
     --> spleen.toml:4:1
      |
    4 | partitoin = "gpu"
      | ^^^^^^^^^ unknown key
      |
      = hint: did you mean `partition`?

    error: `executor.slurm.gpu` must be an option with `{n}` for the number of GPUs, such as "--gres=gpu:a100:{n}", but is the text "--gpus=2"
     --> spleen.toml:5:7
      |
    5 | gpu = "--gpus=2"
      |       ^^^^^^^^^^ expected an option with `{n}` for the number of GPUs, such as "--gres=gpu:a100:{n}"

    error: there is no stage `trian`
     --> spleen.toml:6:11
      |
    6 | stages = ["trian"]
      |           ^^^^^^^ unknown stage
      |
      = hint: did you mean `train`?

    error: `executor.slurm.poll` must be a duration such as "24h" or "1h 30m", but is the whole number 10
     --> spleen.toml:7:8
      |
    7 | poll = 10
      |        ^^ expected a duration such as "24h" or "1h 30m"
    "#);
}
