//! Trained models as nnU-Net keeps them, and what its predictor makes of images with them.
//!
//! The checkpoints are imported, the images prepared, predicted and brought back to their own grid as `nnflow predict` does
//! it; sums are of 32 bits, those of nnU-Net of 16, which is why logits have two tolerances.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use half::f16;
use ndarray::{Array3, Array4, ArrayD, ArrayView4, Axis, Ix3, Ix4, Zip, s};
use nnflow_io::array::ArrayFile;
use nnflow_io::image::read_labels;
use nnflow_kernels::tiling::{gaussian_weights_half, padding_to, window_corners, window_starts};
use nnflow_net::architecture::Architecture;
use nnflow_net::device::Device;
use nnflow_net::inference::{Average, InferenceOptions, PrecisionOfSums, predict};
use nnflow_net::network::Network;
use nnflow_net::precision::Precision;
use nnflow_nnunet::case::IMAGE;
use nnflow_nnunet::foreign::{ImportOptions, import};
use nnflow_nnunet::train::model::{ModelRecord, RECORD, WEIGHTS};
use nnflow_nnunet::workbench::{Bench, Made};
use serde_json::{Value, json};

use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

/// Of the images that the network sees, normalised by sums that nnU-Net takes in single precision.
const PREPARED: Tolerance = Tolerance::Absolute(1e-4);
/// Of logits that were summed in 32 bits.
const SINGLE: Tolerance = Tolerance::Absolute(1e-3);
/// Of logits that were summed in 16 bits: absolute and relative where the sum of weights is large enough, absolute elsewhere,
/// where weight times logit has but a few bits.
const HALF: (f64, f64, f64) = (0.02, 2e-3, 0.51);
const ENOUGH_WEIGHT: f32 = 0.01;
/// Of probabilities, there too.
const PROBABILITY: Tolerance = Tolerance::Absolute(5e-3);
/// Share of logits that may differ where both are added up in 16 bits: answers differ in the seventh digit, and some sums round
/// the other way for it.
const ROUNDED: Tolerance = Tolerance::Absolute(0.02);
/// Share of voxels whose labels may differ, and the least Dice of each label between both label maps.
const LABELS: f64 = 1e-3;
const DICE: f64 = 0.998;
/// nnU-Net's window weights.
const SIGMA_SCALE: f64 = 1.0 / 8.0;
const PEAK: f64 = 10.0;
const MODEL: &str = "model_";
const PREDICTIONS: &str = "predictions_";
const LARGE: u64 = 1 << 40;

/// How a folder of predictions was made, as its name tells: `fold01_nomirror_step0.75_nogauss`.
struct Setting {
    folds: Vec<String>,
    mirroring: bool,
    step: f64,
    gaussian: bool,
}

/// A trained configuration with its images.
struct Trained<'a> {
    folder: &'a Folder,
    /// The folder of the model within that of the component.
    name: &'a str,
    configuration: String,
    plans: Value,
    description: Value,
    ending: String,
    bench: Bench,
    /// The model's configurations under the names that nnU-Net gives their folders.
    results: PathBuf,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    folder.set_aside("float32_vs_float16.json");
    let mut vectors = Vec::new();
    for name in folder.subfolders("")? {
        // What the images look like, and how good the predictions are: of no use here.
        for aside in ["reference", "report.json"] {
            folder.set_aside(&format!("{name}/{aside}"));
        }
        for model in folder.subfolders(&name)?.iter().filter_map(|below| below.strip_prefix(MODEL)) {
            vectors.extend(compare_model(folder, &name, model)?);
        }
    }
    Ok(vectors)
}

fn compare_model(folder: &Folder, name: &str, configuration: &str) -> Result<Vec<Vector>, Problem> {
    let trained = Trained::new(folder, name, configuration)?;
    let predictions = format!("{name}/{PREDICTIONS}{configuration}");
    let cases = trained.cases(&predictions)?;
    let mut vectors = Vec::new();
    for case in &cases {
        let vector = format!("{predictions}/{case}");
        vectors.push(Vector::of(vector, |check| trained.compare_prepared(check, &predictions, case)));
    }
    for setting in folder.subfolders(&predictions)? {
        let below = format!("{predictions}/{setting}");
        vectors.push(Vector::of(below.clone(), |check| trained.compare_setting(check, &predictions, &below, &cases)));
    }
    Ok(vectors)
}

