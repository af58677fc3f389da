//! Plans against those of nnU-Net's planners: the same keys in the same order, the same whole numbers, texts and booleans,
//! the same real numbers within a tolerance.

use nnflow_io::dataset::DatasetDescription;
use nnflow_io::fingerprint::Fingerprint;
use nnflow_io::plans::Plans;
use nnflow_nnunet::planner::{PlannerSettings, Preset, plan};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

const REAL: Tolerance = Tolerance::Relative(1e-9);

/// What `meta.json` says of a folder of plans.
#[derive(Deserialize)]
struct Meta {
    dataset_name: String,
    runs: Vec<Run>,
}

/// A run of a planner.
#[derive(Deserialize)]
struct Run {
    file: Option<String>,
    planner: String,
    kwargs: Map<String, Value>,
    error: Option<String>,
    configurations: Option<Vec<String>>,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let mut vectors = Vec::new();
    for case in folder.folders_with("dataset_fingerprint.json")? {
        let meta = meta(folder, &case)?;
        vectors.extend(meta.runs.iter().enumerate().map(|(index, run)| {
            let file = run.file.clone().unwrap_or_else(|| format!("run {index}"));
            Vector::of(format!("{case}/{file}"), |check| compare_run(check, folder, &case, &meta.dataset_name, run))
        }));
    }
    // Plans of an older nnU-Net that were published with the fingerprints, and how they differ from today's.
    for set in folder.subfolders("")? {
        folder.set_aside(&format!("{set}/stored_vs_2.8.1.json"));
    }
    Ok(vectors)
}

/// The runs of a folder: those that `meta.json` lists, else one for each file of plans that is named after its planner.
fn meta(folder: &Folder, case: &str) -> Result<Meta, Problem> {
    let path = format!("{case}/meta.json");
    if folder.has(&path) {
        return folder.json(&path);
    }
    let mut runs = Vec::new();
    for file in folder.files(case)? {
        let Some(planner) = file.strip_prefix("plans_").and_then(|name| name.strip_suffix(".json")) else { continue };
        if planner.ends_with("_stored") {
            folder.set_aside(&format!("{case}/{file}"));
            continue;
        }
        let planner = planner.to_owned();
        runs.push(Run { file: Some(file), planner, kwargs: Map::new(), error: None, configurations: None });
    }
    let dataset_name = case.rsplit('/').next().unwrap_or(case).to_owned();
    Ok(Meta { dataset_name, runs })
}

fn compare_run(check: &mut Check, folder: &Folder, case: &str, dataset: &str, run: &Run) -> Result<(), Problem> {
    let fingerprint: Fingerprint = folder.json(&format!("{case}/dataset_fingerprint.json"))?;
    let description: DatasetDescription = folder.json(&format!("{case}/dataset.json"))?;
    let settings = settings(run).map_err(|what| Problem::not_understood(folder.path(case), what))?;
    let planned = plan(dataset, &fingerprint, &description, &settings);
    if run.error.is_some() {
        check.equal("whether there is no plan", &true, &planned.is_err());
        return Ok(());
    }
    let file = run.file.as_deref();
    let file =
        file.ok_or_else(|| Problem::not_understood(folder.path(case), "a run without error and without plans"))?;
    let (plans, _) = planned.map_err(Problem::refused)?;
    let expected: Value = folder.json(&format!("{case}/{file}"))?;
    let found = serde_json::to_value(&plans).map_err(Problem::refused)?;
    compare_values(check, "", &expected, &found);
    if let Some(configurations) = &run.configurations {
        check.equal("configurations", configurations, &plans.configurations.keys().cloned().collect());
    }
    compare_reading(check, &expected)
}

fn settings(run: &Run) -> Result<PlannerSettings, String> {
    let mut settings = PlannerSettings::preset(match run.planner.as_str() {
        "default" => Preset::Default,
        "resencM" => Preset::ResidualEncoderM,
        "resencL" => Preset::ResidualEncoderL,
        "resencXL" => Preset::ResidualEncoderXl,
        other => return Err(format!("planner `{other}`")),
    });
    for (name, value) in &run.kwargs {
        let wrong = |error: serde_json::Error| format!("argument `{name}`: {error}");
        match name.as_str() {
            "gpu_memory_target_in_gb" => {
                settings.gpu_memory_target = serde_json::from_value(value.clone()).map_err(wrong)?;
            }
            "overwrite_target_spacing" => {
                settings.target_spacing = serde_json::from_value(value.clone()).map_err(wrong)?;
            }
            other => return Err(format!("argument `{other}` of a planner")),
        }
    }
    Ok(settings)
}

/// nnU-Net's plans are read, each configuration is one that can be used, and written again they are the same.
fn compare_reading(check: &mut Check, expected: &Value) -> Result<(), Problem> {
    let plans: Plans = serde_json::from_value(expected.clone()).map_err(Problem::refused)?;
    let found = serde_json::to_string(&plans).map_err(Problem::refused)?;
    check.equal("nnU-Net's plans, read and written again", &expected.to_string(), &found);
    for name in plans.configurations.keys() {
        let configuration = plans.configuration(name).map_err(Problem::refused)?;
        configuration.architecture.unet(name).map_err(Problem::refused)?;
    }
    Ok(())
}

/// Two documents, whole numbers and real ones told apart.
fn compare_values(check: &mut Check, path: &str, expected: &Value, found: &Value) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => compare_objects(check, path, expected, found),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare_values(check, &format!("{path}[{index}]"), expected, found);
            }
        }
        (Value::Number(e), Value::Number(f)) if e.is_f64() && f.is_f64() => {
            check.number(path, e.as_f64().unwrap_or(f64::NAN), f.as_f64().unwrap_or(f64::INFINITY), REAL);
        }
        (expected, found) => check.equal(path, expected, found),
    }
}

fn compare_objects(check: &mut Check, path: &str, expected: &Map<String, Value>, found: &Map<String, Value>) {
    let (mut wanted, mut there): (Vec<_>, Vec<_>) = (expected.keys().collect(), found.keys().collect());
    // These come from the fingerprint, whose publisher may have sorted its keys.
    if path.starts_with("/foreground_intensity_properties_per_channel/") {
        wanted.sort_unstable();
        there.sort_unstable();
    }
    if wanted != there {
        check.miss(format!("{path}: keys"), &wanted, &there);
        return;
    }
    for (key, expected) in expected {
        if let Some(found) = found.get(key) {
            compare_values(check, &format!("{path}/{key}"), expected, found);
        }
    }
}
