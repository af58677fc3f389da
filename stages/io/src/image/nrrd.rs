//! NRRD (`.nrrd`, `.nhdr`): lines `field: value` up to an empty one.
//!
//! <https://teem.sourceforge.net/nrrd/format.html>. An axis that is none of space (`kinds`, or `none` among the `space
//! directions`) makes channels; it may be the first axis, as for vectors, or the last, as for lists of volumes.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::ArrayView4;

use super::error::ReadErrorKind;
use super::geometry::Geometry;
use super::source::{Encoding, Source};
use super::text::{Axes, Described, numbers};
use super::voxels::{self, Layout, StoredKind, Voxel};

/// Lines after which a header must have ended.
const MOST_LINES: usize = 10_000;

/// Names of number types; the first of a kind is the one to write.
const TYPES: [(StoredKind, &[&str]); 10] = [
    (StoredKind::U8, &["uint8", "uint8_t", "uchar", "unsigned char"]),
    (StoredKind::I8, &["int8", "int8_t", "signed char"]),
    (StoredKind::U16, &["uint16", "uint16_t", "ushort", "unsigned short", "unsigned short int"]),
    (StoredKind::I16, &["int16", "int16_t", "short", "short int", "signed short", "signed short int"]),
    (StoredKind::U32, &["uint32", "uint32_t", "uint", "unsigned int"]),
    (StoredKind::I32, &["int32", "int32_t", "int", "signed int"]),
    (StoredKind::U64, &["uint64", "uint64_t", "ulonglong", "unsigned long long", "unsigned long long int"]),
    (StoredKind::I64, &["int64", "int64_t", "longlong", "long long", "long long int", "signed long long"]),
    (StoredKind::F32, &["float"]),
    (StoredKind::F64, &["double"]),
];

/// Parses the header and leaves `source` at the voxels if they follow.
pub(super) fn parse(source: &mut Source) -> Result<Described, ReadErrorKind> {
    let fields = Fields::read(source)?;
    let rank: usize = fields.one("dimension")?;
    let sizes: Vec<usize> = numbers("sizes", fields.required("sizes")?)?;
    if !(2..=4).contains(&rank) || sizes.len() != rank || sizes.contains(&0) {
        return Err(wrong("sizes", "2 to 4 extents above 0, one for each dimension", fields.required("sizes")?));
    }
    let directions = fields.get("space directions").map(vectors).transpose()?;
    let channel_axis = channel_axis(&fields, rank, directions.as_deref())?;
    let channels = channel_axis.map_or(1, |axis| sizes[axis]);
    let geometry = geometry(&fields, &sizes, channel_axis, directions)?;
    let [depth, height, width] = geometry.shape;
    let type_name = fields.required("type")?;
    let kind = TYPES.iter().find(|(_, names)| names.contains(&type_name)).map(|(kind, _)| *kind);
    let layout = Layout {
        shape: [channels, depth, height, width],
        kind: kind.ok_or_else(|| wrong("type", "a type of real numbers", type_name))?,
        big_endian: fields.get("endian").is_some_and(|endian| endian.eq_ignore_ascii_case("big")),
        interleaved: channel_axis == Some(0),
        scaling: None,
    };
    let data_file = fields.get("data file").or_else(|| fields.get("datafile"));
    if data_file.is_some_and(|name| name.starts_with("LIST") || name.contains('%')) {
        return Err(unsupported("a NRRD of several data files"));
    }
    let skipped: i64 = fields
        .get("byte skip")
        .or_else(|| fields.get("byteskip"))
        .map_or(Ok(0), |text| text.parse().map_err(|_| wrong("byte skip", "a number", text)))?;
    let lines: usize = fields
        .get("line skip")
        .or_else(|| fields.get("lineskip"))
        .map_or(Ok(0), |text| text.parse().map_err(|_| wrong("line skip", "a number", text)))?;
    Ok(Described {
        layout,
        geometry,
        encoding: encoding(fields.required("encoding")?)?,
        data_file: data_file.map(str::to_owned),
        skipped_lines: lines.min(MOST_LINES),
        skipped_bytes: u64::try_from(skipped).ok(),
    })
}

