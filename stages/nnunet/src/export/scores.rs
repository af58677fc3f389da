//! Where the scores of a case lie, and how some planes of them are had.

use std::ops::Range;

use ndarray::{ArrayView4, CowArray, Ix4, s};
use nnflow_io::array::ArrayFile;
use nnflow_io::npy::NpyFile;
use nnflow_stage::{Artifact, StageError};
use serde::Deserialize;

/// File of scores as nnflow stores arrays, `f32` `[class, a0, a1, a2]`.
pub const LOGITS_NNA: &str = "logits.nna";
/// File of scores as NumPy stores arrays, `f32` `[class, a0, a1, a2]`.
pub const LOGITS_NPY: &str = "logits.npy";

/// What the values of a network's answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoreKind {
    /// Logits.
    Logits,
    /// Probabilities.
    Probabilities,
}

/// A network's answer for a case, `[class, a0, a1, a2]` on the grid that the case was prepared on.
///
/// There may be more of it than fits into memory a second time, so it is asked for plane by plane.
pub trait ScoreSource {
    /// Its extents.
    fn shape(&self) -> [usize; 4];

    /// Some planes (along `a0`) of some classes, with all of `a1` and `a2`.
    ///
    /// # Errors
    /// If they cannot be had.
    fn read(&self, classes: Range<usize>, planes: Range<usize>) -> Result<CowArray<'_, f32, Ix4>, StageError>;
}

impl ScoreSource for ArrayView4<'_, f32> {
    fn shape(&self) -> [usize; 4] {
        self.dim().into()
    }

    fn read(&self, classes: Range<usize>, planes: Range<usize>) -> Result<CowArray<'_, f32, Ix4>, StageError> {
        Ok(self.slice(s![classes, planes, .., ..]).into())
    }
}

/// Scores in a file, which are checked when they are read.
pub struct StoredScores {
    case: String,
    file: StoredFile,
}

enum StoredFile {
    Array(ArrayFile),
    Npy(NpyFile),
}

impl StoredScores {
    /// Opens the file of scores of a case: [`LOGITS_NPY`] or [`LOGITS_NNA`].
    ///
    /// # Errors
    /// If neither is there, or it is no array of `f32` with four axes.
    pub fn open(artifact: &Artifact, case: &str) -> Result<Self, StageError> {
        let unusable = |error: Box<dyn std::error::Error + Send + Sync>| {
            StageError::input(format!("the scores of case `{case}` cannot be used")).with_source(error)
        };
        let file = if let Some(file) = artifact.file(LOGITS_NPY) {
            StoredFile::Npy(NpyFile::open(&file.path).map_err(|error| unusable(error.into()))?)
        } else if let Some(file) = artifact.file(LOGITS_NNA) {
            StoredFile::Array(ArrayFile::open(&file.path).map_err(|error| unusable(error.into()))?)
        } else {
            return Err(StageError::input(format!("case `{case}` has no scores"))
                .with_hint(format!("expected a file `{LOGITS_NPY}` or `{LOGITS_NNA}`")));
        };
        Ok(Self { case: case.to_owned(), file })
    }
}

impl ScoreSource for StoredScores {
    fn shape(&self) -> [usize; 4] {
        match &self.file {
            StoredFile::Array(file) => file.shape(),
            StoredFile::Npy(file) => file.shape(),
        }
    }

    fn read(&self, classes: Range<usize>, planes: Range<usize>) -> Result<CowArray<'_, f32, Ix4>, StageError> {
        let unusable = |error: Box<dyn std::error::Error + Send + Sync>| {
            StageError::input(format!("the scores of case `{}` cannot be read", self.case)).with_source(error)
        };
        let values = match &self.file {
            StoredFile::Npy(file) => file.read(classes, planes).map_err(|error| unusable(error.into()))?,
            StoredFile::Array(file) => {
                let [_, _, height, width] = file.shape();
                let start = [planes.start as isize, 0, 0];
                let read = file.read_box(classes, start, [planes.len(), height, width], 0.0);
                read.map_err(|error| unusable(error.into()))?
            }
        };
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values.into());
        }
        Err(StageError::input(format!("the scores of case `{}` have values that are not finite", self.case))
            .with_hint("an image or weights that are damaged make such scores"))
    }
}
