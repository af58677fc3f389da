//! The kernels, called from Rust: arrays in, arrays out, no workflow and no file.
//!
//! ```console
//! $ cargo run --release --example kernels
//! ```
//!
//! Makes a phantom, crops it, resamples image and labels to isotropic voxels and back, and measures what the way there and
//! back costs the labels. Arrays are `[c, z, y, x]` or `[z, y, x]`, spacings are in millimetres in the same order.

use ndarray::Array3;
use nnflow_kernels::components::keep_largest;
use nnflow_kernels::crop::{bounding_box, nonzero_mask};
use nnflow_kernels::geometry::Spacing;
use nnflow_kernels::metrics::Confusion;
use nnflow_kernels::phantom::PhantomSettings;
use nnflow_kernels::resample::{LabelRule, Order, ResampleOptions, new_shape, resample_image, resample_labels};
use nnflow_kernels::tiling::{window_corners, window_starts};

fn main() -> anyhow::Result<()> {
    let case = PhantomSettings { labels: 3, seed: 3, ..PhantomSettings::default() }.generate(0)?;
    println!("phantom      {:?} at {:?} mm", case.image.shape(), case.spacing.values());

    let mask = nonzero_mask(case.image.view());
    let region = bounding_box(mask.view()).ok_or_else(|| anyhow::anyhow!("the phantom is empty"))?;
    let image = region.crop(case.image.view())?;
    let labels = region.crop(case.labels.view())?.mapv(i16::from);
    println!("cropped to   {:?}", region.shape());

    // As nnU-Net resamples: images by cubic splines, labels linearly, each label as an image of its own.
    let isotropic = Spacing::new([2.0; 3])?;
    let shape = new_shape(region.shape(), case.spacing, isotropic);
    let image_options = ResampleOptions { order: Order::Cubic, order_z: Order::Nearest, force_separate_z: None };
    let label_options = ResampleOptions { order: Order::Linear, ..image_options };
    let rule = LabelRule::ArgmaxNearestTie;
    let fine = resample_image(image, shape, case.spacing, isotropic, &image_options)?;
    let fine_labels = resample_labels(labels.view(), shape, case.spacing, isotropic, &label_options, rule)?;
    println!("resampled to {:?} at {:?} mm", fine.shape(), isotropic.values());

    let back = resample_labels(fine_labels.view(), region.shape(), isotropic, case.spacing, &label_options, rule)?;
    let confusion = Confusion::between(labels.view(), back.view(), None)?;
    for label in 1..=3 {
        let counts = confusion.counts(&[label]);
        let (all, largest) = component_sizes(&back, label);
        println!(
            "label {label}      Dice {:.4} there and back; largest component {largest} of {all} voxels",
            counts.dice()
        );
    }

    // Where a network with patches of 48 voxels would look, half a patch at a time.
    let starts = window_starts(&fine.shape()[1..], &[48; 3], 0.5)?;
    println!("windows      {} of 48 x 48 x 48", window_corners(&starts).len());
    Ok(())
}

/// Voxels of a label, and of its largest component.
fn component_sizes(labels: &Array3<i16>, label: i16) -> (usize, usize) {
    let count = |mask: &Array3<bool>| mask.iter().filter(|inside| **inside).count();
    let mask = labels.mapv(|value| value == label);
    (count(&mask), count(&keep_largest(mask.view())))
}
