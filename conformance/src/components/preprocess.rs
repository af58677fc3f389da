//! The stages `ingest`, `crop`, `normalize` and `resample` against nnU-Net's `DefaultPreprocessor.run_case`.

use std::path::{Path, PathBuf};

use ndarray::{Array4, ArrayD, Axis, Ix4};
use nnflow_io::array::{ArrayFile, Element};
use nnflow_nnunet::case::{CaseRecord, IMAGE, LABEL, PreparedGrid};
use nnflow_nnunet::locations::{ClassLocations, INDEX};
use nnflow_nnunet::workbench::{Bench, Made};
use nnflow_stage::Artifact;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::folder::ArrayEntry;
use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

/// Of channels that are normalised by sums, which nnU-Net takes in single precision; values are about one.
const SUMMED: Tolerance = Tolerance::Absolute(1e-4);
/// Of channels that are normalised by given numbers.
const GIVEN: Tolerance = Tolerance::OfLargest(1e-5);
const GIVEN_SCHEMES: [&str; 3] = ["CTNormalization", "NoNormalization", "RGBTo01Normalization"];
/// Of labels: two may be so close to each other that the last bit decides.
const NEAR_TIES: f64 = 0.01;
/// Of origins in millimetres and of directions, which a file holds in single precision.
const GEOMETRY: Tolerance = Tolerance::Absolute(1e-6);
const CASE: &str = "case";

#[derive(Deserialize)]
struct Entry {
    case: String,
    configuration: String,
    images: Vec<String>,
    label: Option<String>,
    data: ArrayEntry,
    seg: ArrayEntry,
}

/// `properties.json`.
#[derive(Deserialize)]
struct Properties {
    spacing: [f64; 3],
    sitk_stuff: Option<FileGeometry>,
    shape_before_cropping: [usize; 3],
    bbox_used_for_cropping: [[usize; 2]; 3],
    shape_after_cropping_and_before_resampling: [usize; 3],
    #[serde(default)]
    class_locations: Vec<Locations>,
}

/// What SimpleITK says of the file, in the order x, y, z.
#[derive(Deserialize)]
struct FileGeometry {
    origin: Vec<f64>,
    direction: Vec<f64>,
}

#[derive(Deserialize)]
struct Locations {
    class: Value,
    #[serde(flatten)]
    array: ArrayEntry,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let entries: Vec<Entry> = folder.list("cases.json")?;
    Ok(entries.iter().map(|entry| Vector::of(&entry.case, |check| compare_one(check, folder, entry))).collect())
}

fn compare_one(check: &mut Check, folder: &Folder, entry: &Entry) -> Result<(), Problem> {
    let bench = Bench::new()?;
    let plans: Value = folder.json(&format!("{}/plans.json", entry.case))?;
    let schemes = &plans["configurations"][&entry.configuration]["normalization_schemes"];
    let schemes: Vec<String> = serde_json::from_value(schemes.clone()).map_err(Problem::refused)?;
    let prepared = prepare(&bench, folder, entry, plans)?;
    let record = CaseRecord::read(&prepared)?;
    let grid = record.prepared.clone();
    let grid = grid.ok_or_else(|| Problem::Refused { message: "the case is not prepared".to_owned() })?;
    compare_image(check, folder, entry, &prepared, &schemes)?;
    compare_labels(check, folder, entry, &prepared, &grid)?;
    let properties: Properties = folder.json(&format!("{}/properties.json", entry.case))?;
    compare_properties(check, &properties, &record, &grid);
    compare_locations(check, folder, entry, &properties, &prepared)
}

/// Runs the stages on the images of a vector.
fn prepare(bench: &Bench, folder: &Folder, entry: &Entry, plans: Value) -> Result<Artifact, Problem> {
    let description: Value = folder.json(&format!("{}/dataset.json", entry.case))?;
    let ending = description["file_ending"].as_str().unwrap_or(".nii.gz").to_owned();
    let path = |name: &String| folder.path(&format!("{}/{name}", entry.case));
    let numbered = entry.images.iter().enumerate();
    let mut files: Vec<(String, PathBuf)> =
        numbered.map(|(number, name)| (format!("{number:04}{ending}"), path(name))).collect();
    files.extend(entry.label.iter().map(|name| (format!("label{ending}"), path(name))));
    let files: Vec<(&str, &Path)> = files.iter().map(|(name, path)| (name.as_str(), path.as_path())).collect();
    let (raw, description, plan) = (Made::of_case(CASE, &files)?, Made::Document(description), Made::Document(plans));

    let labels = json!({"labels": if entry.label.is_some() { "required" } else { "none" }});
    let ingest = bench.node("ingest")?.with(labels.as_object().unwrap_or(&serde_json::Map::new()))?;
    let cases = ingest.run(&[("files", &raw), ("description", &description)])?.port("cases")?.clone();
    let crop = bench.node("crop")?.run(&[("cases", &cases)])?.port("crop")?.clone();
    let normalize = bench.node("normalize")?.at("configuration", &entry.configuration);
    let inputs = [("cases", &cases), ("crop", &crop), ("plan", &plan)];
    let normalized = normalize.run(&inputs)?.port("prepared")?.clone();
    let resample = bench.node("resample")?.at("configuration", &entry.configuration);
    let inputs = [("cases", &normalized), ("plan", &plan), ("description", &description)];
    Ok(resample.run(&inputs)?.port("prepared")?.artifact_of_case(CASE)?.clone())
}

