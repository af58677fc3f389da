//! What libtorch can do and tch has no call for: `shim/shim.cpp`, behind safe functions.

use std::ffi::CStr;
use std::marker::PhantomData;

use tch::kind::Element;
use tch::{Kind, Tensor};

use crate::device::Device;
use crate::error::TorchError;

/// libtorch's own object, which tch hands out by address.
type Object = std::ffi::c_void;

#[expect(unsafe_code, reason = "functions of another language")]
// SAFETY: the declarations are those of `shim/shim.cpp`, which this crate's build script compiles.
unsafe extern "C" {
    fn nnflow_shim_error() -> *const std::ffi::c_char;
    fn nnflow_shim_autocast_enter(cuda: i32, scalar_type: i32, before: *mut i32) -> i32;
    fn nnflow_shim_autocast_leave(cuda: i32, before: *const i32) -> i32;
    fn nnflow_shim_autocast_on_cpu(enabled: *mut i32) -> i32;
    fn nnflow_shim_set_deterministic(enabled: i32) -> i32;
    fn nnflow_shim_set_tf32(enabled: i32) -> i32;
    fn nnflow_shim_channels_last(tensor: *const Object, result: *mut *mut Object) -> i32;
    fn nnflow_shim_upload(
        values: *const Object,
        scalar_type: i32,
        shape: *const i64,
        axes: i32,
        index: i32,
        result: *mut *mut Object,
    ) -> i32;
    fn nnflow_shim_memory(index: i32, result: *mut u64) -> i32;
    fn nnflow_shim_reset_peak(index: i32) -> i32;
    fn nnflow_shim_empty_cache() -> i32;
    fn nnflow_shim_use_gpu(index: i32) -> i32;
    fn nnflow_shim_stream(index: i32, stream: *mut *mut Object) -> i32;
}

/// Operations of this thread on a device run in lower precision where that does no harm, for as long as this is there.
///
/// # Reference
/// `torch.autocast`.
#[derive(Debug)]
pub(crate) struct Autocast {
    cuda: i32,
    before: [i32; 2],
    /// The state belongs to the thread.
    _stays: PhantomData<*const ()>,
}

impl Autocast {
    /// Begins with operations in `kind`, which is [`Kind::BFloat16`] or [`Kind::Half`].
    pub(crate) fn enter(device: Device, kind: Kind) -> Result<Self, TorchError> {
        let (cuda, mut before) = (i32::from(matches!(device, Device::Cuda(_))), [0; 2]);
        #[expect(unsafe_code, reason = "a function of another language")]
        // SAFETY: `before` has the two numbers that the function writes.
        let status = unsafe { nnflow_shim_autocast_enter(cuda, scalar_type(kind), before.as_mut_ptr()) };
        checked(status)?;
        Ok(Self { cuda, before, _stays: PhantomData })
    }
}

/// The number that libtorch has for a kind (`c10/core/ScalarType.h`).
fn scalar_type(kind: Kind) -> i32 {
    match kind {
        Kind::BFloat16 => 15,
        Kind::Float => 6,
        Kind::Int16 => 2,
        _ => 5,
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a function of another language")]
        // SAFETY: `before` has the two numbers that the function reads.
        let status = unsafe { nnflow_shim_autocast_leave(self.cuda, self.before.as_ptr()) };
        // It fails for a device that does not exist only, which entering has refused.
        debug_assert_eq!(status, 0, "autocast ends where it began");
    }
}

/// Whether operations of this thread on the CPU run in lower precision.
pub(crate) fn autocasts_on_cpu() -> Result<bool, TorchError> {
    let mut enabled = 0;
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: `enabled` is there to be written.
    checked(unsafe { nnflow_shim_autocast_on_cpu(&raw mut enabled) })?;
    Ok(enabled != 0)
}

/// Whether a GPU shall give the same bits from run to run, as far as libtorch has algorithms for that. They are slower.
///
/// # Errors
/// If libtorch refuses.
pub fn set_deterministic(enabled: bool) -> Result<(), TorchError> {
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: the function takes a number.
    checked(unsafe { nnflow_shim_set_deterministic(i32::from(enabled)) })
}

/// Whether a GPU may round the factors of convolutions and products of matrices of 32 bits to TF32.
///
/// # Errors
/// If libtorch refuses.
pub fn set_tf32(enabled: bool) -> Result<(), TorchError> {
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: the function takes a number.
    checked(unsafe { nnflow_shim_set_tf32(i32::from(enabled)) })
}

/// The same values with the channels last in memory, `[sample, (z,) y, x, channel]`; shape and meaning stay.
///
/// # Errors
/// If memory is short, or the tensor has not four or five axes.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor, TorchError> {
    let mut result = std::ptr::null_mut();
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: tch's tensors are addresses of libtorch's, alive for as long as they are borrowed; the function makes a new one
    // at `result`, which becomes tch's to delete, or fails and leaves it alone.
    unsafe {
        checked(nnflow_shim_channels_last(tensor.as_ptr().cast(), &raw mut result))?;
        Ok(Tensor::from_ptr(result.cast()))
    }
}

