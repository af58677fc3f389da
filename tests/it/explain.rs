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

/// A text with each beginning of a digest written as `[digest]`.
pub(crate) fn without_digests(text: &str) -> String {
    let mut redacted = text.to_owned();
    for word in text.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        if word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            redacted = redacted.replace(word, "[digest]");
        }
    }
    redacted
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
    assert_snapshot!(Project::fresh().output(&["run", "--dry-run"]), @r#"
    ingest                                   will run 5 of 5 cases (0 cached): `phantom_001`: it has not run before
    crop                                     unknown until `ingest` has run
    fingerprint                              unknown until `ingest` has run
    plan                                     unknown until `fingerprint` has run
    split                                    will run: it has not run before
    normalize[2d]                            unknown until `plan` has run
    normalize[3d_fullres]                    unknown until `plan` has run
    resample[2d]                             unknown until `plan` has run
    resample[3d_fullres]                     unknown until `plan` has run
    train[2d,0]                              unknown until `plan` has run
    train[2d,1]                              unknown until `plan` has run
    train[3d_fullres,0]                      unknown until `plan` has run
    train[3d_fullres,1]                      unknown until `plan` has run
    predict[2d,0]                            unknown until `plan` has run
    predict[2d,1]                            unknown until `plan` has run
    predict[3d_fullres,0]                    unknown until `plan` has run
    predict[3d_fullres,1]                    unknown until `plan` has run
    validate[2d]                             unknown until `predict[2d,0]` has run
    validate[3d_fullres]                     unknown until `predict[3d_fullres,0]` has run
    ensemble[2d+3d_fullres]                  unknown until `predict[2d,0]` has run
    validate_ensemble[2d+3d_fullres]         unknown until `ensemble[2d+3d_fullres]` has run
    select                                   unknown until `validate[2d]` has run
    postprocess                              unknown until `select` has run
    evaluate                                 unknown until `postprocess` has run
    bundle                                   unknown until `train[2d,0]` has run
    "#);
}

#[test]
fn a_changed_parameter_is_told_with_both_values() {
    let project = Project::finished();
    project.replace("epochs = 5", "epochs = 8");
    assert_snapshot!(project.output(&["run", "--dry-run"]), @r#"
    ingest                                   cached
    crop                                     cached
    fingerprint                              cached
    plan                                     cached
    split                                    cached
    normalize[2d]                            cached
    normalize[3d_fullres]                    cached
    resample[2d]                             cached
    resample[3d_fullres]                     cached
    train[2d,0]                              will run: parameter `epochs` changed (5 → 8)
    train[2d,1]                              will run: parameter `epochs` changed (5 → 8)
    train[3d_fullres,0]                      will run: parameter `epochs` changed (5 → 8)
    train[3d_fullres,1]                      will run: parameter `epochs` changed (5 → 8)
    predict[2d,0]                            unknown until `train[2d,0]` has run
    predict[2d,1]                            unknown until `train[2d,1]` has run
    predict[3d_fullres,0]                    unknown until `train[3d_fullres,0]` has run
    predict[3d_fullres,1]                    unknown until `train[3d_fullres,1]` has run
    validate[2d]                             unknown until `predict[2d,0]` has run
    validate[3d_fullres]                     unknown until `predict[3d_fullres,0]` has run
    ensemble[2d+3d_fullres]                  unknown until `predict[2d,0]` has run
    validate_ensemble[2d+3d_fullres]         unknown until `ensemble[2d+3d_fullres]` has run
    select                                   unknown until `validate[2d]` has run
    postprocess                              unknown until `select` has run
    evaluate                                 unknown until `postprocess` has run
    bundle                                   unknown until `train[2d,0]` has run
    "#);
}

#[test]
fn an_added_case_is_told_by_name() {
    let project = Project::finished();
    add_case(&project, "phantom_006");
    assert_snapshot!(told(&project, &["ingest", "crop", "fingerprint", "split", "plan"]), @r#"
    ingest                                   will run 1 of 6 cases (5 cached): `phantom_006`: it has not run before
    crop                                     unknown until `ingest` has run
    fingerprint                              will run 5 of 6 cases (0 cached): `phantom_001`: what is read of input `set` changed: `n_cases` changed (5 → 6)
    plan                                     unknown until `fingerprint` has run
    split                                    will run: what is read of input `cases` changed: "phantom_006" was added
    "#);
}

#[test]
fn a_changed_file_is_told_by_case_and_name() {
    let project = Project::finished();
    change_label(&project, "phantom_002");
    assert_snapshot!(without_digests(&told(&project, &["ingest", "crop"])), @r#"
    ingest                                   will run 1 of 5 cases (4 cached): `phantom_002`: file `label.nii.gz` of input `files` changed ([digest] → [digest])
    crop                                     unknown until `ingest` has run
    "#);
}

#[test]
fn an_added_case_is_the_reason_of_a_training() {
    let project = Project::finished();
    add_case(&project, "phantom_006");
    project.run(&["--until", "resample", "--until", "split"]).expect(exit::DONE);
    assert_snapshot!(project.output(&["explain", "train[2d,*]"]), @r#"
    train[2d,0]: would run: case `phantom_006` of input `cases` was added
    train[2d,1]: would run: case `phantom_006` of input `cases` was added
    "#);
}

#[test]
fn a_changed_seed_is_told() {
    let project = Project::finished();
    project.replace("[dataset]", "seed = 7\n\n[dataset]");
    assert_snapshot!(project.output(&["explain", "train[2d,1]"]), @"train[2d,1]: would run: the seed changed (1234 → 7)");
}

#[test]
fn a_forced_node_is_told() {
    let text = Project::finished().output(&["run", "--dry-run", "--force", "crop"]);
    assert_snapshot!(text.lines().nth(1).unwrap_or_default(), @"crop                                     will run 5 of 5 cases (0 cached): `phantom_001`: it was asked for with --force");
}

#[test]
fn a_lost_result_is_told() {
    let project = Project::finished();
    let shown = project.output(&["show", "split"]);
    let object = shown.split_whitespace().find(|word| word.contains("/objects/")).expect("the object is shown");
    fs_err::remove_file(object).expect("an object can be removed");
    assert_snapshot!(project.output(&["explain", "split"]), @"split: would run: its result is no longer in the store");
}

#[test]
fn one_case_of_a_node_is_explained() {
    let project = Project::finished();
    change_label(&project, "phantom_002");
    let explain = |case| project.output(&["explain", "ingest", "--case", case]);
    assert_snapshot!(without_digests(&format!("{}{}", explain("phantom_001"), explain("phantom_002"))), @r#"
    ingest, case `phantom_001`: cached: nothing that it reads has changed
    ingest, case `phantom_002`: would run: file `label.nii.gz` of input `files` changed ([digest] → [digest])
    "#);
}

#[test]
fn a_skipped_node_tells_why() {
    let project = Project::finished();
    project.replace("\"3d_fullres\"]", "\"3d_fullres\", \"3d_lowres\"]");
    assert_snapshot!(told(&project, &["normalize[3d_lowres]", "train[3d_lowres,0]", "ensemble[2d+3d_lowres]"]), @r#"
    normalize[3d_lowres]                     skipped: `plan` does not name `3d_lowres`
    train[3d_lowres,0]                       skipped: `plan` does not name `3d_lowres`
    ensemble[2d+3d_lowres]                   skipped: a producer of `labels` was skipped
    "#);
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
