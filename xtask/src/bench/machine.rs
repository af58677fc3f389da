//! The machine and the versions that figures were taken with.

use std::fs;
use std::process::Command;

use super::json::Json;
use super::programs::{Programs, run};
use crate::checkout::Checkout;
use crate::error::Error;

/// A load above which other programs take noticeable time.
const BUSY: f64 = 0.5;

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
    /// Programs that wanted a processor in the minute before the first run.
    pub(crate) load: f64,
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
            load: first_number(&read("/proc/loadavg")),
        })
    }

    /// Says so where figures will be off.
    pub(crate) fn warn_if_busy(&self) {
        if self.load > BUSY {
            eprintln!("warning: other programs are running (load {:.1}), which spoils the figures", self.load);
        }
    }

    /// The paragraph above the table.
    pub(crate) fn paragraph(&self, pairs: usize) -> String {
        let busy = if self.load > BUSY {
            format!(" **The machine was busy with other programs (load {:.1}): a rehearsal.**", self.load)
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
            ("load_before", self.load.into()),
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
    fn the_load_is_that_of_the_last_minute() {
        assert_eq!(first_number("3.63 2.80 2.67 4/200 123\n"), 3.63);
    }
}
