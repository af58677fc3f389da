//! Components of labels in a label map.

use std::collections::BTreeMap;

use ndarray::{Array3, ArrayView3, SliceInfo, SliceInfoElem, Zip, s};
use nnflow_kernels::components::{Components, Connectivity, keep_largest};

/// Voxels from `start` to before `stop`, `[z, y, x]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    start: [usize; 3],
    stop: [usize; 3],
}

type Slices = SliceInfo<[SliceInfoElem; 3], ndarray::Ix3, ndarray::Ix3>;

impl Region {
    fn united(self, other: Self) -> Self {
        Self {
            start: std::array::from_fn(|axis| self.start[axis].min(other.start[axis])),
            stop: std::array::from_fn(|axis| self.stop[axis].max(other.stop[axis])),
        }
    }

    fn slices(&self) -> Slices {
        let [z, y, x] = self.start;
        let [z_stop, y_stop, x_stop] = self.stop;
        s![z..z_stop, y..y_stop, x..x_stop]
    }
}

/// A label map that knows where its labels are.
#[derive(Debug, Clone)]
pub(crate) struct LabelMap {
    labels: Array3<i16>,
    /// Where each label above 0 is at most; as voxels are removed, it may be less.
    regions: BTreeMap<i16, Region>,
}

/// Voxels of some labels outside of their largest component.
#[derive(Debug)]
pub(crate) struct Superfluous {
    region: Region,
    voxels: Array3<bool>,
}

impl LabelMap {
    /// Takes labels `[z, y, x]`.
    pub(crate) fn new(labels: Array3<i16>) -> Self {
        let regions = regions(labels.view());
        Self { labels, regions }
    }

    /// The labels `[z, y, x]`.
    pub(crate) fn labels(&self) -> ArrayView3<'_, i16> {
        self.labels.view()
    }

    /// Number of components of the union of some labels, by 26-connectivity.
    pub(crate) fn components(&self, members: &[i16]) -> usize {
        self.mask(members).map_or(0, |(_, mask)| Components::of(mask.view(), Connectivity::Corners).count())
    }

    /// What is not part of the largest component of the union of some labels; `None` if nothing is.
    pub(crate) fn superfluous(&self, members: &[i16]) -> Option<Superfluous> {
        let (region, mut voxels) = self.mask(members)?;
        let kept = keep_largest(voxels.view());
        Zip::from(&mut voxels).and(&kept).for_each(|voxel, &kept| *voxel &= !kept);
        voxels.iter().any(|voxel| *voxel).then_some(Superfluous { region, voxels })
    }

    /// Makes voxels background.
    pub(crate) fn remove(&mut self, superfluous: &Superfluous) {
        let part = self.labels.slice_mut(superfluous.region.slices());
        Zip::from(part).and(&superfluous.voxels).for_each(|label, &removed| {
            if removed {
                *label = 0;
            }
        });
    }

    /// Removes what is not part of the largest component; whether there was anything to remove.
    pub(crate) fn keep_largest(&mut self, members: &[i16]) -> bool {
        let superfluous = self.superfluous(members);
        if let Some(superfluous) = &superfluous {
            self.remove(superfluous);
        }
        superfluous.is_some()
    }

    /// Where the union of some labels is, within its region.
    fn mask(&self, members: &[i16]) -> Option<(Region, Array3<bool>)> {
        let regions = members.iter().filter_map(|label| self.regions.get(label)).copied();
        let region = regions.reduce(Region::united)?;
        let part = self.labels.slice(region.slices());
        let mask = match members {
            [only] => part.mapv(|label| label == *only),
            _ => {
                let belongs = lookup(members);
                part.mapv(|label| usize::try_from(label).is_ok_and(|label| belongs.get(label) == Some(&true)))
            }
        };
        Some((region, mask))
    }
}

impl Superfluous {
    /// The voxels of another map of the same image that are removed here.
    pub(crate) fn of<'a>(&'a self, other: ArrayView3<'a, i16>) -> impl Iterator<Item = i16> + 'a {
        let part = other.slice_move(self.region.slices());
        let voxels = self.voxels.indexed_iter().filter(|(_, removed)| **removed);
        voxels.map(move |(place, _)| part[place])
    }
}

