//! How far the surfaces of a structure in two label maps are from each other.
//!
//! A surface is the voxels of the structure that share a face with a voxel which is not of it; what lies outside of the
//! image is not. Distances are those of voxel centres in millimetres, each voxel counting once. These are the definitions
//! of Metrics Reloaded (Maier-Hein, Reinke et al., Nature Methods 21, 2024, doi:10.1038/s41592-023-02151-z), and what
//! MONAI 1.6.1 computes.
//!
//! Two things are added to them. An axis with a single voxel has no surfaces across it, so that a slice is a picture
//! with outlines. And a face towards a voxel that nobody annotated is no surface, because nobody knows where the structure
//! ends there.

use std::collections::BTreeMap;

use ndarray::parallel::prelude::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use ndarray::{Array1, Array3, ArrayView1, ArrayView3, ArrayViewMut1, Axis, Zip, s};

use super::MetricsError;
use crate::distance::squared_distances;
use crate::geometry::{BoundingBox, Spacing};
use crate::statistics::quantile;

/// What a voxel is in the reference and in the prediction, as bits.
const REFERENCE: u8 = 1;
const PREDICTION: u8 = 2;
/// Nobody annotated the voxel: no surface ends there, as if both had it.
const IGNORED: u8 = 4 | REFERENCE | PREDICTION;

/// By how much, relatively, a distance may be above a tolerance and still be within: spacings come from files in single
/// precision, and `0.1` is a little more than a tenth there.
const ROUNDING: f64 = 1e-6;

/// Two label maps on one grid, and where in them each label is.
#[derive(Debug, Clone)]
pub struct LabelPair<'a> {
    reference: ArrayView3<'a, i16>,
    prediction: ArrayView3<'a, i16>,
    ignore: Option<i16>,
    spacing: Spacing,
    extents: BTreeMap<i16, Extent>,
}

impl<'a> LabelPair<'a> {
    /// The pair of a reference and a prediction (`[z, y, x]`); voxels where the *reference* is `ignore` belong to no
    /// structure.
    ///
    /// # Errors
    /// [`MetricsError::Shape`] if the shapes differ.
    pub fn new(
        reference: ArrayView3<'a, i16>,
        prediction: ArrayView3<'a, i16>,
        ignore: Option<i16>,
        spacing: Spacing,
    ) -> Result<Self, MetricsError> {
        if reference.dim() != prediction.dim() {
            return Err(MetricsError::Shape { reference: reference.dim().into(), prediction: prediction.dim().into() });
        }
        let extents = merge(extents(reference), extents(prediction));
        Ok(Self { reference, prediction, ignore, spacing, extents })
    }

    /// The distances between the surfaces of a label, or of the region made of several labels.
    #[must_use]
    pub fn surface_distances(&self, labels: &[i16]) -> SurfaceDistances {
        let Some(block) = self.around(labels) else { return SurfaceDistances::default() };
        let surfaces = surfaces(&self.membership(labels, &block), self.reference.dim().into());
        SurfaceDistances {
            from_reference: self.distances(&surfaces, REFERENCE, PREDICTION),
            from_prediction: self.distances(&surfaces, PREDICTION, REFERENCE),
        }
    }

    /// The largest distance in millimetres that two voxels of the image can have.
    #[must_use]
    pub fn diagonal(&self) -> f64 {
        let (depth, height, width) = self.reference.dim();
        let lengths = [depth, height, width].map(|extent| extent.saturating_sub(1) as f64);
        lengths.iter().zip(self.spacing.values()).map(|(length, step)| (length * step).powi(2)).sum::<f64>().sqrt()
    }

    /// The box around a structure in both maps, with the voxels next to it.
    fn around(&self, labels: &[i16]) -> Option<BoundingBox> {
        let extent = labels.iter().filter_map(|label| self.extents.get(label)).copied().reduce(Extent::union)?;
        let shape: [usize; 3] = self.reference.dim().into();
        let start = extent.first.map(|first| first.saturating_sub(1));
        let stop = std::array::from_fn(|axis| (extent.last[axis] + 2).min(shape[axis]));
        BoundingBox::new(start, stop).ok()
    }

