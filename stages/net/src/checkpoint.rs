//! Weights and states of a training as safetensors files.
//!
//! Plain numbers with names and shapes: reading one runs no code, unlike the pickles that nnU-Net stores. The same
//! tensors give the same bytes, so that a file can be addressed by its content, and a file appears whole or not at all.

mod file;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use tch::Tensor;

pub(crate) use file::{TensorFile, write};

use crate::architecture::Architecture;
use crate::device::Device;
use crate::error::TorchError;
use crate::network::{Layout, Network, Topology};

/// What the names of all layers have in common whose outputs are classes.
const OUTPUT_LAYERS: &str = ".seg_layers.";

/// Why a file of weights cannot be written, or read into this network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be opened, read or written.
    #[error("checkpoint file access failed")]
    Io(#[from] io::Error),
    /// The file is no safetensors file, or a damaged one.
    #[error("`{}` is not a whole safetensors file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SafeTensorError,
    },
    /// The file was not written by a training, or by another version.
    #[error("`{}` is not a checkpoint of this version: {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// The network has a parameter that the file does not have.
    #[error("`{}` has no tensor `{name}`, which the network needs", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The file has a tensor that the network does not have.
    #[error("`{}` has a tensor `{name}`, which the network does not have", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor of another type or shape than the network's.
    #[error("tensor `{name}` of `{}` is `{found}`, expected `{expected}`", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Type and shape of the network.
        expected: String,
        /// Type and shape of the file.
        found: String,
    },
    /// A weight that is infinite or not a number: the training had diverged.
    #[error("tensor `{name}` of `{}` has values that are not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The tensors do not fit on the device.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl Network {
    /// Writes the weights under nnU-Net's canonical names, and nothing else.
    ///
    /// # Errors
    /// [`CheckpointError::NotFinite`] where a weight is not a finite number, [`CheckpointError::Io`] where the file cannot
    /// be written; the file then does not appear.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        write(path, named(self.layout(), "", self.buffer())?, None)
    }

    /// A network that begins with another one's weights, all but those of its outputs, which begin as `seed` draws them:
    /// they may stand for other classes.
    ///
    /// # Errors
    /// [`CheckpointError`] where the file is damaged, or the two networks differ in more than their outputs.
    ///
    /// # Reference
    /// nnU-Net 2.8.1 `load_pretrained_weights`, which leaves out what has `.seg_layers.` in its name.
    pub fn pretrained(
        path: &Path,
        architecture: &Architecture,
        seed: u64,
        device: Device,
    ) -> Result<Self, CheckpointError> {
        let mut file = TensorFile::read(path)?;
        let topology = Topology::new(architecture);
        let drawn = Tensor::f_from_slice(&topology.layout().initial(seed)).map_err(TorchError::from)?;
        let mut tensors = topology.layout().views(&drawn)?;
        for (specification, tensor) in topology.layout().specifications().iter().zip(&mut tensors) {
            if !specification.name.contains(OUTPUT_LAYERS) {
                *tensor = file.take(&specification.name, &specification.shape)?;
            }
        }
        file.drop_named(OUTPUT_LAYERS);
        file.check_empty()?;
        let buffer = topology.layout().gather(&tensors)?;
        Ok(Self::from_buffer(architecture, topology, &buffer, device)?)
    }

    /// Reads a network from a file of [`Network::save`].
    ///
    /// # Errors
    /// [`CheckpointError`] where the file is damaged or is not of this architecture.
    pub fn load(path: &Path, architecture: &Architecture, device: Device) -> Result<Self, CheckpointError> {
        let mut file = TensorFile::read(path)?;
        let topology = Topology::new(architecture);
        let buffer = take_buffer(&mut file, topology.layout(), "", topology.layout().specifications().len())?;
        file.check_empty()?;
        Ok(Self::from_buffer(architecture, topology, &buffer, device)?)
    }
}

/// The parameters that lie in `buffer`, each named after itself behind `prefix`.
pub(crate) fn named(layout: &Layout, prefix: &str, buffer: &Tensor) -> Result<Vec<(String, Tensor)>, TorchError> {
    let buffer = buffer.f_to_device(tch::Device::Cpu)?;
    let names = layout.specifications().iter().map(|specification| format!("{prefix}{}", specification.name));
    Ok(names.zip(layout.views(&buffer)?).collect())
}

/// Takes the first `count` parameters out of a file, as one buffer.
pub(crate) fn take_buffer(
    file: &mut TensorFile,
    layout: &Layout,
    prefix: &str,
    count: usize,
) -> Result<Tensor, CheckpointError> {
    let specifications = layout.specifications().iter().take(count);
    let take = |specification: &crate::network::Specification| {
        file.take(&format!("{prefix}{}", specification.name), &specification.shape)
    };
    let tensors = specifications.map(take).collect::<Result<Vec<_>, _>>()?;
    Ok(layout.gather(&tensors)?)
}
