//! Boxes and axis permutations.

use arbtest::arbtest;
use ndarray::{Array3, Axis};
use nnflow_kernels::crop::bounding_box;
use nnflow_kernels::geometry::BoundingBox;

use crate::arbitrary::{image, mask, shape, transpose};

#[test]
fn transposing_forth_and_back_changes_nothing() {
    arbtest(|input| {
        let shape = shape(input, 5)?;
        let (image, order) = (image(input, shape)?, transpose(input)?);
        let there = order.apply_array(image.view()).expect("three axes");
        assert_eq!(order.inverse().apply_array(there).expect("three axes"), image);
        assert_eq!(order.inverse().apply(order.apply(shape)), shape);
        Ok(())
    });
}

#[test]
fn a_transposed_volume_has_the_transposed_shape() {
    arbtest(|input| {
        let shape = shape(input, 5)?;
        let (image, order) = (image(input, shape)?, transpose(input)?);
        let there = order.apply_array(image.view()).expect("three axes");
        assert_eq!(there.shape(), order.apply(shape));
        Ok(())
    });
}

#[test]
fn writing_a_crop_back_changes_nothing() {
    arbtest(|input| {
        let shape = shape(input, 6)?;
        let image = image(input, shape)?;
        let mut start = [0; 3];
        let mut stop = [0; 3];
        for axis in 0..3 {
            start[axis] = input.int_in_range(0..=shape[axis])?;
            stop[axis] = input.int_in_range(start[axis]..=shape[axis])?;
        }
        let block = BoundingBox::new(start, stop).expect("ordered");
        let part = block.crop(image.view()).expect("inside").to_owned();
        assert_eq!(part.shape(), block.shape());
        let mut changed = image.clone();
        block.crop_mut(changed.view_mut()).expect("inside").fill(0.0);
        block.crop_mut(changed.view_mut()).expect("inside").assign(&part);
        assert_eq!(changed, image);
        Ok(())
    });
}

#[test]
fn the_bounding_box_holds_all_voxels_and_none_can_be_cut_off() {
    arbtest(|input| {
        let shape = shape(input, 5)?;
        let mask = mask(input, shape)?;
        let count = |mask: &Array3<bool>| mask.iter().filter(|&&inside| inside).count();
        let Some(block) = bounding_box(mask.view()) else {
            assert_eq!(count(&mask), 0);
            return Ok(());
        };
        let part = block.crop(mask.view()).expect("inside").to_owned();
        assert_eq!(count(&part), count(&mask));
        for axis in 0..3 {
            for side in [0, part.len_of(Axis(axis)) - 1] {
                assert!(part.index_axis(Axis(axis), side).iter().any(|&inside| inside), "axis {axis} side {side}");
            }
        }
        Ok(())
    });
}
