//! From class scores on the network's grid to labels and probabilities on the image's own grid.
//!
//! Resampling all classes before one is chosen takes a volume a class, which for a hundred classes on a CT is what runs
//! nnU-Net out of memory. Here the grid is cut into tiles that stay in a core's cache; in each of them the classes come
//! one after the other and compete at once. No volume of scores on the image's grid ever exists.

use std::ops::Range;

use ndarray::{ArrayView3, ArrayView4, ArrayViewMut3, Axis, Zip};
use rayon::prelude::*;

use super::regrid::{Limits, Part, Regrid, Scratch, TILE};
use crate::geometry::BoundingBox;

/// Scores of all classes on some planes of the network's grid.
#[derive(Debug, Clone, Copy)]
pub struct ScorePlanes<'a> {
    /// The scores, `[class, z, y, x]`: logits or probabilities.
    pub values: ArrayView4<'a, f32>,
    /// Number of the first plane.
    pub first: usize,
}

/// Which class or region a voxel gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule<'a> {
    /// The class with the largest score, the first of them on ties.
    Largest,
    /// The label of the last region whose score is above the threshold, 0 where there is none.
    Regions {
        /// What the voxels of each region are labelled with.
        labels: &'a [i16],
        /// 0 for logits, one half for probabilities: the same, since the sigmoid of 0 is one half.
        threshold: f32,
    },
}

/// What makes a probability of a score.
#[derive(Debug, Clone, Copy)]
pub enum Activation<'a> {
    /// The score is one.
    None,
    /// Regions may overlap: `1 / (1 + exp(-score))`.
    Sigmoid,
    /// Classes exclude each other: `exp(score - largest) / sum`, with what [`Decision::with_sums`] found.
    Softmax {
        /// The largest score of each voxel.
        largest: ArrayView3<'a, f32>,
        /// The sum of `exp(score - largest)` over all classes.
        sum: ArrayView3<'a, f32>,
    },
}

/// Chooses a label for each voxel of a grid.
///
/// # Reference
/// nnU-Net 2.8.1 `convert_predicted_logits_to_segmentation_with_correct_shape`. For regions it asks for a probability
/// above one half, which is a logit above 0.
pub struct Decision<'a> {
    /// From the network's grid to the image's.
    pub regrid: &'a Regrid,
    /// Who wins.
    pub rule: Rule<'a>,
    /// What [`Regrid::limits`] found for each class; may be empty where none are needed.
    pub limits: &'a [Limits],
}

impl Decision<'_> {
    /// Writes the labels of the planes `part` of the grid into `labels` (`[z, y, x]`, these planes only), from scores that
    /// hold at least [`Regrid::source_planes`] of them.
    ///
    /// # Panics
    /// If `labels` or the scores have another shape than the grids say.
    pub fn labels(&self, scores: ScorePlanes<'_>, part: &Range<usize>, labels: ArrayViewMut3<'_, i16>) {
        let boxes = boxes(&self.regrid.planes(part));
        boxes.into_par_iter().zip(cut(labels)).for_each_init(Worker::default, |worker, (part, labels)| {
            worker.decide(self, scores, &Part::new(self.regrid, &part), labels);
        });
    }

    /// Like [`Decision::labels`] under [`Rule::Largest`]; also writes what [`Activation::Softmax`] needs.
    ///
    /// # Panics
    /// If an array has another shape than the grids say.
    pub fn with_sums(
        &self,
        scores: ScorePlanes<'_>,
        part: &Range<usize>,
        labels: ArrayViewMut3<'_, i16>,
        [largest, sum]: [ArrayViewMut3<'_, f32>; 2],
    ) {
        let boxes = boxes(&self.regrid.planes(part));
        let targets = cut(labels).into_iter().zip(cut(largest)).zip(cut(sum)).collect::<Vec<_>>();
        boxes.into_par_iter().zip(targets).for_each_init(
            Worker::default,
            |worker, (part, ((labels, mut largest), sum))| {
                let part = Part::new(self.regrid, &part);
                worker.decide(self, scores, &part, labels);
                worker.add_up(self, scores, &part, sum);
                largest.assign(&part.view(&worker.best));
            },
        );
    }

    fn limits(&self, class: usize) -> Limits {
        self.limits.get(class).cloned().unwrap_or_default()
    }
}

