//! Zip archives, read where they lie.
//!
//! nnU-Net exports models as zips, and PyTorch's checkpoints are zips whose members are not compressed. An archive is
//! mapped into memory, so that a member that is stored as it is costs no copy. What a member declares of its size is
//! checked while it is read: a bomb of a few kilobytes ends as an error after as many bytes as it declares.

use std::collections::HashMap;
use std::io::{self, Cursor, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::Crc;
use memmap2::Mmap;
use zip::CompressionMethod;
use zip::read::ZipArchive;

use crate::atomic::{self, WriteError};
use crate::mapped;

/// Deflate cannot shrink data to less than about a thousandth (zlib's `Technical Details`); a member that claims more lies.
const LARGEST_RATIO: u64 = 1032;

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file system failed.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The file is no zip, or a truncated one.
    #[error("`{}` is no whole zip archive: {problem}", path.display())]
    Format {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A member whose name leads elsewhere.
    #[error("`{}` has a member `{name}`, whose name leads out of the archive's folder", path.display())]
    Outside {
        /// The archive.
        path: PathBuf,
        /// The member.
        name: String,
    },
    /// A member that is not there.
    #[error("`{}` has no member `{name}`", path.display())]
    Missing {
        /// The archive.
        path: PathBuf,
        /// The member.
        name: String,
    },
    /// A member that is not what it declares to be.
    #[error("member `{name}` of `{}` is damaged: {problem}", path.display())]
    Member {
        /// The archive.
        path: PathBuf,
        /// The member.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A member cannot be written to a file.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A zip archive.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    bytes: Mmap,
    names: Vec<String>,
    members: HashMap<String, Member>,
}

/// Where a member lies.
#[derive(Debug, Clone, Copy)]
struct Member {
    start: usize,
    stored: usize,
    size: u64,
    checksum: u32,
    is_compressed: bool,
}

impl Archive {
    /// Opens an archive and checks what its directory says against its length.
    ///
    /// # Errors
    /// [`ArchiveError`] if it cannot be read, is no zip, is encrypted, or has a member whose name leads elsewhere.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let bytes = mapped::open(path).map_err(|source| ArchiveError::Read { path: path.to_path_buf(), source })?;
        let format = |problem: &dyn std::fmt::Display| ArchiveError::Format {
            path: path.to_path_buf(),
            problem: problem.to_string(),
        };
        let mut zip = ZipArchive::new(Cursor::new(&bytes[..])).map_err(|error| format(&error))?;
        let (mut names, mut members) = (Vec::new(), HashMap::new());
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(|error| format(&error))?;
            let name = entry.name().to_owned();
            if !stays_inside(&name) {
                return Err(ArchiveError::Outside { path: path.to_path_buf(), name });
            }
            if entry.is_dir() {
                continue;
            }
            let is_compressed = match entry.compression() {
                CompressionMethod::Stored => false,
                CompressionMethod::Deflated => true,
                other => return Err(format(&format_args!("member `{name}` is compressed with {other}"))),
            };
            let place = usize::try_from(entry.data_start()).ok().zip(usize::try_from(entry.compressed_size()).ok());
            let end = place.and_then(|(start, stored)| start.checked_add(stored));
            let (Some((start, stored)), true) = (place, end.is_some_and(|end| end <= bytes.len())) else {
                return Err(format(&format_args!("member `{name}` ends behind the end of the file")));
            };
            let member = Member { start, stored, size: entry.size(), checksum: entry.crc32(), is_compressed };
            if entry.encrypted() || !member.is_possible() {
                return Err(format(&format_args!("member `{name}` is encrypted, or larger than its bytes can hold")));
            }
            if members.insert(name.clone(), member).is_none() {
                names.push(name);
            }
        }
        drop(zip);
        Ok(Self { path: path.to_path_buf(), bytes, names, members })
    }

    /// Where the archive lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the files in it, in the order of its directory.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether there is a file of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The bytes of a member that is not compressed, where they lie.
    ///
    /// # Errors
    /// [`ArchiveError`] if there is none of this name, it is compressed, or its checksum is another.
    pub fn stored(&self, name: &str) -> Result<&[u8], ArchiveError> {
        let member = self.member(name)?;
        if member.is_compressed {
            return Err(self.damaged(name, "it is compressed, expected it as it is"));
        }
        let bytes = &self.bytes[member.start..member.start + member.stored];
        let mut checksum = Crc::new();
        checksum.update(bytes);
        if checksum.sum() != member.checksum {
            return Err(self.damaged(name, "its checksum is wrong"));
        }
        Ok(bytes)
    }

    /// The bytes of a member of at most `most` bytes.
    ///
    /// # Errors
    /// [`ArchiveError`] if there is none of this name, or it is larger or damaged.
    pub fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, ArchiveError> {
        let member = self.member(name)?;
        if member.size > most {
            return Err(self.damaged(name, &format!("it has {} bytes, expected at most {most}", member.size)));
        }
        let mut bytes = Vec::new();
        self.copy(name, member, &mut bytes).map_err(|problem| self.damaged(name, &problem.to_string()))?;
        Ok(bytes)
    }

    /// Writes a member to a file, whole or not at all.
    ///
    /// # Errors
    /// [`ArchiveError`] if there is none of this name, it is damaged, or the file system fails.
    pub fn extract(&self, name: &str, to: &Path) -> Result<(), ArchiveError> {
        let member = self.member(name)?;
        Ok(atomic::write_with(to, |file| self.copy(name, member, file))?)
    }

    /// Copies a member; no more bytes than it declares are ever made.
    fn copy(&self, name: &str, member: Member, to: &mut impl Write) -> io::Result<()> {
        let raw = &self.bytes[member.start..member.start + member.stored];
        let mut checked = Checked { inner: to, checksum: Crc::new() };
        let beyond = if member.is_compressed {
            let mut decoder = flate2::read::DeflateDecoder::new(raw).take(member.size.saturating_add(1));
            io::copy(&mut decoder, &mut checked)?
        } else {
            checked.write_all(raw)?;
            raw.len() as u64
        };
        if beyond != member.size || checked.checksum.sum() != member.checksum {
            let message = format!("member `{name}` of the archive is not what its directory declares");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(())
    }

    fn member(&self, name: &str) -> Result<Member, ArchiveError> {
        let missing = || ArchiveError::Missing { path: self.path.clone(), name: name.to_owned() };
        self.members.get(name).copied().ok_or_else(missing)
    }

    fn damaged(&self, name: &str, problem: &str) -> ArchiveError {
        ArchiveError::Member { path: self.path.clone(), name: name.to_owned(), problem: problem.to_owned() }
    }
}

impl Member {
    fn is_possible(&self) -> bool {
        let stored = self.stored as u64;
        if self.is_compressed { self.size / LARGEST_RATIO <= stored } else { self.size == stored }
    }
}

/// Counts a checksum on the way.
struct Checked<'a, W> {
    inner: &'a mut W,
    checksum: Crc,
}

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn stays_inside(name: &str) -> bool {
    let plain = !name.contains(['\\', '\0', ':']);
    plain && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn zip(members: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in members {
            writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).expect("starts");
            writer.write_all(bytes).expect("writes");
        }
        writer.finish().expect("finishes").into_inner()
    }

    fn open(bytes: &[u8]) -> Result<Archive, ArchiveError> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("archive.zip");
        fs_err::write(&path, bytes).expect("writes");
        Archive::open(&path)
    }

    #[test]
    fn members_come_back() {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let archive = open(&zip(&[("a/b", b"content"), ("c", b"")], method)).expect("opens");
            assert_eq!(archive.names(), ["a/b", "c"]);
            assert_eq!(archive.read("a/b", 7).expect("reads"), b"content");
        }
    }

    #[test]
    fn a_stored_member_is_not_copied() {
        let archive = open(&zip(&[("a", b"content")], CompressionMethod::Stored)).expect("opens");
        assert_eq!(archive.stored("a").expect("is stored"), b"content");
    }

    #[test]
    fn a_member_larger_than_wanted_is_refused() {
        let archive = open(&zip(&[("a", &[0; 5000])], CompressionMethod::Deflated)).expect("opens");
        let error = archive.read("a", 4999).expect_err("one byte too many").to_string();
        assert!(error.ends_with("it has 5000 bytes, expected at most 4999"), "{error}");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["../a", "a/../../b", "/etc/a", "a\\..\\b", "C:a"] {
            let error = open(&zip(&[(name, b"x")], CompressionMethod::Stored)).expect_err("leads elsewhere");
            assert!(matches!(error, ArchiveError::Outside { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut bytes = zip(&[("a", b"content")], CompressionMethod::Stored);
        let place = bytes.windows(7).position(|window| window == b"content").expect("is stored");
        bytes[place] ^= 1;
        let archive = open(&bytes).expect("the directory is whole");
        assert!(archive.stored("a").is_err() && archive.read("a", 100).is_err());
    }

    #[test]
    fn a_size_that_no_compression_reaches_is_refused() {
        let mut bytes = zip(&[("a", b"content")], CompressionMethod::Deflated);
        // The uncompressed size stands 24 bytes behind the start of the entry in the directory.
        let entry = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").expect("a directory");
        bytes[entry + 24..entry + 28].copy_from_slice(&0xF000_0000_u32.to_le_bytes());
        let error = open(&bytes).expect_err("four gigabytes out of a few bytes").to_string();
        assert!(error.contains("larger than its bytes can hold"), "{error}");
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = zip(&[("a", b"content"), ("b", b"more")], CompressionMethod::Stored);
        for length in 0..bytes.len() {
            assert!(open(&bytes[..length]).is_err(), "an archive cut to {length} bytes was opened");
        }
    }

    #[test]
    fn mutated_archives_never_panic() {
        let sound = zip(&[("a", b"content"), ("b/c", &[7; 300])], CompressionMethod::Deflated);
        arbtest::arbtest(|source| {
            let mut bytes = sound.clone();
            for _ in 0..source.int_in_range(1..=4)? {
                let place = source.choose_index(bytes.len())?;
                bytes[place] = source.arbitrary()?;
            }
            if let Ok(archive) = open(&bytes) {
                for name in archive.names() {
                    drop(archive.read(name, 1 << 20));
                }
            }
            Ok(())
        });
    }
}
