//! The programs that are measured, and what they are told of the machine.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::cost::command_line;
use crate::checkout::Checkout;
use crate::error::Error;
use crate::setup::{Wanted, set_up};

/// Both programs, and the Python scripts that drive and read nnU-Net.
pub(crate) struct Programs {
    python: PathBuf,
    nnflow: PathBuf,
    scripts: PathBuf,
    /// Processors that both programs may use.
    pub(crate) workers: usize,
}

impl Programs {
    /// Finds the programs that were built, and nnU-Net beside a Python.
    pub(crate) fn new(checkout: &Checkout, python: PathBuf) -> Self {
        Self {
            python,
            nnflow: Checkout::programs().join("nnflow"),
            scripts: checkout.root().join("benches/nnunet"),
            workers: thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// `nnflow`, as it takes all processors by itself.
    pub(crate) fn nnflow(&self) -> Command {
        Command::new(&self.nnflow)
    }

    /// One of nnU-Net's programs.
    ///
    /// Its pools have as many processes as there are processors, and each of these one thread: more would take turns.
    pub(crate) fn nnunet(&self, name: &str) -> Command {
        let mut command = Command::new(self.python.with_file_name(name));
        command.env("OMP_NUM_THREADS", "1").env("nnUNet_def_n_proc", self.workers.to_string());
        command
    }

    /// A Python script of the benchmarks. It is one process, so its libraries may use all processors.
    pub(crate) fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        let workers = self.workers.to_string();
        command.arg(self.scripts.join(name)).env("OMP_NUM_THREADS", &workers).env("nnUNet_def_n_proc", &workers);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// One of the examples that time a part of nnflow.
    pub(crate) fn example(&self, name: &str) -> Command {
        Command::new(Checkout::programs().join("examples").join(name))
    }

    /// What nnU-Net's commands call the device that both programs use.
    pub(crate) fn device(&self) -> &'static str {
        if Path::new("/dev/nvidia0").exists() { "cuda" } else { "cpu" }
    }

    /// Python with a line of code.
    pub(crate) fn python(&self, code: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-c", code]);
        command
    }
}

/// Builds `nnflow`, which needs no libtorch, and where networks take part what needs it.
pub(crate) fn build(checkout: &Checkout, has_networks: bool) -> Result<(), Error> {
    if !has_networks {
        return cargo(checkout, &["build", "--release", "--package", "nnflow"]);
    }
    let machine = set_up(checkout, Wanted::Either)?;
    crate::programs::build(checkout, &machine)?;
    crate::programs::build_examples(checkout, &machine, &[("nnflow-kernels", "augment"), ("nnflow-net", "steps")])
}

/// Runs the benchmarks of the kernels.
pub(crate) fn kernels(checkout: &Checkout) -> Result<(), Error> {
    cargo(checkout, &["bench", "--package", "nnflow-bench"])
}

fn cargo(checkout: &Checkout, arguments: &[&str]) -> Result<(), Error> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    silent_or_told(Command::new(cargo).args(arguments).current_dir(checkout.root()), Output::Passed).map(drop)
}

/// What becomes of a program's standard output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Passed,
    Taken,
}

/// Runs a program that is not measured; gives what it prints.
///
/// # Errors
/// If it fails.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    silent_or_told(command, Output::Taken)
}

fn silent_or_told(command: &mut Command, output: Output) -> Result<String, Error> {
    let name = command_line(command);
    let start = |source| Error::Start { program: name.clone(), source };
    if output == Output::Passed {
        let status = command.status().map_err(start)?;
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        return if status.success() { Ok(String::new()) } else { Err(Error::Failed { command: name, code }) };
    }
    let done = command.output().map_err(start)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(Error::Bench { message: format!("`{name}` failed: {complaint}"), remedy: None })
}

/// A path as an argument of the form `NAME=PATH`.
pub(crate) fn named(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}