/// Writes the probabilities of one class within the box `part` of the grid into `target` (`[z, y, x]`, the box only).
///
/// `scores` is the whole volume of the class, on the network's grid; the arrays of `activation` span the grid.
///
/// # Panics
/// If an array has another shape than the grids say.
pub fn class_probabilities(
    regrid: &Regrid,
    scores: ArrayView3<'_, f32>,
    limits: &Limits,
    activation: &Activation<'_>,
    part: &BoundingBox,
    target: ArrayViewMut3<'_, f32>,
) {
    boxes(part).into_par_iter().zip(cut(target)).for_each_init(Scratch::default, |scratch, (tile, mut target)| {
        let part = Part::new(regrid, &tile);
        let values = part.view(part.run(scores, 0, limits, scratch));
        match activation {
            Activation::None => target.assign(&values),
            Activation::Sigmoid => {
                Zip::from(target).and(values).for_each(|target, &score| *target = 1.0 / (1.0 + (-score).exp()));
            }
            Activation::Softmax { largest, sum } => {
                let zip = Zip::from(target).and(values).and(within(&tile, *largest)).and(within(&tile, *sum));
                zip.for_each(|target, &score, &largest, &sum| *target = (score - largest).exp() / sum);
            }
        }
    });
}

fn within<'a>(tile: &BoundingBox, volume: ArrayView3<'a, f32>) -> ArrayView3<'a, f32> {
    tile.crop(volume).expect("invariant: a tile lies within the grid")
}

/// What one thread works with.
#[derive(Default)]
struct Worker {
    scratch: Scratch,
    best: Vec<f32>,
    labels: Vec<i16>,
}

impl Worker {
    fn decide(
        &mut self,
        decision: &Decision<'_>,
        scores: ScorePlanes<'_>,
        part: &Part,
        mut target: ArrayViewMut3<'_, i16>,
    ) {
        let Self { scratch, best, labels } = self;
        labels.clear();
        labels.resize(part.voxels(), 0);
        best.clear();
        best.resize(part.voxels(), f32::NEG_INFINITY);
        for (class, volume) in scores.values.axis_iter(Axis(0)).enumerate() {
            let values = part.run(volume, scores.first, &decision.limits(class), scratch);
            match decision.rule {
                Rule::Largest => compete(best, labels, values, class as i16),
                Rule::Regions { labels: of_regions, threshold } => {
                    if let Some(&label) = of_regions.get(class) {
                        paint(labels, values, threshold, label);
                    }
                }
            }
        }
        target.assign(&part.view(labels));
    }

    /// Adds up `exp(score - best)` of all classes, in their order.
    fn add_up(
        &mut self,
        decision: &Decision<'_>,
        scores: ScorePlanes<'_>,
        part: &Part,
        mut target: ArrayViewMut3<'_, f32>,
    ) {
        let Self { scratch, best, .. } = self;
        let mut sums = vec![0.0_f32; part.voxels()];
        for (class, volume) in scores.values.axis_iter(Axis(0)).enumerate() {
            let values = part.run(volume, scores.first, &decision.limits(class), scratch);
            for ((sum, &score), &best) in sums.iter_mut().zip(values).zip(best.iter()) {
                *sum += (score - best).exp();
            }
        }
        target.assign(&part.view(&sums));
    }
}

fn compete(best: &mut [f32], labels: &mut [i16], scores: &[f32], class: i16) {
    for ((best, label), &score) in best.iter_mut().zip(labels).zip(scores) {
        let wins = score > *best;
        *best = if wins { score } else { *best };
        *label = if wins { class } else { *label };
    }
}

