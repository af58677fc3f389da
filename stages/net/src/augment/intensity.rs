//! What is done to the intensities of one channel `[z, y, x]`.
//!
//! Means and ranges are tensors without axes that stay on the device: to read one of them would be to wait for it.

use nnflow_kernels::augment::{Drawn, blur_kernels, low_resolution};
use tch::{Kind, Tensor};

use super::filter::smooth;
use super::noise::normal;
use crate::device::Device;
use crate::error::TorchError;

/// The least range and standard deviation that anything is divided by.
const SMALLEST: f64 = 1e-7;

/// nnU-Net's transforms of intensities, in its order, of an image `[channel, z, y, x]`.
///
/// # Reference
/// As `nnflow_kernels::augment::Augmentation::apply`.
pub(super) fn transformed(drawn: &Drawn, image: &Tensor, device: Device) -> Result<Tensor, TorchError> {
    let mut channels: Vec<Tensor> =
        (0..image.size()[0]).map(|index| image.f_select(0, index)).collect::<Result<_, _>>()?;
    if let Some(noise) = &drawn.noise {
        for (index, channel) in (0..).zip(&mut channels) {
            let count = channel.size().iter().product();
            let normal = normal(noise.seed, index, count, device)?.f_mul_scalar(f64::from(noise.deviation as f32))?;
            *channel = channel.f_add(&normal.f_view_as(channel)?)?;
        }
    }
    for blur in &drawn.blur {
        if let Some(channel) = channels.get_mut(blur.channel) {
            let kernels = blur_kernels(extents(channel), blur.values);
            *channel = smooth(&channel.f_unsqueeze(0)?, &kernels)?.f_squeeze_dim(0)?;
        }
    }
    each(&mut channels, &drawn.brightness, |channel, factor| Ok(channel.f_mul_scalar(f64::from(factor as f32))?))?;
    each(&mut channels, &drawn.contrast, contrast)?;
    for low in &drawn.low_resolution {
        if let Some(channel) = channels.get_mut(low.channel) {
            *channel = of_low_resolution(channel, low.values)?;
        }
    }
    each(&mut channels, &drawn.inverted_gamma, |channel, exponent| gamma(channel, exponent, true))?;
    each(&mut channels, &drawn.gamma, |channel, exponent| gamma(channel, exponent, false))?;
    Ok(Tensor::f_stack(&channels, 0)?)
}

/// Changes each channel that has a number.
fn each(
    channels: &mut [Tensor],
    numbers: &[f64],
    change: impl Fn(&Tensor, f64) -> Result<Tensor, TorchError>,
) -> Result<(), TorchError> {
    for (channel, number) in channels.iter_mut().zip(numbers) {
        *channel = change(channel, *number)?;
    }
    Ok(())
}

fn extents(channel: &Tensor) -> [usize; 3] {
    let extents = channel.size();
    [0, 1, 2].map(|axis| extents[axis] as usize)
}

/// Mean and standard deviation (with one degree of freedom less), summed in 64 bits.
fn moments(channel: &Tensor) -> Result<(Tensor, Tensor), TorchError> {
    let count = channel.size().iter().product::<i64>() as f64;
    let mean = channel.f_sum(Kind::Double)?.f_div_scalar(count)?.f_to_kind(Kind::Float)?;
    let centred = channel.f_sub(&mean)?;
    let variance = centred.f_mul(&centred)?.f_sum(Kind::Double)?.f_div_scalar((count - 1.0).max(1.0))?;
    Ok((mean, variance.f_sqrt()?.f_to_kind(Kind::Float)?))
}

fn contrast(channel: &Tensor, factor: f64) -> Result<Tensor, TorchError> {
    let (mean, _) = moments(channel)?;
    let stretched = channel.f_sub(&mean)?.f_mul_scalar(f64::from(factor as f32))?.f_add(&mean)?;
    Ok(stretched.f_maximum(&channel.f_min()?)?.f_minimum(&channel.f_max()?)?)
}

fn gamma(channel: &Tensor, exponent: f64, inverted: bool) -> Result<Tensor, TorchError> {
    let before = if inverted { channel.f_neg()? } else { channel.shallow_clone() };
    let (mean, deviation) = moments(&before)?;
    let low = before.f_min()?;
    let range = before.f_max()?.f_sub(&low)?;
    let share = before.f_sub(&low)?.f_div(&range.f_clamp_min(SMALLEST)?)?;
    let raised = share.f_pow_tensor_scalar(f64::from(exponent as f32))?.f_mul(&range)?.f_add(&low)?;
    let (mean_after, deviation_after) = moments(&raised)?;
    let factor = deviation.f_div(&deviation_after.f_clamp_min(SMALLEST)?)?;
    let restored = raised.f_sub(&mean_after)?.f_mul(&factor)?.f_add(&mean)?;
    if inverted { Ok(restored.f_neg()?) } else { Ok(restored) }
}

/// Takes the nearest voxels of a coarser grid, then interpolates linearly back.
fn of_low_resolution(channel: &Tensor, scale: [f64; 3]) -> Result<Tensor, TorchError> {
    let shape = extents(channel);
    let [shape, low] = [shape, low_resolution(shape, scale)].map(|extents| extents.map(|extent| extent as i64));
    let volume = channel.f_unsqueeze(0)?.f_unsqueeze(0)?;
    let coarse = volume.f_internal_upsample_nearest_exact3d(low, None, None, None)?;
    Ok(coarse.f_upsample_trilinear3d(shape, false, None, None, None)?.f_view_as(channel)?)
}
