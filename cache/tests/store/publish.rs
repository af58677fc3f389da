//! Putting things in and getting them out.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nnflow_cache::{
    Acquired, Artifact, Batch, FileEntry, Key, Lookup, Manifest, MissReason, Outcome, PortValue, PublishStep, Store,
    StoreError, hash_bytes,
};

use crate::child;
use crate::support::{Fixture, count_files, key, manifest, publish, record, result_of};

#[test]
fn bytes_come_out_as_they_went_in() {
    let fixture = Fixture::new();
    let (digest, bytes) = fixture.store.put_bytes(b"voxels").unwrap();
    assert_eq!((digest, bytes), (hash_bytes(b"voxels"), 6));
    assert_eq!(fs::read(fixture.store.object_path(&digest)).unwrap(), b"voxels");
}

#[test]
fn nobody_may_write_to_an_object() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    let mode = fs::metadata(fixture.store.object_path(&digest)).unwrap().permissions().mode();
    assert_eq!(mode & 0o222, 0, "mode {mode:o}");
}

#[test]
fn nobody_may_write_to_an_adopted_object() {
    let fixture = Fixture::new();
    fs::write(fixture.path("weights"), "w").unwrap();
    let (digest, _) = fixture.store.adopt_file(&fixture.path("weights")).unwrap();
    let mode = fs::metadata(fixture.store.object_path(&digest)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444, "mode {mode:o}");
}

#[test]
fn the_same_bytes_twice_are_one_object() {
    let fixture = Fixture::new();
    fixture.store.put_bytes(b"voxels").unwrap();
    fixture.store.put_bytes(b"voxels").unwrap();
    assert_eq!(count_files(&fixture.store.root().join("objects")), 1);
}

#[test]
fn a_large_file_is_copied_and_stays() {
    let fixture = Fixture::new();
    let content: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    fs::write(fixture.path("image"), &content).unwrap();
    let (digest, bytes) = fixture.store.put_file(&fixture.path("image")).unwrap();
    assert_eq!((digest, bytes), (hash_bytes(&content), 3_000_000));
    assert_eq!(fs::read(fixture.store.object_path(&digest)).unwrap(), fs::read(fixture.path("image")).unwrap());
}

#[test]
fn an_adopted_file_is_moved_without_a_copy() {
    let fixture = Fixture::new();
    let path = fixture.path("weights");
    fs::write(&path, "w").unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let (digest, _) = fixture.store.adopt_file(&path).unwrap();
    assert_eq!(fs::metadata(fixture.store.object_path(&digest)).unwrap().ino(), inode);
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_not_what_it_should_be_is_not_adopted() {
    let fixture = Fixture::new();
    let path = fixture.path("weights");
    fs::write(&path, "w").unwrap();
    let batch = fixture.store.batch();
    let error = batch.adopt_expected(&path, &hash_bytes(b"v")).unwrap_err();
    batch.commit().unwrap();
    assert!(matches!(error, StoreError::WrongObject { found, .. } if found == hash_bytes(b"w")), "{error}");
    assert_eq!(count_files(&fixture.store.root().join("objects")), 0);
    assert!(path.exists());
}

#[test]
fn a_file_that_is_what_it_should_be_is_adopted() {
    let fixture = Fixture::new();
    let path = fixture.path("weights");
    fs::write(&path, "w").unwrap();
    let batch = fixture.store.batch();
    batch.adopt_expected(&path, &hash_bytes(b"w")).unwrap();
    batch.commit().unwrap();
    assert!(fixture.store.has(&hash_bytes(b"w")) && !path.exists());
}

#[test]
fn an_adopted_file_with_a_second_name_is_copied() {
    let fixture = Fixture::new();
    fs::write(fixture.path("dataset"), "voxels").unwrap();
    fs::hard_link(fixture.path("dataset"), fixture.path("output")).unwrap();
    let (digest, _) = fixture.store.adopt_file(&fixture.path("output")).unwrap();
    let inodes =
        [fixture.path("dataset"), fixture.store.object_path(&digest)].map(|path| fs::metadata(path).unwrap().ino());
    assert_ne!(inodes[0], inodes[1], "a write to the dataset would change the object");
}

#[test]
fn adopting_what_is_there_already_removes_the_file() {
    let fixture = Fixture::new();
    fixture.store.put_bytes(b"w").unwrap();
    fs::write(fixture.path("weights"), "w").unwrap();
    fixture.store.adopt_file(&fixture.path("weights")).unwrap();
    assert!(!fixture.path("weights").exists());
}

#[test]
fn a_dropped_batch_leaves_adopted_files_and_the_store_alone() {
    let fixture = Fixture::new();
    fs::write(fixture.path("weights"), "w").unwrap();
    let batch = fixture.store.batch();
    batch.adopt_file(&fixture.path("weights")).unwrap();
    batch.put_bytes(b"voxels").unwrap();
    drop(batch);
    assert_eq!(fs::read(fixture.path("weights")).unwrap(), b"w");
    assert_eq!(count_files(&fixture.store.root().join("objects")), 0);
}

#[test]
fn a_pipe_is_refused_instead_of_read_for_ever() {
    let fixture = Fixture::new();
    let error = fixture.store.put_file(std::path::Path::new("/dev/zero")).unwrap_err();
    assert_eq!(error.to_string(), "cannot store `/dev/zero`");
}

#[test]
fn an_object_of_the_wrong_size_is_replaced_by_the_next_publisher() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    crate::support::replace(&fixture.store.object_path(&digest), b"vox");
    fixture.store.put_bytes(b"voxels").unwrap();
    fixture.store.verify_object(&digest).unwrap();
}