fn paint(labels: &mut [i16], scores: &[f32], threshold: f32, label: i16) {
    for (target, &score) in labels.iter_mut().zip(scores) {
        *target = if score > threshold { label } else { *target };
    }
}

/// A box in tiles, in C order.
fn boxes(part: &BoundingBox) -> Vec<BoundingBox> {
    let starts = |axis: usize| (part.start()[axis]..part.stop()[axis]).step_by(TILE[axis]);
    let corners = starts(0).flat_map(|z| starts(1).flat_map(move |y| starts(2).map(move |x| [z, y, x])));
    let tile = |start: [usize; 3]| {
        let stop = [0, 1, 2].map(|axis| (start[axis] + TILE[axis]).min(part.stop()[axis]));
        BoundingBox::new(start, stop).expect("invariant: a tile begins within the box")
    };
    corners.map(tile).collect()
}

/// A volume in the same tiles.
fn cut<T>(volume: ArrayViewMut3<'_, T>) -> Vec<ArrayViewMut3<'_, T>> {
    let mut pieces = vec![volume];
    for (axis, extent) in TILE.into_iter().enumerate() {
        pieces = pieces.into_iter().flat_map(|piece| cut_along(piece, axis, extent)).collect();
    }
    pieces
}

fn cut_along<T>(volume: ArrayViewMut3<'_, T>, axis: usize, extent: usize) -> Vec<ArrayViewMut3<'_, T>> {
    let mut pieces = Vec::new();
    let mut rest = volume;
    while rest.len_of(Axis(axis)) > extent {
        let (piece, others) = rest.split_at(Axis(axis), extent);
        pieces.push(piece);
        rest = others;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4, array};

    use super::*;
    use crate::geometry::Spacing;
    use crate::resample::{Order, ResampleOptions};

    /// The labels of one row of voxels on the grid that their scores have.
    fn labels(scores: &Array4<f32>, rule: Rule<'_>) -> Array3<i16> {
        let (_, depth, height, width) = scores.dim();
        let shape = [depth, height, width];
        let spacing = Spacing::new([1.0; 3]).expect("positive");
        let options = ResampleOptions { order: Order::Linear, order_z: Order::Nearest, force_separate_z: None };
        let regrid = Regrid::new(shape, shape, spacing, spacing, &options).expect("a grid");
        let mut labels = Array3::zeros(shape);
        let decision = Decision { regrid: &regrid, rule, limits: &[] };
        decision.labels(ScorePlanes { values: scores.view(), first: 0 }, &(0..depth), labels.view_mut());
        labels
    }

    #[test]
    fn the_first_of_equal_classes_wins() {
        let scores = array![[[[0.0, 1.0, 1.0]]], [[[0.0, 1.0, 2.0]]]];
        assert_eq!(labels(&scores, Rule::Largest), array![[[0, 0, 1]]]);
    }

    #[test]
    fn a_later_region_paints_over_an_earlier_one() {
        let logits = array![[[[1.0, 1.0, -1.0]]], [[[-1.0, 1.0, 0.0]]]];
        assert_eq!(labels(&logits, Rule::Regions { labels: &[2, 1], threshold: 0.0 }), array![[[2, 1, 0]]]);
    }

    #[test]
    fn tiles_cover_a_box_once() {
        let part = BoundingBox::new([3, 0, 5], [70, 9, 300]).expect("ordered");
        let voxels: usize = boxes(&part).iter().map(|tile| tile.shape().iter().product::<usize>()).sum();
        assert_eq!(voxels, 67 * 9 * 295);
        let mut volume = Array3::<u8>::zeros([67, 9, 295]);
        let pieces = cut(volume.view_mut());
        let shapes: Vec<[usize; 3]> = pieces.iter().map(|piece| piece.dim().into()).collect();
        assert_eq!(shapes, boxes(&part).iter().map(BoundingBox::shape).collect::<Vec<_>>());
    }
}
