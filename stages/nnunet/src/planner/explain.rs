//! The sentences for the numbers of one configuration.

use super::batch::{Batch, Decider};
use super::design::Design;
use super::facts::Facts;
use super::network::NetworkSize;
use super::normalization;
use super::reasons::{Reasons, join, large, millimetres};
use super::settings::{Method, Network, PlannerSettings};

/// Says why the numbers of a configuration are as they are.
pub(super) fn explain(
    name: &str,
    design: &Design,
    why_spacing: &str,
    (facts, settings): (&Facts, &PlannerSettings),
    reasons: &mut Reasons,
) {
    let mut add = |key: &str, text: String| reasons.add(format!("configurations.{name}.{key}"), text);
    add("batch_size", batch_size(&design.batch, &design.why_budget, facts, settings));
    add("patch_size", design.why_patch.clone());
    let spacing = millimetres(&design.grid.spacing);
    add("median_image_size_in_voxels", format!("median shape of the cases after resampling to {spacing}"));
    add("spacing", why_spacing.to_owned());
    let (schemes, masks) = normalization::explain(facts, settings);
    add("normalization_schemes", schemes);
    add("use_mask_for_norm", masks);
    for (key, text) in resampling(settings) {
        add(key, text);
    }
    for (key, text) in network(design, facts, settings) {
        add(&format!("architecture{key}"), text);
    }
}

fn batch_size(batch: &Batch, why_budget: &str, facts: &Facts, settings: &PlannerSettings) -> String {
    let Batch { size, affordable, covering, decider } = batch;
    let share = settings.max_dataset_covered * 100.0;
    let mut cases = format!("{} cases", facts.n_training);
    if facts.n_training != facts.shapes.len() {
        let n_cases = facts.shapes.len();
        cases = format!("{cases}, which dataset.json declares although the fingerprint has {n_cases}");
    }
    match decider {
        Decider::Budget => format!("{why_budget}: {size} samples"),
        Decider::Coverage => format!(
            "{covering} samples see {share} % of the dataset's voxels ({cases}), which a batch is not to exceed; the \
             budget would hold {affordable}"
        ),
        Decider::Minimum => format!(
            "the smallest batch: {why_budget}, and {share} % of the dataset's voxels ({cases}) are {covering} samples"
        ),
        Decider::Maximum => format!("the largest batch that the settings allow; {why_budget}"),
    }
}

fn resampling(settings: &PlannerSettings) -> [(&'static str, String); 3] {
    let PlannerSettings { image_order, label_order, probability_order, order_z, .. } = settings;
    let apart = match settings.force_separate_z {
        None => format!("an axis that is more than 3 times coarser is set apart with order {order_z}"),
        Some(true) => format!("the coarsest axis is set apart with order {order_z}"),
        Some(false) => "no axis is set apart".to_owned(),
    };
    [
        ("resampling_fn_data_kwargs", format!("images: spline of order {image_order}; {apart}")),
        ("resampling_fn_seg_kwargs", format!("labels: order {label_order} for each label; {apart}")),
        (
            "resampling_fn_probabilities_kwargs",
            format!("class scores, back to the grid of the image: order {probability_order}; {apart}"),
        ),
    ]
}

/// Keys inside of `architecture`, each with its dot.
fn network(design: &Design, facts: &Facts, settings: &PlannerSettings) -> Vec<(&'static str, String)> {
    let topology = &design.fit.topology;
    let n_channels = facts.channel_names.len();
    let parameters = large(NetworkSize::planned(settings, topology).parameters(n_channels, facts.n_heads) as f64);
    let largest = settings.of_rank(design.grid.rank()).max_features;
    let (depth, what) = match settings.network {
        Network::ResidualEncoder => (".arch_kwargs.n_blocks_per_stage", "residual blocks"),
        Network::Plain | Network::Unet2018 => (".arch_kwargs.n_conv_per_stage", "convolutions"),
    };
    let (strides, kernels) = match settings.method {
        Method::V2 => (
            "an axis is halved while its spacing is less than twice that of the finest axis that can still be halved, \
             so that voxels become isotropic",
            "3 along an axis from where its spacing is less than twice the finest one, before that 1, because a coarse \
             axis has no close neighbours",
        ),
        Method::Y2018 => (
            "each axis is halved as often as its map allows; axes with fewer halvings take part in the last ones",
            "3 along all axes",
        ),
    };
    vec![
        ("", format!("a U-Net with {parameters} parameters (channels: {n_channels}, outputs: {})", facts.n_heads)),
        (
            ".arch_kwargs.n_stages",
            format!(
                "the axes can be halved {} times while their maps stay at least {} voxels long",
                join(&topology.poolings, ", "),
                settings.min_feature_edge
            ),
        ),
        (
            ".arch_kwargs.features_per_stage",
            format!("{} at full resolution, doubled with each halving, at most {largest}", settings.base_features),
        ),
        (".arch_kwargs.strides", strides.to_owned()),
        (".arch_kwargs.kernel_sizes", kernels.to_owned()),
        (depth, format!("{what} of each encoder stage, from the setting `n_conv_per_stage`")),
        (
            ".arch_kwargs.n_conv_per_stage_decoder",
            "convolutions of each decoder stage, from the setting of the same name".to_owned(),
        ),
    ]
}
