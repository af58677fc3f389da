//! The GPUs that a run may use, and how much of their memory others have taken.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use crate::report::size;

/// A GPU with less of its memory free than this is warned of.
const ENOUGH_FREE: f64 = 0.8;

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// As `CUDA_VISIBLE_DEVICES` names it: a number, or an identifier that begins with `GPU-`.
    pub name: String,
    /// Its memory in bytes, free and all, where the driver tells.
    pub memory: Option<Memory>,
}

/// The memory of a GPU in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What no program has taken.
    pub free: u64,
    /// All that there is.
    pub total: u64,
}

/// The names of GPUs that an environment allows, if it says anything about them.
#[must_use]
pub fn allowed(visible_devices: Option<&str>) -> Option<Vec<String>> {
    let names = visible_devices?.split(',').map(str::trim);
    // What comes after -1 is hidden; CUDA itself reads the list so.
    Some(names.take_while(|name| *name != "-1").filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// The GPUs that this process may use, with their memory where the driver's library is at hand.
#[must_use]
pub fn visible() -> Vec<Gpu> {
    let names = allowed(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()).unwrap_or_else(installed);
    // Most machines have no GPU; then the library is not there either, and nothing is to be said.
    let library = if names.is_empty() { None } else { Nvml::init().ok() };
    let memory = |name: &String| memory_of(library.as_ref()?, name).ok();
    names.into_iter().map(|name| Gpu { memory: memory(&name), name }).collect()
}

/// The devices of the driver, by number.
fn installed() -> Vec<String> {
    let Ok(devices) = std::fs::read_dir("/dev") else { return Vec::new() };
    let number = |name: &str| name.strip_prefix("nvidia").and_then(|number| number.parse::<u32>().ok());
    let numbers = devices.flatten().filter_map(|entry| number(entry.file_name().to_str()?));
    (0..numbers.count()).map(|number| number.to_string()).collect()
}

fn memory_of(library: &Nvml, name: &str) -> Result<Memory, NvmlError> {
    let device = match name.parse() {
        Ok(number) => library.device_by_index(number)?,
        Err(_) => library.device_by_uuid(name)?,
    };
    let memory = device.memory_info()?;
    Ok(Memory { free: memory.free, total: memory.total })
}

/// What is said of GPUs whose memory others have taken, of those that a run uses.
#[must_use]
pub fn warnings(gpus: &[Gpu]) -> Vec<String> {
    let taken = |gpu: &&Gpu| gpu.memory.is_some_and(Memory::is_short);
    let warning = |gpu: &Gpu| {
        let Memory { free, total } = gpu.memory?;
        let (free, total) = (size(free), size(total));
        Some(format!("GPU {} has {free} of {total} free: other programs use it, and memory may run out", gpu.name))
    };
    gpus.iter().filter(taken).filter_map(warning).collect()
}

impl Memory {
    #[expect(clippy::cast_precision_loss, reason = "a share of a memory")]
    fn is_short(self) -> bool {
        (self.free as f64) < ENOUGH_FREE * self.total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_that_says_nothing_hides_nothing() {
        assert_eq!(allowed(None), None);
    }

    #[test]
    fn an_empty_list_and_minus_one_hide_all_gpus() {
        assert_eq!([allowed(Some("")), allowed(Some("-1"))], [Some(vec![]), Some(vec![])]);
    }

    #[test]
    fn what_comes_after_minus_one_is_hidden() {
        assert_eq!(allowed(Some("2, GPU-af,-1,0")), Some(vec!["2".to_owned(), "GPU-af".to_owned()]));
    }

    #[test]
    fn only_a_gpu_that_others_use_is_warned_of() {
        let gpu = |name: &str, free: Option<u64>| Gpu {
            name: name.to_owned(),
            memory: free.map(|free| Memory { free: free << 30, total: 80 << 30 }),
        };
        let warnings = warnings(&[gpu("0", Some(79)), gpu("1", Some(3)), gpu("2", None)]);
        assert_eq!(warnings, ["GPU 1 has 3.0 GiB of 80.0 GiB free: other programs use it, and memory may run out"]);
    }
}
