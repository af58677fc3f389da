//! What a lock promises: that a locked run is made of the same things and makes the same bytes, or says what differs.

use insta::assert_snapshot;

use crate::reuse::change_label;
use crate::support::{Project, exit};

/// The lock of every project's workflow.
const LOCK: &str = "workflow.lock";

/// What a locked run that is refused says, without the folder and the digests.
fn refusal(project: &Project) -> String {
    let run = project.run(&["--locked"]).expect(exit::LOCK_DIFFERS);
    let told = run.err.split_once("error: ").expect("an error is told").1;
    crate::explain::without_digests(&project.redact(told))
}

#[test]
fn a_locked_run_of_what_has_not_changed_is_done() {
    Project::finished().run(&["--locked"]).expect(exit::DONE);
}

#[test]
fn a_locked_run_in_an_empty_store_makes_the_same_bytes() {
    let project = Project::finished();
    let lock = project.read(LOCK);
    project.run(&["--locked", "--store", "elsewhere"]).expect(exit::DONE);
    assert_eq!(project.read(LOCK), lock);
}

#[test]
fn a_changed_parameter_is_refused_before_anything_runs() {
    let project = Project::finished();
    project.replace("epochs = 5", "epochs = 6");
    let run = project.run(&["--locked"]).expect(exit::LOCK_DIFFERS);
    assert!(run.units().is_empty());
}

#[test]
fn a_refusal_names_the_parameter_of_each_node() {
    let project = Project::finished();
    project.replace("epochs = 5", "epochs = 6");
    assert_snapshot!(refusal(&project), @"
    this is not what `[project]/workflow.lock` says
      `train[2d,0]`: parameter `epochs` changed (5 → 6)
      `train[2d,1]`: parameter `epochs` changed (5 → 6)
      `train[3d_fullres,0]`: parameter `epochs` changed (5 → 6)
      `train[3d_fullres,1]`: parameter `epochs` changed (5 → 6)
    hint: undo the change, or run without `--locked` to write a new lock
    ");
}

#[test]
fn a_changed_label_is_refused_by_the_name_of_its_case() {
    let project = Project::finished();
    change_label(&project, "phantom_002");
    assert_snapshot!(refusal(&project), @"
    this is not what `[project]/workflow.lock` says
      case `phantom_002` of `dataset.cases` changed ([digest] → [digest])
    hint: undo the change, or run without `--locked` to write a new lock
    ");
}

#[test]
fn a_refused_run_leaves_the_lock_as_it_is() {
    let project = Project::finished();
    let lock = project.read(LOCK);
    project.replace("epochs = 5", "epochs = 6");
    project.run(&["--locked"]).expect(exit::LOCK_DIFFERS);
    assert_eq!(project.read(LOCK), lock);
}

#[test]
fn a_node_that_made_other_bytes_is_refused() {
    let project = Project::finished();
    let lock = project.read(LOCK);
    let split = lock.split_once("[nodes.split.outputs]\nsplit = \"").expect("the split is locked").1;
    let digest = split.split('"').next().expect("a digest");
    project.write(LOCK, lock.replace(digest, &"0".repeat(64)));
    assert!(refusal(&project).contains("`split`: output `split` is another one ([digest] → [digest])"));
}

#[test]
fn without_a_lock_a_locked_run_is_refused() {
    let run = Project::fresh().run(&["--locked"]).expect(exit::WRONG_INPUT);
    assert!(run.err.contains("a complete run without `--locked`, `--set` and `--until` writes it"), "{}", run.err);
}

#[test]
fn a_run_of_a_part_writes_no_lock() {
    let project = Project::fresh();
    project.run(&["--until", "split"]).expect(exit::DONE);
    assert!(!project.path(LOCK).exists());
}

#[test]
fn a_run_with_changed_values_leaves_the_lock_as_it_is() {
    let project = Project::finished();
    let lock = project.read(LOCK);
    project.run(&["--set", "stages.evaluate.resources.threads=1"]).expect(exit::DONE);
    assert_eq!(project.read(LOCK), lock);
}
