//! NumPy's `.npy` files of four axes: scores of classes that something other than nnflow computed.
//!
//! A file may be larger than memory, so it is read some planes at a time and never mapped: pages of a mapped file count
//! as memory of the process.
//!
//! The format: NEP 1, <https://numpy.org/neps/nep-0001-npy-format.html>.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::Array4;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read; NumPy itself refuses longer ones than this by default.
const LONGEST_HEADER: usize = 10_000;

/// A `.npy` file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}`: {kind}", path.display())]
pub struct NpyError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub kind: NpyErrorKind,
}

/// What is wrong with a `.npy` file, or with what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyErrorKind {
    /// The file system failed.
    #[error("the file cannot be read")]
    Read(#[from] io::Error),
    /// The file does not begin as it has to.
    #[error("expected {expected}, found {found}")]
    Header {
        /// What had to be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The file is shorter or longer than its shape says.
    #[error("an array of shape `{shape:?}` takes {expected} bytes behind the header, found {found}")]
    Length {
        /// Shape in the header.
        shape: [usize; 4],
        /// Bytes that it takes.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// Classes or planes that the array does not have.
    #[error("the array has shape `{shape:?}`; classes {classes:?} and planes {planes:?} are not all in it")]
    Outside {
        /// Shape in the header.
        shape: [usize; 4],
        /// Classes asked for.
        classes: Range<usize>,
        /// Planes asked for.
        planes: Range<usize>,
    },
}

/// An open file of `f32`, `[class, z, y, x]` in C order.
#[derive(Debug)]
pub struct NpyFile {
    path: PathBuf,
    file: File,
    shape: [usize; 4],
    /// Where the elements begin.
    start: u64,
}

impl NpyFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// [`NpyError`] if it cannot be read or is no array of little-endian `f32` with four axes in C order.
    pub fn open(path: &Path) -> Result<Self, NpyError> {
        Self::open_checked(path).map_err(|kind| NpyError { path: path.to_path_buf(), kind })
    }

    fn open_checked(path: &Path) -> Result<Self, NpyErrorKind> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut fixed = [0; 8];
        file.read_exact(&mut fixed)?;
        if !fixed.starts_with(MAGIC) {
            return Err(header_error("the beginning of a `.npy` file", format!("{:?}", &fixed[..6])));
        }
        let header_length = match fixed[6] {
            1 => u32::from(u16::from_le_bytes(read(&mut file)?)),
            2 | 3 => u32::from_le_bytes(read(&mut file)?),
            version => return Err(header_error("version 1, 2 or 3 of the format", version.to_string())),
        };
        let header_length = usize::try_from(header_length).unwrap_or(usize::MAX);
        if header_length > LONGEST_HEADER {
            return Err(header_error("a header of at most 10000 bytes", format!("{header_length} bytes")));
        }
        let mut header = vec![0; header_length];
        file.read_exact(&mut header)?;
        let start = file.stream_position()?;
        let shape = shape_in(&String::from_utf8_lossy(&header))?;
        let expected = shape.iter().try_fold(4_u64, |bytes, &extent| bytes.checked_mul(extent as u64));
        let found = length.saturating_sub(start);
        match expected {
            Some(expected) if expected == found => Ok(Self { path: path.to_path_buf(), file, shape, start }),
            expected => Err(NpyErrorKind::Length { shape, expected: expected.unwrap_or(u64::MAX), found }),
        }
    }

    /// Extents of the axes, `[class, z, y, x]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Some planes of some classes, `[class, z, y, x]`.
    ///
    /// # Errors
    /// [`NpyError`] if there are no such classes or planes, or the file system fails.
    pub fn read(&self, classes: Range<usize>, planes: Range<usize>) -> Result<Array4<f32>, NpyError> {
        self.read_checked(classes, planes).map_err(|kind| NpyError { path: self.path.clone(), kind })
    }

    fn read_checked(&self, classes: Range<usize>, planes: Range<usize>) -> Result<Array4<f32>, NpyErrorKind> {
        let [all_classes, depth, height, width] = self.shape;
        let inside = |range: &Range<usize>, extent| range.start <= range.end && range.end <= extent;
        if !inside(&classes, all_classes) || !inside(&planes, depth) {
            return Err(NpyErrorKind::Outside { shape: self.shape, classes, planes });
        }
        let plane = height * width;
        let mut values = Array4::<f32>::zeros((classes.len(), planes.len(), height, width));
        let elements = values.as_slice_mut().expect("invariant: standard layout");
        for (class, elements) in classes.zip(elements.chunks_exact_mut((planes.len() * plane).max(1))) {
            let first = (class * depth + planes.start) * plane;
            (&self.file).seek(SeekFrom::Start(self.start + 4 * first as u64))?;
            (&self.file).read_exact(bytemuck::cast_slice_mut(elements))?;
        }
        if cfg!(target_endian = "big") {
            values.mapv_inplace(|value| f32::from_bits(value.to_bits().swap_bytes()));
        }
        Ok(values)
    }
}

