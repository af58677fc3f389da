//! What a workflow can bound, so that a run fits a small machine.

use nnflow_nnunet::planner::{PlannerError, PlannerSettings, Preset};

use super::synthetic::Dataset;

fn heart() -> Dataset {
    Dataset::new([1.37, 1.25, 1.25], [115, 320, 232], 20)
}

#[test]
fn a_patch_stays_within_its_extents() {
    let settings = PlannerSettings { max_patch_3d: Some([22, 30, 50]), ..PlannerSettings::default() };
    // 22 halved twice is divisible by 4, 30 by 4 and 50 by 8 only as 20, 28 and 48.
    assert_eq!(heart().plan(&settings).patch("3d_fullres"), [20, 28, 48]);
}

#[test]
fn a_patch_stays_within_its_voxels() {
    let settings = PlannerSettings { max_patch_voxels_3d: Some(32_768), ..PlannerSettings::default() };
    let patch = heart().plan(&settings).patch("3d_fullres");
    assert!(patch.iter().product::<usize>() <= 32_768, "{patch:?}");
}

#[test]
fn a_network_can_be_narrow_and_shallow() {
    let settings = PlannerSettings {
        base_features: 4,
        max_features_3d: 12,
        max_stages: Some(4),
        n_conv_per_stage: vec![1, 2],
        ..PlannerSettings::default()
    };
    let arguments = heart().plan(&settings).unet("3d_fullres");
    assert_eq!(arguments.features_per_stage, [4, 8, 12, 12]);
    assert_eq!(arguments.n_conv_per_stage, Some(vec![1, 2, 2, 2]));
}

#[test]
fn a_batch_can_be_a_single_sample() {
    let settings = PlannerSettings { max_batch_size_3d: Some(1), ..PlannerSettings::default() };
    assert_eq!(heart().plan(&settings).batch("3d_fullres"), 1);
}

#[test]
fn a_small_patch_brings_a_cascade_about() {
    for preset in [Preset::Default, Preset::Y2018] {
        let settings = PlannerSettings { max_patch_3d: Some([32; 3]), ..PlannerSettings::preset(preset) };
        let names = Dataset::new([1.0; 3], [64; 3], 20).plan(&settings);
        assert_eq!(names.names(), ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"], "{preset:?}");
    }
}

#[test]
fn every_number_of_version_2_has_a_reason() {
    let presets = [Preset::Default, Preset::ResidualEncoderM, Preset::ResidualEncoderL, Preset::ResidualEncoderXl]
        .map(PlannerSettings::preset);
    for dataset in [heart(), Dataset::new([1.0; 3], [500; 3], 20), Dataset::new([999.0, 1.0, 1.0], [1, 300, 300], 20)] {
        let unexplained: Vec<_> = presets.iter().flat_map(|settings| dataset.plan(settings).unexplained()).collect();
        assert!(unexplained.is_empty(), "{unexplained:?}");
    }
}

#[test]
fn the_reason_for_a_missing_low_resolution_is_told() {
    let planned = heart().plan(&PlannerSettings { gpu_memory_target: 80.0, ..PlannerSettings::default() });
    let why = planned.reasons.why("configurations.3d_lowres").expect("a reason");
    assert!(why.starts_with("not planned: a patch of the full resolution covers"), "{why}");
}

/// nnU-Net 2.8.1 plans these batches for a fingerprint of 20 such cases.
#[test]
fn a_batch_is_as_large_as_the_declared_number_of_cases_allows() {
    let batch = |n_cases, declared| {
        let dataset = Dataset { declared, ..Dataset::new([1.0; 3], [36, 50, 35], n_cases) };
        dataset.plan(&PlannerSettings::default()).batch("2d")
    };
    assert_eq!([Some(1), Some(5), Some(20)].map(|declared| batch(20, declared)), [2, 7, 28]);
    assert_eq!(batch(5, None), 7);
}

/// nnU-Net 2.8.1 ends in an `OverflowError` here: its estimate of the memory is 0.
#[test]
fn a_target_spacing_at_which_cases_vanish_is_refused() {
    let settings = PlannerSettings { target_spacing: Some([1.0, 1.0, 40.0]), ..PlannerSettings::default() };
    let error = Dataset::new([1.0; 3], [64, 64, 16], 5).try_plan(&settings).err().expect("no voxel is left");
    assert!(matches!(&error, PlannerError::Vanished { shape, .. } if shape == &[0.0, 64.0, 64.0]), "{error}");
}

/// As above, in the loop that looks for a low resolution: 4000 voxels a side are halved more than twice.
#[test]
fn a_slab_of_two_slices_has_no_low_resolution() {
    let slab = Dataset::new([1.0; 3], [2, 4000, 4000], 20);
    let error = slab.try_plan(&PlannerSettings::default()).err().expect("no voxel is left");
    assert_eq!(error.hint(), Some("`lowres_threshold = 0` plans without a low resolution"));
    let without = PlannerSettings { lowres_threshold: 0.0, ..PlannerSettings::default() };
    assert_eq!(slab.plan(&without).names(), ["2d", "3d_fullres"]);
}

#[test]
fn every_plan_within_limits_is_usable() {
    arbtest::arbtest(|source| {
        let spacing = [0; 3].map(|_: u8| 0.3 + 0.1 * f64::from(source.int_in_range(0..=60_u8).unwrap_or(0)));
        let shape = [0; 3].map(|_: u8| usize::from(source.int_in_range(1..=400_u16).unwrap_or(1)));
        let dataset = Dataset::new(spacing, shape, source.int_in_range(1..=40)?);
        let preset = *source.choose(&[Preset::Default, Preset::ResidualEncoderM, Preset::Y2018, Preset::Y2018Paper])?;
        let largest = [0; 3].map(|_: u8| source.int_in_range(1..=200_usize).unwrap_or(1));
        let settings = PlannerSettings {
            max_patch_3d: Some(largest),
            max_patch_voxels_3d: Some(source.int_in_range(1..=1_000_000)?),
            max_batch_size_3d: Some(source.int_in_range(1..=4)?),
            max_stages: Some(source.int_in_range(1..=6)?),
            min_feature_edge: source.int_in_range(1..=8)?,
            base_features: source.int_in_range(1..=64)?,
            ..PlannerSettings::preset(preset)
        };
        // The dataset's plan is made and each of its configurations is read, which checks it.
        let planned = match dataset.try_plan(&settings) {
            // A small patch can ask for a resolution at which a thin case vanishes.
            Err(PlannerError::Vanished { .. }) => return Ok(()),
            planned => planned.expect("a plan"),
        };
        for name in planned.names().into_iter().filter(|name| *name != "2d") {
            let configuration = planned.configuration(name);
            let within = configuration.patch_size.iter().zip(&largest).all(|(extent, largest)| extent <= largest);
            assert!(within, "{name}: {:?} is not within {largest:?}", configuration.patch_size);
            let voxels: usize = configuration.patch_size.iter().product();
            assert!(settings.max_patch_voxels_3d.is_none_or(|largest| voxels <= largest), "{name}: {voxels} voxels");
            assert!(settings.max_batch_size_3d.is_none_or(|largest| configuration.batch_size <= largest));
        }
        Ok(())
    });
}
