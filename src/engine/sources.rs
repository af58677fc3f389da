//! What a workflow reads that no stage makes: the dataset's files, a trained model.
//!
//! Source files are never copied into the store. Their digests are remembered by size, time of change and inode, so that
//! a warm run hashes nothing, and they enter keys by content alone: a folder that is moved changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nnflow_cache::{Artifact, Digest, FileEntry, StatCache};
use nnflow_nnunet::sources::{Listing, SourceFile};
use nnflow_stage::{ErrorKind, ErrorReport, StageError};
use rayon::prelude::*;

use super::state::{Held, Port, Slot};

/// What the sources of a workflow hold.
#[derive(Debug, Default)]
pub struct Sources {
    ports: BTreeMap<(String, String), Port>,
    locations: HashMap<Digest, PathBuf>,
    /// What is odd without being wrong.
    pub warnings: Vec<String>,
    /// What is wrong; cases that are named here are left out.
    pub problems: Vec<String>,
    /// How many cases the dataset has.
    pub n_cases: usize,
}

impl Sources {
    /// Adds a source: hashes what it lists.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn add(&mut self, name: &str, listing: Listing, cache: &StatCache) -> Result<(), ErrorReport> {
        let files: Vec<&SourceFile> =
            listing.documents.values().flatten().chain(listing.cases.values().flatten()).collect();
        let digests = hash_all(&files, cache)?;
        let entries: HashMap<&Path, FileEntry> =
            files.iter().zip(digests).map(|(file, entry)| (file.path.as_path(), entry)).collect();
        for file in &files {
            self.locations.insert(entries[file.path.as_path()].digest, file.path.clone());
        }
        let held = |files: &[SourceFile]| {
            let named =
                |file: &SourceFile| FileEntry { name: file.name.clone(), ..entries[file.path.as_path()].clone() };
            let artifact = Artifact::new(files.iter().map(named).collect());
            artifact.map(Held::new).map_err(|error| ErrorReport::new(ErrorKind::Input, error.to_string()))
        };
        for (port, files) in &listing.documents {
            self.ports.insert((name.to_owned(), port.clone()), Port::One(Slot::Made(held(files)?)));
        }
        if let Some(port) = listing.cases_port {
            let cases =
                listing.cases.iter().map(|(case, files)| Ok((Arc::from(case.as_str()), Slot::Made(held(files)?))));
            let cases = cases.collect::<Result<_, ErrorReport>>()?;
            self.n_cases = listing.cases.len();
            self.ports.insert((name.to_owned(), port.to_owned()), Port::Items(Some(cases)));
        }
        self.warnings.extend(listing.warnings);
        self.problems.extend(listing.problems);
        Ok(())
    }

    /// What a port of a source holds; nothing where the source does not have that file.
    #[must_use]
    pub fn port(&self, source: &str, port: &str) -> Option<&Port> {
        const ABSENT: &Port = &Port::One(Slot::Absent);
        Some(self.ports.get(&(source.to_owned(), port.to_owned())).unwrap_or(ABSENT))
    }

    /// The digests of what each port holds, by case; a document has the case `""`.
    #[must_use]
    pub fn digests(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let ports = self.ports.iter().map(|((source, port), held)| {
            let digests = match held {
                Port::One(slot) => digest("", slot).into_iter().collect(),
                Port::Items(slots) => slots.iter().flatten().filter_map(|(case, slot)| digest(case, slot)).collect(),
            };
            (format!("{source}.{port}"), digests)
        });
        ports.collect()
    }

    /// Where the files lie, by digest.
    #[must_use]
    pub fn locations(&self) -> HashMap<Digest, PathBuf> {
        self.locations.clone()
    }
}

fn digest(case: &str, slot: &Slot) -> Option<(String, String)> {
    let Slot::Made(held) = slot else { return None };
    Some((case.to_owned(), held.digest.to_string()))
}

fn hash_all(files: &[&SourceFile], cache: &StatCache) -> Result<Vec<FileEntry>, ErrorReport> {
    let hash = |file: &&SourceFile| {
        let found = cache.digest_of(&file.path).map_err(|error| {
            StageError::storage(error.to_string()).with_hint("check that the file exists and may be read").report()
        })?;
        Ok(FileEntry { name: file.name.clone(), digest: found.digest, bytes: found.bytes, incidental: false })
    };
    files.par_iter().map(hash).collect()
}
