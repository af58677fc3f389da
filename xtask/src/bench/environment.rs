//! The real nnU-Net, in a virtual environment of its own in the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::checkout::Checkout;
use crate::error::Error;
use crate::tools;

/// What is installed, with versions. The stamp of an environment is this text.
const REQUIREMENTS: &str = include_str!("../../../benches/nnunet/requirements.txt");

/// The environment's folder in the checkout.
const FOLDER: &str = ".nnunet";

/// What there is instead of an environment that cannot be set up.
const REMEDY: &str = "name a Python that has nnU-Net: `cargo xtask bench --nnunet PYTHON`";

/// A Python that has nnU-Net.
pub(crate) struct Environment {
    /// The interpreter; nnU-Net's programs lie beside it.
    pub(crate) python: PathBuf,
}

impl Environment {
    /// The Python that was named, else that of the environment in the checkout, which is set up if need be.
    ///
    /// # Errors
    /// If the Python has no nnU-Net, or the environment cannot be set up.
    pub(crate) fn find(checkout: &Checkout, named: Option<&Path>) -> Result<Self, Error> {
        let environment = match named {
            Some(python) => Self { python: python.to_path_buf() },
            None => Self::set_up(&checkout.root().join(FOLDER))?,
        };
        if environment.has_nnunet() {
            return Ok(environment);
        }
        let message = format!("`{}` has no nnU-Net", environment.python.display());
        Err(Error::Bench { message, remedy: Some(REMEDY.to_owned()) })
    }

    fn has_nnunet(&self) -> bool {
        self.python.with_file_name("nnUNetv2_preprocess").is_file()
    }

    fn set_up(folder: &Path) -> Result<Self, Error> {
        let (stamp, python) = (folder.join("stamp"), folder.join("bin/python"));
        if fs::read_to_string(&stamp).is_ok_and(|text| text == REQUIREMENTS) {
            return Ok(Self { python });
        }
        eprintln!("setting up nnU-Net in `{}`, once: several gigabytes, some minutes", folder.display());
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
        }
        let base = tools::python(&tools::search_path())?;
        step(Command::new(base).args(["-m", "venv"]).arg(folder), "make a virtual environment for nnU-Net")?;
        let requirements = folder.join("requirements.txt");
        fs::write(&requirements, REQUIREMENTS).map_err(Error::io("write", &requirements))?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(&requirements);
        step(&mut pip, "install nnU-Net")?;
        fs::write(&stamp, REQUIREMENTS).map_err(Error::io("write", &stamp))?;
        Ok(Self { python })
    }
}

/// Runs a step of the set-up, whose tool says itself what is wrong.
fn step(command: &mut Command, doing: &str) -> Result<(), Error> {
    let status = command.stdin(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let message = format!("cannot {doing}: the message of the tool stands above");
    Err(Error::Bench { message, remedy: Some(REMEDY.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_without_nnunet_is_told_so() {
        let checkout = Checkout::at(Path::new("checkout"));
        let found = Environment::find(&checkout, Some(Path::new("elsewhere/bin/python")));
        assert!(found.is_err_and(|error| error.remedy().is_some_and(|remedy| remedy.contains("--nnunet"))));
    }

    #[test]
    fn an_environment_with_the_same_stamp_is_not_made_again() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::write(folder.path().join("stamp"), REQUIREMENTS).expect("a stamp can be written");
        let environment = Environment::set_up(folder.path()).expect("nothing is to be done");
        assert_eq!(environment.python, folder.path().join("bin/python"));
    }
}
