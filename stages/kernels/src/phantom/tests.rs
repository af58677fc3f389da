use ndarray::s;

use super::*;

fn settings(modality: Modality) -> PhantomSettings {
    PhantomSettings { shape: [32, 48, 48], modality, ..PhantomSettings::default() }
}

fn case(settings: &PhantomSettings, number: u32) -> PhantomCase {
    settings.generate(number).expect("valid settings")
}

/// Share of the voxels that have a label.
fn share(case: &PhantomCase, label: u8) -> f64 {
    case.labels.iter().filter(|found| **found == label).count() as f64 / case.labels.len() as f64
}

#[test]
fn a_case_follows_from_seed_and_number() {
    let settings = settings(Modality::Mr);
    assert_eq!(case(&settings, 3), case(&settings, 3));
    assert_ne!(case(&settings, 3), case(&settings, 4));
    assert_ne!(case(&settings, 3), case(&PhantomSettings { seed: 1, ..settings.clone() }, 3));
}

#[test]
fn every_case_has_every_organ_and_no_other_label() {
    for (dimension, labels) in [(Dimension::Three, MOST_LABELS), (Dimension::Three, 2), (Dimension::Two, MOST_LABELS)] {
        let settings = PhantomSettings { dimension, labels, ..settings(Modality::Ct) };
        for number in 0..20 {
            let case = case(&settings, number);
            for label in 1..=labels as u8 {
                let share = share(&case, label);
                assert!((0.001..0.2).contains(&share), "{dimension:?} case {number} label {label}: {share}");
            }
            assert!(case.labels.iter().all(|label| usize::from(*label) <= labels));
        }
    }
}

#[test]
fn organs_vary_between_cases() {
    let settings = PhantomSettings { shape_variation: 0.0, ..settings(Modality::Mr) };
    let cases: Vec<PhantomCase> = (0..10).map(|number| case(&settings, number)).collect();
    let shares: Vec<f64> = cases.iter().map(|case| share(case, 1)).collect();
    let (least, most) =
        shares.iter().fold((1.0_f64, 0.0_f64), |(least, most), share| (least.min(*share), most.max(*share)));
    assert!(most / least > 1.2, "organ 1 takes from {least} to {most} of the image");
    let overlap = cases[0].labels.iter().zip(&cases[1].labels).filter(|(a, b)| **a == 1 && **b == 1).count() as f64;
    assert!(overlap / (cases[0].labels.len() as f64) < 0.97 * shares[0].min(shares[1]), "organ 1 never moves");
}

#[test]
fn the_body_of_a_resonance_image_is_surrounded_by_zeros() {
    for number in 0..5 {
        let case = case(&settings(Modality::Mr), number);
        let (_, depth, height, width) = case.image.dim();
        let faces = [
            case.image.slice(s![.., 0, .., ..]),
            case.image.slice(s![.., depth - 1, .., ..]),
            case.image.slice(s![.., .., 0, ..]),
            case.image.slice(s![.., .., height - 1, ..]),
            case.image.slice(s![.., .., .., 0]),
            case.image.slice(s![.., .., .., width - 1]),
        ];
        assert!(faces.iter().all(|face| face.iter().all(|value| *value == 0.0)), "case {number} fills its image");
        let body = case.image.iter().filter(|value| **value != 0.0).count() as f64 / case.image.len() as f64;
        assert!((0.3..0.7).contains(&body), "body takes {body} of case {number}");
    }
}

#[test]
fn organs_lie_within_the_body() {
    let case = case(&settings(Modality::Mr), 0);
    let image = case.image.index_axis(ndarray::Axis(0), 0);
    assert!(image.iter().zip(&case.labels).all(|(value, label)| *label == 0 || *value > 0.0));
}

#[test]
fn computed_tomography_is_in_hounsfield_units() {
    let case = case(&settings(Modality::Ct), 0);
    assert!(case.image.iter().all(|value| (-1024.0..1000.0).contains(value) && value.fract() == 0.0));
    let outside = case.image.slice(s![0, 0, .., ..]);
    // The mean of n voxels of air with noise of 14 Hounsfield units, within five standard errors.
    let mean = outside.iter().map(|value| f64::from(*value)).sum::<f64>() / outside.len() as f64;
    assert!((mean + 1000.0).abs() < 5.0 * 14.0 / (outside.len() as f64).sqrt() + 2.0, "air has {mean}");
}

