//! Resampling of a volume part by part.
//!
//! A voxel of the result depends on few voxels of the volume, so that any box of the result can be had without the rest
//! of it. Each box holds the same numbers, bit for bit, as the whole result would: the passes along the axes, their order
//! and the rounding between them do not depend on where a box begins and ends.

use std::ops::Range;

use ndarray::{ArrayView3, Axis, Slice};

use super::axis::{Pass, Samples, nearest_indices};
use super::volume::range;
use super::{Order, ResampleError, ResampleOptions, check_shapes, separate_axis};
use crate::geometry::{BoundingBox, Spacing};

/// Extents of a tile. Its voxels with their best score, their label and the score of a class fit into the second cache of
/// a core; the first axis is what lies in one piece there, in most cases.
pub(super) const TILE: [usize; 3] = [32, 8, 128];

/// How volumes of one shape are resampled onto a grid.
pub struct Regrid {
    from: [usize; 3],
    to: [usize; 3],
    apart: Option<usize>,
    steps: Vec<Step>,
}

/// What is done to a volume, in order; each axis has one pass at most.
enum Step {
    Pass {
        axis: usize,
        pass: Pass,
    },
    /// A cubic spline's overshoots are brought back into the range of the volume, or of the slices named here, one for
    /// each slice along the axis that is resampled apart.
    Clip {
        slices: Option<Vec<usize>>,
    },
}

/// The smallest and the largest value of a volume, or of each of its slices: what a cubic spline may not exceed. Other
/// orders need none.
#[derive(Debug, Clone, Default)]
pub struct Limits(Vec<(f32, f32)>);

impl Regrid {
    /// The way from volumes of shape `from` (`[z, y, x]`) to volumes of shape `to`.
    ///
    /// `current`, `new`: spacing in millimetres before and after; they only decide whether an axis is resampled apart.
    ///
    /// # Errors
    /// [`ResampleError::EmptyAxis`] or [`ResampleError::TooLarge`] for grids that cannot be.
    pub fn new(
        from: [usize; 3],
        to: [usize; 3],
        current: Spacing,
        new: Spacing,
        options: &ResampleOptions,
    ) -> Result<Self, ResampleError> {
        check_shapes(from, to)?;
        let apart = separate_axis(current, new, options.force_separate_z);
        Ok(Self { from, to, apart, steps: steps(from, to, apart, options) })
    }

    /// Shape of the volumes, `[z, y, x]`.
    #[must_use]
    pub fn from(&self) -> [usize; 3] {
        self.from
    }

    /// Shape of the grid, `[z, y, x]`.
    #[must_use]
    pub fn to(&self) -> [usize; 3] {
        self.to
    }

    /// The box of a volume that the box `part` of the grid is made of.
    #[must_use]
    pub fn sources(&self, part: &BoundingBox) -> BoundingBox {
        let mut ranges: [Range<usize>; 3] = std::array::from_fn(|axis| part.start()[axis]..part.stop()[axis]);
        for (axis, pass) in self.passes() {
            ranges[axis] = pass.sources(&ranges[axis]);
        }
        let corner = |end: fn(&Range<usize>) -> usize| [0, 1, 2].map(|axis| end(&ranges[axis]));
        BoundingBox::new(corner(|range| range.start), corner(|range| range.end))
            .expect("invariant: a pass has samples in ascending order")
    }

    /// Cuts the planes of the grid into ranges, each made of at most `most` planes of a volume, or of as many as one plane
    /// of the grid needs.
    #[must_use]
    pub fn slabs(&self, most: usize) -> Vec<Range<usize>> {
        let mut slabs: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        while start < self.to[0] {
            let fits = |end: &usize| self.source_planes(&(start..*end)).len() <= most;
            let thickness = 1 + (start + 2..=self.to[0]).take_while(fits).count();
            // Whole tiles, where that many planes fit and more follow.
            let is_last = start + thickness == self.to[0];
            let thickness = if is_last || thickness < TILE[0] { thickness } else { thickness - thickness % TILE[0] };
            slabs.push(start..start + thickness);
            start += thickness;
        }
        slabs
    }

    /// The planes of a volume that the planes `part` of the grid are made of.
    #[must_use]
    pub fn source_planes(&self, part: &Range<usize>) -> Range<usize> {
        let sources = self.sources(&self.planes(part));
        sources.start()[0]..sources.stop()[0]
    }

    /// The box of some planes of the grid.
    pub(super) fn planes(&self, part: &Range<usize>) -> BoundingBox {
        let [_, height, width] = self.to;
        BoundingBox::new([part.start, 0, 0], [part.end.max(part.start), height, width])
            .expect("invariant: the end is not before the start")
    }

