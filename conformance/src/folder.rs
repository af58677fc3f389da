//! The folder of a component, which remembers what was read of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use half::f16;
use ndarray::{ArrayD, IxDyn, OwnedRepr};
use ndarray_npy::{NpzReader, ReadableElement};
use nnflow_io::json;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Problem;
use crate::problem::with_causes;

/// Beginnings and endings of the names of files that are for readers and no part of a vector.
const FOR_READERS: ([&str; 3], [&str; 2]) = (["README", "LICENSE", "."], [".md", ".txt"]);

/// A folder of vectors. Paths are relative to it, with `/` between their parts.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    read: RefCell<BTreeSet<String>>,
}

/// What the vectors say of an array in a file of its own.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ArrayEntry {
    /// Its name in the folder of its vector.
    pub(crate) file: String,
    /// Its extents.
    pub(crate) shape: Vec<usize>,
}

impl Folder {
    /// A folder that is there.
    ///
    /// # Errors
    /// [`Problem::Missing`] if it is not.
    pub fn open(root: &Path) -> Result<Self, Problem> {
        if !root.is_dir() {
            return Err(Problem::missing(root.to_path_buf()));
        }
        Ok(Self { root: root.to_path_buf(), read: RefCell::default() })
    }

    /// The full path of a file or folder, which counts as read from now on.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.read.borrow_mut().insert(relative.to_owned());
        self.root.join(relative)
    }

    /// Counts a file or folder as read that is there for readers of the vectors and needs no comparison.
    pub fn set_aside(&self, relative: &str) {
        self.read.borrow_mut().insert(relative.to_owned());
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn has(&self, relative: &str) -> bool {
        self.root.join(relative).is_file()
    }

    /// The names of the folders in a folder, sorted.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn subfolders(&self, relative: &str) -> Result<Vec<String>, Problem> {
        self.entries(relative, Path::is_dir)
    }

    /// The names of the files in a folder, sorted.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn files(&self, relative: &str) -> Result<Vec<String>, Problem> {
        self.entries(relative, Path::is_file)
    }

    fn entries(&self, relative: &str, is_wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>, Problem> {
        let folder = self.root.join(relative);
        let unreadable = |error: std::io::Error| Problem::unreadable(&folder, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_wanted(&entry.path()) && !name.starts_with('.') && name != "__pycache__" {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The folders that have a file of this name, at any depth, sorted.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn folders_with(&self, file: &str) -> Result<Vec<String>, Problem> {
        let mut found: Vec<String> = self
            .all_files()?
            .into_iter()
            .filter_map(|path| Some(path.strip_suffix(file)?.strip_suffix('/')?.to_owned()))
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The content of a JSON file, in which `NaN` may stand bare.
    ///
    /// # Errors
    /// [`Problem::Unreadable`] if it does not hold a `T`.
    pub fn json<T: DeserializeOwned>(&self, relative: &str) -> Result<T, Problem> {
        let path = self.path(relative);
        json::read(&path).map_err(|error| Problem::unreadable(path, with_causes(&error)))
    }

    /// A list in a JSON file. An empty one is a problem, since it would prove nothing.
    ///
    /// # Errors
    /// [`Problem`] if it is no list of `T`, or empty.
    pub fn list<T: DeserializeOwned>(&self, relative: &str) -> Result<Vec<T>, Problem> {
        let list: Vec<T> = self.json(relative)?;
        if list.is_empty() { Err(Problem::missing(self.root.join(relative))) } else { Ok(list) }
    }

    /// An array in a `.npy` file.
    ///
    /// # Errors
    /// [`Problem::Unreadable`] if it is none, or of another type.
    pub fn array<T: ReadableElement>(&self, relative: &str) -> Result<ArrayD<T>, Problem> {
        let path = self.path(relative);
        ndarray_npy::read_npy(&path).map_err(|error| Problem::unreadable(path, error))
    }

    /// An array in the folder of a vector, which has to have the shape that the vector tells.
    pub(crate) fn entry<T: ReadableElement>(&self, vector: &str, entry: &ArrayEntry) -> Result<ArrayD<T>, Problem> {
        let relative = format!("{vector}/{}", entry.file);
        let array = self.array(&relative)?;
        if array.shape() == entry.shape {
            return Ok(array);
        }
        let message = format!("it has the shape {:?}, the vector tells {:?}", array.shape(), entry.shape);
        Err(Problem::unreadable(self.root.join(relative), message))
    }

    /// The arrays in a `.npz` file, by their names.
    ///
    /// # Errors
    /// [`Problem::Unreadable`] if it is none, or has arrays that are not of 32-bit floats.
    pub fn archive(&self, relative: &str) -> Result<BTreeMap<String, ArrayD<f32>>, Problem> {
        let path = self.path(relative);
        let file = fs_err::File::open(&path).map_err(|error| Problem::unreadable(&path, error))?;
        let mut archive = NpzReader::new(file).map_err(|error| Problem::unreadable(&path, error))?;
        let names = archive.names().map_err(|error| Problem::unreadable(&path, error))?;
        let mut arrays = BTreeMap::new();
        for name in names {
            let array = archive.by_name::<OwnedRepr<f32>, IxDyn>(&name);
            let array = array.map_err(|error| Problem::unreadable(&path, format!("{name}: {error}")))?;
            arrays.insert(name.trim_end_matches(".npy").to_owned(), array);
        }
        Ok(arrays)
    }

    /// An array of 16-bit floats, which `ndarray-npy` does not read.
    ///
    /// # Errors
    /// [`Problem::Unreadable`] if it is none.
    pub fn halves(&self, relative: &str) -> Result<ArrayD<f16>, Problem> {
        let path = self.path(relative);
        let bytes = fs_err::read(&path).map_err(|error| Problem::unreadable(&path, error))?;
        halves(&bytes).map_err(|message| Problem::unreadable(path, message))
    }

    /// Files that are part of vectors and were not read. A folder that was handed out as a whole counts as read.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn unread(&self) -> Result<Vec<String>, Problem> {
        let read = self.read.borrow();
        let is_read = |file: &String| {
            let mut above = file.match_indices('/').map(|(end, _)| &file[..end]);
            read.contains(file) || above.any(|folder| read.contains(folder))
        };
        let (beginnings, endings) = FOR_READERS;
        let is_for_readers = |file: &String| {
            let name = file.rsplit('/').next().unwrap_or(file);
            beginnings.iter().any(|beginning| name.starts_with(beginning))
                || endings.iter().any(|ending| name.ends_with(ending))
        };
        Ok(self.all_files()?.into_iter().filter(|file| !is_read(file) && !is_for_readers(file)).collect())
    }

    fn all_files(&self) -> Result<Vec<String>, Problem> {
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(folder) = open.pop() {
            let below = |name: String| if folder.is_empty() { name } else { format!("{folder}/{name}") };
            found.extend(self.files(&folder)?.into_iter().map(below));
            open.extend(self.subfolders(&folder)?.into_iter().map(below));
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Parses version 1 of NumPy's format: six bytes of magic, two of version, two of the header's length.
fn halves(bytes: &[u8]) -> Result<ArrayD<f16>, String> {
    let prefix = bytes.get(..10).filter(|prefix| prefix.starts_with(b"\x93NUMPY\x01"));
    let prefix = prefix.ok_or("expected version 1 of NumPy's format")?;
    let end = 10 + usize::from(u16::from_le_bytes([prefix[8], prefix[9]]));
    let header = String::from_utf8_lossy(bytes.get(10..end).ok_or("the header is cut short")?).into_owned();
    if !header.contains("'<f2'") || !header.contains("'fortran_order': False") {
        return Err(format!("expected 16-bit floats in C order, found {header}"));
    }
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')'));
    let (shape, _) = shape.ok_or("the header has no shape")?;
    let extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let extents = extents.map(str::parse).collect::<Result<Vec<usize>, _>>().map_err(|error| error.to_string())?;
    let values = bytes[end..].chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]])).collect();
    ArrayD::from_shape_vec(extents, values).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_have_the_shape_of_the_header() {
        let header = "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 1), }";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend([0x00, 0x3c, 0x00, 0x40]);
        let expected = ndarray::array![[f16::ONE], [f16::from_f32(2.0)]].into_dyn();
        assert_eq!(halves(&bytes), Ok(expected));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        assert!(halves(b"\x93NUMPY\x01\x00\xff").is_err() && halves(b"\x93NUMPY\x01\x00\xff\x00{").is_err());
    }
}
