//! What `ingest` says of cases that cannot be used. Each message is told to a person, so it is compared whole.

use std::path::{Path, PathBuf};

use ndarray::{Array3, Array4};
use nnflow_io::image::{Geometry, StoredKind, write_image, write_labels};
use nnflow_kernels::geometry::Spacing;
use nnflow_stage::{ErrorKind, ErrorReport};
use serde_json::{Value, json};

use crate::harness::{Bench, Finished, Made, MadeInTests};

const SHAPE: [usize; 3] = [4, 5, 6];
const SPACING: [f64; 3] = [3.0, 1.0, 1.0];

/// A case of two channels with labels 0 and 1, in files that a test can spoil.
struct Raw {
    bench: Bench,
}

impl Raw {
    fn new() -> Self {
        let raw = Self { bench: Bench::new() };
        raw.write_image("0000.nii.gz", &voxels(1.0), &geometry(SHAPE, SPACING));
        raw.write_image("0001.nii.gz", &voxels(2.0), &geometry(SHAPE, SPACING));
        raw.write_label(&Array3::from_shape_fn(SHAPE, |(_, _, x)| u16::from(x > 2)), &geometry(SHAPE, SPACING));
        raw
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.path().join(name)
    }

    fn write_image(&self, name: &str, voxels: &Array4<f32>, geometry: &Geometry) {
        write_image(&self.path(name), voxels.view(), geometry, StoredKind::F32, ".nii.gz").expect("an image");
    }

    fn write_label(&self, labels: &Array3<u16>, geometry: &Geometry) {
        write_labels(&self.path("label.nii.gz"), labels.view(), geometry, ".nii.gz").expect("labels");
    }

    fn ingest(&self, names: &[&str]) -> Finished {
        let paths: Vec<PathBuf> = names.iter().map(|name| self.path(name)).collect();
        let files: Vec<(&str, &Path)> = names.iter().copied().zip(paths.iter().map(PathBuf::as_path)).collect();
        let inputs = [("files", &Made::case("pat_1", &files)), ("description", &description())];
        self.bench.node("ingest").try_run(&inputs)
    }

    fn report(&self) -> ErrorReport {
        self.ingest(&["0000.nii.gz", "0001.nii.gz", "label.nii.gz"]).failure().clone()
    }

    /// The problems, with the folder of the test left out of the paths.
    fn details(&self, report: &ErrorReport) -> Vec<String> {
        let folder = format!("{}/", self.bench.path().display());
        report.details.iter().map(|detail| detail.replace(&folder, "")).collect()
    }
}

fn voxels(value: f32) -> Array4<f32> {
    Array4::from_elem((1, SHAPE[0], SHAPE[1], SHAPE[2]), value)
}

fn geometry(shape: [usize; 3], spacing: [f64; 3]) -> Geometry {
    Geometry::new(shape, Spacing::new(spacing).expect("positive"))
}

fn document() -> Value {
    json!({
        "channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "tumour": 1}, "numTraining": 1,
        "file_ending": ".nii.gz",
    })
}

fn description() -> Made {
    Made::Document(document())
}

#[test]
fn a_sound_case_has_no_problems() {
    assert!(Raw::new().ingest(&["0000.nii.gz", "0001.nii.gz", "label.nii.gz"]).failures.is_empty());
}

#[test]
fn a_missing_label_image_is_told_with_a_way_out() {
    let report = Raw::new().ingest(&["0000.nii.gz", "0001.nii.gz"]).failure().clone();
    assert_eq!(report.message, "case `pat_1` has 1 problem");
    assert_eq!(report.details, ["it has no label image"]);
    let hint = "add it to `labelsTr`; for cases that are only to be predicted, set `labels = \"none\"`";
    assert_eq!(report.hint.as_deref(), Some(hint));
}

#[test]
fn a_missing_channel_is_counted() {
    let raw = Raw::new();
    let report = raw.ingest(&["0000.nii.gz", "label.nii.gz"]).failure().clone();
    assert_eq!(report.details, ["`dataset.json` names 2 channels, the image files (`0000.nii.gz`) hold 1"]);
}

#[test]
fn channels_of_other_shapes_are_told_with_both_shapes() {
    let raw = Raw::new();
    let shape = [4, 5, 7];
    raw.write_image("0001.nii.gz", &Array4::ones((1, 4, 5, 7)), &geometry(shape, SPACING));
    assert_eq!(
        raw.report().details,
        ["image file 1 has shape `[4, 5, 7]`, the first image `[4, 5, 6]` (voxels, z y x)"]
    );
}

#[test]
fn channels_of_other_spacings_are_told_with_both_spacings() {
    let raw = Raw::new();
    raw.write_image("0001.nii.gz", &voxels(2.0), &geometry(SHAPE, [3.0, 1.0, 1.25]));
    assert_eq!(
        raw.report().details,
        ["image file 1 has spacing `[3, 1, 1.25]`, the first image `[3, 1, 1]` (mm, z y x)"]
    );
}

