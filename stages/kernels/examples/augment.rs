//! Times the augmentation of patches in one thread, as one of the threads that make batches does it.
//!
//! `cargo run --release -p nnflow-kernels --example augment -- ZxYxX SAMPLES`

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use ndarray::{Array4, ArrayView, Dimension as Axes, Slice};
use nnflow_kernels::augment::{
    Augmentation, AugmentationSettings, DUMMY_2D_ABOVE, Dimension, Sample, deep_supervision_targets,
};
use nnflow_kernels::random::CounterRandom;

/// Of three supervised outputs.
const SCALES: [[f64; 3]; 3] = [[1.0; 3], [0.5; 3], [0.25; 3]];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(shape), Some(samples)) = (arguments.next(), arguments.next()) else {
        return Err("expected ZxYxX SAMPLES".into());
    };
    let extents = shape.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let patch: [usize; 3] = extents.try_into().map_err(|_| "expected three extents")?;
    let samples: u32 = samples.parse()?;
    // Work on an image is shared between threads where there are several.
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()?;
    let augmentation = Augmentation::new(AugmentationSettings::nnunet_v2(Dimension::Three, patch, DUMMY_2D_ABOVE))?;
    let whole = noise(augmentation.settings().initial_patch(patch));
    let one = |number: u32| -> Result<(), Box<dyn Error>> {
        let random = CounterRandom::new(1, [0, number, 0]);
        let drawn = augmentation.draw(&random, 1);
        let initial = [whole.image.shape()[1], whole.image.shape()[2], whole.image.shape()[3]];
        let window = drawn.window(initial, patch);
        let part = Sample { image: middle(whole.image.view(), window), labels: middle(whole.labels.view(), window) };
        let made = augmentation.apply(&drawn, part, patch)?;
        black_box(deep_supervision_targets(made.labels.view(), &SCALES));
        black_box(made);
        Ok(())
    };
    one(0)?;
    let start = Instant::now();
    (1..=samples).try_for_each(one)?;
    println!("{{\"wall_seconds\": {}}}", start.elapsed().as_secs_f64() / f64::from(samples));
    Ok(())
}

/// A patch of noise with two balls as labels, one within the other: regions, as organs and lesions are.
fn noise([z, y, x]: [usize; 3]) -> Sample {
    let mut random = CounterRandom::new(2, [0, 0, 0]);
    let image = Array4::from_shape_simple_fn((1, z, y, x), || random.normal() as f32);
    let place = |index: usize, extent: usize| 2.0 * index as f64 / (extent - 1) as f64 - 1.0;
    let labels = Array4::from_shape_fn((1, z, y, x), |(_, k, j, i)| {
        let distance = (place(k, z).powi(2) + place(j, y).powi(2) + place(i, x).powi(2)).sqrt();
        i16::from(distance < 0.6) + i16::from(distance < 0.3)
    });
    Sample { image, labels }
}

/// The part of this shape in the middle of a volume.
fn middle<T: Copy, D: Axes<Smaller: Axes>>(volume: ArrayView<'_, T, D>, window: [usize; 3]) -> ndarray::Array<T, D> {
    let mut part = volume;
    for (axis, extent) in window.into_iter().enumerate() {
        let first = (part.shape()[axis + 1] - extent) / 2;
        part.slice_axis_inplace(ndarray::Axis(axis + 1), Slice::from(first..first + extent));
    }
    part.to_owned()
}
