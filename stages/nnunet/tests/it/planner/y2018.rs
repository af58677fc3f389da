//! The method of 2018, rule by rule; `text` is the preset with bounded slices, `paper` that of the paper.

use nnflow_io::plans::NetworkKind;
use nnflow_nnunet::planner::{PlannerSettings, Preset};
use serde_json::json;

use super::synthetic::{Dataset, Planned};

fn text(dataset: &Dataset) -> Planned {
    dataset.plan(&PlannerSettings::preset(Preset::Y2018))
}

fn paper(dataset: &Dataset) -> Planned {
    dataset.plan(&PlannerSettings::preset(Preset::Y2018Paper))
}

fn small() -> Dataset {
    Dataset::new([1.0; 3], [36, 50, 35], 260)
}

fn large() -> Dataset {
    Dataset::new([1.0, 0.77, 0.77], [482, 512, 512], 131)
}

fn thick_slices() -> Dataset {
    Dataset::new([3.6, 0.625, 0.625], [20, 320, 319], 32)
}

#[test]
fn a_small_median_is_the_patch() {
    // Edges of at least 8: 36 → 18 → 9 and 50 → 25 → 12.5, so multiples of 4.
    assert_eq!(text(&small()).patch("3d_fullres"), [36, 52, 36]);
    // Below 8 only after the last pooling: 36 → 18 → 9 → 4.5, so multiples of 8.
    assert_eq!(paper(&small()).patch("3d_fullres"), [40, 56, 40]);
}

#[test]
fn a_batch_sees_at_most_a_twentieth_of_the_dataset() {
    // 260 · 36 · 50 · 35 · 0.05 = 819 000 voxels: 9.1 patches of 40x56x40, 365.6 of 56x40, 12.2 of 36x52x36.
    let paper = paper(&small());
    assert_eq!((paper.batch("3d_fullres"), paper.batch("2d")), (9, 366));
    assert_eq!(text(&small()).batch("3d_fullres"), 12);
}

#[test]
fn a_batch_of_slices_has_at_most_42_in_the_text() {
    assert_eq!(text(&small()).batch("2d"), 42);
}

#[test]
fn a_patch_keeps_the_medians_aspect_within_its_voxels() {
    // A cube of 128 is what is left of 482x512x512, and of 138x169x138, in steps of 32.
    assert_eq!(paper(&large()).patch("3d_fullres"), [128; 3]);
    assert_eq!(paper(&Dataset::new([1.0; 3], [138, 169, 138], 484)).patch("3d_fullres"), [128; 3]);
}

#[test]
fn a_flat_median_within_the_voxels_stays_whole() {
    // 20x320x320 has 2 048 000 of 2 097 152 voxels; 2 · 2 097 152 / 2 048 000 = 2.05 samples.
    let planned = text(&thick_slices());
    assert_eq!((planned.patch("3d_fullres"), planned.batch("3d_fullres")), (vec![20, 320, 320], 2));
}

#[test]
fn slices_are_whole_in_the_paper_and_their_batch_keeps_the_pixels() {
    // 42 · 256² pixels are 10.5 samples of 512x512 and 33.6 of 320x256.
    let planned = paper(&large());
    assert_eq!((planned.patch("2d"), planned.batch("2d")), (vec![512, 512], 10));
    let heart = paper(&Dataset::new([1.37, 1.25, 1.25], [115, 320, 232], 20));
    assert_eq!((heart.patch("2d"), heart.batch("2d")), (vec![320, 256], 33));
}

#[test]
fn slices_have_at_most_256_pixels_an_axis_in_the_text() {
    let planned = text(&large());
    assert_eq!((planned.patch("2d"), planned.batch("2d")), (vec![256, 256], 42));
}

#[test]
fn there_are_fewer_than_six_poolings() {
    assert_eq!(text(&large()).unet("2d").n_stages, 6);
    // 6 poolings in slices, 5 in volumes.
    assert_eq!(paper(&large()).unet("2d").n_stages, 7);
    assert_eq!(paper(&large()).unet("3d_fullres").n_stages, 6);
}

#[test]
fn a_short_axis_is_pooled_late() {
    // 20 → 10 once, 320 → 10 five times.
    let strides = text(&thick_slices()).unet("3d_fullres").strides;
    assert_eq!(strides, [[1, 1, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2], [1, 2, 2], [2, 2, 2]]);
}

#[test]
fn features_start_at_thirty_and_double() {
    let planned = text(&large());
    assert_eq!(planned.unet("3d_fullres").features_per_stage[..4], [30, 60, 120, 240]);
    assert_eq!(planned.unet("2d").features_per_stage, [30, 60, 120, 240, 480, 480]);
}