impl Setting {
    fn of(folder: &Path, name: &str) -> Result<Self, Problem> {
        let mut setting = Self { folds: Vec::new(), mirroring: true, step: 0.5, gaussian: true };
        for part in name.split('_') {
            match part {
                "mirror" => setting.mirroring = true,
                "nomirror" => setting.mirroring = false,
                "nogauss" => setting.gaussian = false,
                _ if part.starts_with("fold") => {
                    setting.folds = part["fold".len()..].chars().map(String::from).collect();
                }
                _ => {
                    let step = part.strip_prefix("step").and_then(|step| step.parse().ok());
                    setting.step =
                        step.ok_or_else(|| Problem::not_understood(folder, format!("the setting `{part}`")))?;
                }
            }
        }
        Ok(setting)
    }
}

impl<'a> Trained<'a> {
    fn new(folder: &'a Folder, name: &'a str, configuration: &str) -> Result<Self, Problem> {
        let bench = Bench::new()?;
        let results = bench.path().join("results");
        let unwritable = |error: std::io::Error| Problem::unreadable(&results, error);
        fs_err::create_dir_all(&results).map_err(unwritable)?;
        for below in folder.subfolders(name)? {
            if let Some(one) = below.strip_prefix(MODEL) {
                let model = folder.path(&format!("{name}/{below}"));
                let model = fs_err::canonicalize(model).map_err(unwritable)?;
                symlink(model, results.join(format!("nnUNetTrainer__nnUNetPlans__{one}"))).map_err(unwritable)?;
            }
        }
        let description: Value = folder.json(&format!("{name}/{MODEL}{configuration}/dataset.json"))?;
        Ok(Self {
            plans: folder.json(&format!("{name}/{MODEL}{configuration}/plans.json"))?,
            ending: description["file_ending"].as_str().unwrap_or(".nii.gz").to_owned(),
            configuration: configuration.to_owned(),
            folder,
            name,
            description,
            bench,
            results,
        })
    }

    /// The cases whose prepared images are there.
    fn cases(&self, predictions: &str) -> Result<Vec<String>, Problem> {
        let files = self.folder.files(predictions)?;
        let cases: Vec<String> =
            files.iter().filter_map(|name| name.strip_suffix("_preprocessed.npy")).map(str::to_owned).collect();
        if cases.is_empty() { Err(Problem::missing(self.folder.path(predictions))) } else { Ok(cases) }
    }

    /// The prepared case as the stages make it.
    fn prepare(&self, case: &str) -> Result<Made, Problem> {
        let inputs = format!("{}/inputs", self.name);
        let mut files = Vec::new();
        for name in self.folder.files(&inputs)? {
            let channel = name.strip_prefix(&format!("{case}_")).and_then(|rest| rest.strip_suffix(&self.ending));
            if let Some(channel) = channel {
                files.push((format!("{channel}{}", self.ending), self.folder.path(&format!("{inputs}/{name}"))));
            }
        }
        let files: Vec<(&str, &Path)> = files.iter().map(|(name, path)| (name.as_str(), path.as_path())).collect();
        let (raw, description, plan) = (Made::of_case(case, &files)?, self.description(), self.plan());
        let without_labels = json!({"labels": "none"});
        let ingest = self.bench.node("ingest")?.with(without_labels.as_object().unwrap_or(&serde_json::Map::new()))?;
        let cases = ingest.run(&[("files", &raw), ("description", &description)])?.port("cases")?.clone();
        let crop = self.bench.node("crop")?.run(&[("cases", &cases)])?.port("crop")?.clone();
        let normalize = self.bench.node("normalize")?.at("configuration", &self.configuration);
        let inputs = [("cases", &cases), ("crop", &crop), ("plan", &plan)];
        let normalized = normalize.run(&inputs)?.port("prepared")?.clone();
        let resample = self.bench.node("resample")?.at("configuration", &self.configuration);
        let inputs = [("cases", &normalized), ("plan", &plan), ("description", &description)];
        Ok(resample.run(&inputs)?.port("prepared")?.clone())
    }

    fn description(&self) -> Made {
        Made::Document(self.description.clone())
    }

