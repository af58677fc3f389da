//! What the tests of this folder share.

use std::path::Path;
use std::time::{Duration, SystemTime};

use nnflow_cache::{Artifact, Digest, FileEntry, Key, Manifest, PortValue, Store};
use serde_json::{Value, json};

/// A store in a folder that goes with it.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        Self { store, folder }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

/// The record of a piece of work with a name.
pub(crate) fn record(name: &str) -> Value {
    json!({ "stage": "test", "name": name })
}

pub(crate) fn key(name: &str) -> Key {
    Key::of(&record(name))
}

/// The manifest of a piece of work that made one file with an object's bytes.
pub(crate) fn manifest(name: &str, (digest, bytes): (Digest, u64)) -> Manifest {
    let file = FileEntry { name: "image.nna".into(), digest, bytes, incidental: false };
    let artifact = Artifact::new(vec![file]).unwrap();
    Manifest::new(record(name), [("cases".to_owned(), PortValue::One(artifact))].into())
}

/// Stores some bytes and publishes them as the result of a piece of work.
pub(crate) fn publish(store: &Store, name: &str, content: &[u8]) -> Manifest {
    let object = store.put_bytes(content).unwrap();
    store.publish(manifest(name, object)).unwrap().manifest
}

/// The bytes of the result of a piece of work, if it is known.
pub(crate) fn result_of(store: &Store, name: &str) -> Option<Vec<u8>> {
    let manifest = store.lookup(&key(name)).unwrap().hit()?;
    let file = manifest.files().next().unwrap();
    Some(std::fs::read(store.object_path(&file.digest)).unwrap())
}

/// Makes a file look as if it had been written some time ago.
pub(crate) fn age(path: &Path, by: Duration) {
    std::fs::File::open(path).unwrap().set_modified(SystemTime::now() - by).unwrap();
}

/// The number of files under a folder.
pub(crate) fn count_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

/// Flips one bit of a file, whatever its mode.
pub(crate) fn flip_bit(path: &Path, byte: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[byte] ^= 1;
    replace(path, &bytes);
}

/// Gives a file other content, whatever its mode.
pub(crate) fn replace(path: &Path, content: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, content).unwrap();
}