#[test]
fn the_network_is_plain_without_deep_supervision() {
    let planned = text(&large());
    let configuration = planned.configuration("3d_cascade_fullres");
    assert_eq!(configuration.architecture.network().expect("ours"), NetworkKind::Unet2018);
    let arguments = planned.unet("3d_cascade_fullres");
    assert_eq!(arguments.deep_supervision, Some(false));
    assert_eq!(arguments.n_conv_per_stage_decoder, [2; 4]);
    assert_eq!(arguments.nonlin_kwargs.expect("given")["negative_slope"], json!(0.01));
}

#[test]
fn images_are_resampled_by_cubic_splines_and_labels_by_nearest_neighbour() {
    let configuration = text(&small()).configuration("3d_fullres");
    let orders = (configuration.resampling_fn_data_kwargs.order, configuration.resampling_fn_seg_kwargs.order);
    assert_eq!(orders, (3, 0));
}

#[test]
fn exactly_four_times_a_patch_needs_no_cascade() {
    let four_times = Dataset::new([1.0; 3], [128, 256, 256], 20);
    let more = Dataset::new([1.0; 3], [129, 256, 256], 20);
    assert_eq!(text(&four_times).names(), ["2d", "3d_fullres"]);
    assert_eq!(text(&more).names(), ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]);
}

#[test]
fn similar_axes_are_halved_together_until_it_fits() {
    // 241x256x256 is still 7.5 times a patch; half of 241 is rounded to even.
    let low = text(&large()).configuration("3d_lowres");
    assert_eq!(low.spacing, [4.0, 3.08, 3.08]);
    assert_eq!(low.median_image_size_in_voxels, [120.0, 128.0, 128.0]);
    assert_eq!(low.patch_size, [120, 128, 128]);
}

#[test]
fn axes_of_higher_resolution_are_halved_first() {
    // 96x256x256 is 3 times a patch.
    let low = text(&Dataset::new([2.5, 0.8, 0.8], [96, 512, 512], 281)).configuration("3d_lowres");
    assert_eq!(low.spacing, [2.5, 1.6, 1.6]);
    assert_eq!(low.median_image_size_in_voxels, [96.0, 256.0, 256.0]);
}

#[test]
fn axes_that_match_are_halved_together() {
    // 2.5 / 0.6 is more than 4, so two halvings make 2.4; 60x256x256 is then 1.9 times a patch.
    let low = text(&Dataset::new([2.5, 0.6, 0.6], [60, 1024, 1024], 10)).configuration("3d_lowres");
    assert_eq!(low.spacing, [2.5, 2.4, 2.4]);
    // 240x512x512 is still 7.5 times: all axes once more.
    let low = text(&Dataset::new([2.5, 0.6, 0.6], [480, 2048, 2048], 10)).configuration("3d_lowres");
    assert_eq!(low.spacing, [10.0, 9.6, 9.6]);
}

#[test]
fn dice_is_over_the_batch_but_for_volumes_and_the_first_stage() {
    let planned = text(&large());
    let flags =
        ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"].map(|name| planned.configuration(name).batch_dice);
    assert_eq!(flags, [true, false, false, true]);
}

#[test]
fn the_cascade_knows_both_of_its_stages() {
    let planned = text(&large());
    assert_eq!(planned.configuration("3d_cascade_fullres").previous_stage.as_deref(), Some("3d_lowres"));
    assert_eq!(planned.configuration("3d_lowres").next_stage, Some(json!("3d_cascade_fullres")));
}

#[test]
fn a_region_is_normalised_by_itself_where_cropping_removes_enough() {
    let with_mask = |relative_size: f64, preset: Preset| {
        let dataset = Dataset { relative_size, ..small() };
        dataset.plan(&PlannerSettings::preset(preset)).configuration("2d").use_mask_for_norm[0]
    };
    assert_eq!([0.25, 0.26].map(|size| with_mask(size, Preset::Y2018)), [true, false]);
    assert_eq!([0.75, 0.76].map(|size| with_mask(size, Preset::Y2018Paper)), [true, false]);
}

#[test]
fn the_median_spacing_holds_also_for_a_coarse_axis() {
    let planned = text(&thick_slices());
    assert_eq!(planned.configuration("3d_fullres").spacing, [3.6, 0.625, 0.625]);
}

#[test]
fn every_number_has_a_reason() {
    for dataset in [small(), large(), thick_slices()] {
        let unexplained = text(&dataset).unexplained();
        assert!(unexplained.is_empty(), "{unexplained:?}");
    }
}
