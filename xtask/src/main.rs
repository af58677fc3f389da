//! The chores of nnflow: `cargo xtask help` lists them.
//!
//! Everything that a fresh machine needs happens here, so that no page of the documentation has to explain it:
//! `cargo xtask run FILE` fetches libtorch, builds both programs and runs a workflow. The crate depends on nothing
//! but the standard library, because it is built before anything else is known to be in order.

mod bench;
mod checkout;
mod error;
mod install;
mod libtorch;
mod programs;
mod setup;
mod tools;
mod wheel;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::checkout::Checkout;
use crate::error::Error;
use crate::setup::{Machine, Wanted, set_up};

const HELP: &str = "\
chores of nnflow

usage: cargo xtask TASK [ARGS]

  run FILE [ARGS]             set up, build, and run the workflow FILE (ARGS go to `nnflow run`)
  test [ARGS]                 set up, build everything, and run every test (ARGS go to `cargo test`)
  conformance [DIR]           set up, and compare nnflow with what nnU-Net computed: with the golden vectors in DIR
                              (tests/golden unless given)
  build                       set up, and build `nnflow` and `nnflow-torch`
  install [--root DIR]        set up, build, and put both programs into DIR/bin, libtorch into DIR/lib/nnflow
                              (DIR is cargo's own folder unless given)
  setup [--cpu | --cuda]      fetch libtorch into .libtorch (CUDA where the machine has an NVIDIA driver, unless said)
  ci                          what a change has to pass: format, lints, documentation, tests
  bench [ARGS]                measure nnflow against the real nnU-Net, which is set up in .nnunet, side by side
                              (--data DIR, --pairs N, --only NAME, --nnunet PYTHON; docs/benchmarks.md says more)
  bench --kernels             measure the kernels against what the machine can do
  help                        this text

A libtorch of your own is used where the variable LIBTORCH names its folder.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match perform(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn report(error: &Error) {
    eprintln!("error: {error}");
    if let Some(remedy) = error.remedy() {
        eprintln!("hint: {remedy}");
    }
}

fn perform(arguments: &[String]) -> Result<(), Error> {
    let Some((task, rest)) = arguments.split_first() else {
        return Err(Error::Usage("no task was named".to_owned()));
    };
    let checkout = Checkout::find();
    match task.as_str() {
        "setup" => set_up(&checkout, wanted(rest)?).map(drop),
        "build" => {
            nothing_more(rest)?;
            build(&checkout).map(drop)
        }
        "run" => {
            if rest.is_empty() {
                return Err(Error::Usage("`run` needs the path of a workflow".to_owned()));
            }
            build(&checkout)?;
            Err(programs::become_nnflow_run(rest))
        }
        "test" => test(&checkout, rest),
        "conformance" => {
            let golden = golden_folder(rest)?;
            programs::conformance(&checkout, &set_up(&checkout, Wanted::Either)?, golden.as_deref())
        }
        "install" => {
            let root = install_root(rest)?;
            let machine = build(&checkout)?;
            install::install(&checkout, &machine, &root)
        }
        "ci" => {
            nothing_more(rest)?;
            programs::lint(&checkout, &set_up(&checkout, Wanted::Either)?)?;
            test(&checkout, &[])
        }
        "bench" => bench::bench(&checkout, rest),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(Error::Usage(format!("there is no task `{other}`"))),
    }
}

fn build(checkout: &Checkout) -> Result<Machine, Error> {
    let machine = set_up(checkout, Wanted::Either)?;
    programs::build(checkout, &machine)?;
    Ok(machine)
}

fn test(checkout: &Checkout, arguments: &[String]) -> Result<(), Error> {
    programs::test(checkout, &set_up(checkout, Wanted::Either)?, arguments)
}

fn wanted(arguments: &[String]) -> Result<Wanted, Error> {
    match arguments {
        [] => Ok(Wanted::Either),
        [flag] if flag == "--cpu" => Ok(Wanted::Cpu),
        [flag] if flag == "--cuda" => Ok(Wanted::Cuda),
        _ => Err(Error::Usage(format!("`setup` knows `--cpu` or `--cuda`, not `{}`", arguments.join(" ")))),
    }
}

fn install_root(arguments: &[String]) -> Result<PathBuf, Error> {
    match arguments {
        [] => install::default_root(),
        [flag, folder] if flag == "--root" => Ok(PathBuf::from(folder)),
        _ => Err(Error::Usage(format!("`install` knows `--root DIR`, not `{}`", arguments.join(" ")))),
    }
}

/// The folder of golden vectors, if one is named; a relative one is seen from where the user is.
fn golden_folder(arguments: &[String]) -> Result<Option<PathBuf>, Error> {
    match arguments {
        [] => Ok(None),
        [folder] if !folder.starts_with('-') => {
            Ok(Some(std::path::absolute(folder).map_err(Error::io("find", folder.as_str()))?))
        }
        _ => Err(Error::Usage(format!("`conformance` takes one folder at most, not `{}`", arguments.join(" ")))),
    }
}

fn nothing_more(arguments: &[String]) -> Result<(), Error> {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => Err(Error::Usage(format!("this task takes no argument, but got `{argument}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_unknown_task_is_a_mistake_of_usage() {
        assert!(matches!(perform(&words("tset")), Err(Error::Usage(what)) if what.contains("`tset`")));
    }

    #[test]
    fn setup_refuses_both_flavours_at_once() {
        assert!(matches!(wanted(&words("--cpu --cuda")), Err(Error::Usage(_))));
    }

    #[test]
    fn install_takes_a_root() {
        assert_eq!(install_root(&words("--root there")).ok(), Some(PathBuf::from("there")));
    }

    #[test]
    fn conformance_takes_one_folder_and_sees_it_from_where_the_user_is() {
        let folder = golden_folder(&words("vectors")).ok().flatten();
        assert!(folder.is_some_and(|folder| folder.is_absolute() && folder.ends_with("vectors")));
        assert!(matches!(golden_folder(&words("one another")), Err(Error::Usage(_))));
        assert!(matches!(golden_folder(&words("--all")), Err(Error::Usage(_))));
    }

    #[test]
    fn every_task_stands_in_the_help() {
        for task in ["run", "test", "conformance", "build", "install", "setup", "ci", "bench", "help"] {
            assert!(HELP.contains(&format!("\n  {task} ")), "{task}");
        }
    }
}
