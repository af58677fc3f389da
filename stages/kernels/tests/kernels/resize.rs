//! What must hold for resampling of any image.

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use ndarray::{Array3, Array4, ArrayView4, Axis, Zip, s, stack};
use nnflow_kernels::decision::{argmax, paint_regions};
use nnflow_kernels::geometry::{BoundingBox, Spacing};
use nnflow_kernels::resample::{
    Activation, Decision, LabelRule, Limits, Order, Regrid, ResampleOptions, Rule, ScorePlanes, class_probabilities,
    resample_image, resample_labels, resize_image,
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

/// Orders, and spacings that set any axis apart, or none.
fn way(input: &mut Unstructured<'_>) -> Result<(ResampleOptions, Spacing, Spacing)> {
    let options = ResampleOptions {
        order: *input.choose(&ORDERS)?,
        order_z: *input.choose(&ORDERS)?,
        force_separate_z: *input.choose(&[None, Some(true), Some(false)])?,
    };
    let mut spacing = || -> Result<Spacing> {
        let mut values = [1.0; 3];
        values[input.int_in_range(0..=2)?] = *input.choose(&[1.0, 4.0])?;
        Ok(Spacing::new(values).expect("positive"))
    };
    Ok((options, spacing()?, spacing()?))
}

fn scores(input: &mut Unstructured<'_>, shape: [usize; 3]) -> Result<Array4<f32>> {
    let classes = [image(input, shape)?, image(input, shape)?, image(input, shape)?];
    let views: Vec<_> = classes.iter().map(|class| class.view()).collect();
    Ok(stack(Axis(0), &views).expect("same shapes") / 100.0)
}

fn limits(regrid: &Regrid, scores: &Array4<f32>) -> Vec<Limits> {
    scores.axis_iter(Axis(0)).map(|class| regrid.limits(class)).collect()
}

/// The labels of a grid, some planes at a time, each time from no more planes of the scores than are needed.
fn labels_in_slabs(regrid: &Regrid, scores: &Array4<f32>, rule: Rule<'_>, most: usize) -> Array3<i16> {
    let limits = limits(regrid, scores);
    let decision = Decision { regrid, rule, limits: &limits };
    let mut labels = Array3::from_elem(regrid.to(), -7);
    for part in regrid.slabs(most) {
        let planes = regrid.source_planes(&part);
        let values = scores.slice(s![.., planes.clone(), .., ..]).to_owned();
        let scores = ScorePlanes { values: values.view(), first: planes.start };
        decision.labels(scores, &part, labels.slice_mut(s![part.clone(), .., ..]));
    }
    labels
}

#[test]
fn classes_in_slabs_win_as_all_at_once() {
    arbtest(|input| {
        let (from, to) = (shape(input, 5)?, shape(input, 9)?);
        let scores = scores(input, from)?;
        let (options, current, new) = way(input)?;
        let regrid = Regrid::new(from, to, current, new, &options).expect("a grid");
        let whole = resample_image(scores.view(), to, current, new, &options).expect("a grid");
        let most = input.int_in_range(1..=5)?;
        assert_eq!(labels_in_slabs(&regrid, &scores, Rule::Largest, most), argmax(whole.view()));
        let rule = Rule::Regions { labels: &[3, 1, 2], threshold: 0.5 };
        assert_eq!(labels_in_slabs(&regrid, &scores, rule, most), paint_regions(whole.view(), &[3, 1, 2]));
        Ok(())
    });
}

/// Larger than a tile along every axis, with the axes done in all orders that there are.
#[test]
fn tiles_hold_the_numbers_of_the_whole() {
    let shapes = [([40, 13, 70], [70, 19, 140]), ([40, 25, 150], [37, 20, 131]), ([20, 9, 90], [50, 31, 100])];
    for (from, to) in shapes {
        for (order, current) in [(Order::Linear, 1.0), (Order::Linear, 5.0), (Order::Cubic, 1.0), (Order::Cubic, 5.0)] {
            let options = ResampleOptions { order, ..OPTIONS };
            let current = Spacing::new([current, 1.0, 1.0]).expect("positive");
            let volume = Array3::from_shape_fn(from, |(z, y, x)| ((z * 31 + y * 17 + x * 7) % 97) as f32 * 0.37);
            let whole = resample_image(volume.view().insert_axis(Axis(0)), to, current, spacing(), &options);
            let whole = whole.expect("a grid").index_axis_move(Axis(0), 0);
            let regrid = Regrid::new(from, to, current, spacing(), &options).expect("a grid");
            let mut tiled = Array3::zeros(to);
            let limits = regrid.limits(volume.view());
            let part = BoundingBox::whole(to);
            class_probabilities(&regrid, volume.view(), &limits, &Activation::None, &part, tiled.view_mut());
            assert_eq!(tiled, whole, "{from:?} to {to:?}, {order:?}");
        }
    }
}

/// The softmax of all classes at once, added up in their order.
fn softmax(scores: ArrayView4<'_, f32>) -> Array4<f32> {
    let mut values = scores.to_owned();
    for mut lane in values.lanes_mut(Axis(0)) {
        let largest = lane.fold(f32::NEG_INFINITY, |largest, value| largest.max(*value));
        lane.mapv_inplace(|value| (value - largest).exp());
        let sum = lane.fold(0.0, |sum, value| sum + value);
        lane.mapv_inplace(|value| value / sum);
    }
    values
}

#[test]
fn probabilities_class_by_class_are_those_of_all_at_once() {
    arbtest(|input| {
        let (from, to) = (shape(input, 5)?, shape(input, 9)?);
        let scores = scores(input, from)?;
        let (options, current, new) = way(input)?;
        let regrid = Regrid::new(from, to, current, new, &options).expect("a grid");
        let whole = resample_image(scores.view(), to, current, new, &options).expect("a grid");
        let limits = limits(&regrid, &scores);
        let (mut labels, [mut largest, mut sum]) = (Array3::zeros(to), [Array3::zeros(to), Array3::zeros(to)]);
        Decision { regrid: &regrid, rule: Rule::Largest, limits: &limits }.with_sums(
            ScorePlanes { values: scores.view(), first: 0 },
            &(0..to[0]),
            labels.view_mut(),
            [largest.view_mut(), sum.view_mut()],
        );
        assert_eq!(labels, argmax(whole.view()));
        let activation = Activation::Softmax { largest: largest.view(), sum: sum.view() };
        let mut probabilities = Array4::zeros(whole.raw_dim());
        for (class, target) in probabilities.axis_iter_mut(Axis(0)).enumerate() {
            let volume = scores.index_axis(Axis(0), class);
            class_probabilities(&regrid, volume, &limits[class], &activation, &BoundingBox::whole(to), target);
        }
        assert_eq!(probabilities, softmax(whole.view()));
        Ok(())
    });
}

#[test]
fn slabs_follow_each_other_and_keep_to_their_planes() {
    arbtest(|input| {
        let (from, to) = (shape(input, 40)?, shape(input, 90)?);
        let regrid = Regrid::new(from, to, spacing(), spacing(), &OPTIONS).expect("a grid");
        let most = input.int_in_range(2..=40)?;
        let mut end = 0;
        for slab in regrid.slabs(most) {
            assert_eq!(slab.start, end);
            assert!(regrid.source_planes(&slab).len() <= most, "{slab:?}");
            end = slab.end;
        }
        assert_eq!(end, to[0]);
        Ok(())
    });
}

#[test]
fn labels_do_not_depend_on_the_number_of_threads() {
    let from = [12, 20, 37];
    let scores =
        Array4::from_shape_fn((4, 12, 20, 37), |(c, z, y, x)| ((c * 53 + z * 31 + y * 17 + x * 7) % 97) as f32);
    let regrid = Regrid::new(from, [70, 41, 150], spacing(), spacing(), &OPTIONS).expect("a grid");
    let [one, three] = on_one_and_three_threads(|| labels_in_slabs(&regrid, &scores, Rule::Largest, 70));
    assert!(Zip::from(&one).and(&three).all(|one, three| one == three));
}

#[test]
fn resizing_does_not_depend_on_the_number_of_threads() {
    let image = Array3::from_shape_fn((23, 40, 37), |(z, y, x)| ((z * 31 + y * 17 + x * 7) % 97) as f32 * 0.37);
    let resize = || resize_image(image.view(), [31, 29, 50], Order::Cubic).expect("a grid");
    let [one, three] = on_one_and_three_threads(resize);
    assert_eq!(one.mapv(f32::to_bits), three.mapv(f32::to_bits));
}
