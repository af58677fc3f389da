//! The sliding window against nnU-Net's.

use half::f16;
use ndarray::ArrayD;
use nnflow_kernels::tiling::{gaussian_weights, gaussian_weights_half, initial_patch_size, padding_to, window_starts};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

/// Of the weights in 32 bits, whose largest is 1.
const WEIGHTS: Tolerance = Tolerance::Absolute(1e-6);
/// Of the weights in 16 bits, in units of the last place.
const LAST_PLACES: Tolerance = Tolerance::Absolute(1.0);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Windows {
    image: Vec<usize>,
    image_after_padding: Vec<usize>,
    patch: Vec<usize>,
    step: f64,
    steps: Vec<Vec<usize>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Padded {
    image: Vec<usize>,
    patch: Vec<usize>,
    padded: Vec<usize>,
    slices: Vec<[usize; 2]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InitialPatch {
    patch: Vec<usize>,
    rotation_degrees: f64,
    scale_range: [f64; 2],
    initial_patch_size: Vec<usize>,
}

#[derive(Deserialize)]
struct Map {
    file: String,
    dtype: String,
    patch: Vec<usize>,
    sigma_scale: f64,
    value_scaling_factor: f64,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let mut vectors = each(folder, "steps.json", compare_windows);
    vectors.extend(each(folder, "padding.json", compare_padding));
    vectors.extend(each(folder, "initial_patch_size.json", compare_initial_patch));
    vectors.extend(each(folder, "gaussians.json", |check, map| compare_map(check, folder, map)));
    Ok(vectors)
}

/// A vector for each entry of a file; one that is not met if the file cannot be read.
fn each<T: DeserializeOwned>(
    folder: &Folder,
    file: &str,
    compare: impl Fn(&mut Check, &T) -> Result<(), Problem>,
) -> Vec<Vector> {
    let entries: Vec<T> = match folder.list(file) {
        Ok(entries) => entries,
        Err(problem) => return vec![Vector::of(file, |_| Err(problem))],
    };
    let named = entries.iter().enumerate();
    named.map(|(index, entry)| Vector::of(format!("{file}[{index}]"), |check| compare(check, entry))).collect()
}

fn compare_windows(check: &mut Check, windows: &Windows) -> Result<(), Problem> {
    let padded = padding_to(&windows.image, &windows.patch).shape;
    check.equal("shape after padding", &windows.image_after_padding, &padded);
    let starts = window_starts(&windows.image_after_padding, &windows.patch, windows.step).map_err(Problem::refused)?;
    check.equal("starts of the windows", &windows.steps, &starts);
    Ok(())
}

fn compare_padding(check: &mut Check, padded: &Padded) -> Result<(), Problem> {
    let padding = padding_to(&padded.image, &padded.patch);
    let inside: Vec<[usize; 2]> = padding.inside.iter().map(|range| [range.start, range.end]).collect();
    check.equal("shape after padding", &padded.padded, &padding.shape);
    check.equal("place of the image", &padded.slices, &inside);
    Ok(())
}

fn compare_initial_patch(check: &mut Check, patch: &InitialPatch) -> Result<(), Problem> {
    let [smallest_scale, _] = patch.scale_range;
    let found = initial_patch_size(&patch.patch, patch.rotation_degrees.to_radians(), smallest_scale);
    check.equal("initial patch", &patch.initial_patch_size, &found);
    Ok(())
}

fn compare_map(check: &mut Check, folder: &Folder, map: &Map) -> Result<(), Problem> {
    match map.dtype.as_str() {
        "float32" => {
            let found = gaussian_weights(&map.patch, map.sigma_scale, map.value_scaling_factor);
            check.array("weights", &folder.array::<f32>(&map.file)?, &found.into_dyn(), WEIGHTS);
        }
        "float16" => {
            let found = gaussian_weights_half(&map.patch, map.sigma_scale, map.value_scaling_factor);
            let expected: ArrayD<u16> = folder.halves(&map.file)?.mapv(f16::to_bits);
            // The bits of positive numbers count their units in the last place.
            let found = found.mapv(|weight| f16::from_f32(weight).to_bits()).into_dyn();
            check.array("weights in units of the last place", &expected, &found, LAST_PLACES);
        }
        other => return Err(Problem::not_understood(folder.path("gaussians.json"), format!("`dtype` `{other}`"))),
    }
    Ok(())
}
