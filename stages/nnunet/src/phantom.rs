//! A dataset of phantoms in nnU-Net's raw layout: what a workflow can start from without a download.

use std::path::{Path, PathBuf};

use ndarray::{ArrayView3, Axis};
use nnflow_io::image::{Geometry, StoredKind, write_image, write_labels};
use nnflow_kernels::augment::Dimension;
use nnflow_kernels::geometry::Spacing;
use nnflow_kernels::phantom::{Modality, PhantomCase, PhantomSettings};
use nnflow_stage::StageError;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What a dataset of phantoms is like; the defaults are a small MR dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PhantomDataset {
    /// Training cases, with labels.
    pub cases: u32,
    /// Further cases without labels among the images, in `imagesTs` and `labelsTs`.
    pub test_cases: u32,
    /// `2d` or `3d`.
    pub dimension: Dimension,
    /// Voxels along z, y and x of a case of average size.
    pub shape: [usize; 3],
    /// How much the shape varies between cases, as a fraction.
    pub shape_variation: f64,
    /// Spacing in mm, z, y and x.
    pub spacing: [f64; 3],
    /// `mr` or `ct`.
    pub modality: Modality,
    /// Channels.
    pub channels: usize,
    /// Labelled organs.
    pub organs: usize,
    /// Another seed, another dataset.
    pub seed: u64,
}

impl Default for PhantomDataset {
    fn default() -> Self {
        Self {
            cases: 12,
            test_cases: 2,
            dimension: Dimension::Three,
            shape: [40, 64, 64],
            shape_variation: 0.1,
            spacing: [3.0, 1.5, 1.5],
            modality: Modality::Mr,
            channels: 1,
            organs: 3,
            seed: 0,
        }
    }
}

/// Ending of the files of a 3-D dataset.
const VOLUME_ENDING: &str = ".nii.gz";
/// Ending of the files of a 2-D dataset.
const SLICE_ENDING: &str = ".png";
/// What an 8-bit image shows: this many standard deviations on each side of the mean.
const SHOWN_DEVIATIONS: f32 = 4.0;

impl PhantomDataset {
    /// Reads the settings of a workflow's `[dataset] phantom`.
    ///
    /// # Errors
    /// If a setting is unknown or of the wrong kind.
    pub fn from_value(value: &Value) -> Result<Self, StageError> {
        serde_json::from_value(value.clone()).map_err(|error| {
            StageError::input(format!("the settings of the phantom cannot be used: {error}"))
                .with_hint("`nnflow phantom --help` lists them")
        })
    }

    /// Writes the dataset into a folder that does not exist yet or is empty.
    ///
    /// # Errors
    /// If a setting is out of its range, or a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), StageError> {
        for (images, labels, first, count) in
            [("imagesTr", "labelsTr", 0, self.cases), ("imagesTs", "labelsTs", self.cases, self.test_cases)]
        {
            if count == 0 {
                continue;
            }
            let (images, labels) = (folder.join(images), folder.join(labels));
            fs_err::create_dir_all(&images)?;
            fs_err::create_dir_all(&labels)?;
            (first..first + count).into_par_iter().try_for_each(|case| self.write_case(case, &images, &labels))?;
        }
        let mut text = serde_json::to_string_pretty(&self.description())
            .map_err(|error| StageError::internal(error.to_string()))?;
        text.push('\n');
        Ok(fs_err::write(folder.join("dataset.json"), text)?)
    }

    fn settings(&self) -> Result<PhantomSettings, StageError> {
        let spacing = Spacing::new(self.spacing).map_err(|error| StageError::input(error.to_string()))?;
        Ok(PhantomSettings {
            dimension: self.dimension,
            shape: self.shape,
            shape_variation: self.shape_variation,
            spacing,
            modality: self.modality,
            channels: self.channels,
            labels: self.organs,
            seed: self.seed,
        })
    }

    fn ending(&self) -> &'static str {
        match self.dimension {
            Dimension::Two => SLICE_ENDING,
            Dimension::Three => VOLUME_ENDING,
        }
    }

    fn write_case(&self, number: u32, images: &Path, labels: &Path) -> Result<(), StageError> {
        let case = self.settings()?.generate(number).map_err(|error| StageError::input(error.to_string()))?;
        let name = format!("phantom_{:03}", number + 1);
        let [z, y, x]: [usize; 3] = case.labels.dim().into();
        let geometry = Geometry::new([z, y, x], case.spacing);
        for (channel, volume) in case.image.axis_iter(Axis(0)).enumerate() {
            let path = images.join(format!("{name}_{channel:04}{}", self.ending()));
            self.write_channel(&path, volume, &geometry)?;
        }
        self.write_labels(&labels.join(format!("{name}{}", self.ending())), &case, &geometry)
    }

    fn write_channel(&self, path: &Path, volume: ArrayView3<'_, f32>, geometry: &Geometry) -> Result<(), StageError> {
        let (kind, volume) = match self.dimension {
            Dimension::Three => (StoredKind::I16, volume.to_owned()),
            Dimension::Two => (StoredKind::U8, to_bytes(volume)),
        };
        let volume = volume.insert_axis(Axis(0));
        write_image(path, volume.view(), geometry, kind, self.ending()).map_err(|error| unwritable(path, error))
    }

    fn write_labels(&self, path: &Path, case: &PhantomCase, geometry: &Geometry) -> Result<(), StageError> {
        let labels = case.labels.mapv(u16::from);
        write_labels(path, labels.view(), geometry, self.ending()).map_err(|error| unwritable(path, error))
    }

    /// The `dataset.json`.
    fn description(&self) -> Value {
        let channel = |number: usize| match (self.modality, self.dimension) {
            (Modality::Ct, Dimension::Three) => "CT".to_owned(),
            _ => format!("contrast {number}"),
        };
        let channels: Map<String, Value> =
            (0..self.channels).map(|number| (number.to_string(), Value::from(channel(number)))).collect();
        let mut labels = Map::from_iter([("background".to_owned(), Value::from(0))]);
        labels.extend((1..=self.organs).map(|organ| (format!("organ {organ}"), Value::from(organ))));
        json!({
            "name": "phantom",
            "channel_names": channels,
            "labels": labels,
            "numTraining": self.cases,
            "file_ending": self.ending(),
        })
    }
}

