//! The worker of nnflow: runs the stages that need libtorch.
//!
//! The engine starts it as `nnflow-torch worker` and talks to it in JSON lines over its standard input and output. It is a
//! program of its own so that `nnflow` never loads libtorch, and so that a fault of a device ends a worker and not a run.

mod predict;
mod ranks;
mod serve;
mod train;

use std::process::ExitCode;

/// What the program prints when it is not started by the engine.
const USAGE: &str = "\
nnflow-torch is the worker of nnflow: `nnflow run` starts it for stages that train or predict.

usage: nnflow-torch worker     take tasks from standard input, as JSON lines
       nnflow-torch version    print the version and the device that `auto` stands for
";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("worker") => serve::serve(),
        // Started by a worker for a training on several devices; nobody else has a use for it.
        Some("rank") => ranks::serve(),
        Some("version") => {
            serve::say(&format!("nnflow-torch {} ({})", env!("CARGO_PKG_VERSION"), serve::device_in_words()));
            ExitCode::SUCCESS
        }
        _ => {
            serve::say(USAGE.trim_end());
            ExitCode::from(2)
        }
    }
}
