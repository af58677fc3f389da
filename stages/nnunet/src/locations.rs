//! Where the classes of a case are: voxels that training centres its patches on.
//!
//! A patch that is forced to hold foreground is centred on a voxel of a class. Looking for one in the labels would mean to
//! read them whole, so a sample of each class is drawn once, when the case is resampled. It is nnU-Net's sample, in its
//! order, so that the same draws of training meet the same voxels.

use ndarray::{Array4, ArrayView3};
use nnflow_io::array::{ArrayOptions, write_array};
use nnflow_io::dataset::{LabelValue, Labels};
use nnflow_kernels::random::MersenneTwister;
use nnflow_stage::{Artifact, OutputWriter, StageError};
use serde::{Deserialize, Serialize};

use crate::case::{OUTSIDE, open, read_json, unreadable};

/// Which classes have how many voxels in [`VOXELS`].
pub const INDEX: &str = "locations.json";
/// The voxels, `u32` `[1, 1, 1, n]`: places in the C order of the labels, class after class.
pub const VOXELS: &str = "locations.nna";

/// How many voxels of each class are drawn; the defaults are those of nnU-Net 2.8.1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LocationSettings {
    /// Seed of the generator, which starts anew with each case.
    pub seed: u32,
    /// Voxels of a class, or all of them where it has fewer.
    pub minimum: usize,
    /// Share of a class's voxels that are drawn at least.
    pub share: f64,
}

impl Default for LocationSettings {
    fn default() -> Self {
        Self { seed: 1234, minimum: 10_000, share: 0.01 }
    }
}

/// A class, or a union of labels, whose voxels are sampled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocationTarget {
    /// nnU-Net's key: `2`, or `(1, 2)` for a union.
    pub name: String,
    /// The labels that belong to it.
    pub labels: Vec<i16>,
}

impl From<&LabelValue> for LocationTarget {
    fn from(value: &LabelValue) -> Self {
        Self { name: value.to_string(), labels: value.members().to_vec() }
    }
}

/// What is sampled for a dataset: its regions or foreground labels and, where voxels may be left unannotated, the union
/// of all that is annotated.
#[must_use]
pub fn targets(labels: &Labels) -> Vec<LocationTarget> {
    let mut targets: Vec<LocationTarget> = labels.foreground_targets().iter().map(LocationTarget::from).collect();
    if labels.ignore().is_some() {
        let annotated = std::iter::once(OUTSIDE).chain(labels.all()).collect();
        targets.push(LocationTarget::from(&LabelValue::Region(annotated)));
    }
    targets
}

/// The voxels drawn for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locations {
    /// The target.
    pub target: LocationTarget,
    /// Places in the C order of the labels, in the order in which they were drawn; none where the case lacks the target.
    pub voxels: Vec<u32>,
}

/// The voxels drawn in one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassLocations {
    /// Shape of the labels, `[z, y, x]`.
    pub shape: [usize; 3],
    /// The targets, in the order in which they were drawn.
    pub targets: Vec<Locations>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    shape: [usize; 3],
    targets: Vec<IndexEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexEntry {
    name: String,
    labels: Vec<i16>,
    count: usize,
}

/// A case with more voxels than their places have numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("labels of shape `{shape:?}` have more than 2^32 voxels")]
pub struct TooManyVoxels {
    /// The shape found.
    pub shape: [usize; 3],
}

