//! nnU-Net's raw datasets: `dataset.json` and the folders beside it.
//!
//! A dataset is checked before hours of work: [`DatasetDescription::read`] and [`scan_dataset`] report every problem
//! that they find at once, as data, so that a caller can decide which of them stop a run.

mod description;
mod labels;
mod scan;
mod spacing;

pub use description::{CaseFiles, DatasetDescription, DescriptionError, DescriptionProblem};
pub use labels::{LabelValue, Labels, TargetKeyError};
pub use scan::{Case, DatasetError, DatasetListing, DatasetProblem, scan_dataset, scan_images};
pub use spacing::{read_spacing, spacing_file};
