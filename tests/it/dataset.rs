//! Datasets with mistakes: all of them are told at once, by case, and no good case suffers.

use insta::assert_snapshot;
use nnflow_io::image::{StoredKind, read_image, write_image};

use crate::support::{DATASET, Project, Run, exit, set};

/// A project with nine cases of two channels.
fn with_two_channels() -> Project {
    let project = Project::fresh();
    fs_err::remove_dir_all(project.path(DATASET)).expect("the dataset can be removed");
    let shape = ["--shape", "16,16,16", "--organs", "2"];
    project
        .output(&[&["phantom", DATASET, "--cases", "9", "--test-cases", "0", "--channels", "2"], &shape[..]].concat());
    project
}

fn image(case: u32, channel: u32) -> String {
    format!("{DATASET}/imagesTr/phantom_{case:03}_{channel:04}.nii.gz")
}

fn label(case: u32) -> String {
    format!("{DATASET}/labelsTr/phantom_{case:03}.nii.gz")
}

/// Reads an image, changes its voxels and writes it, with as many slices as are left.
fn change(project: &Project, file: &str, slices: usize, value: Option<f32>) {
    let path = project.path(file);
    let mut image = read_image(&path, "image.nii.gz").expect("the phantom can be read");
    if let Some(value) = value {
        image.voxels[[0, 1, 2, 3]] = value;
    }
    let slices = slices.min(image.geometry.shape[0]);
    let voxels = image.voxels.slice(ndarray::s![.., ..slices, .., ..]);
    let mut geometry = nnflow_io::image::Geometry::new(image.geometry.shape, image.geometry.spacing);
    geometry.shape[0] = slices;
    write_image(&path, voxels, &geometry, StoredKind::F32, ".nii.gz").expect("the image can be written");
}

/// Makes a different mistake in each of the first eight cases.
fn spoil(project: &Project) {
    change(project, &label(2), 5, None);
    change(project, &image(3, 1), 5, None);
    change(project, &label(4), usize::MAX, Some(7.0));
    change(project, &image(5, 0), usize::MAX, Some(f32::NAN));
    let whole = fs_err::read(project.path(&image(6, 0))).expect("the phantom can be read");
    project.write(&image(6, 0), &whole[..whole.len() / 2]);
    project.write(&image(7, 1), "");
    project.write(&label(8), "this is no image");
}

fn failures(project: &Project, run: &Run) -> String {
    let mut blocks: Vec<String> = Vec::new();
    for line in run.err.lines().filter(|line| !line.starts_with("  failed ")) {
        match blocks.last_mut() {
            Some(block) if line.starts_with("  ") && block.starts_with("error") || line.starts_with("hint") => {
                block.push_str(&format!("\n{line}"));
            }
            _ => blocks.push(line.to_owned()),
        }
    }
    // Cases are read side by side, so that the order of the failures is left to chance.
    blocks.retain(|block| block.starts_with("error"));
    blocks.sort();
    project.redact(&blocks.join("\n"))
}

#[test]
fn all_mistakes_of_a_dataset_are_told_at_once() {
    let project = with_two_channels();
    spoil(&project);
    fs_err::remove_file(project.path(&label(1))).expect("the label can be removed");
    let run = project.run(&[]).expect(exit::WRONG_INPUT);
    assert_snapshot!(failures(&project, &run), @r#"
    error: ingest, case `phantom_002`: case `phantom_002` has 1 problem
      the label image has shape `[5, 15, 17]`, the first image `[16, 15, 17]` (voxels, z y x)
    error: ingest, case `phantom_003`: case `phantom_003` has 1 problem
      image file 1 has shape `[5, 17, 15]`, the first image `[16, 17, 15]` (voxels, z y x)
    error: ingest, case `phantom_004`: case `phantom_004` has 1 problem
      the label image has labels that `dataset.json` does not name: `7` (1 voxels); expected [0, 1, 2]
    hint: name them under `labels` in `dataset.json`, or change them in the label image
    error: ingest, case `phantom_005`: case `phantom_005` has 1 problem
      channel 0 has 1 voxels that are no finite number, the first `NaN` at voxel [1, 2, 3] (z, y, x)
    hint: replace them, leave the case out, or set `non_finite = "zero"` for `ingest`: one such voxel makes the whole case NaN when it is normalised
    error: ingest, case `phantom_006`: case `phantom_006` has 1 problem
      image file 0 (`[project]/data/Dataset001_Tiny/imagesTr/phantom_006_0000.nii.gz`) cannot be read: incomplete deflate stream
    hint: copy or export damaged files again
    error: ingest, case `phantom_007`: case `phantom_007` has 1 problem
      image file 1 (`[project]/data/Dataset001_Tiny/imagesTr/phantom_007_0001.nii.gz`) is empty
    hint: copy or export damaged files again
    error: ingest, case `phantom_008`: case `phantom_008` has 1 problem
      the label image (`[project]/data/Dataset001_Tiny/labelsTr/phantom_008.nii.gz`) cannot be used: not a NIfTI file: expected 348 or 540 as its first number, found bytes [74, 68, 69, 73]
    error: the dataset is incomplete
      case `phantom_001` has no label image: expected `[project]/data/Dataset001_Tiny/labelsTr/phantom_001.nii.gz`
    hint: mend these and run again; what was read of the other cases is kept
    "#);
}

#[test]
fn good_cases_are_read_and_nothing_else_runs_where_files_are_missing() {
    let project = with_two_channels();
    spoil(&project);
    fs_err::remove_file(project.path(&label(1))).expect("the label can be removed");
    let run = project.run(&[]).expect(exit::WRONG_INPUT);
    assert_eq!(run.units(), set(["ingest/phantom_009"]));
}

#[test]
fn no_stage_over_all_cases_runs_while_one_is_bad() {
    let project = with_two_channels();
    spoil(&project);
    let run = project.run(&["--keep-going"]).expect(exit::WRONG_INPUT);
    assert_eq!(run.cases("ingest"), set(["phantom_001", "phantom_009"]));
    assert!(!run.units().contains("fingerprint") && !run.nodes().contains("plan"), "{:?}", run.units());
}

#[test]
fn mended_cases_are_all_that_is_read_again() {
    let project = with_two_channels();
    let good = fs_err::read(project.path(&image(7, 1))).expect("the phantom can be read");
    project.write(&image(7, 1), "");
    project.run(&["--until", "ingest"]).expect(exit::WRONG_INPUT);
    project.write(&image(7, 1), good);
    let run = project.run(&["--until", "ingest"]).expect(exit::DONE);
    assert_eq!(run.units(), set(["ingest/phantom_007"]));
}

#[test]
fn a_missing_channel_is_told_by_case() {
    let project = with_two_channels();
    fs_err::remove_file(project.path(&image(3, 1))).expect("the image can be removed");
    let run = project.run(&[]).expect(exit::WRONG_INPUT);
    assert_snapshot!(failures(&project, &run), @r#"
    error: the dataset is incomplete
      case `phantom_003` lacks a channel: expected `[project]/data/Dataset001_Tiny/imagesTr/phantom_003_0001.nii.gz`
    hint: mend these and run again; what was read of the other cases is kept
    "#);
}

#[test]
fn a_check_tells_missing_files_too() {
    let project = with_two_channels();
    fs_err::remove_file(project.path(&label(4))).expect("the label can be removed");
    let ended = project.nnflow(&["check"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("phantom_004"), "{}", ended.err);
}
