//! From class scores on the network's grid to labels on the image's own grid.
//!
//! Resampling all classes before one is chosen takes a volume a class, which for a hundred classes on a CT is what runs
//! nnU-Net out of memory. Here the classes come one at a time and compete at once: three volumes, however many classes.

use ndarray::Array3;

use super::volume::resample_channel;
use super::{ResampleError, ResampleOptions, check_shapes, separate_axis};
use crate::decision::{ArgMax, paint_region};
use crate::geometry::Spacing;

/// Resamples the scores of `classes` classes one after the other and gives each voxel the class with the largest score,
/// the first of them on ties.
///
/// # Shapes and units
/// - `next_class`: called with 0, 1, … for the scores `[z, y, x]` of that class; logits or probabilities
/// - `current`, `new`: spacing in millimetres of the scores and of the grid of `new_shape`; they only decide whether an
///   axis is resampled apart
/// - returns `[z, y, x]` with the extents of `new_shape`; 0 everywhere if there is no class
///
/// # Errors
/// What `next_class` fails with; [`ResampleError::ClassShape`] if a class has another shape than the first;
/// [`ResampleError::EmptyAxis`] or [`ResampleError::TooLarge`] for grids that cannot be.
///
/// # Reference
/// nnU-Net 2.8.1 `convert_predicted_logits_to_segmentation_with_correct_shape` for labels.
pub fn resample_argmax<E: From<ResampleError>>(
    classes: usize,
    new_shape: [usize; 3],
    current: Spacing,
    new: Spacing,
    options: &ResampleOptions,
    next_class: impl FnMut(usize) -> Result<Array3<f32>, E>,
) -> Result<Array3<i16>, E> {
    let grid = Grid::new(new_shape, current, new, options)?;
    let mut winner = ArgMax::new(new_shape);
    grid.each_class(classes, next_class, |scores| winner.offer(scores.view()))?;
    Ok(winner.into_labels())
}

/// Resamples the logits of regions one after the other; where region `k` has a probability above one half, the voxel
/// gets `regions_class_order[k]`, and a later region paints over an earlier one.
///
/// The arguments are those of [`resample_argmax`], with one class for each region.
///
/// # Errors
/// Those of [`resample_argmax`].
///
/// # Reference
/// nnU-Net 2.8.1 `convert_predicted_logits_to_segmentation_with_correct_shape` for regions. A probability above one half
/// is a logit above 0, whose sigmoid need not be computed.
pub fn resample_regions<E: From<ResampleError>>(
    regions_class_order: &[i16],
    new_shape: [usize; 3],
    current: Spacing,
    new: Spacing,
    options: &ResampleOptions,
    next_region: impl FnMut(usize) -> Result<Array3<f32>, E>,
) -> Result<Array3<i16>, E> {
    let grid = Grid::new(new_shape, current, new, options)?;
    let mut order = regions_class_order.iter();
    let mut labels = Array3::zeros(new_shape);
    grid.each_class(regions_class_order.len(), next_region, |logits| {
        if let Some(&label) = order.next() {
            paint_region(labels.view_mut(), logits.view(), 0.0, label);
        }
    })?;
    Ok(labels)
}

/// Where the scores of all classes go.
struct Grid<'a> {
    new_shape: [usize; 3],
    apart: Option<usize>,
    options: &'a ResampleOptions,
}

impl<'a> Grid<'a> {
    fn new(
        new_shape: [usize; 3],
        current: Spacing,
        new: Spacing,
        options: &'a ResampleOptions,
    ) -> Result<Self, ResampleError> {
        // The volumes that the classes compete in are allocated before the first class has come.
        check_shapes(new_shape, new_shape)?;
        Ok(Self { new_shape, apart: separate_axis(current, new, options.force_separate_z), options })
    }

    fn each_class<E: From<ResampleError>>(
        &self,
        classes: usize,
        mut next_class: impl FnMut(usize) -> Result<Array3<f32>, E>,
        mut take: impl FnMut(Array3<f32>),
    ) -> Result<(), E> {
        let mut expected = None;
        for class in 0..classes {
            let scores = next_class(class)?;
            let found: [usize; 3] = scores.dim().into();
            let expected = *expected.get_or_insert(found);
            if found != expected {
                return Err(ResampleError::ClassShape { class, expected, found }.into());
            }
            check_shapes(found, self.new_shape)?;
            take(resample_channel(scores.view(), self.new_shape, self.apart, self.options));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;
    use crate::resample::Order;

    const OPTIONS: ResampleOptions =
        ResampleOptions { order: Order::Linear, order_z: Order::Nearest, force_separate_z: None };

    fn unit() -> Spacing {
        Spacing::new([1.0; 3]).expect("positive")
    }

    #[test]
    fn the_first_of_equal_classes_wins() {
        let scores = [array![[[0.0, 1.0, 1.0]]], array![[[0.0, 1.0, 2.0]]]];
        let labels = resample_argmax(2, [1, 1, 3], unit(), unit(), &OPTIONS, |class| {
            Ok::<_, ResampleError>(scores[class].clone())
        });
        assert_eq!(labels, Ok(array![[[0, 0, 1]]]));
    }

    #[test]
    fn a_later_region_paints_over_an_earlier_one() {
        let logits = [array![[[1.0, 1.0, -1.0]]], array![[[-1.0, 1.0, 0.0]]]];
        let labels = resample_regions(&[2, 1], [1, 1, 3], unit(), unit(), &OPTIONS, |region| {
            Ok::<_, ResampleError>(logits[region].clone())
        });
        assert_eq!(labels, Ok(array![[[2, 1, 0]]]));
    }

    #[test]
    fn a_class_of_another_shape_is_an_error() {
        let labels = resample_argmax(2, [1, 1, 3], unit(), unit(), &OPTIONS, |class| {
            Ok::<_, ResampleError>(Array3::zeros((1, 1, 3 + class)))
        });
        assert_eq!(labels, Err(ResampleError::ClassShape { class: 1, expected: [1, 1, 3], found: [1, 1, 4] }));
    }
}
