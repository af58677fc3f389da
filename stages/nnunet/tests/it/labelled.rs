//! Label images and references for tests of what comes after prediction.

use ndarray::Array3;
use nnflow_io::image::{Geometry, read_labels, write_labels};
use nnflow_kernels::geometry::Spacing;

use crate::harness::{Bench, Made, MadeInTests};

/// The ending of all files.
pub(crate) const ENDING: &str = ".nii.gz";

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
    bench.reference(case, labels.view(), geometry, ENDING)
}

/// The cases of several.
pub(crate) fn united(parts: impl IntoIterator<Item = Made>) -> Made {
    Made::united(parts).expect("cases")
}

/// The labels of a case that a stage made.
pub(crate) fn labels_of(made: &Made, case: &str) -> Array3<i16> {
    let file = &made.items()[case].files[0];
    read_labels(&file.path, &file.name).expect("a label image").0
}