#[test]
fn a_materialized_object_has_its_bytes() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    fixture.store.materialize(&digest, &fixture.path("image.nna")).unwrap();
    assert_eq!(fs::read(fixture.path("image.nna")).unwrap(), b"voxels");
}

#[test]
fn an_object_is_materialized_across_file_systems() {
    let fixture = Fixture::new();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    let path = other.path().join("image.nna");
    fixture.store.materialize(&digest, &path).unwrap();
    assert_eq!(
        (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().permissions().mode() & 0o777),
        (b"voxels".to_vec(), 0o444)
    );
}

#[test]
fn a_file_of_another_file_system_is_adopted_by_copy() {
    let fixture = Fixture::new();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = other.path().join("weights");
    fs::write(&path, "w").unwrap();
    let (digest, _) = fixture.store.adopt_file(&path).unwrap();
    fixture.store.verify_object(&digest).unwrap();
    assert!(!path.exists());
}

#[test]
fn materializing_never_replaces_a_file() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    fs::write(fixture.path("image.nna"), "mine").unwrap();
    fixture.store.materialize(&digest, &fixture.path("image.nna")).unwrap_err();
    assert_eq!(fs::read(fixture.path("image.nna")).unwrap(), b"mine");
}

#[test]
fn what_was_published_is_found() {
    let fixture = Fixture::new();
    let published = publish(&fixture.store, "crop", b"voxels");
    assert_eq!(fixture.store.lookup(&key("crop")).unwrap().hit(), Some(published));
}

#[test]
fn what_was_not_published_is_a_miss() {
    let fixture = Fixture::new();
    assert_eq!(fixture.store.lookup(&key("crop")).unwrap(), Lookup::Miss(MissReason::Absent));
}

#[test]
fn many_keys_are_answered_in_their_order() {
    let fixture = Fixture::new();
    let names: Vec<String> = (0..20).map(|index| format!("case {index}")).collect();
    names.iter().step_by(2).for_each(|name| drop(publish(&fixture.store, name, name.as_bytes())));
    let keys: Vec<Key> = names.iter().map(|name| key(name)).collect();
    let hits = fixture.store.lookup_many(&keys).unwrap().into_iter().map(|found| found.hit().is_some());
    assert_eq!(hits.collect::<Vec<_>>(), [true, false].repeat(10));
}

