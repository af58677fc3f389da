//! What MetaImage and NRRD share: a header of text that says how numbers follow, in the same file or in another.

use std::path::Path;

use nnflow_kernels::geometry::Spacing;

use super::error::ReadErrorKind;
use super::geometry::{DUMMY_SPACING, Geometry};
use super::source::{Encoding, Source};
use super::voxels::Layout;
use super::{Image, ImageHeader};

/// A parsed header.
pub(super) struct Described {
    pub(super) layout: Layout,
    pub(super) geometry: Geometry,
    pub(super) encoding: Encoding,
    /// Name of the file of the voxels; `None` where they follow the header.
    pub(super) data_file: Option<String>,
    /// Lines before the voxels, in their file.
    pub(super) skipped_lines: usize,
    /// Decompressed bytes before the voxels, after those lines; `None` if the voxels are the file's last bytes.
    pub(super) skipped_bytes: Option<u64>,
}

type Parse = fn(&mut Source) -> Result<Described, ReadErrorKind>;

/// Reads header and voxels.
pub(super) fn read_image(path: &Path, parse: Parse) -> Result<Image, ReadErrorKind> {
    let mut source = Source::open(path)?;
    let described = parse(&mut source)?;
    let mut source = match &described.data_file {
        Some(name) => Source::open_as_stored(&beside(path, name)?)?,
        None => source,
    };
    for _ in 0..described.skipped_lines {
        source.line()?;
    }
    let mut voxels = source.decoded(described.encoding);
    let at_end = voxels.remaining().saturating_sub(described.layout.bytes());
    voxels.skip(described.skipped_bytes.unwrap_or(at_end))?;
    let image = described.layout.read(&mut voxels)?;
    let ImageHeader { geometry, kind, scaled, .. } = summary(described);
    Ok(Image { voxels: image, geometry, kind, scaled })
}

/// Reads the header.
pub(super) fn read_header(path: &Path, parse: Parse) -> Result<ImageHeader, ReadErrorKind> {
    parse(&mut Source::open(path)?).map(summary)
}

fn summary(described: Described) -> ImageHeader {
    let Described { layout, geometry, .. } = described;
    ImageHeader { channels: layout.shape[0], geometry, kind: layout.kind, scaled: layout.scaling.is_some() }
}

/// A file in the folder of another; its name may not lead out of there.
fn beside(path: &Path, name: &str) -> Result<std::path::PathBuf, ReadErrorKind> {
    let plain = Path::new(name).file_name().is_some_and(|file| file == name) && !name.contains(['\\', '\0']);
    if !plain {
        return Err(ReadErrorKind::Header {
            field: "data file",
            expected: "the name of a file in the header's own folder".to_owned(),
            found: name.to_owned(),
        });
    }
    let file = path.with_file_name(name);
    if file.is_file() { Ok(file) } else { Err(ReadErrorKind::Partner { expected: file }) }
}

/// Extents, columns of axes in millimetres and origin of an image of two or three axes, in the file's order x, y, z.
pub(super) struct Axes {
    pub(super) extents: Vec<usize>,
    pub(super) columns: Vec<[f64; 3]>,
    pub(super) origin: [f64; 3],
}

impl Axes {
    /// The geometry; a third axis is made up for a flat image.
    pub(super) fn geometry(mut self, field: &'static str) -> Result<Geometry, ReadErrorKind> {
        let refuse = |found: String| ReadErrorKind::Header {
            field,
            expected: "two or three axes of finite lengths above 0".to_owned(),
            found,
        };
        let mut spacing: Vec<f64> = self.columns.iter().map(|column| length(*column)).collect();
        if let [x, y] = spacing[..] {
            spacing.push(DUMMY_SPACING * x.max(y));
            self.columns.push([0.0, 0.0, DUMMY_SPACING * x.max(y)]);
            self.extents.push(1);
        }
        let (&[x, y, z], &[width, height, depth]) = (&spacing[..], &self.extents[..]) else {
            return Err(refuse(format!("{} axes", spacing.len())));
        };
        let spacing = Spacing::new([z, y, x]).map_err(|error| refuse(error.to_string()))?;
        let lengths = [x, y, z];
        let direction = std::array::from_fn(|entry| self.columns[entry % 3][entry / 3] / lengths[entry % 3]);
        Ok(Geometry { origin: self.origin, direction, ..Geometry::new([depth, height, width], spacing) })
    }
}

fn length(column: [f64; 3]) -> f64 {
    column.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// The numbers of a text, separated by blanks.
pub(super) fn numbers<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<Vec<T>, ReadErrorKind> {
    let parsed: Option<Vec<T>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    parsed.ok_or_else(|| ReadErrorKind::Header {
        field,
        expected: "numbers separated by blanks".to_owned(),
        found: text.to_owned(),
    })
}
