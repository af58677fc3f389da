//! Files as memory.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// Maps a file that was published whole and is never written to again.
#[expect(unsafe_code, reason = "memory maps have no safe interface")]
pub(crate) fn open(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: what is mapped was published by a rename and is read-only from then on, so that the bytes do not change
    // while the map lives. A file that someone truncates in place all the same ends the process with SIGBUS.
    unsafe { Mmap::map(&file) }
}
