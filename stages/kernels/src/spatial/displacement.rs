//! Smooth random displacements of voxels.

use ndarray::{Array3, Array4, Axis};

use crate::{
    filter::{Border, Kernel, smooth},
    random::CounterRandom,
};

/// Standard deviations at which a smoothing kernel is cut, SciPy's default.
const TRUNCATE: f64 = 4.0;

/// Nodes of a displacement field per standard deviation of its smoothing, at most.
const NODES_PER_SIGMA: f64 = 4.0;

/// A displacement for each voxel of a patch, kept at nodes of a coarser grid and interpolated linearly between them.
#[derive(Debug, Clone)]
pub struct Displacement {
    /// One volume of nodes for each axis, in voxels.
    nodes: [Array3<f32>; 3],
    /// Voxels from node to node.
    step: usize,
}

impl Displacement {
    /// A displacement given for every voxel: `field` is `[3, z, y, x]`, in voxels. None if it does not have three parts.
    #[must_use]
    pub fn of_voxels(field: &Array4<f32>) -> Option<Self> {
        if field.len_of(Axis(0)) != 3 || field.is_empty() {
            return None;
        }
        Some(Self { nodes: std::array::from_fn(|axis| field.index_axis(Axis(0), axis).to_owned()), step: 1 })
    }

    /// Independent uniform noise of `-1..1` for each voxel and axis, smoothed with a Gaussian of `sigma` voxels, times
    /// `magnitude`; the noise is zero outside the patch. With `in_plane`, one field of two parts serves all slices.
    ///
    /// Noise smoothed this much does not vary from voxel to voxel, so it is drawn and smoothed on a grid of at least
    /// four nodes a standard deviation: the fields have the same distribution, for a fraction of the time.
    ///
    /// # Reference
    /// Simard, Steinkraus, Platt: Best practices for convolutional neural networks (ICDAR 2003); the distribution is that
    /// of `batchgenerators` 0.25.1, `elastic_deform_coordinates`.
    #[must_use]
    pub fn random(random: &mut CounterRandom, patch: [usize; 3], sigma: f64, magnitude: f64, in_plane: bool) -> Self {
        let step = ((sigma / NODES_PER_SIGMA) as usize).max(1);
        let shape: [usize; 3] = std::array::from_fn(|axis| {
            if in_plane && axis == 0 { 1 } else { patch[axis].saturating_sub(1).div_ceil(step) + 1 }
        });
        let moves = if in_plane { 1..3 } else { 0..3 };
        // A node stands for step^n voxels, and the mean of that many uniform numbers has their variance over step^n.
        let deviation = (1.0 / 3.0 / (step as f64).powi(moves.len() as i32)).sqrt();
        let kernel = |axis| Kernel::truncated(if moves.contains(&axis) { sigma / step as f64 } else { 0.0 }, TRUNCATE);
        let kernels = [kernel(0), kernel(1), kernel(2)];
        let nodes = std::array::from_fn(|axis| {
            if !moves.contains(&axis) {
                return Array3::zeros(shape);
            }
            let mut noise = Array3::from_shape_fn(shape, |_| (random.normal() * deviation * magnitude) as f32);
            smooth(noise.view_mut(), &kernels, Border::Zero);
            noise
        });
        Self { nodes, step }
    }

    /// The nodes of the displacement along each axis, in voxels; between them it is linear.
    #[must_use]
    pub fn nodes(&self) -> &[Array3<f32>; 3] {
        &self.nodes
    }

    /// Voxels from node to node, from the first voxel on.
    #[must_use]
    pub fn step(&self) -> usize {
        self.step
    }

    /// The largest displacement along each axis, in voxels.
    #[must_use]
    pub fn largest(&self) -> [f64; 3] {
        std::array::from_fn(|axis| {
            self.nodes[axis].iter().fold(0.0, |largest, value| f64::from(value.abs()).max(largest))
        })
    }