    /// What each voxel of a box is, as bits.
    fn membership(&self, labels: &[i16], block: &BoundingBox) -> Array3<u8> {
        let ([z, y, x], [z_end, y_end, x_end]) = (block.start(), block.stop());
        let within = s![z..z_end, y..y_end, x..x_end];
        let (reference, prediction) = (self.reference.slice(within), self.prediction.slice(within));
        let bit = |label: i16, bit: u8| if labels.contains(&label) { bit } else { 0 };
        Zip::from(reference).and(prediction).par_map_collect(|&reference, &prediction| {
            if Some(reference) == self.ignore {
                IGNORED
            } else {
                bit(reference, REFERENCE) | bit(prediction, PREDICTION)
            }
        })
    }

    /// Squared distances in mm² of the voxels of one surface from the other; none where the other does not exist.
    fn distances(&self, surfaces: &Array3<u8>, from: u8, to: u8) -> Vec<f32> {
        let squared = squared_distances(surfaces.view(), |voxel| voxel & to != 0, self.spacing);
        let on_surface = surfaces.iter().zip(&squared).filter(|(voxel, _)| **voxel & from != 0);
        on_surface.map(|(_, squared)| *squared).collect()
    }
}

/// The first and the last voxel that something has along each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    first: [usize; 3],
    last: [usize; 3],
}

impl Extent {
    fn union(self, other: Self) -> Self {
        Self {
            first: std::array::from_fn(|axis| self.first[axis].min(other.first[axis])),
            last: std::array::from_fn(|axis| self.last[axis].max(other.last[axis])),
        }
    }
}

/// Where each label of a map is.
fn extents(labels: ArrayView3<'_, i16>) -> BTreeMap<i16, Extent> {
    let planes = 0..labels.len_of(Axis(0));
    let of_plane = |z: usize| {
        let mut found = BTreeMap::new();
        for (y, row) in labels.index_axis(Axis(0), z).outer_iter().enumerate() {
            extents_in_row(row, [z, y], &mut found);
        }
        found
    };
    planes.into_par_iter().map(of_plane).reduce(BTreeMap::new, merge)
}

fn extents_in_row(row: ArrayView1<'_, i16>, [z, y]: [usize; 2], found: &mut BTreeMap<i16, Extent>) {
    let mut voxels = row.iter().enumerate().peekable();
    // Labels come in runs, so a look into the map is needed once a run, not once a voxel.
    while let Some((first, label)) = voxels.next() {
        let mut last = first;
        while let Some((x, _)) = voxels.next_if(|(_, next)| *next == label) {
            last = x;
        }
        let run = Extent { first: [z, y, first], last: [z, y, last] };
        found.entry(*label).and_modify(|extent| *extent = extent.union(run)).or_insert(run);
    }
}

fn merge(mut all: BTreeMap<i16, Extent>, others: BTreeMap<i16, Extent>) -> BTreeMap<i16, Extent> {
    for (label, extent) in others {
        all.entry(label).and_modify(|known| *known = known.union(extent)).or_insert(extent);
    }
    all
}

/// The bits of the surface that each voxel is on; `image` is the shape of the whole image, of which an axis may be flat.
fn surfaces(membership: &Array3<u8>, image: [usize; 3]) -> Array3<u8> {
    let mut surfaces = Array3::zeros(membership.raw_dim());
    surfaces.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut plane)| {
        let mut covered = Array1::zeros(plane.ncols());
        for (y, row) in plane.outer_iter_mut().enumerate() {
            covered.fill(REFERENCE | PREDICTION);
            cover_row(covered.view_mut(), membership, [z, y], image);
            let voxels = Zip::from(row).and(membership.slice(s![z, y, ..])).and(&covered);
            voxels.for_each(|surface, &voxel, &covered| *surface = if voxel == IGNORED { 0 } else { voxel & !covered });
        }
    });
    surfaces
}

