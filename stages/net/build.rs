//! Builds the shim, and lets the tests and examples of this package find libtorch.

mod rpath;

const SHIM: &str = "shim/shim.cpp";

fn main() {
    rpath::emit();
    println!("cargo::rerun-if-changed={SHIM}");
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(std::path::PathBuf::from) else { return };
    let include = libtorch.join("include");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file(SHIM).include(include.join("torch/csrc/api/include")).include(include);
    // The warnings are those of libtorch's headers.
    build.warnings(false).compile("nnflow_shim");
}
