//! The stage `postprocess` against nnU-Net's `determine_postprocessing`, the stage `ensemble` against its ensembling.

use std::collections::BTreeMap;

use ndarray::{Array3, ArrayD, Ix3, Ix4};
use nnflow_io::array::{ArrayFile, ArrayOptions, write_array};
use nnflow_io::image::{Geometry, read_labels, write_labels};
use nnflow_io::summary::MeanMetrics;
use nnflow_kernels::geometry::Spacing;
use nnflow_nnunet::workbench::{Bench, Finished, Made};
use serde::Deserialize;
use serde_json::{Value, json};

use super::evaluate::{compare_mean, compare_means, compare_summary};
use crate::folder::ArrayEntry;
use crate::labels::{LabelledSet, label_images, labels_of};
use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

/// Of mean probabilities.
const AVERAGE: Tolerance = Tolerance::Absolute(1e-7);
/// The only operation that nnU-Net tries.
const OPERATION: &str = "remove_all_but_largest_component_from_segmentation";
const ENSEMBLES: &str = "ensembles.json";
const CASE: &str = "case";

#[derive(Deserialize)]
struct Decision {
    input_folder: Means,
    postprocessed: Means,
    postprocessing_fns: Vec<String>,
    postprocessing_kwargs: Vec<Keywords>,
}

