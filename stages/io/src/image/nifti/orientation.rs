//! Where a NIfTI file says that its voxels lie, as SimpleITK 2.5.7 (ITK 5.4) understands it.
//!
//! A file may carry two transforms, `qform` (a rotation) and `sform` (any affine map), from voxels to millimetres to the
//! right, to the front and up; ITK counts to the left and to the back, and knows rotations only.

use ::nifti::Unit;

use super::header::Fields;
use crate::image::geometry::Geometry;

/// `sform_code` of a transform into the scanner's own coordinates, which ITK prefers to a `qform`.
const SCANNER: i32 = ::nifti::XForm::ScannerAnat as i32;
/// Difference of directions or of offsets in the file's unit, up to which ITK takes two transforms for the same.
const SIMILAR: f64 = 1e-4;
/// Cosine of two axes of an `sform` from which on ITK calls them sheared.
const MOST_SHEAR: f64 = 1e-3;

/// Columns of a matrix from axes x, y, z of the file to right, front, up, and where the first voxel lies.
type Frame = ([[f64; 3]; 3], [f64; 3]);

/// Distance between voxels along the file's axes x, y, z in millimetres.
pub(super) fn spacing(fields: &Fields) -> [f64; 3] {
    let millimetres = millimetres(fields);
    std::array::from_fn(|axis| {
        let size = fields.pixdim[axis + 1].abs();
        let usable = size.is_finite() && size > 0.0;
        if usable { size * millimetres } else { 1.0 }
    })
}

/// Millimetres in the unit of the file, in which its distances and its origin are.
fn millimetres(fields: &Fields) -> f64 {
    match fields.unit {
        Some(Unit::Meter) => 1e3,
        Some(Unit::Micron) => 1e-3,
        _ => 1.0,
    }
}

/// Origin and direction in ITK's coordinates.
///
/// An axis is turned round where its size is negative. Without a transform ITK takes the file's axes for its own.
pub(super) fn placement(fields: &Fields) -> ([f64; 3], [f64; 9]) {
    let turned = [-1.0, -1.0, 1.0];
    let forth = |axis: usize| if fields.pixdim[axis + 1] < 0.0 { -1.0 } else { 1.0 };
    let Some((columns, offset)) = frame(fields) else {
        let direction = std::array::from_fn(|entry| Geometry::IDENTITY[entry] * forth(entry % 3));
        return ([0.0; 3], direction);
    };
    let direction = std::array::from_fn(|entry| turned[entry / 3] * forth(entry % 3) * columns[entry % 3][entry / 3]);
    let scale = millimetres(fields);
    (std::array::from_fn(|axis| turned[axis] * scale * offset[axis]), direction)
}

/// The transform that ITK chooses, with columns of length 1.
fn frame(fields: &Fields) -> Option<Frame> {
    let has_qform = fields.qform_code > 0;
    let qform = || has_qform.then(|| qform_frame(fields)).flatten();
    let Some(sform) = (fields.sform_code > 0).then(|| sform_frame(fields)).flatten() else { return qform() };
    if !has_qform {
        return Some(sform);
    }
    let chosen = qform().filter(|qform| {
        let preferred = fields.sform_code == SCANNER || are_similar(&sform, qform);
        !(preferred && is_orthogonal(&sform.0))
    });
    Some(chosen.unwrap_or(sform))
}

/// Whether a `qform` is the `sform` but for its rounding, which is the coarser one.
fn are_similar(sform: &Frame, qform: &Frame) -> bool {
    let apart = |first: &[f64; 3], second: &[f64; 3]| first.iter().zip(second).any(|(a, b)| (a - b).abs() > SIMILAR);
    !apart(&sform.1, &qform.1) && !sform.0.iter().zip(&qform.0).any(|(first, second)| apart(first, second))
}

fn sform_frame(fields: &Fields) -> Option<Frame> {
    let mut columns = [[0.0; 3]; 3];
    for (axis, column) in columns.iter_mut().enumerate() {
        let raw: [f64; 3] = fields.srow.map(|row| row[axis]);
        let length = dot(&raw, &raw).sqrt();
        if !length.is_finite() || length == 0.0 {
            return None;
        }
        *column = raw.map(|value| value / length);
    }
    finite((columns, fields.srow.map(|row| row[3])))
}

/// The rotation of a unit quaternion of which the file stores the last three numbers (NIfTI-1 standard, method 2).
fn qform_frame(fields: &Fields) -> Option<Frame> {
    let [mut b, mut c, mut d] = fields.quatern;
    let rest = 1.0 - (b * b + c * c + d * d);
    let mut a = rest.max(0.0).sqrt();
    if rest < 1e-7 {
        // Rounding has left no room for the first number: half a turn.
        let length = (b * b + c * c + d * d).sqrt();
        (a, b, c, d) = (0.0, b / length, c / length, d / length);
    }
    let flip = if fields.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let columns = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c + a * d), 2.0 * (b * d - a * c)],
        [2.0 * (b * c - a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d + a * b)],
        [2.0 * (b * d + a * c), 2.0 * (c * d - a * b), a * a + d * d - b * b - c * c].map(|value| flip * value),
    ];
    finite((columns, fields.qoffset))
}

fn is_orthogonal(columns: &[[f64; 3]; 3]) -> bool {
    let pairs = [(0, 1), (0, 2), (1, 2)];
    pairs.into_iter().all(|(first, second)| dot(&columns[first], &columns[second]).abs() < MOST_SHEAR)
}

fn finite(frame: Frame) -> Option<Frame> {
    let finite = frame.0.iter().flatten().chain(&frame.1).all(|value| value.is_finite());
    finite.then_some(frame)
}

fn dot(first: &[f64; 3], second: &[f64; 3]) -> f64 {
    first.iter().zip(second).map(|(a, b)| a * b).sum()
}
