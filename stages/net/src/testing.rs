//! What several tests need: a look into a network.

use tch::Tensor;

use crate::network::{Network, leaves};

/// The parameters of a network, to take gradients with respect to.
pub(crate) fn parameters(network: &Network) -> Vec<Tensor> {
    leaves(network.topology(), network.buffer()).expect("on the CPU")
}

/// The output of a network at the full resolution.
pub(crate) fn logits(network: &Network, input: &Tensor) -> Tensor {
    let _guard = tch::no_grad_guard();
    network.topology().forward(&parameters(network), input, 1).expect("the shapes fit").swap_remove(0)
}
