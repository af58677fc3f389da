//! Fetching wheels with pip, and taking out of them what nnflow needs.
//!
//! pip is asked instead of a server, so that a user's mirror, proxy and certificates count. Of the wheel of PyTorch
//! most is of no use here: without CUDA a quarter of it is enough.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::Error;
use crate::libtorch::Flavour;

/// The reader of wheels: every Python has one, and pip needs Python anyway.
const SCRIPT: &str = include_str!("wheel.py");

/// Libraries of PyTorch that serve Python only.
const FOR_PYTHON: [&str; 3] = ["libtorch_python", "libtorch_global_deps", "libshm"];

/// Libraries of PyTorch that serve CUDA only.
const FOR_CUDA: [&str; 4] = ["libtorch_cuda", "libtorch_nvshmem", "libc10_cuda", "libcaffe2_nvrtc"];

/// Libraries of CUDA that even `libtorch_cpu.so` is linked with.
const CUDA_FOR_CPU: [&str; 2] = ["libcudart.so", "libcupti.so"];

/// Downloads with a Python's pip.
pub(crate) struct Pip<'a> {
    pub(crate) python: &'a Path,
}

impl Pip<'_> {
    /// Fetches a package, and what it depends on if asked, into a folder; gives the wheels.
    pub(crate) fn download(
        &self,
        requirements: &[String],
        with_dependencies: bool,
        folder: &Path,
    ) -> Result<Vec<PathBuf>, Error> {
        let mut command = Command::new(self.python);
        command.args(["-m", "pip", "download", "--disable-pip-version-check", "--only-binary=:all:", "--dest"]);
        command.arg(folder).args(requirements).stdout(io::stderr());
        if !with_dependencies {
            command.arg("--no-deps");
        }
        if !io::stderr().is_terminal() {
            command.arg("--quiet");
        }
        let status =
            command.status().map_err(|source| Error::Start { program: self.python.display().to_string(), source })?;
        if !status.success() {
            return Err(Error::Fetch { requirement: requirements.join(" ") });
        }
        wheels_in(folder)
    }

    /// The names of a wheel's members.
    pub(crate) fn members(&self, wheel: &Path) -> Result<Vec<String>, Error> {
        Ok(self.script("list", wheel, &[], "")?.lines().map(str::to_owned).collect())
    }

    /// The text of a wheel's `METADATA`.
    pub(crate) fn metadata(&self, wheel: &Path) -> Result<String, Error> {
        let members = self.members(wheel)?;
        let metadata = members.iter().find(|member| member.ends_with(".dist-info/METADATA"));
        let metadata = metadata.ok_or_else(|| Error::Wheel {
            wheel: wheel.to_path_buf(),
            message: "it has no METADATA, which every wheel has".to_owned(),
        })?;
        self.script("read", wheel, &[Path::new(metadata)], "")
    }

    /// Unpacks some members of a wheel.
    pub(crate) fn unpack(&self, wheel: &Path, members: &[&str], folder: &Path) -> Result<(), Error> {
        self.script("extract", wheel, &[folder], &members.join("\n")).map(drop)
    }

    fn script(&self, task: &str, wheel: &Path, rest: &[&Path], input: &str) -> Result<String, Error> {
        let mut command = Command::new(self.python);
        command.args(["-c", SCRIPT, task]).arg(wheel).args(rest);
        let output = converse(command, input)
            .map_err(|source| Error::Start { program: self.python.display().to_string(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let message = complaint.lines().last().unwrap_or("python3 was stopped").to_owned();
        Err(Error::Wheel { wheel: wheel.to_path_buf(), message })
    }
}

/// Runs a program with a text as its standard input.
fn converse(mut command: Command, input: &str) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut pipe = child.stdin.take().expect("invariant: standard input is a pipe");
    match pipe.write_all(input.as_bytes()) {
        // A program that ends before it has read everything says why itself.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => drop(pipe),
    }
    child.wait_with_output()
}

fn wheels_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            wheels.push(path);
        }
    }
    wheels.sort();
    Ok(wheels)
}

