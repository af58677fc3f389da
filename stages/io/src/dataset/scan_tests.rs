use super::*;

use tempfile::TempDir;

/// A dataset of two channels with the declared number of cases and these empty files.
fn dataset(declared: usize, files: &[&str]) -> TempDir {
    dataset_of(".nii.gz", declared, files)
}

fn dataset_of(ending: &str, declared: usize, files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    let description = format!(
        r#"{{"channel_names": {{"0": "a", "1": "b"}}, "labels": {{"background": 0, "x": 1}},
            "numTraining": {declared}, "file_ending": "{ending}"}}"#
    );
    fs::write(folder.path().join("dataset.json"), description).expect("dataset.json");
    for name in [TRAINING_IMAGES, TRAINING_LABELS] {
        fs::create_dir(folder.path().join(name)).expect("folder");
    }
    for file in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().expect("has a folder")).expect("folder");
        fs::write(path, b"").expect("file");
    }
    folder
}

fn problems(declared: usize, files: &[&str]) -> Vec<String> {
    let folder = dataset(declared, files);
    let root = format!("{}/", folder.path().display());
    let listing = scan_dataset(folder.path()).expect("lists");
    listing.problems.iter().map(|problem| problem.to_string().replace(&root, "")).collect()
}

const COMPLETE: [&str; 3] = ["imagesTr/p1_0000.nii.gz", "imagesTr/p1_0001.nii.gz", "labelsTr/p1.nii.gz"];