    fn plan(&self) -> Made {
        Made::Document(self.plans.clone())
    }

    /// What the network of the real nnU-Net saw, the channels of a cascade's first stage included.
    fn seen(&self, predictions: &str, case: &str) -> Result<Array4<f32>, Problem> {
        let array: ArrayD<f32> = self.folder.array(&format!("{predictions}/{case}_preprocessed.npy"))?;
        array.into_dimensionality::<Ix4>().map_err(Problem::refused)
    }

    fn compare_prepared(&self, check: &mut Check, predictions: &str, case: &str) -> Result<(), Problem> {
        self.folder.set_aside(&format!("{predictions}/{case}_properties.json"));
        let expected = self.seen(predictions, case)?;
        let prepared = self.prepare(case)?;
        let file = prepared.artifact_of_case(case)?.file(IMAGE).map(|file| file.path.clone()).unwrap_or_default();
        let found: Array4<f32> = ArrayFile::open(&file).and_then(|file| file.read_all()).map_err(Problem::refused)?;
        let channels = found.len_of(Axis(0));
        if expected.len_of(Axis(0)) > channels {
            check.note("the channels of the cascade's first stage are taken as they are given");
        }
        let expected = expected.slice(s![..channels.min(expected.len_of(Axis(0))), .., .., ..]);
        check.array("prepared image", &expected, &found, PREPARED);
        Ok(())
    }

    fn compare_setting(
        &self,
        check: &mut Check,
        predictions: &str,
        below: &str,
        cases: &[String],
    ) -> Result<(), Problem> {
        let setting = Setting::of(&self.folder.path(below), below.rsplit('/').next().unwrap_or(below))?;
        let (networks, record) = self.networks(&setting)?;
        let options = InferenceOptions {
            patch: record.patch_size.clone(),
            step: setting.step,
            mirror_axes: if setting.mirroring { record.mirror_axes.clone() } else { Vec::new() },
            gaussian: setting.gaussian,
            average: Average::Logits,
            precision: Precision::Float32,
            sums: PrecisionOfSums::Float32,
            batch: 1,
            device_memory: LARGE,
        };
        for case in cases {
            let image = self.seen(predictions, case)?;
            let prediction = predict(&networks, image.view(), &options).map_err(Problem::refused)?;
            let logits = prediction.into_array().map_err(Problem::refused)?;
            let weights = weights(image.view(), &options)?;
            self.compare_logits(check, below, case, &logits, &weights)?;
            let options = InferenceOptions { sums: PrecisionOfSums::Float16, ..options.clone() };
            let rounded = predict(&networks, image.view(), &options).map_err(Problem::refused)?;
            self.compare_rounded(check, below, case, &rounded.into_array().map_err(Problem::refused)?)?;
            self.compare_labels(check, below, case, &logits, &weights)?;
        }
        Ok(())
    }

    /// The networks of the folds, through a bundle, and the record of one of them.
    fn networks(&self, setting: &Setting) -> Result<(Vec<Network>, ModelRecord), Problem> {
        let bundle = self.bench.fresh_folder()?.join("bundle");
        let options = ImportOptions {
            configurations: vec![self.configuration.clone()],
            folds: setting.folds.clone(),
            ..ImportOptions::default()
        };
        import(&self.results, &options, &bundle)?;
        let mut networks = Vec::new();
        let mut last = None;
        for fold in &setting.folds {
            let folder = bundle.join("models").join(&self.configuration).join(format!("fold_{fold}"));
            let record: ModelRecord = nnflow_io::json::read(&folder.join(RECORD)).map_err(Problem::refused)?;
            let (channels, outputs) = (record.input_channels, record.outputs);
            let built = Architecture::from_plans(&record.architecture, channels, outputs, record.deep_supervision);
            let architecture = built.map_err(Problem::refused)?;
            let network = Network::load(&folder.join(WEIGHTS), &architecture, Device::Cpu { threads: 1 });
            networks.push(network.map_err(Problem::refused)?);
            last = Some(record);
        }
        let record = last.ok_or_else(|| Problem::Refused { message: "the setting names no fold".to_owned() })?;
        Ok((networks, record))
    }

