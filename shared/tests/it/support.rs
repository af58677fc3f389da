//! Machines with a local store each, and the shared stores between them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nnflow_cache::{Artifact, Digest, FileEntry, Key, Manifest, PortValue, Store};
use nnflow_shared::{Address, Mode, SharedStore};
use serde_json::json;
use tempfile::TempDir;

use crate::s3_server::{BUCKET, S3Server};

/// A machine.
pub(crate) struct Machine {
    pub(crate) store: Store,
    _folder: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: Store::open(folder.path().join("store")).unwrap(), _folder: folder }
    }

    /// Publishes a result with one file for each of the contents; its key is that of the name.
    pub(crate) fn publish(&self, name: &str, contents: &[&[u8]]) -> Key {
        let batch = self.store.batch();
        let entry = |(number, content): (usize, &&[u8])| {
            let (digest, bytes) = batch.put_bytes(content).unwrap();
            FileEntry { name: format!("file-{number}"), digest, bytes, incidental: false }
        };
        let artifact = Artifact::new(contents.iter().enumerate().map(entry).collect()).unwrap();
        let manifest = manifest(name, artifact);
        let key = manifest.key();
        batch.add_manifest(manifest);
        batch.commit().unwrap();
        key
    }

    /// The content of the files of a key's result, by their names.
    pub(crate) fn contents(&self, key: &Key) -> Option<BTreeMap<String, Vec<u8>>> {
        let manifest = self.store.lookup(key).unwrap().hit()?;
        let read = |file: &FileEntry| (file.name.clone(), std::fs::read(self.store.object_path(&file.digest)).unwrap());
        Some(manifest.files().map(read).collect())
    }
}

/// The manifest of a result that is named by the content of its record.
pub(crate) fn manifest(name: &str, artifact: Artifact) -> Manifest {
    let outputs = BTreeMap::from([("out".to_owned(), PortValue::One(artifact))]);
    Manifest::new(json!({ "name": name }), outputs)
}

/// A shared store that can be opened several times and looked into.
pub(crate) enum Place {
    Folder(TempDir),
    S3(S3Server),
}

impl Place {
    /// Both kinds, empty.
    pub(crate) fn each() -> [Self; 2] {
        [Self::folder(), Self::s3()]
    }

    pub(crate) fn folder() -> Self {
        Self::Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn s3() -> Self {
        Self::S3(S3Server::start())
    }

    pub(crate) fn server(&self) -> &S3Server {
        match self {
            Self::S3(server) => server,
            Self::Folder(_) => panic!("a folder has no server"),
        }
    }

    pub(crate) fn open(&self, mode: Mode) -> SharedStore {
        match self {
            Self::Folder(folder) => SharedStore::new(Address::Folder(folder.path().to_owned()), mode),
            Self::S3(server) => {
                let address: Address = format!("s3://{BUCKET}/group/nnflow").parse().unwrap();
                SharedStore::with_variables(address, mode, server.variables())
            }
        }
        .unwrap()
    }

    /// Replaces the bytes of a file of the store, or removes it.
    pub(crate) fn put(&self, name: &str, bytes: Option<Vec<u8>>) {
        match (self, bytes) {
            (Self::Folder(folder), Some(bytes)) => std::fs::write(folder.path().join(name), bytes).unwrap(),
            (Self::Folder(folder), None) => std::fs::remove_file(folder.path().join(name)).unwrap(),
            (Self::S3(server), Some(bytes)) => {
                server.objects().get_mut(&format!("group/nnflow/{name}")).unwrap().bytes = bytes;
            }
            (Self::S3(server), None) => {
                server.objects().remove(&format!("group/nnflow/{name}")).unwrap();
            }
        }
    }

    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        match self {
            Self::Folder(folder) => std::fs::read(folder.path().join(name)).ok(),
            Self::S3(server) => {
                server.objects().get(&format!("group/nnflow/{name}")).map(|stored| stored.bytes.clone())
            }
        }
    }

    /// The names of all files of the store.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Folder(folder) => {
                let mut open = vec![folder.path().to_owned()];
                let mut found = Vec::new();
                while let Some(path) = open.pop() {
                    if path.is_dir() {
                        open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                    } else {
                        found.push(below(folder, path));
                    }
                }
                found.sort();
                found
            }
            Self::S3(server) => {
                let objects = server.objects();
                objects.keys().map(|name| name.strip_prefix("group/nnflow/").unwrap().to_owned()).collect()
            }
        }
    }
}

fn below(folder: &TempDir, path: PathBuf) -> String {
    path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned()
}

/// Where an object lies in a shared store.
pub(crate) fn object(digest: &Digest) -> String {
    let hex = digest.to_hex();
    format!("objects/{}/{}", &hex[..2], &hex[2..])
}

/// Where a manifest lies in a shared store.
pub(crate) fn manifest_of(key: &Key) -> String {
    let hex = key.digest().to_hex();
    format!("manifests/{}/{}.json", &hex[..2], &hex[2..])
}
