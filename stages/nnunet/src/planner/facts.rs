//! What a plan depends on besides its settings, checked.

use nnflow_io::dataset::DatasetDescription;
use nnflow_io::fingerprint::Fingerprint;
use serde_json::{Map, Value};

use super::PlannerError;

/// The dataset as the planner sees it: at least one case, no empty axis.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Spacing of each case in millimetres, `[z, y, x]`.
    pub(super) spacings: Vec<[f64; 3]>,
    /// Shape of each cropped case in voxels, `[z, y, x]`.
    pub(super) shapes: Vec<[f64; 3]>,
    /// Median share of its voxels that cropping leaves of a case.
    pub(super) relative_size: f64,
    /// Name of each channel.
    pub(super) channel_names: Vec<String>,
    /// Number of entries of `labels`, background, ignore label and regions included.
    pub(super) n_labels: usize,
    /// Number of output channels of the network.
    pub(super) n_heads: usize,
    /// Number of training cases that `dataset.json` declares, or else of those in the fingerprint.
    pub(super) n_training: usize,
    /// nnU-Net's class that reads the images.
    pub(super) reader: String,
    /// Intensities of the foreground by the channel's number.
    pub(super) intensities: Map<String, Value>,
}

impl Facts {
    /// Collects and checks what the two documents say.
    pub(super) fn new(fingerprint: &Fingerprint, description: &DatasetDescription) -> Result<Self, PlannerError> {
        let facts = Self {
            spacings: fingerprint.spacings.iter().map(|spacing| spacing.values()).collect(),
            shapes: fingerprint.shapes_after_crop.iter().map(|shape| shape.map(|extent| extent as f64)).collect(),
            relative_size: fingerprint.median_relative_size_after_cropping,
            channel_names: description.channel_names.clone(),
            n_labels: description.labels.entries().count(),
            n_heads: description.labels.segmentation_heads(),
            n_training: description.training_cases.unwrap_or(fingerprint.spacings.len()),
            reader: reader(fingerprint, description)?,
            intensities: intensities(fingerprint)?,
        };
        facts.check()?;
        Ok(facts)
    }

    fn check(&self) -> Result<(), PlannerError> {
        let (n_spacings, n_shapes) = (self.spacings.len(), self.shapes.len());
        if n_spacings != n_shapes || n_shapes == 0 {
            return Err(PlannerError::Cases { n_spacings, n_shapes });
        }
        match self.shapes.iter().position(|shape| shape.contains(&0.0)) {
            Some(index) => Err(PlannerError::Case { index, shape: self.shapes[index] }),
            None => Ok(()),
        }
    }
}

fn intensities(fingerprint: &Fingerprint) -> Result<Map<String, Value>, PlannerError> {
    let channels = fingerprint.foreground_intensity_properties_per_channel.iter().enumerate();
    channels.map(|(number, properties)| Ok((number.to_string(), serde_json::to_value(properties)?))).collect()
}

/// The reader that nnU-Net 2.8.1 picks: the one that `dataset.json` names, else the first that takes the file ending.
fn reader(fingerprint: &Fingerprint, description: &DatasetDescription) -> Result<String, PlannerError> {
    const BY_NAME: [&str; 6] = [
        "NaturalImage2DIO",
        "SimpleITKIO",
        "Tiff3DIO",
        "NibabelIO",
        "NibabelIOWithReorient",
        "SimpleITKIOWithReorient",
    ];
    if let Some(name) = description.image_reader_writer.as_deref().filter(|name| BY_NAME.contains(name)) {
        return Ok(name.to_owned());
    }
    let flat = fingerprint.shapes_after_crop.iter().all(|shape| shape[0] == 1);
    let reader = match description.file_ending.to_lowercase().as_str() {
        ".png" | ".bmp" => "NaturalImage2DIO",
        // nnU-Net tries the reader of 2-D images first, and it fails on a stack of slices.
        ".tif" if flat => "NaturalImage2DIO",
        ".tif" | ".tiff" => "Tiff3DIO",
        ".nii.gz" | ".nrrd" | ".mha" | ".gipl" => "SimpleITKIO",
        ".nii" => "NibabelIO",
        _ => return Err(PlannerError::FileEnding { ending: description.file_ending.clone() }),
    };
    Ok(reader.to_owned())
}
