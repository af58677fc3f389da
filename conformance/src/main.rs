//! `nnflow-conformance [DIR]`: compares nnflow with the golden vectors in a folder.
//!
//! Without DIR it takes the folder that `NNFLOW_GOLDEN` names, else `tests/golden` of the checkout. Real datasets, which
//! some vectors are about, are looked for in the folder that `NNFLOW_DATA` names. The exit code is 0 if every vector is met.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use nnflow_conformance::{Surroundings, compare, golden_folder};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (golden, more) = (arguments.next().map(PathBuf::from), arguments.next());
    if more.is_some() {
        return say("error: one folder at most", ExitCode::from(2));
    }
    let golden = golden.unwrap_or_else(golden_folder);
    match compare(&golden, &Surroundings::found()) {
        Ok(report) => say(&report.to_string(), if report.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Err(problem) => say(&format!("error: {problem}"), ExitCode::from(2)),
    }
}

/// Prints a text. Whoever closed the output early does not want the rest of it.
fn say(text: &str, code: ExitCode) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
