//! Reading the vectors in `tests/golden`, or those of another folder of the same structure.

use std::fs::File;
use std::path::{Path, PathBuf};

use ndarray::{Array, Dimension};
use ndarray_npy::{ReadNpyExt, ReadableElement};
use serde_json::Value;

/// The folder of one component's vectors.
pub(crate) fn folder(component: &str) -> PathBuf {
    let root = std::env::var_os("NNFLOW_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"), PathBuf::from);
    root.join(component)
}

/// The entries of a list of cases; an empty list fails, since it would prove nothing.
pub(crate) fn list(path: &Path) -> Vec<Value> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let value: Value = serde_json::from_reader(file).expect("a JSON file");
    let cases = value.as_array().expect("a list of cases").clone();
    assert!(!cases.is_empty(), "{} is empty", path.display());
    cases
}

/// One array.
pub(crate) fn array<T: ReadableElement, D: Dimension>(path: &Path) -> Array<T, D> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Array::read_npy(file).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A field of a case, of whatever type is asked for.
pub(crate) fn field<T: serde::de::DeserializeOwned>(case: &Value, name: &str) -> T {
    serde_json::from_value(case[name].clone()).unwrap_or_else(|error| panic!("`{name}` of {case}: {error}"))
}

/// The bits of a float16 array in C order, which `ndarray-npy` does not read.
pub(crate) fn half_bits(path: &Path) -> Vec<u16> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Version 1 of the format: six bytes of magic, two of version, two of the header's length.
    assert_eq!(bytes[6], 1, "{}: another version of the format", path.display());
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let description = String::from_utf8_lossy(&bytes[10..header]);
    assert!(description.contains("'<f2'") && description.contains("'fortran_order': False"), "{description}");
    bytes[header..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}