#[test]
fn the_first_publisher_wins_and_the_second_gets_its_manifest() {
    let fixture = Fixture::new();
    let first = publish(&fixture.store, "train", b"weights A");
    let object = fixture.store.put_bytes(b"weights B").unwrap();
    let second = fixture.store.publish(manifest("train", object)).unwrap();
    assert_eq!((second.manifest, second.outcome), (first, Outcome::Existing));
}

#[test]
fn a_manifest_without_its_object_is_not_published() {
    let fixture = Fixture::new();
    let digest = hash_bytes(b"never stored");
    let refused = fixture.store.publish(manifest("crop", (digest, 12)));
    assert!(matches!(refused, Err(StoreError::MissingObject { digest: named }) if named == digest));
}

#[test]
fn a_batch_publishes_all_its_manifests_in_order() {
    let fixture = Fixture::new();
    let batch = fixture.store.batch();
    for name in ["a", "b", "c"] {
        let object = batch.put_bytes(name.as_bytes()).unwrap();
        batch.add_manifest(manifest(name, object));
    }
    let published = batch.commit().unwrap();
    assert_eq!(published.iter().map(|one| one.manifest.key()).collect::<Vec<_>>(), ["a", "b", "c"].map(key));
    assert_eq!(result_of(&fixture.store, "b"), Some(b"b".to_vec()));
}

/// A batch with one result.
fn batch_of<'store>(store: &'store Store, name: &str) -> Batch<'store> {
    let batch = store.batch();
    let object = batch.put_bytes(name.as_bytes()).unwrap();
    batch.add_manifest(manifest(name, object));
    batch
}

#[test]
fn batches_that_are_committed_together_wait_for_the_disk_together() {
    let folder = tempfile::tempdir().unwrap();
    let waits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&waits);
    let hook = move |step| {
        use PublishStep::{SyncManifestFolders, SyncManifests, SyncObjectFolders, SyncObjects};
        let waits = matches!(step, SyncObjects | SyncObjectFolders | SyncManifests | SyncManifestFolders);
        counter.fetch_add(usize::from(waits), Ordering::Relaxed);
        Ok(())
    };
    let store = Store::open(folder.path()).unwrap().with_fault_hook(Arc::new(hook));
    let published = store.commit_together(["a", "b", "c"].map(|name| batch_of(&store, name)).into());
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    assert_eq!(waits.load(Ordering::Relaxed), 4);
}

#[test]
fn batches_that_are_committed_together_come_out_in_their_order() {
    let fixture = Fixture::new();
    let names = ["a", "b", "c"];
    let published = fixture.store.commit_together(names.map(|name| batch_of(&fixture.store, name)).into());
    let keys = published.into_iter().map(|one| one.unwrap()[0].manifest.key());
    assert_eq!(keys.collect::<Vec<_>>(), names.map(key));
}

