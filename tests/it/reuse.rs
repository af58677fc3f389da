//! What runs again and what does not: the promise that the whole engine is about.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nnflow::engine::events::RunEvent;
use nnflow_io::image::{read_labels, write_labels};

use crate::support::{CASES, DATASET, Project, Run, WORKFLOW, exit, set};

/// The stages before a training.
const BEFORE_TRAINING: [&str; 7] = ["ingest", "crop", "fingerprint", "plan", "split", "normalize", "resample"];

/// The nodes before a training that look at one case at a time. What a fingerprint samples of a case depends on how many
/// cases there are.
const CASE_BY_CASE: [&str; 6] =
    ["ingest", "crop", "normalize[2d]", "normalize[3d_fullres]", "resample[2d]", "resample[3d_fullres]"];

/// Adds a case of `imagesTs` to the training cases.
pub(crate) fn add_case(project: &Project, case: &str) {
    let dataset = project.path(DATASET);
    let image = format!("{case}_0000.nii.gz");
    move_file(&dataset, &format!("imagesTs/{image}"), &format!("imagesTr/{image}"));
    move_file(&dataset, &format!("labelsTs/{case}.nii.gz"), &format!("labelsTr/{case}.nii.gz"));
}

fn move_file(folder: &Path, from: &str, to: &str) {
    fs_err::rename(folder.join(from), folder.join(to)).expect("the file can be moved");
}

/// Gives one voxel of a label image another label.
pub(crate) fn change_label(project: &Project, case: &str) {
    let path = project.path(&format!("{DATASET}/labelsTr/{case}.nii.gz"));
    let (labels, geometry) = read_labels(&path, "label.nii.gz").expect("the phantom's label image can be read");
    let mut labels = labels.mapv(|label| u16::try_from(label).expect("a phantom's labels are not negative"));
    let voxel = labels.iter_mut().find(|label| **label == 1).expect("the phantom has an organ 1");
    *voxel = 2;
    write_labels(&path, labels.view(), &geometry, ".nii.gz").expect("the label image can be written");
}

fn assert_nothing_runs(run: Run) {
    let run = run.expect(exit::DONE);
    assert_eq!(run.nodes(), set([]));
    let Some(RunEvent::Ended { success: true, run: 0, fresh: 25, skipped: 0, failed: 0, .. }) = run.events.last()
    else {
        panic!("{:?}", run.events.last());
    };
}

#[test]
fn a_second_run_runs_nothing() {
    assert_nothing_runs(Project::finished().run(&[]));
}

#[test]
fn a_moved_folder_runs_nothing() {
    let (project, moved) = (Project::finished(), Project::empty());
    for name in [".nnflow", "data", WORKFLOW] {
        fs_err::rename(project.path(name), moved.path(name)).expect("the folder can be moved");
    }
    assert_nothing_runs(moved.run(&[]));
}

#[test]
fn comments_and_formatting_run_nothing() {
    let project = Project::finished();
    project.replace("# A tiny workflow.\n", "# Another comment.\n\n\n");
    project.replace("folds = 2", "  folds   =   0b10   # as few as can be");
    project.replace("fold = [0, 1]", "fold = [\n  0,\n  1,\n]");
    assert_nothing_runs(project.run(&[]));
}

#[test]
fn touched_files_run_nothing() {
    let project = Project::finished();
    for folder in ["imagesTr", "labelsTr"] {
        for entry in fs_err::read_dir(project.path(DATASET).join(folder)).expect("the dataset is there").flatten() {
            let file = File::options().write(true).open(entry.path()).expect("the file can be opened");
            file.set_modified(SystemTime::now() + Duration::from_secs(60)).expect("the time can be set");
        }
    }
    assert_nothing_runs(project.run(&[]));
}

#[test]
fn what_the_machine_gives_runs_nothing() {
    let project = Project::finished();
    project.append("\n[settings]\nthreads = 1\nmemory = \"3 GiB\"\ndevice = \"cpu\"\n");
    project.append("\n[stages.train.resources]\nthreads = 1\nmemory = \"1 GiB\"\ndevice = \"cpu\"\n");
    assert_nothing_runs(project.run(&["--threads", "2", "--memory", "2.5"]));
}

#[test]
fn where_results_are_kept_runs_nothing() {
    let project = Project::finished();
    fs_err::rename(project.path(".nnflow"), project.path("results")).expect("the store can be moved");
    project.append("\n[stages.normalize]\nstore = true\n");
    assert_nothing_runs(project.run(&["--store", "results"]));
}

