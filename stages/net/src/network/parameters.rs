//! Parameters: one buffer, and what lies where in it.
//!
//! An optimiser that works on one buffer needs a handful of operations a step, however many layers there are, and clips
//! gradients without asking the device for a number.

use nnflow_kernels::random::CounterRandom;
use tch::{Kind, Tensor};

use crate::architecture::NEGATIVE_SLOPE;
use crate::error::TorchError;

/// Every parameter starts at a multiple of this many numbers (64 bytes), as a tensor of its own would.
const ALIGNMENT: usize = 16;
/// Sets the numbers that start a network apart from others of the same seed.
const PURPOSE: u32 = 0x696E_6974;

/// What a parameter is before training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Initial {
    Zeros,
    Ones,
    /// Normal with mean 0 and variance `2 / ((1 + slope²) · fan_in)` (He et al. 2015, equation 14).
    Kaiming {
        fan_in: usize,
    },
}

impl Initial {
    /// The standard deviation of what is drawn.
    pub(crate) fn deviation(self) -> f64 {
        match self {
            Self::Zeros | Self::Ones => 0.0,
            Self::Kaiming { fan_in } => (2.0 / ((1.0 + NEGATIVE_SLOPE.powi(2)) * fan_in as f64)).sqrt(),
        }
    }
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Specification {
    /// nnU-Net's name, the first of those that nnU-Net has for it.
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) initial: Initial,
}

/// Where each parameter lies in the buffer.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    specifications: Vec<Specification>,
    starts: Vec<usize>,
    len: usize,
}

impl Specification {
    pub(crate) fn size(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Layout {
    /// Adds a parameter behind the others and returns its index.
    pub(crate) fn push(&mut self, specification: Specification) -> usize {
        let start = self.len.next_multiple_of(ALIGNMENT);
        self.len = start + specification.size();
        self.starts.push(start);
        self.specifications.push(specification);
        self.starts.len() - 1
    }

    /// Length of the part of the buffer that the first `count` parameters lie in.
    pub(crate) fn len_of_first(&self, count: usize) -> usize {
        match count.checked_sub(1) {
            Some(last) => self.starts[last] + self.specifications[last].size(),
            None => 0,
        }
    }

    pub(crate) fn specifications(&self) -> &[Specification] {
        &self.specifications
    }

    /// The buffer before training: a function of `seed` and the layout alone.
    pub(crate) fn initial(&self, seed: u64) -> Vec<f32> {
        let mut buffer = vec![0.0; self.len];
        for (index, (specification, &start)) in self.specifications.iter().zip(&self.starts).enumerate() {
            let values = &mut buffer[start..start + specification.size()];
            match specification.initial {
                Initial::Zeros => {}
                Initial::Ones => values.fill(1.0),
                Initial::Kaiming { .. } => {
                    let deviation = specification.initial.deviation();
                    let index = u32::try_from(index).expect("invariant: an architecture has far fewer parameters");
                    let mut random = CounterRandom::new(seed, [PURPOSE, index, 0]);
                    values.fill_with(|| (deviation * random.normal()) as f32);
                }
            }
        }
        buffer
    }

    /// Each parameter as a view of `buffer`, in the order of [`Layout::specifications`].
    ///
    /// The buffer may hold the first parameters only; the others then have no view.
    pub(crate) fn views(&self, buffer: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        let held = buffer.numel();
        let mut views = Vec::with_capacity(self.starts.len());
        for (specification, &start) in self.specifications.iter().zip(&self.starts) {
            if start + specification.size() > held {
                break;
            }
            let shape: Vec<i64> = specification.shape.iter().map(|&extent| extent as i64).collect();
            views.push(buffer.f_narrow(0, start as i64, specification.size() as i64)?.f_view(&*shape)?);
        }
        Ok(views)
    }

    /// The reverse of [`Layout::views`] for the first `tensors.len()` parameters; the gaps between them are 0.
    pub(crate) fn gather(&self, tensors: &[Tensor]) -> Result<Tensor, TorchError> {
        let Some(first) = tensors.first() else {
            return Ok(Tensor::f_zeros(0, (Kind::Float, tch::Device::Cpu))?);
        };
        let gap = Tensor::f_zeros(ALIGNMENT as i64, (Kind::Float, first.device()))?;
        let mut parts = Vec::with_capacity(tensors.len());
        let mut end = 0;
        for ((tensor, specification), &start) in tensors.iter().zip(&self.specifications).zip(&self.starts) {
            if start > end {
                parts.push(gap.f_narrow(0, 0, (start - end) as i64)?);
            }
            parts.push(tensor.f_reshape(-1)?);
            end = start + specification.size();
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(sizes: &[usize]) -> Layout {
        let mut layout = Layout::default();
        for (index, &size) in sizes.iter().enumerate() {
            let initial = Initial::Kaiming { fan_in: 8 };
            layout.push(Specification { name: format!("parameter {index}"), shape: vec![size], initial });
        }
        layout
    }

    #[test]
    fn gathering_undoes_viewing() {
        let layout = layout(&[3, 16, 1, 40]);
        let buffer = Tensor::from_slice(&layout.initial(7));
        let views = layout.views(&buffer).expect("the buffer is whole");
        assert_eq!(layout.gather(&views).expect("all on the CPU"), buffer);
    }

    #[test]
    fn the_first_parameters_are_the_start_of_the_buffer() {
        let layout = layout(&[3, 16, 1]);
        let buffer = Tensor::from_slice(&layout.initial(7));
        let start = buffer.narrow(0, 0, layout.len_of_first(2) as i64);
        assert_eq!(layout.views(&start).expect("the buffer is long enough").len(), 2);
    }

    #[test]
    fn a_longer_layout_starts_with_the_same_numbers() {
        let (short, long) = (layout(&[5]).initial(1), layout(&[5, 5]).initial(1));
        assert_eq!(short[..], long[..5]);
    }

    #[test]
    fn initial_weights_have_the_deviation_of_he() {
        let values = layout(&[100_000]).initial(3);
        let variance = values.iter().map(|value| f64::from(value * value)).sum::<f64>() / 1e5;
        let expected = 2.0 / (1.0001 * 8.0);
        // Five standard errors of the variance of a normal sample.
        assert!((variance - expected).abs() < 5.0 * expected * (2.0_f64 / 1e5).sqrt(), "{variance}");
    }
}
