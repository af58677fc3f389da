//! `cargo xtask bench`: nnflow against the real nnU-Net on the same data, and the kernels against what the machine can do.
//!
//! Whole programs are timed, as a user types them, start-up included. The two take turns step by step, so that whatever
//! else the machine does meets both. Every result of nnflow is held against nnU-Net's: a fast wrong answer is no figure.

mod comparison;
mod cost;
mod environment;
mod json;
mod machine;
mod network_rows;
mod options;
mod process_tree;
mod programs;
mod report;
mod rows;
mod runner;
mod statistics;
mod subject;
mod suite;

use std::fs::{self, File};
use std::path::PathBuf;

use self::environment::Environment;
use self::machine::Machine;
use self::options::Options;
use self::programs::Programs;
use self::report::Report;
use self::runner::Runner;
use self::suite::{DATA, NETWORK};
use crate::checkout::Checkout;
use crate::error::Error;

/// Runs the benchmarks that the arguments ask for, and writes their table where all of them ran.
pub(crate) fn bench(checkout: &Checkout, arguments: &[String]) -> Result<(), Error> {
    let options = Options::parse(arguments)?;
    if options.kernels {
        return programs::kernels(checkout);
    }
    let suite = if options.networks { &NETWORK } else { &DATA };
    programs::build(checkout, suite.has_networks)?;
    let environment = Environment::find(checkout, options.nnunet.as_deref())?;
    let (scratch, _alone) = scratch(checkout)?;
    let programs = Programs::new(checkout, environment.python);
    let machine = Machine::describe(checkout, &programs)?;
    machine.warn_if_busy();
    let datasets = subject::datasets(checkout, options.data.as_deref(), &programs, &scratch)?;
    let runner = Runner::new(&programs, &options, scratch);
    let measured = runner.all(suite.groups, &datasets)?;
    Report { suite, machine: &machine, pairs: options.pairs, measured: &measured }
        .publish(checkout, options.only.is_empty())
}

/// The folder that everything is made in, empty: on the disk of the checkout, as a user's store would be. The file beside it
/// is locked for as long as it is open, because two benchmarks at a time would measure each other.
fn scratch(checkout: &Checkout) -> Result<(PathBuf, File), Error> {
    let scratch = checkout.root().join("target/bench");
    let lock = scratch.with_extension("lock");
    let file = File::create(&lock).map_err(Error::io("write", &lock))?;
    if file.try_lock().is_err() {
        let message = "another `cargo xtask bench` is running".to_owned();
        return Err(Error::Bench { message, remedy: Some("wait for its end".to_owned()) });
    }
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))?;
    }
    fs::create_dir_all(&scratch).map_err(Error::io("make", &scratch))?;
    Ok((scratch, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_benchmarks_do_not_run_at_a_time() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::create_dir(folder.path().join("target")).expect("a folder can be made");
        let checkout = Checkout::at(folder.path());
        let first = scratch(&checkout).expect("nobody else is there");
        assert!(matches!(scratch(&checkout), Err(Error::Bench { .. })));
        drop(first);
        assert!(scratch(&checkout).is_ok());
    }
}
