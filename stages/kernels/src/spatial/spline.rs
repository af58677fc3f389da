//! Third-order splines: the coefficients of an image, and its values between voxels.

use ndarray::{Array4, ArrayView4};

use super::coordinates::Row;

/// The pole of the cubic B-spline filter, and the factor that makes the filter keep a constant (Unser 1999).
const POLE: f64 = -0.267_949_192_431_122_7;
const GAIN: f32 = 6.0;

/// Terms of the filter's start that are summed: the pole to this power is below the precision of a double.
const TERMS: usize = 30;

/// The coefficients of the spline through the voxels of `source` `[c, z, y, x]`, mirrored at the borders; with `in_plane`
/// each slice has a spline of its own.
pub(super) fn coefficients(source: ArrayView4<'_, f32>, in_plane: bool) -> Array4<f32> {
    let (channels, depth, height, width) = source.dim();
    let mut values: Vec<f32> = source.as_standard_layout().iter().copied().collect();
    let axes = [(depth, height * width), (height, width), (width, 1)];
    for &(length, inner) in &axes[usize::from(in_plane)..] {
        // A constant is its own coefficient, and the filter needs two voxels to mirror.
        if length < 2 || values.is_empty() {
            continue;
        }
        for rows in values.chunks_exact_mut(length * inner) {
            filter_rows(rows, length, inner);
        }
    }
    Array4::from_shape_vec((channels, depth, height, width), values).expect("invariant: filtering keeps the shape")
}

/// Filters along `length` rows of `inner` values: once forwards, once backwards.
fn filter_rows(rows: &mut [f32], length: usize, inner: usize) {
    let pole = POLE as f32;
    for value in rows.iter_mut() {
        *value *= GAIN;
    }
    let mut start = vec![0.0_f32; inner];
    let period = 2 * (length - 1);
    for term in 0..TERMS {
        let wrapped = term % period;
        let row = wrapped.min(period - wrapped) * inner;
        let weight = POLE.powi(term as i32) as f32;
        for (sum, value) in start.iter_mut().zip(&rows[row..row + inner]) {
            *sum += weight * value;
        }
    }
    rows[..inner].copy_from_slice(&start);
    for row in 1..length {
        let (before, here) = rows.split_at_mut(row * inner);
        for (value, previous) in here[..inner].iter_mut().zip(&before[(row - 1) * inner..]) {
            *value += pole * previous;
        }
    }
    let (before, last) = rows.split_at_mut((length - 1) * inner);
    let scale = pole / (pole * pole - 1.0);
    for (value, previous) in last.iter_mut().zip(&before[(length - 2) * inner..]) {
        *value = scale * (pole * previous + *value);
    }
    for row in (0..length - 1).rev() {
        let (here, after) = rows.split_at_mut((row + 1) * inner);
        for (value, next) in here[row * inner..].iter_mut().zip(&after[..inner]) {
            *value = pole * (next - *value);
        }
    }
}

/// Weights of the four coefficients around a position, `fraction` beyond the second of them.
fn weights(fraction: f32) -> [f32; 4] {
    let rest = 1.0 - fraction;
    let second = (4.0 - 6.0 * fraction * fraction + 3.0 * fraction * fraction * fraction) / 6.0;
    let third = (4.0 - 6.0 * rest * rest + 3.0 * rest * rest * rest) / 6.0;
    [rest * rest * rest / 6.0, second, third, fraction * fraction * fraction / 6.0]
}

