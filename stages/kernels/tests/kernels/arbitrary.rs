//! Arbitrary volumes for property tests, and running work on several numbers of threads.

use arbtest::arbitrary::{Result, Unstructured};
use ndarray::Array3;
use nnflow_kernels::geometry::Transpose;

pub(crate) fn shape(input: &mut Unstructured<'_>, largest: usize) -> Result<[usize; 3]> {
    Ok([input.int_in_range(1..=largest)?, input.int_in_range(1..=largest)?, input.int_in_range(1..=largest)?])
}

pub(crate) fn filled<T>(shape: [usize; 3], mut value: impl FnMut() -> Result<T>) -> Result<Array3<T>> {
    let values: Result<Vec<T>> = (0..shape.iter().product()).map(|_| value()).collect();
    Ok(Array3::from_shape_vec(shape, values?).expect("as many values as voxels"))
}

pub(crate) fn image(input: &mut Unstructured<'_>, shape: [usize; 3]) -> Result<Array3<f32>> {
    filled(shape, || Ok(f32::from(input.arbitrary::<i16>()?) / 8.0))
}

pub(crate) fn mask(input: &mut Unstructured<'_>, shape: [usize; 3]) -> Result<Array3<bool>> {
    filled(shape, || input.arbitrary())
}

pub(crate) fn labels(input: &mut Unstructured<'_>, shape: [usize; 3]) -> Result<Array3<i16>> {
    filled(shape, || input.int_in_range(-1..=3))
}

pub(crate) fn transpose(input: &mut Unstructured<'_>) -> Result<Transpose> {
    let all = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    Ok(Transpose::new(*input.choose(&all)?).expect("a permutation"))
}

/// The same work on one thread and on three.
pub(crate) fn on_one_and_three_threads<T: Send>(work: impl Fn() -> T + Sync) -> [T; 2] {
    [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(&work)
    })
}
