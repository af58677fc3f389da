//! Where things lie in a checkout.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the checkout that is worked on.
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout that this program was started from by cargo, else the one that it was built from.
    pub(crate) fn find() -> Self {
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package).parent().map(Path::to_path_buf);
        Self { root: root.unwrap_or_default() }
    }

    /// The checkout in a folder.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the set-up puts `torch` and `nvidia`: side by side, because libtorch looks for CUDA in `../../nvidia`.
    pub(crate) fn libtorch(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    /// The folder into which cargo builds programs: this one was built there, and so are all others.
    pub(crate) fn programs() -> PathBuf {
        let beside = env::current_exe().ok().and_then(|program| program.parent().map(Path::to_path_buf));
        beside.unwrap_or_default()
    }
}
