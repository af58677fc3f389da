//! The machine and the versions that figures were taken with.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::json::Json;
use super::programs::{Programs, run};
use crate::checkout::Checkout;
use crate::error::Error;

/// Processors taken by other programs, above which figures are off.
const BUSY: f64 = 0.2;

/// How long other programs are watched: the load that the kernel tells is that of a minute, in which the benchmark itself was built.
const WATCHED: Duration = Duration::from_secs(2);

/// The kernel's ticks a second in `/proc/stat`.
const TICKS: f64 = 100.0;

/// What prints the versions of nnU-Net and of what it stands on.
const VERSIONS: &str = "\
import platform
from importlib.metadata import version
packages = ('nnunetv2', 'torch', 'numpy', 'scipy', 'scikit-image', 'SimpleITK')
print(', '.join([f'{name} {version(name)}' for name in packages] + [f'Python {platform.python_version()}']))";

/// What a reader has to know to place the figures.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) workers: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) nnflow: String,
    pub(crate) nnunet: String,
    /// Processors that other programs took before the first run.
    pub(crate) taken: f64,
}

impl Machine {
    /// Looks at the machine, and asks the programs for their versions.
    pub(crate) fn describe(checkout: &Checkout, programs: &Programs) -> Result<Self, Error> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ask = |command: &mut Command| run(command).map(|printed| printed.trim().to_owned());
        let commit = ask(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(checkout.root()));
        let version = ask(programs.nnflow().arg("--version"))?;
        Ok(Self {
            date: ask(Command::new("date").args(["-u", "+%Y-%m-%d"])).unwrap_or_default(),
            processor: entry(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown processor").to_owned(),
            workers: programs.workers,
            memory_gib: kilobytes(&read("/proc/meminfo"), "MemTotal") / f64::from(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            nnflow: commit.map_or(version.clone(), |commit| format!("{version} ({commit})")),
            nnunet: ask(&mut programs.python(VERSIONS))?,
            taken: taken_by_others(),
        })
    }

    /// Says so where figures will be off.
    pub(crate) fn warn_if_busy(&self) {
        if self.taken > BUSY {
            eprintln!("warning: other programs take {:.1} processors, which spoils the figures", self.taken);
        }
    }

    /// The paragraph above the table.
    pub(crate) fn paragraph(&self, pairs: usize) -> String {
        let busy = if self.taken > BUSY {
            format!(" **Other programs took {:.1} processors: a rehearsal.**", self.taken)
        } else {
            String::new()
        };
        format!(
            "Taken on {} on {}, {} processors, {:.0} GiB of memory, Linux {}: {} against {}. {} of runs of each.{busy}\n",
            self.date,
            self.processor,
            self.workers,
            self.memory_gib,
            self.kernel,
            self.nnflow,
            self.nnunet,
            if pairs == 1 { "One pair".to_owned() } else { format!("{pairs} pairs") },
        )
    }

    /// The same for programs.
    pub(crate) fn to_json(&self) -> Json {
        Json::Table(vec![
            ("date", self.date.as_str().into()),
            ("processor", self.processor.as_str().into()),
            ("processors", (self.workers as f64).into()),
            ("memory_gib", self.memory_gib.into()),
            ("linux", self.kernel.as_str().into()),
            ("nnflow", self.nnflow.as_str().into()),
            ("nnunet", self.nnunet.as_str().into()),
            ("taken_by_others", self.taken.into()),
        ])
    }
}

/// The value of the first line `NAME : VALUE`.
fn entry<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let entries = text.lines().filter_map(|line| line.split_once(':'));
    entries.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn kilobytes(text: &str, name: &str) -> f64 {
    entry(text, name).map_or(f64::NAN, first_number)
}

/// Processors that were at work while this one only waited; 0 where the kernel does not tell.
fn taken_by_others() -> f64 {
    let ticks = || fs::read_to_string("/proc/stat").ok().and_then(|text| working_ticks(&text));
    let before = ticks();
    sleep(WATCHED);
    let worked = before.zip(ticks()).map_or(0.0, |(before, after)| after - before);
    worked / TICKS / WATCHED.as_secs_f64()
}

/// Ticks of all processors in user mode, niced or not, and in the kernel.
fn working_ticks(text: &str) -> Option<f64> {
    let total = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    total.split_whitespace().take(3).map(|word| word.parse::<f64>().ok()).sum()
}

fn first_number(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_found_by_its_name() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(entry(text, "model name"), Some("AMD EPYC"));
    }

    #[test]
    fn memory_is_read_in_kilobytes() {
        assert_eq!(kilobytes("MemTotal:       24684084 kB\nMemFree: 1 kB\n", "MemTotal"), 24_684_084.0);
    }

    #[test]
    fn idle_and_waiting_processors_do_not_count_as_taken() {
        assert_eq!(working_ticks("cpu  10 20 30 4000 500 6 7 0 0 0\ncpu0 1 2 3 4 5\n"), Some(60.0));
    }
}
