//! `nnflow predict`: a label image for every image, on the image's own grid.

use std::collections::BTreeMap;

use ndarray::Axis;
use nnflow_io::image::{Geometry, StoredKind, read_header, read_image, read_labels, write_image};

use crate::support::{DATASET, Ended, Project, WORKFLOW, exit, worker};

/// A project with a model and two images that it has not seen.
fn trained() -> Project {
    let project = Project::finished();
    fs_err::rename(project.path(DATASET).join("imagesTs"), project.path("new")).expect("the images can be moved");
    project
}

fn predict(project: &Project, model: &str, output: &str) -> Ended {
    project.nnflow(&["predict", model, "new", output])
}

/// The files of a folder, by name.
fn files(project: &Project, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs_err::read_dir(project.path(folder)).expect("the folder is there").flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let read = |path| fs_err::read(path).expect("the file can be read");
    files.map(|entry| (entry.file_name().to_string_lossy().into_owned(), read(entry.path()))).collect()
}

/// Turns an image by a third of a right angle about two axes and moves it.
fn make_oblique(project: &Project, file: &str) {
    let path = project.path(file);
    let image = read_image(&path, file).expect("the phantom can be read");
    let (sine, cosine) = (0.5, 0.75_f64.sqrt());
    let about_z = [[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]];
    let about_x = [[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]];
    let entry = |row: usize, column: usize| (0..3).map(|k| about_z[row][k] * about_x[k][column]).sum();
    let direction = std::array::from_fn(|index| entry(index / 3, index % 3));
    let geometry = Geometry {
        origin: [-31.5, 12.25, 200.0],
        direction,
        ..Geometry::new(image.geometry.shape, image.geometry.spacing)
    };
    write_image(&path, image.voxels.view(), &geometry, StoredKind::I16, ".nii.gz").expect("the image can be written");
}

#[test]
fn every_image_gets_labels_on_its_own_grid() {
    let project = trained();
    let cases = ["phantom_006", "phantom_007"];
    cases.iter().for_each(|case| make_oblique(&project, &format!("new/{case}_0000.nii.gz")));
    let ended = predict(&project, WORKFLOW, "labels");
    assert_eq!(ended.code, exit::DONE, "{}", ended.err);
    for case in cases {
        let name = format!("labels/{case}.nii.gz");
        let image = read_header(&project.path(&format!("new/{case}_0000.nii.gz")), "image.nii.gz").expect("an image");
        let (labels, geometry) = read_labels(&project.path(&name), &name).expect("a label image");
        assert!(image.geometry.direction[1].abs() > 0.1, "the image is oblique");
        assert_eq!(image.geometry.differences(&geometry).len(), 0, "{case}");
        assert!(labels.iter().all(|label| (0..=2).contains(label)), "{case} has a label that no organ has");
        assert!(labels.iter().any(|label| *label > 0), "{case} has no label at all");
        assert_eq!(labels.len_of(Axis(0)), image.geometry.shape[0]);
    }
}

#[test]
fn nothing_but_the_labels_is_left() {
    let project = trained();
    let ended = predict(&project, WORKFLOW, "labels");
    assert_eq!(ended.code, exit::DONE, "{}", ended.err);
    let left = fs_err::read_dir(project.path("labels")).expect("the folder is there").flatten();
    let mut names: Vec<_> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, ["phantom_006.nii.gz", "phantom_007.nii.gz"]);
}

#[test]
fn a_fold_that_is_asked_for_predicts_as_if_it_were_the_only_one() {
    let project = trained();
    project.output(&["show", "bundle", "--output", "model"]);
    let ended = project.nnflow(&["predict", "model", "new", "chosen", "--fold", "1"]);
    assert_eq!(ended.code, exit::DONE, "{}", ended.err);
    let mut removed = 0;
    for configuration in fs_err::read_dir(project.path("model/models")).expect("the folder is there").flatten() {
        fs_err::remove_dir_all(configuration.path().join("fold_0")).expect("the fold is there");
        removed += 1;
    }
    assert!(removed > 0);
    assert_eq!(predict(&project, "model", "alone").code, exit::DONE);
    assert_eq!(files(&project, "chosen"), files(&project, "alone"));
    assert_eq!(files(&project, "chosen").len(), 2);
}

