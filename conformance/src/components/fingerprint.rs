//! The stages `ingest`, `crop` and `fingerprint` against nnU-Net's `DatasetFingerprintExtractor`.

use std::path::{Path, PathBuf};

use ndarray::{ArrayView3, Axis, Zip};
use nnflow_io::array::ArrayFile;
use nnflow_io::dataset::DatasetDescription;
use nnflow_io::fingerprint::Fingerprint;
use nnflow_io::json as files;
use nnflow_nnunet::case::{CROP, CaseRecord, CropRecord, LABEL, MASK};
use nnflow_nnunet::planner::{PlannerSettings, plan};
use nnflow_nnunet::sources;
use nnflow_nnunet::workbench::{Bench, Made};
use nnflow_stage::Artifact;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

const SIZE: Tolerance = Tolerance::Relative(1e-12);
/// nnU-Net sums in single precision.
const SUM: Tolerance = Tolerance::Relative(1e-6);
const INTENSITIES: &str = "foreground_intensity_properties_per_channel";
/// Said where a vector is about images that are not part of it.
const NO_IMAGES: &str = "only its files were read: images not at hand (set NNFLOW_DATA to a folder with the dataset)";

/// What `cases.json` says of a case.
#[derive(Deserialize)]
struct Case {
    case: String,
    shape_before_crop: [usize; 3],
    shape_after_crop: [usize; 3],
    bbox: [[usize; 2]; 3],
    spacing: [f64; 3],
    n_foreground: usize,
    n_outside_mask: usize,
}

/// What the stages make of a dataset.
struct Described {
    cases: Made,
    crop: Made,
    fingerprint: Value,
    plan: Value,
}

pub(super) fn compare(folder: &Folder, surroundings: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let datasets = folder.subfolders("")?;
    let of_dataset =
        |name: &String| Vector::of(name, |check| compare_one(check, folder, name, surroundings.data.as_deref()));
    Ok(datasets.iter().map(of_dataset).collect())
}

fn compare_one(check: &mut Check, folder: &Folder, name: &str, data: Option<&Path>) -> Result<(), Problem> {
    let expected: Value = folder.json(&format!("{name}/dataset_fingerprint.json"))?;
    let description: DatasetDescription = folder.json(&format!("{name}/dataset.json"))?;
    let cases: Vec<Case> = folder.list(&format!("{name}/cases.json"))?;
    let read: Fingerprint = serde_json::from_value(expected.clone()).map_err(Problem::refused)?;
    let written = files::to_vec(&read).map_err(Problem::refused)?;
    let again: Value = files::from_slice(&written, Path::new(name)).map_err(Problem::refused)?;
    check.documents("nnU-Net's file, read and written again", &real(&expected), &real(&again));
    let Some(dataset) = dataset_of(folder, name, &cases, data) else {
        check.note(NO_IMAGES);
        return Ok(());
    };
    let bench = Bench::new()?;
    let identifiers: Vec<String> = cases.iter().map(|case| case.case.clone()).collect();
    let described = describe(&bench, &dataset, &identifiers)?;
    compare_documents(check, &expected, &described.fingerprint);
    for case in &cases {
        compare_case(check, case, &described)?;
    }
    let (planned, _) = plan("any", &read, &description, &PlannerSettings::default()).map_err(Problem::refused)?;
    check.documents(
        "configurations planned from it",
        &Value::Object(planned.configurations),
        &described.plan["configurations"],
    );
    Ok(())
}

/// The folder with the images of a vector: the vector's own, else that of a dataset at hand with the same cases.
fn dataset_of(folder: &Folder, name: &str, cases: &[Case], data: Option<&Path>) -> Option<PathBuf> {
    if folder.subfolders(name).is_ok_and(|folders| folders.iter().any(|folder| folder == "imagesTr")) {
        return Some(folder.path(name));
    }
    let entries = std::fs::read_dir(data?).ok()?.flatten().map(|entry| entry.path());
    let mut datasets: Vec<PathBuf> = entries.filter(|path| path.join("dataset.json").is_file()).collect();
    datasets.sort();
    datasets.into_iter().find(|dataset| {
        let listing = sources::dataset(dataset, None);
        listing.is_ok_and(|listing| cases.iter().all(|case| listing.cases.contains_key(&case.case)))
    })
}

