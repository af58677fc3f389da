//! How much memory it takes to bring an answer back, told before it is done.

use crate::case::CaseRecord;

/// Bytes of scores that are read at a time: an eighth of what the task was granted, within these limits. More is no
/// faster, and less than a plane of all classes there cannot be.
const SLAB: std::ops::RangeInclusive<u64> = (32 << 20)..=(256 << 20);
/// Part of the granted memory that scores which are read may take.
const SHARE: u64 = 8;
/// Slices of probabilities that are made before they are written: the thickness of a chunk of an array file, and the
/// chunks once compressed.
const SLICES_AT_ONCE: u64 = 64;
/// What the tiles of all threads take, and the buffers of the files.
const FLOOR: u64 = 64 << 20;

/// Bytes of scores that are read at a time where a task was granted so much memory.
#[must_use]
pub fn slab_bytes(granted: u64) -> u64 {
    (granted / SHARE).clamp(*SLAB.start(), *SLAB.end())
}

/// What is known of a case and its answer.
#[derive(Debug, Clone, Copy)]
pub struct ExportSize {
    /// Voxels of the image file.
    pub image: u64,
    /// Voxels of a slice of the image file.
    pub slice: u64,
    /// Voxels that cropping left.
    pub cropped: u64,
    /// Voxels of the prepared case.
    pub prepared: u64,
    /// Classes or regions.
    pub classes: u64,
}

impl ExportSize {
    /// The sizes of a prepared case; `None` for one that is not prepared.
    #[must_use]
    pub fn of(record: &CaseRecord, classes: usize) -> Option<Self> {
        let grid = record.prepared.as_ref()?;
        let product =
            |extents: &[usize]| extents.iter().fold(1_u64, |product, &extent| product.saturating_mul(extent as u64));
        Some(Self {
            image: product(&record.geometry.shape),
            slice: product(&record.geometry.shape[1..]),
            cropped: product(&grid.cropped_to.shape()),
            prepared: product(&grid.shape),
            classes: classes as u64,
        })
    }

    /// Bytes of the scores.
    #[must_use]
    pub fn scores(&self) -> u64 {
        self.prepared.saturating_mul(self.classes).saturating_mul(4)
    }

    /// Peak memory in bytes besides the scores themselves.
    ///
    /// The labels of the image (2 bytes a voxel, of which the file's values are made in place) and those of a cascade's next
    /// stage (as many again, and as many to resample them from); the scores that are read at a time; and where probabilities
    /// are kept, the largest score and the sum of each voxel (8 bytes), one class as the network gave it, and some slices of
    /// it as they are written. The number of classes counts only in the scores.
    #[must_use]
    pub fn peak(&self, probabilities: bool, next_stage: bool) -> u64 {
        let labels = self.image.saturating_mul(if next_stage { 6 } else { 2 });
        let slab = self.scores().min(*SLAB.end());
        let kept = if probabilities {
            let slices = self.slice.saturating_mul(4 * SLICES_AT_ONCE);
            self.cropped.saturating_mul(8).saturating_add(self.prepared.saturating_mul(4)).saturating_add(slices)
        } else {
            0
        };
        labels.saturating_add(slab).saturating_add(kept).saturating_add(FLOOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ExportSize =
        ExportSize { image: 600 << 18, slice: 1 << 18, cropped: 600 << 18, prepared: 300 << 16, classes: 117 };

    /// 512 x 512 x 600 voxels: 300 MiB of labels, 256 MiB of scores at a time, 64 MiB besides.
    #[test]
    fn a_hundred_classes_on_a_large_image_take_less_than_a_gibibyte() {
        assert_eq!(SIZE.peak(false, false), (300 + 256 + 64) << 20);
    }

    /// Besides, 1200 MiB of largest scores and sums, 75 MiB of one class, 64 MiB of slices.
    #[test]
    fn their_probabilities_take_less_than_two_gibibytes() {
        assert_eq!(SIZE.peak(true, false), (300 + 256 + 64 + 1200 + 75 + 64) << 20);
    }

    #[test]
    fn scores_are_read_in_slabs_that_the_grant_allows() {
        assert_eq!([0, 1 << 30, 64 << 30].map(slab_bytes), [32 << 20, 128 << 20, 256 << 20]);
    }
}