impl ClassLocations {
    /// Draws the voxels of each target from `labels` (`[z, y, x]`).
    ///
    /// The voxels of a target are taken label after label, each in C order; of `n` voxels `max(min(minimum, n),
    /// ceil(share · n))` are drawn without replacement by NumPy's legacy generator, which runs on from target to target.
    ///
    /// Equal to `DefaultPreprocessor._sample_foreground_locations` of nnU-Net 2.8.1.
    ///
    /// # Errors
    /// [`TooManyVoxels`] if the labels have more than 2^32 voxels.
    pub fn draw(
        labels: ArrayView3<'_, i16>,
        targets: Vec<LocationTarget>,
        settings: &LocationSettings,
    ) -> Result<Self, TooManyVoxels> {
        let shape: [usize; 3] = labels.dim().into();
        if u32::try_from(labels.len()).is_err() {
            return Err(TooManyVoxels { shape });
        }
        let blocks = Blocks::new(labels, &targets);
        let mut random = MersenneTwister::new(settings.seed);
        let drawn = targets.into_iter().map(|target| {
            let mut voxels = blocks.voxels(&target.labels);
            let share = (voxels.len() as f64 * settings.share).ceil() as usize;
            let count = settings.minimum.min(voxels.len()).max(share);
            // To shuffle the voxels is to shuffle their numbers, as NumPy's `choice` does, and to look them up.
            random.shuffle(&mut voxels);
            voxels.truncate(count);
            voxels.shrink_to_fit();
            Locations { target, voxels }
        });
        Ok(Self { shape, targets: drawn.collect() })
    }

    /// The position `[z, y, x]` of a voxel.
    #[must_use]
    pub fn position(&self, voxel: u32) -> [usize; 3] {
        let [_, rows, columns] = self.shape;
        let voxel = voxel as usize;
        [voxel / columns / rows, voxel / columns % rows, voxel % columns]
    }

    /// Writes both files.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write(&self, writer: &mut OutputWriter<'_>) -> Result<(), StageError> {
        let entries = self.targets.iter().map(|Locations { target, voxels }| IndexEntry {
            name: target.name.clone(),
            labels: target.labels.clone(),
            count: voxels.len(),
        });
        writer.json(INDEX, &Index { shape: self.shape, targets: entries.collect() })?;
        let voxels: Vec<u32> = self.targets.iter().flat_map(|locations| locations.voxels.iter().copied()).collect();
        let voxels = Array4::from_shape_vec((1, 1, 1, voxels.len()), voxels)
            .map_err(|error| StageError::internal(error.to_string()))?;
        write_array(&writer.file(VOXELS)?, voxels.view(), &ArrayOptions::default()).map_err(unreadable)
    }

    /// Reads both files of a prepared case.
    ///
    /// # Errors
    /// If one is missing or damaged, or they contradict each other.
    pub fn read(artifact: &Artifact) -> Result<Self, StageError> {
        let Index { shape, targets } = read_json(artifact, INDEX)?;
        let (stored, _) = open(artifact, VOXELS)?.read_all::<u32>().map_err(unreadable)?.into_raw_vec_and_offset();
        let extent =
            shape.iter().try_fold(1_usize, |voxels, &extent| voxels.checked_mul(extent)).ok_or_else(contradiction)?;
        let mut rest = stored.as_slice();
        let mut read = Vec::with_capacity(targets.len());
        for IndexEntry { name, labels, count } in targets {
            let (voxels, others) = rest.split_at_checked(count).ok_or_else(contradiction)?;
            rest = others;
            read.push(Locations { target: LocationTarget { name, labels }, voxels: voxels.to_vec() });
        }
        let inside = stored.iter().all(|&voxel| (voxel as usize) < extent);
        if inside && rest.is_empty() { Ok(Self { shape, targets: read }) } else { Err(contradiction()) }
    }
}

fn contradiction() -> StageError {
    StageError::storage(format!("`{VOXELS}` does not hold the voxels that `{INDEX}` says"))
}

/// The voxels of each label that some target has, in C order.
struct Blocks(Vec<(i16, Vec<u32>)>);

