//! Resampling against nnU-Net's `resample_data_or_seg_to_shape`.

use ndarray::{ArrayD, Axis, Ix3, Ix4, Zip, stack};
use nnflow_kernels::geometry::Spacing;
use nnflow_kernels::resample::{LabelRule, ResampleOptions, resample_image, resample_labels, separate_axis};
use serde::Deserialize;

use crate::folder::ArrayEntry;
use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

/// Of intensities; nnU-Net computes in 64 bits and stores 32.
const IMAGE: Tolerance = Tolerance::OfLargest(1e-5);
/// Kinds whose coordinates and weights are exact in binary, so that ties are decided by a rule and not by rounding.
const EXACT_TIES: [&str; 3] = ["seg_half_ties", "seg_up_ties", "seg_2d_ties"];

#[derive(Deserialize)]
struct Entry {
    case: String,
    current_spacing: Spacing,
    new_spacing: Spacing,
    new_shape: [usize; 3],
    kwargs: Keywords,
    separate_z: bool,
    axis: Option<usize>,
    input: ArrayEntry,
    output: ArrayEntry,
    near_tie: Option<ArrayEntry>,
}

#[derive(Deserialize)]
struct Keywords {
    is_seg: bool,
    #[serde(flatten)]
    options: serde_json::Value,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let entries: Vec<Entry> = folder.list("cases.json")?;
    Ok(entries.iter().map(|entry| Vector::of(&entry.case, |check| compare_one(check, folder, entry))).collect())
}

fn compare_one(check: &mut Check, folder: &Folder, entry: &Entry) -> Result<(), Problem> {
    let options: ResampleOptions = serde_json::from_value(entry.kwargs.options.clone())
        .map_err(|error| Problem::not_understood(folder.path("cases.json"), format!("`kwargs`: {error}")))?;
    let axis = separate_axis(entry.current_spacing, entry.new_spacing, options.force_separate_z);
    check.equal("axis resampled apart", &entry.axis, &axis);
    check.equal("whether an axis is resampled apart", &entry.separate_z, &axis.is_some());
    if entry.kwargs.is_seg {
        compare_labels(check, folder, entry, &options)
    } else {
        compare_image(check, folder, entry, &options)
    }
}

fn compare_image(check: &mut Check, folder: &Folder, entry: &Entry, options: &ResampleOptions) -> Result<(), Problem> {
    let input = axes::<f32, Ix4>(folder.entry(&entry.case, &entry.input)?)?;
    let expected: ArrayD<f32> = folder.entry(&entry.case, &entry.output)?;
    let found = resample_image(input.view(), entry.new_shape, entry.current_spacing, entry.new_spacing, options)
        .map_err(Problem::refused)?;
    check.array("intensities", &expected, &found.into_dyn(), IMAGE);
    Ok(())
}

fn compare_labels(check: &mut Check, folder: &Folder, entry: &Entry, options: &ResampleOptions) -> Result<(), Problem> {
    let input: ArrayD<i16> = folder.entry(&entry.case, &entry.input)?;
    let mut expected: ArrayD<i16> = folder.entry(&entry.case, &entry.output)?;
    let mut channels = Vec::new();
    for channel in input.axis_iter(Axis(0)) {
        let channel = axes::<i16, Ix3>(channel.to_owned())?;
        let (from, to) = (entry.current_spacing, entry.new_spacing);
        let rule = LabelRule::ArgmaxNearestTie;
        channels
            .push(resample_labels(channel.view(), entry.new_shape, from, to, options, rule).map_err(Problem::refused)?);
    }
    let views: Vec<_> = channels.iter().map(|channel| channel.view()).collect();
    let found = stack(Axis(0), &views).map_err(Problem::refused)?.into_dyn();
    let near_tie = entry.near_tie.as_ref().map(|near_tie| folder.entry::<u8>(&entry.case, near_tie)).transpose()?;
    let is_exact = EXACT_TIES.iter().any(|kind| entry.case.contains(kind));
    if let (Some(near_tie), false) = (near_tie, is_exact)
        && near_tie.shape() == expected.shape()
        && found.shape() == expected.shape()
    {
        // There the last bit decides.
        Zip::from(&mut expected).and(&found).and(&near_tie).for_each(|expected, &found, &tie| {
            if tie != 0 {
                *expected = found;
            }
        });
    }
    check.labels("labels", &expected, &found, 0.0);
    Ok(())
}

fn axes<T, D: ndarray::Dimension>(array: ArrayD<T>) -> Result<ndarray::Array<T, D>, Problem> {
    array.into_dimensionality().map_err(Problem::refused)
}
