//! Predicting a whole image, a window at a time.
//!
//! Windows overlap; each is seen in every mirrored form, the forms are averaged, and so are the windows, with more weight
//! at their centres. As in nnU-Net 2.8.1, logits are averaged by default, over several networks too; sums are of 32 bits.

mod plan;
#[cfg(test)]
mod tests;

use std::ops::Range;

use ndarray::{Array4, ArrayD, ArrayView4, Axis, Ix4};
use nnflow_kernels::tiling::{self, TilingError};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::device::Device;
use crate::error::{TorchError, done};
use crate::network::{Network, Topology};
use crate::parallel::map_in_order;
use crate::precision::Precision;
use plan::Plan;

/// Standard deviation of the weights of a window as a part of its extent, and their peak (nnU-Net 2.8.1).
const SIGMA_SCALE: f64 = 1.0 / 8.0;
const PEAK: f64 = 10.0;
/// Jobs that are handed out together for each thread: enough that threads rarely wait for the slowest of them, few enough
/// that their results take little memory.
const JOBS_OF_A_THREAD: usize = 4;

/// What is averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// Logits, as nnU-Net does today.
    #[default]
    Logits,
    /// Probabilities of labels that exclude each other, as in 2018.
    Softmax,
    /// Probabilities of regions that may overlap.
    Sigmoid,
}

/// How the sums over windows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrecisionOfSums {
    /// In 32 bits.
    #[default]
    Float32,
    /// In 16 bits, and in nnU-Net's order, so that nnU-Net's rounding comes out bit for bit where the networks' answers
    /// are the same. Logits are then off by up to 0.5 near the border of an image, where weights are small.
    Float16,
}

/// How an image is predicted.
#[derive(Debug, Clone, PartialEq)]
pub struct InferenceOptions {
    /// Extents of a window in voxels: `[z, y, x]`, or `[y, x]` for a network that sees slices.
    pub patch: Vec<usize>,
    /// Distance of neighbouring windows at most, in patches: 0.5 in nnU-Net.
    pub step: f64,
    /// Axes of the patch that are mirrored, each alone and all together; none for no mirroring.
    pub mirror_axes: Vec<usize>,
    /// Whether the centre of a window counts more than its border, by a Gaussian; else all of it counts alike.
    pub gaussian: bool,
    /// What is averaged.
    pub average: Average,
    /// What networks compute in.
    pub precision: Precision,
    /// How the sums are kept.
    pub sums: PrecisionOfSums,
    /// Windows that a GPU takes at a time.
    pub batch: usize,
    /// Bytes of a GPU's memory that the sums may take; where they need more, they stay in the main memory.
    pub device_memory: u64,
}

/// Why an image cannot be predicted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// No network was given.
    #[error("there is no network to predict with, expected at least one")]
    NoNetwork,
    /// Networks that cannot be averaged.
    #[error("network {index} takes {found}, expected {expected} like the first")]
    Networks {
        /// Index of the network.
        index: usize,
        /// Channels and outputs of the first.
        expected: String,
        /// Channels and outputs of this one.
        found: String,
    },
    /// The image has other channels than the networks take, or no voxel.
    #[error("image of shape `{found:?}` cannot be predicted, expected {expected} channels and at least one voxel")]
    Image {
        /// Channels of the networks.
        expected: usize,
        /// Shape found, `[c, z, y, x]`.
        found: Vec<usize>,
    },
    /// A patch that the networks cannot halve, or of other axes.
    #[error("patch `{found:?}` does not fit the network, expected multiples of `{expected:?}`")]
    Patch {
        /// The divisors of the network.
        expected: Vec<usize>,
        /// The patch.
        found: Vec<usize>,
    },
    /// A mirrored axis that the patch does not have, or that is named twice.
    #[error("axis {found} cannot be mirrored, expected axes below {axes}, each at most once")]
    MirrorAxis {
        /// The axis.
        found: usize,
        /// Number of axes.
        axes: usize,
    },
    /// The windows cannot be laid out.
    #[error(transparent)]
    Tiling(#[from] TilingError),
    /// A result that is infinite or not a number.
    #[error("the prediction has values that are not finite: the image or the weights are damaged")]
    NotFinite,
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// Logits or probabilities of an image, in the main memory: `[class, z, y, x]`.
#[derive(Debug)]
pub struct Prediction {
    values: Tensor,
}

/// What the threads that predict windows share; it holds no tensor.
struct Task<'a> {
    topology: &'a Topology,
    device: Device,
    average: Average,
    precision: Precision,
    /// Whether a window is a slice, whose first axis the network does not see.
    slices: bool,
}

/// What a thread takes at a time.
struct Job<'a> {
    corners: &'a [Vec<usize>],
    /// Sets of axes of a batch that are flipped together, one a mirrored form.
    flips: &'a [Vec<i64>],
}

