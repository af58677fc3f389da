//! The precision in which networks compute.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::device::Device;
use crate::error::TorchError;
use crate::shim::Autocast;

/// What a network computes in. Weights, sums of losses and steps of the optimiser are of 32 bits always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits throughout.
    #[default]
    Float32,
    /// Products of 16 bits with the range of 32: for GPUs from NVIDIA's Ampere on.
    Bfloat16,
    /// Products of 16 bits with more digits and less range, as nnU-Net has them: gradients are scaled so that they fit.
    Float16,
}

impl Precision {
    /// Runs the operations of `work` in this precision; the tensors that come out are of 32 bits.
    pub(crate) fn run(
        self,
        device: Device,
        work: impl FnOnce() -> Result<Vec<Tensor>, TorchError>,
    ) -> Result<Vec<Tensor>, TorchError> {
        let kind = match self {
            Self::Float32 => return work(),
            Self::Bfloat16 => tch::Kind::BFloat16,
            Self::Float16 => tch::Kind::Half,
        };
        let outputs = {
            let _autocast = Autocast::enter(device, kind)?;
            work()?
        };
        outputs.into_iter().map(|output| Ok(output.f_to_kind(tch::Kind::Float)?)).collect()
    }
}
