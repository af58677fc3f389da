//! Scaling a loss so that gradients of 16 bits neither vanish nor overflow.

use tch::Tensor;

use crate::device::Device;
use crate::error::TorchError;

/// The first scale, what it is multiplied by after an overflow and after so many steps without one
/// (`torch.amp.GradScaler`).
const FIRST: f64 = 65536.0;
const BACKOFF: f64 = 0.5;
const GROWTH: f64 = 2.0;
const INTERVAL: f64 = 2000.0;

/// The scale as it is now. It stays on the device: nobody waits to see whether a step counted.
#[derive(Debug)]
pub(super) struct LossScale {
    /// The scale, and the steps without an overflow since it changed last: two numbers.
    state: Tensor,
}

impl LossScale {
    pub(super) fn new(device: Device) -> Result<Self, TorchError> {
        Ok(Self { state: Tensor::f_from_slice(&[FIRST as f32, 0.0])?.f_to_device(device.torch())? })
    }

    pub(super) fn state(&self) -> &Tensor {
        &self.state
    }

    /// Goes on from a state of the form of [`LossScale::state`].
    pub(super) fn restore(&mut self, state: &Tensor) -> Result<(), TorchError> {
        Ok(self.state.f_copy_(state)?)
    }

    /// What the loss is multiplied by: one number.
    pub(super) fn factor(&self) -> Result<Tensor, TorchError> {
        Ok(self.state.f_select(0, 0)?.f_detach_copy()?)
    }

    /// The gradient of the loss itself, and whether all of it is finite: one truth value.
    pub(super) fn unscale(&self, gradient: &Tensor) -> Result<(Tensor, Tensor), TorchError> {
        let gradient = gradient.f_div(&self.factor()?)?;
        let finite = gradient.f_isfinite()?.f_all()?;
        Ok((gradient, finite))
    }

    /// Takes note of a step.
    pub(super) fn update(&mut self, finite: &Tensor) -> Result<(), TorchError> {
        let (scale, steps) = (self.factor()?, self.state.f_select(0, 1)?.f_add_scalar(1.0)?);
        let is_due = steps.f_ge(INTERVAL)?;
        let grown = scale.f_mul_scalar(GROWTH)?.f_where_self(&is_due, &scale)?;
        let next = grown.f_where_self(finite, &scale.f_mul_scalar(BACKOFF)?)?;
        let none = steps.f_zeros_like()?;
        let steps = none.f_where_self(&is_due, &steps)?.f_where_self(finite, &none)?;
        self.restore(&Tensor::f_stack(&[next, steps], 0)?)
    }
}

/// What stands in `tensor` if `finite`, else what was there before.
pub(super) fn keep_if(finite: &Tensor, tensor: &mut Tensor, before: &Tensor) -> Result<(), TorchError> {
    let kept = tensor.f_where_self(finite, before)?;
    Ok(tensor.f_copy_(&kept)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Device = Device::Cpu { threads: 1 };

    /// The scale and the count after steps that were finite or not.
    fn after(steps: &[bool]) -> [f64; 2] {
        let mut scale = LossScale::new(CPU).expect("two numbers");
        for &finite in steps {
            let gradient = Tensor::from_slice(&[1.0_f32, if finite { 2.0 } else { f32::INFINITY }]);
            let (_, finite) = scale.unscale(&gradient).expect("a vector");
            scale.update(&finite).expect("two numbers");
        }
        [0, 1].map(|index| scale.state().double_value(&[index]))
    }

    #[test]
    fn an_overflow_halves_the_scale_and_starts_the_count_anew() {
        assert_eq!(after(&[true, true, false]), [32768.0, 0.0]);
    }

    #[test]
    fn two_thousand_steps_without_overflow_double_the_scale() {
        assert_eq!(after(&[true; 1999]), [65536.0, 1999.0]);
        assert_eq!(after(&[true; 2000]), [131_072.0, 0.0]);
    }

    #[test]
    fn the_gradient_comes_out_as_that_of_the_loss() {
        let scale = LossScale::new(CPU).expect("two numbers");
        let (gradient, finite) = scale.unscale(&Tensor::from_slice(&[65536.0_f32, -32768.0])).expect("a vector");
        assert_eq!(gradient, Tensor::from_slice(&[1.0_f32, -0.5]));
        assert_eq!(finite.kind(), tch::Kind::Bool);
    }
}
