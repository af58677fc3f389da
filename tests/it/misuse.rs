//! Workflows that are wrong, and results that fall short: a message that helps, and the exit code that scripts rely on.

use insta::assert_snapshot;

use crate::support::{DATASET, Project, WORKFLOW, exit};

#[test]
fn all_mistakes_of_a_workflow_are_told_at_once() {
    let project = Project::fresh();
    project.replace("epochs = 3", "epoch = 3\nkeep = \"newest\"");
    project.replace("fold = [0, 1]", "fold = [0, 0]");
    project.append("\n[stages.crop]\ninputs = { case = \"ingest\" }\n");
    let ended = project.nnflow(&["run"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(project.redact(&ended.err), @"");
}

#[test]
fn a_workflow_that_is_no_toml() {
    let project = Project::fresh();
    project.append("\n[stages.train\n");
    let ended = project.nnflow(&["run"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(project.redact(&ended.err), @"");
}

#[test]
fn a_workflow_that_is_not_there() {
    let ended = Project::empty().nnflow(&["run", "liver.toml"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(ended.err, @"");
}

#[test]
fn a_folder_without_a_workflow() {
    let ended = Project::empty().nnflow(&["run"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(ended.err, @"");
}

#[test]
fn a_dataset_that_is_not_there() {
    let project = Project::fresh();
    fs_err::remove_dir_all(project.path(DATASET)).expect("the dataset can be removed");
    let ended = project.nnflow(&["run"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(project.redact(&ended.err), @"");
}

#[test]
fn a_setting_on_the_command_line_that_is_wrong() {
    let ended = Project::fresh().nnflow(&["run", "--set", "stages.train.with.epochs=many"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(ended.err, @"");
}

#[test]
fn a_node_that_is_not_there() {
    let ended = Project::fresh().nnflow(&["run", "--until", "train[3d]"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert_snapshot!(ended.err, @"");
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
