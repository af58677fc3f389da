//! Files that appear whole or not at all.
//!
//! A process may be killed at any instant and a disk may fill up. Content goes to a hidden file beside its destination,
//! is synced, and takes the destination's name by a rename, so that no reader ever sees half a file. What stages make for
//! the store is not synced here: the store does that for many files at once before it publishes them, and waiting for the
//! disk file by file takes longer than all the rest of preprocessing small images.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use tempfile::{Builder, NamedTempFile};

/// Bytes collected before they go to the file.
const BUFFER_BYTES: usize = 256 * 1024;

/// A file that could not be written; whatever stood at its path before is unchanged.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`", path.display())]
pub struct WriteError {
    /// The file that was to be written.
    pub path: PathBuf,
    /// What the file system said.
    #[source]
    pub source: io::Error,
}

/// What the content of a file is written into: buffered, and seekable for formats whose header comes last.
pub type FileWriter<'a> = BufWriter<&'a mut std::fs::File>;

/// Writes a file through `content` and publishes it at `path`, replacing what stood there.
///
/// # Errors
/// [`WriteError`] if `content` fails or the file system does (missing folder, full disk, no permission); nothing is left
/// behind then.
pub fn write_with(path: &Path, content: impl FnOnce(&mut FileWriter<'_>) -> io::Result<()>) -> Result<(), WriteError> {
    publish(path, Sync::Now, content).map_err(|source| WriteError { path: path.to_path_buf(), source })
}

/// Like [`write_with`], for a file that somebody else syncs before anything depends on it.
///
/// No reader sees half a file, also if the process is killed; after a power failure the file may be missing or empty.
///
/// # Errors
/// Those of [`write_with`].
pub fn write_unsynced_with(
    path: &Path,
    content: impl FnOnce(&mut FileWriter<'_>) -> io::Result<()>,
) -> Result<(), WriteError> {
    publish(path, Sync::Later, content).map_err(|source| WriteError { path: path.to_path_buf(), source })
}

/// Publishes `content` at `path`, replacing what stood there.
///
/// # Errors
/// [`WriteError`] if the file system fails; nothing is left behind then.
pub fn write(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    write_with(path, |file| file.write_all(content))
}

/// When the bytes of a file have to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Now,
    Later,
}

fn publish(path: &Path, sync: Sync, content: impl FnOnce(&mut FileWriter<'_>) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut temporary = temporary_file(folder)?;
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, temporary.as_file_mut());
    content(&mut buffered)?;
    // Dropping a buffered writer swallows the error of its last write, which is where a full disk shows.
    buffered.flush()?;
    drop(buffered);
    if sync == Sync::Now {
        temporary.as_file().sync_all()?;
    }
    temporary.persist(path).map_err(|error| error.error)?;
    if sync == Sync::Now { sync_folder(folder) } else { Ok(()) }
}

/// A hidden file in `folder`, readable by whoever the process's umask lets read.
fn temporary_file(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".nnflow-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The crate's own default, 0600, would keep the group of a shared store from reading results.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Makes the rename itself durable.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_replaces_what_stood_there() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        write(&path, b"old and longer").expect("first write");
        write(&path, b"new").expect("second write");
        assert_eq!(fs::read(&path).expect("read back"), b"new");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        write(&path, b"old").expect("first write");
        let failed = write_with(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).expect("read back"), b"old");
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        write_with(&path, |_| Err(io::Error::from(io::ErrorKind::StorageFull))).expect_err("refused");
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn the_error_names_the_destination() {
        let path = Path::new("/nonexistent/folder/file");
        let error = write(path, b"").expect_err("no such folder");
        assert_eq!(error.to_string(), "cannot write `/nonexistent/folder/file`");
    }
}