/// Whether nnflow needs a member of PyTorch's own wheel.
///
/// Libraries are taken unless they are known to serve something else: wheels for other processors bring libraries of
/// their own.
pub(crate) fn is_needed_of_torch(member: &str, flavour: Flavour) -> bool {
    if member.ends_with('/') {
        return false;
    }
    if let Some(library) = member.strip_prefix("torch/lib/") {
        let serves = |prefixes: &[&str]| prefixes.iter().any(|prefix| library.starts_with(prefix));
        let is_wanted = !serves(&FOR_PYTHON) && (flavour == Flavour::Cuda || !serves(&FOR_CUDA));
        return is_library(library) && is_wanted;
    }
    member == "torch/version.py" || ["torch/include/", "torch.libs/"].iter().any(|folder| member.starts_with(folder))
}

/// Whether nnflow needs a member of one of NVIDIA's wheels.
pub(crate) fn is_needed_of_nvidia(member: &str, flavour: Flavour) -> bool {
    let Some((folder, library)) = member.rsplit_once('/') else { return false };
    let is_needed = flavour == Flavour::Cuda || CUDA_FOR_CPU.iter().any(|prefix| library.starts_with(prefix));
    folder.starts_with("nvidia/") && folder.ends_with("/lib") && is_library(library) && is_needed
}

fn is_library(name: &str) -> bool {
    !name.contains('/') && (name.ends_with(".so") || name.contains(".so."))
}

/// The requirements on NVIDIA's wheels in the `METADATA` of PyTorch's wheel, as pip takes them.
///
/// The collection `cuda-toolkit` has a part for every library, of which a CPU needs two.
pub(crate) fn nvidia_requirements(metadata: &str, flavour: Flavour) -> Vec<String> {
    let requirements = metadata
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("Requires-Dist:"))
        .map(str::trim);
    requirements.filter_map(|requirement| nvidia_requirement(requirement, flavour)).collect()
}

