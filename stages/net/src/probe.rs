//! What a network, a loss and an optimiser compute by themselves: on the CPU, on one thread, in plain arrays.
//!
//! Training puts them together and shows none of these numbers. Here each can be held against another implementation;
//! the package `nnflow-conformance` does so with the vectors in `tests/golden`.

use std::collections::BTreeMap;

use ndarray::ArrayD;
use nnflow_kernels::augment::PendingSample;
use tch::kind::Element;
use tch::{Kind, Tensor};

use crate::architecture::{Architecture, Description};
use crate::augment::{Augmented, Augmenter};
use crate::device::Device;
use crate::error::TorchError;
use crate::inference::array;
use crate::loss::Loss;
use crate::network::{Initial, Specification, Topology, leaves};
use crate::optimizer::{Optimizer, OptimizerOptions, clip};

/// Why something cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The weights lack a parameter.
    #[error("the weights lack the parameter `{name}`")]
    Missing {
        /// The parameter.
        name: String,
    },
    /// A parameter has another shape than in the network.
    #[error("parameter `{name}` has shape `{found:?}`, expected `{expected:?}`")]
    Shape {
        /// The parameter.
        name: String,
        /// Its shape in the network.
        expected: Vec<usize>,
        /// The shape of what was given.
        found: Vec<usize>,
    },
    /// libtorch failed, most likely for arrays that do not fit each other.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// A parameter of a network before training.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// nnU-Net's name, the first of those that nnU-Net has for it.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Mean of the distribution that its entries are drawn from.
    pub mean: f64,
    /// Standard deviation of that distribution.
    pub deviation: f64,
}

/// What a network makes of an input, forth and back.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    /// `[batch, class, (z,) y, x]`, from the full resolution down.
    pub outputs: Vec<ArrayD<f32>>,
    /// The gradient for each parameter that the outputs depend on, by name.
    pub gradients: BTreeMap<String, ArrayD<f32>>,
}

/// A loss and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct LossPass {
    /// The loss.
    pub value: f64,
    /// The gradient for the logits of each output; none for an output that has the weight 0.
    pub gradients: Vec<Option<ArrayD<f32>>>,
}

/// An optimiser after a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The gradient after clipping.
    pub clipped: Vec<f32>,
    /// The tensors of the optimiser's state, by name.
    pub state: BTreeMap<&'static str, Vec<f32>>,
    /// The parameters.
    pub parameters: Vec<f32>,
}

/// The parameters of a network, in its order.
#[must_use]
pub fn parameters(description: &Description) -> Vec<Parameter> {
    let topology = Topology::new(description);
    let parameter = |specification: &Specification| {
        let mean = if specification.initial == Initial::Ones { 1.0 } else { 0.0 };
        let deviation = specification.initial.deviation();
        Parameter { name: specification.name.clone(), shape: specification.shape.clone(), mean, deviation }
    };
    topology.layout().specifications().iter().map(parameter).collect()
}

/// Sends an input through a network, and the gradients of a number with respect to its outputs back.
///
/// `weights` has each parameter by nnU-Net's name, and may have others; `input` is `[batch, channel, (z,) y, x]`. There are
/// as many outputs as `output_gradients`, each of which has the shape of its output.
///
/// # Errors
/// [`ProbeError`] if a parameter is missing, or the arrays do not fit each other or the network.
pub fn network(
    architecture: &Architecture,
    weights: &BTreeMap<String, ArrayD<f32>>,
    input: &ArrayD<f32>,
    output_gradients: &[ArrayD<f32>],
) -> Result<Pass, ProbeError> {
    let topology = Topology::new(architecture);
    let specifications = topology.layout().specifications();
    let tensors = specifications.iter().map(|it| weight(it, weights)).collect::<Result<Vec<_>, _>>()?;
    let parameters = leaves(&topology, &topology.layout().gather(&tensors)?)?;
    let outputs = topology.forward(&parameters, &tensor(input)?, output_gradients.len())?;
    let mut sum = Tensor::f_zeros([] as [i64; 0], (Kind::Float, tch::Device::Cpu)).map_err(TorchError::from)?;
    for (output, gradient) in outputs.iter().zip(output_gradients) {
        sum = add_product(&sum, output, &tensor(gradient)?)?;
    }
    let used = &parameters[..topology.n_used(outputs.len())];
    let gradients = Tensor::f_run_backward(&[sum], used, false, false).map_err(TorchError::from)?;
    let named = specifications.iter().zip(&gradients).map(|(it, gradient)| Ok((it.name.clone(), array(gradient)?)));
    Ok(Pass {
        outputs: outputs.iter().map(|output| array(&output.detach())).collect::<Result<_, _>>()?,
        gradients: named.collect::<Result<_, TorchError>>()?,
    })
}

