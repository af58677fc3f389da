//! Makes a machine ready to build: checks its tools, and sees to a libtorch.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::checkout::Checkout;
use crate::error::Error;
use crate::libtorch::{self, Flavour, VERSION};
use crate::tools;
use crate::wheel::{self, Pip};

/// Signs of an NVIDIA driver.
const DRIVER: [&str; 4] = [
    "/dev/nvidia0",
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
    "/usr/lib/wsl/lib/libcuda.so.1",
];

/// How the folders are called in which wheels arrive.
const INCOMING: &str = "incoming-";

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Whatever is there, else what the machine can use.
    Either,
    /// At least processors. A set-up with CUDA serves them too and is kept.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
}

/// What a build needs to know about the machine.
pub(crate) struct Machine {
    /// The C++ compiler.
    pub(crate) compiler: PathBuf,
    /// The folder of libtorch, with `include` and `lib`.
    pub(crate) libtorch: PathBuf,
    /// Whether libtorch is the user's own.
    pub(crate) is_own: bool,
}

/// Checks the tools and makes sure that there is a libtorch; does nothing where there is one.
///
/// # Errors
/// A missing tool, a libtorch of another version, or a failure to fetch one.
pub(crate) fn set_up(checkout: &Checkout, wanted: Wanted) -> Result<Machine, Error> {
    let path = tools::search_path();
    let compiler = tools::compiler(env::var_os("CXX").as_deref(), &path)?;
    tools::check_openmp(&compiler)?;
    if let Some(libtorch) = own_libtorch(checkout, env::var_os("LIBTORCH")) {
        libtorch::check_own(&libtorch)?;
        return Ok(Machine { compiler, libtorch, is_own: true });
    }
    ensure_libtorch(checkout, wanted)?;
    Ok(Machine { compiler, libtorch: checkout.libtorch().join("torch"), is_own: false })
}

/// The folder that `LIBTORCH` names, unless it is the checkout's, which cargo names there by itself.
fn own_libtorch(checkout: &Checkout, variable: Option<OsString>) -> Option<PathBuf> {
    let folder = PathBuf::from(variable.filter(|value| !value.is_empty())?);
    // Build scripts run in folders of their own, where a relative path would mean something else.
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    (folder != checkout.libtorch().join("torch")).then_some(folder)
}

fn ensure_libtorch(checkout: &Checkout, wanted: Wanted) -> Result<(), Error> {
    let folder = checkout.libtorch();
    fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
    let _lock = lock(&folder.join("lock"))?;
    let present = present_flavour(&folder);
    let Some(flavour) = flavour_to_fetch(wanted, present, has_driver()) else {
        if wanted == Wanted::Either && present == Some(Flavour::Cpu) && has_driver() {
            eprintln!("libtorch is set up for the CPU; `cargo xtask setup --cuda` adds this machine's GPU");
        }
        return Ok(());
    };
    if !cfg!(target_os = "linux") {
        return Err(Error::OtherSystem);
    }
    fetch(&folder, flavour)
}

/// Keeps a second set-up of the same checkout waiting until the lock is dropped.
fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(Error::io("open", path))?;
    file.lock().map_err(Error::io("lock", path))?;
    Ok(file)
}

/// What lies in the folder whole, going by its stamp and by the files that a build needs.
fn present_flavour(folder: &Path) -> Option<Flavour> {
    let stamp = fs::read_to_string(folder.join("stamp")).ok()?;
    let flavour = libtorch::flavour_of_stamp(&stamp)?;
    libtorch::first_missing(&folder.join("torch")).is_none().then_some(flavour)
}

/// What has to be fetched, if anything.
fn flavour_to_fetch(wanted: Wanted, present: Option<Flavour>, has_driver: bool) -> Option<Flavour> {
    match (wanted, present) {
        (Wanted::Cuda, Some(Flavour::Cuda)) | (Wanted::Either | Wanted::Cpu, Some(_)) => None,
        (Wanted::Cuda, _) => Some(Flavour::Cuda),
        (Wanted::Cpu, None) => Some(Flavour::Cpu),
        (Wanted::Either, None) => Some(if has_driver { Flavour::Cuda } else { Flavour::Cpu }),
    }
}

fn has_driver() -> bool {
    DRIVER.iter().any(|sign| Path::new(sign).exists())
}

/// Fetches libtorch into a folder beside its final place and moves it there; the stamp comes last.
///
/// Whoever is stopped on the way leaves no stamp, so that the next set-up begins again.
fn fetch(folder: &Path, flavour: Flavour) -> Result<(), Error> {
    let python = tools::python(&tools::search_path())?;
    remove_remains(folder)?;
    // The process number keeps a pip apart that outlived the set-up which started it.
    let incoming = folder.join(format!("{INCOMING}{}", std::process::id()));
    let unpacked = incoming.join("unpacked");
    fs::create_dir_all(&unpacked).map_err(Error::io("make", &unpacked))?;
    fetch_wheels(&Pip { python: &python }, flavour, &incoming, &unpacked)?;
    if let Some(missing) = libtorch::first_missing(&unpacked.join("torch")) {
        return Err(Error::IncompleteLibtorch { folder: unpacked.join("torch"), missing });
    }
    put_in_place(&unpacked, folder, flavour)?;
    remove(&incoming)?;
    eprintln!("libtorch {VERSION} ({}) is in `{}`", flavour.name(), folder.display());
    Ok(())
}