fn nvidia_requirement(requirement: &str, flavour: Flavour) -> Option<String> {
    if requirement.contains("extra ==") {
        return None;
    }
    let name_ends = |letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'));
    let (name, rest) = requirement.split_at(requirement.find(name_ends).unwrap_or(requirement.len()));
    match (name, flavour) {
        ("cuda-toolkit", Flavour::Cpu) => {
            let without_parts = rest.split_once(']').map_or(rest, |(_, rest)| rest);
            Some(format!("{name}[cudart,cupti]{without_parts}"))
        }
        ("cuda-toolkit", Flavour::Cuda) => Some(requirement.to_owned()),
        (name, Flavour::Cuda) if name.starts_with("nvidia-") => Some(requirement.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that matter of the wheel torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.
    const METADATA: &str = "\
Metadata-Version: 2.4
Name: torch
Version: 2.11.0
Requires-Dist: typing-extensions>=4.10.0
Requires-Dist: cuda-toolkit[cublas,cudart,cufft,cufile,cupti]==13.0.2; platform_system == \"Linux\"
Requires-Dist: cuda-bindings<14,>=13.0.3; platform_system == \"Linux\"
Requires-Dist: nvidia-cudnn-cu13==9.19.0.56; platform_system == \"Linux\"
Requires-Dist: nvidia-nccl-cu13==2.28.9; platform_system == \"Linux\"
Requires-Dist: triton==3.6.0; platform_system == \"Linux\"
Requires-Dist: nvidia-extra==1; extra == \"all\"

Requires-Dist: nvidia-of-the-description==1
";

    /// Members of the wheels of PyTorch and of NVIDIA, each with who needs it.
    const TORCH: [(&str, bool, bool); 11] = [
        ("torch/include/ATen/ATen.h", true, true),
        ("torch/version.py", true, true),
        ("torch/lib/libtorch_cpu.so", true, true),
        ("torch/lib/libgomp.so.1", true, true),
        ("torch/lib/libtorch_cuda.so", false, true),
        ("torch/lib/libtorch_cuda_linalg.so", false, true),
        ("torch/lib/libtorch_python.so", false, false),
        ("torch/lib/libshm/err.h", false, false),
        ("torch/lib/", false, false),
        ("torch/nn/functional.py", false, false),
        ("torch-2.11.0.dist-info/METADATA", false, false),
    ];
    const NVIDIA: [(&str, bool, bool); 6] = [
        ("nvidia/cu13/lib/libcudart.so.13", true, true),
        ("nvidia/cu13/lib/libcupti.so.13", true, true),
        ("nvidia/cu13/lib/libnvperf_host.so", false, true),
        ("nvidia/cudnn/lib/libcudnn.so.9", false, true),
        ("nvidia/cu13/lib/libcudart_static.a", false, false),
        ("nvidia/cu13/include/library_types.h", false, false),
    ];

    #[test]
    fn the_needed_members_of_torch_are_selected() {
        for (member, cpu, cuda) in TORCH {
            assert_eq!(is_needed_of_torch(member, Flavour::Cpu), cpu, "{member}");
            assert_eq!(is_needed_of_torch(member, Flavour::Cuda), cuda, "{member}");
        }
    }

    #[test]
    fn the_needed_members_of_nvidia_are_selected() {
        for (member, cpu, cuda) in NVIDIA {
            assert_eq!(is_needed_of_nvidia(member, Flavour::Cpu), cpu, "{member}");
            assert_eq!(is_needed_of_nvidia(member, Flavour::Cuda), cuda, "{member}");
        }
    }

    #[test]
    fn a_cpu_needs_two_parts_of_the_toolkit() {
        let expected = ["cuda-toolkit[cudart,cupti]==13.0.2; platform_system == \"Linux\""];
        assert_eq!(nvidia_requirements(METADATA, Flavour::Cpu), expected);
    }

    #[test]
    fn cuda_needs_what_the_wheel_pins() {
        let expected = [
            "cuda-toolkit[cublas,cudart,cufft,cufile,cupti]==13.0.2; platform_system == \"Linux\"",
            "nvidia-cudnn-cu13==9.19.0.56; platform_system == \"Linux\"",
            "nvidia-nccl-cu13==2.28.9; platform_system == \"Linux\"",
        ];
        assert_eq!(nvidia_requirements(METADATA, Flavour::Cuda), expected);
    }

    #[test]
    fn a_wheel_without_cuda_needs_nothing_of_nvidia() {
        assert!(nvidia_requirements("Name: torch\nRequires-Dist: filelock\n", Flavour::Cpu).is_empty());
    }

    /// A wheel of three members, made by Python itself.
    fn small_wheel(folder: &Path) -> PathBuf {
        let wheel = folder.join("small-1.0-py3-none-any.whl");
        let script = "import sys, zipfile\n\
            with zipfile.ZipFile(sys.argv[1], 'w') as archive:\n\
            \tfor name in ('torch/lib/libc10.so', 'torch/nn/module.py', 'small-1.0.dist-info/METADATA'):\n\
            \t\tarchive.writestr(name, 'text of ' + name)";
        let status = Command::new("python3").args(["-c", script]).arg(&wheel).status();
        assert!(status.expect("the tests need python3, as the set-up does").success());
        wheel
    }

    #[test]
    fn only_the_named_members_are_unpacked() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (wheel, pip) = (small_wheel(folder.path()), Pip { python: Path::new("python3") });
        let members = pip.members(&wheel).expect("the wheel is whole");
        assert_eq!(members.len(), 3, "{members:?}");
        pip.unpack(&wheel, &["torch/lib/libc10.so"], folder.path()).expect("the wheel is whole");
        let unpacked = fs::read_to_string(folder.path().join("torch/lib/libc10.so"));
        assert_eq!(unpacked.ok().as_deref(), Some("text of torch/lib/libc10.so"));
        assert!(!folder.path().join("torch/nn").exists());
    }

    #[test]
    fn the_metadata_of_a_wheel_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let pip = Pip { python: Path::new("python3") };
        let metadata = pip.metadata(&small_wheel(folder.path())).expect("the wheel is whole");
        assert_eq!(metadata, "text of small-1.0.dist-info/METADATA");
    }

    #[test]
    fn a_wheel_that_is_cut_short_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let wheel = small_wheel(folder.path());
        fs::write(&wheel, &fs::read(&wheel).expect("the wheel is there")[..40]).expect("a wheel can be written");
        let error = Pip { python: Path::new("python3") }.members(&wheel).expect_err("the wheel is cut short");
        assert!(matches!(&error, Error::Wheel { wheel: named, .. } if *named == wheel), "{error}");
    }
}
