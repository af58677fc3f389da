//! Patches of preprocessed cases: which case, where in it, and its voxels.
//!
//! The rules are those of `nnUNetDataLoader` in nnU-Net 2.8.1; the random numbers are not, because here a sample depends
//! on the seed, the epoch and its own number alone, and not on how many threads read.

use ndarray::{Axis, concatenate};
use nnflow_io::array::ArrayFile;
use nnflow_kernels::augment::Sample;
use nnflow_kernels::random::CounterRandom;
use nnflow_stage::{Artifact, StageError};

use crate::case::{IMAGE, LABEL, OUTSIDE, open, unreadable};
use crate::locations::{ClassLocations, Locations};

/// The segmentation of the stage before, `i16` `[1, z, y, x]` on the grid of the case.
pub const NEXT_STAGE: &str = "next_stage.nna";

/// An open case.
#[derive(Debug)]
pub struct PatchCase {
    name: String,
    image: ArrayFile,
    label: ArrayFile,
    previous: Option<ArrayFile>,
    locations: ClassLocations,
}

impl PatchCase {
    /// Opens a prepared case and, in a cascade, its segmentation of the stage before.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the shapes differ.
    pub fn open(name: &str, case: &Artifact, previous: Option<&Artifact>) -> Result<Self, StageError> {
        let image = open(case, IMAGE)?;
        let label = open(case, LABEL)?;
        let previous = previous.map(|artifact| open(artifact, NEXT_STAGE)).transpose()?;
        let shape = &image.shape()[1..];
        let others = [Some(&label), previous.as_ref()];
        if let Some(other) = others.into_iter().flatten().find(|other| other.shape()[1..] != *shape) {
            return Err(StageError::storage(format!(
                "the arrays of case `{name}` differ in shape: the image has {shape:?}, the labels or the segmentation of the stage before {:?}",
                &other.shape()[1..]
            )));
        }
        Ok(Self { name: name.to_owned(), image, label, previous, locations: ClassLocations::read(case)? })
    }

    /// Number of image channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.image.shape()[0]
    }

    fn shape(&self) -> [usize; 3] {
        let [_, z, y, x] = self.image.shape();
        [z, y, x]
    }

    /// The voxels of a box that may run past the border: image 0 there, labels -1.
    fn read(&self, start: [isize; 3], shape: [usize; 3]) -> Result<Sample, StageError> {
        let name = &self.name;
        let failed = |error| unreadable(error).with_detail(format!("case `{name}`"));
        let image = self.image.read_box::<f32>(0..self.channels(), start, shape, 0.0).map_err(failed)?;
        let label = self.label.read_box::<i16>(0..1, start, shape, OUTSIDE).map_err(failed)?;
        let labels = match &self.previous {
            None => label,
            Some(previous) => {
                let previous = previous.read_box::<i16>(0..1, start, shape, OUTSIDE).map_err(failed)?;
                concatenate(Axis(0), &[label.view(), previous.view()])
                    .map_err(|error| StageError::internal(error.to_string()))?
            }
        };
        Ok(Sample { image, labels })
    }
}

/// What decides where a patch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchShape {
    /// The shape that is read.
    pub read: [usize; 3],
    /// The shape that the network sees; what is read may be larger, so that rotations find voxels at the corners.
    pub seen: [usize; 3],
}

/// Cases to take patches from.
#[derive(Debug)]
pub struct Patches {
    cases: Vec<PatchCase>,
    shape: PatchShape,
    /// Whether part of the voxels are not annotated, so that patches are centred on those that are.
    centre_on_annotated: bool,
}

impl Patches {
    /// Patches of this shape from these cases.
    ///
    /// # Errors
    /// If there is no case.
    pub fn new(cases: Vec<PatchCase>, shape: PatchShape, centre_on_annotated: bool) -> Result<Self, StageError> {
        if cases.is_empty() {
            return Err(StageError::input("there is no case to take patches from")
                .with_hint("a dataset needs at least as many cases as there are folds"));
        }
        Ok(Self { cases, shape, centre_on_annotated })
    }