/// Values of the host as a tensor of this shape on a device.
///
/// A GPU gets them from pinned memory, and nobody waits until it has: work that is asked for later comes after the copy.
///
/// # Errors
/// If there are other values than the shape says, or memory is short.
pub(crate) fn upload<T: Element>(values: &[T], shape: &[i64], device: Device) -> Result<Tensor, TorchError> {
    let Device::Cuda(index) = device else { return Ok(Tensor::f_from_slice(values)?.f_view(shape)?) };
    if shape.iter().product::<i64>() != values.len() as i64 {
        return Err(TorchError::of_text(&format!("{} values do not fill the shape {shape:?}", values.len())));
    }
    let mut result = std::ptr::null_mut();
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: `values` and `shape` are alive and as long as is said, and only read until the function returns; it makes a
    // tensor at `result`, which becomes tch's to delete, or fails and leaves it alone.
    unsafe {
        checked(nnflow_shim_upload(
            values.as_ptr().cast(),
            scalar_type(T::KIND),
            shape.as_ptr(),
            shape.len() as i32,
            number(index),
            &raw mut result,
        ))?;
        Ok(Tensor::from_ptr(result.cast()))
    }
}

/// Bytes of a GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// The most that tensors of this process have taken since [`reset_peak`].
    pub peak: u64,
    /// What is free.
    pub free: u64,
    /// What there is.
    pub total: u64,
}

/// How much of a GPU's memory is in use; none on the CPU.
///
/// # Errors
/// If the GPU does not answer.
pub fn memory(device: Device) -> Result<Option<GpuMemory>, TorchError> {
    let Device::Cuda(index) = device else { return Ok(None) };
    let mut bytes = [0; 3];
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: `bytes` has the three numbers that the function writes.
    checked(unsafe { nnflow_shim_memory(number(index), bytes.as_mut_ptr()) })?;
    let [peak, free, total] = bytes;
    Ok(Some(GpuMemory { peak, free, total }))
}

/// Forgets the most that tensors have taken so far.
///
/// # Errors
/// If the GPU does not answer.
pub fn reset_peak(device: Device) -> Result<(), TorchError> {
    let Device::Cuda(index) = device else { return Ok(()) };
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: the function takes a number.
    checked(unsafe { nnflow_shim_reset_peak(number(index)) })
}

/// Gives memory of a GPU that no tensor uses back to others.
///
/// # Errors
/// If the GPU does not answer.
pub fn give_back_memory(device: Device) -> Result<(), TorchError> {
    if let Device::Cpu { .. } = device {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: the function takes nothing.
    checked(unsafe { nnflow_shim_empty_cache() })
}

/// Makes a GPU the one that this thread's calls of CUDA go to; libtorch's own operations go to that of their tensors.
pub(crate) fn use_gpu(index: usize) -> Result<(), TorchError> {
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: the function takes a number.
    checked(unsafe { nnflow_shim_use_gpu(number(index)) })
}

/// The stream of a GPU that operations of this thread go to, as CUDA has it; it is libtorch's.
pub(crate) fn stream(index: usize) -> Result<*mut std::ffi::c_void, TorchError> {
    let mut stream = std::ptr::null_mut();
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: `stream` is there to be written.
    checked(unsafe { nnflow_shim_stream(number(index), &raw mut stream) })?;
    Ok(stream)
}

fn number(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

/// The error of the last call of this thread, if it failed.
fn checked(status: i32) -> Result<(), TorchError> {
    if status == 0 {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "a function of another language")]
    // SAFETY: the text belongs to this thread, ends with a zero, and stays until the thread's next call.
    let text = unsafe { CStr::from_ptr(nnflow_shim_error()) };
    Err(TorchError::of_text(&text.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Device = Device::Cpu { threads: 1 };

    fn product() -> Tensor {
        let matrix = Tensor::ones([4, 4], (Kind::Float, tch::Device::Cpu));
        matrix.matmul(&matrix)
    }

    #[test]
    fn products_are_of_lower_precision_while_autocast_is_there_and_no_longer() {
        let autocast = Autocast::enter(CPU, Kind::BFloat16).expect("every CPU can do that");
        let within = product().kind();
        drop(autocast);
        assert_eq!((within, product().kind()), (Kind::BFloat16, Kind::Float));
    }

    #[test]
    fn the_inner_autocast_leaves_the_outer_one_as_it_was() {
        let _outer = Autocast::enter(CPU, Kind::BFloat16).expect("every CPU can do that");
        drop(Autocast::enter(CPU, Kind::Half).expect("every CPU can do that"));
        assert_eq!(product().kind(), Kind::BFloat16);
    }

    #[test]
    fn autocast_of_one_thread_leaves_others_alone() {
        let _autocast = Autocast::enter(CPU, Kind::BFloat16).expect("every CPU can do that");
        let other = std::thread::spawn(|| product().kind()).join().expect("the other thread multiplies");
        assert_eq!(other, Kind::Float);
    }

    #[test]
    fn channels_last_changes_the_order_in_memory_and_no_value() {
        let tensor = Tensor::arange(2 * 3 * 4 * 5 * 6, (Kind::Float, tch::Device::Cpu)).view([2, 3, 4, 5, 6]);
        let other = channels_last(&tensor).expect("five axes");
        assert_eq!(other, tensor);
        assert_eq!(other.stride(), [360, 1, 90, 18, 3]);
    }

    #[test]
    fn what_libtorch_says_is_told() {
        let error = channels_last(&Tensor::ones([2, 3], (Kind::Float, tch::Device::Cpu))).expect_err("two axes");
        assert!(error.to_string().contains("rank 4"), "{error}");
    }

    #[test]
    fn values_arrive_in_their_order() {
        let found = upload(&[1_i16, 2, 3, 4, 5, 6], &[2, 3], CPU).expect("six values");
        assert_eq!(found, Tensor::from_slice(&[1_i16, 2, 3, 4, 5, 6]).view([2, 3]));
    }

    #[test]
    fn values_that_do_not_fill_the_shape_are_an_error() {
        assert!(upload(&[1.0_f32, 2.0], &[3], CPU).is_err());
    }
}