    fn compare_logits(
        &self,
        check: &mut Check,
        below: &str,
        case: &str,
        logits: &Array4<f32>,
        weights: &Array3<f32>,
    ) -> Result<(), Problem> {
        let single = format!("{below}/{case}_logits_float32acc.npy");
        if self.folder.has(&single) {
            let expected: ArrayD<f32> = match self.folder.array(&single) {
                Ok(expected) => expected,
                Err(_) => self.folder.halves(&single)?.mapv(f16::to_f32),
            };
            check.array(format!("{case}: logits, 32-bit sums"), &expected, &logits.clone().into_dyn(), SINGLE);
        }
        let expected = self.folder.halves(&format!("{below}/{case}_logits.npy"))?.mapv(f16::to_f32);
        let expected = expected.into_dimensionality::<Ix4>().map_err(Problem::refused)?;
        check.equal("shape of the logits", expected.shape(), logits.shape());
        if expected.shape() != logits.shape() {
            return Ok(());
        }
        // What is allowed differs from voxel to voxel, so shares of it are compared.
        let mut shares = Array4::<f64>::zeros(logits.dim());
        for (class, mut shares) in shares.axis_iter_mut(Axis(0)).enumerate() {
            let (expected, found) = (expected.index_axis(Axis(0), class), logits.index_axis(Axis(0), class));
            Zip::from(&mut shares).and(&expected).and(&found).and(weights).for_each(
                |share, &expected, &found, &weight| {
                    let (expected, found) = (f64::from(expected), f64::from(found));
                    let (absolute, relative, elsewhere) = HALF;
                    let allowed =
                        if weight >= ENOUGH_WEIGHT { absolute + relative * expected.abs() } else { elsewhere };
                    *share = (expected - found).abs() / allowed;
                },
            );
        }
        let what = format!("{case}: logits, 16-bit sums, as shares of what is allowed");
        check.array(what, &Array4::<f64>::zeros(logits.dim()), &shares, Tolerance::Absolute(1.0));
        Ok(())
    }

    /// Sums of 16 bits are nnU-Net's bit for bit, except where an answer that differs in the seventh digit is rounded to the
    /// other side.
    fn compare_rounded(&self, check: &mut Check, below: &str, case: &str, logits: &Array4<f32>) -> Result<(), Problem> {
        let expected = self.folder.halves(&format!("{below}/{case}_logits.npy"))?.mapv(f16::to_f32);
        let expected = expected.into_dimensionality::<Ix4>().map_err(Problem::refused)?;
        if expected.shape() == logits.shape() {
            let differing = expected.iter().zip(logits).filter(|(expected, found)| expected != found).count();
            let share = differing as f64 / expected.len().max(1) as f64;
            check.number(format!("{case}: logits, 16-bit sums, share that differs"), 0.0, share, ROUNDED);
        }
        Ok(())
    }

    fn compare_labels(
        &self,
        check: &mut Check,
        below: &str,
        case: &str,
        logits: &Array4<f32>,
        weights: &Array3<f32>,
    ) -> Result<(), Problem> {
        let path = self.bench.fresh_folder()?.join("logits.npy");
        ndarray_npy::write_npy(&path, logits).map_err(Problem::refused)?;
        let scores = Made::of_case(case, &[("logits.npy", &path)])?;
        let (prepared, plan, description) = (self.prepare(case)?, self.plan(), self.description());
        let with = json!({"probabilities": true});
        let export = self.bench.node("export")?.at("configuration", &self.configuration);
        let export = export.with(with.as_object().unwrap_or(&serde_json::Map::new()))?;
        let inputs = [("logits", &scores), ("cases", &prepared), ("plan", &plan), ("description", &description)];
        let exported = export.run(&inputs)?;
        let name = format!("labels{}", self.ending);
        let labels = exported.port("labels")?.artifact_of_case(case)?;
        let path = labels.file(&name).map(|file| file.path.clone()).unwrap_or_default();
        let (found, _) = read_labels(&path, &name).map_err(Problem::refused)?;
        let expected: ArrayD<u8> = self.folder.array(&format!("{below}/{case}_segmentation.npy"))?;
        let expected = expected.into_dimensionality::<Ix3>().map_err(Problem::refused)?.mapv(i16::from);
        compare_maps(check, case, &expected, &found);
        let file = self.folder.path(&format!("{below}/{case}{}", self.ending));
        let (in_file, _) = read_labels(&file, &self.ending).map_err(Problem::refused)?;
        check.labels(format!("{case}: labels in the file"), &in_file, &found, LABELS);
        let probabilities = format!("{below}/{case}_probabilities.npy");
        if self.folder.has(&probabilities) {
            let expected: ArrayD<f32> = self.folder.array(&probabilities)?;
            let artifact = exported.port("probabilities")?.artifact_of_case(case)?;
            let path = artifact.files.first().map(|file| file.path.clone()).unwrap_or_default();
            let found: Array4<f32> =
                ArrayFile::open(&path).and_then(|file| file.read_all()).map_err(Problem::refused)?;
            compare_probabilities(check, case, expected, found, weights)?;
        }
        Ok(())
    }
}

