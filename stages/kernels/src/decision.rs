//! From the scores of classes to the label of each voxel.

use ndarray::{Array3, ArrayView3, ArrayView4, ArrayViewMut3, Axis, Zip};

/// Gives each voxel the class with the largest score, the classes coming one after the other.
///
/// The first of equal scores wins, as in NumPy's and torch's `argmax`.
#[derive(Debug)]
pub struct ArgMax {
    best: Array3<f32>,
    labels: Array3<i16>,
    classes: i16,
}

impl ArgMax {
    /// A competition in which no class has taken part yet, for volumes of `shape`.
    #[must_use]
    pub fn new(shape: [usize; 3]) -> Self {
        Self { best: Array3::from_elem(shape, f32::NEG_INFINITY), labels: Array3::zeros(shape), classes: 0 }
    }

    /// Lets the next class take part; its label is the number of those before it.
    ///
    /// # Panics
    /// If `scores` has another shape than the competition.
    pub fn offer(&mut self, scores: ArrayView3<'_, f32>) {
        let class = self.classes;
        Zip::from(&mut self.best).and(&mut self.labels).and(scores).par_for_each(|best, label, &score| {
            if score > *best {
                *best = score;
                *label = class;
            }
        });
        self.classes += 1;
    }

    /// The winners.
    #[must_use]
    pub fn into_labels(self) -> Array3<i16> {
        self.labels
    }
}

/// The class with the largest of `scores` (`[class, z, y, x]`) in each voxel, the first of them on ties.
#[must_use]
pub fn argmax(scores: ArrayView4<'_, f32>) -> Array3<i16> {
    let (_, depth, height, width) = scores.dim();
    let mut winner = ArgMax::new([depth, height, width]);
    scores.axis_iter(Axis(0)).for_each(|class| winner.offer(class));
    winner.into_labels()
}

/// The labels of regions: where channel `k` of `probabilities` (`[region, z, y, x]`) is above one half the voxel gets
/// `regions_class_order[k]`, a later region over an earlier one; 0 elsewhere.
#[must_use]
pub fn paint_regions(probabilities: ArrayView4<'_, f32>, regions_class_order: &[i16]) -> Array3<i16> {
    let (_, depth, height, width) = probabilities.dim();
    let mut labels = Array3::zeros((depth, height, width));
    for (region, &label) in probabilities.axis_iter(Axis(0)).zip(regions_class_order) {
        paint_region(labels.view_mut(), region, 0.5, label);
    }
    labels
}

/// Writes `label` into the voxels whose score is above `threshold`.
///
/// # Panics
/// If both volumes differ in shape.
pub fn paint_region(labels: ArrayViewMut3<'_, i16>, scores: ArrayView3<'_, f32>, threshold: f32, label: i16) {
    Zip::from(labels).and(scores).par_for_each(|target, &score| {
        if score > threshold {
            *target = label;
        }
    });
}