fn complete_and(more: &[&'static str]) -> Vec<&'static str> {
    COMPLETE.into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn a_complete_case_has_its_channels_in_order() {
    let folder = dataset(1, &COMPLETE);
    let listing = scan_dataset(folder.path()).expect("lists");
    let expected = Case {
        identifier: "p1".to_owned(),
        channels: vec![folder.path().join(COMPLETE[0]), folder.path().join(COMPLETE[1])],
        label: Some(folder.path().join(COMPLETE[2])),
    };
    assert_eq!((listing.training, listing.problems), (vec![expected], vec![]));
}

#[test]
fn hidden_files_are_passed_over() {
    assert_eq!(problems(1, &complete_and(&["imagesTr/._p1_0000.nii.gz", "labelsTr/.DS_Store"])), [""; 0]);
}

#[test]
fn identifiers_may_hold_underscores_and_digits() {
    let files = ["imagesTr/a_0001_0000.nii.gz", "imagesTr/a_0001_0001.nii.gz", "labelsTr/a_0001.nii.gz"];
    let folder = dataset(1, &files);
    assert_eq!(scan_dataset(folder.path()).expect("lists").training[0].identifier, "a_0001");
}

#[test]
fn a_missing_channel_is_named() {
    let found = problems(1, &["imagesTr/p1_0000.nii.gz", "labelsTr/p1.nii.gz"]);
    assert_eq!(found, ["case `p1` lacks a channel: expected `imagesTr/p1_0001.nii.gz`"]);
}

#[test]
fn a_natural_image_may_hold_all_channels() {
    for ending in [".png", ".bmp"] {
        let names =
            [format!("imagesTr/p1_0000{ending}"), format!("labelsTr/p1{ending}"), format!("imagesTs/t1_0000{ending}")];
        let folder = dataset_of(ending, 1, &names.each_ref().map(String::as_str));
        let listing = scan_dataset(folder.path()).expect("lists");
        let found = [&listing.training[0], &listing.test[0]].map(|case| case.channels.clone());
        assert_eq!(found, [&names[0], &names[2]].map(|name| vec![folder.path().join(name)]), "{ending}");
        assert_eq!(listing.problems, []);
    }
}

#[test]
fn natural_images_to_predict_may_hold_all_channels() {
    let folder = dataset_of(".png", 0, &["imagesTs/t1_0000.png"]);
    let (cases, problems) = scan_images(&folder.path().join("imagesTs"), ".png", 3).expect("lists");
    assert_eq!((cases[0].channels.len(), problems), (1, vec![]));
}

#[test]
fn two_natural_images_for_three_channels_lack_one() {
    let folder = dataset_of(".png", 0, &["imagesTs/t1_0000.png", "imagesTs/t1_0001.png"]);
    let images = folder.path().join("imagesTs");
    let (_, problems) = scan_images(&images, ".png", 3).expect("lists");
    let expected = images.join("t1_0002.png");
    assert_eq!(problems, [DatasetProblem::MissingChannel { identifier: "t1".to_owned(), expected }]);
}

#[test]
fn a_natural_image_of_another_channel_than_the_first_is_not_enough() {
    let folder = dataset_of(".png", 0, &["imagesTs/t1_0001.png"]);
    let images = folder.path().join("imagesTs");
    let (_, problems) = scan_images(&images, ".png", 2).expect("lists");
    let expected = images.join("t1_0000.png");
    assert_eq!(problems, [DatasetProblem::MissingChannel { identifier: "t1".to_owned(), expected }]);
}

#[test]
fn an_undeclared_channel_is_named() {
    let found = problems(1, &complete_and(&["imagesTr/p1_0002.nii.gz"]));
    assert_eq!(found, ["case `p1` has `imagesTr/p1_0002.nii.gz`, but `dataset.json` declares 2 channels"]);
}

#[test]
fn a_missing_label_is_named() {
    let found = problems(1, &COMPLETE[..2]);
    assert_eq!(found, ["case `p1` has no label image: expected `labelsTr/p1.nii.gz`"]);
}

#[test]
fn a_label_without_an_image_is_named() {
    let found = problems(1, &complete_and(&["labelsTr/p2.nii.gz"]));
    assert_eq!(found, ["label image `labelsTr/p2.nii.gz` belongs to no image in `imagesTr`"]);
}

#[test]
fn a_wrong_number_of_cases_is_named() {
    let found = problems(5, &COMPLETE);
    assert_eq!(found, ["`numTraining` of `dataset.json` is 5, but the dataset has 1 training cases"]);
}

#[test]
fn a_file_with_another_ending_is_named() {
    let found = problems(1, &complete_and(&["imagesTr/p2_0000.nii"]));
    assert_eq!(found, ["`imagesTr/p2_0000.nii` is no file of the dataset: expected names like `case_0000.nii.gz`"]);
}

#[test]
fn a_channel_number_of_two_digits_is_no_channel() {
    let found = problems(1, &complete_and(&["imagesTr/p2_00.nii.gz"]));
    assert_eq!(found, ["`imagesTr/p2_00.nii.gz` is no file of the dataset: expected names like `case_0000.nii.gz`"]);
}

#[test]
fn names_that_differ_in_case_only_are_named() {
    let more = ["imagesTr/P1_0000.nii.gz", "imagesTr/P1_0001.nii.gz", "labelsTr/P1.nii.gz"];
    assert_eq!(problems(2, &complete_and(&more)), ["cases `P1` and `p1` differ only in upper and lower case"]);
}

#[test]
fn several_problems_are_all_reported() {
    let files = ["imagesTr/p1_0000.nii.gz", "imagesTr/p2_0000.nii.gz", "imagesTr/p2_0001.nii.gz", "labelsTr/p3.nii.gz"];
    assert_eq!(problems(7, &files).len(), 4);
}

#[test]
fn the_sound_cases_remain_beside_a_broken_one() {
    let folder = dataset(2, &complete_and(&["imagesTr/p2_0000.nii.gz", "labelsTr/p2.nii.gz"]));
    let listing = scan_dataset(folder.path()).expect("lists");
    assert_eq!(listing.training.iter().map(|case| case.identifier.as_str()).collect::<Vec<_>>(), ["p1"]);
}

#[test]
fn test_images_need_no_labels() {
    let folder = dataset(1, &complete_and(&["imagesTs/t1_0000.nii.gz", "imagesTs/t1_0001.nii.gz"]));
    assert_eq!(scan_dataset(folder.path()).expect("lists").test[0].identifier, "t1");
}

#[test]
fn listed_cases_are_taken_from_the_description() {
    let folder = dataset(0, &["raw/x.nii.gz", "raw/y.nii.gz", "seg/x.nii.gz"]);
    let description = r#"{"channel_names": {"0": "a", "1": "b"}, "labels": {"background": 0, "x": 1}, "numTraining": 1,
        "file_ending": ".nii.gz", "dataset": {"x": {"images": ["raw/x.nii.gz", "raw/y.nii.gz"], "label": "seg/x.nii.gz"}}}"#;
    fs::write(folder.path().join("dataset.json"), description).expect("dataset.json");
    let listing = scan_dataset(folder.path()).expect("lists");
    assert_eq!(listing.training[0].channels[1], folder.path().join("raw/y.nii.gz"));
}

#[test]
fn a_folder_to_predict_without_images_is_a_problem() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (cases, problems) = scan_images(folder.path(), ".nii.gz", 1).expect("lists");
    assert_eq!((cases.len(), problems), (0, vec![DatasetProblem::NoCases { folder: folder.path().to_path_buf() }]));
}

#[test]
fn a_missing_folder_is_an_error_with_its_name() {
    let error = scan_images(Path::new("/nonexistent"), ".nii.gz", 1).expect_err("no such folder");
    assert_eq!(error.to_string(), "cannot list `/nonexistent`");
}

#[test]
fn tiff_volumes_may_have_their_spacing_beside_them() {
    let files =
        ["imagesTr/p1_0000.tif", "imagesTr/p1_0001.tif", "imagesTr/p1.json", "labelsTr/p1.tif", "labelsTr/p1.json"];
    let folder = dataset_of(".tif", 1, &files);
    let listing = scan_dataset(folder.path()).expect("lists");
    assert_eq!((listing.problems, listing.training.len()), (vec![], 1));
}
