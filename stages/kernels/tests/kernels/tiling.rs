//! The sliding window over any image.

use arbtest::arbtest;
use nnflow_kernels::tiling::{padding_to, window_starts};

use crate::arbitrary::shape;

#[test]
fn windows_cover_every_voxel_and_stay_inside() {
    arbtest(|input| {
        let extent: usize = input.int_in_range(1..=300)?;
        let patch: usize = input.int_in_range(1..=extent)?;
        let step = f64::from(input.int_in_range(1..=100_u8)?) / 100.0;
        let starts = &window_starts(&[extent], &[patch], step).expect("a patch that fits")[0];
        assert_eq!((starts.first(), starts.last()), (Some(&0), Some(&(extent - patch))));
        for pair in starts.windows(2) {
            assert!(pair[1] <= pair[0] + patch, "a gap between {pair:?} with patch {patch}");
        }
        Ok(())
    });
}

#[test]
fn padding_reaches_the_patch_and_keeps_the_image_whole() {
    arbtest(|input| {
        let (image, patch) = (shape(input, 20)?, shape(input, 20)?);
        let padding = padding_to(&image, &patch);
        for axis in 0..3 {
            assert_eq!(padding.shape[axis], image[axis].max(patch[axis]));
            assert_eq!(padding.inside[axis].len(), image[axis]);
            assert!(padding.inside[axis].end <= padding.shape[axis]);
        }
        Ok(())
    });
}
