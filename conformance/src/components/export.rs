//! The stage `export` against nnU-Net's `convert_predicted_logits_to_segmentation_with_correct_shape`.

use ndarray::{ArrayD, Ix3};
use nnflow_io::array::ArrayFile;
use nnflow_io::dataset::DatasetDescription;
use nnflow_io::fingerprint::Fingerprint;
use nnflow_io::image::Geometry;
use nnflow_kernels::geometry::{BoundingBox, Spacing, Transpose};
use nnflow_nnunet::case::{CaseRecord, PreparedGrid, RECORD};
use nnflow_nnunet::planner::{self, PlannerSettings};
use nnflow_nnunet::workbench::{Bench, Finished, Made};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::folder::ArrayEntry;
use crate::labels::labels_of;
use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

const PROBABILITY: Tolerance = Tolerance::Absolute(2e-6);
const CASE: &str = "case";
const CONFIGURATION: &str = "3d_fullres";

#[derive(Deserialize)]
struct Entry {
    case: String,
    logits: ArrayEntry,
    segmentation: ArrayEntry,
    probabilities: ArrayEntry,
    labels: Value,
    regions_class_order: Option<Vec<i16>>,
    transpose_forward: Transpose,
    shape: [usize; 3],
    spacing: Spacing,
    cropped_to: BoundingBox,
    scores_shape: [usize; 3],
    scores_spacing: Spacing,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let entries: Vec<Entry> = folder.list("cases.json")?;
    Ok(entries.iter().map(|entry| Vector::of(&entry.case, |check| compare_one(check, folder, entry))).collect())
}

fn compare_one(check: &mut Check, folder: &Folder, entry: &Entry) -> Result<(), Problem> {
    let bench = Bench::new()?;
    // The array is read for its shape, and by the stage from the file.
    let _: ArrayD<f32> = folder.entry(&entry.case, &entry.logits)?;
    let finished = exported(&bench, folder, entry)?;
    let expected: ArrayD<u8> = folder.entry(&entry.case, &entry.segmentation)?;
    let expected = expected.mapv(i16::from).into_dimensionality::<Ix3>().map_err(Problem::refused)?;
    let found = labels_of(finished.port("labels")?.artifact_of_case(CASE)?)?;
    check.labels("labels", &expected, &found, 0.0);
    let made = finished.port("probabilities")?.artifact_of_case(CASE)?.file("probabilities.nna");
    let made = made.ok_or_else(|| Problem::Refused { message: "`export` made no probabilities".to_owned() })?;
    let found = ArrayFile::open(&made.path).and_then(|file| file.read_all::<f32>()).map_err(Problem::refused)?;
    let expected: ArrayD<f32> = folder.entry(&entry.case, &entry.probabilities)?;
    check.array("probabilities", &expected, &found.into_dyn(), PROBABILITY);
    Ok(())
}

fn exported(bench: &Bench, folder: &Folder, entry: &Entry) -> Result<Finished, Problem> {
    let path = bench.fresh_folder()?.join(RECORD);
    let record = serde_json::to_vec(&record(entry)).map_err(Problem::refused)?;
    fs_err::write(&path, record).map_err(|error| Problem::unreadable(&path, error))?;
    let logits = folder.path(&format!("{}/{}", entry.case, entry.logits.file));
    let parameters = json!({"probabilities": true});
    let node = bench.node("export")?.at("configuration", CONFIGURATION);
    let node = node.with(parameters.as_object().unwrap_or(&Map::new()))?;
    Ok(node.run(&[
        ("logits", &Made::of_case(CASE, &[("logits.npy", &logits)])?),
        ("cases", &Made::of_case(CASE, &[(RECORD, &path)])?),
        ("plan", &Made::Document(plan(entry)?)),
        ("description", &Made::Document(description(entry))),
    ])?)
}

/// The record of the preprocessed case that the scores are of.
fn record(entry: &Entry) -> CaseRecord {
    CaseRecord {
        identifier: CASE.to_owned(),
        channels: 1,
        file_ending: ".nii.gz".to_owned(),
        labelled: false,
        geometry: Geometry::new(entry.shape, entry.spacing),
        prepared: Some(PreparedGrid {
            transpose_forward: entry.transpose_forward,
            cropped_to: entry.cropped_to,
            shape: entry.scores_shape,
            spacing: entry.scores_spacing,
        }),
    }
}

fn description(entry: &Entry) -> Value {
    let mut description = json!({
        "channel_names": {"0": "CT"}, "labels": entry.labels, "numTraining": 1, "file_ending": ".nii.gz"
    });
    if let Some(order) = &entry.regions_class_order {
        description["regions_class_order"] = json!(order);
    }
    description
}

/// A plan whose scores are resampled as nnU-Net's planner says; the export reads no other number of it.
fn plan(entry: &Entry) -> Result<Value, Problem> {
    let statistics = ["mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5"];
    let statistics: Map<String, Value> = statistics.iter().map(|name| ((*name).to_owned(), json!(1.0))).collect();
    let fingerprint = json!({
        "spacings": [[1.0, 1.0, 1.0]], "shapes_after_crop": [[64, 64, 64]], "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {"0": statistics},
    });
    let fingerprint: Fingerprint = serde_json::from_value(fingerprint).map_err(Problem::refused)?;
    let description: DatasetDescription = serde_json::from_value(description(entry)).map_err(Problem::refused)?;
    let (plans, _) =
        planner::plan("any", &fingerprint, &description, &PlannerSettings::default()).map_err(Problem::refused)?;
    let mut plans = serde_json::to_value(plans).map_err(Problem::refused)?;
    plans["transpose_forward"] = json!(entry.transpose_forward);
    plans["transpose_backward"] = json!(entry.transpose_forward.inverse());
    Ok(plans)
}
