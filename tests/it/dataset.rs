//! Datasets with mistakes: all of them are told at once, by case, and no good case suffers.

use insta::assert_snapshot;
use nnflow_io::image::{StoredKind, read_image, write_image};

use crate::support::{DATASET, Project, Run, exit, set};

/// A project with nine cases of two channels.
fn with_two_channels() -> Project {
    let project = Project::fresh();
    fs_err::remove_dir_all(project.path(DATASET)).expect("the dataset can be removed");
    let shape = ["--shape", "8,12,12", "--organs", "2"];
    project.output(&[&["phantom", DATASET, "--cases", "9", "--test-cases", "0", "--channels", "2"], &shape[..]].concat());
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
    for line in run.err.lines() {
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
    assert_snapshot!(failures(&project, &run), @"");
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
    assert_snapshot!(failures(&project, &run), @"");
}

#[test]
fn a_check_tells_missing_files_too() {
    let project = with_two_channels();
    fs_err::remove_file(project.path(&label(4))).expect("the label can be removed");
    let ended = project.nnflow(&["check"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("phantom_004"), "{}", ended.err);
}
