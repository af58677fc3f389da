//! Connected components of a mask.
//!
//! Masks of organs are long runs of equal voxels, so runs along x are what is joined, not voxels: the work and the memory
//! grow with the surface of what is in the mask rather than with its volume.

use ndarray::{Array3, ArrayView3};

/// Which voxels around a voxel count as its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connectivity {
    /// The 6 voxels that share a face (4 within a slice).
    Faces,
    /// The 18 voxels that share a face or an edge.
    Edges,
    /// The 26 voxels that share a face, an edge or a corner (8 within a slice).
    Corners,
}

impl Connectivity {
    /// How many of the three coordinates of a neighbour may differ.
    fn differing_axes(self) -> usize {
        match self {
            Self::Faces => 1,
            Self::Edges => 2,
            Self::Corners => 3,
        }
    }

    /// The rows before a row in C order that hold neighbours: steps back in z and y, and how far a neighbour may lie
    /// aside in x.
    fn earlier_rows(self) -> impl Iterator<Item = (usize, isize, u32)> {
        [(0, -1), (1, 0), (1, -1), (1, 1)].into_iter().filter_map(move |(back, dy)| {
            let used = back + usize::from(dy != 0);
            let left = self.differing_axes().checked_sub(used)?;
            Some((back, dy, u32::from(left > 0)))
        })
    }
}

/// Neighbouring voxels along x, from `start` to before `stop`.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: u32,
    stop: u32,
}

/// The connected components of a mask, numbered in the order of their first voxels.
///
/// Takes 12 bytes a run, so at most 6 bytes a voxel, and far less for any mask of an organ.
#[derive(Debug)]
pub struct Components {
    shape: [usize; 3],
    /// For each row of the volume the number of runs before it; one more at the end.
    rows: Vec<usize>,
    runs: Vec<Run>,
    /// For each run its component.
    component: Vec<u32>,
    sizes: Vec<usize>,
}

impl Components {
    /// Finds the components of the true voxels of `mask` (`[z, y, x]`).
    ///
    /// The same components in the same order as `skimage.measure.label` 0.26.
    #[must_use]
    pub fn of(mask: ArrayView3<'_, bool>, connectivity: Connectivity) -> Self {
        Self::of_value(mask, true, connectivity)
    }

    /// Finds the components of the voxels of `mask` that equal `value`.
    #[must_use]
    pub fn of_value(mask: ArrayView3<'_, bool>, value: bool, connectivity: Connectivity) -> Self {
        let (depth, height, width) = mask.dim();
        let (rows, runs) = find_runs(mask, value);
        let mut components = Self {
            shape: [depth, height, width],
            rows,
            component: (0..runs.len()).map(index_of_run).collect(),
            runs,
            sizes: Vec::new(),
        };
        components.join(connectivity);
        components.number();
        components
    }

    /// How many components there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sizes.len()
    }

    /// Voxels of each component.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// The components as an image: 0 outside, 1 for the first component, and so on.
    #[must_use]
    pub fn labels(&self) -> Array3<u32> {
        self.paint(0, |component| component + 1)
    }

    /// The voxels of those components for which `keep` is true.
    #[must_use]
    pub fn select(&self, keep: impl Fn(usize) -> bool) -> Array3<bool> {
        self.paint(false, |component| keep(component as usize))
    }

    /// For each component whether it has a voxel on one of the six faces of the volume.
    #[must_use]
    pub fn touch_border(&self) -> Vec<bool> {
        let [depth, height, width] = self.shape;
        let mut touching = vec![false; self.count()];
        for row in 0..depth * height {
            let (z, y) = (row / height, row % height);
            let outer_row = z == 0 || z + 1 == depth || y == 0 || y + 1 == height;
            for index in self.rows[row]..self.rows[row + 1] {
                let run = self.runs[index];
                if outer_row || run.start == 0 || run.stop as usize == width {
                    touching[self.component[index] as usize] = true;
                }
            }
        }
        touching
    }

    /// Joins runs that touch; afterwards each run points to an earlier run of its component, the first one to itself.
    fn join(&mut self, connectivity: Connectivity) {
        let [depth, height, _] = self.shape;
        for z in 0..depth {
            for y in 0..height {
                for (back, dy, aside) in connectivity.earlier_rows() {
                    let other_y = y.checked_add_signed(dy).filter(|&other| other < height);
                    if let (Some(other_z), Some(other_y)) = (z.checked_sub(back), other_y) {
                        self.join_rows(z * height + y, other_z * height + other_y, aside);
                    }
                }
            }
        }
    }

    /// Joins the runs of two rows that overlap, or that lie at most `aside` voxels apart.
    fn join_rows(&mut self, row: usize, other_row: usize, aside: u32) {
        let (mut here, end) = (self.rows[row], self.rows[row + 1]);
        let (mut there, other_end) = (self.rows[other_row], self.rows[other_row + 1]);
        while here < end && there < other_end {
            let (run, other) = (self.runs[here], self.runs[there]);
            if run.start < other.stop + aside && other.start < run.stop + aside {
                unite(&mut self.component, here, there);
            }
            if run.stop < other.stop {
                here += 1;
            } else {
                there += 1;
            }
        }
    }

    /// Replaces the run that each run points to by the number of the component.
    fn number(&mut self) {
        for index in 0..self.runs.len() {
            // A run points to itself or to an earlier one, which already has its number.
            let parent = self.component[index] as usize;
            if parent == index {
                self.component[index] = index_of_run(self.sizes.len());
                self.sizes.push(0);
            } else {
                self.component[index] = self.component[parent];
            }
            let run = self.runs[index];
            self.sizes[self.component[index] as usize] += (run.stop - run.start) as usize;
        }
    }

    fn paint<T: Copy>(&self, outside: T, value: impl Fn(u32) -> T) -> Array3<T> {
        let width = self.shape[2];
        let mut image = vec![outside; self.shape.iter().product()];
        for row in 0..self.rows.len() - 1 {
            for index in self.rows[row]..self.rows[row + 1] {
                let run = self.runs[index];
                let voxels = row * width + run.start as usize..row * width + run.stop as usize;
                image[voxels].fill(value(self.component[index]));
            }
        }
        Array3::from_shape_vec(self.shape, image).expect("invariant: as many voxels as the shape says")
    }
}

