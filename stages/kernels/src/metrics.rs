//! How well two label maps agree.
//!
//! One pass counts every pair of labels; whatever label or region is asked for is added up from that, so a hundred labels
//! cost no more than one. Surfaces are found label by label, each within the box around it.

mod surface;

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Add;

use ndarray::{ArrayView3, Zip};
use serde::{Deserialize, Serialize};

pub use surface::{LabelPair, SurfaceDistances};

/// Why two label maps cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// A prediction of another shape than its reference.
    #[error("the prediction has shape `{prediction:?}`, its reference `{reference:?}`")]
    Shape {
        /// Shape of the reference.
        reference: [usize; 3],
        /// Shape of the prediction.
        prediction: [usize; 3],
    },
}

/// Voxels of one label or region: those that both label maps have, only one of them, or neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Voxels in the reference and in the prediction (true positives).
    pub tp: u64,
    /// Voxels in the prediction only (false positives).
    pub fp: u64,
    /// Voxels in the reference only (false negatives).
    pub fn_: u64,
    /// Voxels in neither (true negatives).
    pub tn: u64,
}

impl Counts {
    /// `2 tp / (2 tp + fp + fn)`; NaN where neither side has a voxel.
    #[must_use]
    pub fn dice(&self) -> f64 {
        // Zero over zero is NaN, which is what nnU-Net writes down for a label that is on neither side.
        2.0 * self.tp as f64 / (2 * self.tp + self.fp + self.fn_) as f64
    }

    /// Intersection over union `tp / (tp + fp + fn)`; NaN where neither side has a voxel.
    #[must_use]
    pub fn iou(&self) -> f64 {
        self.tp as f64 / (self.tp + self.fp + self.fn_) as f64
    }

    /// Voxels of the prediction.
    #[must_use]
    pub fn predicted(&self) -> u64 {
        self.tp + self.fp
    }

    /// Voxels of the reference.
    #[must_use]
    pub fn reference(&self) -> u64 {
        self.tp + self.fn_
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { tp: self.tp + other.tp, fp: self.fp + other.fp, fn_: self.fn_ + other.fn_, tn: self.tn + other.tn }
    }
}

/// Pools counts, e.g. those of the patches of an epoch.
impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Self::add)
    }
}

/// How often each pair of labels occurs in a voxel of the reference and the same voxel of the prediction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Voxels of each pair of a reference's and a prediction's label.
    cells: BTreeMap<(i16, i16), u64>,
}

impl Confusion {
    /// Counts the pairs of two label maps (`[z, y, x]`) outside of the voxels where the *reference* is `ignore`.
    ///
    /// # Errors
    /// [`MetricsError::Shape`] if the shapes differ.
    ///
    /// # Reference
    /// With [`counts`](Self::counts) equal to nnU-Net 2.8.1 `compute_tp_fp_fn_tn`.
    pub fn between(
        reference: ArrayView3<'_, i16>,
        prediction: ArrayView3<'_, i16>,
        ignore: Option<i16>,
    ) -> Result<Self, MetricsError> {
        if reference.dim() != prediction.dim() {
            return Err(MetricsError::Shape { reference: reference.dim().into(), prediction: prediction.dim().into() });
        }
        let count_row = |confusion: Self, reference, prediction| confusion.with_row(reference, prediction, ignore);
        let rows = Zip::from(reference.rows()).and(prediction.rows());
        Ok(rows.par_fold(Self::default, count_row, Self::merge))
    }

    /// What the label, or the region made of several labels, has on both sides.
    #[must_use]
    pub fn counts(&self, labels: &[i16]) -> Counts {
        let mut counts = Counts::default();
        for (&(reference, prediction), &voxels) in &self.cells {
            match (labels.contains(&reference), labels.contains(&prediction)) {
                (true, true) => counts.tp += voxels,
                (false, true) => counts.fp += voxels,
                (true, false) => counts.fn_ += voxels,
                (false, false) => counts.tn += voxels,
            }
        }
        counts
    }

    /// Each pair of a reference's and a prediction's label that occurs, in ascending order, with its voxels.
    pub fn pairs(&self) -> impl Iterator<Item = ((i16, i16), u64)> + '_ {
        self.cells.iter().map(|(&pair, &voxels)| (pair, voxels))
    }

    /// Both counts together.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        for (pair, voxels) in other.cells {
            *self.cells.entry(pair).or_default() += voxels;
        }
        self
    }

    fn with_row(
        mut self,
        reference: ndarray::ArrayView1<'_, i16>,
        prediction: ndarray::ArrayView1<'_, i16>,
        ignore: Option<i16>,
    ) -> Self {
        let mut pairs = reference.iter().copied().zip(prediction.iter().copied()).peekable();
        // Labels come in runs, so a look into the map is needed once a run, not once a voxel.
        while let Some(pair) = pairs.next() {
            let mut voxels = 1;
            while pairs.next_if_eq(&pair).is_some() {
                voxels += 1;
            }
            if Some(pair.0) != ignore {
                *self.cells.entry(pair).or_default() += voxels;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    fn confusion(ignore: Option<i16>) -> Confusion {
        let reference = array![[[0, 0, 1, 1, 1, 2, 9, 9]]];
        let prediction = array![[[0, 1, 1, 1, 2, 2, 1, 0]]];
        Confusion::between(reference.view(), prediction.view(), ignore).expect("same shape")
    }

    #[test]
    fn a_label_is_counted_on_both_sides() {
        assert_eq!(confusion(None).counts(&[1]), Counts { tp: 2, fp: 2, fn_: 1, tn: 3 });
    }

    #[test]
    fn ignored_voxels_of_the_reference_count_nowhere() {
        assert_eq!(confusion(Some(9)).counts(&[1]), Counts { tp: 2, fp: 1, fn_: 1, tn: 2 });
    }

    #[test]
    fn mistakes_within_a_region_are_none() {
        assert_eq!(confusion(Some(9)).counts(&[1, 2]), Counts { tp: 4, fp: 1, fn_: 0, tn: 1 });
    }

    #[test]
    fn dice_and_iou_by_hand() {
        let counts = Counts { tp: 2, fp: 1, fn_: 1, tn: 2 };
        assert_eq!((counts.dice(), counts.iou()), (4.0 / 6.0, 0.5));
        assert_eq!((counts.predicted(), counts.reference()), (3, 3));
    }

    #[test]
    fn a_label_on_neither_side_has_no_dice() {
        let counts = confusion(None).counts(&[5]);
        assert!(counts.dice().is_nan() && counts.iou().is_nan());
    }

    #[test]
    fn a_missed_organ_has_dice_zero() {
        assert_eq!(Counts { tp: 0, fp: 0, fn_: 3, tn: 1 }.dice(), 0.0);
    }

    #[test]
    fn pooling_adds_the_counts() {
        let first = Counts { tp: 1, fp: 2, fn_: 3, tn: 4 };
        let pooled: Counts = [first, first].into_iter().sum();
        assert_eq!(pooled, Counts { tp: 2, fp: 4, fn_: 6, tn: 8 });
    }

    #[test]
    fn label_maps_of_two_shapes_are_an_error() {
        let result = Confusion::between(Array3::zeros((1, 1, 2)).view(), Array3::zeros((1, 2, 1)).view(), None);
        assert_eq!(result, Err(MetricsError::Shape { reference: [1, 1, 2], prediction: [1, 2, 1] }));
    }
}
