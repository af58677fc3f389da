//! Reading of NIfTI files.

use std::path::{Path, PathBuf};

use ::nifti::NiftiType;
use nnflow_kernels::geometry::Spacing;

use super::header::{Fields, NiftiHeader, wrong_dim, wrong_rank};
use super::orientation;
use crate::image::error::ReadErrorKind;
use crate::image::geometry::{DUMMY_SPACING, Geometry};
use crate::image::source::Source;
use crate::image::voxels::{Layout, Scaling, StoredKind};
use crate::image::{Image, ImageHeader};

/// Data type of one bit a voxel, which version 1 names and forbids.
const BITS: i16 = 1;

/// Reads a single file.
pub(in crate::image) fn read_image(path: &Path) -> Result<Image, ReadErrorKind> {
    let mut source = Source::open(path)?;
    let header = NiftiHeader::read(&mut source)?;
    read_voxels(source, header.length() as u64, header)
}

/// Reads header and voxels from the two files of a pair, of which `path` is one.
pub(in crate::image) fn read_pair(path: &Path) -> Result<Image, ReadErrorKind> {
    let header = NiftiHeader::read(&mut Source::open(&partner(path, ".hdr")?)?)?;
    read_voxels(Source::open(&partner(path, ".img")?)?, 0, header)
}

/// Reads the header of a single file.
pub(in crate::image) fn read_header(path: &Path) -> Result<ImageHeader, ReadErrorKind> {
    summary(NiftiHeader::read(&mut Source::open(path)?)?)
}

/// Reads the header of a pair.
pub(in crate::image) fn read_pair_header(path: &Path) -> Result<ImageHeader, ReadErrorKind> {
    read_header(&partner(path, ".hdr")?)
}

/// Reads the voxels of a file of which `done` bytes are read.
fn read_voxels(mut source: Source, done: u64, header: NiftiHeader) -> Result<Image, ReadErrorKind> {
    let layout = layout(&header)?;
    let offset = header.fields().vox_offset;
    let offset = u64::try_from(offset).map_err(|_| ReadErrorKind::Header {
        field: "vox_offset",
        expected: "0 or more".to_owned(),
        found: offset.to_string(),
    })?;
    // Some writers leave the offset 0 in a single file; its voxels follow the header then.
    source.skip(offset.saturating_sub(done))?;
    let voxels = layout.read(&mut source)?;
    source.finish()?;
    let ImageHeader { geometry, kind, scaled, .. } = summary(header)?;
    Ok(Image { voxels, geometry, kind, scaled })
}

fn summary(header: NiftiHeader) -> Result<ImageHeader, ReadErrorKind> {
    let (layout, fields) = (layout(&header)?, header.fields());
    let [channels, depth, height, width] = layout.shape;
    let [x, y, z] = orientation::spacing(&fields);
    // nnU-Net tells 2-D images by a spacing that no slice has.
    let z = if fields.dim[0] == 2 { DUMMY_SPACING * x.max(y) } else { z };
    let spacing = Spacing::new([z, y, x]).map_err(|error| ReadErrorKind::Header {
        field: "pixdim",
        expected: "distances above 0".to_owned(),
        found: error.to_string(),
    })?;
    let (origin, direction) = orientation::placement(&fields);
    let geometry = Geometry { shape: [depth, height, width], spacing, origin, direction, nifti: Some(header) };
    Ok(ImageHeader { channels, geometry, kind: layout.kind, scaled: layout.scaling.is_some() })
}

fn layout(header: &NiftiHeader) -> Result<Layout, ReadErrorKind> {
    let fields = header.fields();
    let (kind, colours) = stored_kind(&fields)?;
    let [channels, depth, height, width] = shape(&fields)?;
    if colours > 1 && channels > 1 {
        return Err(ReadErrorKind::Unsupported {
            what: "a series of colour volumes".to_owned(),
            hint: "store each colour as a file of its own",
        });
    }
    Ok(Layout {
        shape: [channels.max(colours), depth, height, width],
        kind,
        big_endian: header.is_big_endian(),
        interleaved: colours > 1,
        scaling: if colours > 1 { None } else { scaling(&fields) },
    })
}

