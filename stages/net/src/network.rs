//! U-Nets of any topology, in two and three dimensions.
//!
//! Equal to dynamic_network_architectures 0.4.4 (what nnU-Net 2.8.1 builds) in outputs, gradients and names of parameters;
//! `tests/golden/network` holds them to it.

mod layers;
mod parameters;
#[cfg(test)]
mod tests;
mod topology;

use tch::Tensor;

pub(crate) use parameters::{Initial, Layout, Specification};
pub(crate) use topology::Topology;

use crate::architecture::{Architecture, Description};
use crate::device::Device;
use crate::error::TorchError;

/// A network with its parameters, on a device.
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    topology: Topology,
    buffer: Tensor,
    device: Device,
}

impl Network {
    /// A network with nnU-Net's initial weights, drawn from `seed` alone.
    ///
    /// # Errors
    /// [`TorchError::OutOfMemory`] where the device cannot hold it.
    pub fn new(architecture: &Architecture, seed: u64, device: Device) -> Result<Self, TorchError> {
        let topology = Topology::new(architecture);
        let buffer = Tensor::f_from_slice(&topology.layout().initial(seed))?;
        Self::from_buffer(architecture, topology, &buffer, device)
    }

    pub(crate) fn from_buffer(
        architecture: &Architecture,
        topology: Topology,
        buffer: &Tensor,
        device: Device,
    ) -> Result<Self, TorchError> {
        let buffer = buffer.f_to_device(device.torch())?;
        Ok(Self { architecture: architecture.clone(), topology, buffer, device })
    }

    /// What the network looks like.
    #[must_use]
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Where its parameters are.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(crate) fn layout(&self) -> &Layout {
        self.topology.layout()
    }

    /// The buffer that all parameters are views of.
    pub(crate) fn buffer(&self) -> &Tensor {
        &self.buffer
    }
}

/// Views of `buffer` that gradients are taken with respect to.
pub(crate) fn leaves(topology: &Topology, buffer: &Tensor) -> Result<Vec<Tensor>, TorchError> {
    let views = topology.layout().views(buffer)?;
    views.into_iter().map(|view| Ok(view.f_detach()?.f_set_requires_grad(true)?)).collect()
}

/// Number of trainable numbers of a network; none where they overflow.
///
/// # Reference
/// Equal to the sum over `parameters()` of the network that nnU-Net 2.8.1 builds.
#[must_use]
pub fn parameter_count(description: &Description) -> Option<usize> {
    let topology = Topology::new(description);
    let size = |shape: &[usize]| shape.iter().try_fold(1_usize, |size, &extent| size.checked_mul(extent));
    let mut specifications = topology.layout().specifications().iter();
    specifications.try_fold(0_usize, |sum, specification| sum.checked_add(size(&specification.shape)?))
}
