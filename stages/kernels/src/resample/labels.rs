//! Resampling label maps.
//!
//! A label map is resampled as if each label's indicator were resized on its own and the labels then competed for each
//! voxel. Since a voxel of the result sees at most eight voxels, at most eight labels compete: their shares are added up
//! on the spot, in the order in which SciPy adds them, so that ties are decided by the same last bit, and no label needs
//! a volume of its own.

use ndarray::{Array3, ArrayView3, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::axis::{coordinate, nearest_indices};
use super::{Order, ResampleError, ResampleOptions, check_shapes, separate_axis};
use crate::geometry::Spacing;

/// Which label wins a voxel. The two rules differ wherever three labels meet and on every tie, so two installations of
/// nnU-Net may prepare the same labels differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelRule {
    /// The largest share; on exact ties the label of the nearest voxel if it is among the tied, else the smallest of
    /// them. The rule of batchgenerators 0.25.5.
    ArgmaxNearestTie,
    /// The largest label whose share is at least a half, else 0. The rule of batchgenerators 0.25.1, by which nnU-Net's
    /// published results were made.
    ThresholdHalf,
}

/// Resamples a label map onto the grid of `new_shape` voxels.
///
/// # Shapes and units
/// - `labels`: `[z, y, x]`; -1 (outside of the nonzero mask) is a label like any other
/// - `current`, `new`: voxel spacing in millimetres; they only decide whether an axis is resampled apart
/// - `options.order`: [`Order::Nearest`] takes the nearest voxel's label, [`Order::Linear`] lets labels compete by `rule`
///
/// # Errors
/// [`ResampleError::LabelOrder`] for other orders; [`ResampleError::EmptyAxis`] or [`ResampleError::TooLarge`] for grids
/// that cannot be.
///
/// # Reference
/// nnU-Net 2.8.1 `resample_data_or_seg_to_shape` with `is_seg`; vectors in `tests/golden/resample`, equal in every voxel
/// whose two best shares are not closer than 1e-6.
pub fn resample_labels(
    labels: ArrayView3<'_, i16>,
    new_shape: [usize; 3],
    current: Spacing,
    new: Spacing,
    options: &ResampleOptions,
    rule: LabelRule,
) -> Result<Array3<i16>, ResampleError> {
    let shape: [usize; 3] = labels.dim().into();
    check_shapes(shape, new_shape)?;
    let apart = separate_axis(current, new, options.force_separate_z);
    if options.order == Order::Cubic || (apart.is_some() && options.order_z != Order::Nearest) {
        return Err(ResampleError::LabelOrder { order: options.order, order_z: options.order_z });
    }
    if shape == new_shape {
        return Ok(labels.to_owned());
    }
    let neighbours = [0, 1, 2].map(|axis| {
        let between = options.order == Order::Linear && apart != Some(axis);
        neighbours(shape[axis], new_shape[axis], between)
    });
    let labels = labels.as_standard_layout();
    let source = Source { labels: labels.view(), neighbours: &neighbours, rule };
    let mut resampled = Array3::zeros(new_shape);
    resampled
        .axis_iter_mut(Axis(0))
        .into_par_iter()
        .zip(&neighbours[0])
        .for_each(|(slice, depth)| source.fill_slice(slice, depth));
    Ok(resampled)
}

/// The two voxels along one axis that a voxel of the result lies between, their weights, and the nearer of them.
#[derive(Debug, Clone, Copy)]
struct Neighbours {
    voxels: [usize; 2],
    weights: [f64; 2],
    nearest: usize,
}

fn neighbours(n: usize, m: usize, between: bool) -> Vec<Neighbours> {
    let place = |(k, nearest): (usize, usize)| {
        if !between {
            return Neighbours { voxels: [nearest; 2], weights: [1.0, 0.0], nearest };
        }
        let coordinate = coordinate(k, n, m);
        let lower = coordinate.floor();
        let weight = coordinate - lower;
        // Beyond the first and the last voxel both neighbours are the same one, and its two weights are added in two
        // steps: SciPy repeats the edge in this way, and the last bit of the sum decides ties.
        let voxel = |index: f64| index.clamp(0.0, (n - 1) as f64) as usize;
        Neighbours { voxels: [voxel(lower), voxel(lower + 1.0)], weights: [1.0 - weight, weight], nearest }
    };
    nearest_indices(n, m).into_iter().enumerate().map(place).collect()
}

struct Source<'a> {
    labels: ArrayView3<'a, i16>,
    neighbours: &'a [Vec<Neighbours>; 3],
    rule: LabelRule,
}

