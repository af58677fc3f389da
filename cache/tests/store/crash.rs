//! A process that dies, or a disk that fails, at any step of a publication.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nnflow_cache::{GcOptions, Outcome, PublishStep, Store, StoreError};

use crate::child;
use crate::support::{Fixture, count_files, manifest, result_of};

/// The results that every process of these tests publishes, in two batches.
const RESULTS: [[&str; 2]; 2] = [["a", "b"], ["b", "c"]];

/// Publishes three results, one of them twice, by all three ways in.
fn publish_all(store: &Store, folder: &Path) -> Result<(), StoreError> {
    for names in RESULTS {
        let batch = store.batch();
        for name in names {
            let path = folder.join(name);
            std::fs::write(&path, content(name)).unwrap();
            let object = if name == "b" { batch.adopt_file(&path)? } else { batch.put_file(&path)? };
            batch.add_manifest(manifest(name, object));
        }
        batch.commit()?;
    }
    Ok(())
}

/// Small for one, large enough to be copied as a file for the others.
fn content(name: &str) -> Vec<u8> {
    name.repeat(if name == "a" { 100 } else { 1_500_000 }).into_bytes()
}

/// The child's part: dies before the step with a number, as if killed.
pub(crate) fn publish_and_die(root: &Path, before: usize) {
    let steps = AtomicUsize::new(0);
    let hook = move |_step: PublishStep| {
        if steps.fetch_add(1, Ordering::Relaxed) == before {
            std::process::abort();
        }
        Ok(())
    };
    let store = Store::open(root).unwrap().with_fault_hook(Arc::new(hook));
    // Beside the store, where the parent removes it: this process will not come to remove anything.
    let folder = root.with_file_name("sources");
    std::fs::create_dir_all(&folder).unwrap();
    publish_all(&store, &folder).unwrap();
}

/// Nothing in the store is wrong, and every result is absent or right.
fn check_valid(store: &Store, context: &str) {
    let report = store.verify(false).unwrap();
    assert!(report.is_clean() && report.strays.is_empty(), "{context}: {report:?}");
    for name in RESULTS.concat() {
        if let Some(found) = result_of(store, name) {
            assert_eq!(found, content(name), "{context}: result `{name}`");
        }
    }
}

/// A run after the crash publishes what is missing.
fn check_completes(store: &Store, context: &str) {
    let folder = tempfile::tempdir().unwrap();
    publish_all(store, folder.path()).unwrap();
    for name in RESULTS.concat() {
        assert_eq!(result_of(store, name), Some(content(name)), "{context}: result `{name}`");
    }
}

#[test]
fn a_process_killed_before_any_step_leaves_a_valid_store() {
    let mut before = 0;
    loop {
        let fixture = Fixture::new();
        let output = child::run("publish and die", fixture.store.root(), &before.to_string());
        let context = format!("killed before step {before}");
        check_valid(&fixture.store, &context);
        check_completes(&fixture.store, &context);
        if output.status.success() {
            break;
        }
        before += 1;
    }
    // Two batches: four objects staged, three placed at least, four manifests staged and placed, seven others.
    assert!(before >= 20, "the publication has only {before} steps");
}

#[test]
fn what_a_killed_process_staged_is_collected() {
    let fixture = Fixture::new();
    child::run("publish and die", fixture.store.root(), "3");
    let staged = fixture.store.root().join("tmp");
    let before = count_files(&staged);
    fixture.store.gc(&GcOptions::default()).unwrap();
    // The only folder left is this process's own, with the file that says so.
    assert!(before > 2 && count_files(&staged) == 1, "{before} files before, {} after", count_files(&staged));
}

#[test]
fn a_disk_that_fills_up_at_any_step_leaves_a_valid_store_and_nothing_staged() {
    let mut failing = 0;
    loop {
        let fixture = Fixture::new();
        let steps = AtomicUsize::new(0);
        let hook = move |_step: PublishStep| match steps.fetch_add(1, Ordering::Relaxed) == failing {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(()),
        };
        let store = Store::open(fixture.store.root()).unwrap().with_fault_hook(Arc::new(hook));
        let context = format!("disk full at step {failing}");
        let folder = tempfile::tempdir().unwrap();
        let outcome = publish_all(&store, folder.path());
        drop(store);
        // The only staged file left says whose the fixture's own folder is.
        assert_eq!(count_files(&fixture.store.root().join("tmp")), 1, "{context}");
        check_valid(&fixture.store, &context);
        check_completes(&fixture.store, &context);
        match outcome {
            Ok(()) => break,
            Err(error) => assert_eq!(error.hint(), Some(nnflow_cache::Hint::DiskFull), "{context}"),
        }
        failing += 1;
    }
    assert!(failing >= 20, "the publication has only {failing} steps");
}

#[test]
fn an_adopted_file_stays_where_it_was_when_the_publication_fails() {
    let fixture = Fixture::new();
    let hook = |step: PublishStep| match step {
        PublishStep::PlaceManifest => Err(io::Error::from(io::ErrorKind::StorageFull)),
        _ => Ok(()),
    };
    let store = Store::open(fixture.store.root()).unwrap().with_fault_hook(Arc::new(hook));
    std::fs::write(fixture.path("weights"), "hours of work").unwrap();
    let batch = store.batch();
    let object = batch.adopt_file(&fixture.path("weights")).unwrap();
    batch.add_manifest(manifest("train", object));
    batch.commit().unwrap_err();
    assert_eq!(std::fs::read(fixture.path("weights")).unwrap(), b"hours of work");
}

#[test]
fn objects_are_on_the_disk_before_their_manifest_has_a_name() {
    let fixture = Fixture::new();
    let steps = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let hook = move |step| {
        seen.lock().unwrap().push(step);
        Ok(())
    };
    let store = Store::open(fixture.store.root()).unwrap().with_fault_hook(Arc::new(hook));
    let batch = store.batch();
    let object = batch.put_bytes(b"voxels").unwrap();
    batch.add_manifest(manifest("crop", object));
    assert_eq!(batch.commit().unwrap()[0].outcome, Outcome::New);
    use PublishStep::*;
    let expected = [
        StageObject,
        SyncObjects,
        PlaceObject,
        SyncObjectFolders,
        StageManifest,
        SyncManifests,
        PlaceManifest,
        SyncManifestFolders,
    ];
    assert_eq!(*steps.lock().unwrap(), expected);
}