/// The mask's largest component by 26-connectivity; all of them where several are equally large.
///
/// Equal to `acvl_utils` 0.2.6 `remove_all_but_largest_component`, which nnU-Net's postprocessing uses.
#[must_use]
pub fn keep_largest(mask: ArrayView3<'_, bool>) -> Array3<bool> {
    let components = Components::of(mask, Connectivity::Corners);
    let largest = components.sizes().iter().max().copied();
    components.select(|component| Some(components.sizes()[component]) == largest)
}

/// The runs of voxels that equal `value`, row after row, and how many runs lie before each row.
fn find_runs(mask: ArrayView3<'_, bool>, value: bool) -> (Vec<usize>, Vec<Run>) {
    let (depth, height, width) = mask.dim();
    let mask = mask.as_standard_layout();
    let voxels = mask.as_slice().expect("invariant: standard layout");
    let mut rows = Vec::with_capacity(depth * height + 1);
    let mut runs = Vec::new();
    rows.push(0);
    for row in 0..depth * height {
        push_runs(&voxels[row * width..(row + 1) * width], value, &mut runs);
        rows.push(runs.len());
    }
    (rows, runs)
}

fn push_runs(row: &[bool], value: bool, runs: &mut Vec<Run>) {
    let next = |from: usize, wanted: bool| {
        row[from..].iter().position(|&voxel| voxel == wanted).map_or(row.len(), |offset| from + offset)
    };
    let mut start = next(0, value);
    while start < row.len() {
        let stop = next(start, !value);
        runs.push(Run { start: index_of_run(start), stop: index_of_run(stop) });
        start = next(stop, value);
    }
}

fn index_of_run(index: usize) -> u32 {
    u32::try_from(index)
        .expect("invariant: a volume in memory has fewer than 2^32 runs, and a row fewer than 2^32 voxels")
}

/// Lets the later one of two components point to the earlier one.
fn unite(parents: &mut [u32], first: usize, second: usize) {
    let (first, second) = (find(parents, first), find(parents, second));
    let (earlier, later) = (first.min(second), first.max(second));
    parents[later] = index_of_run(earlier);
}

/// The first run of the component that `run` belongs to; halves the way there for the next time.
fn find(parents: &mut [u32], mut run: usize) -> usize {
    while parents[run] as usize != run {
        parents[run] = parents[parents[run] as usize];
        run = parents[run] as usize;
    }
    run
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    /// A mask of one slice drawn with `#`.
    fn slice(rows: &[&str]) -> Array3<bool> {
        let width = rows[0].len();
        Array3::from_shape_fn((1, rows.len(), width), |(_, y, x)| rows[y].as_bytes()[x] == b'#')
    }

    #[test]
    fn a_diagonal_joins_only_where_corners_count() {
        let mask = slice(&["#.", ".#"]);
        assert_eq!(Components::of(mask.view(), Connectivity::Faces).count(), 2);
        assert_eq!(Components::of(mask.view(), Connectivity::Edges).count(), 1);
        assert_eq!(Components::of(mask.view(), Connectivity::Corners).count(), 1);
    }

    #[test]
    fn a_diagonal_through_space_joins_only_by_corners() {
        let mut mask = Array3::from_elem((2, 2, 2), false);
        mask[[0, 0, 1]] = true;
        mask[[1, 1, 0]] = true;
        assert_eq!(Components::of(mask.view(), Connectivity::Edges).count(), 2);
        assert_eq!(Components::of(mask.view(), Connectivity::Corners).count(), 1);
    }

    #[test]
    fn arms_that_meet_late_are_one_component() {
        let mask = slice(&["#.#.#", "#.#.#", "#####"]);
        let components = Components::of(mask.view(), Connectivity::Faces);
        assert_eq!(components.sizes(), [11]);
    }

    #[test]
    fn components_are_numbered_by_their_first_voxel() {
        let mask = slice(&["..#", "#..", "#.#"]);
        let labels = Components::of(mask.view(), Connectivity::Faces).labels();
        assert_eq!(labels, array![[[0, 0, 1], [2, 0, 0], [2, 0, 3]]]);
    }

    #[test]
    fn equally_large_components_are_all_kept() {
        let mask = slice(&["##.##", ".....", "#...."]);
        assert_eq!(keep_largest(mask.view()), slice(&["##.##", ".....", "....."]));
    }

    #[test]
    fn an_empty_mask_stays_empty() {
        let mask = Array3::from_elem((2, 3, 4), false);
        assert_eq!(keep_largest(mask.view()), mask);
        assert_eq!(keep_largest(Array3::from_elem((0, 3, 4), true).view()).len(), 0);
    }

    #[test]
    fn only_what_reaches_a_face_touches_the_border() {
        let mut mask = Array3::from_elem((3, 3, 5), false);
        mask[[1, 1, 1]] = true;
        mask[[1, 1, 4]] = true;
        let touching = Components::of(mask.view(), Connectivity::Corners).touch_border();
        assert_eq!(touching, [false, true]);
    }
}