/// How much all windows together count in each voxel of the image, `[z, y, x]`.
fn weights(image: ArrayView4<'_, f32>, options: &InferenceOptions) -> Result<Array3<f32>, Problem> {
    let shape = &image.shape()[1..];
    let padding = padding_to(shape, &options.patch);
    let leading = shape.len() - options.patch.len();
    let mut starts: Vec<Vec<usize>> = padding.shape[..leading].iter().map(|&extent| (0..extent).collect()).collect();
    let windows = window_starts(&padding.shape[leading..], &options.patch, options.step).map_err(Problem::refused)?;
    starts.extend(windows);
    let mut window = gaussian_weights_half(&options.patch, SIGMA_SCALE, PEAK);
    if !options.gaussian {
        window.fill(1.0);
    }
    while window.ndim() < shape.len() {
        window = window.insert_axis(Axis(0));
    }
    let window = window.into_dimensionality::<Ix3>().map_err(Problem::refused)?;
    let mut sum = ArrayD::<f32>::zeros(padding.shape.clone()).into_dimensionality::<Ix3>().map_err(Problem::refused)?;
    let (z, y, x) = window.dim();
    for corner in window_corners(&starts) {
        let [a, b, c] = [corner[0], corner[1], corner[2]];
        let mut part = sum.slice_mut(s![a..a + z, b..b + y, c..c + x]);
        part += &window;
    }
    let inside = &padding.inside;
    Ok(sum.slice(s![inside[0].clone(), inside[1].clone(), inside[2].clone()]).to_owned())
}

fn compare_maps(check: &mut Check, case: &str, expected: &Array3<i16>, found: &Array3<i16>) {
    check.labels(format!("{case}: labels"), expected, found, LABELS);
    if expected.dim() != found.dim() {
        return;
    }
    let labels: BTreeSet<i16> = expected.iter().copied().filter(|label| *label > 0).collect();
    for label in labels {
        let count = |map: &Array3<i16>| map.iter().filter(|voxel| **voxel == label).count();
        let both =
            Zip::from(expected).and(found).fold(0_usize, |both, &a, &b| both + usize::from(a == label && b == label));
        let dice = 2.0 * both as f64 / (count(expected) + count(found)) as f64;
        check.number(format!("{case}: Dice of label {label}"), 1.0, dice, Tolerance::Absolute(1.0 - DICE));
    }
}

/// Compares probabilities where the windows count enough, which is known on the network's own grid alone.
fn compare_probabilities(
    check: &mut Check,
    case: &str,
    expected: ArrayD<f32>,
    mut found: Array4<f32>,
    weights: &Array3<f32>,
) -> Result<(), Problem> {
    let expected = expected.into_dimensionality::<Ix4>().map_err(Problem::refused)?;
    check.equal(format!("{case}: shape of the probabilities"), expected.shape(), found.shape());
    if expected.shape()[1..] != *weights.shape() || expected.dim() != found.dim() {
        check.note("probabilities are compared only where the image's grid is the network's");
        return Ok(());
    }
    for (mut found, expected) in found.axis_iter_mut(Axis(0)).zip(expected.axis_iter(Axis(0))) {
        Zip::from(&mut found).and(&expected).and(weights).for_each(|found, &expected, &weight| {
            if weight < ENOUGH_WEIGHT {
                *found = expected;
            }
        });
    }
    check.array(format!("{case}: probabilities"), &expected, &found, PROBABILITY);
    Ok(())
}
