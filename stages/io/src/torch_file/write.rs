//! Writing files of PyTorch's.

use std::io::{self, Write};
use std::path::Path;

use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::PICKLE;
use crate::atomic::{self, WriteError};
use crate::pickle::{self, Pickled};

/// The folder within the zip; PyTorch takes any.
const FOLDER: &str = "archive";
/// Where the bytes of storages begin, as PyTorch has it, so that they can be mapped into memory.
const ALIGNMENT: u16 = 64;
/// From this size on a member's header has room for more than 32 bits.
const LARGE: usize = u32::MAX as usize;

/// The numbers of tensors: 32-bit floats, little endian.
#[derive(Debug, Clone, Copy)]
pub struct FloatStorage<'a> {
    /// Its name, which tensors refer to.
    pub key: &'a str,
    /// Its numbers.
    pub bytes: &'a [u8],
}

/// Writes a value and the storages of its tensors, whole or not at all; the same arguments give the same bytes.
///
/// # Errors
/// [`WriteError`] if the file system fails.
pub fn write_torch_file(path: &Path, value: &Pickled, storages: &[FloatStorage<'_>]) -> Result<(), WriteError> {
    let pickle = pickle::to_vec(value);
    atomic::write_with(path, |file| {
        let mut writer = Members { zip: ZipWriter::new(file) };
        // PyTorch takes the folder's name from the first member.
        writer.add(PICKLE, &pickle)?;
        writer.add("byteorder", b"little")?;
        for storage in storages {
            writer.add(&format!("data/{}", storage.key), storage.bytes)?;
        }
        writer.add("version", b"3\n")?;
        writer.zip.finish().map_err(io::Error::from)?;
        Ok(())
    })
}

struct Members<W: Write + io::Seek> {
    zip: ZipWriter<W>,
}

impl<W: Write + io::Seek> Members<W> {
    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(bytes.len() >= LARGE)
            .with_alignment(ALIGNMENT);
        self.zip.start_file(format!("{FOLDER}/{name}"), options)?;
        self.zip.write_all(bytes)
    }
}
