//! Whole datasets from their files to prepared cases; skipped where there are no data.

use std::path::{Path, PathBuf};

use nnflow_io::array::ArrayFile;
use nnflow_io::dataset::DatasetDescription;
use nnflow_io::fingerprint::Fingerprint;
use nnflow_nnunet::case::CaseRecord;
use nnflow_nnunet::planner::{PlannerSettings, plan};
use serde_json::{Value, json};

use crate::harness::{Bench, Made};
use crate::vectors;

/// Relative tolerance of sums, which nnU-Net takes in single precision.
const SUM_TOLERANCE: f64 = 1e-6;

/// A dataset in `$NNFLOW_DATA`, or beside the repository.
fn dataset(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("NNFLOW_DATA").map_or_else(beside, PathBuf::from).join(name);
    let found = folder.join("dataset.json").is_file();
    if !found {
        eprintln!("skipped: there is no dataset `{}`; set NNFLOW_DATA to a folder that has it", folder.display());
    }
    found.then_some(folder)
}

/// What the stages before preprocessing make of a dataset.
struct Described {
    cases: Made,
    crop: Made,
    fingerprint: Made,
    plan: Made,
    description: Made,
}

impl Described {
    fn new(bench: &Bench, folder: &Path) -> Self {
        let (raw, description) = Made::dataset(folder);
        let cases = bench.node("ingest").run(&[("files", &raw), ("description", &description)]).port("cases").clone();
        let crop = bench.node("crop").run(&[("cases", &cases)]).port("crop").clone();
        let inputs = [("cases", &cases), ("crop", &crop), ("set", &cases), ("description", &description)];
        let fingerprint = bench.node("fingerprint").run(&inputs).port("fingerprint").clone();
        let inputs = [("fingerprint", &fingerprint), ("description", &description)];
        let plan = bench.node("plan").run(&inputs).port("plan").clone();
        Self { cases, crop, fingerprint, plan, description }
    }

    fn prepare(&self, bench: &Bench, configuration: &str) -> Made {
        let Self { cases, crop, plan, description, .. } = self;
        let node = |stage| bench.node(stage).at("configuration", configuration);
        let normalized =
            node("normalize").run(&[("cases", cases), ("crop", crop), ("plan", plan)]).port("prepared").clone();
        let inputs = [("cases", &normalized), ("plan", plan), ("description", description)];
        node("resample").run(&inputs).port("prepared").clone()
    }
}

/// The shape of a case is its cropped shape times the ratio of the spacings, and its arrays have that shape.
fn check_grids(described: &Described, prepared: &Made, configuration: &str) {
    let target = &described.plan.document()["configurations"][configuration]["spacing"];
    let target: Vec<f64> = serde_json::from_value(target.clone()).expect("a spacing");
    for (case, artifact) in prepared.items() {
        let record = CaseRecord::read(artifact).expect("a record");
        let grid = record.prepared.clone().expect("a prepared case");
        let original = grid.original_spacing(&record.geometry).values();
        let cropped = grid.cropped_to.shape();
        for axis in 0..3 {
            // Slices keep their own distance.
            let wanted =
                if target.len() == 3 { Some(target[axis]) } else { axis.checked_sub(1).map(|axis| target[axis]) };
            let wanted = wanted.unwrap_or(original[axis]);
            let extent = (original[axis] / wanted * cropped[axis] as f64).round_ties_even() as usize;
            assert_eq!((grid.shape[axis], grid.spacing.values()[axis]), (extent, wanted), "{case}, axis {axis}");
        }
        let image = ArrayFile::open(&artifact.file("image.nna").expect("an image").path).expect("an array");
        assert_eq!(image.shape(), [record.channels, grid.shape[0], grid.shape[1], grid.shape[2]], "{case}");
    }
}

/// Runs every stage up to the prepared cases of every configuration; gives the names of the configurations.
fn prepare_all(name: &str) -> Option<Vec<String>> {
    let folder = dataset(name)?;
    let bench = Bench::new();
    let described = Described::new(&bench, &folder);
    let planned = described.plan.document();
    let names: Vec<String> = planned["configurations"].as_object().expect("a table").keys().cloned().collect();
    for configuration in &names {
        check_grids(&described, &described.prepare(&bench, configuration), configuration);
    }
    Some(names)
}

