//! Real datasets in nnU-Net's layout, and what nnU-Net's own reader says of their images.

use std::path::Path;

use nnflow_io::dataset::scan_dataset;
use nnflow_io::image::{read_header, read_labels};
use nnflow_io::json;
use serde_json::Value;

use crate::outside;

fn subfolders(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("folder");
    entries.map(|entry| entry.expect("entry").path()).filter(|path| path.is_dir()).collect()
}

#[test]
fn real_datasets_are_listed_without_a_problem() {
    let Some(data) = outside("NNFLOW_DATA", "data", "") else { return };
    for folder in subfolders(&data).into_iter().filter(|folder| folder.join("dataset.json").is_file()) {
        let listing = scan_dataset(&folder).expect("lists");
        assert_eq!(listing.problems, [], "{}", folder.display());
        assert_eq!(listing.training.len(), listing.description.training_cases, "{}", folder.display());
    }
}

/// The labels of the first case of each dataset are among those that the description declares.
#[test]
fn real_labels_are_declared() {
    let Some(data) = outside("NNFLOW_DATA", "data", "") else { return };
    for folder in subfolders(&data).into_iter().filter(|folder| folder.join("dataset.json").is_file()) {
        let listing = scan_dataset(&folder).expect("lists");
        let path = listing.training[0].label.clone().expect("labelled");
        let name = path.to_string_lossy().into_owned();
        let (labels, _) = read_labels(&path, &name).expect("reads");
        let declared = listing.description.labels.all();
        assert!(labels.iter().all(|label| declared.contains(label)), "{name}");
        assert!(labels.iter().any(|label| *label > 0), "{name} is empty");
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

#[test]
fn geometry_is_that_of_nnunets_reader() {
    let Some(folder) = outside("NNFLOW_GOLDEN", "golden", "preprocess") else { return };
    let cases: Vec<Value> = json::read(&folder.join("cases.json")).expect("cases");
    for case in cases {
        let folder = folder.join(case["case"].as_str().expect("name"));
        let image = case["images"][0].as_str().expect("file");
        let properties: Value = json::read(&folder.join("properties.json")).expect("properties");
        let geometry = read_header(&folder.join(image), image).expect("reads").geometry;
        assert_eq!(geometry.spacing.values().to_vec(), numbers(&properties["spacing"]), "{image}");
        let itk = &properties["sitk_stuff"];
        let expected = [numbers(&itk["origin"]), numbers(&itk["direction"])].concat();
        let found = geometry.origin.iter().chain(&geometry.direction);
        let apart = found.zip(&expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-6, "{image}: origin or direction differ by {apart}");
    }
}