#[test]
fn what_two_nodes_have_in_common_is_done_once() {
    // Both configurations normalise alike, and no bytes of that are kept that a second node could find later.
    let run = Project::fresh().run(&["--until", "normalize"]).expect(exit::DONE);
    let is_start =
        |event: &&RunEvent| matches!(event, RunEvent::UnitStarted { node, .. } if node.starts_with("normalize"));
    assert_eq!(run.events.iter().filter(is_start).count(), CASES.len());
}

#[test]
fn an_added_case_is_the_only_one_that_is_prepared() {
    let project = Project::finished();
    add_case(&project, "phantom_006");
    let run = project.run(&["--until", "resample"]).expect(exit::DONE);
    for node in CASE_BY_CASE {
        // Both configurations normalise alike, and what is made for one of them will do for the other.
        let found = run.cases(node);
        assert!(
            found == set(["phantom_006"]) || node.starts_with("normalize") && found.is_empty(),
            "{node}: {found:?}"
        );
    }
    let others: BTreeSet<_> = run.nodes().into_iter().filter(|node| !CASE_BY_CASE.contains(&&**node)).collect();
    assert_eq!(others, set(["fingerprint", "plan"]));
}

#[test]
fn a_removed_case_prepares_no_other_one() {
    let project = Project::finished();
    for file in ["imagesTr/phantom_003_0000.nii.gz", "labelsTr/phantom_003.nii.gz"] {
        fs_err::remove_file(project.path(DATASET).join(file)).expect("the file can be removed");
    }
    let run = project.run(&["--until", "resample"]).expect(exit::DONE);
    assert_eq!(run.nodes(), set(["fingerprint", "plan"]));
}

#[test]
fn a_changed_label_runs_its_case_and_what_depends_on_it() {
    let project = Project::finished();
    change_label(&project, "phantom_002");
    let run = project.run(&[]).expect(exit::DONE);
    for node in CASE_BY_CASE {
        let found = run.cases(node);
        assert!(found.is_subset(&set(["phantom_002"])), "{node}: {found:?}");
    }
    assert_eq!(run.cases("fingerprint"), set(["phantom_002"]));
    let depends = ["train[2d,0]", "train[3d_fullres,1]", "postprocess", "split"];
    assert_eq!(depends.map(|node| run.nodes().contains(node)), [true, true, true, false]);
}

#[test]
fn a_training_parameter_runs_nothing_before_the_training() {
    let project = Project::finished();
    project.replace("epochs = 5", "epochs = 2");
    let run = project.run(&[]).expect(exit::DONE);
    assert!(run.stages().is_disjoint(&set(BEFORE_TRAINING)), "{:?}", run.stages());
    let trained = run.nodes().into_iter().filter(|node| node.starts_with("train")).count();
    assert_eq!(trained, 4);
}

#[test]
fn a_parameter_of_one_configuration_leaves_the_other_alone() {
    let project = Project::finished();
    project.replace("max_features_3d = 8", "max_features_3d = 6");
    let run = project.run(&[]).expect(exit::DONE);
    assert!(run.nodes().contains("train[3d_fullres,0]") && !run.nodes().contains("train[2d,0]"), "{:?}", run.nodes());
}

#[test]
fn a_result_that_is_gone_is_made_again() {
    let project = Project::finished();
    let before = project.results(&[]);
    let shown = project.output(&["show", "plan"]);
    let object = shown.split_whitespace().find(|word| word.contains("/objects/")).expect("the plan's object is shown");
    fs_err::remove_file(object).expect("an object can be removed");
    let run = project.run(&[]).expect(exit::DONE);
    assert_eq!(run.units(), set(["plan"]));
    assert_eq!(project.results(&[]), before);
}

#[test]
fn a_result_that_stays_the_same_runs_no_consumer() {
    let run = Project::finished().run(&["--force", "crop"]).expect(exit::DONE);
    assert_eq!(run.nodes(), set(["crop"]));
    assert_eq!(run.cases("crop"), set(CASES));
}

#[test]
fn bytes_that_were_not_kept_are_made_again_for_who_reads_them() {
    let project = Project::finished();
    project.append("\n[stages.resample.with]\nimage_order = 1\n");
    let run = project.run(&["--until", "resample"]).expect(exit::DONE);
    assert_eq!(run.stages(), set(["resample"]));
}

#[test]
fn a_split_of_ones_own_is_used() {
    let project = Project::finished();
    let (first, second) = CASES.split_at(1);
    let folds = serde_json::json!([{ "train": second, "val": first }, { "train": first, "val": second }]);
    project.write("folds.json", folds.to_string());
    project.replace("path = \"data/Dataset001_Tiny\"", "path = \"data/Dataset001_Tiny\"\nsplit = \"folds.json\"");
    let run = project.run(&["--until", "predict[2d,0]"]).expect(exit::DONE);
    assert_eq!(run.cases("predict[2d,0]"), set(["phantom_001"]));
}