fn encoding(name: &str) -> Result<Encoding, ReadErrorKind> {
    match name {
        "raw" => Ok(Encoding::Raw),
        "gzip" | "gz" => Ok(Encoding::Gzip),
        other => Err(unsupported(&format!("NRRD encoding `{other}`"))),
    }
}

/// The axis that is none of space; of four axes without a word about them the last.
fn channel_axis(
    fields: &Fields,
    rank: usize,
    directions: Option<&[Option<[f64; 3]>]>,
) -> Result<Option<usize>, ReadErrorKind> {
    let kinds: Vec<&str> = fields.get("kinds").map(|kinds| kinds.split_whitespace().collect()).unwrap_or_default();
    let outside_space = |axis: usize| {
        let by_direction = directions.and_then(|directions| directions.get(axis)).is_some_and(Option::is_none);
        let by_kind = kinds.get(axis).is_some_and(|kind| !matches!(*kind, "domain" | "space" | "???" | "none"));
        by_direction || by_kind
    };
    let found: Vec<usize> = (0..rank).filter(|&axis| outside_space(axis)).collect();
    match found[..] {
        [] if rank == 4 => Ok(Some(3)),
        [] => Ok(None),
        [axis] if axis == 0 || axis == rank - 1 => Ok(Some(axis)),
        _ => Err(unsupported("a NRRD whose channels are neither its first nor its last axis")),
    }
}

