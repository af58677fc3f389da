use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    (folder, store)
}

/// Long enough after now for every file made by a test to be settled.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

/// A cache that believes a file to have content that it does not have, so that a hit shows.
fn cache_with_lie<'store>(store: &'store Store, path: &Path) -> (StatCache<'store>, Digest) {
    let lie = hash_bytes(b"not what is in the file");
    let cache = store.stat_cache().unwrap();
    let fingerprint = Fingerprint::of(&fs::metadata(path).unwrap());
    let used = days_since_1970(SystemTime::now());
    cache.state().entries.insert(fingerprint, Entry { digest: lie, used });
    cache.state().changed = true;
    (cache, lie)
}

#[test]
fn a_settled_file_is_remembered() {
    let (folder, store) = store();
    let path = folder.path().join("image");
    fs::write(&path, "voxels").unwrap();
    let cache = store.stat_cache().unwrap();
    let found = cache.digest_at(&path, later()).unwrap();
    assert_eq!((found.digest, found.bytes, cache.len()), (hash_bytes(b"voxels"), 6, 1));
}

#[test]
fn a_file_that_changed_a_moment_ago_is_not_remembered() {
    let (folder, store) = store();
    let path = folder.path().join("image");
    fs::write(&path, "voxels").unwrap();
    let cache = store.stat_cache().unwrap();
    cache.digest_of(&path).unwrap();
    assert!(cache.is_empty());
}

#[test]
fn a_time_in_the_future_is_not_trusted() {
    let (folder, store) = store();
    let path = folder.path().join("image");
    fs::write(&path, "voxels").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(later() + Duration::from_secs(60)).unwrap();
    let cache = store.stat_cache().unwrap();
    cache.digest_at(&path, later()).unwrap();
    assert!(cache.is_empty());
}

#[test]
fn a_known_file_is_not_read() {
    let (folder, store) = store();
    let path = folder.path().join("image");
    fs::write(&path, "voxels").unwrap();
    let (cache, lie) = cache_with_lie(&store, &path);
    assert_eq!(cache.digest_of(&path).unwrap().digest, lie);
}

#[test]
fn a_file_of_the_same_size_and_modification_time_is_read_again_after_a_change() {
    let (folder, store) = store();
    let path = folder.path().join("image");
    fs::write(&path, "voxels").unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let (cache, _) = cache_with_lie(&store, &path);
    // A copy that keeps the old modification time, as `cp -p` and `rsync -t` make it, has another inode.
    let copy = folder.path().join("copy");
    fs::write(&copy, "VOXELS").unwrap();
    File::options().write(true).open(&copy).unwrap().set_modified(modified).unwrap();
    fs::rename(&copy, &path).unwrap();
    assert_eq!(cache.digest_of(&path).unwrap().digest, hash_bytes(b"VOXELS"));
}

#[test]
fn what_was_saved_is_loaded() {
    let (folder, store) = store();
    let path = folder.path().join("image");
    fs::write(&path, "voxels").unwrap();
    let (cache, lie) = cache_with_lie(&store, &path);
    cache.save().unwrap();
    assert_eq!(store.stat_cache().unwrap().digest_of(&path).unwrap().digest, lie);
}

#[test]
fn saving_keeps_what_another_process_saved() {
    let (folder, store) = store();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| fs::write(path, path.to_str().unwrap()).unwrap());
    let (first, _) = cache_with_lie(&store, &paths[0]);
    let (second, _) = cache_with_lie(&store, &paths[1]);
    first.save().unwrap();
    second.save().unwrap();
    assert_eq!(store.stat_cache().unwrap().len(), 2);
}

#[test]
fn entries_that_nobody_used_for_a_season_are_forgotten() {
    let (folder, store) = store();
    let path = folder.path().join("image");
    fs::write(&path, "voxels").unwrap();
    let (cache, _) = cache_with_lie(&store, &path);
    cache.state().entries.values_mut().for_each(|entry| entry.used -= KEEP_DAYS + 1);
    cache.save().unwrap();
    assert!(store.stat_cache().unwrap().is_empty());
}

#[test]
fn a_damaged_file_is_an_empty_cache() {
    let (folder, store) = store();
    let path = folder.path().join("image");
    fs::write(&path, "voxels").unwrap();
    let (cache, _) = cache_with_lie(&store, &path);
    let bytes = encode(&cache.state().entries);
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged).is_none(), "bit {bit}");
    }
}

#[test]
fn entries_survive_the_file_format() {
    arbtest::arbtest(|u| {
        let fingerprint = Fingerprint {
            device: u.arbitrary()?,
            inode: u.arbitrary()?,
            bytes: u.arbitrary()?,
            modified: u.arbitrary()?,
            changed: u.arbitrary()?,
        };
        let entry = Entry { digest: Digest::from_bytes(u.arbitrary()?), used: u.arbitrary()? };
        let decoded = decode(&encode(&[(fingerprint, entry)].into())).unwrap();
        let found = decoded.get(&fingerprint).unwrap();
        assert_eq!((found.digest, found.used), (entry.digest, entry.used));
        Ok(())
    });
}

#[test]
fn every_file_of_many_has_its_own_answer() {
    let (folder, store) = store();
    let present = folder.path().join("image");
    fs::write(&present, "voxels").unwrap();
    let answers = store.stat_cache().unwrap().digests_of(&[present, folder.path().join("absent")]);
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
}
