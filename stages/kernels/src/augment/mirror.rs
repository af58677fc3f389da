//! Mirroring.

use ndarray::Array4;

/// Reverses in place the axes of `array` `[c, z, y, x]` for which `axes` (z, y, x) is true.
pub fn mirror<T: Copy>(array: &mut Array4<T>, axes: [bool; 3]) {
    if array.as_slice().is_none() {
        *array = array.as_standard_layout().into_owned();
    }
    let (_, depth, height, width) = array.dim();
    let Some(values) = array.as_slice_mut().filter(|values| !values.is_empty()) else { return };
    if axes[0] {
        values.chunks_exact_mut(depth * height * width).for_each(|volume| reverse_rows(volume, height * width));
    }
    if axes[1] {
        values.chunks_exact_mut(height * width).for_each(|slice| reverse_rows(slice, width));
    }
    if axes[2] {
        values.chunks_exact_mut(width).for_each(<[T]>::reverse);
    }
}

/// Reverses the order of rows of `length` values.
fn reverse_rows<T>(rows: &mut [T], length: usize) {
    let count = rows.len() / length;
    for index in 0..count / 2 {
        let (front, back) = rows.split_at_mut((count - 1 - index) * length);
        front[index * length..(index + 1) * length].swap_with_slice(&mut back[..length]);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn only_the_named_axes_are_reversed() {
        let array = array![[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]];
        for (axes, expected) in [
            ([true, false, false], array![[[[5, 6], [7, 8]], [[1, 2], [3, 4]]]]),
            ([false, true, true], array![[[[4, 3], [2, 1]], [[8, 7], [6, 5]]]]),
            ([false; 3], array.clone()),
        ] {
            let mut mirrored = array.clone();
            mirror(&mut mirrored, axes);
            assert_eq!(mirrored, expected);
        }
    }

    #[test]
    fn a_middle_row_stays_where_it_is() {
        let mut array = array![[[[1], [2], [3]]]];
        mirror(&mut array, [true, true, true]);
        assert_eq!(array, array![[[[3], [2], [1]]]]);
    }
}