#[test]
fn a_bundle_predicts_what_its_workflow_predicts() {
    let project = trained();
    project.output(&["show", "bundle", "--output", "model"]);
    assert_eq!(predict(&project, WORKFLOW, "by-workflow").code, exit::DONE);
    assert_eq!(predict(&project, "model", "by-bundle").code, exit::DONE);
    assert_eq!(files(&project, "by-bundle"), files(&project, "by-workflow"));
}

#[test]
fn a_killed_prediction_goes_on() {
    let project = trained();
    assert_eq!(predict(&project, WORKFLOW, "undisturbed").code, exit::DONE);
    project.script("killer", "kill -KILL $PPID");
    let mut command = project.command(&["predict", WORKFLOW, "new", "labels"]);
    let killed = command.env("NNFLOW_TORCH", project.path("killer")).output().expect("nnflow starts");
    assert_eq!(killed.status.code(), None, "a signal has ended it");
    let again = predict(&project, WORKFLOW, "labels");
    assert_eq!(again.code, exit::DONE, "{}", again.err);
    assert!(again.err.contains("  fresh  ingest\n"), "{}", again.err);
    assert_eq!(files(&project, "labels"), files(&project, "undisturbed"));
}

#[test]
fn an_interrupted_prediction_goes_on() {
    let project = trained();
    project.script("interrupter", "kill -TERM $PPID; exec \"$NNFLOW_WORKER\" \"$@\"");
    let mut command = project.command(&["predict", WORKFLOW, "new", "labels"]);
    command.env("NNFLOW_WORKER", worker()).env("NNFLOW_TORCH", project.path("interrupter"));
    let interrupted = command.output().expect("nnflow starts");
    assert_eq!(interrupted.status.code(), Some(exit::INTERRUPTED));
    assert!(project.path("labels/.nnflow").is_dir(), "what was done is kept");
    let again = predict(&project, WORKFLOW, "labels");
    assert_eq!(again.code, exit::DONE, "{}", again.err);
    assert_eq!(files(&project, "labels").len(), 2);
}

#[test]
fn a_repeated_prediction_gives_the_same_files() {
    let project = trained();
    assert_eq!(predict(&project, WORKFLOW, "labels").code, exit::DONE);
    let first = files(&project, "labels");
    assert_eq!(predict(&project, WORKFLOW, "labels").code, exit::DONE);
    assert_eq!(files(&project, "labels"), first);
}

#[test]
fn one_bad_image_does_not_hide_the_others() {
    let project = trained();
    project.write("new/broken_0000.nii.gz", "this is no image");
    let ended = predict(&project, WORKFLOW, "labels");
    assert_eq!(ended.code, exit::WRONG_INPUT, "{}", ended.err);
    assert!(ended.err.contains("case `broken`"), "{}", ended.err);
    assert_eq!(files(&project, "labels").len(), 2);
}

#[test]
fn one_badly_named_image_does_not_hide_the_others() {
    let project = trained();
    let image = fs_err::read(project.path("new/phantom_006_0000.nii.gz")).expect("the phantom can be read");
    project.write("new/second_0001.nii.gz", image);
    let ended = predict(&project, WORKFLOW, "labels");
    assert_eq!(ended.code, exit::WRONG_INPUT, "{}", ended.err);
    assert!(ended.err.contains("second"), "{}", ended.err);
    assert_eq!(files(&project, "labels").len(), 2);
}

#[test]
fn a_model_that_has_not_been_trained() {
    let project = Project::fresh();
    let ended = project.nnflow(&["predict", WORKFLOW, &format!("{DATASET}/imagesTs"), "labels"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("has no model yet") && ended.err.contains("hint: run it first"), "{}", ended.err);
}

#[test]
fn a_folder_that_is_no_model() {
    let project = trained();
    let ended = predict(&project, "data", "labels");
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("is no trained model: it has no `bundle.json`"), "{}", ended.err);
}
