//! What can go wrong in a chore: one sentence, and its remedy beside it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::libtorch::VERSION;

/// Why a chore stopped.
#[derive(Debug)]
pub(crate) enum Error {
    /// The command line makes no sense.
    Usage(String),
    /// A tool that the set-up cannot do without is missing.
    MissingTool(MissingTool),
    /// The set-up fetches wheels for Linux only.
    OtherSystem,
    /// The folder that `LIBTORCH` names holds another version, or none that can be read.
    WrongLibtorch { folder: PathBuf, found: Option<String> },
    /// A libtorch lacks a file that the build needs.
    IncompleteLibtorch { folder: PathBuf, missing: &'static str },
    /// pip could not fetch a package.
    Fetch { requirement: String },
    /// A wheel could not be read or unpacked.
    Wheel { wheel: PathBuf, message: String },
    /// The file system refused.
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// A program could not be started.
    Start { program: String, source: io::Error },
    /// A program that this one started failed, and has said why itself.
    Failed { command: String, code: u8 },
    /// No home folder to install to.
    NoHome,
    /// A benchmark could not be run, or compared unequal things.
    Bench { message: String, remedy: Option<String> },
}

/// A tool that the set-up cannot do without.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MissingTool {
    /// No C++ compiler.
    Compiler,
    /// The C++ compiler has no OpenMP run-time library to link with.
    Openmp { compiler: String },
    /// No Python.
    Python,
    /// A Python that no wheel of libtorch is made for.
    OldPython { found: String },
    /// Python without pip.
    Pip,
}

impl Error {
    /// What the user can do about it.
    pub(crate) fn remedy(&self) -> Option<String> {
        let remedy = match self {
            Self::Usage(_) => "`cargo xtask help` lists the tasks".to_owned(),
            Self::MissingTool(tool) => tool.remedy().to_owned(),
            Self::OtherSystem => format!("unpack libtorch {VERSION} yourself and name its folder in LIBTORCH"),
            Self::WrongLibtorch { .. } | Self::IncompleteLibtorch { .. } => {
                format!("unset LIBTORCH to have libtorch {VERSION} fetched, or point it to that version")
            }
            Self::Fetch { .. } => format!(
                "pip's own message stands above; without a network, name the folder of a libtorch {VERSION} in LIBTORCH"
            ),
            Self::Wheel { .. } => "run the same command again, which fetches it anew".to_owned(),
            Self::NoHome => "name a folder: `cargo xtask install --root DIR`".to_owned(),
            Self::Bench { remedy, .. } => return remedy.clone(),
            Self::Io { .. } | Self::Start { .. } | Self::Failed { .. } => return None,
        };
        Some(remedy)
    }

    /// The exit code of the chore: that of the program that failed, where there is one.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed { code, .. } => *code,
            _ => 1,
        }
    }

    /// Turns a failure of the file system into an error that names the file.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

impl MissingTool {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Compiler => "install one (Debian, Ubuntu: `apt-get install g++`), or name yours in CXX",
            Self::Openmp { .. } => "install it (it comes with `apt-get install g++` on Debian and Ubuntu)",
            Self::Python => "install it (Debian, Ubuntu: `apt-get install python3 python3-pip`)",
            Self::OldPython { .. } => "install Python 3.10 or newer, or activate an environment that has it",
            Self::Pip => "install it (Debian, Ubuntu: `apt-get install python3-pip`)",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::Bench { message: what, .. } => formatter.write_str(what),
            Self::MissingTool(tool) => tool.fmt(formatter),
            Self::OtherSystem => formatter.write_str("libtorch can be fetched on Linux only"),
            Self::WrongLibtorch { folder, found: Some(found) } => {
                write!(
                    formatter,
                    "LIBTORCH names libtorch {found} (`{}`), but nnflow needs {VERSION}",
                    folder.display()
                )
            }
            Self::WrongLibtorch { folder, found: None } => write!(
                formatter,
                "LIBTORCH names `{}`, where neither `build-version` nor `version.py` tells a libtorch's version",
                folder.display()
            ),
            Self::IncompleteLibtorch { folder, missing } => {
                write!(formatter, "the libtorch in `{}` has no `{missing}`", folder.display())
            }
            Self::Fetch { requirement } => write!(formatter, "pip could not fetch `{requirement}`"),
            Self::Wheel { wheel, message } => write!(formatter, "cannot read `{}`: {message}", wheel.display()),
            Self::Io { doing, path, source } => write!(formatter, "cannot {doing} `{}`: {source}", path.display()),
            Self::Start { program, source } => write!(formatter, "cannot start `{program}`: {source}"),
            Self::Failed { command, code } => write!(formatter, "`{command}` failed with exit code {code}"),
            Self::NoHome => {
                formatter.write_str("neither CARGO_INSTALL_ROOT, CARGO_HOME nor HOME says where to install")
            }
        }
    }
}

impl fmt::Display for MissingTool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler => formatter.write_str("there is no C++ compiler, which the bindings of libtorch need"),
            Self::Openmp { compiler } => {
                write!(formatter, "`{compiler}` finds no `libgomp`, which the bindings of libtorch are linked with")
            }
            Self::Python => formatter.write_str("there is no `python3`, whose pip fetches libtorch"),
            Self::OldPython { found } => {
                write!(formatter, "python3 is {found}, but libtorch {VERSION} comes for Python 3.10 and newer")
            }
            Self::Pip => formatter.write_str("python3 has no pip, which fetches libtorch"),
        }
    }
}
