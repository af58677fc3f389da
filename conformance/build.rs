//! Lets the program and its test find libtorch.

#[path = "../stages/net/rpath.rs"]
mod rpath;

fn main() {
    rpath::emit();
}