/// Fills a row of values from spline coefficients; 0 where a position lies outside the source.
pub(super) fn cubic_row(voxels: &[f32], shape: [usize; 3], row: &Row, values: &mut [f32], in_plane: bool) {
    let (line, plane) = (shape[2], shape[1] * shape[2]);
    let used = usize::from(in_plane)..3;
    for (index, value) in values.iter_mut().enumerate() {
        let position: [(i32, f32); 3] = std::array::from_fn(|axis| (row.whole[axis][index], row.fraction[axis][index]));
        if !used.clone().all(|axis| within(position[axis], shape[axis])) {
            *value = 0.0;
            continue;
        }
        let [across, along, within_line] = position.map(|(_, fraction)| weights(fraction));
        let taps: [[usize; 4]; 3] = std::array::from_fn(|axis| neighbours(position[axis].0, shape[axis]));
        let mut sums = [0.0_f32; 4];
        let mut add_slice = |start: usize, weight: f32| {
            for (y, weight_y) in taps[1].iter().zip(along) {
                let weight = weight * weight_y;
                let coefficients = four(&voxels[start + y * line..start + (y + 1) * line], taps[2]);
                for (sum, coefficient) in sums.iter_mut().zip(coefficients) {
                    *sum += weight * coefficient;
                }
            }
        };
        if in_plane {
            add_slice(0, 1.0);
        } else {
            taps[0].iter().zip(across).for_each(|(z, weight)| add_slice(z * plane, weight));
        }
        *value = sums.iter().zip(within_line).map(|(sum, weight)| sum * weight).sum();
    }
}

/// Four values of a line; away from the borders, where nothing is mirrored, they lie side by side.
#[inline(always)]
fn four(line: &[f32], taps: [usize; 4]) -> [f32; 4] {
    match line.get(taps[0]..taps[0] + 4) {
        Some(&[a, b, c, d]) if taps[1] == taps[0] + 1 && taps[3] == taps[0] + 3 => [a, b, c, d],
        _ => taps.map(|tap| line[tap]),
    }
}

/// Whether a position lies between the first and the last voxel of an axis.
fn within((whole, fraction): (i32, f32), length: usize) -> bool {
    let last = length as i32 - 1;
    whole >= 0 && (whole < last || (whole == last && fraction == 0.0))
}

/// The four voxels around a position, mirrored at the borders.
#[inline(always)]
fn neighbours(whole: i32, length: usize) -> [usize; 4] {
    let length = length as i32;
    if whole >= 1 && whole + 2 < length {
        return std::array::from_fn(|tap| whole as usize - 1 + tap);
    }
    let period = 2 * (length - 1);
    std::array::from_fn(|tap| {
        if period == 0 {
            return 0;
        }
        let wrapped = (whole - 1 + tap as i32).rem_euclid(period);
        wrapped.min(period - wrapped) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spatial::{Affine, Interpolation, SpatialMap, sample_image};

    #[test]
    fn the_weights_of_a_position_sum_to_one() {
        for step in 0..=10 {
            assert!((weights(step as f32 / 10.0).iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn the_spline_passes_through_the_voxels() {
        let source = Array4::from_shape_fn((1, 5, 2, 7), |(_, z, y, x)| ((z * 31 + y * 17 + x * 7) % 13) as f32);
        let map = SpatialMap { affine: Affine::IDENTITY, displacement: None, in_plane: false };
        let sampled = sample_image(source.view(), &map, [5, 2, 7], Interpolation::Cubic);
        for (value, expected) in sampled.iter().zip(&source) {
            assert!((value - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn values_between_voxels_are_scipys() {
        // scipy.ndimage.map_coordinates([1, 4, 2, 8, 5, 7], [[0.25, 0.75, ..., 4.75]], order=3, mode="constant")
        let source = Array4::from_shape_vec((1, 1, 1, 6), vec![1.0, 4.0, 2.0, 8.0, 5.0, 7.0]).expect("six values");
        let map =
            SpatialMap { affine: Affine::rotation_scaling([0.0; 3], [0.5; 3]), displacement: None, in_plane: true };
        let sampled = sample_image(source.view(), &map, [1, 1, 10], Interpolation::Cubic);
        let expected = [
            1.462_694_4,
            3.513_083,
            3.589_264_4,
            1.969_348_1,
            3.195_873_2,
            6.906_399_5,
            7.861_617_8,
            5.733_178_8,
            5.138_905_5,
            6.629_635_2,
        ];
        for (value, expected) in sampled.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "{value} for {expected}");
        }
    }
}
