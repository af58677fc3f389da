//! What a run asks of Slurm.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use nnflow_stage::{Resources, Runner, StageSpec};
use serde::{Deserialize, Serialize};

use crate::workflow::{ResourceRequest, SlurmDeclaration};

/// How a job asks for GPUs where nobody says otherwise; `{n}` stands for their number.
const GPU_OPTION: &str = "--gres=gpu:{n}";

/// The threads of a job whose stage could use all there are.
const THREADS: u32 = 4;

/// How long before its limit a job is told to leave a checkpoint; an epoch of a large network takes minutes.
const WARNING: Duration = Duration::from_secs(300);

/// How often Slurm is asked. Its manual asks programs to be modest, and a job of hours can wait for some seconds.
const POLL: Duration = Duration::from_secs(15);

/// How often a job may be cut short and go on.
const REQUEUES: u32 = 20;

/// What a run asks of Slurm: what the command line says, else the workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct SlurmSettings {
    /// Options of `sbatch` that all jobs have, in order; later ones win.
    pub options: Vec<String>,
    /// The option that asks for GPUs, with `{n}` for their number.
    pub gpu: String,
    /// Lines of the shell that run before a job does.
    pub prolog: Vec<String>,
    /// Stages that are handed over besides those with tensors.
    pub stages: BTreeSet<String>,
    /// The time limit of stages that declare none.
    pub time: Option<Duration>,
    /// The threads of stages that declare none and could use all there are.
    pub threads: u32,
    /// How long before its limit a job is told to leave a checkpoint.
    pub warning: Duration,
    /// How often Slurm is asked.
    pub poll: Duration,
    /// How often a job may be cut short and go on.
    pub requeues: u32,
    /// How many jobs of an array may run at a time.
    pub parallel: Option<u32>,
    /// Whether jobs go on when the run is interrupted.
    pub detach: bool,
    /// The device of stages with tensors where the workflow leaves it open.
    pub device: String,
    /// The worker's program.
    pub worker: PathBuf,
}

/// What the command line says about Slurm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlurmWishes {
    /// The partition.
    pub partition: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// More options of `sbatch`.
    pub options: Vec<String>,
    /// Whether jobs go on when the run is interrupted.
    pub detach: bool,
}