fn weight(specification: &Specification, weights: &BTreeMap<String, ArrayD<f32>>) -> Result<Tensor, ProbeError> {
    let name = &specification.name;
    let weight = weights.get(name).ok_or_else(|| ProbeError::Missing { name: name.clone() })?;
    if weight.shape() == specification.shape {
        return Ok(tensor(weight)?);
    }
    let (expected, found) = (specification.shape.clone(), weight.shape().to_vec());
    Err(ProbeError::Shape { name: name.clone(), expected, found })
}

fn add_product(sum: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Tensor, TorchError> {
    Ok(sum.f_add(&output.f_mul(gradient)?.f_sum(Kind::Float)?)?)
}

/// The loss of a network's outputs, and its gradient for their logits.
///
/// `outputs` are pairs of logits `[sample, class, (z,) y, x]` and labels `[sample, 1, (z,) y, x]`, each with its weight.
///
/// # Errors
/// [`TorchError`] if the arrays do not fit each other or the loss.
pub fn loss(loss: &Loss, outputs: &[(ArrayD<f32>, ArrayD<i16>)], weights: &[f64]) -> Result<LossPass, TorchError> {
    let mut total = Tensor::f_zeros([] as [i64; 0], (Kind::Float, tch::Device::Cpu))?;
    let mut logits = Vec::with_capacity(outputs.len());
    for ((values, labels), &weight) in outputs.iter().zip(weights) {
        let values = tensor(values)?.f_set_requires_grad(true)?;
        let labels = tensor(labels)?.f_to_kind(Kind::Int64)?;
        let of_output = loss.of_sums(&loss.sums(&values, &labels)?)?;
        total = total.f_add(&of_output.f_mul_scalar(weight)?)?;
        logits.push(values);
    }
    let value = total.f_double_value(&[])?;
    let gradients = Tensor::f_run_backward(&[total], &logits, false, false)?;
    let gradients = gradients.iter().zip(weights).map(|(gradient, weight)| (*weight > 0.0).then(|| array(gradient)));
    Ok(LossPass { value, gradients: gradients.map(Option::transpose).collect::<Result<_, _>>()? })
}

/// The steps of an optimiser from `start` against each of `gradients`, whose norm is clipped first.
///
/// # Errors
/// [`TorchError`] if a gradient is not as long as `start`.
pub fn optimizer(
    options: OptimizerOptions,
    start: &[f32],
    gradients: &[Vec<f32>],
    max_norm: f64,
    learning_rate: f64,
) -> Result<Vec<Step>, TorchError> {
    let mut parameters = Tensor::f_from_slice(start)?;
    let mut optimizer = Optimizer::new(options, &parameters)?;
    let mut steps = Vec::with_capacity(gradients.len());
    for gradient in gradients {
        let clipped = clip(Tensor::f_from_slice(gradient)?, max_norm)?;
        optimizer.step(&mut parameters, clipped.f_detach_copy()?, learning_rate)?;
        let state = optimizer.state().map(|(name, tensor)| Ok((name, values(tensor)?)));
        let state = state.collect::<Result<_, TorchError>>()?;
        steps.push(Step { clipped: values(&clipped)?, state, parameters: values(&parameters)? });
    }
    Ok(steps)
}

/// A sample as training augments it on a device, here on the CPU: the image `[1, channel, (z,) y, x]`, and the labels
/// `[1, 1, (z,) y, x]` for each supervised output.
///
/// # Errors
/// [`TorchError`] if image, labels and what was drawn do not fit each other.
pub fn augmented(augmenter: &Augmenter, sample: &PendingSample) -> Result<(ArrayD<f32>, Vec<ArrayD<i16>>), TorchError> {
    let Augmented { image, labels } = augmenter.apply(std::slice::from_ref(sample), Device::Cpu { threads: 1 })?;
    // 32 bits hold every label.
    let labels = labels.iter().map(|labels| Ok(array(&labels.f_to_kind(Kind::Float)?)?.mapv(|label| label as i16)));
    Ok((array(&image)?, labels.collect::<Result<_, TorchError>>()?))
}

/// Augments samples on a device and drops them, to measure how long that takes.
///
/// # Errors
/// [`TorchError`] as for [`augmented`], or where the device's memory is short.
pub fn augment_and_drop(augmenter: &Augmenter, samples: &[PendingSample], device: Device) -> Result<(), TorchError> {
    augmenter.apply(samples, device).map(drop)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, TorchError> {
    Ok(array(tensor)?.into_iter().collect())
}

fn tensor<T: Element + Copy>(array: &ArrayD<T>) -> Result<Tensor, TorchError> {
    let shape: Vec<i64> = array.shape().iter().map(|&extent| extent as i64).collect();
    let values: Vec<T> = array.iter().copied().collect();
    Ok(Tensor::f_from_slice(&values)?.f_view(&*shape)?)
}
