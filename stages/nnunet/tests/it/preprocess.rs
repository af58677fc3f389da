//! Cropping, normalisation and resampling, and both orders of the latter two.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array4;
use nnflow_io::array::ArrayFile;
use nnflow_nnunet::case::CaseRecord;
use nnflow_nnunet::locations::ClassLocations;
use nnflow_stage::Artifact;
use serde_json::{Value, json};

use crate::harness::{Bench, Made, MadeInTests};

fn read<T: nnflow_io::array::Element>(artifact: &Artifact, name: &str) -> Array4<T> {
    let file = artifact.file(name).unwrap_or_else(|| panic!("no file `{name}`"));
    ArrayFile::open(&file.path).and_then(|file| file.read_all()).expect("an array")
}

fn record(artifact: &Artifact) -> CaseRecord {
    CaseRecord::read(artifact).expect("a record")
}

/// A small image with two channels, a border of zeros and a coarse axis in the middle.
fn small_case(bench: &Bench) -> (Made, Made) {
    use nnflow_io::image::{Geometry, StoredKind, write_image, write_labels};
    use nnflow_kernels::geometry::Spacing;

    let shape = [6, 5, 7];
    let geometry = Geometry::new(shape, Spacing::new([1.0, 4.0, 0.5]).expect("positive"));
    let border = |position: usize, extent: usize| position == 0 || position + 1 == extent;
    let outside = |z, y, x| border(z, shape[0]) || border(y, shape[1]) || border(x, shape[2]);
    let intensity = |(c, z, y, x): (usize, usize, usize, usize)| {
        if outside(z, y, x) { 0.0 } else { (1 + c + 3 * z + 5 * y * y + x) as f32 }
    };
    let label = |(z, y, x): (usize, usize, usize)| u16::from(!outside(z, y, x) && x > 3) * (1 + u16::from(y > 2));
    let mut files = Vec::new();
    let image = Array4::from_shape_fn((2, shape[0], shape[1], shape[2]), intensity);
    for channel in 0..2 {
        let path = bench.path().join(format!("{channel:04}.nii.gz"));
        let part = image.slice(ndarray::s![channel..channel + 1, .., .., ..]);
        write_image(&path, part, &geometry, StoredKind::F32, ".nii.gz").expect("an image");
        files.push((format!("{channel:04}.nii.gz"), path));
    }
    let path = bench.path().join("label.nii.gz");
    write_labels(&path, ndarray::Array3::from_shape_fn(shape, label).view(), &geometry, ".nii.gz").expect("labels");
    files.push(("label.nii.gz".to_owned(), path));
    let files: Vec<(&str, &Path)> = files.iter().map(|(name, path)| (name.as_str(), path.as_path())).collect();
    let description = json!({
        "channel_names": {"0": "CT", "1": "MRI"}, "labels": {"background": 0, "a": 1, "b": 2}, "numTraining": 1,
        "file_ending": ".nii.gz",
    });
    (Made::case("case", &files), Made::Document(description))
}

/// Everything from the files to the plan.
fn planned(bench: &Bench) -> BTreeMap<&'static str, Made> {
    let (raw, description) = small_case(bench);
    let cases = bench.node("ingest").run(&[("files", &raw), ("description", &description)]).port("cases").clone();
    let crop = bench.node("crop").run(&[("cases", &cases)]).port("crop").clone();
    let inputs = [("cases", &cases), ("crop", &crop), ("set", &cases), ("description", &description)];
    let fingerprint = bench.node("fingerprint").run(&inputs).port("fingerprint").clone();
    let inputs = [("fingerprint", &fingerprint), ("description", &description)];
    let node = bench.node("plan").with(json!({"target_spacing": [1.5, 3.0, 0.6], "mask_normalization_below": 1.0}));
    let plan = node.run(&inputs).port("plan").clone();
    BTreeMap::from([("cases", cases), ("crop", crop), ("plan", plan), ("description", description)])
}

#[test]
fn resampling_first_gives_a_case_of_the_same_grid_with_the_same_labels() {
    let bench = Bench::new();
    let made = planned(&bench);
    let (cases, crop, plan, description) = (&made["cases"], &made["crop"], &made["plan"], &made["description"]);
    let node = |stage| bench.node(stage).at("configuration", "3d_fullres");
    let normalized = node("normalize").run(&[("cases", cases), ("crop", crop), ("plan", plan)]);
    let v2 =
        node("resample").run(&[("cases", normalized.port("prepared")), ("plan", plan), ("description", description)]);
    let resampled =
        node("resample").run(&[("cases", cases), ("crop", crop), ("plan", plan), ("description", description)]);
    let y2018 = node("normalize")
        .with(json!({"outside": "zero"}))
        .run(&[("cases", resampled.port("prepared")), ("plan", plan)]);
    let (v2, y2018) = (&v2.port("prepared").items()["case"], &y2018.port("prepared").items()["case"]);
    assert_eq!(record(v2), record(y2018));
    assert_eq!(read::<i16>(v2, "label.nna"), read::<i16>(y2018, "label.nna"));
    assert_eq!(ClassLocations::read(v2).expect("locations"), ClassLocations::read(y2018).expect("locations"));
}

