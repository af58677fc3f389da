//! The part of an image that holds something.
//!
//! Scanners and skull stripping leave much of a volume exactly zero. nnU-Net drops it before all else, because it costs
//! time and would otherwise count in the intensity statistics.

use ndarray::{Array3, ArrayView3, ArrayView4, Axis, Zip};

use crate::geometry::BoundingBox;
use crate::morphology::fill_holes;

/// The voxels where any channel of `image` (`[c, z, y, x]`) is not zero, holes filled.
///
/// A hole is a part of the zero voxels that has no way of shared faces to a face of the volume; a volume of one slice
/// therefore has none. Equal to nnU-Net 2.8.1 `create_nonzero_mask`.
#[must_use]
pub fn nonzero_mask(image: ArrayView4<'_, f32>) -> Array3<bool> {
    let (_, depth, height, width) = image.dim();
    let mut mask = Array3::from_elem((depth, height, width), false);
    for channel in image.axis_iter(Axis(0)) {
        Zip::from(&mut mask).and(channel).par_for_each(|inside, &value| *inside |= value != 0.0);
    }
    fill_holes(mask.view())
}

/// The smallest box around the true voxels of `mask` (`[z, y, x]`); none where there is no true voxel.
///
/// nnU-Net 2.8.1 keeps the whole volume of an image that is zero everywhere, so where it is to be followed
/// [`BoundingBox::whole`] takes the place of none.
#[must_use]
pub fn bounding_box(mask: ArrayView3<'_, bool>) -> Option<BoundingBox> {
    let mut start = [0; 3];
    let mut stop = [0; 3];
    // The first axis comes first: what it leaves out need not be looked at for the others.
    let mut rest = mask;
    for axis in 0..3 {
        let holds = |index: &usize| rest.index_axis(Axis(axis), *index).iter().any(|&inside| inside);
        let extent = rest.len_of(Axis(axis));
        start[axis] = (0..extent).find(holds)?;
        stop[axis] = (0..extent).rev().find(holds)? + 1;
        rest.slice_axis_inplace(Axis(axis), (start[axis]..stop[axis]).into());
    }
    Some(BoundingBox::new(start, stop).expect("invariant: the first true voxel is not after the last"))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4};

    use super::*;

    #[test]
    fn a_voxel_counts_if_any_channel_has_it() {
        let mut image = Array4::zeros((2, 1, 1, 3));
        image[[0, 0, 0, 0]] = -1.0;
        image[[1, 0, 0, 2]] = 0.5;
        let mask = nonzero_mask(image.view());
        assert_eq!(mask.iter().copied().collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn the_inside_of_a_shell_belongs_to_it() {
        let mut image = Array4::ones((1, 5, 5, 5));
        image[[0, 2, 2, 2]] = 0.0;
        assert!(nonzero_mask(image.view()).iter().all(|&inside| inside));
    }

    #[test]
    fn the_box_ends_one_past_the_last_voxel() {
        let mut mask = Array3::from_elem((4, 5, 6), false);
        mask[[1, 2, 3]] = true;
        mask[[2, 0, 4]] = true;
        let block = bounding_box(mask.view()).expect("two voxels");
        assert_eq!((block.start(), block.stop()), ([1, 0, 3], [3, 3, 5]));
    }

    #[test]
    fn a_mask_without_voxels_has_no_box() {
        assert_eq!(bounding_box(Array3::from_elem((2, 2, 2), false).view()), None);
    }
}
