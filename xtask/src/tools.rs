//! The tools of the machine that the set-up and the build lean on.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, MissingTool};

/// Names under which C++ compilers go. The build scripts of cargo look for `c++` unless `CXX` names another.
const COMPILERS: [&str; 3] = ["c++", "g++", "clang++"];

/// The oldest Python that wheels of libtorch 2.11 are made for.
const OLDEST_PYTHON: (u32, u32) = (3, 10);

/// The C++ compiler: the one that `CXX` names, else the first of the usual names in `path`.
pub(crate) fn compiler(chosen: Option<&OsStr>, path: &OsStr) -> Result<PathBuf, Error> {
    let chosen = chosen.filter(|name| !name.is_empty());
    let compiler = match chosen {
        Some(name) => find(name, path),
        None => COMPILERS.iter().find_map(|name| find(OsStr::new(name), path)),
    };
    compiler.ok_or(Error::MissingTool(MissingTool::Compiler))
}

/// Checks that the compiler has the OpenMP run-time library that the bindings are linked with.
pub(crate) fn check_openmp(compiler: &Path) -> Result<(), Error> {
    let name = "libgomp.so";
    let told = output(Command::new(compiler).arg(format!("-print-file-name={name}")));
    // GCC and Clang print the bare name back when they have no such file.
    match told {
        Some(place) if place.trim() != name => Ok(()),
        _ => Err(Error::MissingTool(MissingTool::Openmp { compiler: compiler.display().to_string() })),
    }
}

/// A Python that has pip and is new enough.
pub(crate) fn python(path: &OsStr) -> Result<PathBuf, Error> {
    let python = find(OsStr::new("python3"), path).ok_or(Error::MissingTool(MissingTool::Python))?;
    let version = output(Command::new(&python).arg("--version")).ok_or(Error::MissingTool(MissingTool::Python))?;
    if python_version(&version).is_none_or(|version| version < OLDEST_PYTHON) {
        let found = version.trim().trim_start_matches("Python ").to_owned();
        return Err(Error::MissingTool(MissingTool::OldPython { found }));
    }
    output(Command::new(&python).args(["-m", "pip", "--version"])).ok_or(Error::MissingTool(MissingTool::Pip))?;
    Ok(python)
}

/// The search path of programs.
pub(crate) fn search_path() -> std::ffi::OsString {
    env::var_os("PATH").unwrap_or_default()
}

/// Major and minor version in what `python3 --version` prints.
fn python_version(printed: &str) -> Option<(u32, u32)> {
    let mut numbers = printed.trim().strip_prefix("Python ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A program by its name in `path`, or by its path where the name is one.
fn find(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let name = Path::new(name);
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_path_buf());
    }
    env::split_paths(path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// What a program prints, or `None` where it cannot be run or fails.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A folder of scripts that stand for tools.
    struct Tools {
        folder: TempDir,
    }

    impl Tools {
        fn new(scripts: &[(&str, &str)]) -> Self {
            let tools = Self { folder: tempfile::tempdir().expect("a temporary folder can be made") };
            for (name, script) in scripts {
                tools.write(name, script);
            }
            tools
        }

        /// Has another process write the script: one that this process had open for writing could not be run while
        /// a process that another thread is starting still holds a copy of the open file.
        fn write(&self, name: &str, script: &str) {
            let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"";
            let status = Command::new("sh").args(["-c", write, "sh"]).arg(self.file(name)).arg(script).status();
            assert!(status.expect("the tests need a shell").success());
        }

        fn path(&self) -> &OsStr {
            self.folder.path().as_os_str()
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }
    }

    fn missing<T: std::fmt::Debug>(result: Result<T, Error>) -> MissingTool {
        match result {
            Err(Error::MissingTool(tool)) => tool,
            other => panic!("expected a missing tool, found {other:?}"),
        }
    }

    #[test]
    fn a_machine_without_a_compiler_is_told_so() {
        let tools = Tools::new(&[]);
        assert_eq!(missing(compiler(None, tools.path())), MissingTool::Compiler);
    }

    #[test]
    fn clang_alone_is_enough_of_a_compiler() {
        let tools = Tools::new(&[("clang++", "")]);
        assert_eq!(compiler(None, tools.path()).ok(), Some(tools.file("clang++")));
    }

    #[test]
    fn the_compiler_that_cxx_names_wins() {
        let tools = Tools::new(&[("c++", ""), ("my-compiler", "")]);
        assert_eq!(compiler(Some(OsStr::new("my-compiler")), tools.path()).ok(), Some(tools.file("my-compiler")));
    }

    #[test]
    fn a_compiler_without_openmp_is_told_so() {
        let tools = Tools::new(&[("c++", "echo libgomp.so")]);
        let compiler = tools.file("c++");
        let told = MissingTool::Openmp { compiler: compiler.display().to_string() };
        assert_eq!(missing(check_openmp(&compiler)), told);
    }

    #[test]
    fn a_compiler_with_openmp_passes() {
        let tools = Tools::new(&[("c++", "echo /usr/lib/gcc/libgomp.so")]);
        assert!(check_openmp(&tools.file("c++")).is_ok());
    }

    #[test]
    fn a_machine_without_python_is_told_so() {
        let tools = Tools::new(&[]);
        assert_eq!(missing(python(tools.path())), MissingTool::Python);
    }

    #[test]
    fn a_python_without_pip_is_told_so() {
        let tools = Tools::new(&[("python3", "[ $# = 1 ] && echo Python 3.11.2")]);
        assert_eq!(missing(python(tools.path())), MissingTool::Pip);
    }

    #[test]
    fn an_old_python_is_told_so() {
        let tools = Tools::new(&[("python3", "echo Python 3.9.18")]);
        assert_eq!(missing(python(tools.path())), MissingTool::OldPython { found: "3.9.18".to_owned() });
    }

    #[test]
    fn python_3_10_is_newer_than_3_9() {
        assert_eq!(python_version("Python 3.10.0rc1\n"), Some((3, 10)));
        let tools = Tools::new(&[("python3", "echo Python 3.10.0rc1")]);
        assert!(python(tools.path()).is_ok());
    }
}
