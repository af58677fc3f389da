//! How much memory a prediction takes, told before it starts.

use nnflow_stage::{InputValue, Member, ResourceQuery};
use serde::Deserialize;

use crate::case::{read_json, size_of_case};
use crate::export::ExportSize;
use crate::train::model::{ModelRecord, RECORD, WEIGHTS};
use crate::train::slices::Classes;

/// Times that the image is held while it is predicted: as an array, as a tensor, and as one with zeros around it.
const IMAGES: u64 = 3;
/// Feature maps of the full window that a network holds in its last level, in multiples of those of its first one: what is
/// passed over, what comes from below, both together, and what is made of them, twice while it is laid out for a convolution.
const FEATURE_MAPS: u64 = 8;
/// Windows of all classes that a thread holds: four that wait to be added up, and three while one is made.
const WINDOWS: u64 = 7;
/// Feature maps of a network that does not tell.
const USUAL_FEATURES: u64 = 32;
/// Bytes of a model's record; a larger one is none of ours.
const LARGEST_RECORD: u64 = 1 << 20;

/// Peak memory in bytes, without what libtorch itself takes; `None` where a record is missing.
///
/// The weights of all networks, the sums of all classes, and whichever is more: the image with the windows that all
/// threads predict at a time, or what bringing the answer back takes ([`ExportSize::peak`]). Where a GPU predicts, its
/// windows and sums lie in its own memory, and less is needed.
pub(super) fn estimate(query: &ResourceQuery<'_>) -> Option<u64> {
    let (values, record) = size_of_case(query)?;
    let classes = Classes::deserialize(query.document("description")?).ok()?;
    let models: Vec<(ModelRecord, u64)> = query.inputs.get("model")?.iter().flat_map(models).collect();
    let (model, _) = models.first()?;
    let size = ExportSize::of(&record, classes.outputs())?;
    let grid = record.prepared.as_ref()?;
    let leading = grid.shape.len().saturating_sub(model.patch_size.len());
    let window = product(&model.patch_size);
    let padded = grid.shape.iter().enumerate().map(|(axis, &extent)| {
        axis.checked_sub(leading).and_then(|axis| model.patch_size.get(axis)).map_or(extent, |&patch| patch.max(extent))
    });
    let padded = product(&padded.collect::<Vec<_>>());
    let channels = (model.input_channels as u64).max(values / product(&grid.shape).max(1));
    let image = padded.saturating_mul(channels).saturating_mul(4 * IMAGES);
    // Where the image was padded, its part of the sums is copied before they are given back.
    let copy = if padded == size.prepared { 0 } else { size.scores() };
    let sums = padded.saturating_mul(size.classes + 1).saturating_mul(4).saturating_add(copy);
    let weights = models.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let maps = FEATURE_MAPS * features(model) + WINDOWS * size.classes;
    let windows = threads().saturating_mul(window).saturating_mul(4 * maps);
    let probabilities = query.parameters.get("probabilities").unwrap_or(false);
    let has_next_stage = query.document("plan").is_some_and(|plan| !plan["next_stage"].is_null());
    let stages = image.saturating_add(windows).max(size.peak(probabilities, has_next_stage));
    Some(weights.saturating_add(sums).saturating_add(stages))
}

/// The records of the models of a member, each with the bytes of its weights.
fn models(member: &Member) -> Vec<(ModelRecord, u64)> {
    let InputValue::One(artifact) = &member.value else { return Vec::new() };
    let small = |file: &&nnflow_stage::FileRef| file.name.ends_with(RECORD) && file.bytes <= LARGEST_RECORD;
    let records = artifact.files.iter().filter(small);
    let model = |file: &nnflow_stage::FileRef| {
        let weights = artifact.file(&format!("{}{WEIGHTS}", file.name.strip_suffix(RECORD)?))?;
        Some((read_json(artifact, &file.name).ok()?, weights.bytes))
    };
    records.filter_map(model).collect()
}

/// Feature maps of the first level, as plans list them.
fn features(model: &ModelRecord) -> u64 {
    let listed = ["/arch_kwargs/features_per_stage/0", "/features_per_stage/0"];
    let found = listed.iter().find_map(|path| model.architecture.pointer(path)?.as_u64());
    found.unwrap_or(USUAL_FEATURES)
}

fn threads() -> u64 {
    std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64)
}

fn product(extents: &[usize]) -> u64 {
    extents.iter().fold(1, |product, &extent| product.saturating_mul(extent as u64))
}
