//! Kernels in memory, each with the bytes that it has to read and write at least.
//!
//! `cargo xtask bench --kernels`; docs/benchmarks.md says how to read what it prints.

use divan::Bencher;
use divan::counter::BytesCount;
use ndarray::{Array3, Array4, Axis};
use nnflow_bench::{SHAPE, SPACING, copy, image, inside, labels};
use nnflow_kernels::components::keep_largest;
use nnflow_kernels::crop::{bounding_box, nonzero_mask};
use nnflow_kernels::geometry::Spacing;
use nnflow_kernels::intensity::zscore;
use nnflow_kernels::metrics::Confusion;
use nnflow_kernels::resample::{
    Decision, LabelRule, Order, Regrid, ResampleOptions, Rule, ScorePlanes, resample_labels, resize_image,
};

/// Runs of each kernel.
const RUNS: u32 = 10;

/// A grid that is finer by one half along each axis than half of [`SHAPE`].
const COARSE: [usize; 3] = [96, 128, 128];
const FINE: [usize; 3] = [144, 192, 192];

/// Classes of a prediction.
const CLASSES: usize = 20;

fn main() {
    divan::Divan::from_args().sample_count(RUNS).sample_size(1).main();
}

fn voxels(shape: [usize; 3]) -> usize {
    shape.iter().product()
}

fn spacing(of: [f64; 3]) -> Spacing {
    Spacing::new(of).expect("invariant: spacings are positive")
}

/// The limit of memory: nothing but reading and writing.
#[divan::bench]
fn a_copy(bencher: Bencher<'_, '_>) {
    let from = vec![1_u8; 4 * voxels(SHAPE)];
    let mut to = vec![0_u8; from.len()];
    bencher.counter(BytesCount::new(2 * from.len())).bench_local(|| copy(&from, &mut to));
}

#[divan::bench]
fn spline_resize(bencher: Bencher<'_, '_>) {
    let image = image(COARSE);
    let bytes = 4 * (voxels(COARSE) + voxels(FINE));
    bencher.counter(BytesCount::new(bytes)).bench_local(|| resize_image(image.view(), FINE, Order::Cubic));
}

#[divan::bench]
fn label_resize(bencher: Bencher<'_, '_>) {
    let labels = labels(COARSE);
    let options = ResampleOptions { order: Order::Linear, order_z: Order::Nearest, force_separate_z: None };
    let rule = LabelRule::ArgmaxNearestTie;
    let spacing = spacing(SPACING);
    bencher
        .counter(BytesCount::new(2 * (voxels(COARSE) + voxels(FINE))))
        .bench_local(|| resample_labels(labels.view(), FINE, spacing, spacing, &options, rule));
}

/// From the scores of twenty classes to labels on a finer grid: the export of a prediction.
#[divan::bench]
fn class_decision(bencher: Bencher<'_, '_>) {
    let mut scores = Array4::zeros((CLASSES, COARSE[0], COARSE[1], COARSE[2]));
    let base = image(COARSE);
    for (class, mut volume) in scores.axis_iter_mut(Axis(0)).enumerate() {
        volume.assign(&base.mapv(|value| -(value - 50.0 * class as f32).abs()));
    }
    let options = ResampleOptions { order: Order::Linear, order_z: Order::Nearest, force_separate_z: None };
    let spacing = spacing(SPACING);
    let regrid = Regrid::new(COARSE, FINE, spacing, spacing, &options).expect("invariant: the grids are not empty");
    let decision = Decision { regrid: &regrid, rule: Rule::Largest, limits: &[] };
    let mut labels = Array3::zeros(FINE);
    bencher.counter(BytesCount::new(4 * scores.len() + 2 * voxels(FINE))).bench_local(|| {
        let planes = ScorePlanes { values: scores.view(), first: 0 };
        decision.labels(planes, &(0..FINE[0]), labels.view_mut());
    });
}

/// The nonzero region with its holes filled, and the box around it.
#[divan::bench]
fn crop(bencher: Bencher<'_, '_>) {
    let image = image(SHAPE).insert_axis(Axis(0));
    bencher.counter(BytesCount::new(5 * voxels(SHAPE))).bench_local(|| bounding_box(nonzero_mask(image.view()).view()));
}

#[divan::bench]
fn largest_component(bencher: Bencher<'_, '_>) {
    let mask = labels(SHAPE).mapv(|label| label > 0);
    bencher.counter(BytesCount::new(2 * voxels(SHAPE))).bench_local(|| keep_largest(mask.view()));
}

#[divan::bench]
fn z_score(bencher: Bencher<'_, '_>) {
    let image = image(SHAPE);
    let mask = inside(image.view());
    // The image is read for its mean and deviation, then read and written.
    bencher
        .counter(BytesCount::new((3 * 4 + 2) * voxels(SHAPE)))
        .with_inputs(|| image.clone())
        .bench_local_values(|mut image| zscore(image.view_mut(), Some(mask.view())).map(|()| image));
}

#[divan::bench]
fn confusion_counts(bencher: Bencher<'_, '_>) {
    let (reference, prediction) = (labels(SHAPE), labels(SHAPE));
    bencher
        .counter(BytesCount::new(4 * voxels(SHAPE)))
        .bench_local(|| Confusion::between(reference.view(), prediction.view(), None));
}