#[test]
fn another_origin_is_a_line_in_the_log() {
    let raw = Raw::new();
    let mut moved = geometry(SHAPE, SPACING);
    moved.origin = [0.0, 0.0, 10.0];
    raw.write_image("0001.nii.gz", &voxels(2.0), &moved);
    let finished = raw.ingest(&["0000.nii.gz", "0001.nii.gz", "label.nii.gz"]);
    assert!(finished.failures.is_empty(), "{:?}", finished.failures);
    assert_eq!(
        finished.log,
        [
            "case `pat_1`: image file 1 has origin `[0, 0, 10]`, the first image `[0, 0, 0]`; nnU-Net ignores this, and so does nnflow"
        ]
    );
}

#[test]
fn a_label_image_of_another_shape_is_told_with_both_shapes() {
    let raw = Raw::new();
    raw.write_label(&Array3::zeros([3, 5, 6]), &geometry([3, 5, 6], SPACING));
    assert_eq!(
        raw.report().details,
        ["the label image has shape `[3, 5, 6]`, the first image `[4, 5, 6]` (voxels, z y x)"]
    );
}

#[test]
fn unknown_labels_are_told_with_their_sizes() {
    let raw = Raw::new();
    let mut labels = Array3::zeros(SHAPE);
    labels[[0, 0, 0]] = 7;
    labels[[0, 0, 1]] = 7;
    labels[[1, 0, 0]] = 2;
    raw.write_label(&labels, &geometry(SHAPE, SPACING));
    let report = raw.report();
    assert_eq!(
        report.details,
        [
            "the label image has labels that `dataset.json` does not name: `2` (1 voxels), `7` (2 voxels); expected [0, 1]"
        ]
    );
    let hint = "name them under `labels` in `dataset.json`, or change them in the label image";
    assert_eq!(report.hint.as_deref(), Some(hint));
}

#[test]
fn a_label_that_is_no_whole_number_is_told_with_its_place() {
    let raw = Raw::new();
    let mut labels = voxels(0.0);
    labels[[0, 1, 2, 3]] = 0.5;
    raw.write_image("label.nii.gz", &labels, &geometry(SHAPE, SPACING));
    let report = raw.report();
    assert_eq!(
        raw.details(&report),
        [
            "the label image (`label.nii.gz`) cannot be used: labels are whole numbers from -32768 to 32767, found `0.5` at voxel [1, 2, 3] (z, y, x)"
        ]
    );
}

#[test]
fn voxels_that_are_no_numbers_are_counted() {
    let raw = Raw::new();
    let mut image = voxels(2.0);
    image[[0, 1, 2, 3]] = f32::NAN;
    image[[0, 3, 4, 5]] = f32::INFINITY;
    raw.write_image("0001.nii.gz", &image, &geometry(SHAPE, SPACING));
    assert_eq!(
        raw.report().details,
        ["channel 1 has 2 voxels that are no finite number, the first `NaN` at voxel [1, 2, 3] (z, y, x)"]
    );
}

#[test]
fn a_truncated_file_is_told_by_its_path() {
    let raw = Raw::new();
    let whole = std::fs::read(raw.path("0001.nii.gz")).expect("a file");
    std::fs::write(raw.path("0001.nii.gz"), &whole[..whole.len() / 2]).expect("written");
    let report = raw.report();
    assert_eq!(raw.details(&report), ["image file 1 (`0001.nii.gz`) cannot be read: incomplete deflate stream"]);
    assert_eq!(report.hint.as_deref(), Some("copy or export damaged files again"));
}

#[test]
fn an_empty_file_is_told_by_its_path() {
    let raw = Raw::new();
    std::fs::write(raw.path("0000.nii.gz"), b"").expect("written");
    assert_eq!(raw.details(&raw.report()), ["image file 0 (`0000.nii.gz`) is empty"]);
}

#[test]
fn all_problems_of_a_case_are_told_at_once() {
    let raw = Raw::new();
    let mut image = voxels(1.0);
    image[[0, 0, 0, 0]] = f32::NAN;
    raw.write_image("0000.nii.gz", &image, &geometry(SHAPE, SPACING));
    raw.write_image("0001.nii.gz", &voxels(2.0), &geometry(SHAPE, [3.0, 1.0, 2.0]));
    raw.write_label(&Array3::from_elem(SHAPE, 9), &geometry(SHAPE, SPACING));
    let report = raw.report();
    assert_eq!((report.kind, report.details.len()), (ErrorKind::Input, 3), "{report:?}");
}

#[test]
fn a_reader_that_turns_images_is_refused() {
    let mut document = document();
    document["overwrite_image_reader_writer"] = json!("NibabelIOWithReorient");
    let stage = nnflow_nnunet::registry::stage("ingest").expect("registered");
    let parameters =
        nnflow_stage::effective_parameters(stage.spec().parameters, &serde_json::Map::new()).expect("defaults");
    let error = stage.slice("description", &document, &nnflow_stage::Axes::new(), &parameters).expect_err("refused");
    assert!(error.to_string().contains("`NibabelIOWithReorient`"), "{error}");
}

#[test]
fn labels_do_not_enter_the_key_of_cases_to_predict() {
    let bench = Bench::new();
    let node = bench.node("ingest").with(json!({"labels": "none"}));
    let mut other = document();
    other["labels"] = json!({"background": 0, "cyst": 1, "tumour": 2});
    assert_eq!(node.slice("description", &document()), node.slice("description", &other));
}