    /// Writes the displacements along `axis` of the voxels of row `y` of slice `z`.
    pub(super) fn fill_row(&self, axis: usize, z: usize, y: usize, row: &mut [f32]) {
        let nodes = &self.nodes[axis];
        let (depth, height, _) = nodes.dim();
        let [(z0, z1, fraction_z), (y0, y1, fraction_y)] = [self.between(z, depth), self.between(y, height)];
        let line = |z: usize, y: usize| nodes.slice(ndarray::s![z, y, ..]);
        let blended: Vec<f32> = ndarray::Zip::from(line(z0, y0))
            .and(line(z0, y1))
            .and(line(z1, y0))
            .and(line(z1, y1))
            .map_collect(|a, b, c, d| mix(mix(*a, *b, fraction_y), mix(*c, *d, fraction_y), fraction_z))
            .to_vec();
        for (node, values) in row.chunks_mut(self.step).enumerate() {
            let from = blended[node.min(blended.len() - 1)];
            let to = blended[(node + 1).min(blended.len() - 1)];
            let slope = (to - from) / self.step as f32;
            for (index, value) in values.iter_mut().enumerate() {
                *value = from + slope * index as f32;
            }
        }
    }

    /// The nodes on both sides of a voxel, and how far it is from the first to the second.
    fn between(&self, voxel: usize, length: usize) -> (usize, usize, f32) {
        let last = length - 1;
        let node = (voxel / self.step).min(last);
        (node, (node + 1).min(last), (voxel % self.step) as f32 / self.step as f32)
    }
}

fn mix(from: f32, to: f32, fraction: f32) -> f32 {
    from + fraction * (to - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variance of uniform noise of -1..1 after smoothing along `axes` axes: 1/3 times the sum of the squared weights.
    fn expected_variance(sigma: f64, axes: i32) -> f64 {
        let kernel = Kernel::truncated(sigma, TRUNCATE);
        let squares = |weights: &[f32]| weights.iter().map(|weight| f64::from(*weight).powi(2)).sum::<f64>();
        let sum = 2.0 * squares(kernel.weights()) - squares(&kernel.weights()[..1]);
        sum.powi(axes) / 3.0
    }

    fn centre_values(sigma: f64, patch: [usize; 3], in_plane: bool, axis: usize) -> Vec<f64> {
        let values = (0..400).map(|draw| {
            let mut random = CounterRandom::new(9, [draw, 0, 0]);
            let field = Displacement::random(&mut random, patch, sigma, 100.0, in_plane);
            let mut row = vec![0.0; patch[2]];
            field.fill_row(axis, patch[0] / 2, patch[1] / 2, &mut row);
            f64::from(row[patch[2] / 2])
        });
        values.collect()
    }

    #[test]
    fn the_variance_is_that_of_smoothed_noise() {
        // Half of the patch is three standard deviations of the squared weights, so that its end does not matter.
        for (patch, in_plane, axes) in [([35, 35, 35], false, 3), ([3, 35, 35], true, 2)] {
            let values = centre_values(8.0, patch, in_plane, 2);
            let variance = values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
            let expected = expected_variance(8.0, axes) * 1e4;
            // Five standard errors of the variance of 400 normal numbers: 5 sqrt(2 / 400) = 0.35 of it.
            assert!((variance / expected - 1.0).abs() < 0.35, "{variance} for {expected}");
        }
    }

    #[test]
    fn slices_stay_in_their_plane() {
        assert!(centre_values(9.0, [3, 40, 40], true, 0).iter().all(|value| *value == 0.0));
    }

    #[test]
    fn a_field_of_voxels_is_given_back() {
        let field = Array4::from_shape_fn((3, 2, 3, 4), |(axis, z, y, x)| (axis * 1000 + z * 100 + y * 10 + x) as f32);
        let displacement = Displacement::of_voxels(&field).expect("three parts");
        let mut row = vec![0.0; 4];
        displacement.fill_row(1, 1, 2, &mut row);
        assert_eq!(row, [1120.0, 1121.0, 1122.0, 1123.0]);
    }

    #[test]
    fn between_nodes_the_field_is_linear() {
        let nodes = Array3::from_shape_fn((1, 1, 3), |(_, _, x)| [0.0, 6.0, 3.0][x]);
        let displacement = Displacement { nodes: std::array::from_fn(|_| nodes.clone()), step: 3 };
        let mut row = vec![0.0; 7];
        displacement.fill_row(2, 0, 0, &mut row);
        assert_eq!(row, [0.0, 2.0, 4.0, 6.0, 5.0, 4.0, 3.0]);
    }
}
