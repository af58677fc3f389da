//! Growing and shrinking masks, and filling their holes.
//!
//! nnU-Net distorts the segmentation that a cascade's second network is given with balls of up to eight voxels radius.
//! Done voxel by voxel a ball of that size costs 2109 look-ups a voxel; here a row of a structuring element is one
//! interval, and 64 voxels of a row are one word.

mod bits;
mod element;

use ndarray::{Array3, ArrayView3};

use crate::components::{Components, Connectivity};
use bits::BitVolume;
pub use element::Element;

/// The voxels from which the element reaches a voxel of `mask` (`[z, y, x]`); outside of the volume there is none.
///
/// Equal to batchgeneratorsv2 0.3.6 `binary_dilation_torch`.
#[must_use]
pub fn dilate(mask: ArrayView3<'_, bool>, element: &Element) -> Array3<bool> {
    BitVolume::new(mask).dilate(element).to_mask()
}

/// The voxels from which the element reaches nothing but voxels of `mask` and the outside of the volume.
///
/// Equal to batchgeneratorsv2 0.3.6 `binary_erosion_torch`.
#[must_use]
pub fn erode(mask: ArrayView3<'_, bool>, element: &Element) -> Array3<bool> {
    BitVolume::new(mask).erode(element).to_mask()
}

/// [`erode`], then [`dilate`]: removes what is thinner than the element.
#[must_use]
pub fn open(mask: ArrayView3<'_, bool>, element: &Element) -> Array3<bool> {
    BitVolume::new(mask).erode(element).dilate(element).to_mask()
}

/// [`dilate`], then [`erode`]: closes gaps that are thinner than the element.
#[must_use]
pub fn close(mask: ArrayView3<'_, bool>, element: &Element) -> Array3<bool> {
    BitVolume::new(mask).dilate(element).erode(element).to_mask()
}

/// `mask` with those parts of its background that have no way of shared faces to a face of the volume.
///
/// In a volume of one slice every voxel lies on a face, so it has no holes. Equal to
/// `scipy.ndimage.binary_fill_holes` 1.17.
#[must_use]
pub fn fill_holes(mask: ArrayView3<'_, bool>) -> Array3<bool> {
    let background = Components::of_value(mask, false, Connectivity::Faces);
    let outside = background.touch_border();
    let mut filled = background.select(|component| outside[component]);
    filled.par_mapv_inplace(|outside| !outside);
    filled
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    fn single_voxel(shape: (usize, usize, usize), at: [usize; 3]) -> Array3<bool> {
        let mut mask = Array3::from_elem(shape, false);
        mask[at] = true;
        mask
    }

    #[test]
    fn dilating_a_voxel_with_the_unit_ball_makes_a_cross() {
        let grown = dilate(single_voxel((3, 3, 3), [1, 1, 1]).view(), &Element::ball(1.0));
        for ((z, y, x), &inside) in grown.indexed_iter() {
            let steps = z.abs_diff(1) + y.abs_diff(1) + x.abs_diff(1);
            assert_eq!(inside, steps <= 1, "at {z} {y} {x}");
        }
    }

    #[test]
    fn a_disk_stays_in_its_slice() {
        let grown = dilate(single_voxel((3, 5, 5), [1, 2, 2]).view(), &Element::disk(2.0));
        let slice = array![
            [false, false, true, false, false],
            [false, true, true, true, false],
            [true, true, true, true, true],
            [false, true, true, true, false],
            [false, false, true, false, false]
        ];
        assert_eq!(grown.index_axis(ndarray::Axis(0), 1), slice);
        assert_eq!(grown.iter().filter(|&&inside| inside).count(), 13);
    }

    #[test]
    fn growth_passes_the_boundary_between_words() {
        let grown = dilate(single_voxel((1, 1, 130), [0, 0, 64]).view(), &Element::disk(3.0));
        let reached: Vec<usize> = (0..130).filter(|&x| grown[[0, 0, x]]).collect();
        assert_eq!(reached, [61, 62, 63, 64, 65, 66, 67]);
    }

    #[test]
    fn the_outside_does_not_erode() {
        let full = Array3::from_elem((3, 4, 70), true);
        assert_eq!(erode(full.view(), &Element::ball(2.0)), full);
    }

    #[test]
    fn a_tunnel_to_the_outside_is_no_hole() {
        let mut mask = Array3::from_elem((3, 3, 3), true);
        mask[[1, 1, 1]] = false;
        mask[[1, 1, 2]] = false;
        assert_eq!(fill_holes(mask.view()), mask);
    }

    #[test]
    fn a_slice_has_no_holes() {
        let mut mask = Array3::from_elem((1, 3, 3), true);
        mask[[0, 1, 1]] = false;
        assert_eq!(fill_holes(mask.view()), mask);
    }
}
