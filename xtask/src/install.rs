//! Puts both programs and libtorch where a user's shell finds them.
//!
//! `nnflow` looks for `nnflow-torch` beside itself, and `nnflow-torch` looks for libtorch in `../lib/nnflow/torch/lib`
//! seen from its own folder: what is installed does not need the checkout any more, and may be moved as a whole.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::checkout::Checkout;
use crate::error::Error;
use crate::programs::PROGRAMS;
use crate::setup::Machine;

/// Where cargo itself installs programs to.
///
/// # Errors
/// [`Error::NoHome`] if the environment names no such folder.
pub(crate) fn default_root() -> Result<PathBuf, Error> {
    let named = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("CARGO_INSTALL_ROOT")
        .or_else(|| named("CARGO_HOME"))
        .or_else(|| named("HOME").map(|home| home.join(".cargo")))
        .ok_or(Error::NoHome)
}

/// Installs both programs into `root/bin`, and the libtorch that the set-up fetched into `root/lib/nnflow`.
pub(crate) fn install(checkout: &Checkout, machine: &Machine, root: &Path) -> Result<(), Error> {
    let bin = root.join("bin");
    if machine.is_own {
        eprintln!("libtorch stays where LIBTORCH names it: `{}`", machine.libtorch.display());
    } else {
        install_libraries(&checkout.libtorch(), &root.join("lib/nnflow"))?;
    }
    make_folder(&bin)?;
    for program in PROGRAMS {
        place(&Checkout::programs().join(program), &bin.join(program), Copying::Bytes)?;
    }
    eprintln!("installed `nnflow` and `nnflow-torch` into `{}`", bin.display());
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|folder| folder == bin) {
        eprintln!("hint: add `{}` to PATH", bin.display());
    }
    Ok(())
}

/// Installs the libraries below a folder, keeping their places relative to each other.
fn install_libraries(from: &Path, to: &Path) -> Result<(), Error> {
    for library in libraries_below(from)? {
        let target = to.join(&library);
        make_folder(target.parent().unwrap_or(to))?;
        place(&from.join(&library), &target, Copying::LinkIfPossible)?;
    }
    Ok(())
}

/// Files in folders called `lib` or ending with `.libs`, by their path relative to `folder`.
fn libraries_below(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let current = folder.join(&relative);
        for entry in fs::read_dir(&current).map_err(Error::io("read", &current))? {
            let entry = entry.map_err(Error::io("read", &current))?;
            let path = relative.join(entry.file_name());
            if entry.path().is_dir() {
                open.push(path);
            } else if holds_libraries(&relative) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn holds_libraries(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name == "lib" || name.to_string_lossy().ends_with(".libs"))
}

/// How a file comes to its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copying {
    /// The bytes are copied: the next build writes over the original.
    Bytes,
    /// A second name for the same file will do, where the file system allows it: the set-up never writes over files.
    LinkIfPossible,
}

/// Puts a file beside its place and renames it, so that a program that is running keeps its old file.
fn place(from: &Path, to: &Path, copying: Copying) -> Result<(), Error> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    if beside.exists() {
        fs::remove_file(&beside).map_err(Error::io("remove", &beside))?;
    }
    let is_linked = copying == Copying::LinkIfPossible && fs::hard_link(from, &beside).is_ok();
    if !is_linked {
        fs::copy(from, &beside).map_err(Error::io("copy", from))?;
    }
    fs::rename(&beside, to).map_err(Error::io("write", to))?;
    // Renaming one of two names of the same file to the other does nothing at all, and leaves the first.
    if beside.exists() {
        fs::remove_file(&beside).map_err(Error::io("remove", &beside))?;
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io("make", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    #[test]
    fn libraries_keep_their_places_and_headers_stay_behind() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let libraries = ["nvidia/cu13/lib/libcudart.so.13", "torch/lib/libc10.so"];
        libraries.iter().for_each(|library| write(&from.join(library), library));
        write(&from.join("torch/include/ATen/ATen.h"), "");
        write(&from.join("stamp"), "");
        install_libraries(&from, &to).expect("the folder can be written");
        assert_eq!(libraries_below(&to).expect("the folder can be read"), libraries.map(PathBuf::from));
        assert!(!to.join("torch/include").exists() && !to.join("stamp").exists());
    }

    #[test]
    fn installing_twice_leaves_only_the_newer_file() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (from, to) = (folder.path().join("from"), folder.path().join("to/program"));
        write(&to, "old");
        write(&from, "new");
        for copying in [Copying::Bytes, Copying::LinkIfPossible, Copying::LinkIfPossible] {
            place(&from, &to, copying).expect("the folder can be written");
        }
        assert_eq!(fs::read_to_string(&to).ok().as_deref(), Some("new"));
        assert_eq!(fs::read_dir(folder.path().join("to")).expect("the folder can be read").count(), 1);
    }
}