#[derive(Deserialize)]
struct Means {
    foreground_mean: MeanMetrics,
    mean: BTreeMap<String, MeanMetrics>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keywords {
    labels_or_regions: OneOrSeveral,
    #[serde(default, rename = "background_label")]
    _background_label: i16,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrSeveral {
    One(i16),
    Several(Vec<i16>),
}

#[derive(Deserialize)]
struct Ensemble {
    set: String,
    inputs: Vec<ArrayEntry>,
    average: ArrayEntry,
    segmentation: ArrayEntry,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let sets = folder.subfolders("")?;
    let is_decision = |set: &&String| folder.has(&format!("{set}/postprocessing.json"));
    let decisions = sets.iter().filter(is_decision);
    let mut vectors: Vec<Vector> =
        decisions.map(|set| Vector::of(set, |check| compare_decision(check, folder, set))).collect();
    let ensembles: Vec<Ensemble> = folder.list(ENSEMBLES)?;
    let of_ensemble =
        |ensemble: &Ensemble| Vector::of(&ensemble.set, |check| compare_ensemble(check, folder, ensemble));
    vectors.extend(ensembles.iter().map(of_ensemble));
    Ok(vectors)
}

fn compare_decision(check: &mut Check, folder: &Folder, set: &str) -> Result<(), Problem> {
    let bench = Bench::new()?;
    let labelled = LabelledSet::read(&bench, folder, set)?;
    let expected: Decision = folder.json(&format!("{set}/postprocessing.json"))?;
    let finished = bench.node("postprocess")?.run(&[
        ("labels", &labelled.predictions),
        ("examples", &labelled.predictions),
        ("references", &labelled.references),
        ("description", &labelled.description),
    ])?;
    compare_rules(check, &expected, &finished.port("rules")?.read_document()?)?;
    for (case, path) in label_images(folder, &format!("{set}/postprocessed"), &labelled.file_ending)? {
        let (expected, _) = read_labels(&path, &labelled.file_ending).map_err(Problem::refused)?;
        let found = labels_of(finished.port("labels")?.artifact_of_case(&case)?)?;
        check.labels(format!("{case} after postprocessing"), &expected, &found, 0.0);
    }
    compare_summary(check, folder, &format!("{set}/summary_before.json"), &bench, &labelled)
}

fn compare_rules(check: &mut Check, expected: &Decision, found: &Value) -> Result<(), Problem> {
    let operations = vec![OPERATION.to_owned(); expected.postprocessing_kwargs.len()];
    check.equal("operations", &expected.postprocessing_fns, &operations);
    let labels = |keywords: &Keywords| match &keywords.labels_or_regions {
        OneOrSeveral::One(label) => vec![*label],
        OneOrSeveral::Several(labels) => labels.clone(),
    };
    let expected_steps: Vec<Vec<i16>> = expected.postprocessing_kwargs.iter().map(labels).collect();
    let steps = found["steps"].as_array().into_iter().flatten();
    let steps = steps.map(|step| serde_json::from_value(step["labels"].clone())).collect::<Result<Vec<Vec<i16>>, _>>();
    check.equal("steps", &expected_steps, &steps.map_err(Problem::refused)?);
    for (key, expected) in [("before", &expected.input_folder), ("after", &expected.postprocessed)] {
        let found: Means = serde_json::from_value(found[key].clone()).map_err(Problem::refused)?;
        compare_mean(
            check,
            &format!("mean of the foreground {key}"),
            &expected.foreground_mean,
            &found.foreground_mean,
        );
        compare_means(check, &format!("mean {key}"), &expected.mean, &found.mean);
    }
    Ok(())
}

fn compare_ensemble(check: &mut Check, folder: &Folder, ensemble: &Ensemble) -> Result<(), Problem> {
    let bench = Bench::new()?;
    let finished = averaged(&bench, folder, ensemble)?;
    let made = finished.port("probabilities")?.artifact_of_case(CASE)?.file("probabilities.nna");
    let made = made.ok_or_else(|| Problem::Refused { message: "`ensemble` made no probabilities".to_owned() })?;
    let found = ArrayFile::open(&made.path).and_then(|file| file.read_all::<f32>()).map_err(Problem::refused)?;
    let expected: ArrayD<f32> = folder.entry(&ensemble.set, &ensemble.average)?;
    check.array("mean probabilities", &expected, &found.into_dyn(), AVERAGE);
    let expected: ArrayD<i64> = folder.entry(&ensemble.set, &ensemble.segmentation)?;
    let expected = expected.into_dimensionality::<Ix3>().map_err(Problem::refused)?;
    let found = labels_of(finished.port("labels")?.artifact_of_case(CASE)?)?.mapv(i64::from);
    check.labels("labels", &expected, &found, 0.0);
    Ok(())
}

/// Runs `ensemble` on the probabilities of a set. The label images of its members are of no account and are empty.
fn averaged(bench: &Bench, folder: &Folder, ensemble: &Ensemble) -> Result<Finished, Problem> {
    let set = &ensemble.set;
    let description: Value = folder.json(&format!("{set}/dataset.json"))?;
    folder.set_aside(&format!("{set}/plans.json"));
    let names: Vec<String> = (0..ensemble.inputs.len()).map(|member| format!("member_{member}")).collect();
    let axes: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("configuration", name.as_str())]).collect();
    let (mut labels, mut probabilities, mut shape) = (Vec::new(), Vec::new(), [1; 3]);
    for (entry, axes) in ensemble.inputs.iter().zip(&axes) {
        let values: ArrayD<f32> = folder.entry(set, entry)?;
        let values = values.into_dimensionality::<Ix4>().map_err(Problem::refused)?;
        let (_, z, y, x) = values.dim();
        shape = [z, y, x];
        let made = bench.fresh_folder()?;
        let (label_path, path) = (made.join("labels.nii.gz"), made.join("probabilities.nna"));
        write_labels(&label_path, Array3::zeros(shape).view(), &grid(shape)?, ".nii.gz").map_err(Problem::refused)?;
        write_array(&path, values.view(), &ArrayOptions::default()).map_err(Problem::refused)?;
        labels.push((axes.as_slice(), Made::of_case(CASE, &[("labels.nii.gz", &label_path)])?));
        probabilities.push((axes.as_slice(), Made::of_case(CASE, &[("probabilities.nna", &path)])?));
    }
    let cases = bench.reference(CASE, Array3::zeros(shape).view(), grid(shape)?, ".nii.gz")?;
    let parameters = json!({"probabilities": true});
    let node = bench.node("ensemble")?.with(parameters.as_object().unwrap_or(&serde_json::Map::new()))?;
    Ok(node.run(&[
        ("labels", &Made::gathered(labels)),
        ("probabilities", &Made::gathered(probabilities)),
        ("cases", &cases),
        ("description", &Made::Document(description)),
    ])?)
}

/// A grid with voxels of 1 mm.
fn grid(shape: [usize; 3]) -> Result<Geometry, Problem> {
    Ok(Geometry::new(shape, Spacing::new([1.0; 3]).map_err(Problem::refused)?))
}
