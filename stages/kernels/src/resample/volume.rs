//! Resizing a volume of intensities.

use ndarray::{Array2, Array3, ArrayView1, ArrayView3, ArrayViewMut3, Axis, CowArray, Ix3, Zip};
use rayon::prelude::*;

use super::axis::{LANES, Pass, Samples};
use super::{Order, ResampleError, ResampleOptions, check_shapes};

/// Resizes a volume to `new_shape` voxels; the result stays within the smallest and the largest value of the volume.
///
/// # Shapes and units
/// `image` is `[z, y, x]` in any unit; the result has the extents of `new_shape` and the same unit.
///
/// # Errors
/// [`ResampleError::EmptyAxis`] or [`ResampleError::TooLarge`] for grids that cannot be.
///
/// # Reference
/// `skimage.transform.resize(image, new_shape, order, mode="edge", anti_aliasing=False)` of scikit-image 0.26, to 1e-6 of
/// the largest value. Cubic B-splines: Unser, IEEE Signal Process. Mag. 16(6), 1999, doi:10.1109/79.799930.
pub fn resize_image(
    image: ArrayView3<'_, f32>,
    new_shape: [usize; 3],
    order: Order,
) -> Result<Array3<f32>, ResampleError> {
    check_shapes(image.dim().into(), new_shape)?;
    let mut resized = resize_axes(image, new_shape, order);
    clip(resized.view_mut(), range(image), order);
    Ok(resized)
}

/// Resamples one channel whose shapes have been checked, the axis `apart` on its own.
pub(super) fn resample_channel(
    channel: ArrayView3<'_, f32>,
    new_shape: [usize; 3],
    apart: Option<usize>,
    options: &ResampleOptions,
) -> Array3<f32> {
    let Some(apart) = apart else {
        let mut resized = resize_axes(channel, new_shape, options.order);
        clip(resized.view_mut(), range(channel), options.order);
        return resized;
    };
    let mut thinned: [usize; 3] = channel.dim().into();
    if options.order_z == Order::Nearest && new_shape[apart] < thinned[apart] {
        // Slices that nothing is taken from need not be resized first.
        thinned[apart] = new_shape[apart];
        let kept = resize_axes(channel, thinned, Order::Nearest);
        return resize_slices(kept.view(), new_shape, apart, options.order);
    }
    let slices = resize_slices(channel, new_shape, apart, options.order);
    resize_axes(slices.view(), new_shape, options.order_z)
}

/// Resizes each slice across `apart`; each stays within its own smallest and largest value.
fn resize_slices(volume: ArrayView3<'_, f32>, mut new_shape: [usize; 3], apart: usize, order: Order) -> Array3<f32> {
    new_shape[apart] = volume.len_of(Axis(apart));
    let mut resized = resize_axes(volume, new_shape, order);
    for (slice, source) in resized.axis_chunks_iter_mut(Axis(apart), 1).zip(volume.axis_chunks_iter(Axis(apart), 1)) {
        clip(slice, range(source), order);
    }
    resized
}

/// Resizes the axes whose extent changes.
///
/// The two axes of a slice are done together, slice after slice, so that only one volume lies between the first axis and
/// the other two: writing to fresh memory costs about as much as the arithmetic.
fn resize_axes(volume: ArrayView3<'_, f32>, [depth, height, width]: [usize; 3], order: Order) -> Array3<f32> {
    let (_, old_height, old_width) = volume.dim();
    let slices_shrink = height * width < old_height * old_width;
    if slices_shrink {
        let slices = resize_planes(CowArray::from(volume), [height, width], order);
        resize_depth(slices, depth, order).into_owned()
    } else {
        let deep = resize_depth(CowArray::from(volume), depth, order);
        resize_planes(deep, [height, width], order).into_owned()
    }
}

