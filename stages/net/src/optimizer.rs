//! Optimisers that work on one buffer of parameters.
//!
//! libtorch's own optimisers hide their state and go from parameter to parameter; here the state is a few tensors as long
//! as the buffer, which a checkpoint can hold, and a step is a few operations.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::{TorchError, done};

/// Added to the norm of the gradient before dividing by it (`torch.nn.utils.clip_grad_norm_`).
const CLIP_EPSILON: f64 = 1e-6;

/// How a gradient becomes a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerOptions {
    /// Stochastic gradient descent with Nesterov's momentum, as `torch.optim.SGD`.
    Sgd {
        /// Part of the last step that is kept.
        momentum: f64,
        /// Part of the weights added to the gradient.
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba 2015), as `torch.optim.Adam`.
    Adam {
        /// Decay of the mean of the gradient and of that of its square.
        betas: [f64; 2],
        /// Added to the root of the mean square.
        epsilon: f64,
        /// Part of the weights added to the gradient.
        weight_decay: f64,
        /// Whether the largest mean square so far counts (Reddi et al. 2018).
        amsgrad: bool,
    },
}

impl OptimizerOptions {
    /// What nnU-Net 2.8.1 trains with.
    #[must_use]
    pub fn nnunet() -> Self {
        Self::Sgd { momentum: 0.99, weight_decay: 3e-5 }
    }

    /// Names of the tensors of the state.
    fn state_names(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd { .. } => &["momentum"],
            Self::Adam { amsgrad: false, .. } => &["mean", "mean_square"],
            Self::Adam { amsgrad: true, .. } => &["mean", "mean_square", "largest_mean_square"],
        }
    }
}

/// An optimiser with its state.
#[derive(Debug)]
pub(crate) struct Optimizer {
    options: OptimizerOptions,
    steps: u64,
    state: Vec<Tensor>,
}

impl Optimizer {
    /// The optimiser of a buffer like `parameters`, before its first step.
    pub(crate) fn new(options: OptimizerOptions, parameters: &Tensor) -> Result<Self, TorchError> {
        let state = options.state_names().iter().map(|_| parameters.f_zeros_like());
        let state = state.collect::<Result<_, _>>()?;
        Ok(Self { options, steps: 0, state })
    }

    /// Steps so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The tensors of the state with their names.
    pub(crate) fn state(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.options.state_names().iter().copied().zip(&self.state)
    }

    /// The tensors of the state, to be changed.
    pub(crate) fn tensors(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.state.iter_mut()
    }

    /// Goes on from a state of the form of [`Optimizer::state`].
    pub(crate) fn restore(&mut self, steps: u64, state: &[Tensor]) -> Result<(), TorchError> {
        for (ours, theirs) in self.state.iter_mut().zip(state) {
            ours.f_copy_(theirs)?;
        }
        self.steps = steps;
        Ok(())
    }

    /// Changes `parameters` by one step against `gradient`, which is used up.
    pub(crate) fn step(
        &mut self,
        parameters: &mut Tensor,
        mut gradient: Tensor,
        learning_rate: f64,
    ) -> Result<(), TorchError> {
        let _guard = tch::no_grad_guard();
        self.steps += 1;
        match self.options {
            OptimizerOptions::Sgd { momentum, weight_decay } => {
                add_scaled(&mut gradient, parameters, weight_decay)?;
                self.sgd(parameters, gradient, learning_rate, momentum)
            }
            OptimizerOptions::Adam { betas, epsilon, weight_decay, .. } => {
                add_scaled(&mut gradient, parameters, weight_decay)?;
                self.adam(parameters, gradient, learning_rate, betas, epsilon)
            }
        }
    }

    fn sgd(
        &mut self,
        parameters: &mut Tensor,
        mut gradient: Tensor,
        learning_rate: f64,
        momentum: f64,
    ) -> Result<(), TorchError> {
        let [velocity] = &mut self.state[..] else { return Ok(()) };
        done(velocity.f_mul_scalar_(momentum)?.f_add_(&gradient))?;
        add_scaled(&mut gradient, velocity, momentum)?;
        add_scaled(parameters, &gradient, -learning_rate)
    }

    fn adam(
        &mut self,
        parameters: &mut Tensor,
        gradient: Tensor,
        learning_rate: f64,
        [first, second]: [f64; 2],
        epsilon: f64,
    ) -> Result<(), TorchError> {
        let [mean, mean_square, largest @ ..] = &mut self.state[..] else { return Ok(()) };
        done(mean.f_lerp_(&gradient, 1.0 - first))?;
        let square = gradient.f_square()?.f_mul_scalar(1.0 - second)?;
        done(mean_square.f_mul_scalar_(second)?.f_add_(&square))?;
        let square = match largest {
            [largest] => {
                let larger = largest.f_maximum(mean_square)?;
                largest.f_copy_(&larger)?;
                larger
            }
            _ => mean_square.shallow_clone(),
        };
        // Both means start at 0; the corrections undo that (Kingma and Ba 2015, section 3).
        let steps = self.steps as f64;
        let (first_correction, second_correction) = (1.0 - first.powf(steps), 1.0 - second.powf(steps));
        let root = square.f_sqrt()?.f_div_scalar(second_correction.sqrt())?.f_add_scalar(epsilon)?;
        add_scaled(parameters, &mean.f_div(&root)?, -learning_rate / first_correction)
    }
}

/// The gradient, scaled down where its norm is above `max_norm`; the host never waits for the norm.
///
/// # Reference
/// `torch.nn.utils.clip_grad_norm_`, over all parameters together.
pub(crate) fn clip(gradient: Tensor, max_norm: f64) -> Result<Tensor, TorchError> {
    let norm = gradient.f_square()?.f_sum(Kind::Float)?.f_sqrt()?;
    let factor = norm.f_add_scalar(CLIP_EPSILON)?.f_reciprocal()?.f_mul_scalar(max_norm)?.f_clamp_max(1.0)?;
    Ok(gradient.f_mul(&factor)?)
}

/// `tensor += other · factor`.
fn add_scaled(tensor: &mut Tensor, other: &Tensor, factor: f64) -> Result<(), TorchError> {
    done(tensor.f_add_(&other.f_mul_scalar(factor)?))
}