#[test]
fn the_coarsest_axis_comes_first_and_each_voxel_with_it() {
    let bench = Bench::new();
    let made = planned(&bench);
    let (cases, crop, plan) = (&made["cases"], &made["crop"], &made["plan"]);
    let node = bench.node("normalize").at("configuration", "3d_fullres");
    let prepared =
        node.run(&[("cases", cases), ("crop", crop), ("plan", plan)]).port("prepared").items()["case"].clone();
    let grid = record(&prepared).prepared.expect("a prepared case");
    assert_eq!(grid.transpose_forward.axes(), [1, 0, 2]);
    assert_eq!((grid.shape, grid.spacing.values()), ([3, 4, 5], [4.0, 1.0, 0.5]));
    let raw = read::<i16>(&cases.items()["case"], "label.nna");
    let label = read::<i16>(&prepared, "label.nna");
    assert!(label.indexed_iter().all(|((_, a0, a1, a2), &label)| label == raw[[0, a1 + 1, a0 + 1, a2 + 1]]));
}

#[test]
fn a_raw_case_without_its_crop_is_told_how_to_get_one() {
    let bench = Bench::new();
    let made = planned(&bench);
    let node = bench.node("normalize").at("configuration", "2d");
    let finished = node.try_run(&[("cases", &made["cases"]), ("plan", &made["plan"])]);
    let report = finished.failure();
    assert_eq!(report.message, "case `case` is not cropped yet, and nothing arrived at input `crop`");
    assert!(report.hint.as_deref().is_some_and(|hint| hint.contains("crop")), "{report:?}");
}

/// A plan in which both configurations of the cascade exist.
fn cascade_plan(bench: &Bench) -> Value {
    let mut plan = planned(bench)["plan"].document();
    plan["configurations"]["3d_cascade_fullres"] =
        json!({"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"});
    plan
}

#[test]
fn a_cascade_shares_the_preprocessing_of_the_full_resolution() {
    let bench = Bench::new();
    let plan = cascade_plan(&bench);
    for stage in ["normalize", "resample"] {
        let slice = |configuration| bench.node(stage).at("configuration", configuration).slice("plan", &plan);
        assert_eq!(slice("3d_fullres"), slice("3d_cascade_fullres"), "{stage}");
    }
}

#[test]
fn batch_and_patch_do_not_enter_the_keys_of_preprocessing() {
    let bench = Bench::new();
    let plan = cascade_plan(&bench);
    let mut other = plan.clone();
    other["configurations"]["3d_fullres"]["batch_size"] = json!(77);
    other["configurations"]["3d_fullres"]["median_image_size_in_voxels"] = json!([1.0, 2.0, 3.0]);
    other["foreground_intensity_properties_per_channel"]["1"]["mean"] = json!(-5.0);
    assert_ne!(plan, other);
    for stage in ["normalize", "resample"] {
        let node = bench.node(stage).at("configuration", "3d_fullres");
        assert_eq!(node.slice("plan", &plan), node.slice("plan", &other), "{stage}");
    }
}

#[test]
fn the_intensities_of_a_ct_channel_enter_the_key_of_its_normalisation() {
    let bench = Bench::new();
    let plan = cascade_plan(&bench);
    let mut other = plan.clone();
    other["foreground_intensity_properties_per_channel"]["0"]["mean"] = json!(-5.0);
    let node = bench.node("normalize").at("configuration", "3d_fullres");
    assert_ne!(node.slice("plan", &plan), node.slice("plan", &other));
}

#[test]
fn two_runs_give_the_same_bytes() {
    let (first, second) = (Bench::new(), Bench::new());
    let digests = |bench: &Bench| {
        let made = planned(bench);
        let (cases, crop, plan) = (&made["cases"], &made["crop"], &made["plan"]);
        let node = bench.node("resample").at("configuration", "2d");
        let inputs = [("cases", cases), ("crop", crop), ("plan", plan), ("description", &made["description"])];
        let prepared = node.run(&inputs).port("prepared").items()["case"].clone();
        prepared.files.into_iter().map(|file| (file.name, file.digest)).collect::<Vec<_>>()
    };
    assert_eq!(digests(&first), digests(&second));
}

#[test]
fn a_spacing_that_is_far_too_small_is_refused_before_memory_is_asked_for() {
    let bench = Bench::new();
    let made = planned(&bench);
    let mut plan = made["plan"].document();
    plan["configurations"]["3d_fullres"]["spacing"] = json!([1e-6, 1e-6, 1e-6]);
    let (cases, crop, plan) = (&made["cases"], &made["crop"], Made::Document(plan));
    let node = bench.node("resample").at("configuration", "3d_fullres");
    let inputs = [("cases", cases), ("crop", crop), ("plan", &plan), ("description", &made["description"])];
    let finished = node.try_run(&inputs);
    assert!(finished.failure().message.ends_with("expected less than 2^32 voxels"), "{:?}", finished.failure());
}
