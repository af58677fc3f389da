//! A mask with 64 voxels in a word.

use ndarray::{Array3, ArrayView3};

use super::element::{Element, Row};

const WORD: usize = u64::BITS as usize;

/// A mask whose rows along x begin at words; the bits behind the end of a row are zero.
#[derive(Debug, Clone)]
pub(super) struct BitVolume {
    depth: usize,
    height: usize,
    width: usize,
    words: Vec<u64>,
}

impl BitVolume {
    pub(super) fn new(mask: ArrayView3<'_, bool>) -> Self {
        let (depth, height, width) = mask.dim();
        let mut volume = Self::empty(depth, height, width);
        let per_row = volume.words_per_row();
        for (row, voxels) in mask.rows().into_iter().enumerate() {
            let words = &mut volume.words[row * per_row..(row + 1) * per_row];
            for (x, _) in voxels.iter().enumerate().filter(|(_, inside)| **inside) {
                words[x / WORD] |= 1 << (x % WORD);
            }
        }
        volume
    }

    fn empty(depth: usize, height: usize, width: usize) -> Self {
        Self { depth, height, width, words: vec![0; depth * height * width.div_ceil(WORD)] }
    }

    pub(super) fn to_mask(&self) -> Array3<bool> {
        let per_row = self.words_per_row();
        Array3::from_shape_fn((self.depth, self.height, self.width), |(z, y, x)| {
            let word = self.words[(z * self.height + y) * per_row + x / WORD];
            word >> (x % WORD) & 1 == 1
        })
    }

    /// The voxels from which the element reaches a voxel.
    pub(super) fn dilate(&self, element: &Element) -> Self {
        let mut grown = Self::empty(self.depth, self.height, self.width);
        let mut intervals: Vec<(isize, isize)> = element.rows().iter().map(|row| (row.from, row.to)).collect();
        intervals.sort_unstable();
        intervals.dedup();
        for (from, to) in intervals {
            // All rows of the element with this interval share one volume that is grown along x.
            let along_x = self.reach_along_x(from, to);
            for row in element.rows().iter().filter(|row| (row.from, row.to) == (from, to)) {
                grown.merge_rows(&along_x, row);
            }
        }
        grown
    }

    /// The voxels from which the element reaches nothing but voxels: what is left where the background has not grown.
    pub(super) fn erode(&self, element: &Element) -> Self {
        self.complement().dilate(element).complement()
    }

    fn words_per_row(&self) -> usize {
        self.width.div_ceil(WORD)
    }

    fn complement(&self) -> Self {
        let mut inverse = self.clone();
        inverse.words.iter_mut().for_each(|word| *word = !*word);
        inverse.clear_behind_rows();
        inverse
    }

    /// Makes the bits behind the ends of the rows zero again.
    fn clear_behind_rows(&mut self) {
        let (per_row, used) = (self.words_per_row(), self.width % WORD);
        if used > 0 {
            for last in self.words.iter_mut().skip(per_row - 1).step_by(per_row) {
                *last &= (1 << used) - 1;
            }
        }
    }

    /// The voxels from which a voxel lies between `from` and `to` steps further along x.
    fn reach_along_x(&self, from: isize, to: isize) -> Self {
        let mut reached = Self::empty(self.depth, self.height, self.width);
        let per_row = self.words_per_row();
        if per_row == 0 {
            return reached;
        }
        for (target, source) in reached.words.chunks_mut(per_row).zip(self.words.chunks(per_row)) {
            for steps in from..=to {
                merge_shifted(target, source, steps);
            }
        }
        reached.clear_behind_rows();
        reached
    }

    /// Adds the rows of `source` that lie where `row` of the element points to.
    fn merge_rows(&mut self, source: &Self, row: &Row) {
        let per_row = self.words_per_row();
        for z in 0..self.depth {
            let Some(other_z) = z.checked_add_signed(row.dz).filter(|&z| z < self.depth) else { continue };
            for y in 0..self.height {
                let Some(other_y) = y.checked_add_signed(row.dy).filter(|&y| y < self.height) else { continue };
                let target = (z * self.height + y) * per_row;
                let other = (other_z * self.height + other_y) * per_row;
                let words = self.words[target..target + per_row].iter_mut();
                for (word, &add) in words.zip(&source.words[other..other + per_row]) {
                    *word |= add;
                }
            }
        }
    }
}

/// Adds to each voxel of a row the voxel `steps` further along it.
fn merge_shifted(target: &mut [u64], source: &[u64], steps: isize) {
    let (words, bits) = (steps.unsigned_abs() / WORD, steps.unsigned_abs() % WORD);
    let word = |index: Option<usize>| index.and_then(|index| source.get(index)).copied().unwrap_or(0);
    for (index, target) in target.iter_mut().enumerate() {
        *target |= if steps >= 0 {
            // Shifting by all 64 bits is no shift in Rust, so where no bit is left over nothing is taken from the next word.
            let carried = if bits == 0 { 0 } else { word(Some(index + words + 1)) << (WORD - bits) };
            word(Some(index + words)) >> bits | carried
        } else {
            let carried = if bits == 0 { 0 } else { word(index.checked_sub(words + 1)) >> (WORD - bits) };
            word(index.checked_sub(words)) << bits | carried
        };
    }
}
