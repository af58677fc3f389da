//! Where the voxels of a patch come from.

use nnflow_kernels::spatial::{Displacement, SpatialMap};
use tch::{Kind, Tensor};

use crate::device::Device;
use crate::error::TorchError;
use crate::shim::upload;

/// Positions in the source, for each axis that is sampled along: z, y and x, or y and x where slices are sampled each on its
/// own and all alike.
pub(super) struct Positions {
    /// The voxel at or before each position: 64-bit, `[voxel of the patch]`.
    pub(super) whole: Vec<Tensor>,
    /// How far each position is beyond that voxel, `0..1`, of 32 bits.
    pub(super) fraction: Vec<Tensor>,
}

impl Positions {
    /// The positions of a patch; in-plane of one of its slices, which the extents along z then do not matter for.
    pub(super) fn new(
        map: &SpatialMap,
        patch: [usize; 3],
        source: [usize; 3],
        device: Device,
    ) -> Result<Self, TorchError> {
        let slice = |[z, y, x]: [usize; 3]| if map.in_plane { [1, y, x] } else { [z, y, x] };
        let (patch, source) = (slice(patch), slice(source));
        // An affine position is computed in 64 bits: it shall not depend on how far it is from the centre. With a
        // displacement, of 32 bits itself, it is computed in 32.
        let kind = if map.displacement.is_some() { Kind::Float } else { Kind::Double };
        let mut centred = (0..3).map(|axis| centred(patch, axis, kind, device)).collect::<Result<Vec<_>, _>>()?;
        if let Some(displacement) = &map.displacement {
            let moves = displaced(displacement, patch, device)?;
            for (axis, position) in (0..).zip(&mut centred) {
                *position = moves.f_select(0, axis)?.f_add(position)?;
            }
        }
        let (mut whole, mut fraction) = (Vec::new(), Vec::new());
        for (axis, row) in map.affine.rows().into_iter().enumerate().skip(usize::from(map.in_plane)) {
            let [z, y, x] = [0, 1, 2].map(|other| centred[other].f_mul_scalar(rounded(row[other], kind)));
            let centre = (source[axis] as f64 - 1.0) / 2.0;
            let position = z?.f_add(&y?)?.f_add(&x?)?.f_add_scalar(centre)?.f_flatten(0, -1)?;
            let before = position.f_floor()?;
            fraction.push(position.f_sub(&before)?.f_to_kind(Kind::Float)?);
            whole.push(before.f_to_kind(Kind::Int64)?);
        }
        Ok(Self { whole, fraction })
    }
}

/// A number as a tensor of this kind holds it.
fn rounded(value: f64, kind: Kind) -> f64 {
    if kind == Kind::Float { f64::from(value as f32) } else { value }
}

/// Positions along an axis, from the centre of the patch; they spread over the other axes when they are added.
fn centred(patch: [usize; 3], axis: usize, kind: Kind, device: Device) -> Result<Tensor, TorchError> {
    let mut shape = [1; 3];
    shape[axis] = patch[axis] as i64;
    let index = Tensor::f_arange(shape[axis], (kind, device.torch()))?;
    Ok(index.f_sub_scalar((patch[axis] as f64 - 1.0) / 2.0)?.f_view(shape)?)
}

/// The displacement of each voxel of a patch along each axis, `[3, z, y, x]`.
fn displaced(displacement: &Displacement, patch: [usize; 3], device: Device) -> Result<Tensor, TorchError> {
    let nodes = displacement.nodes();
    let shape: Vec<i64> = std::iter::once(3).chain(nodes[0].shape().iter().map(|&extent| extent as i64)).collect();
    let values: Vec<f32> = nodes.iter().flatten().copied().collect();
    let mut field = upload(&values, &shape, device)?;
    // In the order of the kernels on the CPU: y, z, x.
    for axis in [2, 1, 3] {
        field = between_nodes(&field, axis, patch[axis as usize - 1], displacement.step())?;
    }
    Ok(field)
}

/// Interpolates linearly from nodes that are `step` voxels apart to `length` voxels.
fn between_nodes(field: &Tensor, axis: i64, length: usize, step: usize) -> Result<Tensor, TorchError> {
    let (last, step) = (field.size()[axis as usize] - 1, step as i64);
    let voxel = Tensor::f_arange(length as i64, (Kind::Int64, field.device()))?;
    let node = voxel.f_floor_divide_scalar(step)?.f_clamp_max(last)?;
    let from = field.f_index_select(axis, &node)?;
    let to = field.f_index_select(axis, &node.f_add_scalar(1_i64)?.f_clamp_max(last)?)?;
    let mut shape = [1; 4];
    shape[axis as usize] = length as i64;
    let fraction = voxel.f_remainder(step)?.f_to_kind(Kind::Float)?.f_div_scalar(step)?.f_view(shape)?;
    Ok(to.f_sub(&from)?.f_mul(&fraction)?.f_add(&from)?)
}
