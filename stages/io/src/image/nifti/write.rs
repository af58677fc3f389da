//! Writing of NIfTI files.

use std::io::{self, Write};

use ::nifti::{Endianness, NiftiType, Unit, XForm};
use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::ArrayView4;

use super::header::{Contents, NO_EXTENSION, NiftiHeader};
use crate::image::geometry::Geometry;
use crate::image::voxels::{self, StoredKind, Voxel};

/// Level of compression; higher ones cost more time than they save bytes on labels.
const COMPRESSION: Compression = Compression::new(4);
/// `xyzt_units`: millimetres and seconds.
const UNITS: u8 = Unit::Mm as u8 | Unit::Sec as u8;

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
    let rank = match (header.fields().dim[0], depth, channels) {
        (_, _, 2..) => 4,
        (2, 1, _) => 2,
        _ => 3,
    };
    let dim = [rank, width, height, depth, channels, 1, 1, 1];
    header.describe(&Contents { dim, data_type: data_type(kind) });
    Ok(header)
}

/// A little-endian NIfTI-1 header that says where this grid lies.
fn new_header(geometry: &Geometry) -> NiftiHeader {
    let [z, y, x] = geometry.spacing.values();
    // From left, back, up to right, front, up.
    let row = |row: usize, sign: f64| {
        let column = |axis: usize, distance: f64| sign * geometry.direction[3 * row + axis] * distance;
        [column(0, x), column(1, y), column(2, z), sign * geometry.origin[row]].map(|entry| entry as f32)
    };
    ::nifti::NiftiHeader {
        endianness: Endianness::Little,
        pixdim: [1.0, x, y, z, 1.0, 1.0, 1.0, 1.0].map(|distance| distance as f32),
        xyzt_units: UNITS,
        qform_code: XForm::Unknown as i16,
        sform_code: XForm::ScannerAnat as i16,
        srow_x: row(0, -1.0),
        srow_y: row(1, -1.0),
        srow_z: row(2, 1.0),
        ..::nifti::NiftiHeader::default()
    }
    .into()
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
    file.write_all(&header.bytes())?;
    file.write_all(&NO_EXTENSION)?;
    voxels::write(file, voxels, kind, header.is_big_endian())
}

fn data_type(kind: StoredKind) -> NiftiType {
    match kind {
        StoredKind::U8 => NiftiType::Uint8,
        StoredKind::I8 => NiftiType::Int8,
        StoredKind::U16 => NiftiType::Uint16,
        StoredKind::I16 => NiftiType::Int16,
        StoredKind::U32 => NiftiType::Uint32,
        StoredKind::I32 => NiftiType::Int32,
        StoredKind::U64 => NiftiType::Uint64,
        StoredKind::I64 => NiftiType::Int64,
        StoredKind::F32 => NiftiType::Float32,
        StoredKind::F64 => NiftiType::Float64,
    }
}