/// Stretches an image over the 8 bits of a natural image, as a microscope's software would.
fn to_bytes(volume: ArrayView3<'_, f32>) -> ndarray::Array3<f32> {
    let mean = volume.mean().unwrap_or(0.0);
    let deviation = volume.std(0.0).max(f32::MIN_POSITIVE);
    let half = f32::from(u8::MAX) / 2.0;
    volume.mapv(|value| {
        ((value - mean) / (SHOWN_DEVIATIONS * deviation)).mul_add(half, half).clamp(0.0, f32::from(u8::MAX))
    })
}

fn unwritable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> StageError {
    StageError::storage(format!("`{}` cannot be written: {error}", path.display())).with_source(error)
}

/// The dataset in a folder below `folder` whose name tells its settings; made if it is not there.
///
/// It is written beside its place and moved there as a whole, so that a process that was killed leaves none in part.
///
/// # Errors
/// If a setting is out of its range, or a file cannot be written.
pub fn phantom_below(folder: &Path, dataset: &PhantomDataset, name: &str) -> Result<PathBuf, StageError> {
    let place = folder.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    fs_err::create_dir_all(folder)?;
    let beside = tempfile::Builder::new().prefix(".making-").tempdir_in(folder)?;
    dataset.write(beside.path())?;
    match fs_err::rename(beside.path(), &place) {
        Ok(()) => {
            // The folder has moved: there is nothing left to remove.
            drop(beside.keep());
            Ok(place)
        }
        // Another process was faster; both made the same.
        Err(_) if place.is_dir() => Ok(place),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> PhantomDataset {
        PhantomDataset { cases: 2, test_cases: 1, shape: [16, 24, 24], ..PhantomDataset::default() }
    }

    #[test]
    fn the_dataset_is_one_that_nnunet_would_take() {
        let folder = tempfile::tempdir().expect("a folder");
        small().write(folder.path()).expect("written");
        let listing = nnflow_io::dataset::scan_dataset(folder.path()).expect("a dataset");
        assert_eq!((listing.training.len(), listing.test.len(), listing.problems), (2, 1, Vec::new()));
    }

    #[test]
    fn a_two_dimensional_dataset_is_one_of_natural_images() {
        let folder = tempfile::tempdir().expect("a folder");
        let dataset = PhantomDataset { dimension: Dimension::Two, shape: [1, 32, 32], channels: 2, ..small() };
        dataset.write(folder.path()).expect("written");
        assert!(folder.path().join("imagesTr/phantom_001_0001.png").is_file());
    }

    #[test]
    fn a_phantom_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = phantom_below(folder.path(), &small(), "a").expect("made");
        fs_err::write(first.join("mark"), "").expect("written");
        assert!(phantom_below(folder.path(), &small(), "a").expect("there").join("mark").is_file());
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let error = PhantomDataset::from_value(&json!({"case": 3})).expect_err("no such setting");
        assert!(error.to_string().contains("unknown field `case`"), "{error}");
    }
}