impl Source<'_> {
    fn fill_slice(&self, mut slice: ArrayViewMut2<'_, i16>, depth: &Neighbours) {
        for (mut target, height) in slice.rows_mut().into_iter().zip(&self.neighbours[1]) {
            let row = |z: usize, y: usize| self.labels.slice(s![z, y, ..]);
            let rows = depth.voxels.map(|z| height.voxels.map(|y| row(z, y)));
            let nearest = row(depth.nearest, height.nearest);
            for (target, width) in target.iter_mut().zip(&self.neighbours[2]) {
                let corners = rows.map(|rows| rows.map(|row| width.voxels.map(|x| row[x])));
                let first = corners[0][0][0];
                *target = if corners == [[[first; 2]; 2]; 2] {
                    first
                } else {
                    let shares = Shares::of(&corners, [depth, height, width]);
                    match self.rule {
                        LabelRule::ArgmaxNearestTie => shares.largest(nearest[width.nearest]),
                        LabelRule::ThresholdHalf => shares.last_above_half(),
                    }
                };
            }
        }
    }
}

/// The shares of up to eight labels in one voxel.
#[derive(Default)]
struct Shares {
    labels: [i16; 8],
    shares: [f64; 8],
    count: usize,
}

impl Shares {
    /// Adds up the labels of the eight corners in C order, each with the product of its three weights.
    fn of(corners: &[[[i16; 2]; 2]; 2], [depth, height, width]: [&Neighbours; 3]) -> Self {
        let mut shares = Self::default();
        for (rows, &z_weight) in corners.iter().zip(&depth.weights) {
            for (row, &y_weight) in rows.iter().zip(&height.weights) {
                for (&label, &x_weight) in row.iter().zip(&width.weights) {
                    shares.add(label, z_weight * y_weight * x_weight);
                }
            }
        }
        shares
    }

    fn add(&mut self, label: i16, share: f64) {
        match self.labels[..self.count].iter().position(|&known| known == label) {
            Some(index) => self.shares[index] += share,
            None => {
                self.labels[self.count] = label;
                self.shares[self.count] = share;
                self.count += 1;
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (i16, f64)> {
        self.labels.into_iter().zip(self.shares).take(self.count)
    }

    fn largest(&self, nearest: i16) -> i16 {
        let best = self.iter().fold(0.0, |best, (_, share)| f64::max(best, share));
        let tied = || self.iter().filter(|(_, share)| *share == best).map(|(label, _)| label);
        if tied().any(|label| label == nearest) { nearest } else { tied().min().unwrap_or(nearest) }
    }

    fn last_above_half(&self) -> i16 {
        self.iter().filter(|(_, share)| *share >= 0.5).map(|(label, _)| label).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    const OPTIONS: ResampleOptions =
        ResampleOptions { order: Order::Linear, order_z: Order::Nearest, force_separate_z: None };

    fn halve(labels: &Array3<i16>, rule: LabelRule) -> Array3<i16> {
        let spacing = Spacing::new([1.0; 3]).expect("positive");
        let (depth, height, width) = labels.dim();
        let new_shape = [depth.div_ceil(2), height.div_ceil(2), width.div_ceil(2)];
        resample_labels(labels.view(), new_shape, spacing, spacing, &OPTIONS, rule).expect("a grid")
    }

    #[test]
    fn an_even_tie_goes_to_the_nearest_voxel() {
        // The sample lies at 0.5, between both voxels; halves go up, so the nearest voxel is the second.
        assert_eq!(halve(&array![[[7, 3]]], LabelRule::ArgmaxNearestTie), array![[[3]]]);
        assert_eq!(halve(&array![[[3, 7]]], LabelRule::ArgmaxNearestTie), array![[[7]]]);
    }

    #[test]
    fn a_tie_that_the_nearest_voxel_has_lost_goes_to_the_smallest() {
        // Shares 3/8, 3/8 and 2/8, and the nearest voxel, the last one, has the label of the 2/8.
        let labels = array![[[5, 5], [5, 4]], [[4, 4], [9, 9]]];
        assert_eq!(halve(&labels, LabelRule::ArgmaxNearestTie), array![[[4]]]);
    }

    #[test]
    fn the_old_rule_gives_ties_to_the_largest_label() {
        assert_eq!(halve(&array![[[7, 3]]], LabelRule::ThresholdHalf), array![[[7]]]);
        assert_eq!(halve(&array![[[-1, 3]]], LabelRule::ThresholdHalf), array![[[3]]]);
    }

    #[test]
    fn the_old_rule_leaves_a_voxel_without_majority_empty() {
        let labels = array![[[1, 2], [3, 4]]];
        assert_eq!(halve(&labels, LabelRule::ThresholdHalf), array![[[0]]]);
    }

    #[test]
    fn cubic_interpolation_of_labels_is_refused() {
        let spacing = Spacing::new([1.0; 3]).expect("positive");
        let options = ResampleOptions { order: Order::Cubic, ..OPTIONS };
        let labels = array![[[0_i16, 1]]];
        let result = resample_labels(labels.view(), [1, 1, 1], spacing, spacing, &options, LabelRule::ArgmaxNearestTie);
        assert!(matches!(result, Err(ResampleError::LabelOrder { .. })));
    }
}
