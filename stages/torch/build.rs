//! Lets the worker find libtorch.

#[path = "../net/rpath.rs"]
mod rpath;

fn main() {
    rpath::emit();
}
