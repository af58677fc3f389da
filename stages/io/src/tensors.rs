//! Weights as safetensors: plain data, no code that runs when a file is read.
//!
//! The `safetensors` crate reads and checks files; writing is our own, because the crate orders the notes of a file by a
//! hash map, and a file whose bytes change from run to run cannot be addressed by its content.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
pub use safetensors::Dtype;
use safetensors::tensor::Metadata;
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::{Map, Value, json};

use crate::atomic::{self, WriteError};
use crate::mapped;

/// Bytes of the number before the header; the header's length is a multiple of it, which aligns the data.
const LENGTH_BYTES: usize = 8;
/// Key of the header under which notes stand.
const NOTES: &str = "__metadata__";

/// A tensor with a name.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its extents.
    pub shape: &'a [usize],
    /// Its elements in C order, little endian.
    pub bytes: &'a [u8],
}

/// A file of tensors that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The file system failed while reading.
    #[error("cannot read tensors `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The file is no sound safetensors file.
    #[error("`{}` is no sound safetensors file: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SafeTensorError,
    },
    /// The file lacks a tensor.
    #[error("`{}` has no tensor `{name}`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// Shape, type and bytes of a tensor to write do not fit together, or two have the same name.
    #[error("cannot write tensor `{name}`: {problem}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The file system failed while writing.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes tensors and notes to `path`, whole or not at all; the bytes depend on both alone, not on the tensors' order.
///
/// # Errors
/// [`TensorError`] if a tensor contradicts itself, a name is used twice, or the file system fails.
pub fn write_tensors(path: &Path, tensors: &[Tensor<'_>], notes: &BTreeMap<String, String>) -> Result<(), TensorError> {
    let mut ordered = tensors.to_vec();
    // Wide elements first keep every tensor aligned to its element.
    ordered.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(b.name)));
    let header = header(&ordered, notes)?;
    atomic::write_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        ordered.iter().try_for_each(|tensor| file.write_all(tensor.bytes))
    })?;
    Ok(())
}

fn header(tensors: &[Tensor<'_>], notes: &BTreeMap<String, String>) -> Result<Vec<u8>, TensorError> {
    let mut object = Map::new();
    if !notes.is_empty() {
        object.insert(NOTES.to_owned(), json!(notes));
    }
    let mut start = 0_usize;
    for tensor in tensors {
        check(tensor)?;
        let stop = start + tensor.bytes.len();
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, stop]});
        if tensor.name == NOTES || object.insert(tensor.name.to_owned(), entry).is_some() {
            return Err(wrong(tensor, "the name is used twice"));
        }
        start = stop;
    }
    let mut text = Value::Object(object).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(LENGTH_BYTES), b' ');
    Ok(text)
}

fn check(tensor: &Tensor<'_>) -> Result<(), TensorError> {
    let elements = tensor.shape.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent));
    let bits = elements.and_then(|elements| elements.checked_mul(tensor.dtype.bitsize()));
    if bits == tensor.bytes.len().checked_mul(8) {
        return Ok(());
    }
    let Tensor { dtype, shape, bytes, .. } = tensor;
    Err(wrong(tensor, &format!("shape {shape:?} of {dtype} does not make {} bytes", bytes.len())))
}

fn wrong(tensor: &Tensor<'_>, problem: &str) -> TensorError {
    TensorError::Tensor { name: tensor.name.to_owned(), problem: problem.to_owned() }
}

