//! Trust in what the store holds: a node that is run again has to make the same bytes.

use crate::support::{Project, exit};

#[test]
fn a_node_makes_the_same_bytes_again() {
    let project = Project::finished();
    assert_eq!(project.output(&["cache", "challenge", "plan"]), "plan: made again, the same bytes (1 unit)\n");
}

#[test]
fn a_training_on_the_cpu_makes_the_same_bytes_again() {
    let project = Project::finished();
    let told = project.output(&["cache", "challenge", "train[2d,0]", "--device", "cpu"]);
    assert_eq!(told, "train[2d,0]: made again, the same bytes (1 unit)\n");
}

#[test]
fn the_cases_of_results_that_are_not_kept_are_made_again() {
    let project = Project::finished();
    let told = project.output(&["cache", "challenge", "resample[2d]"]);
    assert_eq!(told, "resample[2d]: made again, the same bytes (5 units)\n");
}

#[test]
fn other_bytes_are_told_with_the_place_where_they_differ() {
    let project = Project::finished();
    let other_loss = r#"exec sed -u 's/"batch_dice":true/"batch_dice":false/' | "$NNFLOW_WORKER" "$@""#;
    project.script("worker", other_loss);
    let mut command = project.command(&["cache", "challenge", "train[2d,0]"]);
    command.env("NNFLOW_WORKER", crate::support::worker()).env("NNFLOW_TORCH", project.path("worker"));
    let output = command.output().expect("nnflow can be started");
    assert_eq!(output.status.code(), Some(exit::STAGE_FAILED));
    let told = String::from_utf8(output.stdout).expect("nnflow writes valid Unicode");
    assert!(told.starts_with("train[2d,0] (train): `"), "{told}");
}

#[test]
fn a_challenge_leaves_no_trace_in_the_store() {
    let project = Project::finished();
    let before = project.output(&["cache", "stats"]);
    project.output(&["cache", "challenge", "split"]);
    assert_eq!(project.output(&["cache", "stats"]), before);
}

#[test]
fn what_has_not_run_cannot_be_challenged() {
    let ended = Project::fresh().nnflow(&["cache", "challenge", "split"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("there is no result of `split` to hold a new one against"), "{}", ended.err);
}
