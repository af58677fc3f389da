//! Reading and writing named tensors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, View};
use tch::Tensor;

use super::CheckpointError;
use crate::error::TorchError;

/// The one key of the metadata; several would come out in a random order.
const METADATA_KEY: &str = "nnflow";

/// The tensors and the metadata of a file.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    metadata: Option<String>,
    tensors: BTreeMap<String, Stored>,
}

/// A tensor as it lies in a file.
#[derive(Debug)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Stored {
    fn new(tensor: &Tensor) -> Result<Self, TorchError> {
        let mut values = vec![0.0_f32; tensor.numel()];
        tensor.f_reshape(-1)?.f_copy_data(&mut values, tensor.numel())?;
        let shape = tensor.size().iter().map(|&extent| extent as usize).collect();
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(Self { dtype: Dtype::F32, shape, bytes })
    }

    fn values(&self) -> Vec<f32> {
        self.bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect()
    }

    fn describe(&self) -> String {
        format!("{:?} {:?}", self.dtype, self.shape)
    }
}

/// Writes 32-bit tensors, all finite, to a file that appears whole or not at all.
pub(crate) fn write(
    path: &Path,
    tensors: Vec<(String, Tensor)>,
    metadata: Option<String>,
) -> Result<(), CheckpointError> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = Stored::new(&tensor)?;
        if !tensor.values().iter().all(|value| value.is_finite()) {
            return Err(CheckpointError::NotFinite { path: path.to_owned(), name });
        }
        stored.push((name, tensor));
    }
    let metadata = metadata.map(|text| HashMap::from([(METADATA_KEY.to_owned(), text)]));
    let bytes = safetensors::serialize(stored, metadata)
        .map_err(|source| CheckpointError::Format { path: path.to_owned(), source })?;
    replace(path, &bytes)
}

/// Puts `bytes` in the place of the file, so that a reader sees the old file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The new name is in the folder, which has to reach the disk as well.
    fs_err::File::open(folder)?.sync_all()?;
    Ok(())
}

impl TensorFile {
    /// Reads a file; what it says about itself is checked against its length.
    pub(crate) fn read(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = fs_err::read(path)?;
        let format = |source| CheckpointError::Format { path: path.to_owned(), source };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
        let metadata = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY)).cloned();
        let file = SafeTensors::deserialize(&bytes).map_err(format)?;
        let stored = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let stored = Stored { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
            (name, stored)
        };
        let tensors = file.tensors().into_iter().map(stored).collect();
        Ok(Self { path: path.to_owned(), metadata, tensors })
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was written beside the tensors.
    pub(crate) fn metadata(&self) -> Option<&str> {
        self.metadata.as_deref()
    }

    /// Takes a tensor of this name and shape out of the file.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let (path, name) = (self.path.clone(), name.to_owned());
        let Some(stored) = self.tensors.remove(&name) else {
            return Err(CheckpointError::Missing { path, name });
        };
        if stored.dtype != Dtype::F32 || stored.shape != shape {
            let expected = format!("{:?} {shape:?}", Dtype::F32);
            return Err(CheckpointError::Shape { path, name, expected, found: stored.describe() });
        }
        let values = stored.values();
        if !values.iter().all(|value| value.is_finite()) {
            return Err(CheckpointError::NotFinite { path, name });
        }
        let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
        Ok(Tensor::f_from_slice(&values).and_then(|tensor| tensor.f_view(&*shape)).map_err(TorchError::from)?)
    }

    /// Leaves out the tensors with `part` in their names.
    pub(crate) fn drop_named(&mut self, part: &str) {
        self.tensors.retain(|name, _| !name.contains(part));
    }

    /// Refuses a file that has more tensors than were taken.
    pub(crate) fn check_empty(&self) -> Result<(), CheckpointError> {
        match self.tensors.keys().next() {
            Some(name) => Err(CheckpointError::Unknown { path: self.path.clone(), name: name.clone() }),
            None => Ok(()),
        }
    }
}