    /// Whether [`Regrid::limits`] has to see a volume whole.
    #[must_use]
    pub fn needs_limits(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Clip { .. }))
    }

    /// What parts of the result may not exceed, from the whole volume.
    #[must_use]
    pub fn limits(&self, volume: ArrayView3<'_, f32>) -> Limits {
        if !self.needs_limits() {
            return Limits::default();
        }
        match self.apart {
            None => Limits(vec![range(volume)]),
            Some(apart) => Limits(volume.axis_chunks_iter(Axis(apart), 1).map(range).collect()),
        }
    }

    fn passes(&self) -> impl Iterator<Item = (usize, &Pass)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Pass { axis, pass } => Some((*axis, pass)),
            Step::Clip { .. } => None,
        })
    }
}

/// The steps of `resample_channel`, in its order.
fn steps(from: [usize; 3], to: [usize; 3], apart: Option<usize>, options: &ResampleOptions) -> Vec<Step> {
    let clips = options.order == Order::Cubic;
    let Some(apart) = apart else {
        let mut steps = passes(from, to, options.order);
        steps.extend(clips.then_some(Step::Clip { slices: None }));
        return steps;
    };
    let mut between = from;
    if options.order_z == Order::Nearest && to[apart] < from[apart] {
        between[apart] = to[apart];
        let mut steps = passes(from, between, Order::Nearest);
        steps.extend(passes(between, to, options.order));
        steps.extend(clips.then(|| Step::Clip { slices: Some(nearest_indices(from[apart], to[apart])) }));
        return steps;
    }
    between = to;
    between[apart] = from[apart];
    let mut steps = passes(from, between, options.order);
    steps.extend(clips.then(|| Step::Clip { slices: Some((0..from[apart]).collect()) }));
    steps.extend(passes(between, to, options.order_z));
    steps
}

/// The passes of `resize_axes`, in its order.
fn passes(from: [usize; 3], to: [usize; 3], order: Order) -> Vec<Step> {
    let y_first = to[1] * from[2] <= to[2] * from[1];
    let plane = if y_first { [1, 2] } else { [2, 1] };
    let axes = if to[1] * to[2] < from[1] * from[2] { [plane[0], plane[1], 0] } else { [0, plane[0], plane[1]] };
    let changing = axes.into_iter().filter(|&axis| from[axis] != to[axis]);
    changing.map(|axis| Step::Pass { axis, pass: Pass::new(from[axis], to[axis], order) }).collect()
}

/// Memory that a worker uses again and again.
#[derive(Default)]
pub(super) struct Scratch {
    block: Vec<Samples>,
    values: Vec<f32>,
    other: Vec<f32>,
}

/// All that is to be done for one box of the grid, worked out once for all volumes.
pub(super) struct Part {
    sources: BoundingBox,
    operations: Vec<Operation>,
    /// Which axis of the volume each axis of the values is, the last one varying fastest.
    layout: [usize; 3],
    /// Extents of the box along the axes of the volume.
    shape: [usize; 3],
}

enum Operation {
    /// Lines of which `inner` lie side by side, `outer` times over.
    Pass { pass: Pass, outer: usize, inner: usize },
    /// Matrices of `rows` times `columns`, transposed.
    Turn { outer: usize, rows: usize, columns: usize },
    /// Stretches of `inner` values, each within the limits of its slice.
    Clip { slices: Vec<usize>, inner: usize },
}

impl Part {
    pub(super) fn new(regrid: &Regrid, part: &BoundingBox) -> Self {
        let sources = regrid.sources(part);
        let mut frame = Frame { layout: [0, 1, 2], extents: sources.shape(), operations: Vec::new() };
        let mut passes = 0;
        for (index, step) in regrid.steps.iter().enumerate() {
            match step {
                Step::Pass { axis, pass } => {
                    frame.pass(*axis, pass.window(part.start()[*axis]..part.stop()[*axis]));
                    passes += 1;
                    let is_along_rows = |step: &Step| matches!(step, Step::Pass { axis: 2, .. });
                    if passes == 1 && regrid.steps[index + 1..].iter().any(is_along_rows) {
                        frame.turn(*axis);
                    }
                }
                Step::Clip { slices } => frame.clip(regrid.apart, slices.as_deref(), &sources, part),
            }
        }
        Self { sources, operations: frame.operations, layout: frame.layout, shape: part.shape() }
    }

