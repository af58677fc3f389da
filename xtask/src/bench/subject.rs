//! What both programs work on: datasets, and the answers of networks.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::programs::{Programs, named, run};
use crate::checkout::Checkout;
use crate::error::Error;

/// Real datasets that are measured where they are there.
const REAL: [&str; 3] = ["Dataset004_Hippocampus", "Dataset111_STSMultimodal", "Dataset113_OpenMSLesion"];

/// Phantoms that are made where there are no real images: many small cases, and a few large ones of two channels.
const PHANTOMS: [(&str, &[&str]); 2] = [
    ("Dataset901_ManySmall", &["--cases", "100", "--shape", "36,50,35", "--spacing", "1,1,1", "--organs", "2"]),
    ("Dataset902_FewLarge", &["--cases", "4", "--shape", "100,220,220", "--spacing", "3,0.9,0.9", "--channels", "2"]),
];

/// The variable that names the folder of real data, as it does for tests.
const VARIABLE: &str = "NNFLOW_DATA";

/// The answers of networks that are brought back to the grid of the image: classes, edge of the network's grid, and whether
/// nnU-Net takes part. It holds all classes on the image's grid at once, which is too much for most machines in the end.
const LOGITS: [(u32, u32, bool); 2] = [(20, 160, true), (117, 200, false)];

/// Extents of patches that are augmented: those of the hippocampus, and of a large network.
const PATCHES: [&str; 2] = ["40x56x40", "128x128x128"];

/// What is worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// `Dataset004_Hippocampus`.
    pub(crate) name: String,
    /// Its folder: of a dataset that in nnU-Net's raw layout, of logits what `export_case.py` has made.
    pub(crate) folder: PathBuf,
    /// Whether nnU-Net works on it too.
    pub(crate) for_both: bool,
}

impl Subject {
    fn dataset(name: &str, folder: PathBuf) -> Self {
        Self { name: name.to_owned(), folder, for_both: true }
    }

    /// The number by which nnU-Net's programs know it.
    pub(crate) fn number(&self) -> &str {
        let digits = self.name.trim_start_matches("Dataset");
        digits.split('_').next().unwrap_or(digits)
    }

    /// Reads every file once, so that neither program waits for the disk.
    pub(crate) fn warm(&self) -> Result<(), Error> {
        warm(&self.folder)
    }
}

fn warm(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.is_dir() {
            warm(&path)?;
        } else {
            let mut file = fs::File::open(&path).map_err(Error::io("read", &path))?;
            std::io::copy(&mut file, &mut std::io::sink()).map_err(Error::io("read", &path))?;
        }
    }
    Ok(())
}

/// The datasets that are there: those of a folder that is named, of `NNFLOW_DATA`, of the folder beside the checkout
/// where shared data lies, or else phantoms.
///
/// # Errors
/// If a folder was named that has none of the datasets, or phantoms cannot be made.
pub(crate) fn datasets(
    checkout: &Checkout,
    named: Option<&Path>,
    programs: &Programs,
    scratch: &Path,
) -> Result<Vec<Subject>, Error> {
    let variable = env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = named.map(Path::to_path_buf).or(variable) {
        let found = real(&folder)?;
        if found.is_empty() {
            let message = format!("`{}` has none of the datasets {}", folder.display(), REAL.join(", "));
            return Err(Error::Bench { message, remedy: Some("leave `--data` out to measure on phantoms".to_owned()) });
        }
        return Ok(found);
    }
    let found = real(&checkout.root().join("../shared/data"))?;
    if found.is_empty() { phantoms(programs, &scratch.join("phantoms")) } else { Ok(found) }
}

fn real(folder: &Path) -> Result<Vec<Subject>, Error> {
    let present = REAL.iter().map(|name| (name, folder.join(name))).filter(|(_, folder)| folder.is_dir());
    let dataset = |(name, folder): (&&str, PathBuf)| {
        Ok(Subject::dataset(name, fs::canonicalize(&folder).map_err(Error::io("find", &folder))?))
    };
    present.map(dataset).collect()
}

fn phantoms(programs: &Programs, folder: &Path) -> Result<Vec<Subject>, Error> {
    let make = |(name, settings): &(&str, &[&str])| {
        let folder = folder.join(name);
        run(programs.nnflow().arg("phantom").arg(&folder).args(*settings))?;
        Ok(Subject::dataset(name, folder))
    };
    PHANTOMS.iter().map(make).collect()
}

/// The answers of networks, made in a folder.
///
/// # Errors
/// If they cannot be made.
pub(crate) fn logits(programs: &Programs, scratch: &Path) -> Result<Vec<Subject>, Error> {
    let make = |(classes, edge, for_both): &(u32, u32, bool)| {
        let name = format!("{classes} classes, {edge}³ to {}³", 2 * edge);
        let folder = scratch.join(format!("logits-{classes}"));
        run(programs.script("export_case.py").args([classes.to_string(), edge.to_string()]).arg(&folder))?;
        let mut plan = programs.nnflow();
        plan.args(["stage", "run", "plan", "--output"]).arg(&folder);
        for (port, file) in [("fingerprint", "dataset_fingerprint.json"), ("description", "dataset.json")] {
            plan.arg("--input").arg(named(port, &folder.join(file)));
        }
        run(&mut plan)?;
        Ok(Subject { name, folder, for_both: *for_both })
    };
    LOGITS.iter().map(make).collect()
}

/// Patches of noise, which both programs make by themselves.
///
/// # Errors
/// If their folder cannot be made.
pub(crate) fn patches(scratch: &Path) -> Result<Vec<Subject>, Error> {
    let folder = scratch.join("patches");
    fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
    Ok(PATCHES.iter().map(|name| Subject::dataset(name, folder.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nnunet_knows_a_dataset_by_its_number() {
        assert_eq!(Subject::dataset("Dataset004_Hippocampus", PathBuf::new()).number(), "004");
    }

    #[test]
    fn datasets_that_are_missing_are_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::create_dir(folder.path().join(REAL[1])).expect("a folder can be made");
        let names: Vec<_> = real(folder.path()).expect("the folder is there").into_iter().map(|set| set.name).collect();
        assert_eq!(names, [REAL[1]]);
    }
}