fn read<const BYTES: usize>(file: &mut File) -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The shape in a header, which is a dictionary as Python prints it, after its other two entries have been checked.
fn shape_in(header: &str) -> Result<[usize; 4], NpyErrorKind> {
    let entry = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let begins = |key, with| entry(key).is_some_and(|value: &str| value.starts_with(with));
    if !begins("descr", "'<f4'") {
        return Err(header_error("elements of type `<f4` (float32)", header.trim_end().to_owned()));
    }
    if !begins("fortran_order", "False") {
        return Err(header_error("C order", header.trim_end().to_owned()));
    }
    let listed = entry("shape").and_then(|value| value.strip_prefix('(')?.split_once(')'));
    let extents = listed.map(|(extents, _)| extents.split(',').map(|extent| extent.trim().parse().ok()));
    let extents: Option<Vec<usize>> = extents.and_then(|extents| extents.collect());
    let shape = extents.and_then(|extents| <[usize; 4]>::try_from(extents).ok());
    shape.ok_or_else(|| header_error("a shape of four axes (class, z, y, x)", header.trim_end().to_owned()))
}

fn header_error(expected: &'static str, found: String) -> NpyErrorKind {
    NpyErrorKind::Header { expected, found }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, s};
    use ndarray_npy::write_npy;
    use tempfile::TempDir;

    use super::*;

    fn place() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("scores.npy");
        (folder, path)
    }

    fn ramp() -> Array4<f32> {
        Array4::from_shape_fn((3, 4, 5, 6), |(c, z, y, x)| (c * 1000 + z * 100 + y * 10 + x) as f32)
    }

    #[test]
    fn some_planes_of_some_classes_are_read() {
        let (_folder, path) = place();
        write_npy(&path, &ramp()).expect("writes");
        let file = NpyFile::open(&path).expect("opens");
        assert_eq!(file.shape(), [3, 4, 5, 6]);
        assert_eq!(file.read(1..3, 2..4).expect("reads"), ramp().slice(s![1..3, 2..4, .., ..]));
        assert!(matches!(file.read(1..4, 0..1).expect_err("no such class").kind, NpyErrorKind::Outside { .. }));
    }

    #[test]
    fn numbers_of_another_kind_and_other_ranks_are_refused() {
        let (_folder, path) = place();
        write_npy(&path, &ramp().mapv(f64::from)).expect("writes");
        assert!(matches!(NpyFile::open(&path).expect_err("f64").kind, NpyErrorKind::Header { .. }));
        write_npy(&path, &Array3::<f32>::zeros((3, 4, 5))).expect("writes");
        assert!(matches!(NpyFile::open(&path).expect_err("three axes").kind, NpyErrorKind::Header { .. }));
        write_npy(&path, &ramp().reversed_axes()).expect("writes");
        assert!(matches!(NpyFile::open(&path).expect_err("Fortran order").kind, NpyErrorKind::Header { .. }));
    }

    #[test]
    fn a_file_that_was_cut_off_is_refused() {
        let (_folder, path) = place();
        write_npy(&path, &ramp()).expect("writes");
        let whole = std::fs::read(&path).expect("reads");
        std::fs::write(&path, &whole[..whole.len() - 1]).expect("writes");
        assert!(matches!(NpyFile::open(&path).expect_err("too short").kind, NpyErrorKind::Length { .. }));
    }

    #[test]
    fn any_damage_ends_in_an_error_or_in_an_array() {
        let (_folder, path) = place();
        write_npy(&path, &ramp()).expect("writes");
        let whole = std::fs::read(&path).expect("reads");
        arbtest::arbtest(|input| {
            let mut damaged = whole.clone();
            for _ in 0..input.int_in_range(1..=3)? {
                let byte = input.choose_index(140)?;
                damaged[byte] = input.arbitrary()?;
            }
            std::fs::write(&path, &damaged).expect("writes");
            if let Ok(file) = NpyFile::open(&path) {
                let [classes, planes, ..] = file.shape();
                file.read(0..classes, 0..planes).expect("what was checked can be read");
            }
            Ok(())
        });
    }
}