impl SlurmSettings {
    /// The settings of a run.
    #[must_use]
    pub fn new(declared: &SlurmDeclaration, wishes: &SlurmWishes, device: String, worker: PathBuf) -> Self {
        let named = [
            ("--partition", wishes.partition.as_ref().or(declared.partition.as_ref())),
            ("--account", wishes.account.as_ref().or(declared.account.as_ref())),
            ("--qos", declared.qos.as_ref()),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        Self {
            options: named.chain(declared.options.iter().cloned()).chain(wishes.options.iter().cloned()).collect(),
            gpu: declared.gpu.clone().unwrap_or_else(|| GPU_OPTION.to_owned()),
            prolog: declared.prolog.clone(),
            stages: declared.stages.iter().map(|stage| stage.value.clone()).collect(),
            time: declared.time,
            threads: declared.threads.unwrap_or(THREADS),
            warning: declared.warning.unwrap_or(WARNING),
            poll: declared.poll.unwrap_or(POLL),
            requeues: declared.requeues.unwrap_or(REQUEUES),
            parallel: declared.parallel,
            detach: wishes.detach || declared.detach,
            device,
            worker,
        }
    }

    /// Whether the units of a stage are handed over.
    #[must_use]
    pub fn takes(&self, stage: &str, spec: &StageSpec) -> bool {
        spec.runner == Runner::Torch || self.stages.contains(stage)
    }

    /// What a job of a stage asks for. `estimate` is what the stage thinks that it needs, where that is known.
    #[must_use]
    pub fn request(&self, spec: &StageSpec, asked: &ResourceRequest, estimate: Option<Resources>) -> Request {
        let device = asked.device.map(|device| device.to_string());
        let on_cpu = spec.runner == Runner::Native || device.as_ref().unwrap_or(&self.device) == "cpu";
        let estimated_threads = estimate.map(|estimate| estimate.threads).filter(|threads| *threads > 0);
        let threads = asked.threads.map(|threads| threads as usize).or(estimated_threads);
        let estimated_bytes = estimate.map(|estimate| estimate.memory_bytes).filter(|bytes| *bytes > 0);
        Request {
            threads: threads.unwrap_or(self.threads as usize),
            memory_bytes: asked.memory_bytes.or(estimated_bytes),
            gpus: if on_cpu { 0 } else { asked.gpu.unwrap_or(1) as usize },
            time: asked.time.or(self.time),
        }
    }
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Request {
    /// CPU threads.
    pub threads: usize,
    /// Memory in bytes; the cluster's default if absent.
    pub memory_bytes: Option<u64>,
    /// GPUs.
    pub gpus: usize,
    /// The time limit; the cluster's default if absent.
    pub time: Option<Duration>,
}

impl Request {
    /// As options of `sbatch`.
    #[must_use]
    pub fn options(&self, settings: &SlurmSettings) -> Vec<String> {
        let mut options = vec![format!("--cpus-per-task={}", self.threads)];
        options.extend(self.memory_bytes.map(|bytes| format!("--mem={}M", bytes.div_ceil(1 << 20))));
        options.extend((self.gpus > 0).then(|| settings.gpu.replace("{n}", &self.gpus.to_string())));
        // Slurm counts in minutes, and a limit of none of them would be no limit.
        options.extend(self.time.map(|time| format!("--time={}", time.as_secs().div_ceil(60).max(1))));
        let warning = self.time.map_or(settings.warning, |time| settings.warning.min(time / 2));
        options.push(format!("--signal=B:USR1@{}", warning.as_secs()));
        options
    }
}

#[cfg(test)]
mod tests {
    use nnflow_nnunet::registry;

    use super::*;
    use crate::workflow::Device;

    fn settings(declared: &SlurmDeclaration, wishes: &SlurmWishes) -> SlurmSettings {
        SlurmSettings::new(declared, wishes, "auto".to_owned(), PathBuf::from("nnflow-torch"))
    }

    fn plain() -> SlurmSettings {
        settings(&SlurmDeclaration::default(), &SlurmWishes::default())
    }

    fn spec(stage: &str) -> &'static StageSpec {
        registry::stage(stage).expect("a stage of the registry").spec()
    }

    #[test]
    fn the_command_line_wins_over_the_workflow() {
        let declared = SlurmDeclaration {
            partition: Some("cpu".to_owned()),
            account: Some("lab".to_owned()),
            options: vec!["--nice=1".to_owned()],
            ..SlurmDeclaration::default()
        };
        let wishes = SlurmWishes {
            partition: Some("gpu".to_owned()),
            options: vec!["--nice=2".to_owned()],
            ..SlurmWishes::default()
        };
        let expected = ["--partition=gpu", "--account=lab", "--nice=1", "--nice=2"];
        assert_eq!(settings(&declared, &wishes).options, expected);
    }

    #[test]
    fn stages_with_tensors_are_handed_over_and_others_only_where_they_are_named() {
        let mut settings = plain();
        assert!(settings.takes("train", spec("train")) && !settings.takes("resample", spec("resample")));
        settings.stages.insert("resample".to_owned());
        assert!(settings.takes("resample", spec("resample")));
    }

    #[test]
    fn a_training_asks_for_a_gpu_unless_it_is_to_run_on_a_cpu() {
        let gpus = |device| {
            plain().request(spec("train"), &ResourceRequest { device, ..ResourceRequest::default() }, None).gpus
        };
        assert_eq!([gpus(None), gpus(Some(Device::Cuda(None))), gpus(Some(Device::Cpu))], [1, 1, 0]);
    }

    #[test]
    fn what_the_workflow_asks_for_wins_over_the_estimate_and_the_rest_is_the_estimate() {
        let asked = ResourceRequest { threads: Some(3), ..ResourceRequest::default() };
        let request = plain().request(spec("train"), &asked, Some(Resources { threads: 7, memory_bytes: 1 << 30 }));
        assert_eq!((request.threads, request.memory_bytes), (3, Some(1 << 30)));
    }

    #[test]
    fn a_stage_that_could_use_all_threads_gets_those_of_the_settings() {
        let all = Resources { threads: 0, memory_bytes: 0 };
        let request = plain().request(spec("train"), &ResourceRequest::default(), Some(all));
        assert_eq!((request.threads, request.memory_bytes), (4, None));
    }

    #[test]
    fn a_request_is_rounded_up_to_what_slurm_counts_in() {
        let time = Some(Duration::from_secs(24 * 3600 + 1));
        let request = Request { threads: 8, memory_bytes: Some((1 << 30) + 1), gpus: 2, time };
        let expected = ["--cpus-per-task=8", "--mem=1025M", "--gres=gpu:2", "--time=1441", "--signal=B:USR1@300"];
        assert_eq!(request.options(&plain()), expected);
    }

    #[test]
    fn the_warning_of_a_short_job_comes_in_its_middle() {
        let request = Request { threads: 1, memory_bytes: None, gpus: 0, time: Some(Duration::from_secs(120)) };
        assert_eq!(request.options(&plain()), ["--cpus-per-task=1", "--time=2", "--signal=B:USR1@60"]);
    }
}