fn fetch_wheels(pip: &Pip<'_>, flavour: Flavour, incoming: &Path, unpacked: &Path) -> Result<(), Error> {
    eprintln!("fetching libtorch {VERSION} (530 MB) with pip");
    let torch = pip.download(&[format!("torch=={VERSION}")], false, &incoming.join("torch"))?;
    let mut requirements = Vec::new();
    for wheel in &torch {
        requirements.extend(wheel::nvidia_requirements(&pip.metadata(wheel)?, flavour));
    }
    unpack(pip, &torch, unpacked, |member| wheel::is_needed_of_torch(member, flavour))?;
    if requirements.is_empty() {
        return Ok(());
    }
    let size = if flavour == Flavour::Cuda { "2 GB" } else { "13 MB" };
    eprintln!("fetching the libraries of CUDA that it is linked with ({size})");
    let nvidia = pip.download(&requirements, true, &incoming.join("nvidia"))?;
    unpack(pip, &nvidia, unpacked, |member| wheel::is_needed_of_nvidia(member, flavour))
}

fn unpack(pip: &Pip<'_>, wheels: &[PathBuf], folder: &Path, is_needed: impl Fn(&str) -> bool) -> Result<(), Error> {
    for wheel in wheels {
        let members = pip.members(wheel)?;
        let needed: Vec<&str> = members.iter().map(String::as_str).filter(|member| is_needed(member)).collect();
        pip.unpack(wheel, &needed, folder)?;
    }
    Ok(())
}

/// Moves what was unpacked over what was there before.
fn put_in_place(unpacked: &Path, folder: &Path, flavour: Flavour) -> Result<(), Error> {
    let stamp = folder.join("stamp");
    remove(&stamp)?;
    for entry in fs::read_dir(unpacked).map_err(Error::io("read", unpacked))? {
        let entry = entry.map_err(Error::io("read", unpacked))?;
        let place = folder.join(entry.file_name());
        remove(&place)?;
        fs::rename(entry.path(), &place).map_err(Error::io("make", &place))?;
    }
    fs::write(&stamp, libtorch::stamp(flavour)).map_err(Error::io("write", &stamp))
}

/// Removes what set-ups that were stopped have left behind.
fn remove_remains(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        if entry.file_name().to_string_lossy().starts_with(INCOMING) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file or a folder, which need not be there.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_kept_unless_cuda_is_asked_for() {
        let (cpu, cuda) = (Some(Flavour::Cpu), Some(Flavour::Cuda));
        for (wanted, present, has_driver, expected) in [
            (Wanted::Either, cpu, true, None),
            (Wanted::Either, cuda, false, None),
            (Wanted::Cpu, cuda, true, None),
            (Wanted::Cuda, cuda, true, None),
            (Wanted::Cuda, cpu, false, cuda),
        ] {
            assert_eq!(flavour_to_fetch(wanted, present, has_driver), expected, "{wanted:?} with {present:?}");
        }
    }

    #[test]
    fn the_driver_decides_where_nothing_is_there() {
        assert_eq!(flavour_to_fetch(Wanted::Either, None, true), Some(Flavour::Cuda));
        assert_eq!(flavour_to_fetch(Wanted::Either, None, false), Some(Flavour::Cpu));
        assert_eq!(flavour_to_fetch(Wanted::Cpu, None, true), Some(Flavour::Cpu));
    }

    #[test]
    fn the_checkouts_own_libtorch_is_not_the_users() {
        let checkout = Checkout::at(Path::new("/checkout"));
        assert_eq!(own_libtorch(&checkout, Some("/checkout/.libtorch/torch".into())), None);
        assert_eq!(own_libtorch(&checkout, Some("".into())), None);
        assert_eq!(own_libtorch(&checkout, Some("/mine".into())), Some(PathBuf::from("/mine")));
    }

    #[test]
    fn a_relative_libtorch_is_made_absolute() {
        let checkout = Checkout::at(Path::new("/checkout"));
        let folder = own_libtorch(&checkout, Some("mine".into())).expect("it is not the checkout's");
        assert!(folder.is_absolute() && folder.ends_with("mine"));
    }

    #[test]
    fn a_stamp_without_its_files_does_not_count() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::write(folder.path().join("stamp"), libtorch::stamp(Flavour::Cpu)).expect("a stamp can be written");
        assert_eq!(present_flavour(folder.path()), None);
    }

    #[test]
    fn files_are_moved_over_older_ones_and_stamped() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (place, unpacked) = (folder.path(), folder.path().join("incoming-7/unpacked"));
        for (path, text) in [(place.join("torch/old"), "old"), (unpacked.join("torch/new"), "new")] {
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
        put_in_place(&unpacked, place, Flavour::Cpu).expect("a rename in one folder");
        assert!(place.join("torch/new").is_file() && !place.join("torch/old").exists());
        assert_eq!(fs::read_to_string(place.join("stamp")).ok().as_deref(), Some("1 2.11.0 cpu\n"));
    }

    #[test]
    fn what_a_stopped_set_up_left_is_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for name in ["incoming-1/torch", "torch/lib"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder can be made");
        }
        remove_remains(folder.path()).expect("the folder can be written");
        assert!(!folder.path().join("incoming-1").exists() && folder.path().join("torch/lib").exists());
    }
}