/// Predicts the image with all networks and averages them.
///
/// `image`: `[c, z, y, x]`, preprocessed. On the CPU the result does not depend on the number of threads, to the bit.
///
/// # Errors
/// [`InferenceError`] where the image, the patch and the networks do not fit each other, or memory is short.
///
/// # Reference
/// nnU-Net 2.8.1 `nnUNetPredictor.predict_sliding_window_return_logits`.
pub fn predict(
    networks: &[Network],
    image: ArrayView4<'_, f32>,
    options: &InferenceOptions,
) -> Result<Prediction, InferenceError> {
    let plan = Plan::new(networks, image.shape(), options)?;
    let values = average(networks, image, options, &plan)?;
    if !is_finite(&values)? {
        return Err(InferenceError::NotFinite);
    }
    Ok(Prediction { values })
}

/// The weighted mean of all windows of all networks.
fn average(
    networks: &[Network],
    image: ArrayView4<'_, f32>,
    options: &InferenceOptions,
    plan: &Plan,
) -> Result<Tensor, TorchError> {
    let _guard = tch::no_grad_guard();
    let image = plan.padded(image)?;
    let window_weights = plan.window_weights(options.gaussian)?;
    let sums = match options.sums {
        PrecisionOfSums::Float32 => average_together(networks, &image, &window_weights, plan, options)?,
        PrecisionOfSums::Float16 => average_one_by_one(networks, &image, &window_weights, plan, options)?,
    };
    plan.unpadded(&sums.f_to_kind(Kind::Float)?)
}

/// One sum over the windows of all networks.
fn average_together(
    networks: &[Network],
    image: &Tensor,
    window_weights: &Tensor,
    plan: &Plan,
    options: &InferenceOptions,
) -> Result<Tensor, TorchError> {
    let mut sums = plan.zeros(plan.classes, Kind::Float)?;
    for network in networks {
        add_network(network, image, window_weights, plan, options, &mut sums)?;
    }
    let mut weights = plan.sum_of_weights(window_weights, Kind::Float)?;
    done(weights.f_mul_scalar_(networks.len() as f64))?;
    done(sums.f_div_(&weights))?;
    Ok(sums)
}

/// The mean of the networks' means, each step rounded to 16 bits.
///
/// # Reference
/// nnU-Net 2.8.1 `nnUNetPredictor.predict_logits_from_preprocessed_data`.
fn average_one_by_one(
    networks: &[Network],
    image: &Tensor,
    window_weights: &Tensor,
    plan: &Plan,
    options: &InferenceOptions,
) -> Result<Tensor, TorchError> {
    let weights = plan.sum_of_weights(window_weights, Kind::Half)?;
    let mut total: Option<Tensor> = None;
    for network in networks {
        let mut sums = plan.zeros(plan.classes, Kind::Half)?;
        add_network(network, image, window_weights, plan, options, &mut sums)?;
        done(sums.f_div_(&weights))?;
        total = Some(match total {
            Some(mut total) => total.f_add_(&sums)?,
            None => sums,
        });
    }
    let mut total = total.expect("invariant: the plan has seen a network");
    if networks.len() > 1 {
        done(total.f_div_scalar_(networks.len() as f64))?;
    }
    Ok(total)
}

/// Adds the weighted windows of one network to the sums.
fn add_network(
    network: &Network,
    image: &Tensor,
    window_weights: &Tensor,
    plan: &Plan,
    options: &InferenceOptions,
    sums: &mut Tensor,
) -> Result<(), TorchError> {
    let device = network.device();
    let flips = flips(&options.mirror_axes, options.sums);
    let weights = window_weights.f_to_device(device.torch())?.f_div_scalar(flips.len() as f64)?;
    let task = Task {
        topology: network.topology(),
        device,
        average: options.average,
        precision: options.precision,
        slices: plan.slices,
    };
    for jobs in jobs(plan, &flips, device, options).chunks(JOBS_OF_A_THREAD * device.threads()) {
        let work = jobs.iter().map(|job| {
            let windows = job.corners.iter().map(|corner| plan.window(image, corner)).collect::<Result<Vec<_>, _>>()?;
            Ok((windows, job.flips, weights.shallow_clone(), network.layout().views(network.buffer())?))
        });
        let work = work.collect::<Result<Vec<_>, TorchError>>()?;
        let results = map_in_order(device.threads(), work, |(windows, flips, weights, parameters)| {
            let _guard = tch::no_grad_guard();
            task.predict(&windows, flips, &weights, &parameters)
        });
        // The order of the jobs, not that of their ends, decides the sums.
        for (job, windows) in jobs.iter().zip(results) {
            for (corner, window) in job.corners.iter().zip(&windows?) {
                done(plan.window(sums, corner)?.f_add_(&window.f_to_device(sums.device())?))?;
            }
        }
    }
    Ok(())
}

