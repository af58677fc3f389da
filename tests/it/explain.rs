//! What nnflow says before it runs: what is cached, what will run and why, and what cannot be known yet.

use insta::assert_snapshot;

use crate::reuse::{add_case, change_label};
use crate::support::{DATASET, Project, WORKFLOW, exit};

/// The lines of a dry run about these nodes.
fn told(project: &Project, nodes: &[&str]) -> String {
    let text = project.output(&["run", "--dry-run"]);
    let is_asked = |line: &&str| nodes.iter().any(|node| line.split_whitespace().next() == Some(node));
    text.lines().filter(is_asked).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_at_hand_is_called_cached() {
    let text = Project::finished().output(&["run", "--dry-run"]);
    assert!(text.lines().all(|line| line.ends_with(" cached")), "{text}");
    assert_eq!(text.lines().count(), 25);
}

#[test]
fn a_dry_run_runs_nothing() {
    let project = Project::fresh();
    project.output(&["run", "--dry-run"]);
    assert_eq!(project.run(&["--until", "split"]).expect(exit::DONE).units().len(), 6);
}

#[test]
fn before_the_first_run_only_the_beginning_is_known() {
    assert_snapshot!(Project::fresh().output(&["run", "--dry-run"]), @"");
}

#[test]
fn a_changed_parameter_is_told_with_both_values() {
    let project = Project::finished();
    project.replace("epochs = 3", "epochs = 5");
    assert_snapshot!(project.output(&["run", "--dry-run"]), @"");
}

#[test]
fn an_added_case_is_told_by_name() {
    let project = Project::finished();
    add_case(&project, "phantom_006");
    assert_snapshot!(told(&project, &["ingest", "crop", "fingerprint", "split", "plan"]), @"");
}

#[test]
fn a_changed_file_is_told_by_case_and_name() {
    let project = Project::finished();
    change_label(&project, "phantom_002");
    assert_snapshot!(told(&project, &["ingest", "crop"]), @"");
}

#[test]
fn an_added_case_is_told_as_the_reason_once_it_was_read() {
    let project = Project::finished();
    add_case(&project, "phantom_006");
    project.run(&["--until", "crop"]).expect(exit::DONE);
    assert_snapshot!(told(&project, &["split"]), @"");
}

#[test]
fn a_changed_seed_is_told() {
    let project = Project::finished();
    project.replace("[dataset]", "seed = 7\n\n[dataset]");
    assert_snapshot!(project.output(&["explain", "train[2d,1]"]), @"");
}

#[test]
fn a_forced_node_is_told() {
    let text = Project::finished().output(&["run", "--dry-run", "--force", "crop"]);
    assert_snapshot!(text.lines().nth(1).unwrap_or_default(), @"");
}

#[test]
fn a_lost_result_is_told() {
    let project = Project::finished();
    let shown = project.output(&["show", "split"]);
    let object = shown.split_whitespace().find(|word| word.contains("/objects/")).expect("the object is shown");
    fs_err::remove_file(object).expect("an object can be removed");
    assert_snapshot!(project.output(&["explain", "split"]), @"");
}

#[test]
fn one_case_of_a_node_is_explained() {
    let project = Project::finished();
    change_label(&project, "phantom_002");
    let explain = |case| project.output(&["explain", "ingest", "--case", case]);
    assert_snapshot!(format!("{}{}", explain("phantom_001"), explain("phantom_002")), @"");
}

#[test]
fn a_skipped_node_tells_why() {
    let project = Project::finished();
    project.replace("\"3d_fullres\"]", "\"3d_fullres\", \"3d_lowres\"]");
    assert_snapshot!(told(&project, &["normalize[3d_lowres]", "train[3d_lowres,0]", "ensemble[2d+3d_lowres]"]), @"");
}

#[test]
fn a_description_that_cannot_be_used_is_told_before_anything_runs() {
    let project = Project::fresh();
    let description = project.read(&format!("{DATASET}/dataset.json"));
    let turned = description.replacen('{', "{ \"overwrite_image_reader_writer\": \"NibabelIOWithReorient\",", 1);
    project.write(&format!("{DATASET}/dataset.json"), turned);
    let dry = project.nnflow(&["run", "--dry-run"]);
    let run = project.nnflow(&["run", WORKFLOW]);
    assert_eq!([dry.code, run.code], [exit::WRONG_INPUT; 2]);
    let sentence = "`overwrite_image_reader_writer` of `dataset.json` asks for `NibabelIOWithReorient`";
    assert!(dry.err.contains(sentence) && run.err.contains(sentence), "{}\n{}", dry.err, run.err);
}