impl Blocks {
    fn new(labels: ArrayView3<'_, i16>, targets: &[LocationTarget]) -> Self {
        let mut wanted: Vec<i16> = targets.iter().flat_map(|target| target.labels.iter().copied()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut blocks: Vec<(i16, Vec<u32>)> = wanted.into_iter().map(|label| (label, Vec::new())).collect();
        for (voxel, label) in labels.iter().enumerate() {
            if let Ok(block) = blocks.binary_search_by_key(label, |(wanted, _)| *wanted) {
                blocks[block].1.push(voxel as u32);
            }
        }
        Self(blocks)
    }

    fn voxels(&self, labels: &[i16]) -> Vec<u32> {
        let found = labels.iter().filter_map(|label| self.0.iter().find(|(wanted, _)| wanted == label));
        found.flat_map(|(_, voxels)| voxels.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};
    use nnflow_io::dataset::DatasetDescription;

    use super::*;

    fn target(labels: &[i16]) -> LocationTarget {
        LocationTarget::from(&LabelValue::Region(labels.to_vec()))
    }

    fn draw(labels: ArrayView3<'_, i16>, targets: Vec<LocationTarget>) -> ClassLocations {
        ClassLocations::draw(labels, targets, &LocationSettings::default()).expect("few voxels")
    }

    #[test]
    fn a_class_that_is_absent_has_no_voxels_and_draws_none() {
        let labels = array![[[2, 0, 2, 2]]];
        let with_absent = draw(labels.view(), vec![target(&[1]), target(&[2])]);
        let without = draw(labels.view(), vec![target(&[2])]);
        assert_eq!(with_absent.targets[0].voxels, [0; 0]);
        assert_eq!(with_absent.targets[1].voxels, without.targets[0].voxels);
    }

    #[test]
    fn every_voxel_of_a_small_class_is_drawn_once() {
        let labels = array![[[1, 0, 1], [-1, 1, 2]]];
        let mut voxels = draw(labels.view(), vec![target(&[1])]).targets.remove(0).voxels;
        voxels.sort_unstable();
        assert_eq!(voxels, [0, 2, 4]);
    }

    /// Numbers drawn by `_sample_foreground_locations` of nnU-Net 2.8.1 with `min_num_samples=4` and
    /// `min_percent_coverage=0.25`: a union takes the blocks of its labels in its own order, and draws on where the target
    /// before it stopped.
    #[test]
    fn unions_of_labels_are_drawn_as_by_nnu_net() {
        let labels = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| ((z * 7 + y * 3 + x * 5) % 11 % 5) as i16 - 1);
        let targets = vec![target(&[2, 1]), target(&[2]), target(&[4]), target(&[-1, 0, 1, 2])];
        let settings = LocationSettings { minimum: 4, share: 0.25, ..LocationSettings::default() };
        let drawn = ClassLocations::draw(labels.view(), targets, &settings).expect("few voxels");
        let drawn: Vec<&[u32]> = drawn.targets.iter().map(|locations| locations.voxels.as_slice()).collect();
        let expected: [&[u32]; 4] =
            [&[40, 18, 16, 17, 6, 30], &[41, 6, 51, 28], &[], &[28, 43, 0, 32, 9, 35, 17, 39, 44, 41, 12, 5, 55]];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn with_an_ignore_label_everything_else_is_a_target_too() {
        let description: DatasetDescription = serde_json::from_value(serde_json::json!({
            "channel_names": {"0": "MRI"}, "numTraining": 1, "file_ending": ".nii.gz",
            "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3},
        }))
        .expect("a description");
        let names: Vec<String> = targets(&description.labels).into_iter().map(|target| target.name).collect();
        assert_eq!(names, ["1", "2", "(-1, 0, 1, 2)"]);
    }

    /// 1 % of 1 500 000 voxels are more than 10 000.
    #[test]
    fn a_large_class_is_covered_by_one_percent() {
        let labels = Array3::ones((100, 100, 150));
        assert_eq!(draw(labels.view(), vec![target(&[1])]).targets[0].voxels.len(), 15_000);
    }

    #[test]
    fn positions_are_in_c_order() {
        let locations = ClassLocations { shape: [2, 3, 4], targets: Vec::new() };
        assert_eq!(locations.position(23), [1, 2, 3]);
        assert_eq!(locations.position(12), [1, 0, 0]);
    }
}
