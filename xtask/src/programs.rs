//! The programs that the chores start: cargo, and `nnflow` itself.

use std::env;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

use crate::checkout::Checkout;
use crate::error::Error;
use crate::setup::Machine;

/// The packages of the two programs that are delivered.
pub(crate) const PROGRAMS: [&str; 2] = ["nnflow", "nnflow-torch"];

/// Builds both programs.
pub(crate) fn build(checkout: &Checkout, machine: &Machine) -> Result<(), Error> {
    announce_first_build();
    let mut arguments = vec!["build", "--release"];
    arguments.extend(PROGRAMS.iter().flat_map(|program| ["--package", program]));
    cargo(checkout, machine, &arguments)
}

/// Builds examples, each of which is named after its package.
pub(crate) fn build_examples(checkout: &Checkout, machine: &Machine, examples: &[(&str, &str)]) -> Result<(), Error> {
    let build = |(package, example): &(&str, &str)| {
        cargo(checkout, machine, &["build", "--release", "--package", package, "--example", example])
    };
    examples.iter().try_for_each(build)
}

/// Builds everything, examples too, and runs every test with its documentation's.
///
/// All is built first, so that the tests of one program find the other even where `arguments` pick only some tests.
pub(crate) fn test(checkout: &Checkout, machine: &Machine, arguments: &[String]) -> Result<(), Error> {
    announce_first_build();
    cargo(checkout, machine, &["build", "--release", "--workspace", "--all-targets"])?;
    let mut all = vec!["test", "--release"];
    let names_package = |argument: &String| argument.starts_with("-p") || argument.starts_with("--package");
    if !arguments.iter().any(names_package) {
        all.push("--workspace");
    }
    all.extend(arguments.iter().map(String::as_str));
    cargo(checkout, machine, &all)
}

/// Compares nnflow with the golden vectors in a folder.
pub(crate) fn conformance(checkout: &Checkout, machine: &Machine, golden: Option<&Path>) -> Result<(), Error> {
    announce_first_build();
    let mut command = command(checkout, machine, &["run", "--release", "--package", "nnflow-conformance", "--"]);
    finish(command.args(golden))
}

/// Everything that is checked without running: the format, clippy's lints, and the documentation's links.
pub(crate) fn lint(checkout: &Checkout, machine: &Machine) -> Result<(), Error> {
    cargo(checkout, machine, &["fmt", "--all", "--check"])?;
    announce_first_build();
    cargo(checkout, machine, &["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    let mut command =
        command(checkout, machine, &["doc", "--release", "--workspace", "--no-deps", "--document-private-items"]);
    finish(command.env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Becomes `nnflow run`, so that signals and the exit code are its own. Returns only where that fails.
pub(crate) fn become_nnflow_run(arguments: &[String]) -> Error {
    let program = Checkout::programs().join("nnflow");
    let source = Command::new(&program).arg("run").args(arguments).exec();
    Error::Start { program: program.display().to_string(), source }
}

fn cargo(checkout: &Checkout, machine: &Machine, arguments: &[&str]) -> Result<(), Error> {
    finish(&mut command(checkout, machine, arguments))
}

/// A command of cargo, in the checkout and with the tools of the machine.
fn command(checkout: &Checkout, machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(checkout.root()).env("LIBTORCH", &machine.libtorch);
    if needs_naming(&machine.compiler) {
        command.env("CXX", &machine.compiler);
    }
    command
}

/// Runs a command of cargo to its end, which has to be a good one.
fn finish(command: &mut Command) -> Result<(), Error> {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    let line = format!("cargo {}", arguments.join(" "));
    eprintln!("{line}");
    let status = command.status().map_err(|source| Error::Start { program: "cargo".to_owned(), source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { command: line, code: exit_code(status) }) }
}

/// Build scripts find a compiler by themselves only where it is called `c++`.
fn needs_naming(compiler: &Path) -> bool {
    env::var_os("CXX").is_none() && compiler.file_name().is_some_and(|name| name != "c++")
}

/// The exit code as a shell would tell it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Says how long the build is going to take where the bindings of libtorch are not built yet.
fn announce_first_build() {
    let builds = Checkout::programs().join("build");
    let is_built = fs::read_dir(builds).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry.file_name().to_string_lossy().starts_with("torch-sys-") && entry.path().join("out/libtch.a").is_file()
        })
    });
    if !is_built {
        eprintln!("building torch-sys, the bindings of libtorch: about 5 minutes on two cores, the first time only");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_passed_on() {
        assert_eq!(exit_code(ExitStatus::from_raw(6 << 8)), 6);
    }

    #[test]
    fn a_signal_reads_as_a_shell_tells_it() {
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