fn resize_depth(volume: CowArray<'_, f32, Ix3>, extent: usize, order: Order) -> CowArray<'_, f32, Ix3> {
    let (depth, height, width) = volume.dim();
    if depth == extent {
        return volume;
    }
    let pass = Pass::new(depth, extent, order);
    let plane = height * width;
    let volume = volume.as_standard_layout();
    let input = volume.as_slice().expect("invariant: standard layout");
    let mut output = Array2::zeros((extent, plane));
    let blocks = output.axis_chunks_iter_mut(Axis(1), LANES).into_par_iter().enumerate();
    blocks.for_each_init(Vec::new, |block, (index, columns)| {
        pass.column_block(block, input, columns, plane, index * LANES);
    });
    let resized = output.into_shape_with_order((extent, height, width));
    resized.expect("invariant: a plane is height times width").into()
}

fn resize_planes(
    volume: CowArray<'_, f32, Ix3>,
    [new_height, new_width]: [usize; 2],
    order: Order,
) -> CowArray<'_, f32, Ix3> {
    let (depth, height, width) = volume.dim();
    let passes = PlanePasses {
        along_y: (height != new_height).then(|| Pass::new(height, new_height, order)),
        along_x: (width != new_width).then(|| Pass::new(width, new_width, order)),
        // What shrinks more comes first, so that the other has less to do.
        y_first: new_height * width <= new_width * height,
        width,
        new_width,
    };
    if passes.along_y.is_none() && passes.along_x.is_none() {
        return volume;
    }
    let volume = volume.as_standard_layout();
    let input = volume.as_slice().expect("invariant: standard layout");
    let mut output = Array3::zeros((depth, new_height, new_width));
    let planes = output.as_slice_mut().expect("invariant: standard layout").par_chunks_mut(new_height * new_width);
    planes.zip(input.par_chunks(height * width)).for_each_init(Scratch::default, |scratch, (output, input)| {
        passes.run(scratch, input, output);
    });
    output.into()
}

/// What one worker writes to in passing.
#[derive(Default)]
struct Scratch {
    block: Vec<Samples>,
    plane: Vec<f32>,
}

/// The one or two passes that a slice goes through.
struct PlanePasses {
    along_y: Option<Pass>,
    along_x: Option<Pass>,
    y_first: bool,
    width: usize,
    new_width: usize,
}

impl PlanePasses {
    fn run(&self, Scratch { block, plane }: &mut Scratch, input: &[f32], output: &mut [f32]) {
        match (&self.along_y, &self.along_x) {
            (Some(along_y), None) => along_y.columns(block, input, output, self.width),
            (None, Some(along_x)) => along_x.rows(block, input, output),
            (Some(along_y), Some(along_x)) if self.y_first => {
                plane.resize(output.len() / self.new_width * self.width, 0.0);
                along_y.columns(block, input, plane, self.width);
                along_x.rows(block, plane, output);
            }
            (Some(along_y), Some(along_x)) => {
                plane.resize(input.len() / self.width * self.new_width, 0.0);
                along_x.rows(block, input, plane);
                along_y.columns(block, plane, output, self.new_width);
            }
            (None, None) => output.copy_from_slice(input),
        }
    }
}

/// The smallest and the largest value.
pub(super) fn range(volume: ArrayView3<'_, f32>) -> (f32, f32) {
    let nothing = || (f32::INFINITY, f32::NEG_INFINITY);
    let widen = |(low, high): (f32, f32), row: ArrayView1<'_, f32>| {
        row.iter().fold((low, high), |(low, high), &value| (low.min(value), high.max(value)))
    };
    let merge = |first: (f32, f32), second: (f32, f32)| (first.0.min(second.0), first.1.max(second.1));
    let (low, high) = Zip::from(volume.rows()).par_fold(nothing, widen, merge);
    // Which of 0.0 and -0.0 is the smaller would depend on how the rows were shared out; adding 0.0 makes both 0.0.
    (low + 0.0, high + 0.0)
}

/// Brings a cubic spline's overshoots back into the range; the other orders have none.
fn clip(mut volume: ArrayViewMut3<'_, f32>, (low, high): (f32, f32), order: Order) {
    if order != Order::Nearest && low <= high {
        volume.par_map_inplace(|value| *value = value.clamp(low, high));
    }
}
