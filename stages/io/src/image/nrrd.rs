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
    let kind = kind.ok_or_else(|| wrong("type", "a type of real numbers", type_name))?;
    let encoding = encoding(fields.required("encoding")?, kind)?;
    let is_text = matches!(encoding, Encoding::Numbers(_));
    let layout = Layout {
        shape: [channels, depth, height, width],
        kind,
        big_endian: !is_text && fields.get("endian").is_some_and(|endian| endian.eq_ignore_ascii_case("big")),
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
    if skipped < 0 && encoding != Encoding::Raw {
        return Err(wrong("byte skip", "0 or more for compressed voxels", &skipped.to_string()));
    }
    Ok(Described {
        layout,
        geometry,
        encoding,
        data_file: data_file.map(str::to_owned),
        skipped_lines: lines.min(MOST_LINES),
        skipped_bytes: u64::try_from(skipped).ok(),
    })
}

fn encoding(name: &str, kind: StoredKind) -> Result<Encoding, ReadErrorKind> {
    match name {
        "raw" => Ok(Encoding::Raw),
        "gzip" | "gz" => Ok(Encoding::Gzip),
        "ascii" | "text" | "txt" => Ok(Encoding::Numbers(kind)),
        "hex" => Ok(Encoding::Digits),
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
    let signs = signs(fields.get("space").unwrap_or("left-posterior-superior"))?;
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

/// What turns the axes of a space to the left, to the back and up; spaces without a patient are left as they are, as ITK
/// does.
fn signs(space: &str) -> Result<[f64; 3], ReadErrorKind> {
    let name = space.to_ascii_lowercase();
    match name.strip_suffix("-time").unwrap_or(&name) {
        "right-anterior-superior" | "ras" | "rast" => Ok([-1.0, -1.0, 1.0]),
        "left-anterior-superior" | "las" | "last" => Ok([1.0, -1.0, 1.0]),
        "left-posterior-superior" | "lps" | "lpst" | "scanner-xyz" | "3d-right-handed" | "3d-left-handed" => {
            Ok([1.0; 3])
        }
        _ => Err(wrong("space", "a space of the NRRD format, such as `left-posterior-superior`", space)),
    }
}

/// Vectors such as `(1,0,0) none (0,0,2)`; those of two numbers get a third, 0, and the fourth one, of time, is left out.
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
            Some(&[x, y, z] | &[x, y, z, _]) => [x, y, z],
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

/// Values in a row.
fn row<T: std::fmt::Display>(values: &[T], separator: &str) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
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
    // A 2-D image stays one, as nnU-Net writes it.
    let rank = if geometry.is_flat() { 2 } else { 3 };
    let vector = |values: [f64; 3]| format!("({})", row(&values[..rank], ","));
    let axes: Vec<String> = [x, y, z]
        .iter()
        .enumerate()
        .map(|(axis, spacing)| vector([0, 3, 6].map(|row| geometry.direction[row + axis] * spacing)))
        .collect();
    let space = if rank == 2 { "space dimension: 2" } else { "space: left-posterior-superior" };
    let names = TYPES.iter().find(|(known, _)| *known == kind).map_or("", |(_, names)| names[0]);
    let (size, direction, axis) = match channels {
        1 => (String::new(), "", ""),
        _ => (format!("{channels} "), "none ", "vector "),
    };
    write!(
        file,
        "NRRD0004\ntype: {names}\ndimension: {}\n{space}\nsizes: {size}{}\nspace directions: {direction}{}\n\
         kinds: {axis}{}\nendian: little\nencoding: gzip\nspace origin: {}\n\n",
        rank + usize::from(channels > 1),
        row(&[width, height, depth][..rank], " "),
        axes[..rank].join(" "),
        ["domain"; 3][..rank].join(" "),
        vector(geometry.origin),
    )?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    voxels::write(&mut encoder, voxels.permuted_axes([1, 2, 3, 0]), kind, false)?;
    encoder.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::text_tests::{expected_geometry, flat_round_trip, mutate, read, round_trip};

    /// As SimpleITK 2.5.7 writes it.
    const HEADER: &str = "NRRD0004\n# Complete NRRD file format specification at:\n\
        # http://teem.sourceforge.net/nrrd/format.html\ntype: short\ndimension: 3\nspace: left-posterior-superior\n\
        sizes: 3 2 2\nspace directions: (1.6000000000000001,1.2,0) (-1.7999999999999998,2.4000000000000004,0) (0,0,-4)\n\
        kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (5,6,7.5)\n\n";

    fn file(header: &str) -> Vec<u8> {
        header.bytes().chain((0..12_i16).flat_map(i16::to_le_bytes)).collect()
    }

    #[test]
    fn a_file_of_simpleitk_has_its_geometry() {
        let image = read(&[("x.nrrd", &file(HEADER))]).expect("reads");
        assert_eq!(image.geometry.differences(&expected_geometry()), []);
    }

    #[test]
    fn a_space_to_the_right_and_front_is_turned() {
        let header = HEADER
            .replace("left-posterior-superior", "right-anterior-superior")
            .replace("(1.6000000000000001,1.2,0)", "(-1.6,-1.2,0)")
            .replace("(-1.7999999999999998,2.4000000000000004,0)", "(1.8,-2.4,0)")
            .replace("(5,6,7.5)", "(-5,-6,7.5)");
        let image = read(&[("x.nrrd", &file(&header))]).expect("reads");
        assert_eq!(image.geometry.differences(&expected_geometry()), []);
    }

    #[test]
    fn compressed_voxels_are_read() {
        let header = HEADER.replace("encoding: raw", "encoding: gzip");
        // 0 to 11, compressed by SimpleITK.
        let voxels = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x05\xc1\x07\x01\x000\x08\x00 t\xee\xf7\xef+\x10\xd2P\
            \xa6e;\xae\xe7k\xaf\xeaq\xb1\x18\x00\x00\x00";
        let image = read(&[("x.nrrd", &[header.as_bytes(), voxels].concat())]).expect("reads");
        assert_eq!(image.voxels[[0, 1, 1, 2]], 11.0);
    }

    #[test]
    fn a_vector_axis_in_front_becomes_channels() {
        let header = HEADER
            .replace("dimension: 3", "dimension: 4")
            .replace("3 2 2", "2 3 2 1")
            .replace("directions: ", "directions: none ")
            .replace("kinds: ", "kinds: vector ");
        let image = read(&[("x.nrrd", &file(&header))]).expect("reads");
        assert_eq!((image.voxels.dim(), image.voxels[[1, 0, 0, 2]]), ((2, 1, 2, 3), 5.0));
    }

    #[test]
    fn a_list_axis_at_the_end_becomes_channels() {
        let header = HEADER
            .replace("dimension: 3", "dimension: 4")
            .replace("3 2 2", "3 2 1 2")
            .replace("(0,0,-4)", "(0,0,-4) none")
            .replace("domain\nendian", "domain list\nendian");
        let image = read(&[("x.nrrd", &file(&header))]).expect("reads");
        assert_eq!((image.voxels.dim(), image.voxels[[1, 0, 0, 2]]), ((2, 1, 2, 3), 8.0));
    }

    #[test]
    fn a_series_of_simpleitk_has_its_volumes_as_channels() {
        // The header of `sitk.JoinSeries` of two volumes, written by SimpleITK 2.5.7.
        let header = HEADER
            .replace("dimension: 3", "dimension: 4")
            .replace("space: left-posterior-superior", "space dimension: 4")
            .replace("3 2 2", "3 2 1 2")
            .replace(",0) (-1.7", ",0,0) (-1.7")
            .replace(",0) (0,0,-4)", ",0,0) (0,0,-4,0) (0,0,0,1)")
            .replace("domain\nendian", "domain domain\nendian")
            .replace("(5,6,7.5)", "(5,6,7.5,0)");
        let image = read(&[("x.nrrd", &file(&header))]).expect("reads");
        assert_eq!((image.voxels.dim(), image.voxels[[1, 0, 0, 2]]), ((2, 1, 2, 3), 8.0));
        assert_eq!(image.geometry.origin, [5.0, 6.0, 7.5]);
        assert_eq!(
            image.geometry.direction.map(|entry| (10.0 * entry).round()),
            [8.0, -6.0, 0.0, 6.0, 8.0, 0.0, 0.0, 0.0, -10.0]
        );
    }

    #[test]
    fn voxels_written_as_text_are_read() {
        for (encoding, text) in [
            ("ascii", "0 1 2 3 4 5 6 7 8 9 10 11"),
            ("txt", "0\n1\n2,3,4,5,6,7,8,9,10,11\n"),
            ("hex", "0000 0100 0200 0300 0400 0500 0600 0700 0800 0900 0a00\n0B00"),
        ] {
            let header = HEADER.replace("encoding: raw", &format!("encoding: {encoding}"));
            let image = read(&[("x.nrrd", format!("{header}{text}").as_bytes())]).expect("reads");
            assert_eq!(image.voxels.iter().copied().collect::<Vec<_>>(), (0..12_u8).map(f32::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_space_that_the_format_does_not_know_is_refused() {
        let header = HEADER.replace("left-posterior-superior", "right-posterior-superior");
        let error = read(&[("x.nrrd", &file(&header))]).expect_err("teem refuses it too");
        assert!(error.to_string().contains("`space`"), "{error}");
    }

    #[test]
    fn a_flat_image_is_written_with_two_axes() {
        let written = String::from_utf8_lossy(&flat_round_trip(".nrrd")).into_owned();
        assert!(written.contains("\nsizes: 3 2\n") && written.contains("\nspace origin: (5,6)\n"), "{written}");
    }

    #[test]
    fn voxels_may_lie_at_the_end_of_a_second_file() {
        let header = HEADER.replace("encoding: raw", "encoding: raw\nbyte skip: -1\ndata file: x.bin");
        let body: Vec<u8> = [7; 5].into_iter().chain((0..12_i16).flat_map(i16::to_le_bytes)).collect();
        let image = read(&[("x.nhdr", header.as_bytes()), ("x.bin", &body)]).expect("reads");
        assert_eq!(image.voxels[[0, 1, 1, 2]], 11.0);
    }

    #[test]
    fn a_compressed_second_file_is_decompressed_once() {
        use flate2::{Compression, write::GzEncoder};
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Skipped bytes count after decompression.
        let body: Vec<u8> = [7; 5].into_iter().chain((0..12_i16).flat_map(i16::to_le_bytes)).collect();
        std::io::Write::write_all(&mut encoder, &body).expect("into memory");
        let body = encoder.finish().expect("into memory");
        let header = HEADER.replace("encoding: raw", "encoding: gzip\nbyte skip: 5\ndata file: x.raw.gz");
        let image = read(&[("x.nhdr", header.as_bytes()), ("x.raw.gz", &body)]).expect("reads");
        assert_eq!(image.voxels[[0, 1, 1, 2]], 11.0);
    }

    #[test]
    fn a_second_file_in_another_folder_is_refused() {
        let header = HEADER.replace("encoding: raw", "encoding: raw\ndata file: ../x.bin");
        let error = read(&[("x.nhdr", header.as_bytes())]).expect_err("outside");
        assert!(error.to_string().contains("in the header's own folder"), "{error}");
    }

    #[test]
    fn an_unknown_encoding_is_named() {
        let header = HEADER.replace("encoding: raw", "encoding: bzip2");
        let error = read(&[("x.nrrd", &file(&header))]).expect_err("no bzip2");
        assert!(error.to_string().contains("NRRD encoding `bzip2` is not supported"), "{error}");
    }

    #[test]
    fn what_is_written_comes_back() {
        round_trip(".nrrd");
    }

    #[test]
    fn mutated_files_never_panic() {
        mutate("x.nrrd", &file(HEADER));
    }
}
