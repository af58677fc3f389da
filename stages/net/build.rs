//! Lets the tests and examples of this package find libtorch.

mod rpath;

fn main() {
    rpath::emit();
}