/// Keeps of each voxel of a row the bits that its neighbours along every axis have.
fn cover_row(mut covered: ArrayViewMut1<'_, u8>, voxels: &Array3<u8>, [z, y]: [usize; 2], image: [usize; 3]) {
    let (depth, height, width) = voxels.dim();
    let mut keep = |row: Option<[usize; 2]>| match row.filter(|[z, y]| *z < depth && *y < height) {
        Some([z, y]) => covered.zip_mut_with(&voxels.slice(s![z, y, ..]), |covered, voxel| *covered &= voxel),
        None => covered.fill(0),
    };
    if image[0] > 1 {
        keep(z.checked_sub(1).map(|z| [z, y]));
        keep(Some([z + 1, y]));
    }
    if image[1] > 1 {
        keep(y.checked_sub(1).map(|y| [z, y]));
        keep(Some([z, y + 1]));
    }
    if image[2] > 1 {
        let row = voxels.slice(s![z, y, ..]);
        covered.slice_mut(s![1..]).zip_mut_with(&row.slice(s![..width - 1]), |covered, before| *covered &= before);
        covered.slice_mut(s![..width - 1]).zip_mut_with(&row.slice(s![1..]), |covered, after| *covered &= after);
        covered[0] = 0;
        covered[width - 1] = 0;
    }
}

/// The distances of each surface from the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SurfaceDistances {
    /// Squared distances in mm² of the reference's surface voxels from the prediction's surface.
    from_reference: Vec<f32>,
    /// Squared distances in mm² of the prediction's surface voxels from the reference's surface.
    from_prediction: Vec<f32>,
}

impl SurfaceDistances {
    /// Whether neither map has a surface; every measure is NaN then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from_reference.is_empty() && self.from_prediction.is_empty()
    }

    /// Whether only one of the maps has a surface; distances are infinite then, and [`within`](Self::within) is 0.
    #[must_use]
    pub fn is_one_sided(&self) -> bool {
        self.from_reference.is_empty() != self.from_prediction.is_empty()
    }

    /// The Hausdorff distance in mm: the largest distance of a surface voxel of either side from the other surface.
    #[must_use]
    pub fn hausdorff(&self) -> f64 {
        self.of_both(|squared| f64::from(squared.iter().copied().fold(0.0, f32::max)).sqrt())
    }

    /// The Hausdorff distance in mm at a percentile from 0 to 100: the larger of both sides' percentiles, between two
    /// distances linearly interpolated as NumPy does.
    #[must_use]
    pub fn hausdorff_at(&self, percentile: f64) -> f64 {
        self.of_both(|squared| {
            let mut distances: Vec<f64> = squared.iter().map(|squared| f64::from(*squared).sqrt()).collect();
            quantile(&mut distances, percentile / 100.0)
        })
    }

    /// The average symmetric surface distance in mm: the mean over the surface voxels of both sides together.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let all = || self.from_reference.iter().chain(&self.from_prediction);
        all().map(|squared| f64::from(*squared).sqrt()).sum::<f64>() / all().count() as f64
    }

    /// The normalised surface Dice: the share of the surface voxels of both sides together that are at most `tolerance`
    /// mm from the other surface.
    ///
    /// # Reference
    /// Nikolov et al.: Clinically applicable segmentation of head and neck anatomy for radiotherapy (J Med Internet Res
    /// 23, 2021), doi:10.2196/26151, with voxels instead of pieces of surface.
    #[must_use]
    pub fn within(&self, tolerance: f64) -> f64 {
        let limit = (tolerance * (1.0 + ROUNDING)).powi(2);
        let all = || self.from_reference.iter().chain(&self.from_prediction);
        all().filter(|squared| f64::from(**squared) <= limit).count() as f64 / all().count() as f64
    }

    /// The larger of what squared distances give for both sides; NaN or infinite where one of them has no surface.
    fn of_both(&self, distance: impl Fn(&[f32]) -> f64) -> f64 {
        match (self.is_empty(), self.is_one_sided()) {
            (true, _) => f64::NAN,
            (_, true) => f64::INFINITY,
            _ => distance(&self.from_reference).max(distance(&self.from_prediction)),
        }
    }
}
