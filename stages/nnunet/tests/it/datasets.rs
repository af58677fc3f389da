//! Whole datasets from their files to prepared cases; skipped where there are no data.

use std::path::{Path, PathBuf};

use nnflow_io::array::ArrayFile;
use nnflow_nnunet::case::CaseRecord;
use serde_json::json;

use crate::harness::{Bench, Made, MadeInTests};

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
