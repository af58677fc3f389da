//! Holds nnflow against golden vectors: inputs and outputs of the real nnU-Net, in the structure of `tests/golden`.
//!
//! Each component of the vectors has a file in `components` and a row in [`COMPONENTS`]. A component looks for its
//! vectors on disk and knows none by name, so that it also runs on another set of the same structure. Whatever lies in a
//! folder of vectors and was not understood counts as not met: a comparison that silently leaves something out proves
//! less than it seems to.

mod check;
mod components;
mod folder;
mod labels;
mod problem;
mod report;

use std::path::{Path, PathBuf};

pub use check::{Check, Deviation, Mismatch, Tolerance, Vector, Verdict};
pub use components::{COMPONENTS, Compare, Component, Coverage};
pub use folder::Folder;
pub use problem::Problem;
pub use report::{Outcome, Report};

/// Folders beside the components that hold no vectors.
const OTHER_FOLDERS: [&str; 1] = ["generate"];

/// What a component may look at besides its vectors.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// A folder of datasets in nnU-Net's raw layout, for vectors that come without their images.
    pub data: Option<PathBuf>,
}

impl Surroundings {
    /// What is at hand: the datasets in the folder that `NNFLOW_DATA` names, else in `../shared/data` beside the checkout.
    #[must_use]
    pub fn found() -> Self {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        let data = std::env::var_os("NNFLOW_DATA").map_or_else(beside, PathBuf::from);
        Self { data: data.is_dir().then_some(data) }
    }
}

/// The folder that `NNFLOW_GOLDEN` names, else `tests/golden` of the checkout.
#[must_use]
pub fn golden_folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    std::env::var_os("NNFLOW_GOLDEN").map_or_else(own, PathBuf::from)
}

/// Runs every component on the vectors in a folder.
///
/// # Errors
/// If the folder cannot be read.
pub fn compare(golden: &Path, surroundings: &Surroundings) -> Result<Report, Problem> {
    let folders = Folder::open(golden)?.subfolders("")?;
    let mut report = Report::default();
    for component in COMPONENTS {
        let is_there = folders.iter().any(|folder| folder == component.name);
        match component.coverage {
            Coverage::Compared(run) | Coverage::IfThere(run) if is_there => {
                report.add(component.name, compared(golden, component.name, run, surroundings));
            }
            Coverage::Compared(_) => {
                report.add(component.name, Err(Problem::missing(golden.join(component.name))));
            }
            Coverage::NotYet(why) if is_there => report.leave_out(component.name, why),
            Coverage::IfThere(_) | Coverage::NotYet(_) => {}
        }
    }
    let is_known = |name: &String| {
        OTHER_FOLDERS.contains(&name.as_str()) || COMPONENTS.iter().any(|component| component.name == *name)
    };
    for folder in folders.into_iter().filter(|name| !is_known(name)) {
        let problem = Problem::not_understood(golden.join(&folder), "a component that nothing here compares");
        report.add(&folder, Err(problem));
    }
    Ok(report)
}

fn compared(
    golden: &Path,
    name: &str,
    run: components::Compare,
    surroundings: &Surroundings,
) -> Result<Vec<Vector>, Problem> {
    let folder = Folder::open(&golden.join(name))?;
    let mut vectors = run(&folder, surroundings)?;
    if vectors.is_empty() {
        return Err(Problem::missing(golden.join(name)));
    }
    let unread: Vec<String> =
        folder.unread()?.into_iter().filter(|file| !vectors.iter().any(|vector| explains(vector, file))).collect();
    vectors.extend(unread.into_iter().map(|file| {
        let problem = Problem::not_understood(golden.join(name).join(&file), "a file that nothing here compares");
        Vector::of(file, |_| Err(problem))
    }));
    Ok(vectors)
}

/// Whether a file was not read because the comparison of its vector stopped before.
fn explains(vector: &Vector, file: &str) -> bool {
    let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
    vector.verdict != Verdict::Met && file.strip_prefix(&vector.name).is_some_and(is_below)
}
