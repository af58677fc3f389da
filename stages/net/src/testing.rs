//! What several tests need: golden vectors, and a look into a network.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn, OwnedRepr};
use ndarray_npy::{NpzReader, ReadNpyExt};
use tch::Tensor;

use crate::network::{Network, leaves};

/// The folder of a component of the golden vectors.
pub(crate) fn golden(component: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    std::env::var_os("NNFLOW_GOLDEN").map_or(default, PathBuf::from).join(component)
}

pub(crate) fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(folder).expect("the folder is there");
    let mut folders: Vec<_> = entries.map(|entry| entry.expect("readable").path()).filter(|it| it.is_dir()).collect();
    folders.sort();
    folders
}

pub(crate) fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs_err::read(path).expect("the file is there")).expect("it is JSON")
}

pub(crate) fn tensor<T: tch::kind::Element>(array: &ArrayD<T>) -> Tensor {
    let shape: Vec<i64> = array.shape().iter().map(|&extent| extent as i64).collect();
    Tensor::from_slice(array.as_slice().expect("C order")).view(&*shape)
}

/// An array of 32-bit floats.
pub(crate) fn load_npy(path: &Path) -> Tensor {
    tensor(&read_npy::<f32>(path))
}

pub(crate) fn read_npy<T: ndarray_npy::ReadableElement>(path: &Path) -> ArrayD<T> {
    let file = fs_err::File::open(path).expect("the file is there");
    ArrayD::read_npy(file).expect("an array of this type")
}

pub(crate) fn load_npz(path: &Path) -> HashMap<String, Tensor> {
    let mut archive = NpzReader::new(fs_err::File::open(path).expect("the file is there")).expect("an archive");
    let names = archive.names().expect("names of arrays");
    let load = |name: String| {
        let array: ArrayD<f32> = archive.by_name::<OwnedRepr<f32>, IxDyn>(&name).expect("an array of floats");
        (name.trim_end_matches(".npy").to_owned(), tensor(&array))
    };
    names.into_iter().map(load).collect()
}

/// The parameters of a network, to take gradients with respect to.
pub(crate) fn parameters(network: &Network) -> Vec<Tensor> {
    leaves(network.topology(), network.buffer()).expect("on the CPU")
}

/// The output of a network at the full resolution.
pub(crate) fn logits(network: &Network, input: &Tensor) -> Tensor {
    let _guard = tch::no_grad_guard();
    network.topology().forward(&parameters(network), input, 1).expect("the shapes fit").swap_remove(0)
}
