//! Real datasets in nnU-Net's layout.

use std::path::Path;

use nnflow_io::dataset::scan_dataset;
use nnflow_io::image::read_labels;

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
        assert_eq!(Some(listing.training.len()), listing.description.training_cases, "{}", folder.display());
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
