//! The program `nnflow`.

use std::process::ExitCode;

fn main() -> ExitCode {
    nnflow::cli::main()
}
