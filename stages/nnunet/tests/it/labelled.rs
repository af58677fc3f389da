//! Label images and references for tests of what comes after prediction.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{Array3, Axis};
use nnflow_io::array::{ArrayOptions, write_array};
use nnflow_io::image::{Geometry, read_labels, write_labels};
use nnflow_kernels::geometry::Spacing;
use nnflow_nnunet::case::{CaseRecord, LABEL, RECORD};
use nnflow_stage::Artifact;

use crate::harness::{Bench, Made};

/// The ending of all files.
pub(crate) const ENDING: &str = ".nii.gz";

/// The label images of a folder by their names without ending.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let named = entries.filter_map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?.to_owned();
        Some((name, path))
    });
    let files: BTreeMap<String, PathBuf> = named.collect();
    assert!(!files.is_empty(), "no label images in {}", folder.display());
    files
}

/// The label images of a folder as a stage makes them.
pub(crate) fn label_images(folder: &Path) -> Made {
    united(files(folder).iter().map(|(case, path)| Made::case(case, &[("labels.nii.gz", path)])))
}

/// The label images of a folder as the labels of ingested cases.
pub(crate) fn references(bench: &Bench, folder: &Path) -> Made {
    let read = |path: &Path| read_labels(path, ENDING).expect("a label image");
    let cases: Vec<_> = files(folder).into_iter().map(|(case, path)| (case, read(&path))).collect();
    united(cases.into_iter().map(|(case, (labels, geometry))| reference(bench, &case, &labels, geometry)))
}

/// A grid with voxels of 1 mm.
pub(crate) fn grid(shape: [usize; 3]) -> Geometry {
    Geometry::new(shape, Spacing::new([1.0; 3]).expect("positive"))
}

/// A label image that a test makes up.
pub(crate) fn drawn(bench: &Bench, case: &str, labels: &Array3<i16>) -> Made {
    let path = bench.fresh_folder().join("labels.nii.gz");
    let unsigned = labels.mapv(|label| u16::try_from(label).expect("not negative"));
    write_labels(&path, unsigned.view(), &grid(labels.dim().into()), ENDING).expect("labels");
    Made::case(case, &[("labels.nii.gz", &path)])
}

/// A reference that a test makes up.
pub(crate) fn referenced(bench: &Bench, case: &str, labels: &Array3<i16>) -> Made {
    reference(bench, case, labels, grid(labels.dim().into()))
}

fn reference(bench: &Bench, case: &str, labels: &Array3<i16>, geometry: Geometry) -> Made {
    let folder = bench.fresh_folder();
    let record = CaseRecord {
        identifier: case.to_owned(),
        channels: 1,
        file_ending: ENDING.to_owned(),
        labelled: true,
        geometry,
        prepared: None,
    };
    let (record_path, label_path) = (folder.join(RECORD), folder.join(LABEL));
    std::fs::write(&record_path, serde_json::to_vec(&record).expect("JSON")).expect("written");
    write_array(&label_path, labels.view().insert_axis(Axis(0)), &ArrayOptions::default()).expect("written");
    Made::case(case, &[(RECORD, &record_path), (LABEL, &label_path)])
}

/// The cases of several.
pub(crate) fn united(parts: impl IntoIterator<Item = Made>) -> Made {
    let cases: BTreeMap<String, Artifact> = parts.into_iter().flat_map(|made| made.items().clone()).collect();
    Made::Items(cases)
}

/// The labels of a case that a stage made.
pub(crate) fn labels_of(made: &Made, case: &str) -> Array3<i16> {
    let file = &made.items()[case].files[0];
    read_labels(&file.path, &file.name).expect("a label image").0
}
