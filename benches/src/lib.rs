//! What the benchmarks share: volumes that look like images, and the limits of the machine.
//!
//! A kernel's figure says little by itself. Each benchmark therefore tells how many bytes it has to move at least, and
//! [`copy`] moves bytes and does nothing else: what a kernel reaches of a copy's bytes a second is its share of what the
//! memory allows.

use ndarray::{Array3, ArrayView3};
use nnflow_kernels::random::CounterRandom;
use rayon::prelude::*;

/// Voxels along each axis of most volumes: 50 MB as `f32`, more than the caches hold.
pub const SHAPE: [usize; 3] = [192, 256, 256];

/// Spacing of volumes in millimetres; no axis is resampled apart.
pub const SPACING: [f64; 3] = [1.0, 1.0, 1.0];

/// Bytes of a piece that one thread copies at a time.
const PIECE: usize = 1 << 20;

/// Structures in [`labels`].
const STRUCTURES: usize = 12;

/// An image `[z, y, x]`: a smooth body with noise in whole numbers, as scanners give, and nothing around it.
#[must_use]
pub fn image(shape: [usize; 3]) -> Array3<f32> {
    let mut noise = CounterRandom::new(1, [0; 3]);
    Array3::from_shape_fn(shape, |(z, y, x)| {
        let squares =
            [(z, 0), (y, 1), (x, 2)].map(|(place, axis)| (2.0 * place as f64 / shape[axis] as f64 - 1.0).powi(2));
        let distance: f64 = squares.iter().sum();
        if distance > 0.9 { 0.0 } else { (1000.0 * (1.0 - distance) + noise.range(0.0, 64.0)).round() as f32 }
    })
}

/// A label map `[z, y, x]`: balls of different sizes, some of which overlap.
#[must_use]
pub fn labels(shape: [usize; 3]) -> Array3<i16> {
    let mut random = CounterRandom::new(2, [0; 3]);
    let balls: Vec<_> = (0..STRUCTURES)
        .map(|_| (shape.map(|extent| random.range(0.0, extent as f64)), random.range(0.05, 0.2) * shape[0] as f64))
        .collect();
    Array3::from_shape_fn(shape, |(z, y, x)| {
        let inside = |(centre, radius): &([f64; 3], f64)| {
            let squares = [z, y, x].into_iter().zip(centre).map(|(place, middle)| (place as f64 - middle).powi(2));
            squares.sum::<f64>() < radius * radius
        };
        balls.iter().position(inside).map_or(0, |ball| ball as i16 + 1)
    })
}

/// Where an image is not zero.
#[must_use]
pub fn inside(image: ArrayView3<'_, f32>) -> Array3<bool> {
    image.mapv(|value| value != 0.0)
}

/// Copies bytes with all threads: what the memory allows.
pub fn copy(from: &[u8], to: &mut [u8]) {
    from.par_chunks(PIECE).zip(to.par_chunks_mut(PIECE)).for_each(|(from, to)| to.copy_from_slice(from));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole() {
        let from: Vec<u8> = (0..3 * PIECE + 7).map(|place| (place % 251) as u8).collect();
        let mut to = vec![0; from.len()];
        copy(&from, &mut to);
        assert!(from == to);
    }

    #[test]
    fn an_image_has_a_body_and_nothing_around_it() {
        let image = image([16, 16, 16]);
        assert_eq!(image[[0, 0, 0]], 0.0);
        assert!(image[[8, 8, 8]] >= 900.0);
    }
}
