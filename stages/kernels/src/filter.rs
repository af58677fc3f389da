//! Gaussian smoothing of volumes.
//!
//! Two rules for the length of a kernel live here, because two references need them: nnU-Net's augmentation takes the odd
//! length nearest to six standard deviations and mirrors at the border, SciPy cuts at a number of standard deviations.
//! Smoothing is separable, so a volume costs one pass along each axis, and an axis whose kernel is a single weight costs
//! none.

use ndarray::ArrayViewMut3;

/// Columns that a pass over a strided axis works on at a time, so that the copy of them stays in the cache.
const BLOCK: usize = 128;

/// Where the kernel of cubic splines is cut: the pole to this power is 7e-10.
const SPLINE_RADIUS: i32 = 16;

/// What lies beyond the border of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    /// The volume mirrored about its outermost voxels, `d c b | a b c d | c b a`: torch's `reflect`, SciPy's `mirror`.
    Mirror,
    /// Zeros.
    Zero,
}

impl Border {
    /// The voxel that stands at `position` of an axis of `length` voxels; none where it is zero.
    fn source(self, position: isize, length: usize) -> Option<usize> {
        let length = length as isize;
        if (0..length).contains(&position) {
            return Some(position as usize);
        }
        match self {
            Self::Zero => None,
            Self::Mirror if length == 1 => Some(0),
            Self::Mirror => {
                let period = 2 * (length - 1);
                let wrapped = position.rem_euclid(period);
                Some(wrapped.min(period - wrapped) as usize)
            }
        }
    }
}

/// The weights of a symmetric kernel of odd length, from its centre outwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    weights: Vec<f32>,
}

impl Kernel {
    /// The kernel of nnU-Net's augmentation: as many taps as the odd number nearest to `6 sigma + 0.5`.
    ///
    /// `sigma` is in voxels; a `sigma` that is not above 0 gives the kernel that changes nothing.
    ///
    /// # Reference
    /// Equal to `batchgeneratorsv2` 0.3.6, `transforms/noise/gaussian_blur.py`, `_build_kernel` with `truncate=6`.
    #[must_use]
    pub fn nearest_odd(sigma: f64) -> Self {
        let length = sigma * 6.0 + 0.5;
        // Python rounds halves to even, and an even result moves to the odd neighbour on the side of the exact value.
        let rounded = length.round_ties_even();
        let odd = if rounded % 2.0 != 0.0 {
            rounded
        } else if length >= rounded {
            rounded + 1.0
        } else {
            rounded - 1.0
        };
        Self::with_radius(sigma, (odd as usize) / 2)
    }

    /// The kernel of SciPy's `gaussian_filter`: cut `truncate` standard deviations from the centre.
    ///
    /// `sigma` is in voxels; a `sigma` that is not above 0 gives the kernel that changes nothing.
    #[must_use]
    pub fn truncated(sigma: f64, truncate: f64) -> Self {
        Self::with_radius(sigma, (truncate * sigma + 0.5) as usize)
    }

    /// The kernel that turns voxels into the coefficients of the cubic spline through them, where the border is mirrored.
    ///
    /// It has no end; it is cut where a weight is below what single precision tells from 0.
    ///
    /// # Reference
    /// Unser: Splines, a perfect fit for signal and image processing (1999), doi:10.1109/79.799930, box 2: the impulse
    /// response of the filter that `scipy.ndimage.spline_filter` applies recursively.
    #[must_use]
    pub fn cubic_spline() -> Self {
        let pole = 3.0_f64.sqrt() - 2.0;
        let centre = 6.0 * pole / (pole * pole - 1.0);
        Self { weights: (0..=SPLINE_RADIUS).map(|distance| (centre * pole.powi(distance)) as f32).collect() }
    }

    /// The kernel that changes nothing.
    #[must_use]
    pub fn identity() -> Self {
        Self { weights: vec![1.0] }
    }

    fn with_radius(sigma: f64, radius: usize) -> Self {
        if sigma.is_nan() || sigma <= 0.0 {
            return Self::identity();
        }
        let density = |distance: usize| (-0.5 * (distance as f64 / sigma).powi(2)).exp();
        let sum = density(0) + 2.0 * (1..=radius).map(density).sum::<f64>();
        Self { weights: (0..=radius).map(|distance| (density(distance) / sum) as f32).collect() }
    }