/// For each label up to the highest whether it is one of these; a union may have a hundred.
fn lookup(members: &[i16]) -> Vec<bool> {
    let mut belongs = Vec::new();
    for label in members.iter().filter_map(|label| usize::try_from(*label).ok()) {
        if belongs.len() <= label {
            belongs.resize(label + 1, false);
        }
        belongs[label] = true;
    }
    belongs
}

/// Where each label above 0 is.
fn regions(labels: ArrayView3<'_, i16>) -> BTreeMap<i16, Region> {
    let mut regions: BTreeMap<i16, Region> = BTreeMap::new();
    let (depth, height, _) = labels.dim();
    for ((z, y), row) in (0..depth).flat_map(|z| (0..height).map(move |y| (z, y))).zip(labels.rows()) {
        let mut start = 0;
        let mut voxels = row.iter().copied().enumerate().peekable();
        while let Some((x, label)) = voxels.next() {
            // Labels come in runs, so a look into the map is needed once a run, not once a voxel.
            if voxels.peek().is_some_and(|(_, next)| *next == label) {
                continue;
            }
            if label > 0 {
                let run = Region { start: [z, y, start], stop: [z + 1, y + 1, x + 1] };
                regions.entry(label).and_modify(|region| *region = region.united(run)).or_insert(run);
            }
            start = x + 1;
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_region_of_a_label_holds_all_its_voxels() {
        let labels = array![[[0, 2, 2, 0], [1, 0, 0, 0]], [[0, 0, 0, 2], [0, 0, 0, 0]]];
        let expected = BTreeMap::from([
            (1, Region { start: [0, 1, 0], stop: [1, 2, 1] }),
            (2, Region { start: [0, 0, 1], stop: [2, 1, 4] }),
        ]);
        assert_eq!(regions(labels.view()), expected);
    }

    #[test]
    fn only_the_largest_component_stays() {
        let mut map = LabelMap::new(array![[[1, 1, 0, 1, 2]]]);
        assert!(map.keep_largest(&[1]));
        assert_eq!(map.labels(), array![[[1, 1, 0, 0, 2]]]);
    }

    #[test]
    fn equally_large_components_all_stay() {
        let mut map = LabelMap::new(array![[[1, 0, 1]]]);
        assert!(!map.keep_largest(&[1]));
    }

    #[test]
    fn a_union_is_one_structure() {
        let mut map = LabelMap::new(array![[[1, 2, 0, 2, 0, 3]]]);
        assert!(map.keep_largest(&[1, 2]));
        assert_eq!(map.labels(), array![[[1, 2, 0, 0, 0, 3]]]);
    }

    #[test]
    fn voxels_that_share_a_corner_are_one_component() {
        let mut labels = Array3::zeros((2, 2, 2));
        labels[[0, 0, 0]] = 1;
        labels[[1, 1, 1]] = 1;
        assert_eq!(LabelMap::new(labels).components(&[1]), 1);
    }

    #[test]
    fn a_label_that_is_not_there_has_no_component() {
        let map = LabelMap::new(array![[[0, 1]]]);
        assert_eq!(map.components(&[2]), 0);
        assert!(map.superfluous(&[2]).is_none());
    }

    #[test]
    fn keeping_the_largest_twice_is_keeping_it_once() {
        arbtest::arbtest(|source| {
            let voxels: Vec<i16> = (0..60).map(|_| source.int_in_range(0..=2)).collect::<Result<_, _>>()?;
            let mut map = LabelMap::new(Array3::from_shape_vec((3, 4, 5), voxels).expect("60 voxels"));
            map.keep_largest(&[1]);
            assert!(!map.keep_largest(&[1]));
            Ok(())
        });
    }

    #[test]
    fn the_box_of_a_label_changes_nothing() {
        arbtest::arbtest(|source| {
            let voxels: Vec<i16> = (0..60).map(|_| source.int_in_range(0..=3)).collect::<Result<_, _>>()?;
            let labels = Array3::from_shape_vec((3, 4, 5), voxels).expect("60 voxels");
            let whole = keep_largest(labels.mapv(|label| label == 1 || label == 3).view());
            let mut expected = labels.clone();
            Zip::from(&mut expected).and(&whole).for_each(|label, &kept| {
                if (*label == 1 || *label == 3) && !kept {
                    *label = 0;
                }
            });
            let mut map = LabelMap::new(labels);
            map.keep_largest(&[1, 3]);
            assert_eq!(map.labels(), expected);
            Ok(())
        });
    }
}
