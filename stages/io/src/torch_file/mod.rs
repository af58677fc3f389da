//! PyTorch's `.pth` files: a zip with one pickle (`data.pkl`) and one file for each storage.
//!
//! A checkpoint of nnU-Net is such a file. Reading one runs no code ([`pickle`](crate::pickle)), copies only the tensors
//! that are asked for, and checks them against the bytes that are there. Files that PyTorch wrote before version 1.6 are no
//! zips; nnU-Net v2 never made one.
//!
//! Reference: PyTorch 2.11 `torch/serialization.py` (`_save`, `_load`).

#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};

use half::{bf16, f16};

pub use self::write::{FloatStorage, write_torch_file};
use crate::archive::{Archive, ArchiveError};
use crate::pickle::{Document, Element, LARGEST, PickleError, Tensor, Value};

/// The pickle within the zip's one folder.
const PICKLE: &str = "data.pkl";

/// A file of PyTorch's that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFileError {
    /// The file is no zip, or a damaged one.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The zip is none of PyTorch's.
    #[error("`{}` is a zip, but no file of PyTorch's: expected one member `…/{PICKLE}`, found {found}", path.display())]
    NoPickle {
        /// The file.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// The pickle cannot be read.
    #[error("`{}` cannot be used: {source}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is wrong with its pickle.
        source: PickleError,
    },
    /// The numbers are stored the other way round.
    #[error("`{}` was written on a machine with another order of bytes: expected `little`, found `{found}`", path.display())]
    ByteOrder {
        /// The file.
        path: PathBuf,
        /// What the file says.
        found: String,
    },
    /// A tensor that is not backed by the bytes that are there.
    #[error("a tensor in `{}` cannot be read: {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// An open file of PyTorch's.
#[derive(Debug)]
pub struct TorchFile {
    archive: Archive,
    /// The folder within the zip, with its slash.
    folder: String,
    document: Document,
}

impl TorchFile {
    /// Opens a file and reads its pickle; nothing in it is run.
    ///
    /// # Errors
    /// [`TorchFileError`] if it is no file of PyTorch's, damaged, or wants to use anything but plain data.
    pub fn open(path: &Path) -> Result<Self, TorchFileError> {
        let archive = Archive::open(path)?;
        let folder = folder_of(&archive)?;
        let order = format!("{folder}byteorder");
        if archive.has(&order) {
            let order = archive.read(&order, 16)?;
            if order != b"little" {
                let found = String::from_utf8_lossy(&order).into_owned();
                return Err(TorchFileError::ByteOrder { path: path.to_path_buf(), found });
            }
        }
        let pickle = archive.read(&format!("{folder}{PICKLE}"), LARGEST)?;
        let document =
            Document::parse(&pickle).map_err(|source| TorchFileError::Pickle { path: path.to_path_buf(), source })?;
        Ok(Self { archive, folder, document })
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.archive.path()
    }

    /// What the file holds.
    #[must_use]
    pub fn root(&self) -> Value<'_> {
        self.document.root()
    }

    /// The elements of a tensor of floats of any width, in C order.
    ///
    /// # Errors
    /// [`TorchFileError`] if it does not lie within its storage, its storage not within the file, or it has no floats.
    pub fn floats(&self, tensor: &Tensor) -> Result<Vec<f32>, TorchFileError> {
        let bytes = self.archive.stored(&format!("{}data/{}", self.folder, tensor.storage.key))?;
        let wrong = |problem: String| TorchFileError::Tensor { path: self.path().to_path_buf(), problem };
        let width = tensor.storage.element.bytes();
        if (bytes.len() / width) as u64 != tensor.storage.len || bytes.len() % width != 0 {
            let (key, len) = (&tensor.storage.key, tensor.storage.len);
            let found = bytes.len();
            return Err(wrong(format!("storage `{key}` has {found} bytes, expected {len} times {width}")));
        }
        let indices = Indices::new(tensor).map_err(wrong)?;
        let decode: fn(&[u8]) -> f32 = match tensor.storage.element {
            Element::F64 => |bytes| f64::from_le_bytes(whole(bytes)) as f32,
            Element::F32 => |bytes| f32::from_le_bytes(whole(bytes)),
            Element::F16 => |bytes| f16::from_le_bytes(whole(bytes)).to_f32(),
            Element::BF16 => |bytes| bf16::from_le_bytes(whole(bytes)).to_f32(),
            Element::Whole(_) => return Err(wrong("it has whole numbers, expected floats".to_owned())),
        };
        Ok(indices.map(|index| decode(&bytes[index * width..(index + 1) * width])).collect())
    }
}

/// The one folder in the zip, with its slash.
fn folder_of(archive: &Archive) -> Result<String, TorchFileError> {
    let mut folders = archive.names().iter().filter_map(|name| name.strip_suffix(PICKLE));
    let folders: Vec<&str> = folders.by_ref().filter(|folder| folder.is_empty() || folder.ends_with('/')).collect();
    match folders.as_slice() {
        [folder] => Ok((*folder).to_owned()),
        several => Err(TorchFileError::NoPickle { path: archive.path().to_path_buf(), found: several.len() }),
    }
}

fn whole<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("invariant: an element has the width of its type")
}

/// The places in the storage of a tensor's elements, in C order.
struct Indices {
    shape: Vec<usize>,
    strides: Vec<usize>,
    counter: Vec<usize>,
    next: usize,
    left: usize,
}

impl Indices {
    /// Checks that every element lies within the storage, and that there are no more of them than the storage has.
    fn new(tensor: &Tensor) -> Result<Self, String> {
        let Tensor { storage, offset, shape, strides } = tensor;
        let len = shape.iter().try_fold(1_u64, |product, extent| product.checked_mul(*extent));
        let reach = |(extent, stride): (&u64, &u64)| extent.saturating_sub(1).checked_mul(*stride);
        let last = shape.iter().zip(strides).map(reach).try_fold(*offset, |sum, part| sum.checked_add(part?));
        let fits = len.is_some_and(|len| len <= storage.len)
            && (len == Some(0) || last.is_some_and(|last| last < storage.len));
        if !fits {
            return Err(format!(
                "shape {shape:?} with strides {strides:?} from element {offset} on does not lie within the {} elements of its storage",
                storage.len
            ));
        }
        let small = |values: &[u64]| values.iter().map(|value| usize::try_from(*value).unwrap_or(usize::MAX)).collect();
        Ok(Self {
            counter: vec![0; shape.len()],
            shape: small(shape),
            strides: small(strides),
            next: usize::try_from(*offset).unwrap_or(usize::MAX),
            left: len.and_then(|len| usize::try_from(len).ok()).unwrap_or(0),
        })
    }
}

impl Iterator for Indices {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let index = self.next;
        if self.left == 0 {
            return Some(index);
        }
        for axis in (0..self.shape.len()).rev() {
            self.counter[axis] += 1;
            self.next += self.strides[axis];
            if self.counter[axis] < self.shape[axis] {
                break;
            }
            self.next -= self.strides[axis] * self.shape[axis];
            self.counter[axis] = 0;
        }
        Some(index)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