fn describe(bench: &Bench, dataset: &Path, identifiers: &[String]) -> Result<Described, Problem> {
    let (raw, description) = Made::of_dataset(dataset, Some(identifiers))?;
    let cases = bench.node("ingest")?.run(&[("files", &raw), ("description", &description)])?.port("cases")?.clone();
    let crop = bench.node("crop")?.run(&[("cases", &cases)])?.port("crop")?.clone();
    let inputs = [("cases", &cases), ("crop", &crop), ("set", &cases), ("description", &description)];
    let fingerprint = bench.node("fingerprint")?.run(&inputs)?.port("fingerprint")?.clone();
    let inputs = [("fingerprint", &fingerprint), ("description", &description)];
    let plan = bench.node("plan")?.run(&inputs)?.port("plan")?.read_document()?;
    Ok(Described { cases, crop, fingerprint: fingerprint.read_document()?, plan })
}

fn compare_documents(check: &mut Check, expected: &Value, found: &Value) {
    check.documents("spacings", &real(&expected["spacings"]), &real(&found["spacings"]));
    check.documents("shapes after cropping", &expected["shapes_after_crop"], &found["shapes_after_crop"]);
    let key = "median_relative_size_after_cropping";
    check.number(key, number(&expected[key]), number(&found[key]), SIZE);
    let channels = |document: &Value| {
        document[INTENSITIES].as_object().map(|channels| channels.keys().cloned().collect::<Vec<_>>())
    };
    check.equal("channels", &channels(expected), &channels(found));
    for channel in channels(expected).into_iter().flatten() {
        let (expected, found) = (&expected[INTENSITIES][&channel], &found[INTENSITIES][&channel]);
        for exact in ["min", "max", "median", "percentile_00_5", "percentile_99_5"] {
            check.equal(format!("channel {channel}: {exact}"), &expected[exact], &found[exact]);
        }
        for sum in ["mean", "std"] {
            check.number(format!("channel {channel}: {sum}"), number(&expected[sum]), number(&found[sum]), SUM);
        }
    }
}

/// The same document with real numbers only: nnU-Net writes the spacing of pictures in whole ones.
fn real(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.iter().map(real).collect(),
        Value::Object(table) => table.iter().map(|(key, value)| (key.clone(), real(value))).collect(),
        other => other.clone(),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// What cropping leaves of a case.
fn compare_case(check: &mut Check, expected: &Case, described: &Described) -> Result<(), Problem> {
    let name = &expected.case;
    let (case, crop) = (described.cases.artifact_of_case(name)?, described.crop.artifact_of_case(name)?);
    let record = CaseRecord::read(case)?;
    let cropped: CropRecord = files::read(&file(crop, CROP)?).map_err(Problem::refused)?;
    let (start, stop) = (cropped.region.start(), cropped.region.stop());
    check.equal(format!("{name}: spacing"), &expected.spacing, &record.geometry.spacing.values());
    check.equal(format!("{name}: shape before cropping"), &expected.shape_before_crop, &cropped.shape_before);
    check.equal(format!("{name}: shape after cropping"), &expected.shape_after_crop, &cropped.shape_after);
    check.equal(format!("{name}: box"), &expected.bbox, &[0, 1, 2].map(|axis| [start[axis], stop[axis]]));
    let labels = array::<i16>(case, LABEL)?;
    let labels = cropped.region.crop(labels.index_axis(Axis(0), 0)).map_err(Problem::refused)?;
    let mask = array::<u8>(crop, MASK)?;
    let foreground = labels.iter().filter(|&&label| label > 0).count();
    check.equal(format!("{name}: voxels of the foreground"), &expected.n_foreground, &foreground);
    let outside = voxels_outside(labels, mask.index_axis(Axis(0), 0));
    check.equal(format!("{name}: voxels outside the mask"), &Some(expected.n_outside_mask), &outside);
    Ok(())
}

/// Voxels that are neither labelled nor within the mask; none if the mask has another shape.
fn voxels_outside(labels: ArrayView3<'_, i16>, mask: ArrayView3<'_, u8>) -> Option<usize> {
    let is_outside = |label: &i16, inside: &u8| *label == 0 && *inside == 0;
    (labels.shape() == mask.shape()).then(|| {
        Zip::from(labels).and(mask).fold(0, |count, label, inside| count + usize::from(is_outside(label, inside)))
    })
}

fn array<T: nnflow_io::array::Element>(artifact: &Artifact, name: &str) -> Result<ndarray::Array4<T>, Problem> {
    ArrayFile::open(&file(artifact, name)?).and_then(|file| file.read_all()).map_err(Problem::refused)
}

fn file(artifact: &Artifact, name: &str) -> Result<PathBuf, Problem> {
    let file = artifact.file(name).map(|file| file.path.clone());
    file.ok_or_else(|| Problem::Refused { message: format!("a stage made no `{name}`") })
}
