//! Every stored plan is met exactly: the same keys in the same order, the same whole numbers, texts and booleans, the
//! same real numbers to 1e-9.

use std::path::{Path, PathBuf};

use nnflow_io::dataset::DatasetDescription;
use nnflow_io::fingerprint::Fingerprint;
use nnflow_nnunet::planner::{PlannerSettings, Preset, plan};
use serde_json::{Map, Value};

use crate::vectors;

/// Relative tolerance of real numbers.
const TOLERANCE: f64 = 1e-9;

/// One plan that nnU-Net made.
struct Run {
    folder: PathBuf,
    file: String,
    dataset_name: String,
    settings: PlannerSettings,
}

fn preset(planner: &str) -> PlannerSettings {
    PlannerSettings::preset(match planner {
        "default" => Preset::Default,
        "resencM" => Preset::ResidualEncoderM,
        "resencL" => Preset::ResidualEncoderL,
        "resencXL" => Preset::ResidualEncoderXl,
        other => panic!("planner `{other}` of the vectors is not known here"),
    })
}

/// The runs that `meta.json` of a folder lists.
fn listed_runs(folder: &Path) -> Vec<Run> {
    let meta = vectors::json(&folder.join("meta.json"));
    let runs = meta["runs"].as_array().expect("runs").iter().map(|run| {
        assert_eq!(run["error"], Value::Null, "{}: runs that fail are not covered", folder.display());
        let mut settings = preset(run["planner"].as_str().expect("a planner"));
        for (name, value) in run["kwargs"].as_object().expect("arguments") {
            match name.as_str() {
                "gpu_memory_target_in_gb" => settings.gpu_memory_target = value.as_f64().expect("a number"),
                "overwrite_target_spacing" => {
                    settings.target_spacing = serde_json::from_value(value.clone()).expect("a spacing");
                }
                other => panic!("argument `{other}` of the vectors is not known here"),
            }
        }
        Run {
            folder: folder.to_path_buf(),
            file: run["file"].as_str().expect("a file").to_owned(),
            dataset_name: meta["dataset_name"].as_str().expect("a name").to_owned(),
            settings,
        }
    });
    runs.collect()
}

/// The runs of a folder without a list: one file a planner.
fn named_runs(folder: &Path) -> Vec<Run> {
    let run = |planner: &str| Run {
        folder: folder.to_path_buf(),
        file: format!("plans_{planner}.json"),
        dataset_name: folder.file_name().expect("a name").to_string_lossy().into_owned(),
        settings: preset(planner),
    };
    ["default", "resencM", "resencL", "resencXL"].map(run).into_iter().collect()
}

fn check(run: &Run) -> Result<(), String> {
    let fingerprint: Fingerprint = read(&run.folder.join("dataset_fingerprint.json"));
    let description: DatasetDescription = read(&run.folder.join("dataset.json"));
    let (plans, _) = plan(&run.dataset_name, &fingerprint, &description, &run.settings)
        .map_err(|error| format!("{}/{}: {error}", run.folder.display(), run.file))?;
    let expected = vectors::json(&run.folder.join(&run.file));
    let found = serde_json::to_value(&plans).expect("plans are JSON");
    compare("", &expected, &found).map_err(|difference| format!("{}/{}{difference}", run.folder.display(), run.file))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_value(vectors::json(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first difference between two documents, whole numbers and real ones told apart.
fn compare(path: &str, expected: &Value, found: &Value) -> Result<(), String> {
    let same = match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => return compare_objects(path, expected, found),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let mut pairs = expected.iter().zip(found).enumerate();
            return pairs.try_for_each(|(index, (e, f))| compare(&format!("{path}[{index}]"), e, f));
        }
        (Value::Number(expected), Value::Number(found)) if expected.is_f64() && found.is_f64() => {
            let (e, f) = (expected.as_f64().expect("real"), found.as_f64().expect("real"));
            (e - f).abs() <= TOLERANCE * e.abs()
        }
        (expected, found) => expected == found,
    };
    if same { Ok(()) } else { Err(format!("{path}: expected {expected}, found {found}")) }
}

fn compare_objects(path: &str, expected: &Map<String, Value>, found: &Map<String, Value>) -> Result<(), String> {
    let (mut wanted, mut there): (Vec<_>, Vec<_>) = (expected.keys().collect(), found.keys().collect());
    // These come from the fingerprint, whose publisher may have sorted its keys.
    if path.starts_with("/foreground_intensity_properties_per_channel/") {
        wanted.sort_unstable();
        there.sort_unstable();
    }
    if wanted != there {
        return Err(format!("{path}: expected the keys {wanted:?}, found {there:?}"));
    }
    expected.iter().try_for_each(|(key, value)| compare(&format!("{path}/{key}"), value, &found[key]))
}

fn check_all(runs: &[Run]) {
    let failures: Vec<String> = runs.iter().filter_map(|run| check(run).err()).collect();
    let some = failures.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {} plans differ:\n{some}", failures.len(), runs.len());
}

#[test]
fn plans_of_synthetic_datasets_are_nnu_nets() {
    let runs: Vec<Run> = vectors::subfolders(&vectors::folder("planner/synthetic"))
        .iter()
        .flat_map(|folder| listed_runs(folder))
        .collect();
    assert!(!runs.is_empty(), "no vectors");
    check_all(&runs);
}

#[test]
fn plans_of_the_decathlon_are_nnu_nets_where_they_are_at_hand() {
    let folder = vectors::foreign_folder("planner/msd_autonnunet");
    let runs: Vec<Run> = vectors::subfolders(&folder).iter().flat_map(|folder| named_runs(folder)).collect();
    if runs.is_empty() {
        eprintln!("skipped: no vectors of the Decathlon in {}", folder.display());
    }
    check_all(&runs);
}

#[test]
fn plans_of_nnu_net_survive_being_read_and_written() {
    for folder in vectors::subfolders(&vectors::folder("planner/synthetic")) {
        for run in listed_runs(&folder) {
            let stored = vectors::json(&folder.join(&run.file));
            let plans: nnflow_io::plans::Plans = serde_json::from_value(stored.clone()).expect("plans");
            assert_eq!(serde_json::to_string(&plans).expect("JSON"), stored.to_string(), "{}", folder.display());
        }
    }
}

#[test]
fn every_configuration_of_nnu_net_is_read_and_checked() {
    for folder in vectors::subfolders(&vectors::folder("planner/synthetic")) {
        for run in listed_runs(&folder) {
            let plans: nnflow_io::plans::Plans = read(&folder.join(&run.file));
            for name in plans.configurations.keys() {
                let configuration = plans.configuration(name).expect("valid");
                configuration.architecture.unet(name).expect("a U-Net");
            }
        }
    }
}
