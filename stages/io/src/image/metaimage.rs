//! MetaImage (`.mha`, `.mhd`): lines `Key = value`, the last of which says where the voxels are.
//!
//! Positions are those of ITK: to the left, to the back, up. A row of `TransformMatrix` is the direction of one axis of
//! the file, so that the matrix is the transpose of ITK's.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use ndarray::ArrayView4;

use super::error::ReadErrorKind;
use super::geometry::Geometry;
use super::source::{Encoding, Source};
use super::text::{Axes, Described, numbers};
use super::voxels::{self, Layout, StoredKind, Voxel};

/// Lines after which a header must have ended.
const MOST_LINES: usize = 1000;

/// Names of number types; the first of a kind is the one to write.
const TYPES: [(&str, StoredKind); 12] = [
    ("MET_UCHAR", StoredKind::U8),
    ("MET_CHAR", StoredKind::I8),
    ("MET_USHORT", StoredKind::U16),
    ("MET_SHORT", StoredKind::I16),
    ("MET_UINT", StoredKind::U32),
    ("MET_INT", StoredKind::I32),
    ("MET_ULONG_LONG", StoredKind::U64),
    ("MET_LONG_LONG", StoredKind::I64),
    ("MET_FLOAT", StoredKind::F32),
    ("MET_DOUBLE", StoredKind::F64),
    ("MET_ULONG", StoredKind::U32),
    ("MET_LONG", StoredKind::I32),
];

/// Parses the header and leaves `source` at the voxels if they follow.
pub(super) fn parse(source: &mut Source) -> Result<Described, ReadErrorKind> {
    let fields = Fields::read(source)?;
    let rank: usize = fields.one("NDims")?;
    let mut extents: Vec<usize> = fields.list("DimSize", rank)?;
    let colours = fields.get("ElementNumberOfChannels").map_or(Ok(1), |_| fields.one("ElementNumberOfChannels"))?;
    let volumes = if rank == 4 { extents.pop().unwrap_or(1) } else { 1 };
    if colours == 0 || extents.contains(&0) || (colours > 1 && volumes > 1) {
        return Err(wrong("DimSize", "extents above 0, with channels along one axis at most", &format!("{extents:?}")));
    }
    let geometry = geometry(&fields, rank, extents)?;
    let data_file = fields.required("ElementDataFile")?;
    if data_file.starts_with("LIST") || data_file.contains('%') {
        return Err(ReadErrorKind::Unsupported {
            what: "a MetaImage of one file for each slice".to_owned(),
            hint: "write it as one `.mha` file",
        });
    }
    let [depth, height, width] = geometry.shape;
    let type_name = fields.required("ElementType")?;
    let kind = TYPES.iter().find(|(name, _)| *name == type_name).map(|(_, kind)| *kind);
    let kind = kind.ok_or_else(|| wrong("ElementType", "a type of real numbers", type_name))?;
    let is_text = fields.get("BinaryData").is_some() && !fields.flag("BinaryData");
    let layout = Layout {
        shape: [colours * volumes, depth, height, width],
        kind,
        big_endian: !is_text && (fields.flag("BinaryDataByteOrderMSB") || fields.flag("ElementByteOrderMSB")),
        interleaved: colours > 1,
        scaling: None,
    };
    let header_size: i64 = fields.get("HeaderSize").map_or(Ok(0), |_| fields.one("HeaderSize"))?;
    Ok(Described {
        layout,
        geometry,
        encoding: match (is_text, fields.flag("CompressedData")) {
            (true, _) => Encoding::Numbers(kind),
            (false, true) => Encoding::Zlib,
            (false, false) => Encoding::Raw,
        },
        data_file: (data_file != "LOCAL").then(|| data_file.to_owned()),
        skipped_lines: 0,
        // -1 means that the voxels are the file's last bytes.
        skipped_bytes: u64::try_from(header_size).ok().or(is_text.then_some(0)),
    })
}

