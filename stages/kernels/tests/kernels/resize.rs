//! What must hold for resampling of any image.

use arbtest::arbtest;
use ndarray::{Array3, Array4, Axis, stack};
use nnflow_kernels::decision::argmax;
use nnflow_kernels::geometry::Spacing;
use nnflow_kernels::resample::{
    LabelRule, Order, ResampleError, ResampleOptions, resample_argmax, resample_image, resample_labels, resize_image,
};

use crate::arbitrary::{image, labels, on_one_and_three_threads, shape, transpose};

const ORDERS: [Order; 3] = [Order::Nearest, Order::Linear, Order::Cubic];
const OPTIONS: ResampleOptions =
    ResampleOptions { order: Order::Linear, order_z: Order::Nearest, force_separate_z: None };

fn spacing() -> Spacing {
    Spacing::new([1.0; 3]).expect("positive")
}

#[test]
fn resizing_to_the_same_shape_changes_nothing() {
    arbtest(|input| {
        let shape = shape(input, 6)?;
        let image = image(input, shape)?;
        for order in ORDERS {
            assert_eq!(resize_image(image.view(), shape, order).as_ref(), Ok(&image), "{order:?}");
        }
        Ok(())
    });
}

#[test]
fn resizing_stays_within_the_values_of_the_image() {
    arbtest(|input| {
        let (from, to) = (shape(input, 6)?, shape(input, 9)?);
        let image = image(input, from)?;
        let low = image.iter().copied().fold(f32::INFINITY, f32::min);
        let high = image.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for order in ORDERS {
            let resized = resize_image(image.view(), to, order).expect("a grid");
            assert_eq!(resized.shape(), to);
            assert!(resized.iter().all(|value| (low..=high).contains(value)), "{order:?}");
        }
        Ok(())
    });
}

#[test]
fn resizing_commutes_with_transposing() {
    arbtest(|input| {
        let (from, to) = (shape(input, 6)?, shape(input, 9)?);
        let (image, order) = (image(input, from)?, transpose(input)?);
        let turned = order.apply_array(image.view()).expect("three axes");
        for interpolation in ORDERS {
            let straight = resize_image(image.view(), to, interpolation).expect("a grid");
            let round_about = resize_image(turned, order.apply(to), interpolation).expect("a grid");
            let back = order.inverse().apply_array(round_about.view()).expect("three axes");
            let worst = straight.iter().zip(back).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
            // The image reaches up to 4096, and axes may be done in another order with f32 in between.
            assert!(worst <= 4096.0 * 1e-6, "{interpolation:?}: {worst}");
        }
        Ok(())
    });
}

#[test]
fn labels_are_chosen_as_from_scores_of_each_label() {
    arbtest(|input| {
        let (from, to) = (shape(input, 4)?, shape(input, 7)?);
        let labels = labels(input, from)?;
        let rule = LabelRule::ArgmaxNearestTie;
        let found = resample_labels(labels.view(), to, spacing(), spacing(), &OPTIONS, rule).expect("a grid");
        let scores = Array4::from_shape_fn((5, from[0], from[1], from[2]), |(label, z, y, x)| {
            f32::from(u8::from(i32::from(labels[[z, y, x]]) == label as i32 - 1))
        });
        let scores = resample_image(scores.view(), to, spacing(), spacing(), &OPTIONS).expect("a grid");
        let share = |label: i16, at: (usize, usize, usize)| scores[[(label + 1) as usize, at.0, at.1, at.2]];
        let winners = argmax(scores.view());
        for (at, &label) in found.indexed_iter() {
            // The shares of both may be equal but for the rounding of f32, and then either may win.
            assert!(share(label, at) >= share(winners[at] - 1, at) - 1e-6, "at {at:?}");
        }
        Ok(())
    });
}

#[test]
fn classes_one_by_one_win_as_all_at_once() {
    arbtest(|input| {
        let (from, to) = (shape(input, 4)?, shape(input, 7)?);
        let classes = [image(input, from)?, image(input, from)?, image(input, from)?];
        let views: Vec<_> = classes.iter().map(|class| class.view()).collect();
        let all = stack(Axis(0), &views).expect("same shapes");
        let all = resample_image(all.view(), to, spacing(), spacing(), &OPTIONS).expect("a grid");
        let one_by_one = resample_argmax(3, to, spacing(), spacing(), &OPTIONS, |class| {
            Ok::<_, ResampleError>(classes[class].clone())
        });
        assert_eq!(one_by_one, Ok(argmax(all.view())));
        Ok(())
    });
}

#[test]
fn resizing_does_not_depend_on_the_number_of_threads() {
    let image = Array3::from_shape_fn((23, 40, 37), |(z, y, x)| ((z * 31 + y * 17 + x * 7) % 97) as f32 * 0.37);
    let resize = || resize_image(image.view(), [31, 29, 50], Order::Cubic).expect("a grid");
    let [one, three] = on_one_and_three_threads(resize);
    assert_eq!(one.mapv(f32::to_bits), three.mapv(f32::to_bits));
}
