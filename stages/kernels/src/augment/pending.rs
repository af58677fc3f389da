//! Samples whose transforms another device does.

use ndarray::Array4;

use super::{AugmentError, Augmentation, Drawn, OUTSIDE, Sample, placed_labels, replace_label};
use crate::spatial::SpatialMap;

/// A sample as it was read, with all that chance decided about it.
///
/// What is left to do are operations on whole arrays, which a GPU does best. One part of a cascade's augmentation is no such
/// operation: to remove a component one has to find it, pass after pass until nothing changes, and so to wait for the device
/// after each. In a cascade the labels are therefore brought into place here, and the device gets the image only.
#[derive(Debug, Clone)]
pub struct PendingSample {
    /// Intensities `[c, z, y, x]`, as read.
    pub image: Array4<f32>,
    /// The reference `[1, z, y, x]`, as read; in a cascade of the patch's shape, sampled and mirrored. -1 stands for
    /// voxels outside.
    pub labels: Array4<i16>,
    /// In a cascade, the channels for the stage before, of the patch's shape and done: `[label, z, y, x]`, 0 or 1.
    pub previous: Option<Array4<f32>>,
    /// What was drawn.
    pub drawn: Drawn,
    /// Where the voxels of the patch come from; none where it is only cut out.
    pub map: Option<SpatialMap>,
}

impl PendingSample {
    /// Image channels that the sample will have.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.image.dim().0 + self.previous.as_ref().map_or(0, |previous| previous.dim().0)
    }
}

impl Augmentation {
    /// Does what has to be done on the host to what [`apply`](Self::apply) would make of a sample, and leaves the rest.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn defer(&self, drawn: Drawn, sample: Sample, patch: [usize; 3]) -> Result<PendingSample, AugmentError> {
        self.check(&sample)?;
        let map = drawn.spatial_map(patch);
        let Sample { image, labels } = sample;
        if self.settings.cascade.is_none() {
            return Ok(PendingSample { image, labels, previous: None, drawn, map });
        }
        let placed = placed_labels(&drawn, map.as_ref(), labels.view(), patch);
        let mut inside = placed.clone();
        replace_label(&mut inside, OUTSIDE, 0);
        let previous = self.previous_stage(&drawn, &inside);
        let labels = placed.slice_move(ndarray::s![..1, .., .., ..]).as_standard_layout().into_owned();
        Ok(PendingSample { image, labels, previous, drawn, map })
    }
}
