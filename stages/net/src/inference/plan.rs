//! Where the windows of an image lie, and where the sums are kept.

use ndarray::ArrayView4;
use nnflow_kernels::tiling::{Padding, padding_to, window_corners, window_starts};
use tch::{Kind, Tensor};

use super::{InferenceError, InferenceOptions, window_weights};
use crate::device::Device;
use crate::error::{TorchError, done};
use crate::network::Network;

/// All that is decided before the first window is predicted.
pub(super) struct Plan {
    /// First voxel of each window in the padded image, `[z, y, x]`, in the order of nnU-Net.
    pub(super) corners: Vec<Vec<usize>>,
    /// Outputs of the networks.
    pub(super) classes: usize,
    /// Whether windows are slices.
    pub(super) slices: bool,
    /// Extents of a window, `[z, y, x]`.
    window: Vec<usize>,
    padding: Padding,
    /// Where the image and the sums are.
    home: tch::Device,
}

impl Plan {
    /// `shape`: the image's, `[c, z, y, x]`.
    pub(super) fn new(
        networks: &[Network],
        shape: &[usize],
        options: &InferenceOptions,
    ) -> Result<Self, InferenceError> {
        let first = networks.first().ok_or(InferenceError::NoNetwork)?;
        check(networks, first, shape, options)?;
        let slices = options.patch.len() == 2;
        let padding = padding_to(&shape[1..], &options.patch);
        let leading = padding.shape.len() - options.patch.len();
        let mut starts: Vec<Vec<usize>> =
            padding.shape[..leading].iter().map(|&extent| (0..extent).collect()).collect();
        starts.extend(window_starts(&padding.shape[leading..], &options.patch, options.step)?);
        let window = [&vec![1; leading], options.patch.as_slice()].concat();
        let classes = first.architecture().outputs;
        let voxels: usize = padding.shape.iter().product();
        // The sums, their weights, and the image itself.
        let bytes = (voxels * (classes + 1 + shape[0]) * size_of::<f32>()) as u64;
        let home = match first.device() {
            device @ Device::Cuda(_) if bytes <= options.device_memory => device.torch(),
            Device::Cuda(_) | Device::Cpu { .. } => tch::Device::Cpu,
        };
        Ok(Self { corners: window_corners(&starts), classes, slices, window, padding, home })
    }

    /// The image with zeros around it where it is smaller than a window.
    pub(super) fn padded(&self, image: ArrayView4<'_, f32>) -> Result<Tensor, TorchError> {
        let shape = signed(image.shape());
        let standard = image.as_standard_layout();
        let values = standard.as_slice().expect("invariant: the standard layout is one slice");
        let image = Tensor::f_from_slice(values)?.f_view(&*shape)?;
        // libtorch takes the last axis first, and for each what comes before and what behind.
        let missing = self.padding.inside.iter().zip(&self.padding.shape).rev();
        let missing: Vec<i64> =
            missing.flat_map(|(inside, &extent)| [inside.start as i64, (extent - inside.end) as i64]).collect();
        let image = if missing.iter().any(|&width| width > 0) { image.f_constant_pad_nd(&missing)? } else { image };
        Ok(image.f_to_device(self.home)?)
    }

    /// The part of a volume of the padded image that belongs to the image, in the main memory.
    pub(super) fn unpadded(&self, volume: &Tensor) -> Result<Tensor, TorchError> {
        let mut volume = volume.shallow_clone();
        for (axis, inside) in self.padding.inside.iter().enumerate() {
            volume = volume.f_narrow(axis as i64 + 1, inside.start as i64, inside.len() as i64)?;
        }
        Ok(volume.f_contiguous()?.f_to_device(tch::Device::Cpu)?)
    }

    /// A view of a window of a volume `[channel, z, y, x]`.
    pub(super) fn window(&self, volume: &Tensor, corner: &[usize]) -> Result<Tensor, TorchError> {
        let mut window = volume.shallow_clone();
        for (axis, (&start, &extent)) in corner.iter().zip(&self.window).enumerate() {
            window = window.f_narrow(axis as i64 + 1, start as i64, extent as i64)?;
        }
        Ok(window)
    }

    /// How much each voxel of a window counts: `[z, y, x]`.
    pub(super) fn window_weights(&self, gaussian: bool) -> Result<Tensor, TorchError> {
        if !gaussian {
            return Ok(Tensor::f_ones(&*signed(&self.window), (Kind::Float, self.home))?);
        }
        let leading = self.window.len() - if self.slices { 2 } else { 3 };
        let weights: Vec<f32> = window_weights(&self.window[leading..]).into_iter().collect();
        Ok(Tensor::f_from_slice(&weights)?.f_view(&*signed(&self.window))?.f_to_device(self.home)?)
    }

    /// A volume of this many channels, all 0.
    pub(super) fn zeros(&self, channels: usize, kind: Kind) -> Result<Tensor, TorchError> {
        let shape = signed(&[&[channels], self.padding.shape.as_slice()].concat());
        Ok(Tensor::f_zeros(&*shape, (kind, self.home))?)
    }

    /// How much all windows together count at each voxel: `[1, z, y, x]`.
    pub(super) fn sum_of_weights(&self, window_weights: &Tensor, kind: Kind) -> Result<Tensor, TorchError> {
        let weights = self.zeros(1, kind)?;
        for corner in &self.corners {
            done(self.window(&weights, corner)?.f_add_(window_weights))?;
        }
        Ok(weights)
    }
}

fn check(
    networks: &[Network],
    first: &Network,
    shape: &[usize],
    options: &InferenceOptions,
) -> Result<(), InferenceError> {
    let interface = |network: &Network| {
        let architecture = network.architecture();
        let (channels, outputs) = (architecture.input_channels, architecture.outputs);
        format!("{channels} channels and {outputs} outputs at multiples of {:?}", architecture.divisors())
    };
    let expected = interface(first);
    for (index, network) in networks.iter().enumerate() {
        let found = interface(network);
        if found != expected {
            return Err(InferenceError::Networks { index, expected, found });
        }
    }
    let channels = first.architecture().input_channels;
    if shape[0] != channels || shape.contains(&0) {
        return Err(InferenceError::Image { expected: channels, found: shape.to_vec() });
    }
    let divisors = first.architecture().divisors();
    let fits = |(extent, divisor): (&usize, &usize)| *extent > 0 && extent % divisor == 0;
    if options.patch.len() != divisors.len() || !options.patch.iter().zip(&divisors).all(fits) {
        return Err(InferenceError::Patch { expected: divisors, found: options.patch.clone() });
    }
    let axes = divisors.len();
    let wrong = |(index, axis): &(usize, &usize)| **axis >= axes || options.mirror_axes[..*index].contains(axis);
    match options.mirror_axes.iter().enumerate().find(wrong) {
        Some((_, &found)) => Err(InferenceError::MirrorAxis { found, axes }),
        None => Ok(()),
    }
}

fn signed(extents: &[usize]) -> Vec<i64> {
    extents.iter().map(|&extent| extent as i64).collect()
}