#[test]
fn other_channels_have_other_contrasts() {
    let settings = PhantomSettings { channels: MOST_CHANNELS, labels: 4, ..settings(Modality::Mr) };
    let case = case(&settings, 1);
    let mean = |channel: usize, label: u8| {
        let volume = case.image.index_axis(ndarray::Axis(0), channel);
        let values: Vec<f32> =
            volume.iter().zip(&case.labels).filter(|(_, found)| **found == label).map(|(v, _)| *v).collect();
        values.iter().sum::<f32>() / values.len() as f32
    };
    // Organ 4 holds water: darker than organ 1 in the first contrast, brighter in the second.
    assert!(mean(0, 4) < mean(0, 1) && mean(1, 4) > mean(1, 1));
}

/// Voxels of an organ that touch its capsule, and those two voxels further inside, in a rendering without noise.
#[test]
fn boundary_voxels_are_mixtures() {
    let settings = PhantomSettings { labels: 1, shape: [48, 64, 64], ..settings(Modality::Ct) };
    let random = CounterRandom::new(settings.seed, [0, 0, 0]);
    let body = anatomy::Body::draw(&random, Dimension::Three, Modality::Ct, 1);
    let (image, labels) = render::render(&body, settings.shape, 1, Modality::Ct, &random);
    let is_organ = |z: usize, y: usize, x: usize| labels[[z, y, x]] == 1;
    let (mut edge, mut core, mut outside) = (Vec::new(), Vec::new(), Vec::new());
    for z in 2..46 {
        for y in 2..62 {
            for x in 2..62 {
                let value = image[[0, z, y, x]];
                let near = is_organ(z, y, x - 1) as u8 + is_organ(z, y, x + 1) as u8;
                match (is_organ(z, y, x), near) {
                    (true, 1) => edge.push(value),
                    (true, 2) if is_organ(z, y, x - 2) && is_organ(z, y, x + 2) => core.push(value),
                    (false, 1) => outside.push(value),
                    _ => {}
                }
            }
        }
    }
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    assert!(
        mean(&outside) + 10.0 < mean(&edge) && mean(&edge) + 10.0 < mean(&core),
        "{} {} {}",
        mean(&outside),
        mean(&edge),
        mean(&core)
    );
}

#[test]
fn thresholds_do_not_find_an_organ() {
    let settings = PhantomSettings { labels: 1, shape_variation: 0.0, ..settings(Modality::Ct) };
    for number in 0..5 {
        let case = case(&settings, number);
        let volume = case.image.index_axis(ndarray::Axis(0), 0);
        let mut organ: Vec<f32> =
            volume.iter().zip(&case.labels).filter(|(_, label)| **label == 1).map(|(v, _)| *v).collect();
        organ.sort_by(f32::total_cmp);
        // The best of a grid of windows between percentiles of the organ's own intensities.
        let at = |share: usize| organ[share * (organ.len() - 1) / 20];
        let best = (0..8)
            .flat_map(|low| (13..=20).map(move |high| (low, high)))
            .map(|(low, high)| {
                let hit = |value: f32| value >= at(low) && value <= at(high);
                let both = volume.iter().zip(&case.labels).filter(|(v, label)| hit(**v) && **label == 1).count();
                let found = volume.iter().filter(|value| hit(**value)).count();
                2.0 * both as f64 / (found + organ.len()) as f64
            })
            .fold(0.0, f64::max);
        assert!(best < 0.75, "a window finds organ 1 of case {number} with a Dice of {best}");
    }
}

#[test]
fn shapes_vary_within_their_bounds() {
    let settings = settings(Modality::Ct);
    let shapes: Vec<Vec<usize>> = (0..10).map(|number| case(&settings, number).labels.shape().to_vec()).collect();
    assert!(shapes.iter().any(|shape| *shape != shapes[0]));
    for shape in shapes {
        assert!((29..=35).contains(&shape[0]) && (43..=53).contains(&shape[1]) && (43..=53).contains(&shape[2]));
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let good = settings(Modality::Mr);
    for (bad, word) in [
        (PhantomSettings { labels: 9, ..good.clone() }, "labels"),
        (PhantomSettings { channels: 0, ..good.clone() }, "channels"),
        (PhantomSettings { shape_variation: 0.6, ..good.clone() }, "shape_variation"),
        (PhantomSettings { shape: [8, 48, 48], ..good.clone() }, "shape"),
        (PhantomSettings { shape: [usize::MAX, 48, 48], ..good.clone() }, "shape"),
    ] {
        let error = bad.generate(0).expect_err("out of range").to_string();
        assert!(error.contains(word), "{error}");
    }
}