fn compare_image(
    check: &mut Check,
    folder: &Folder,
    entry: &Entry,
    prepared: &Artifact,
    schemes: &[String],
) -> Result<(), Problem> {
    let expected: ArrayD<f32> = folder.entry(&entry.case, &entry.data)?;
    let expected = expected.into_dimensionality::<Ix4>().map_err(Problem::refused)?;
    let found: Array4<f32> = read(prepared, IMAGE)?;
    check.equal("shape", expected.shape(), found.shape());
    for (number, (expected, found)) in expected.axis_iter(Axis(0)).zip(found.axis_iter(Axis(0))).enumerate() {
        let scheme = schemes.get(number).map_or("", String::as_str);
        let tolerance = if GIVEN_SCHEMES.contains(&scheme) { GIVEN } else { SUMMED };
        check.array(format!("channel {number} ({scheme})"), &expected, &found, tolerance);
    }
    Ok(())
}

fn compare_labels(
    check: &mut Check,
    folder: &Folder,
    entry: &Entry,
    prepared: &Artifact,
    grid: &PreparedGrid,
) -> Result<(), Problem> {
    let relative = format!("{}/{}", entry.case, entry.seg.file);
    // nnU-Net stores labels above 127 in 16 bits.
    let expected: ArrayD<i16> = match folder.array::<i8>(&relative) {
        Ok(narrow) => narrow.mapv(i16::from),
        Err(_) => folder.entry(&entry.case, &entry.seg)?,
    };
    let found = read::<i16>(prepared, LABEL)?.into_dyn();
    let share = if is_exact(grid.cropped_to.shape(), grid.shape) { 0.0 } else { NEAR_TIES };
    check.labels("labels", &expected, &found, share);
    Ok(())
}

/// Whether every axis stays, or is halved or doubled exactly: coordinates and weights are then exact in binary.
fn is_exact(from: [usize; 3], to: [usize; 3]) -> bool {
    from.iter().zip(to).all(|(&from, to)| from == to || from == 2 * to || 2 * from == to)
}

fn compare_properties(check: &mut Check, expected: &Properties, record: &CaseRecord, grid: &PreparedGrid) {
    let geometry = &record.geometry;
    let (start, stop) = (grid.cropped_to.start(), grid.cropped_to.stop());
    check.equal("spacing", &expected.spacing, &geometry.spacing.values());
    check.equal("shape before cropping", &expected.shape_before_cropping, &grid.shape_before_cropping(geometry));
    check.equal("box", &expected.bbox_used_for_cropping, &[0, 1, 2].map(|axis| [start[axis], stop[axis]]));
    let shape = expected.shape_after_cropping_and_before_resampling;
    check.equal("shape after cropping", &shape, &grid.cropped_to.shape());
    if let Some(file) = &expected.sitk_stuff {
        check.numbers("origin", &file.origin, &geometry.origin, GEOMETRY);
        check.numbers("direction", &file.direction, &geometry.direction, GEOMETRY);
    }
}

fn compare_locations(
    check: &mut Check,
    folder: &Folder,
    entry: &Entry,
    properties: &Properties,
    prepared: &Artifact,
) -> Result<(), Problem> {
    if entry.label.is_none() {
        check.equal("class locations of a case without labels", &None, &prepared.file(INDEX));
        return Ok(());
    }
    let found = ClassLocations::read(prepared)?;
    let names: Vec<String> = properties.class_locations.iter().map(|locations| name_of(&locations.class)).collect();
    let found_names: Vec<String> = found.targets.iter().map(|locations| locations.target.name.clone()).collect();
    check.equal("classes with locations", &names, &found_names);
    for (expected, locations) in properties.class_locations.iter().zip(&found.targets) {
        let rows: ArrayD<i32> = folder.entry(&entry.case, &expected.array)?;
        // A row is (0, a0, a1, a2).
        let rows = rows.rows().into_iter().map(|row| row.iter().skip(1).map(|&at| at as usize).collect::<Vec<_>>());
        let rows: Vec<Vec<usize>> = rows.filter(|row| !row.is_empty()).collect();
        let found: Vec<Vec<usize>> = locations.voxels.iter().map(|&voxel| found.position(voxel).to_vec()).collect();
        let what = format!("locations of class {} in the order of their draws", locations.target.name);
        if let Some(first) = (0..rows.len().max(found.len())).find(|&row| rows.get(row) != found.get(row)) {
            check.miss(
                format!("{what}, {} of them, from number {first}", rows.len()),
                &rows.get(first),
                &found.get(first),
            );
        }
    }
    Ok(())
}

/// The name of a class as Python writes it: `2`, `(1, 2)`, `(3,)`.
fn name_of(class: &Value) -> String {
    match class {
        Value::Array(labels) => {
            let labels: Vec<String> = labels.iter().map(Value::to_string).collect();
            let comma = if labels.len() == 1 { "," } else { "" };
            format!("({}{comma})", labels.join(", "))
        }
        Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}

fn read<T: Element>(artifact: &Artifact, name: &str) -> Result<Array4<T>, Problem> {
    let file = artifact.file(name).ok_or_else(|| Problem::Refused { message: format!("a stage made no `{name}`") })?;
    ArrayFile::open(&file.path).and_then(|file| file.read_all()).map_err(Problem::refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_halves_and_doubles_are_exact() {
        assert!(is_exact([4, 6, 5], [8, 3, 5]));
        assert!(!is_exact([4, 6, 5], [6, 3, 5]) && !is_exact([5, 1, 1], [2, 1, 1]));
    }

    #[test]
    fn regions_are_named_as_tuples() {
        assert_eq!([json!(2), json!([1, 2]), json!([3])].map(|class| name_of(&class)), ["2", "(1, 2)", "(3,)"]);
    }
}