    /// The weights at distances 0, 1, 2, … from the centre; with those of the other side they sum to 1.
    #[must_use]
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    fn radius(&self) -> usize {
        self.weights.len() - 1
    }
}

/// Convolves `volume` `[z, y, x]` in place with one kernel along each axis.
pub fn smooth(mut volume: ArrayViewMut3<'_, f32>, kernels: &[Kernel; 3], border: Border) {
    let (depth, height, width) = volume.dim();
    let Some(values) = volume.as_slice_mut() else {
        let mut copy = volume.as_standard_layout().into_owned();
        smooth(copy.view_mut(), kernels, border);
        volume.assign(&copy);
        return;
    };
    if values.is_empty() {
        return;
    }
    for ((length, inner), kernel) in [(depth, height * width), (height, width), (width, 1)].into_iter().zip(kernels) {
        if kernel.radius() == 0 {
            continue;
        }
        for rows in values.chunks_exact_mut(length * inner) {
            if inner == 1 {
                smooth_line(rows, kernel, border);
            } else {
                smooth_rows(rows, length, kernel, border);
            }
        }
    }
}

/// Along a line whose values lie next to one another.
fn smooth_line(line: &mut [f32], kernel: &Kernel, border: Border) {
    let radius = kernel.radius();
    let padded: Vec<f32> = (0..line.len() + 2 * radius)
        .map(|index| border.source(index as isize - radius as isize, line.len()).map_or(0.0, |index| line[index]))
        .collect();
    for (value, centre) in line.iter_mut().zip(&padded[radius..]) {
        *value = kernel.weights[0] * centre;
    }
    for (distance, &weight) in kernel.weights.iter().enumerate().skip(1) {
        let pairs = padded[radius - distance..].iter().zip(&padded[radius + distance..]);
        for (value, (before, after)) in line.iter_mut().zip(pairs) {
            *value += weight * (before + after);
        }
    }
}

/// Along the first axis of `length` rows, a block of columns at a time.
fn smooth_rows(rows: &mut [f32], length: usize, kernel: &Kernel, border: Border) {
    let inner = rows.len() / length;
    let mut block = Vec::with_capacity(length * BLOCK.min(inner));
    for start in (0..inner).step_by(BLOCK) {
        let width = BLOCK.min(inner - start);
        block.clear();
        for index in 0..length {
            block.extend_from_slice(&rows[index * inner + start..index * inner + start + width]);
        }
        for index in 0..length {
            let values = &mut rows[index * inner + start..index * inner + start + width];
            smooth_row(values, &block, index, kernel, border);
        }
    }
}