#[test]
fn small_volumes_are_prepared() {
    prepare_all("Dataset004_Hippocampus");
}

#[test]
fn volumes_of_ct_and_mr_with_thick_slices_are_prepared() {
    prepare_all("Dataset111_STSMultimodal");
}

#[test]
fn volumes_of_four_channels_are_prepared() {
    prepare_all("Dataset113_OpenMSLesion");
}

#[test]
fn flat_images_of_many_sizes_are_prepared_for_one_configuration() {
    let names = prepare_all("Dataset120_DSB2018Fluo");
    assert!(names.is_none_or(|names| names == ["2d"]));
}

#[test]
fn flat_images_have_nnu_nets_dummy_spacing() {
    let Some(folder) = dataset("Dataset120_DSB2018Fluo") else { return };
    let fingerprint = Described::new(&Bench::new(), &folder).fingerprint.document();
    let spacings = fingerprint["spacings"].as_array().expect("a list");
    assert!(
        !spacings.is_empty() && spacings.iter().all(|spacing| *spacing == json!([999.0, 1.0, 1.0])),
        "{spacings:?}"
    );
}

/// Our fingerprint of a dataset and nnU-Net's, if the dataset is there.
fn fingerprints(name: &str, golden: &str) -> Option<(Value, Value)> {
    let folder = dataset(name)?;
    let expected = vectors::json(&vectors::folder("fingerprint").join(golden).join("dataset_fingerprint.json"));
    Some((Described::new(&Bench::new(), &folder).fingerprint.document(), expected))
}

fn check_fingerprint(name: &str, golden: &str) {
    let Some((found, expected)) = fingerprints(name, golden) else { return };
    for key in ["spacings", "shapes_after_crop", "median_relative_size_after_cropping"] {
        assert_eq!(found[key], expected[key], "{key}");
    }
    let key = "foreground_intensity_properties_per_channel";
    for (channel, expected) in expected[key].as_object().expect("a table") {
        let found = &found[key][channel];
        for exact in ["min", "max", "median", "percentile_00_5", "percentile_99_5"] {
            assert_eq!(found[exact], expected[exact], "channel {channel}: {exact}");
        }
        for sum in ["mean", "std"] {
            let (found, expected) = (number(&found[sum]), number(&expected[sum]));
            let deviation = (found - expected).abs() / expected.abs();
            eprintln!("{golden}, channel {channel}: {sum} deviates by {deviation:e}");
            assert!(deviation <= SUM_TOLERANCE, "channel {channel}: {sum} {found}, expected {expected}");
        }
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn the_fingerprint_of_many_small_cases_is_nnu_nets() {
    check_fingerprint("Dataset004_Hippocampus", "hippocampus210");
}

#[test]
fn the_fingerprint_of_four_channels_is_nnu_nets() {
    check_fingerprint("Dataset113_OpenMSLesion", "openms");
}

/// The planner on nnU-Net's own fingerprint, and the stages on the images, lead to the same configurations.
#[test]
fn the_plan_of_the_stages_is_that_of_nnu_nets_fingerprint() {
    for (name, golden) in [("Dataset004_Hippocampus", "hippocampus210"), ("Dataset113_OpenMSLesion", "openms")] {
        let Some(folder) = dataset(name) else { return };
        let golden = vectors::folder("fingerprint").join(golden);
        let parsed = |file: &str| vectors::json(&golden.join(file));
        let fingerprint: Fingerprint =
            serde_json::from_value(parsed("dataset_fingerprint.json")).expect("a fingerprint");
        let description: DatasetDescription = serde_json::from_value(parsed("dataset.json")).expect("a description");
        let (expected, _) = plan("any", &fingerprint, &description, &PlannerSettings::default()).expect("a plan");
        let found = Described::new(&Bench::new(), &folder).plan.document();
        assert_eq!(found["configurations"], Value::Object(expected.configurations), "{name}");
    }
}
