//! Where a NIfTI file says that its voxels lie, as SimpleITK 2.5.7 (ITK 5.4) understands it.
//!
//! A file may carry two transforms, `qform` (a rotation) and `sform` (any affine map), from voxels to millimetres to the
//! right, to the front and up; ITK counts to the left and to the back, and knows rotations only.

use ::nifti::Unit;

use super::header::Fields;
use crate::image::geometry::Geometry;

/// `sform_code` of a transform into the scanner's own coordinates, which ITK prefers to a `qform`.
const SCANNER: i32 = ::nifti::XForm::ScannerAnat as i32;
/// Cosine of two axes of an `sform` from which on ITK calls them sheared.
const MOST_SHEAR: f64 = 1e-3;

/// Columns of a matrix from axes x, y, z of the file to right, front, up, and where the first voxel lies.
type Frame = ([[f64; 3]; 3], [f64; 3]);

/// Distance between voxels along the file's axes x, y, z in millimetres.
pub(super) fn spacing(fields: &Fields) -> [f64; 3] {
    let millimetres = match fields.unit {
        Some(Unit::Meter) => 1e3,
        Some(Unit::Micron) => 1e-3,
        _ => 1.0,
    };
    std::array::from_fn(|axis| {
        let size = fields.pixdim[axis + 1].abs();
        let usable = size.is_finite() && size > 0.0;
        if usable { size * millimetres } else { 1.0 }
    })
}

/// Origin and direction in ITK's coordinates.
pub(super) fn placement(fields: &Fields) -> ([f64; 3], [f64; 9]) {
    let Some((columns, offset)) = frame(fields) else {
        // Without a transform ITK takes the file's axes for its own, turned round where a size is negative.
        let mut direction = Geometry::IDENTITY;
        for axis in 0..3 {
            direction[4 * axis] = if fields.pixdim[axis + 1] < 0.0 { -1.0 } else { 1.0 };
        }
        return ([0.0; 3], direction);
    };
    let turned = [-1.0, -1.0, 1.0];
    let direction = std::array::from_fn(|entry| turned[entry / 3] * columns[entry % 3][entry / 3]);
    (std::array::from_fn(|axis| turned[axis] * offset[axis]), direction)
}

/// The transform that ITK chooses, with columns of length 1.
fn frame(fields: &Fields) -> Option<Frame> {
    let (qform, sform) = (fields.qform_code > 0, fields.sform_code);
    let from_sform = || (sform > 0).then(|| sform_frame(fields)).flatten();
    let prefers_sform = sform == SCANNER || !qform;
    match from_sform() {
        Some(frame) if prefers_sform && (is_orthogonal(&frame.0) || !qform) => Some(frame),
        _ if qform => qform_frame(fields),
        other => other,
    }
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
