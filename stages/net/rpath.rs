// Shared by the build scripts of every package that makes programs with libtorch: `stages/net` (tests, examples) and
// `stages/torch` (the worker). Cargo passes the link arguments of a library's build script on to that package only, so
// each has to emit them for itself.

use std::path::Path;

/// Where an installed worker finds libtorch, relative to itself.
const INSTALLED: &str = "$ORIGIN/../lib/nnflow/torch/lib";

/// Lets the programs of this package find libtorch at run time, where they are built and where they are installed.
///
/// `libtorch_cuda.so` is not linked: it is opened at run time where it exists (`device.rs` of nnflow-net), so that the
/// same program runs with and without CUDA.
pub(crate) fn emit() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH") else {
        return fail("the variable LIBTORCH is not set");
    };
    let library = Path::new(&libtorch).join("lib");
    if !library.join("libtorch_cpu.so").exists() {
        return fail(&format!("there is no libtorch in {}", library.display()));
    }
    for path in [&*library.to_string_lossy(), INSTALLED] {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{path}");
    }
}

fn fail(problem: &str) {
    println!("cargo::error={problem}");
    println!("cargo::error=run: cargo xtask setup");
}
