//! Where tensors live: the CPU, or one GPU.
//!
//! No program is linked to `libtorch_cuda.so`; it is opened here, before the first question about CUDA, where it exists.
//! One build then serves machines with and without a GPU, and a machine without one never loads 300 MB for nothing.

use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// The library that teaches libtorch about CUDA.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// What a user may ask for: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this index; an error where it is not there.
    Cuda(usize),
}

/// A device that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    Cpu {
        /// How many samples or windows are computed beside each other; it changes no bit of a result.
        threads: usize,
    },
    /// The GPU of this index.
    Cuda(usize),
}

/// Why there is no such device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The words name no device.
    #[error("`{found}` is no device, expected `auto`, `cpu`, `cuda` or `cuda:N`")]
    Name {
        /// What was asked for.
        found: String,
    },
    /// libtorch was set up without CUDA, or its CUDA libraries do not load.
    #[error("device `cuda:{index}` needs `{CUDA_LIBRARY}`, which cannot be loaded: {reason}")]
    Library {
        /// The GPU asked for.
        index: usize,
        /// What the dynamic loader says.
        reason: String,
    },
    /// CUDA works, but has no such GPU.
    #[error("device `cuda:{index}` is not there: found {found} usable GPUs")]
    Index {
        /// The GPU asked for.
        index: usize,
        /// How many there are.
        found: usize,
    },
}

impl DeviceError {
    /// What a user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Name { .. } => "write `auto` to take a GPU where there is one",
            Self::Library { .. } => "run: cargo xtask setup --cuda, or choose the device `cpu`",
            Self::Index { .. } => "check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or choose the device `cpu`",
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let choice = match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Self::Cuda),
        };
        choice.ok_or_else(|| DeviceError::Name { found: text.to_owned() })
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        match choice {
            DeviceChoice::Auto => "auto".to_owned(),
            DeviceChoice::Cpu => "cpu".to_owned(),
            DeviceChoice::Cuda(index) => format!("cuda:{index}"),
        }
    }
}

impl DeviceChoice {
    /// Finds the device; `threads` is what the CPU may use where it is the CPU.
    ///
    /// # Errors
    /// [`DeviceError`] where a GPU was asked for and is not usable; `auto` then means the CPU.
    pub fn resolve(self, threads: usize) -> Result<Device, DeviceError> {
        // One operation never runs on several threads; `parallel.rs` says why.
        tch::set_num_threads(1);
        let cpu = Device::Cpu { threads: threads.max(1) };
        match self {
            Self::Cpu => Ok(cpu),
            Self::Cuda(index) => cuda(index),
            Self::Auto => Ok(cuda(0).unwrap_or(cpu)),
        }
    }
}

impl Device {
    pub(crate) fn torch(self) -> tch::Device {
        match self {
            Self::Cpu { .. } => tch::Device::Cpu,
            Self::Cuda(index) => tch::Device::Cuda(index),
        }
    }

    /// Whether it is a GPU.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::Cuda(_))
    }

    /// How many pieces of work go beside each other; a GPU takes one at a time.
    pub(crate) fn threads(self) -> usize {
        match self {
            Self::Cpu { threads } => threads,
            Self::Cuda(_) => 1,
        }
    }

    /// Waits until the device has done all that it was asked for; measures of time need it.
    pub fn synchronize(self) {
        if let Self::Cuda(index) = self {
            tch::Cuda::synchronize(i64::try_from(index).unwrap_or(i64::MAX));
        }
    }
}

fn cuda(index: usize) -> Result<Device, DeviceError> {
    load_cuda().map_err(|reason| DeviceError::Library { index, reason })?;
    let found = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if index >= found {
        return Err(DeviceError::Index { index, found });
    }
    // Patches have one shape for a whole training, so that the fastest algorithm is worth a search.
    tch::Cuda::cudnn_set_benchmark(true);
    Ok(Device::Cuda(index))
}

/// Opens the CUDA part of libtorch, once; libtorch looks for it at the first question only.
fn load_cuda() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(open_cuda).clone()
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "opening a library runs its initialisers")]
fn open_cuda() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

    use crate::error::of_loader;
    // SAFETY: the library is libtorch's own, of the version that this program is linked to, and is made to be opened
    // beside libtorch_cpu: its initialisers register the CUDA kernels and nothing else.
    let library = unsafe { Library::open(Some(CUDA_LIBRARY), RTLD_NOW | RTLD_GLOBAL) };
    // The kernels stay registered until the process ends, so the library must never be closed.
    library.map(std::mem::forget).map_err(|error| of_loader(&error))
}

#[cfg(not(unix))]
fn open_cuda() -> Result<(), String> {
    Err("CUDA is supported on Linux only".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_torch_names_them() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
    }

    #[test]
    fn an_unknown_device_is_named_with_what_is_known() {
        let error = "gpu".parse::<DeviceChoice>().expect_err("no such device").to_string();
        assert_eq!(error, "`gpu` is no device, expected `auto`, `cpu`, `cuda` or `cuda:N`");
    }

    #[test]
    fn a_choice_survives_its_text() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda(7)] {
            assert_eq!(String::from(choice).parse(), Ok(choice));
        }
    }

    #[test]
    fn a_gpu_that_no_machine_has_is_an_error_not_the_cpu() {
        let error = DeviceChoice::Cuda(4096).resolve(1).expect_err("no machine has 4097 GPUs");
        assert!(error.to_string().starts_with("device `cuda:4096`"), "{error}");
    }

    #[test]
    fn a_cpu_has_at_least_one_thread() {
        assert_eq!(DeviceChoice::Cpu.resolve(0), Ok(Device::Cpu { threads: 1 }));
    }

    #[test]
    fn auto_finds_a_device_everywhere() {
        assert!(DeviceChoice::Auto.resolve(1).is_ok());
    }
}
