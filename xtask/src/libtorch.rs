//! What a libtorch is, and whether one is the right one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The version that the bindings (`tch` 0.24) are made for; its C++ interface changes with every minor version.
pub(crate) const VERSION: &str = "2.11.0";

/// Files whose absence shows that a folder is no libtorch to build with.
const ESSENTIAL: [&str; 4] =
    ["include/ATen/ATen.h", "include/torch/csrc/api/include/torch/torch.h", "lib/libc10.so", "lib/libtorch_cpu.so"];

/// What a libtorch can compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Processors only.
    Cpu,
    /// NVIDIA GPUs as well.
    Cuda,
}

impl Flavour {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Cpu, Self::Cuda].into_iter().find(|flavour| flavour.name() == name)
    }
}

/// The line that the set-up writes last: what lies beside it is whole, and this is what it is.
///
/// Its first word is the version of the selection of files; changing the selection means raising it.
pub(crate) fn stamp(flavour: Flavour) -> String {
    format!("1 {VERSION} {}\n", flavour.name())
}

/// Reads a stamp; `None` unless it is one that [`stamp`] would write now.
pub(crate) fn flavour_of_stamp(text: &str) -> Option<Flavour> {
    let flavour = Flavour::from_name(text.split_whitespace().last()?)?;
    (stamp(flavour) == text).then_some(flavour)
}

/// Checks a libtorch that the user brought.
pub(crate) fn check_own(folder: &Path) -> Result<(), Error> {
    let found = version_in(folder);
    if found.as_deref() != Some(VERSION) {
        return Err(Error::WrongLibtorch { folder: folder.to_path_buf(), found });
    }
    match first_missing(folder) {
        Some(missing) => Err(Error::IncompleteLibtorch { folder: folder.to_path_buf(), missing }),
        None => Ok(()),
    }
}

/// The first file that a libtorch cannot do without and that this one lacks.
pub(crate) fn first_missing(folder: &Path) -> Option<&'static str> {
    ESSENTIAL.into_iter().find(|file| !folder.join(file).is_file())
}

/// The version of the libtorch in a folder, without what follows `+`.
///
/// The archives of the PyTorch project carry `build-version`, the wheels `version.py`.
fn version_in(folder: &Path) -> Option<String> {
    let read = |name: &str| fs::read_to_string(PathBuf::from(folder).join(name)).ok();
    let version = read("build-version").or_else(|| version_of_python(&read("version.py")?))?;
    let release = version.trim().split('+').next()?;
    (!release.is_empty()).then(|| release.to_owned())
}

/// The value of `__version__` in the text of a Python module.
fn version_of_python(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("__version__")?.trim_start().strip_prefix('='))?;
    let value = value.trim();
    let quote = value.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    value.strip_prefix(quote)?.strip_suffix(quote).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A folder with files of these names and texts.
    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
        folder
    }

    #[test]
    fn the_version_of_a_wheel_is_read_without_its_build() {
        let text = "from typing import Optional\n\n__version__ = '2.11.0+cu130'\ndebug = False\n";
        assert_eq!(version_of_python(text).as_deref(), Some("2.11.0+cu130"));
        let folder = folder(&[("version.py", text)]);
        assert_eq!(version_in(folder.path()).as_deref(), Some("2.11.0"));
    }

    #[test]
    fn the_version_of_an_archive_is_read() {
        let folder = folder(&[("build-version", "2.10.0+cpu\n")]);
        assert_eq!(version_in(folder.path()).as_deref(), Some("2.10.0"));
    }

    #[test]
    fn another_version_is_refused_with_both_numbers() {
        let folder = folder(&[("build-version", "2.10.0+cpu\n")]);
        let message = check_own(folder.path()).expect_err("2.10.0 is not what the bindings are made for").to_string();
        assert!(message.contains("libtorch 2.10.0") && message.contains("needs 2.11.0"), "{message}");
    }

    #[test]
    fn a_folder_without_a_version_is_refused() {
        let folder = folder(&[]);
        assert!(matches!(check_own(folder.path()), Err(Error::WrongLibtorch { found: None, .. })));
    }

    #[test]
    fn a_libtorch_without_headers_is_incomplete() {
        let folder = folder(&[("build-version", "2.11.0"), ("lib/libc10.so", ""), ("lib/libtorch_cpu.so", "")]);
        assert!(matches!(
            check_own(folder.path()),
            Err(Error::IncompleteLibtorch { missing: "include/ATen/ATen.h", .. })
        ));
    }

    #[test]
    fn a_whole_libtorch_of_the_right_version_is_taken() {
        let mut files = vec![("version.py", "__version__ = \"2.11.0\"\n")];
        files.extend(ESSENTIAL.map(|file| (file, "")));
        let folder = folder(&files);
        assert!(check_own(folder.path()).is_ok());
    }

    #[test]
    fn a_stamp_tells_its_flavour() {
        assert_eq!(flavour_of_stamp("1 2.11.0 cuda\n"), Some(Flavour::Cuda));
    }

    #[test]
    fn a_stamp_of_another_version_or_cut_short_counts_as_none() {
        for text in ["1 2.10.0 cpu\n", "0 2.11.0 cpu\n", "1 2.11.0 cpu", "1 2.11.0", ""] {
            assert_eq!(flavour_of_stamp(text), None, "{text:?}");
        }
    }
}