    /// The values of the box, from those of the volume from plane `first` on.
    pub(super) fn run<'a>(
        &self,
        volume: ArrayView3<'_, f32>,
        first: usize,
        limits: &Limits,
        scratch: &'a mut Scratch,
    ) -> &'a [f32] {
        let Scratch { block, values, other } = scratch;
        self.load(volume, first, values);
        for operation in &self.operations {
            match operation {
                Operation::Pass { pass, outer, inner } => {
                    along(pass, *outer, *inner, block, values, other);
                    std::mem::swap(values, other);
                }
                Operation::Turn { outer, rows, columns } => {
                    turn(*outer, *rows, *columns, values, other);
                    std::mem::swap(values, other);
                }
                Operation::Clip { slices, inner } => clip(values, slices, *inner, limits),
            }
        }
        values
    }

    /// Number of voxels of the box.
    pub(super) fn voxels(&self) -> usize {
        self.shape.iter().product()
    }

    /// What [`Part::run`] gave, or something of its layout, as `[z, y, x]`.
    pub(super) fn view<'a, T>(&self, values: &'a [T]) -> ArrayView3<'a, T> {
        let view = ArrayView3::from_shape(self.layout.map(|axis| self.shape[axis]), values)
            .expect("invariant: as many values as the box has voxels");
        let place = |axis| self.layout.iter().position(|&stored| stored == axis).unwrap_or(axis);
        view.permuted_axes([place(0), place(1), place(2)])
    }

    fn load(&self, mut volume: ArrayView3<'_, f32>, first: usize, values: &mut Vec<f32>) {
        let (start, stop) = (self.sources.start(), self.sources.stop());
        volume.slice_axis_inplace(Axis(0), Slice::from(start[0] - first..stop[0] - first));
        volume.slice_axis_inplace(Axis(1), Slice::from(start[1]..stop[1]));
        volume.slice_axis_inplace(Axis(2), Slice::from(start[2]..stop[2]));
        values.clear();
        for row in volume.rows() {
            match row.as_slice() {
                Some(row) => values.extend_from_slice(row),
                None => values.extend(row),
            }
        }
    }
}

/// How the values lie after the operations so far.
struct Frame {
    layout: [usize; 3],
    extents: [usize; 3],
    operations: Vec<Operation>,
}

impl Frame {
    fn place(&self, axis: usize) -> usize {
        self.layout.iter().position(|&stored| stored == axis).expect("invariant: a layout names every axis")
    }

    /// How many values come before and behind a place of the layout.
    fn around(&self, place: usize) -> (usize, usize) {
        let extents = self.layout.map(|axis| self.extents[axis]);
        (extents[..place].iter().product(), extents[place + 1..].iter().product())
    }

    fn pass(&mut self, axis: usize, pass: Pass) {
        let (outer, inner) = self.around(self.place(axis));
        self.extents[axis] = pass.extent();
        self.operations.push(Operation::Pass { pass, outer, inner });
    }

    /// Lets the lines along `axis`, whose pass is done, be those in one piece, so that all other passes have whole rows
    /// to blend.
    fn turn(&mut self, axis: usize) {
        let place = self.place(axis);
        let (outer, columns) = self.around(place);
        self.operations.push(Operation::Turn { outer, rows: self.extents[axis], columns });
        self.layout[place..].rotate_left(1);
    }

    fn clip(&mut self, apart: Option<usize>, slices: Option<&[usize]>, sources: &BoundingBox, part: &BoundingBox) {
        let (Some(apart), Some(slices)) = (apart, slices) else {
            let inner = self.extents.iter().product();
            return self.operations.push(Operation::Clip { slices: vec![0], inner });
        };
        // Where slices were dropped before, those that are left are numbered as in the result.
        let kept = self
            .operations
            .iter()
            .any(|done| matches!(done, Operation::Pass { pass, .. } if pass.order() == Order::Nearest));
        let start = if kept { part.start()[apart] } else { sources.start()[apart] };
        let (outer, inner) = self.around(self.place(apart));
        let slices = &slices[start..start + self.extents[apart]];
        self.operations.push(Operation::Clip { slices: slices.repeat(outer), inner });
    }
}

fn along(pass: &Pass, outer: usize, inner: usize, block: &mut Vec<Samples>, values: &[f32], target: &mut Vec<f32>) {
    target.resize(outer * inner * pass.extent(), 0.0);
    if inner == 1 {
        return pass.rows(block, values, target);
    }
    for (target, values) in
        target.chunks_exact_mut(inner * pass.extent()).zip(values.chunks_exact(values.len() / outer))
    {
        pass.columns(block, values, target, inner);
    }
}

/// Transposes matrices of `rows` times `columns`, a few rows at a time, so that what is written stays in the cache.
fn turn(outer: usize, rows: usize, columns: usize, values: &[f32], target: &mut Vec<f32>) {
    const BLOCK: usize = 8;
    target.resize(outer * rows * columns, 0.0);
    for (target, values) in target.chunks_exact_mut(rows * columns).zip(values.chunks_exact(rows * columns)) {
        for start in (0..rows).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(rows);
            for (column, target) in target.chunks_exact_mut(rows).enumerate() {
                for row in block.clone() {
                    target[row] = values[row * columns + column];
                }
            }
        }
    }
}

fn clip(values: &mut [f32], slices: &[usize], inner: usize, Limits(limits): &Limits) {
    for (values, &slice) in values.chunks_exact_mut(inner).zip(slices) {
        if let Some(&(low, high)) = limits.get(slice).filter(|(low, high)| low <= high) {
            values.iter_mut().for_each(|value| *value = value.clamp(low, high));
        }
    }
}
