//! Networks, forth and back, against those that nnU-Net builds with dynamic_network_architectures.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::ArrayD;
use nnflow_io::plans;
use nnflow_io::state_dict::aliases;
use nnflow_net::architecture::Architecture;
use nnflow_net::network::parameter_count;
use nnflow_net::probe::{self, Parameter};
use nnflow_nnunet::planner::NetworkSize;
use serde::Deserialize;
use serde_json::Value;

use crate::folder::ArrayEntry;
use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

const OUTPUT: Tolerance = Tolerance::OfLargest(1e-4);
const GRADIENT: Tolerance = Tolerance::OfLargest(1e-3);
/// In front of an instance norm the true gradient of a bias is 0. An expected gradient below the first number is such
/// rounding noise; another implementation has its own, which has to be below the second.
const NOISE: (f32, f64) = (1e-6, 1e-5);
/// A mean or deviation of a sample may be this many standard errors from that of the distribution.
const STANDARD_ERRORS: f64 = 6.0;

#[derive(Deserialize)]
struct Entry {
    architecture: Value,
    input_channels: usize,
    output_channels: usize,
    outputs: Vec<ArrayEntry>,
    state_dict_keys: BTreeSet<String>,
    initialisation_statistics: BTreeMap<String, Statistics>,
    parameters: Option<BTreeMap<String, Vec<usize>>>,
    n_parameters: Option<usize>,
    conv_feature_map_size: Option<f64>,
}

#[derive(Deserialize)]
struct Statistics {
    mean: f64,
    std: Option<f64>,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let networks = folder.subfolders("")?;
    Ok(networks.iter().map(|name| Vector::of(name, |check| compare_one(check, folder, name))).collect())
}

fn compare_one(check: &mut Check, folder: &Folder, name: &str) -> Result<(), Problem> {
    let entry: Entry = folder.json(&format!("{name}/network.json"))?;
    let (channels, outputs) = (entry.input_channels, entry.output_channels);
    let architecture =
        Architecture::from_plans(&entry.architecture, channels, outputs, true).map_err(Problem::refused)?;
    let parameters = probe::parameters(&architecture);
    let names: BTreeSet<String> = parameters.iter().flat_map(|parameter| aliases(&parameter.name)).collect();
    check.equal("names in the state dict", &entry.state_dict_keys, &names);
    if let Some(expected) = &entry.parameters {
        let found = parameters.iter().map(|parameter| (parameter.name.clone(), parameter.shape.clone())).collect();
        check.equal("parameters and their shapes", expected, &found);
    }
    if entry.n_parameters.is_some() {
        check.equal("number of parameters", &entry.n_parameters, &parameter_count(&architecture));
    }
    compare_initial(check, &entry, &parameters);

    let weights = folder.archive(&format!("{name}/state_dict.npz"))?;
    let input: ArrayD<f32> = folder.array(&format!("{name}/input.npy"))?;
    if let Some(expected) = entry.conv_feature_map_size {
        let found = map_size(&entry, input.shape().get(2..).unwrap_or_default())?;
        check.equal("values in all maps of features", &expected, &found);
    }
    let expected =
        entry.outputs.iter().map(|output| folder.entry::<f32>(name, output)).collect::<Result<Vec<_>, _>>()?;
    let output_gradients: Vec<ArrayD<f32>> = expected.iter().map(output_gradient).collect();
    let pass = probe::network(&architecture, &weights, &input, &output_gradients).map_err(Problem::refused)?;
    for (index, (expected, found)) in expected.iter().zip(&pass.outputs).enumerate() {
        check.array(format!("output {index}"), expected, found, OUTPUT);
    }
    compare_gradients(check, &folder.archive(&format!("{name}/gradients.npz"))?, &pass.gradients);
    Ok(())
}

/// By which the planner estimates memory: without the outputs of lower resolutions, which the vectors count.
fn map_size(entry: &Entry, patch: &[usize]) -> Result<f64, Problem> {
    let planned: plans::Architecture = serde_json::from_value(entry.architecture.clone()).map_err(Problem::refused)?;
    let kind = planned.network().map_err(Problem::refused)?;
    let arguments = planned.unet("network.json").map_err(Problem::refused)?;
    let lower = entry.outputs.iter().skip(1).map(|output| output.shape.iter().skip(1).product::<usize>() as f64);
    Ok(NetworkSize::described(kind, &arguments).conv_elements(patch, entry.output_channels) + lower.sum::<f64>())
}

/// The gradient of `mean(output · cos(k))`, `k` the index in C order, whose cosine the vectors round to 32 bits.
fn output_gradient(output: &ArrayD<f32>) -> ArrayD<f32> {
    let count = output.len() as f32;
    let values = (0..output.len()).map(|index| (index as f64).cos() as f32 / count).collect();
    ArrayD::from_shape_vec(output.shape(), values).expect("invariant: as many values as the output has")
}

fn compare_gradients(
    check: &mut Check,
    expected: &BTreeMap<String, ArrayD<f32>>,
    found: &BTreeMap<String, ArrayD<f32>>,
) {
    let names = |gradients: &BTreeMap<String, ArrayD<f32>>| gradients.keys().cloned().collect::<Vec<_>>();
    check.equal("parameters with a gradient", &names(expected), &names(found));
    for (name, expected) in expected {
        let Some(found) = found.get(name) else { continue };
        let is_noise = expected.iter().all(|value| value.abs() < NOISE.0);
        let tolerance = if is_noise { Tolerance::Absolute(NOISE.1) } else { GRADIENT };
        check.array(format!("gradient of {name}"), expected, found, tolerance);
    }
}

/// What nnU-Net drew has to be what one can expect to be drawn from the distributions of ours.
fn compare_initial(check: &mut Check, entry: &Entry, parameters: &[Parameter]) {
    for parameter in parameters {
        let what = |of: &str| format!("{of} of {} at the start", parameter.name);
        let Some(drawn) = entry.initialisation_statistics.get(&parameter.name) else {
            check.miss(what("mean"), "in `initialisation_statistics`", "none");
            continue;
        };
        let size: usize = parameter.shape.iter().product();
        let margin = STANDARD_ERRORS * parameter.deviation / (size as f64).sqrt();
        let apart = |value: f64, expected: f64| (value - expected).abs() > margin;
        if apart(drawn.mean, parameter.mean) {
            check.miss(what("mean"), &drawn.mean, &parameter.mean);
        }
        if drawn.std.is_some_and(|deviation| apart(deviation, parameter.deviation)) {
            check.miss(what("deviation"), &drawn.std, &parameter.deviation);
        }
    }
}
