//! TIFF volumes, whose spacing stands in a file beside them.

use ndarray::{Array3, Array4};
use nnflow_io::image::{Geometry, StoredKind, write_image, write_labels};
use nnflow_kernels::geometry::Spacing;
use serde_json::Value;

use crate::harness::{Bench, Made, MadeInTests};

const SHAPE: [usize; 3] = [3, 4, 5];

/// A dataset of one case of 8 bits; `spacings` are the contents of the files beside the image and the label image.
fn dataset(bench: &Bench, spacings: [Option<&str>; 2]) -> std::path::PathBuf {
    let folder = bench.fresh_folder();
    let description = r#"{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "numTraining": 1, "file_ending": ".tif"}"#;
    std::fs::write(folder.join("dataset.json"), description).expect("writes");
    let geometry = Geometry::new(SHAPE, Spacing::new([1.0; 3]).expect("positive"));
    for (name, spacing) in ["imagesTr", "labelsTr"].into_iter().zip(spacings) {
        std::fs::create_dir(folder.join(name)).expect("a folder");
        if let Some(spacing) = spacing {
            std::fs::write(folder.join(name).join("c.json"), spacing).expect("writes");
        }
    }
    let voxels = Array4::from_elem((1, SHAPE[0], SHAPE[1], SHAPE[2]), 7.0_f32);
    let image = folder.join("imagesTr/c_0000.tif");
    write_image(&image, voxels.view(), &geometry, StoredKind::U8, ".tif").expect("an image");
    write_labels(&folder.join("labelsTr/c.tif"), Array3::ones(SHAPE).view(), &geometry, ".tif").expect("labels");
    folder
}

fn ingested(spacings: [Option<&str>; 2]) -> Result<Vec<f64>, Vec<String>> {
    let bench = Bench::new();
    let (files, description) = Made::dataset(&dataset(&bench, spacings));
    let finished = bench.node("ingest").try_run(&[("files", &files), ("description", &description)]);
    if let Some(report) = finished.failures.values().next() {
        return Err(report.details.clone());
    }
    let record =
        finished.port("cases").items()["c"].files.iter().find(|file| file.name == "case.json").expect("a record");
    let record: Value = serde_json::from_slice(&std::fs::read(&record.path).expect("reads")).expect("JSON");
    Ok(record["geometry"]["spacing"].as_array().expect("a list").iter().filter_map(Value::as_f64).collect())
}

#[test]
fn a_file_beside_the_volume_gives_its_spacing() {
    let spacing = Some(r#"{"spacing": [3, 0.5, 0.25]}"#);
    assert_eq!(ingested([spacing, spacing]), Ok(vec![3.0, 0.5, 0.25]));
}

#[test]
fn labels_without_such_a_file_have_the_images_spacing() {
    assert_eq!(ingested([Some(r#"{"spacing": [3, 0.5, 0.25]}"#), None]), Ok(vec![3.0, 0.5, 0.25]));
}

#[test]
fn without_such_a_file_voxels_have_a_millimetre() {
    assert_eq!(ingested([None, None]), Ok(vec![1.0; 3]));
}

#[test]
fn two_spacings_are_a_problem() {
    let spacings = [Some(r#"{"spacing": [3, 1, 1]}"#), Some(r#"{"spacing": [2, 1, 1]}"#)];
    let told = "the label image has spacing `[2, 1, 1]`, the first image `[3, 1, 1]` (mm, z y x)";
    assert_eq!(ingested(spacings), Err(vec![told.to_owned()]));
}

#[test]
fn a_spacing_that_is_none_is_a_problem() {
    let problems = ingested([Some(r#"{"spacing": [3, 1]}"#), None]).expect_err("two distances");
    assert!(problems[0].starts_with("its spacing cannot be used: "), "{problems:?}");
}
