//! What this machine gives to a run.

use std::path::{Path, PathBuf};

use crate::engine::gpus;
use crate::engine::schedule::Capacity;
use crate::engine::slurm::Request;
use crate::workflow::{Device, Settings};

/// The share of the memory that a run uses where nobody says otherwise, in percent.
const MEMORY_SHARE: u64 = 80;

/// What a run may use: what the command line says, else the workflow, else what there is.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct MachineArguments {
    /// CPU threads to use; all by default.
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// GPUs to use; all by default.
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// Memory to use, in GiB; four fifths of what is there by default.
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,
    /// Device for training and prediction: `auto`, `cpu`, `cuda`.
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
}

impl MachineArguments {
    /// All there is, and this device for stages with tensors if one is named.
    pub(crate) fn on(device: Option<String>) -> Self {
        Self { device, ..Self::default() }
    }

    /// What a job of a cluster has asked for.
    pub(crate) fn of_job(request: &Request, device: &str) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "memory is not told to the byte")]
        let memory = request.memory_bytes.map(|bytes| bytes as f64 / f64::from(1 << 30));
        Self {
            threads: u32::try_from(request.threads).ok(),
            gpus: u32::try_from(request.gpus).ok(),
            memory,
            device: Some(device.to_owned()),
        }
    }

    /// What a run may use.
    pub(crate) fn capacity(&self, settings: &Settings) -> Capacity {
        let threads = self.threads.or(settings.threads).map_or_else(available_threads, |threads| threads as usize);
        let memory_bytes = self.given_memory().or(settings.memory_bytes).unwrap_or_else(available_memory);
        let gpus = self.gpus.or(settings.gpus).map_or_else(|| gpus::visible().len(), |gpus| gpus as usize);
        Capacity { threads, memory_bytes, gpus }
    }

    /// The memory that a run could use if nothing else used the machine: no more than it was given.
    pub(crate) fn most_memory(&self, settings: &Settings) -> u64 {
        self.given_memory().or(settings.memory_bytes).unwrap_or_else(whole_memory)
    }

    fn given_memory(&self) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, which is what is wanted"
        )]
        self.memory.map(|gibibytes| (gibibytes.max(0.0) * f64::from(1 << 30)) as u64)
    }

    /// The device for stages with tensors.
    pub(crate) fn device(&self, settings: &Settings) -> String {
        self.device.clone().unwrap_or_else(|| settings.device.unwrap_or(Device::Auto).to_string())
    }
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What is free now, within the limit of the control group.
fn available_memory() -> u64 {
    let group = group_memory("memory.max").map(|most| most.saturating_sub(group_memory("memory.current").unwrap_or(0)));
    let free = machine_memory("MemAvailable:").unwrap_or(4 << 30).min(group.unwrap_or(u64::MAX));
    free / 100 * MEMORY_SHARE
}

/// All that there is, within the limit of the control group.
fn whole_memory() -> u64 {
    let all = machine_memory("MemTotal:").unwrap_or(u64::MAX);
    all.min(group_memory("memory.max").unwrap_or(u64::MAX))
}

fn machine_memory(name: &str) -> Option<u64> {
    let text = fs_err::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

fn group_memory(name: &str) -> Option<u64> {
    fs_err::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?.trim().parse().ok()
}

/// The worker's program: `$NNFLOW_TORCH`, or `nnflow-torch` beside this program, or on the PATH.
pub(crate) fn worker_program() -> PathBuf {
    if let Some(program) = std::env::var_os("NNFLOW_TORCH") {
        return program.into();
    }
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join("nnflow-torch")));
    beside.filter(|program| program.is_file()).unwrap_or_else(|| PathBuf::from("nnflow-torch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_workflow() {
        let arguments = MachineArguments { threads: Some(3), memory: Some(0.5), ..MachineArguments::default() };
        let settings = Settings {
            threads: Some(7),
            memory_bytes: Some(1),
            gpus: Some(2),
            device: Some(Device::Cpu),
            ..Settings::default()
        };
        assert_eq!(arguments.capacity(&settings), Capacity { threads: 3, memory_bytes: 1 << 29, gpus: 2 });
        assert_eq!(arguments.device(&settings), "cpu");
    }

    #[test]
    fn without_any_word_the_machine_decides_and_takes_a_gpu_where_there_is_one() {
        let capacity = MachineArguments::default().capacity(&Settings::default());
        assert!(capacity.threads >= 1 && capacity.memory_bytes > 0, "{capacity:?}");
        assert_eq!(MachineArguments::default().device(&Settings::default()), "auto");
    }
}
