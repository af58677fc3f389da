//! Workflows that are wrong, and results that fall short: a message that helps, and the exit code that scripts rely on.

use insta::assert_snapshot;

use crate::support::{DATASET, Project, WORKFLOW, exit};

#[test]
fn all_mistakes_of_a_workflow_are_told_at_once() {
    let project = Project::fresh();
    project.replace("epochs = 5", "epoch = 3\nkeep = \"newest\"");
    project.replace("fold = [0, 1]", "fold = [0, 0]");
    project.append("\n[stages.crop]\ninputs = { case = \"ingest\" }\n");
    let ended = project.nnflow(&["run"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(project.redact(&ended.err), @r#"
    error: axis `fold` has the value `0` twice
      --> workflow.toml:10:12
       |
    10 | fold = [0, 0]
       |         -  ^ the second time
       |         |
       |         the first time

    error: `train` has no parameter `epoch`
      --> workflow.toml:25:1
       |
    25 | epoch = 3
       | ^^^^^ unknown parameter
       |
       = hint: did you mean `epochs`?

    error: parameter `keep` of `train` must be one of "last", "best", but is "newest"
      --> workflow.toml:26:8
       |
    26 | keep = "newest"
       |        ^^^^^^^^ expected one of "last", "best"

    error: `crop` has no input `case`
      --> workflow.toml:32:12
       |
    32 | inputs = { case = "ingest" }
       |            ^^^^ unknown input
       |
       = hint: did you mean `cases`?
    "#);
}

#[test]
fn a_workflow_that_is_no_toml() {
    let project = Project::fresh();
    project.append("\n[stages.train\n");
    let ended = project.nnflow(&["run"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(project.redact(&ended.err), @r#"
    error: this is not TOML: unclosed table
      --> workflow.toml:30:14
       |
    30 | [stages.train
       |              ^ expected `]`
    "#);
}

#[test]
fn a_workflow_that_is_not_there() {
    let ended = Project::empty().nnflow(&["run", "liver.toml"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(ended.err, @"error: workflow `liver.toml` cannot be read: there is no such file");
}

#[test]
fn a_folder_without_a_workflow() {
    let ended = Project::empty().nnflow(&["run"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(ended.err, @r#"
    error: there is no workflow in this folder
    hint: name one with `--workflow FILE`
    "#);
}

#[test]
fn a_dataset_that_is_not_there() {
    let project = Project::fresh();
    fs_err::remove_dir_all(project.path(DATASET)).expect("the dataset can be removed");
    let ended = project.nnflow(&["run"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(project.redact(&ended.err), @r#"
    error: there is no dataset folder `[project]/data/Dataset001_Tiny`
    hint: `[dataset] path` is relative to the workflow's file; `nnflow phantom DIR` makes a dataset to try
    "#);
}

#[test]
fn a_setting_on_the_command_line_that_is_wrong() {
    let ended = Project::fresh().nnflow(&["run", "--set", "stages.train.with.epochs=many"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(ended.err, @r#"
    error: parameter `epochs` of `train` must be a whole number from 1 to 1000000000, but is "many"
     --> --set:1:26
      |
    1 | stages.train.with.epochs=many
      |                          ^^^^ expected a whole number from 1 to 1000000000
    "#);
}

#[test]
fn a_node_that_is_not_there() {
    let ended = Project::fresh().nnflow(&["run", "--until", "train[3d]"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(ended.err, @r#"
    error: there is no node `train[3d]`
     --> node:1:1
      |
    1 | train[3d]
      | ^^^^^^^^^ no such node
      |
      = hint: axis `configuration` has `2d`, `3d_fullres`
    "#);
}

#[test]
fn an_expectation_that_is_not_met_has_an_exit_code_of_its_own() {
    let project = Project::finished();
    project.append("\n[expect]\n\"evaluate.foreground_mean.dice\" = \"> 1\"\n");
    let run = project.run(&[]).expect(exit::EXPECTATION_NOT_MET);
    assert!(run.out.contains("expected > 1  not met"), "{}", run.out);
}

#[test]
fn an_expectation_that_is_met() {
    let project = Project::finished();
    project.append("\n[expect]\n\"evaluate.foreground_mean.dice\" = \">= 0\"\n\"train.wall_seconds\" = \"< 7200\"\n");
    let run = project.run(&[]).expect(exit::DONE);
    assert_eq!(run.out.matches("  met\n").count(), 5, "{}", run.out);
}

#[test]
fn an_expectation_that_only_warns() {
    let project = Project::finished();
    project.append("\n[expect]\n\"evaluate.foreground_mean.dice\" = { min = 1.1, severity = \"warn\" }\n");
    let run = project.run(&[]).expect(exit::DONE);
    assert!(run.out.contains("not met"), "{}", run.out);
}

#[test]
fn a_metric_that_does_not_exist_is_not_met() {
    let project = Project::finished();
    project.append("\n[expect]\n\"evaluate.foreground_mean.beauty\" = \">= 0\"\n");
    let run = project.run(&[]).expect(exit::EXPECTATION_NOT_MET);
    assert!(run.out.contains("evaluate.foreground_mean.beauty"), "{}", run.out);
}

#[test]
fn a_store_that_cannot_be_written() {
    let project = Project::fresh();
    project.write(".nnflow", "a file where the store should be");
    let ended = project.nnflow(&["run", WORKFLOW]);
    assert_eq!(ended.code, exit::STORAGE, "{}", ended.err);
}
