//! The deterministic parts of augmentation against batchgeneratorsv2 as nnU-Net configures it, all that is random fixed.

mod spatial;
mod tensors;

use std::collections::BTreeMap;

use ndarray::{Array4, ArrayD, Axis, Ix4};
use ndarray_npy::ReadableElement;
use nnflow_kernels::augment::{
    DrawnOperator, DrawnRemoval, Operator, append_one_hot, apply_operator, blur_channel, deep_supervision_targets,
    gamma, mask_outside, mirror, regions_to_channels, remove_component, replace_label, scale_brightness,
    simulate_low_resolution, stretch_contrast,
};
use nnflow_kernels::filter::Kernel;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::folder::ArrayEntry;
use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

const IMAGE: Tolerance = Tolerance::Absolute(1e-4);
const EXACT: Tolerance = Tolerance::Absolute(0.0);
/// Of the weights of a blur, which are stored in 32 bits.
const WEIGHTS: Tolerance = Tolerance::Absolute(1e-6);
const CASES: &str = "cases.json";

#[derive(Deserialize)]
struct Entry {
    case: String,
    transform: String,
    parameters: Map<String, Value>,
    inputs: BTreeMap<String, ArrayEntry>,
    outputs: BTreeMap<String, ArrayEntry>,
}

/// A vector and the folder that it lies in.
struct Case<'a> {
    folder: &'a Folder,
    entry: &'a Entry,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let entries: Vec<Entry> = folder.list(CASES)?;
    let of_entry = |entry: &Entry| {
        let (case, name) = (Case { folder, entry }, &entry.case);
        let on_tensors = || Vector::of(format!("{name}, on tensors"), |check| tensors::compare(&case, check));
        [Some(Vector::of(name, |check| case.compare(check))), tensors::has_part(&case).then(on_tensors)]
    };
    Ok(entries.iter().flat_map(of_entry).flatten().collect())
}

