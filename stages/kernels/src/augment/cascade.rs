//! What is done to the segmentation of the stage before, so that a cascade's second network does not trust it blindly.

use ndarray::{Array4, ArrayViewMut3, Axis, Zip};

use super::draw::{DrawnOperator, DrawnRemoval, Operator};
use crate::{
    components::{Components, Connectivity},
    morphology::{Element, close, dilate, erode, open},
};

/// Applies a morphological operation to channel `first + drawn.label` of `image`, which is 0 or 1, and clears what it
/// added in the other channels from `first` on.
///
/// The element is a ball, or a disk in an image of one slice.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6 `ApplyRandomBinaryOperatorTransform`.
pub fn apply_operator(image: &mut Array4<f32>, first: usize, drawn: &DrawnOperator) {
    let channel = first + drawn.label;
    if channel >= image.len_of(Axis(0)) {
        return;
    }
    let single_slice = image.len_of(Axis(1)) == 1;
    let element = if single_slice { Element::disk(drawn.radius) } else { Element::ball(drawn.radius) };
    let before = image.index_axis(Axis(0), channel).mapv(|value| value != 0.0);
    let after = match drawn.operator {
        Operator::Dilate => dilate(before.view(), &element),
        Operator::Erode => erode(before.view(), &element),
        Operator::Close => close(before.view(), &element),
        Operator::Open => open(before.view(), &element),
    };
    for (index, mut values) in image.outer_iter_mut().enumerate().skip(first) {
        if index == channel {
            Zip::from(&mut values).and(&after).for_each(|value, inside| *value = f32::from(u8::from(*inside)));
        } else {
            Zip::from(&mut values).and(&before).and(&after).for_each(|value, before, after| {
                if *after && !before {
                    *value = 0.0;
                }
            });
        }
    }
}

/// Clears one component of a channel, among those that cover less than `below` of it; nothing where none does.
///
/// # Reference
/// Equal to `batchgeneratorsv2` 0.3.6 `RemoveRandomConnectedComponentFromOneHotEncodingTransform` with
/// `fill_with_other_class_p=0`, where components are joined over corners.
pub fn remove_component(mut channel: ArrayViewMut3<'_, f32>, below: f64, drawn: &DrawnRemoval) {
    let mask = channel.mapv(|value| value != 0.0);
    let components = Components::of(mask.view(), Connectivity::Corners);
    let limit = mask.len() as f64 * below;
    let small: Vec<usize> =
        (0..components.count()).filter(|component| (components.sizes()[*component] as f64) < limit).collect();
    let Some(&chosen) = small.get((drawn.pick * small.len() as f64) as usize) else { return };
    let removed = components.select(|component| component == chosen);
    Zip::from(&mut channel).and(&removed).for_each(|value, removed| {
        if *removed {
            *value = 0.0;
        }
    });
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    #[test]
    fn what_a_label_gains_its_neighbours_lose() {
        let mut image = array![[[[9.0, 9.0, 9.0, 9.0]]], [[[0.0, 1.0, 0.0, 0.0]]], [[[1.0, 0.0, 0.0, 1.0]]]];
        apply_operator(&mut image, 1, &DrawnOperator { label: 0, operator: Operator::Dilate, radius: 1.0 });
        let expected = array![[[[9.0, 9.0, 9.0, 9.0]]], [[[1.0, 1.0, 1.0, 0.0]]], [[[0.0, 0.0, 0.0, 1.0]]]];
        assert_eq!(image, expected);
    }

    #[test]
    fn a_label_that_is_not_there_is_left_out() {
        let mut image = Array4::from_elem((1, 1, 1, 1), 1.0);
        apply_operator(&mut image, 1, &DrawnOperator { label: 0, operator: Operator::Erode, radius: 1.0 });
        assert_eq!(image, Array4::from_elem((1, 1, 1, 1), 1.0));
    }

    #[test]
    fn only_small_components_are_removed() {
        // Components of 2, 1 and 4 of 10 voxels; below 0.3 are the first two.
        let row: Array3<f32> = array![[[1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]]];
        for (pick, cleared) in [(0.49, vec![0, 1]), (0.5, vec![3]), (0.99, vec![3])] {
            let mut channel = row.clone();
            remove_component(channel.view_mut(), 0.3, &DrawnRemoval { label: 0, pick });
            let changed: Vec<usize> = (0..10).filter(|x| channel[[0, 0, *x]] != row[[0, 0, *x]]).collect();
            assert_eq!(changed, cleared);
        }
    }

    #[test]
    fn a_channel_without_small_components_stays() {
        let mut channel = Array3::from_elem((1, 1, 3), 1.0);
        remove_component(channel.view_mut(), 0.3, &DrawnRemoval { label: 0, pick: 0.0 });
        assert_eq!(channel, Array3::from_elem((1, 1, 3), 1.0));
    }
}
