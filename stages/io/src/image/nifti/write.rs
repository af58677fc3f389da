//! Writing of NIfTI files.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::ArrayView4;

use super::header::{
    BITPIX, CAL_MAX, CAL_MIN, DATATYPE, DIM, Field, INTENT_CODE, NiftiHeader, PIXDIM, SCL_INTER, SCL_SLOPE, SFORM_CODE,
    SROW, VOX_OFFSET, XYZT_UNITS,
};
use crate::image::geometry::Geometry;
use crate::image::voxels::{self, StoredKind, Voxel};

/// Bytes behind the header that say that no extension follows.
const NO_EXTENSION: [u8; 4] = [0; 4];
/// Level of compression; higher ones cost more time than they save bytes on labels.
const COMPRESSION: Compression = Compression::new(4);
/// `xyzt_units`: millimetres and seconds.
const UNITS: f64 = 10.0;

/// The header of a file of this kind of voxels on this grid: that of the image it belongs to where there is one.
pub(in crate::image) fn header_for(
    geometry: &Geometry,
    channels: usize,
    kind: StoredKind,
) -> Result<NiftiHeader, String> {
    let mut header = geometry.nifti.clone().unwrap_or_else(|| new_header(geometry));
    let [depth, height, width] = geometry.shape;
    let extents = [width, height, depth, channels];
    if let Some(extent) = extents.into_iter().find(|&extent| extent > header.largest_extent()) {
        return Err(format!("NIfTI-1 holds at most {} voxels along an axis, found {extent}", header.largest_extent()));
    }
    let rank = match (header.integer(DIM, 0), depth, channels) {
        (_, _, 2..) => 4.0,
        (2, 1, _) => 2.0,
        _ => 3.0,
    };
    header.set(DIM, 0, rank);
    for axis in 0..7 {
        header.set(DIM, axis + 1, extents.get(axis).map_or(1.0, |&extent| extent as f64));
    }
    let (datatype, bits) = (datatype(kind), 8 * kind.width());
    let offset = header.bytes().len() + NO_EXTENSION.len();
    let fields: [(Field, f64); 8] = [
        (DATATYPE, datatype),
        (BITPIX, bits as f64),
        (VOX_OFFSET, offset as f64),
        (SCL_SLOPE, 1.0),
        (SCL_INTER, 0.0),
        (CAL_MAX, 0.0),
        (CAL_MIN, 0.0),
        (INTENT_CODE, 0.0),
    ];
    for (field, value) in fields {
        header.set(field, 0, value);
    }
    header.make_single_file();
    Ok(header)
}

/// A header that says where this grid lies.
fn new_header(geometry: &Geometry) -> NiftiHeader {
    let mut header = NiftiHeader::empty();
    let [z, y, x] = geometry.spacing.values();
    let spacing = [x, y, z];
    header.set(PIXDIM, 0, 1.0);
    for axis in 0..7 {
        header.set(PIXDIM, axis + 1, spacing.get(axis).copied().unwrap_or(1.0));
    }
    header.set(XYZT_UNITS, 0, UNITS);
    header.set(SFORM_CODE, 0, 1.0);
    // From left, back, up to right, front, up.
    for (row, sign) in [-1.0, -1.0, 1.0].into_iter().enumerate() {
        for (column, distance) in spacing.into_iter().enumerate() {
            header.set(SROW, 4 * row + column, sign * geometry.direction[3 * row + column] * distance);
        }
        header.set(SROW, 4 * row + 3, sign * geometry.origin[row]);
    }
    header
}

/// Writes header and voxels `[c, z, y, x]`.
pub(in crate::image) fn write<T: Voxel>(
    file: &mut dyn Write,
    header: &NiftiHeader,
    voxels: ArrayView4<'_, T>,
    kind: StoredKind,
    compressed: bool,
) -> io::Result<()> {
    if !compressed {
        return write_plain(file, header, voxels, kind);
    }
    let mut encoder = GzEncoder::new(file, COMPRESSION);
    write_plain(&mut encoder, header, voxels, kind)?;
    encoder.finish().map(drop)
}

fn write_plain<T: Voxel>(
    file: &mut dyn Write,
    header: &NiftiHeader,
    voxels: ArrayView4<'_, T>,
    kind: StoredKind,
) -> io::Result<()> {
    file.write_all(header.bytes())?;
    file.write_all(&NO_EXTENSION)?;
    voxels::write(file, voxels, kind, header.big_endian)
}

fn datatype(kind: StoredKind) -> f64 {
    match kind {
        StoredKind::U8 => 2.0,
        StoredKind::I16 => 4.0,
        StoredKind::I32 => 8.0,
        StoredKind::F32 => 16.0,
        StoredKind::F64 => 64.0,
        StoredKind::I8 => 256.0,
        StoredKind::U16 => 512.0,
        StoredKind::U32 => 768.0,
        StoredKind::I64 => 1024.0,
        StoredKind::U64 => 1280.0,
    }
}