/// Extents `[c, z, y, x]`; the fourth axis (time) or the fifth (vectors) makes channels.
fn shape(fields: &Fields) -> Result<[usize; 4], ReadErrorKind> {
    let [rank, stored @ ..] = fields.dim;
    let rank = usize::try_from(rank).ok().filter(|rank| (2..=7).contains(rank)).ok_or_else(|| wrong_rank(rank))?;
    let mut extents = [1; 7];
    for (axis, (extent, found)) in extents.iter_mut().zip(stored).enumerate().take(rank) {
        // The NIfTI library takes an extent of 0 for 1 on all axes but the first.
        let found = if axis > 0 && found == 0 { 1 } else { found };
        *extent = usize::try_from(found)
            .ok()
            .filter(|&extent| extent > 0)
            .ok_or_else(|| wrong_dim("extents above 0", format!("{found} for axis {}", axis + 1)))?;
    }
    let [x, y, z, time, vector, ..] = extents;
    let beyond = extents[5..].iter().any(|&extent| extent > 1);
    if beyond || (time > 1 && vector > 1) {
        return Err(wrong_dim("at most one axis of channels beside x, y and z", format!("{:?}", &extents[..rank])));
    }
    Ok([time.max(vector), z, y, x])
}

/// How a voxel is stored, and how many colours it has.
fn stored_kind(fields: &Fields) -> Result<(StoredKind, usize), ReadErrorKind> {
    use NiftiType as Type;
    Ok(match fields.data_type {
        Some(Type::Uint8) => (StoredKind::U8, 1),
        Some(Type::Int16) => (StoredKind::I16, 1),
        Some(Type::Int32) => (StoredKind::I32, 1),
        Some(Type::Float32) => (StoredKind::F32, 1),
        Some(Type::Float64) => (StoredKind::F64, 1),
        Some(Type::Int8) => (StoredKind::I8, 1),
        Some(Type::Uint16) => (StoredKind::U16, 1),
        Some(Type::Uint32) => (StoredKind::U32, 1),
        Some(Type::Int64) => (StoredKind::I64, 1),
        Some(Type::Uint64) => (StoredKind::U64, 1),
        Some(Type::Rgb24) => (StoredKind::U8, 3),
        Some(Type::Rgba32) => (StoredKind::U8, 4),
        None if fields.datatype != BITS => {
            return Err(ReadErrorKind::Header {
                field: "datatype",
                expected: "a data type of the NIfTI standard".to_owned(),
                found: fields.datatype.to_string(),
            });
        }
        None | Some(Type::Complex64 | Type::Float128 | Type::Complex128 | Type::Complex256) => {
            return Err(ReadErrorKind::Unsupported {
                what: format!("voxels of datatype {} (bits, complex or 128-bit numbers)", fields.datatype),
                hint: "convert the file to real numbers of at most 64 bits",
            });
        }
    })
}

/// Slope and intercept as ITK takes them: what is not a finite number counts as 0, and a slope of 0 as 1.
fn scaling(fields: &Fields) -> Option<Scaling> {
    let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
    let slope = finite(fields.scl_slope);
    let slope = if slope.abs() < f64::EPSILON { 1.0 } else { slope };
    let intercept = finite(fields.scl_inter);
    (slope != 1.0 || intercept != 0.0).then_some(Scaling { slope, intercept })
}

/// The header (`.hdr`) or the voxels (`.img`) of the pair that `path` belongs to, compressed or not.
fn partner(path: &Path, ending: &str) -> Result<PathBuf, ReadErrorKind> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.strip_suffix(".gz").unwrap_or(name);
    let stem = stem.strip_suffix(".hdr").or_else(|| stem.strip_suffix(".img")).unwrap_or(stem);
    let plain = path.with_file_name(format!("{stem}{ending}"));
    let compressed = path.with_file_name(format!("{stem}{ending}.gz"));
    let found = [plain.clone(), compressed].into_iter().find(|candidate| candidate.is_file());
    found.ok_or(ReadErrorKind::Partner { expected: plain })
}