fn geometry(
    fields: &Fields,
    sizes: &[usize],
    channel_axis: Option<usize>,
    directions: Option<Vec<Option<[f64; 3]>>>,
) -> Result<Geometry, ReadErrorKind> {
    let spatial: Vec<usize> = (0..sizes.len()).filter(|&axis| Some(axis) != channel_axis).collect();
    let signs = signs(fields.get("space").unwrap_or("left-posterior-superior"));
    let turn = |vector: [f64; 3]| std::array::from_fn(|axis| signs[axis] * vector[axis]);
    let spacings = fields.get("spacings").map(|text| numbers::<f64>("spacings", text)).transpose()?;
    let columns = spatial.iter().enumerate().map(|(place, &axis)| {
        match (&directions, &spacings) {
            (Some(directions), _) => directions.get(axis).copied().flatten().map(turn),
            (None, Some(spacings)) => spacings.get(axis).map(|spacing| unit(place, spacing.abs())),
            (None, None) => Some(unit(place, 1.0)),
        }
        .ok_or_else(|| {
            wrong("space directions", "a vector for each axis", fields.get("space directions").unwrap_or(""))
        })
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let origin = fields.get("space origin").map(vectors).transpose()?;
    let origin = origin.and_then(|vectors| vectors.first().copied().flatten()).unwrap_or_default();
    let extents = spatial.iter().map(|&axis| sizes[axis]).collect();
    Axes { extents, columns, origin: turn(origin) }.geometry("space directions")
}

/// An axis of space with a length; NaN, as teem writes for unknown spacings, counts as 1.
fn unit(axis: usize, length: f64) -> [f64; 3] {
    let length = if length.is_nan() { 1.0 } else { length };
    std::array::from_fn(|row| if row == axis { length } else { 0.0 })
}

/// What turns the axes of a space to the left, to the back and up.
fn signs(space: &str) -> [f64; 3] {
    match space.to_ascii_lowercase().as_str() {
        "right-anterior-superior" | "ras" => [-1.0, -1.0, 1.0],
        "left-anterior-superior" | "las" => [1.0, -1.0, 1.0],
        _ => [1.0; 3],
    }
}

/// Vectors such as `(1,0,0) none (0,0,2)`; those of two numbers get a third, 0.
fn vectors(text: &str) -> Result<Vec<Option<[f64; 3]>>, ReadErrorKind> {
    let refuse = || wrong("space directions", "vectors such as `(1,0,0)`, or `none`", text);
    let mut vectors = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("none") {
            vectors.push(None);
            rest = after.trim_start();
            continue;
        }
        let (inside, after) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(refuse)?;
        let parsed: Option<Vec<f64>> = inside.split(',').map(|number| number.trim().parse().ok()).collect();
        vectors.push(Some(match parsed.as_deref() {
            Some(&[x, y]) => [x, y, 0.0],
            Some(&[x, y, z]) => [x, y, z],
            _ => return Err(refuse()),
        }));
        rest = after.trim_start();
    }
    Ok(vectors)
}

/// The lines of a header; keys without regard to case.
struct Fields(HashMap<String, String>);

impl Fields {
    fn read(source: &mut Source) -> Result<Self, ReadErrorKind> {
        let refuse = |expected: &str, found: &str| ReadErrorKind::NotThisFormat {
            format: "NRRD",
            expected: expected.to_owned(),
            found: found.chars().take(60).collect(),
        };
        let first = source.line()?.unwrap_or_default();
        if !first.starts_with("NRRD000") {
            return Err(refuse("a first line `NRRD0004`", &first));
        }
        let mut fields = HashMap::new();
        for _ in 0..MOST_LINES {
            // A detached header may end with the file.
            let Some(line) = source.line()?.filter(|line| !line.is_empty()) else { break };
            if line.starts_with('#') || line.contains(":=") {
                continue;
            }
            let (key, value) = line.split_once(':').ok_or_else(|| refuse("lines `field: value`", &line))?;
            fields.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
        Ok(Self(fields))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &'static str) -> Result<&str, ReadErrorKind> {
        self.get(name).ok_or_else(|| wrong(name, "a value", "nothing"))
    }

    fn one<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, ReadErrorKind> {
        let text = self.required(name)?;
        text.parse().map_err(|_| wrong(name, "a number", text))
    }
}

fn wrong(field: &'static str, expected: &str, found: &str) -> ReadErrorKind {
    ReadErrorKind::Header { field, expected: expected.to_owned(), found: found.chars().take(60).collect() }
}

fn unsupported(what: &str) -> ReadErrorKind {
    ReadErrorKind::Unsupported { what: what.to_owned(), hint: "write it as one raw or gzip `.nrrd` file" }
}

/// Writes a compressed `.nrrd` file.
pub(super) fn write<T: Voxel>(
    file: &mut dyn Write,
    geometry: &Geometry,
    voxels: ArrayView4<'_, T>,
    kind: StoredKind,
) -> io::Result<()> {
    let channels = voxels.dim().0;
    let [depth, height, width] = geometry.shape;
    let [z, y, x] = geometry.spacing.values();
    let axes: Vec<String> = [x, y, z]
        .iter()
        .enumerate()
        .map(|(axis, spacing)| {
            let [left, back, up] = [0, 3, 6].map(|row| geometry.direction[row + axis] * spacing);
            format!("({left},{back},{up})")
        })
        .collect();
    let [left, back, up] = geometry.origin;
    let names = TYPES.iter().find(|(known, _)| *known == kind).map_or("", |(_, names)| names[0]);
    let (rank, size, direction, axis) = match channels {
        1 => (3, String::new(), "", ""),
        _ => (4, format!("{channels} "), "none ", "vector "),
    };
    write!(
        file,
        "NRRD0004\ntype: {names}\ndimension: {rank}\nspace: left-posterior-superior\n\
         sizes: {size}{width} {height} {depth}\nspace directions: {direction}{}\nkinds: {axis}domain domain domain\n\
         endian: little\nencoding: gzip\nspace origin: ({left},{back},{up})\n\n",
        axes.join(" "),
    )?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    voxels::write(&mut encoder, voxels.permuted_axes([1, 2, 3, 0]), kind, false)?;
    encoder.finish().map(drop)
}
