//! Where the voxels of an image lie.

use nnflow_kernels::geometry::Spacing;
use serde::{Deserialize, Serialize};

use super::nifti::NiftiHeader;

/// Spacing of the axis that a 2-D image does not have; nnU-Net's readers give it, its planner knows it by its size.
pub(super) const DUMMY_SPACING: f64 = 999.0;
/// Relative difference up to which two geometries are the same; headers store single precision.
const TOLERANCE: f64 = 1e-4;

/// The grid of an image, and where it lies in the patient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// Voxels along each axis, `[z, y, x]`.
    pub shape: [usize; 3],
    /// Distance between voxels in millimetres, `[z, y, x]`.
    pub spacing: Spacing,
    /// Centre of the first voxel in millimetres, `(x, y, z)` with x to the left, y to the back and z up, as SimpleITK
    /// gives it.
    pub origin: [f64; 3],
    /// Direction of the file's axes x, y and z as the columns of a matrix, its rows one after the other, as SimpleITK
    /// gives it.
    pub direction: [f64; 9],
    /// Header of the NIfTI file that the image came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nifti: Option<NiftiHeader>,
}

/// What sets two geometries apart.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field} differs: `{first:?}` and `{second:?}`")]
pub struct GridDifference {
    /// `shape`, `spacing`, `origin` or `direction`.
    pub field: &'static str,
    /// Its value in one geometry.
    pub first: Vec<f64>,
    /// Its value in the other.
    pub second: Vec<f64>,
}

impl Geometry {
    /// The direction of axes that are those of the patient.
    pub const IDENTITY: [f64; 9] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];

    /// A grid at the origin whose axes are those of the patient.
    #[must_use]
    pub fn new(shape: [usize; 3], spacing: Spacing) -> Self {
        Self { shape, spacing, origin: [0.0; 3], direction: Self::IDENTITY, nifti: None }
    }

    /// What sets this geometry apart from another, shape first; empty if an image of one can lie over one of the other.
    ///
    /// nnU-Net refuses channels that differ in shape or spacing and warns where origin or direction do.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<GridDifference> {
        let shape = |geometry: &Self| geometry.shape.map(|extent| extent as f64).to_vec();
        let fields = [
            ("shape", shape(self), shape(other)),
            ("spacing", self.spacing.values().to_vec(), other.spacing.values().to_vec()),
            ("origin", self.origin.to_vec(), other.origin.to_vec()),
            ("direction", self.direction.to_vec(), other.direction.to_vec()),
        ];
        let apart = fields.into_iter().filter(|(_, first, second)| !close(first, second));
        apart.map(|(field, first, second)| GridDifference { field, first, second }).collect()
    }

    /// True if it is the grid of a 2-D image, to which a reader has added the third axis, and which needs no third one.
    pub(super) fn is_flat(&self) -> bool {
        let [z, y, x] = self.spacing.values();
        let upright = [2, 5, 6, 7].iter().all(|&entry| self.direction[entry] == 0.0);
        self.shape[0] == 1 && z == DUMMY_SPACING * y.max(x) && upright
    }

    /// Why an array of this shape is no image on this grid.
    pub(super) fn check_shape(&self, found: &[usize]) -> Result<(), String> {
        if found == self.shape {
            return Ok(());
        }
        Err(format!(
            "expected an array of shape `{:?}` (z, y, x) as in the image's header, found `{found:?}`",
            self.shape
        ))
    }
}

fn close(first: &[f64], second: &[f64]) -> bool {
    first.iter().zip(second).all(|(a, b)| (a - b).abs() <= TOLERANCE * (1.0 + a.abs().max(b.abs())))
}