/// The jobs of an image: on the CPU one window in one mirrored form, on a GPU several windows in all forms. In 16 bits the
/// forms of a window have to be summed before they are rounded.
fn jobs<'a>(plan: &'a Plan, flips: &'a [Vec<i64>], device: Device, options: &InferenceOptions) -> Vec<Job<'a>> {
    let (windows, forms) = match (device, options.sums) {
        (Device::Cpu { .. }, PrecisionOfSums::Float32) => (1, 1),
        (Device::Cpu { .. }, PrecisionOfSums::Float16) => (1, flips.len()),
        (Device::Cuda(_), _) => (options.batch.max(1), flips.len()),
    };
    let of_windows = |corners| flips.chunks(forms).map(move |flips| Job { corners, flips });
    plan.corners.chunks(windows).flat_map(of_windows).collect()
}

impl Task<'_> {
    /// The sum of the mirrored forms of each window, mirrored back, times the weights: `[class, z, y, x]` each.
    fn predict(
        &self,
        windows: &[Tensor],
        flips: &[Vec<i64>],
        weights: &Tensor,
        parameters: &[Tensor],
    ) -> Result<Vec<Tensor>, TorchError> {
        let mut input = Tensor::f_stack(windows, 0)?.f_to_device(self.device.torch())?;
        if self.slices {
            input = input.f_squeeze_dim(2)?;
        }
        let mut sum: Option<Tensor> = None;
        for axes in flips {
            let output = self.form(&input, axes, parameters)?;
            sum = Some(match sum {
                Some(mut sum) => sum.f_add_(&output)?,
                None => output,
            });
        }
        let mut sum = sum.expect("invariant: a job has a mirrored form");
        if self.slices {
            sum = sum.f_unsqueeze(2)?;
        }
        Ok(sum.f_mul(weights)?.f_unbind(0)?)
    }

    /// The prediction of one mirrored form, mirrored back.
    fn form(&self, input: &Tensor, axes: &[i64], parameters: &[Tensor]) -> Result<Tensor, TorchError> {
        let flipped = input.f_flip(axes)?;
        let forward = || self.topology.forward(parameters, &flipped, 1);
        let output = self.precision.run(self.device, forward)?.swap_remove(0);
        let output = match self.average {
            Average::Logits => output,
            Average::Softmax => output.f_softmax(1, Kind::Float)?,
            Average::Sigmoid => output.f_sigmoid()?,
        };
        Ok(output.f_flip(axes)?)
    }
}

/// Every subset of the axes, as axes of `[sample, channel, …]`, the empty one first.
fn flips(axes: &[usize], sums: PrecisionOfSums) -> Vec<Vec<i64>> {
    let mut sets = vec![Vec::new()];
    for &axis in axes {
        let with = |set: &Vec<i64>| [set.as_slice(), &[axis as i64 + 2]].concat();
        sets.extend(sets.clone().iter().map(with));
    }
    if sums == PrecisionOfSums::Float16 {
        // nnU-Net's order: single axes, then pairs, then all three.
        sets.sort_by_key(|set| (set.len(), set.clone()));
    }
    sets
}

impl Prediction {
    /// `[classes, z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        let extents = self.values.size();
        std::array::from_fn(|axis| extents.get(axis).map_or(0, |&extent| extent as usize))
    }

    /// Some planes of some classes, `[class, z, y, x]`, so that not all values are in memory twice.
    ///
    /// # Errors
    /// [`TorchError`] where there are no such classes or planes.
    pub fn planes(&self, classes: Range<usize>, planes: Range<usize>) -> Result<Array4<f32>, TorchError> {
        let [_, _, height, width] = self.shape();
        let mut values = Array4::zeros((classes.len(), planes.len(), height, width));
        for (class, mut target) in classes.zip(values.axis_iter_mut(Axis(0))) {
            // Planes of one class lie in one piece, so that nothing but the target is filled.
            let part = self.values.f_select(0, class as i64)?.f_narrow(0, planes.start as i64, planes.len() as i64)?;
            let target = target.as_slice_mut().expect("invariant: one class in C order");
            part.f_reshape(-1)?.f_copy_data(target, part.numel())?;
        }
        Ok(values)
    }

    /// All values, `[class, z, y, x]`.
    ///
    /// # Errors
    /// [`TorchError`] where memory is short.
    pub fn into_array(self) -> Result<Array4<f32>, TorchError> {
        let values = array(&self.values)?;
        Ok(values.into_dimensionality::<Ix4>().expect("invariant: a prediction has four axes"))
    }
}

/// Class by class, because the check takes more memory than what is checked.
fn is_finite(values: &Tensor) -> Result<bool, TorchError> {
    for class in 0..values.size().first().copied().unwrap_or(0) {
        if values.f_select(0, class)?.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The values of a tensor of 32-bit floats.
pub(crate) fn array(tensor: &Tensor) -> Result<ArrayD<f32>, TorchError> {
    let shape: Vec<usize> = tensor.size().iter().map(|&extent| extent as usize).collect();
    let mut values = vec![0.0_f32; tensor.numel()];
    tensor.f_reshape(-1)?.f_copy_data(&mut values, tensor.numel())?;
    Ok(ArrayD::from_shape_vec(shape, values).expect("invariant: as many values as the tensor has"))
}

fn window_weights(patch: &[usize]) -> ArrayD<f32> {
    tiling::gaussian_weights_half(patch, SIGMA_SCALE, PEAK)
}