impl Case<'_> {
    fn compare(&self, check: &mut Check) -> Result<(), Problem> {
        match self.entry.transform.as_str() {
            "spatial_3d"
            | "spatial_2d"
            | "spatial_dummy2d"
            | "spatial_rotation_only"
            | "spatial_scaling_only"
            | "spatial_crop_only" => spatial::compare(self, check),
            "gaussian_blur" => self.blur(check),
            "brightness" => self.each_channel(check, "multipliers", scale_brightness),
            "contrast" => {
                self.expect("preserve_range", true)?;
                self.each_channel(check, "multipliers", stretch_contrast)
            }
            "gamma" | "gamma_inverted" => {
                self.expect("retain_stats", true)?;
                let is_inverted = self.parameter("invert_image")?;
                self.each_channel(check, "gamma", |voxels, exponent| gamma(voxels, exponent, is_inverted))
            }
            "low_resolution" | "low_resolution_ignore_axis0" => self.low_resolution(check),
            "mirror" => self.mirror(check),
            "mask_image" => self.mask(check),
            "remove_label" => self.remove_label(check),
            "regions" => self.regions(check),
            "deep_supervision_targets" => self.deep_supervision(check),
            "onehot_previous_stage" => self.one_hot(check),
            "binary_dilation" => self.operator(check, Operator::Dilate),
            "binary_erosion" => self.operator(check, Operator::Erode),
            "binary_closing" => self.operator(check, Operator::Close),
            "binary_opening" => self.operator(check, Operator::Open),
            "remove_component" => self.removal(check),
            other => Err(self.not_understood(format!("the transform `{other}`"))),
        }
    }

    fn not_understood(&self, what: String) -> Problem {
        Problem::not_understood(self.folder.path(CASES).join(&self.entry.case), what)
    }

    fn parameter<T: DeserializeOwned>(&self, name: &str) -> Result<T, Problem> {
        let value = self.entry.parameters.get(name).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|error| self.not_understood(format!("parameter `{name}`: {error}")))
    }

    /// A parameter that is known with one value only.
    fn expect(&self, name: &str, expected: bool) -> Result<(), Problem> {
        let found: bool = self.parameter(name)?;
        if found == expected { Ok(()) } else { Err(self.not_understood(format!("`{name}` = {found}"))) }
    }

    /// An array `[c, z, y, x]`; that of a 2-D case gets an axis of one slice.
    fn array<T: ReadableElement>(&self, side: &BTreeMap<String, ArrayEntry>, name: &str) -> Result<Array4<T>, Problem> {
        let entry = side.get(name).ok_or_else(|| self.not_understood(format!("there is no `{name}`")))?;
        let mut array: ArrayD<T> = self.folder.entry(&self.entry.case, entry)?;
        if array.ndim() == 3 {
            array.insert_axis_inplace(Axis(1));
        }
        array.into_dimensionality::<Ix4>().map_err(Problem::refused)
    }

    fn image(&self) -> Result<Array4<f32>, Problem> {
        self.array(&self.entry.inputs, "image")
    }

    fn labels(&self) -> Result<Array4<i16>, Problem> {
        self.array(&self.entry.inputs, "segmentation")
    }

    fn compare_image(&self, check: &mut Check, found: &Array4<f32>, tolerance: Tolerance) -> Result<(), Problem> {
        let expected: Array4<f32> = self.array(&self.entry.outputs, "image")?;
        check.array("image", &expected, found, tolerance);
        Ok(())
    }

    fn compare_labels(&self, check: &mut Check, name: &str, found: &Array4<i16>, share: f64) -> Result<(), Problem> {
        let expected: Array4<i16> = self.array(&self.entry.outputs, name)?;
        check.labels(name, &expected, found, share);
        Ok(())
    }

    fn each_channel(&self, check: &mut Check, name: &str, change: impl Fn(&mut [f32], f64)) -> Result<(), Problem> {
        let mut image = self.image()?;
        let values: Vec<f64> = self.parameter(name)?;
        check.equal("number of channels", &image.len_of(Axis(0)), &values.len());
        for (mut channel, value) in image.outer_iter_mut().zip(values) {
            change(channel.as_slice_mut().unwrap_or_default(), value);
        }
        self.compare_image(check, &image, IMAGE)
    }

    fn blur(&self, check: &mut Check) -> Result<(), Problem> {
        let mut image = self.image()?;
        let sigmas: Vec<[f64; 3]> = self.parameter("sigmas_per_channel_and_axis")?;
        let kernels: Vec<[Vec<f64>; 3]> = self.parameter("kernels")?;
        for (index, (mut channel, sigmas)) in image.outer_iter_mut().zip(&sigmas).enumerate() {
            for (axis, (sigma, expected)) in sigmas.iter().zip(kernels.get(index).into_iter().flatten()).enumerate() {
                let found: Vec<f64> = Kernel::nearest_odd(*sigma).weights().iter().copied().map(f64::from).collect();
                let what = format!("kernel of channel {index}, axis {axis}");
                check.numbers(what, &expected[expected.len() / 2..], &found, WEIGHTS);
            }
            blur_channel(channel.view_mut(), *sigmas);
        }
        self.compare_image(check, &image, IMAGE)
    }

    fn low_resolution(&self, check: &mut Check) -> Result<(), Problem> {
        let mut image = self.image()?;
        let scales: Vec<[f64; 3]> = self.parameter("scales_per_channel_and_axis")?;
        for (channel, scales) in image.outer_iter_mut().zip(scales) {
            simulate_low_resolution(channel, scales);
        }
        self.compare_image(check, &image, IMAGE)
    }

    fn mirrored_axes(&self) -> Result<[bool; 3], Problem> {
        let axes: Vec<usize> = self.parameter("axes")?;
        // The one slice of a 2-D image is an axis that only we have.
        let is_flat = self.entry.inputs.values().all(|entry| entry.shape.len() == 3);
        Ok(std::array::from_fn(|axis| axes.iter().any(|&mirrored| mirrored + usize::from(is_flat) == axis)))
    }

    fn mirror(&self, check: &mut Check) -> Result<(), Problem> {
        let axes = self.mirrored_axes()?;
        let (mut image, mut labels) = (self.image()?, self.labels()?);
        mirror(&mut image, axes);
        mirror(&mut labels, axes);
        self.compare_image(check, &image, EXACT)?;
        self.compare_labels(check, "segmentation", &labels, 0.0)
    }

    fn mask(&self, check: &mut Check) -> Result<(), Problem> {
        let mut image = self.image()?;
        let channels: Vec<usize> = self.parameter("apply_to_channels")?;
        mask_outside(&mut image, self.labels()?.view(), &channels);
        self.compare_image(check, &image, EXACT)
    }

    fn remove_label(&self, check: &mut Check) -> Result<(), Problem> {
        let mut labels = self.labels()?;
        replace_label(&mut labels, self.parameter("label_value")?, self.parameter("set_to")?);
        self.compare_labels(check, "segmentation", &labels, 0.0)
    }

    fn regions(&self, check: &mut Check) -> Result<(), Problem> {
        let regions: Vec<Vec<i16>> = self.parameter("regions")?;
        let found = regions_to_channels(self.labels()?.index_axis(Axis(0), 0), &regions);
        let expected: Array4<u8> = self.array(&self.entry.outputs, "segmentation")?;
        check.labels("regions", &expected, &found, 0.0);
        Ok(())
    }

    fn deep_supervision(&self, check: &mut Check) -> Result<(), Problem> {
        let scales: Vec<[f64; 3]> = self.parameter("scales")?;
        let found = deep_supervision_targets(self.labels()?.view(), &scales);
        check.equal("number of targets", &self.entry.outputs.len(), &found.len());
        for (index, target) in found.iter().enumerate() {
            self.compare_labels(check, &format!("segmentation_{index}"), target, 0.0)?;
        }
        Ok(())
    }

    fn one_hot(&self, check: &mut Check) -> Result<(), Problem> {
        let labels = self.labels()?;
        let wanted: Vec<i16> = self.parameter("labels")?;
        let source: usize = self.parameter("source_channel_idx")?;
        if source >= labels.len_of(Axis(0)) {
            return Err(self.not_understood(format!("`source_channel_idx` = {source}")));
        }
        let found = append_one_hot(self.image()?.view(), labels.index_axis(Axis(0), source), &wanted);
        self.compare_image(check, &found, EXACT)?;
        let mut rest = labels;
        rest.remove_index(Axis(0), source);
        self.compare_labels(check, "segmentation", &rest, 0.0)
    }

    fn operator(&self, check: &mut Check, operator: Operator) -> Result<(), Problem> {
        let mut image = self.image()?;
        let others: Vec<i64> = self.parameter("other_channels")?;
        let channel = self.channel(&image, self.parameter("channel")?)?;
        let radius = self.parameter("ball_radius")?;
        // The one-hot channels are the last ones.
        let first = image.len_of(Axis(0)).saturating_sub(1 + others.len());
        let label = channel.checked_sub(first);
        let label = label.ok_or_else(|| self.not_understood("a channel in front of the one-hot ones".to_owned()))?;
        apply_operator(&mut image, first, &DrawnOperator { label, operator, radius });
        self.compare_image(check, &image, EXACT)
    }

    fn removal(&self, check: &mut Check) -> Result<(), Problem> {
        let mut image = self.image()?;
        let below = self.parameter("dont_do_if_covers_more_than")?;
        for channel in self.parameter::<Vec<i64>>("channels")? {
            let channel = self.channel(&image, channel)?;
            // The vectors are made so that at most one component is small enough.
            remove_component(image.index_axis_mut(Axis(0), channel), below, &DrawnRemoval { label: 0, pick: 0.5 });
        }
        self.compare_image(check, &image, EXACT)
    }

    /// A channel that is counted from the last one where it is negative, as Python does.
    fn channel(&self, image: &Array4<f32>, channel: i64) -> Result<usize, Problem> {
        let n_channels = image.len_of(Axis(0));
        let counted = if channel < 0 { channel + n_channels as i64 } else { channel };
        let counted = usize::try_from(counted).ok().filter(|&channel| channel < n_channels);
        counted.ok_or_else(|| self.not_understood(format!("channel {channel} of {n_channels}")))
    }
}
