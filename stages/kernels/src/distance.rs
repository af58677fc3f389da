//! How far each voxel is from the nearest one of a set.

use ndarray::parallel::prelude::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use ndarray::{Array3, ArrayView3, ArrayViewMut1, ArrayViewMut2, Axis, s};

use crate::geometry::Spacing;

/// Lines that are taken out of a volume together: as many numbers as a cache line has.
const LINES: usize = 16;

/// The squared Euclidean distance, in mm², of each voxel of a volume `[z, y, x]` from the nearest voxel for which `is_seed`
/// holds; infinite everywhere where there is none.
///
/// Distances are those of voxel centres. The nearest voxel is found in double precision along each axis; what is kept
/// between axes is in single precision, so that a distance is right to about one part in 10^7.
///
/// # Reference
/// Felzenszwalb, Huttenlocher: Distance transforms of sampled functions (Theory of Computing 8, 2012),
/// doi:10.4086/toc.2012.v008a019, section 2.1. The first axis needs no parabolas, because its function is zero or infinite.
#[must_use]
pub fn squared_distances<T: Sync>(
    volume: ArrayView3<'_, T>,
    is_seed: impl Fn(&T) -> bool + Sync,
    spacing: Spacing,
) -> Array3<f32> {
    let mut squared = Array3::zeros(volume.raw_dim());
    let planes = squared.axis_iter_mut(Axis(0)).into_par_iter().zip(volume.axis_iter(Axis(0)));
    planes.for_each(|(mut plane, seeds)| {
        for (row, seeds) in plane.outer_iter_mut().zip(seeds.outer_iter()) {
            along_row(row, seeds.iter().map(&is_seed), spacing[2]);
        }
        along_first_axis(plane, spacing[1]);
    });
    squared.axis_iter_mut(Axis(1)).into_par_iter().for_each(|slab| along_first_axis(slab, spacing[0]));
    squared
}

/// Distances within one row: from the last seed before a voxel, or the first one after it.
fn along_row(mut row: ArrayViewMut1<'_, f32>, seeds: impl Iterator<Item = bool>, step: f64) {
    let mut last = None;
    for (position, (value, is_seed)) in row.iter_mut().zip(seeds).enumerate() {
        last = if is_seed { Some(position) } else { last };
        *value = last.map_or(f32::INFINITY, |last| square(position - last, step));
    }
    let mut next = None;
    for (position, value) in row.iter_mut().enumerate().rev() {
        next = if *value == 0.0 { Some(position) } else { next };
        if let Some(next) = next {
            *value = value.min(square(next - position, step));
        }
    }
}

fn square(voxels: usize, step: f64) -> f32 {
    (voxels as f64 * step).powi(2) as f32
}

/// Adds another axis to the squared distances: the first axis of `lines`, `[n, lines]`.
fn along_first_axis(mut lines: ArrayViewMut2<'_, f32>, step: f64) {
    let (length, count) = lines.dim();
    if length < 2 {
        return;
    }
    let mut block = vec![0.0; length * LINES];
    let mut envelope = Envelope::new(length, step);
    for first in (0..count).step_by(LINES) {
        let mut some = lines.slice_mut(s![.., first..(first + LINES).min(count)]);
        for (position, row) in some.outer_iter().enumerate() {
            for (line, value) in row.iter().enumerate() {
                block[line * length + position] = *value;
            }
        }
        let width = some.ncols();
        block.chunks_exact_mut(length).take(width).for_each(|line| envelope.transform(line));
        for (position, mut row) in some.outer_iter_mut().enumerate() {
            for (line, value) in row.iter_mut().enumerate() {
                *value = block[line * length + position];
            }
        }
    }
}

/// The lower envelope of parabolas, one at each voxel of a line that has a finite value.
struct Envelope {
    step_squared: f64,
    parabolas: Vec<Parabola>,
    /// `1 / 2n` for each number of voxels that two vertices may be apart: divisions would take most of the time.
    halved_reciprocals: Vec<f64>,
}

/// A parabola of the envelope, in units of voxels: `height + (x - vertex)²`, lowest from `start` on.
#[derive(Clone, Copy)]
struct Parabola {
    vertex: usize,
    height: f64,
    start: f64,
}

impl Envelope {
    fn new(length: usize, step: f64) -> Self {
        let halved_reciprocals = (0..length).map(|voxels| 0.5 / voxels as f64).collect();
        Self { step_squared: step * step, parabolas: Vec::with_capacity(length), halved_reciprocals }
    }

    /// Replaces squared distances by the smallest sum of one of them and the squared distance along the line.
    fn transform(&mut self, line: &mut [f32]) {
        self.parabolas.clear();
        let per_step = 1.0 / self.step_squared;
        for (position, value) in line.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            self.add(position, f64::from(*value) * per_step);
        }
        let Some(first) = self.parabolas.first().copied() else { return };
        let mut rest = self.parabolas.get(1..).unwrap_or_default();
        let mut lowest = first;
        for (position, value) in line.iter_mut().enumerate() {
            let position = position as f64;
            while let Some((next, others)) = rest.split_first().filter(|(next, _)| next.start <= position) {
                (lowest, rest) = (*next, others);
            }
            let offset = position - lowest.vertex as f64;
            *value = (self.step_squared * (lowest.height + offset * offset)) as f32;
        }
    }

    /// Adds a parabola to the right of all others, and drops those that are nowhere the lowest any more.
    fn add(&mut self, vertex: usize, height: f64) {
        while let Some(last) = self.parabolas.last() {
            let apart = vertex - last.vertex;
            let middle = 0.5 * (vertex + last.vertex) as f64;
            let start = middle + (height - last.height) * self.halved_reciprocals[apart];
            if start > last.start {
                self.parabolas.push(Parabola { vertex, height, start });
                return;
            }
            self.parabolas.pop();
        }
        self.parabolas.push(Parabola { vertex, height, start: f64::NEG_INFINITY });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    fn spacing(values: [f64; 3]) -> Spacing {
        Spacing::new(values).expect("positive")
    }

    fn squared(seeds: &Array3<bool>, values: [f64; 3]) -> Array3<f32> {
        squared_distances(seeds.view(), |&seed| seed, spacing(values))
    }

    #[test]
    fn distances_in_a_row_by_hand() {
        let seeds = array![[[false, true, false, false, false, true]]];
        assert_eq!(squared(&seeds, [1.0, 1.0, 2.0]), array![[[4.0, 0.0, 4.0, 16.0, 4.0, 0.0]]]);
    }

    #[test]
    fn each_axis_has_its_own_spacing() {
        let mut seeds = Array3::from_elem((2, 2, 2), false);
        seeds[[0, 0, 0]] = true;
        let expected = array![[[0.0, 16.0], [9.0, 25.0]], [[4.0, 20.0], [13.0, 29.0]]];
        assert_eq!(squared(&seeds, [2.0, 3.0, 4.0]), expected);
    }

    #[test]
    fn without_a_seed_every_distance_is_infinite() {
        let distances = squared(&Array3::from_elem((2, 3, 4), false), [1.0; 3]);
        assert!(distances.iter().all(|distance| distance.is_infinite()));
    }

    #[test]
    fn an_empty_volume_has_no_distances() {
        assert!(squared(&Array3::from_elem((0, 3, 4), true), [1.0; 3]).is_empty());
        assert!(squared(&Array3::from_elem((3, 0, 4), true), [1.0; 3]).is_empty());
    }
}