/// An open file of tensors; its header is checked, its data are read where they are used.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Mmap,
    first: usize,
    header: Metadata,
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// [`TensorError`] if it cannot be read or is no sound safetensors file.
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        let bytes = mapped::open(path).map_err(|source| TensorError::Read { path: path.to_path_buf(), source })?;
        let (length, header) = SafeTensors::read_metadata(&bytes)
            .map_err(|source| TensorError::Content { path: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), bytes, first: LENGTH_BYTES + length, header })
    }

    /// Names of the tensors, ascending.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = self.header.offset_keys();
        names.sort_unstable();
        names
    }

    /// What was noted beside the tensors.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<String, String> {
        let notes = self.header.metadata().iter().flatten();
        notes.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The tensor with a name.
    ///
    /// # Errors
    /// [`TensorError::Missing`] if there is none.
    pub fn tensor<'a>(&'a self, name: &'a str) -> Result<Tensor<'a>, TensorError> {
        let info = self
            .header
            .info(name)
            .ok_or_else(|| TensorError::Missing { path: self.path.clone(), name: name.to_owned() })?;
        let (start, stop) = info.data_offsets;
        let bytes = &self.bytes[self.first + start..self.first + stop];
        Ok(Tensor { name, dtype: info.dtype, shape: &info.shape, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const FLOATS: [u8; 8] = [0, 0, 128, 63, 0, 0, 0, 64];

    fn tensors() -> [Tensor<'static>; 3] {
        [
            Tensor { name: "b", dtype: Dtype::U8, shape: &[3], bytes: &[1, 2, 3] },
            Tensor { name: "z", dtype: Dtype::F32, shape: &[2, 1], bytes: &FLOATS },
            Tensor { name: "a", dtype: Dtype::F32, shape: &[], bytes: &[0; 4] },
        ]
    }

    fn notes() -> BTreeMap<String, String> {
        [("epoch", "3"), ("fold", "0"), ("axes", "zyx")].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn written(tensors: &[Tensor<'_>]) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("weights.safetensors");
        write_tensors(&path, tensors, &notes()).expect("writes");
        (folder, path)
    }

    #[test]
    fn a_tensor_comes_back() {
        let (_folder, path) = written(&tensors());
        let file = TensorFile::open(&path).expect("opens");
        let tensor = file.tensor("z").expect("is there");
        assert_eq!((tensor.dtype, tensor.shape, tensor.bytes), (Dtype::F32, &[2, 1][..], &FLOATS[..]));
    }

    #[test]
    fn names_are_sorted() {
        let (_folder, path) = written(&tensors());
        assert_eq!(TensorFile::open(&path).expect("opens").names(), ["a", "b", "z"]);
    }

    #[test]
    fn notes_come_back() {
        let (_folder, path) = written(&tensors());
        assert_eq!(TensorFile::open(&path).expect("opens").notes(), notes());
    }

    #[test]
    fn the_order_of_tensors_does_not_change_the_bytes() {
        let [first, second, third] = tensors();
        let (_one, one) = written(&[first, second, third]);
        let (_other, other) = written(&[third, first, second]);
        assert_eq!(fs_err::read(one).expect("reads"), fs_err::read(other).expect("reads"));
    }

    #[test]
    fn the_file_is_laid_out_as_the_format_says() {
        let (_folder, path) = written(&tensors());
        let bytes = fs_err::read(path).expect("reads");
        let expected = concat!(
            r#"{"__metadata__":{"axes":"zyx","epoch":"3","fold":"0"},"#,
            r#""a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"#,
            r#""z":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},"#,
            r#""b":{"dtype":"U8","shape":[3],"data_offsets":[12,15]}}"#,
        );
        assert_eq!(String::from_utf8_lossy(&bytes[8..8 + expected.len()]), expected);
    }

    #[test]
    fn a_name_used_twice_is_refused() {
        let [first, ..] = tensors();
        let error = write_tensors(Path::new("/nonexistent/x"), &[first, first], &notes()).expect_err("twice");
        assert_eq!(error.to_string(), "cannot write tensor `b`: the name is used twice");
    }

    #[test]
    fn bytes_that_do_not_make_the_shape_are_refused() {
        let wrong = Tensor { name: "w", dtype: Dtype::F32, shape: &[2], bytes: &[0; 7] };
        let error = write_tensors(Path::new("/nonexistent/x"), &[wrong], &notes()).expect_err("seven bytes");
        assert_eq!(error.to_string(), "cannot write tensor `w`: shape [2] of F32 does not make 7 bytes");
    }

    #[test]
    fn a_missing_tensor_is_named() {
        let (_folder, path) = written(&tensors());
        let file = TensorFile::open(&path).expect("opens");
        let error = file.tensor("absent").expect_err("not there").to_string();
        assert!(error.ends_with("weights.safetensors` has no tensor `absent`"), "{error}");
    }

    #[test]
    fn every_truncation_is_noticed() {
        let (folder, path) = written(&tensors());
        let bytes = fs_err::read(path).expect("reads");
        for length in 0..bytes.len() {
            let cut = folder.path().join("cut");
            fs_err::write(&cut, &bytes[..length]).expect("writes");
            assert!(TensorFile::open(&cut).is_err(), "a file cut to {length} bytes was opened");
        }
    }

    #[test]
    fn mutated_files_never_panic() {
        let (folder, path) = written(&tensors());
        let sound = fs_err::read(path).expect("reads");
        arbtest::arbtest(|source| {
            let mut bytes = sound.clone();
            let place = source.choose_index(bytes.len())?;
            bytes[place] = source.arbitrary()?;
            let mutated = folder.path().join("mutated");
            fs_err::write(&mutated, &bytes).expect("writes");
            if let Ok(file) = TensorFile::open(&mutated) {
                for name in file.names() {
                    file.tensor(&name).expect("a name of the file");
                }
            }
            Ok(())
        });
    }
}
