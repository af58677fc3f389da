//! The layers that every network here is made of.
//!
//! A layer knows the indices of its parameters, not the parameters: they are views of one buffer that the caller holds,
//! and several threads may hold views of their own.

use tch::{Device, Tensor};

use crate::error::TorchError;
use crate::shim::autocasts_on_cpu;

/// A convolution of any dimension, or a transposed one.
#[derive(Debug)]
pub(super) struct Convolution {
    pub(super) weight: usize,
    pub(super) bias: Option<usize>,
    pub(super) stride: Vec<i64>,
    pub(super) padding: Vec<i64>,
    pub(super) transposed: bool,
}

/// Instance normalisation with a factor and an offset for each channel.
#[derive(Debug)]
pub(super) struct InstanceNorm {
    pub(super) weight: usize,
    pub(super) bias: usize,
    pub(super) epsilon: f64,
}

/// Convolution, instance normalisation, and a leaky ReLU where `activated`.
#[derive(Debug)]
pub(super) struct ConvolutionBlock {
    pub(super) convolution: Convolution,
    pub(super) norm: InstanceNorm,
    pub(super) activated: bool,
}

/// Two convolution blocks and a shortcut around them (`BasicBlockD` of dynamic_network_architectures 0.4.4).
#[derive(Debug)]
pub(super) struct ResidualBlock {
    pub(super) first: ConvolutionBlock,
    pub(super) second: ConvolutionBlock,
    /// Window of the average on the shortcut, where the block halves the resolution.
    pub(super) average: Option<Vec<i64>>,
    /// On the shortcut, where the number of channels changes.
    pub(super) projection: Option<ConvolutionBlock>,
}

/// What a stage of an encoder repeats.
#[derive(Debug)]
pub(super) enum Unit {
    Convolution(ConvolutionBlock),
    Residual(Box<ResidualBlock>),
}

impl Convolution {
    pub(super) fn forward(&self, parameters: &[Tensor], input: &Tensor) -> Result<Tensor, TorchError> {
        let ones = vec![1; self.stride.len()];
        let zeros = vec![0; self.stride.len()];
        let bias = self.bias.map(|bias| &parameters[bias]);
        let (weight, stride, padding) = (&parameters[self.weight], &self.stride, &self.padding);
        if autocasts_on_cpu()? {
            // On the CPU libtorch casts for the operations by name, not for the one behind them all.
            return Ok(match (self.transposed, stride.len()) {
                (false, 2) => input.f_conv2d(weight, bias, stride, padding, &ones, 1),
                (false, _) => input.f_conv3d(weight, bias, stride, padding, &ones, 1),
                (true, 2) => input.f_conv_transpose2d(weight, bias, stride, padding, &zeros, 1, &ones),
                (true, _) => input.f_conv_transpose3d(weight, bias, stride, padding, &zeros, 1, &ones),
            }?);
        }
        let convolve =
            |input: &Tensor| input.f_convolution(weight, bias, stride, padding, &ones, self.transposed, &zeros, 1);
        if !self.needs_onednn(input) {
            return Ok(convolve(input)?);
        }
        Ok(convolve(&input.f_to_mkldnn(None)?)?.f_to_dense(None, false)?)
    }

    /// Whether the input has to be handed over as oneDNN's tensor for oneDNN to be used.
    ///
    /// libtorch leaves a single small sample to a loop of its own that is up to ten times slower (measured: 8 to 8
    /// channels on 40x56x40 voxels, 60 ms instead of 6). A 1x1 convolution is a matrix product either way.
    fn needs_onednn(&self, input: &Tensor) -> bool {
        let on_cpu = input.device() == Device::Cpu;
        on_cpu && !self.transposed && self.padding.iter().any(|&width| width > 0) && input.size()[0] == 1
    }
}

impl InstanceNorm {
    fn forward(&self, parameters: &[Tensor], input: &Tensor) -> Result<Tensor, TorchError> {
        let (weight, bias) = (Some(&parameters[self.weight]), Some(&parameters[self.bias]));
        if input.device() == Device::Cpu {
            // With a group for each channel it is the same norm, and libtorch's is faster for groups on the CPU.
            let extents = input.size();
            let (samples, channels, voxels) = (extents[0], extents[1], extents[2..].iter().product());
            return Ok(input.f_native_group_norm(weight, bias, samples, channels, voxels, channels, self.epsilon)?.0);
        }
        Ok(input.f_instance_norm(weight, bias, None, None, true, 0.0, self.epsilon, true)?)
    }
}

impl ConvolutionBlock {
    pub(super) fn forward(&self, parameters: &[Tensor], input: &Tensor) -> Result<Tensor, TorchError> {
        let features = self.convolution.forward(parameters, input)?;
        let mut features = self.norm.forward(parameters, &features)?;
        // libtorch's own slope is the 0.01 of all networks here.
        if self.activated { Ok(features.f_leaky_relu_()?) } else { Ok(features) }
    }
}

impl ResidualBlock {
    fn forward(&self, parameters: &[Tensor], input: &Tensor) -> Result<Tensor, TorchError> {
        let features = self.first.forward(parameters, input)?;
        let mut features = self.second.forward(parameters, &features)?;
        let mut shortcut = input.shallow_clone();
        if let Some(window) = &self.average {
            shortcut = average_pool(&shortcut, window)?;
        }
        if let Some(projection) = &self.projection {
            shortcut = projection.forward(parameters, &shortcut)?;
        }
        Ok(features.f_add_(&shortcut)?.f_leaky_relu_()?)
    }
}

impl Unit {
    pub(super) fn forward(&self, parameters: &[Tensor], input: &Tensor) -> Result<Tensor, TorchError> {
        match self {
            Self::Convolution(block) => block.forward(parameters, input),
            Self::Residual(block) => block.forward(parameters, input),
        }
    }
}

/// The maximum of each window.
pub(super) fn maximum_pool(input: &Tensor, window: &[i64]) -> Result<Tensor, TorchError> {
    let ones = vec![1; window.len()];
    let zeros = vec![0; window.len()];
    Ok(match window.len() {
        2 => input.f_max_pool2d(window, window, &zeros, &ones, false)?,
        _ => input.f_max_pool3d(window, window, &zeros, &ones, false)?,
    })
}

fn average_pool(input: &Tensor, window: &[i64]) -> Result<Tensor, TorchError> {
    let zeros = vec![0; window.len()];
    Ok(match window.len() {
        2 => input.f_avg_pool2d(window, window, &zeros, false, true, None::<i64>)?,
        _ => input.f_avg_pool3d(window, window, &zeros, false, true, None::<i64>)?,
    })
}