/// Row `index` of the rows that `block` holds.
fn smooth_row(values: &mut [f32], block: &[f32], index: usize, kernel: &Kernel, border: Border) {
    let width = values.len();
    let row = |index: usize| &block[index * width..(index + 1) * width];
    let neighbour = |offset: isize| border.source(index as isize + offset, block.len() / width).map(row);
    for (value, centre) in values.iter_mut().zip(row(index)) {
        *value = kernel.weights[0] * centre;
    }
    for (distance, &weight) in kernel.weights.iter().enumerate().skip(1) {
        match (neighbour(-(distance as isize)), neighbour(distance as isize)) {
            (Some(before), Some(after)) => {
                for (value, (before, after)) in values.iter_mut().zip(before.iter().zip(after)) {
                    *value += weight * (before + after);
                }
            }
            (Some(one), None) | (None, Some(one)) => {
                for (value, one) in values.iter_mut().zip(one) {
                    *value += weight * one;
                }
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;

    fn impulse() -> Array3<f32> {
        let mut volume = Array3::zeros((9, 9, 9));
        volume[[4, 4, 4]] = 1.0;
        volume
    }

    #[test]
    fn the_odd_length_nearest_to_six_sigma_is_taken() {
        // 6 sigma + 0.5 is 3.5, 5.0, 6.5 and 4.4: Python's round gives 4, 5, 6 and 4.
        for (sigma, taps) in [(0.5, 3), (0.75, 5), (1.0, 7), (0.65, 5)] {
            assert_eq!(2 * Kernel::nearest_odd(sigma).radius() + 1, taps, "sigma {sigma}");
        }
    }

    #[test]
    fn the_weights_sum_to_one() {
        for kernel in [Kernel::nearest_odd(0.8), Kernel::truncated(11.0, 4.0), Kernel::truncated(0.0, 4.0)] {
            let sum = 2.0 * kernel.weights().iter().sum::<f32>() - kernel.weights()[0];
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        }
    }

    #[test]
    fn an_impulse_becomes_the_product_of_the_kernels() {
        let kernels = [Kernel::truncated(0.9, 2.0), Kernel::nearest_odd(0.5), Kernel::truncated(0.7, 4.0)];
        let mut smoothed = impulse();
        smooth(smoothed.view_mut(), &kernels, Border::Zero);
        let weight = |axis: usize, index: usize| kernels[axis].weights().get(index.abs_diff(4)).copied().unwrap_or(0.0);
        for ((z, y, x), value) in smoothed.indexed_iter() {
            assert!((value - weight(0, z) * weight(1, y) * weight(2, x)).abs() < 1e-7, "at {z} {y} {x}");
        }
    }

    #[test]
    fn a_mirrored_border_keeps_a_constant_constant() {
        let mut volume = Array3::from_elem((2, 1, 5), 3.0);
        smooth(volume.view_mut(), &std::array::from_fn(|_| Kernel::truncated(2.0, 4.0)), Border::Mirror);
        assert!(volume.iter().all(|value| (value - 3.0).abs() < 1e-5), "{volume}");
    }

    #[test]
    fn zeros_beyond_the_border_take_half_of_a_step_away() {
        let mut volume = Array3::from_elem((40, 1, 1), 1.0);
        let none = Kernel::truncated(0.0, 4.0);
        let kernel = Kernel::truncated(3.0, 4.0);
        let outermost = f64::from(0.5 + 0.5 * kernel.weights()[0]);
        smooth(volume.view_mut(), &[kernel, none.clone(), none], Border::Zero);
        assert!((f64::from(volume[[0, 0, 0]]) - outermost).abs() < 1e-6);
    }

    #[test]
    fn a_cubic_spline_passes_through_what_it_was_made_of() {
        let original = Array3::from_shape_fn((1, 1, 9), |(_, _, x)| ((x * 31) % 13) as f32);
        let mut coefficients = original.clone();
        let kernels = [Kernel::identity(), Kernel::identity(), Kernel::cubic_spline()];
        smooth(coefficients.view_mut(), &kernels, Border::Mirror);
        // At a voxel the cubic B-spline is 2/3, at its neighbours 1/6; the neighbours of the first are both the second.
        for x in 0..9_usize {
            let neighbour =
                |offset: isize| coefficients[[0, 0, Border::Mirror.source(x as isize + offset, 9).expect("mirrored")]];
            let value = (neighbour(-1) + 4.0 * neighbour(0) + neighbour(1)) / 6.0;
            assert!((value - original[[0, 0, x]]).abs() < 1e-5, "{value} at {x}");
        }
    }

    #[test]
    fn a_view_with_strides_is_smoothed_too() {
        let kernels = [Kernel::nearest_odd(0.9), Kernel::nearest_odd(0.6), Kernel::truncated(0.0, 4.0)];
        let mut expected = Array3::from_shape_fn((5, 6, 7), |(z, y, x)| ((z * 42 + y * 7 + x) % 11) as f32);
        let mut strided = expected.clone().permuted_axes([1, 0, 2]);
        smooth(expected.view_mut(), &kernels, Border::Mirror);
        let [first, second, third] = kernels;
        smooth(strided.view_mut(), &[second, first, third], Border::Mirror);
        for (value, expected) in strided.permuted_axes([1, 0, 2]).iter().zip(&expected) {
            assert!((value - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn mirroring_repeats_every_two_lengths_less_two() {
        let sources: Vec<_> = (-4..8).map(|position| Border::Mirror.source(position, 4)).collect();
        assert_eq!(sources, [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1].map(Some));
    }
}
