//! One part of a body: a deformed superquadric filled with a tissue.

use super::{anatomy::Tissue, noise::SmoothNoise};

/// A part of a body, in the coordinates of the field of view: -1 to 1 along each axis.
#[derive(Debug, Clone)]
pub(super) struct Structure {
    pub(super) centre: [f32; 3],
    /// Takes a position relative to the centre to one in which the undeformed surface is the unit sphere or cube.
    pub(super) to_unit: [[f32; 3]; 3],
    /// From 0, an ellipsoid, to 1, nearly a box.
    pub(super) boxiness: f32,
    /// How far the surface is deformed, as a fraction of the radius.
    pub(super) roughness: f32,
    /// Where in the noise the deformation comes from.
    pub(super) offset: [f32; 3],
    /// Lattice steps of the noise across the field of view.
    pub(super) detail: f32,
    /// The structure lies within this distance of its centre.
    pub(super) reach: [f32; 3],
    pub(super) tissue: Tissue,
    /// The organ's label, 0 if it is none.
    pub(super) label: u8,
}

impl Structure {
    /// The fraction of a voxel at `position` that the structure fills; `voxel` is the extent of a voxel.
    ///
    /// The surface is taken as a plane within a voxel: the fraction then falls linearly over the voxel's extent along the
    /// surface's normal, which is how a boundary that a voxel shares with its surroundings appears in an image.
    pub(super) fn coverage(&self, position: [f32; 3], voxel: [f32; 3], noise: &SmoothNoise) -> f32 {
        let relative: [f32; 3] = std::array::from_fn(|axis| position[axis] - self.centre[axis]);
        if (0..3).any(|axis| relative[axis].abs() > self.reach[axis] + voxel[axis]) {
            return 0.0;
        }
        let unit = self.to_unit.map(|row| row[0] * relative[0] + row[1] * relative[1] + row[2] * relative[2]);
        let squares = unit.map(|coordinate| coordinate * coordinate);
        let sphere = (squares[0] + squares[1] + squares[2]).sqrt();
        let fourth = squares[0] * squares[0] + squares[1] * squares[1] + squares[2] * squares[2];
        let radius = sphere + self.boxiness * (fourth.sqrt().sqrt() - sphere);
        // Deep inside and far outside the deformation cannot matter.
        if radius > 1.0 + self.roughness + 0.5 {
            return 0.0;
        }
        let place = std::array::from_fn(|axis| position[axis] * self.detail + self.offset[axis]);
        let distance = radius - 1.0 - self.roughness * noise.at(place);
        let width: f32 = (0..3)
            .map(|axis| {
                let slope: f32 = (0..3).map(|row| self.to_unit[row][axis] * unit[row]).sum::<f32>() / sphere.max(1e-6);
                slope.abs() * voxel[axis]
            })
            .sum();
        (0.5 - distance / width.max(1e-6)).clamp(0.0, 1.0)
    }
}