fn geometry(fields: &Fields, rank: usize, extents: Vec<usize>) -> Result<Geometry, ReadErrorKind> {
    let spatial = extents.len();
    let spacing: Vec<f64> = match ["ElementSpacing", "ElementSize"].into_iter().find(|name| fields.get(name).is_some())
    {
        Some(name) => fields.list(name, rank)?,
        None => vec![1.0; rank],
    };
    let matrix = first_of(fields, &["TransformMatrix", "Rotation", "Orientation"], rank * rank)?;
    let offset = first_of(fields, &["Offset", "Position", "Origin"], rank)?;
    let columns = (0..spatial).map(|axis| {
        std::array::from_fn(|row| {
            let cosine = match &matrix {
                Some(matrix) if row < spatial => matrix[axis * rank + row],
                Some(_) => 0.0,
                None => f64::from(u8::from(row == axis)),
            };
            cosine * spacing[axis].abs()
        })
    });
    let origin =
        std::array::from_fn(|axis| offset.as_ref().and_then(|offset| offset.get(axis)).copied().unwrap_or(0.0));
    Axes { extents, columns: columns.collect(), origin }.geometry("ElementSpacing")
}

fn first_of(fields: &Fields, names: &[&'static str], count: usize) -> Result<Option<Vec<f64>>, ReadErrorKind> {
    names.iter().find(|name| fields.get(name).is_some()).map(|name| fields.list(name, count)).transpose()
}

/// The lines of a header.
struct Fields(HashMap<String, String>);

impl Fields {
    fn read(source: &mut Source) -> Result<Self, ReadErrorKind> {
        let mut fields = HashMap::new();
        for _ in 0..MOST_LINES {
            let line = source.line()?;
            let Some((key, value)) = line.as_deref().and_then(|line| line.split_once('=')) else {
                return Err(ReadErrorKind::NotThisFormat {
                    format: "MetaImage",
                    expected: "lines `Key = value` up to `ElementDataFile`".to_owned(),
                    found: line.map_or_else(|| "the end of the file".to_owned(), |line| shorten(&line)),
                });
            };
            let last = key.trim() == "ElementDataFile";
            fields.insert(key.trim().to_owned(), value.trim().to_owned());
            if last {
                break;
            }
        }
        Ok(Self(fields))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    fn required(&self, name: &'static str) -> Result<&str, ReadErrorKind> {
        self.get(name).ok_or_else(|| wrong(name, "a value", "nothing"))
    }

    fn one<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, ReadErrorKind> {
        let text = self.required(name)?;
        text.parse().map_err(|_| wrong(name, "a number", text))
    }

    fn list<T: std::str::FromStr>(&self, name: &'static str, count: usize) -> Result<Vec<T>, ReadErrorKind> {
        let text = self.required(name)?;
        let list = numbers(name, text)?;
        if list.len() == count { Ok(list) } else { Err(wrong(name, &format!("{count} numbers"), text)) }
    }
}

fn wrong(field: &'static str, expected: &str, found: &str) -> ReadErrorKind {
    ReadErrorKind::Header { field, expected: expected.to_owned(), found: shorten(found) }
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Values separated by blanks.
fn row<T: std::fmt::Display>(values: impl Iterator<Item = T>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
}

/// Writes a compressed `.mha` file.
pub(super) fn write<T: Voxel>(
    file: &mut dyn Write,
    geometry: &Geometry,
    voxels: ArrayView4<'_, T>,
    kind: StoredKind,
) -> io::Result<()> {
    let channels = voxels.dim().0;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    voxels::write(&mut encoder, voxels.permuted_axes([1, 2, 3, 0]), kind, false)?;
    let compressed = encoder.finish()?;
    let [depth, height, width] = geometry.shape;
    let [z, y, x] = geometry.spacing.values();
    // A 2-D image stays one, as nnU-Net writes it.
    let rank = if geometry.is_flat() { 2 } else { 3 };
    let matrix = (0..rank * rank).map(|entry| geometry.direction[3 * (entry % rank) + entry / rank]);
    let type_name = TYPES.iter().find(|(_, known)| *known == kind).map_or("MET_OTHER", |(name, _)| name);
    write!(
        file,
        "ObjectType = Image\nNDims = {rank}\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\n\
         CompressedDataSize = {}\nTransformMatrix = {}\nOffset = {}\nCenterOfRotation = {}\nElementSpacing = {}\n\
         DimSize = {}\nElementNumberOfChannels = {channels}\nElementType = {type_name}\nElementDataFile = LOCAL\n",
        compressed.len(),
        row(matrix),
        row(geometry.origin.into_iter().take(rank)),
        row([0; 3].into_iter().take(rank)),
        row([x, y, z].into_iter().take(rank)),
        row([width, height, depth].into_iter().take(rank)),
    )?;
    file.write_all(&compressed)
}

#[cfg(test)]
mod tests {
    use super::super::text_tests::{expected_geometry, flat_round_trip, read, round_trip};

    /// As SimpleITK 2.5.7 writes it.
    const HEADER: &str = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
        CompressedData = False\nTransformMatrix = 0.80000000000000004 0.59999999999999998 0 -0.59999999999999998 \
        0.80000000000000004 0 0 0 -1\nOffset = 5 6 7.5\nCenterOfRotation = 0 0 0\nAnatomicalOrientation = RAS\n\
        ElementSpacing = 2 3 4\nDimSize = 3 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n";

    fn file(header: &str) -> Vec<u8> {
        header.bytes().chain((0..12_i16).flat_map(i16::to_le_bytes)).collect()
    }

    #[test]
    fn a_file_of_simpleitk_has_its_geometry() {
        let image = read(&[("x.mha", &file(HEADER))]).expect("reads");
        assert_eq!(image.geometry.differences(&expected_geometry()), []);
    }

    #[test]
    fn the_files_first_axis_is_our_last() {
        let image = read(&[("x.mha", &file(HEADER))]).expect("reads");
        assert_eq!((image.voxels.dim(), image.voxels[[0, 1, 0, 2]]), ((1, 2, 2, 3), 8.0));
    }

    #[test]
    fn compressed_voxels_are_read() {
        let header = HEADER.replace("CompressedData = False", "CompressedData = True\nCompressedDataSize = 29");
        // 0 to 11, compressed by SimpleITK.
        let voxels = b"x^\x05\xc1\x07\x01\x000\x08\x00 t\xee\xf7\xef+\x10\xd2P\xa6e;\xae\xe7k\x02T\x00C";
        let image = read(&[("x.mha", &[header.as_bytes(), voxels].concat())]).expect("reads");
        assert_eq!(image.voxels[[0, 1, 1, 2]], 11.0);
    }

    #[test]
    fn voxels_written_as_text_are_read() {
        let header = HEADER.replace("BinaryData = True", "BinaryData = False");
        let image = read(&[("x.mha", format!("{header}0 1 2 3 4 5\n6 7 8 9 10 -11\n").as_bytes())]).expect("reads");
        assert_eq!((image.voxels[[0, 0, 1, 2]], image.voxels[[0, 1, 1, 2]]), (5.0, -11.0));
        let short = read(&[("x.mha", format!("{header}0 1 2").as_bytes())]).expect_err("three of twelve");
        assert!(short.to_string().contains("expected 24 bytes of voxels"), "{short}");
    }

    #[test]
    fn a_flat_image_is_written_with_two_axes() {
        let written = String::from_utf8_lossy(&flat_round_trip(".mha")).into_owned();
        assert!(written.contains("NDims = 2\n") && written.contains("\nOffset = 5 6\n"), "{written}");
    }

    #[test]
    fn components_side_by_side_become_channels() {
        let header = HEADER.replace("3 2 2", "3 2 1\nElementNumberOfChannels = 2");
        let image = read(&[("x.mha", &file(&header))]).expect("reads");
        assert_eq!((image.voxels.dim(), image.voxels[[1, 0, 0, 2]]), ((2, 1, 2, 3), 5.0));
    }

    #[test]
    fn voxels_may_lie_in_a_second_file() {
        let header = HEADER.replace("LOCAL", "x.raw");
        let body: Vec<u8> = (0..12_i16).flat_map(i16::to_le_bytes).collect();
        let image = read(&[("x.mhd", header.as_bytes()), ("x.raw", &body)]).expect("reads");
        assert_eq!(image.voxels[[0, 1, 1, 2]], 11.0);
    }

    #[test]
    fn a_second_file_in_another_folder_is_refused() {
        for name in ["../x.raw", "/etc/passwd", "a/x.raw", ".."] {
            let header = HEADER.replace("LOCAL", name);
            let error = read(&[("x.mhd", header.as_bytes())]).expect_err(name);
            assert!(error.to_string().contains("in the header's own folder"), "{error}");
        }
    }

    #[test]
    fn a_file_cut_short_is_an_error() {
        let bytes = file(HEADER);
        let error = read(&[("x.mha", &bytes[..bytes.len() - 1])]).expect_err("one byte less");
        assert!(error.to_string().ends_with("expected 24 bytes of voxels, found 23"), "{error}");
    }

    #[test]
    fn what_is_written_comes_back() {
        round_trip(".mha");
    }

    #[test]
    fn mutated_files_never_panic() {
        super::super::text_tests::mutate("x.mha", &file(HEADER));
    }
}