    /// Where the patch lies that the random numbers stand for, centred on foreground if that is asked for.
    #[must_use]
    pub fn place(&self, random: &mut CounterRandom, on_foreground: bool) -> Placement<'_> {
        let case = &self.cases[random.below(self.cases.len())];
        let centre = self.centre(case, random, on_foreground);
        let shape = case.shape();
        let start = std::array::from_fn(|axis| {
            let (low, high) = bounds(shape[axis], self.shape.read[axis], self.shape.seen[axis]);
            match centre {
                Some(centre) => low.max(centre[axis] as isize - (self.shape.read[axis] / 2) as isize),
                None => low + random.below((high - low + 1).unsigned_abs()) as isize,
            }
        });
        Placement { case, start, shape: self.shape.read }
    }

    /// A voxel of a random class, each class that the case has being equally likely.
    fn centre(&self, case: &PatchCase, random: &mut CounterRandom, on_foreground: bool) -> Option<[usize; 3]> {
        let (annotated, classes) = match case.locations.targets.split_last() {
            Some((last, classes)) if self.centre_on_annotated => (Some(last), classes),
            _ => (None, case.locations.targets.as_slice()),
        };
        let present: Vec<&Locations> = if on_foreground {
            classes.iter().filter(|class| !class.voxels.is_empty()).collect()
        } else {
            annotated.into_iter().filter(|class| !class.voxels.is_empty()).collect()
        };
        if present.is_empty() {
            return None;
        }
        let voxels = &present[random.below(present.len())].voxels;
        Some(case.locations.position(voxels[random.below(voxels.len())]))
    }
}

/// A patch that was placed and not yet read.
#[derive(Debug)]
pub struct Placement<'a> {
    case: &'a PatchCase,
    start: [isize; 3],
    shape: [usize; 3],
}

impl Placement<'_> {
    /// Number of image channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.case.channels()
    }

    /// The shape of the patch.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Reads the voxels of the patch, or only a box of them around its centre.
    ///
    /// # Errors
    /// If a case's file is damaged.
    pub fn read(&self, window: [usize; 3]) -> Result<Sample, StageError> {
        let margin = |axis: usize| (self.shape[axis].saturating_sub(window[axis]) / 2) as isize;
        self.case.read(std::array::from_fn(|axis| self.start[axis] + margin(axis)), window)
    }
}

/// The first and the last place, on one axis, at which a patch may begin.
///
/// As in `nnUNetDataLoader.get_bbox`: an image is thought to be padded so that a patch in its corner is centred there, and
/// at least so far that a patch fits.
fn bounds(extent: usize, read: usize, seen: usize) -> (isize, isize) {
    let (extent, read, seen) = (extent as isize, read as isize, seen as isize);
    let padding = (read - seen).max(read - extent).max(0);
    let low = (-padding).div_euclid(2);
    let high = extent + padding / 2 + padding % 2 - read;
    (low, high.max(low))
}

/// Which samples of a batch are centred on foreground: the last `share` of them, rounded as Python does.
#[must_use]
pub fn is_on_foreground(sample: usize, batch_size: usize, share: f64) -> bool {
    sample as f64 >= (batch_size as f64 * (1.0 - share)).round_ties_even()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: a patch of 4 in an image of 10 that is read as it is seen begins at 0 to 6.
    #[test]
    fn a_patch_that_fits_stays_within_the_image() {
        assert_eq!(bounds(10, 4, 4), (0, 6));
    }

    /// By hand: with 3 voxels more read than seen the image is padded by 2 before and 2 behind.
    #[test]
    fn a_patch_with_margin_may_begin_before_the_image() {
        assert_eq!(bounds(10, 7, 4), (-2, 5));
    }

    /// By hand: an image of 3 is padded to the patch of 8, 3 before and 2 behind; there is one place.
    #[test]
    fn an_image_smaller_than_the_patch_has_one_place() {
        assert_eq!(bounds(3, 8, 8), (-3, -2));
    }

    /// nnU-Net: of 2 samples the second, of 9 the last 3.
    #[test]
    fn a_third_of_the_batch_is_on_foreground() {
        let of = |batch: usize| (0..batch).filter(|sample| is_on_foreground(*sample, batch, 0.33)).collect::<Vec<_>>();
        assert_eq!(of(2), [1]);
        assert_eq!(of(9), [6, 7, 8]);
    }
}