#[test]
fn a_batch_without_its_object_fails_alone() {
    let fixture = Fixture::new();
    let missing = fixture.store.batch();
    missing.add_manifest(manifest("missing", (hash_bytes(b"nowhere"), 7)));
    let batches = vec![batch_of(&fixture.store, "a"), missing, batch_of(&fixture.store, "b")];
    let ends = fixture.store.commit_together(batches);
    assert_eq!(ends.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_batch_whose_staged_file_is_gone_fails_alone() {
    let fixture = Fixture::new();
    let first = batch_of(&fixture.store, "a");
    let tmp = fs::read_dir(fixture.store.root().join("tmp")).unwrap().next().unwrap().unwrap();
    for entry in fs::read_dir(tmp.path()).unwrap().map(Result::unwrap) {
        fs::remove_file(entry.path()).unwrap();
    }
    let ends = fixture.store.commit_together(vec![first, batch_of(&fixture.store, "b")]);
    assert_eq!(ends.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_transient_result_is_a_hit_without_bytes() {
    let fixture = Fixture::new();
    let transient = manifest("normalize", (hash_bytes(b"voxels"), 6)).transient();
    fixture.store.publish(transient.clone()).unwrap();
    assert_eq!(fixture.store.lookup(&key("normalize")).unwrap().hit(), Some(transient));
}

#[test]
fn a_kept_result_takes_the_place_of_a_transient_one() {
    let fixture = Fixture::new();
    let transient = manifest("normalize", (hash_bytes(b"voxels"), 6)).transient();
    fixture.store.publish(transient).unwrap();
    let object = fixture.store.put_bytes(b"voxels").unwrap();
    let published = fixture.store.publish(manifest("normalize", object)).unwrap();
    assert_eq!(published.outcome, Outcome::Upgraded);
    assert_eq!(result_of(&fixture.store, "normalize"), Some(b"voxels".to_vec()));
}

#[test]
fn a_transient_result_never_takes_the_place_of_a_kept_one() {
    let fixture = Fixture::new();
    let kept = publish(&fixture.store, "normalize", b"voxels");
    let published = fixture.store.publish(kept.clone().transient()).unwrap();
    assert_eq!((published.manifest, published.outcome), (kept, Outcome::Existing));
}

#[test]
fn items_and_incidental_files_survive_the_store() {
    let fixture = Fixture::new();
    let (digest, bytes) = fixture.store.put_bytes(b"epoch 1").unwrap();
    let log = FileEntry { name: "logs/train.log".into(), digest, bytes, incidental: true };
    let items = PortValue::Items([("case_1".to_owned(), Artifact::new(vec![log]).unwrap())].into());
    let manifest = Manifest::new(record("train"), [("logs".to_owned(), items)].into());
    fixture.store.publish(manifest.clone()).unwrap();
    assert_eq!(fixture.store.lookup(&key("train")).unwrap().hit(), Some(manifest));
}

#[test]
fn threads_that_publish_one_key_all_get_one_winner() {
    let fixture = Fixture::new();
    let winners: HashSet<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let store = &fixture.store;
                scope.spawn(move || {
                    let object = store.put_bytes(format!("thread {thread}").as_bytes()).unwrap();
                    let published = store.publish(manifest("train", object)).unwrap();
                    published.manifest.files().next().unwrap().digest
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(winners.len(), 1);
}

#[test]
fn processes_that_publish_the_same_keys_all_get_the_same_winners() {
    let fixture = Fixture::new();
    let children: Vec<_> = ["A", "B", "C"].map(|name| child::start("publish", fixture.store.root(), name)).into();
    let answers: HashSet<String> =
        children.into_iter().map(|process| child::answer(&process.wait_with_output().unwrap())).collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[test]
fn two_processes_may_make_one_store_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let children: Vec<_> = ["A", "B"].map(|name| child::start("publish", folder.path(), name)).into();
    let succeeded = children.into_iter().map(|process| process.wait_with_output().unwrap().status.success());
    assert_eq!(succeeded.collect::<Vec<_>>(), [true, true]);
}

#[test]
fn the_lease_of_a_process_that_died_is_free_and_its_checkpoint_is_found() {
    let fixture = Fixture::new();
    child::run("hold lease", fixture.store.root(), "train");
    let acquired = fixture.store.acquire_lease(&key("train"), &[]).unwrap();
    assert!(matches!(acquired, Acquired::Lease(_)), "{acquired:?}");
    let attempts = fixture.store.attempts(&key("train")).unwrap();
    assert_eq!(fs::read(attempts[0].folder.join("checkpoint")).unwrap(), b"weights");
}

#[test]
fn a_read_only_store_answers_and_refuses_to_write() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    let reader = Store::open_read_only(fixture.store.root()).unwrap();
    assert_eq!(result_of(&reader, "crop"), Some(b"voxels".to_vec()));
    assert!(matches!(reader.put_bytes(b"x"), Err(StoreError::ReadOnly { .. })));
}
