//! The same transforms as operations on tensors, which training asks of a GPU: here on the CPU.

use std::collections::BTreeMap;

use ndarray::{Array4, Axis};
use nnflow_kernels::augment::{
    AugmentationSettings, DUMMY_2D_ABOVE, Dimension, Drawn, ForChannel, OUTSIDE, PendingSample, replace_label,
};
use nnflow_net::augment::Augmenter;
use nnflow_net::probe;

use super::{Case, EXACT, IMAGE, spatial};
use crate::{Check, Problem, Tolerance};

/// What is done, as training would have drawn it, and how far the result may be from what is expected.
struct Work {
    drawn: Drawn,
    patch: Option<[usize; 3]>,
    masked_channels: Vec<usize>,
    scales: Vec<[f64; 3]>,
    image: Tolerance,
    /// The share of labels that may differ.
    labels: f64,
}

impl Default for Work {
    fn default() -> Self {
        let drawn = Drawn::default();
        let scales = vec![[1.0; 3]];
        Self { drawn, patch: None, masked_channels: Vec::new(), scales, image: IMAGE, labels: 0.0 }
    }
}

/// Whether tensors have a part in a transform. Morphology and components are left to the host, and regions to the loss.
pub(super) fn has_part(case: &Case<'_>) -> bool {
    let transform = case.entry.transform.as_str();
    let elsewhere = ["regions", "onehot_previous_stage", "remove_component"];
    !elsewhere.contains(&transform) && !transform.starts_with("binary_")
}

pub(super) fn compare(case: &Case<'_>, check: &mut Check) -> Result<(), Problem> {
    let work = work(case)?;
    let inputs = &case.entry.inputs;
    let image: Array4<f32> = match inputs.get("image") {
        Some(_) => case.image()?,
        None => case.labels()?.mapv(f32::from),
    };
    let (_, depth, height, width) = image.dim();
    let labels = match inputs.get("segmentation") {
        Some(_) => case.labels()?,
        None => Array4::zeros((1, depth, height, width)),
    };
    let patch = work.patch.unwrap_or([depth, height, width]);
    let mut settings = AugmentationSettings::nnunet_v2(Dimension::Three, patch, DUMMY_2D_ABOVE);
    settings.masked_channels = work.masked_channels;
    let map = work.drawn.spatial_map(patch);
    let sample = PendingSample { image, labels, previous: None, drawn: work.drawn, map };
    let augmenter = Augmenter::new(settings, patch, false, work.scales);
    let (image, labels) = probe::augmented(&augmenter, &sample).map_err(Problem::refused)?;
    if case.entry.outputs.contains_key("image") {
        let expected: Array4<f32> = case.array(&case.entry.outputs, "image")?;
        check.array("image", &expected.insert_axis(Axis(0)).into_dyn(), &image, work.image);
    }
    let names = case.entry.outputs.keys().filter(|name| name.starts_with("segmentation"));
    for (name, found) in in_order(names).into_iter().zip(&labels) {
        // In training, voxels outside become background.
        let mut expected: Array4<i16> = case.array(&case.entry.outputs, name)?;
        replace_label(&mut expected, OUTSIDE, 0);
        check.labels(name, &expected.insert_axis(Axis(0)).into_dyn(), found, work.labels);
    }
    Ok(())
}

/// `segmentation_10` after `segmentation_9`.
fn in_order<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let sorted: BTreeMap<(usize, &str), &str> =
        names.map(|name| ((name.len(), name.as_str()), name.as_str())).collect();
    sorted.into_values().collect()
}

fn work(case: &Case<'_>) -> Result<Work, Problem> {
    let drawn = |drawn: Drawn| Work { drawn, ..Work::default() };
    let for_channels = |name: &str| -> Result<Vec<ForChannel>, Problem> {
        let values: Vec<[f64; 3]> = case.parameter(name)?;
        Ok(values.into_iter().enumerate().map(|(channel, values)| ForChannel { channel, values }).collect())
    };
    Ok(match case.entry.transform.as_str() {
        "gaussian_blur" => drawn(Drawn { blur: for_channels("sigmas_per_channel_and_axis")?, ..Drawn::default() }),
        "brightness" => drawn(Drawn { brightness: case.parameter("multipliers")?, ..Drawn::default() }),
        "contrast" => drawn(Drawn { contrast: case.parameter("multipliers")?, ..Drawn::default() }),
        "gamma" => drawn(Drawn { gamma: case.parameter("gamma")?, ..Drawn::default() }),
        "gamma_inverted" => drawn(Drawn { inverted_gamma: case.parameter("gamma")?, ..Drawn::default() }),
        "low_resolution" | "low_resolution_ignore_axis0" => {
            drawn(Drawn { low_resolution: for_channels("scales_per_channel_and_axis")?, ..Drawn::default() })
        }
        "mirror" => Work { image: EXACT, ..drawn(Drawn { mirror: case.mirrored_axes()?, ..Drawn::default() }) },
        "mask_image" => Work { masked_channels: case.parameter("apply_to_channels")?, image: EXACT, ..Work::default() },
        "remove_label" => {
            let replaced: (i16, i16) = (case.parameter("label_value")?, case.parameter("set_to")?);
            if replaced != (OUTSIDE, 0) {
                return Err(case.not_understood(format!("label {} becomes {}", replaced.0, replaced.1)));
            }
            Work::default()
        }
        "deep_supervision_targets" => Work { scales: case.parameter("scales")?, ..Work::default() },
        "spatial_crop_only" => Work { image: EXACT, ..spatial_work(case, 0.0)? },
        transform if transform.starts_with("spatial_") => spatial_work(case, spatial::LABELS)?,
        other => return Err(case.not_understood(format!("the transform `{other}`"))),
    })
}

fn spatial_work(case: &Case<'_>, labels: f64) -> Result<Work, Problem> {
    let (drawn, patch) = (spatial::drawn(case)?, Some(spatial::patch(case)?));
    Ok(Work { drawn, patch, image: spatial::IMAGE, labels, ..Work::default() })
}
