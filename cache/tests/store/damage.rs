//! Files that were cut short, altered, lost or misplaced.

use std::fs;

use nnflow_cache::{Lookup, ManifestError, MissReason, ObjectProblem, Outcome, Store, StoreError, hash_bytes};

use crate::support::{Fixture, flip_bit, key, manifest, publish, replace, result_of};

#[test]
fn a_manifest_cut_short_is_a_miss() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    let path = fixture.store.manifest_path(&key("crop"));
    let bytes = fs::read(&path).unwrap();
    replace(&path, &bytes[..bytes.len() / 2]);
    let expected = MissReason::Damaged(ManifestError::CutShort { bytes: bytes.len() / 2 });
    assert_eq!(fixture.store.lookup(&key("crop")).unwrap(), Lookup::Miss(expected));
}

#[test]
fn an_empty_manifest_is_a_miss() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    replace(&fixture.store.manifest_path(&key("crop")), b"");
    let expected = MissReason::Damaged(ManifestError::CutShort { bytes: 0 });
    assert_eq!(fixture.store.lookup(&key("crop")).unwrap(), Lookup::Miss(expected));
}

#[test]
fn a_manifest_with_a_flipped_bit_is_a_miss() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    flip_bit(&fixture.store.manifest_path(&key("crop")), 40);
    let expected = MissReason::Damaged(ManifestError::Checksum);
    assert_eq!(fixture.store.lookup(&key("crop")).unwrap(), Lookup::Miss(expected));
}

#[test]
fn a_manifest_under_the_name_of_another_is_a_miss() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    fs::create_dir_all(fixture.store.manifest_path(&key("plan")).parent().unwrap()).unwrap();
    fs::copy(fixture.store.manifest_path(&key("crop")), fixture.store.manifest_path(&key("plan"))).unwrap();
    let expected = MissReason::Misplaced { found: key("crop") };
    assert_eq!(fixture.store.lookup(&key("plan")).unwrap(), Lookup::Miss(expected));
}

#[test]
fn a_missing_object_is_a_miss_that_names_it() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    let digest = hash_bytes(b"voxels");
    fs::remove_file(fixture.store.object_path(&digest)).unwrap();
    let expected = MissReason::MissingObject { name: "image.nna".into(), digest };
    assert_eq!(fixture.store.lookup(&key("crop")).unwrap(), Lookup::Miss(expected));
}

#[test]
fn an_object_cut_short_is_a_miss_that_tells_both_sizes() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    let digest = hash_bytes(b"voxels");
    replace(&fixture.store.object_path(&digest), b"vox");
    let expected = MissReason::WrongSize { name: "image.nna".into(), digest, expected: 6, found: 3 };
    assert_eq!(fixture.store.lookup(&key("crop")).unwrap(), Lookup::Miss(expected));
}

#[test]
fn a_damaged_manifest_is_replaced_by_the_next_publisher() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    flip_bit(&fixture.store.manifest_path(&key("crop")), 40);
    let object = fixture.store.put_bytes(b"voxels").unwrap();
    assert_eq!(fixture.store.publish(manifest("crop", object)).unwrap().outcome, Outcome::Repaired);
    assert_eq!(result_of(&fixture.store, "crop"), Some(b"voxels".to_vec()));
}

#[test]
fn a_manifest_that_lost_its_object_is_replaced_by_one_with_other_objects() {
    let fixture = Fixture::new();
    publish(&fixture.store, "train", b"weights A");
    fs::remove_file(fixture.store.object_path(&hash_bytes(b"weights A"))).unwrap();
    publish(&fixture.store, "train", b"weights B");
    assert_eq!(result_of(&fixture.store, "train"), Some(b"weights B".to_vec()));
}

#[test]
fn verification_finds_nothing_wrong_with_a_sound_store() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    let report = fixture.store.verify(false).unwrap();
    assert!(report.is_clean());
    assert_eq!((report.objects, report.object_bytes, report.manifests), (1, 6, 1));
}

#[test]
fn verification_finds_a_flipped_bit_and_the_result_that_it_spoils() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    publish(&fixture.store, "plan", b"patch size");
    let digest = hash_bytes(b"voxels");
    flip_bit(&fixture.store.object_path(&digest), 0);
    let report = fixture.store.verify(false).unwrap();
    assert_eq!(report.wrong_objects.len(), 1);
    assert_eq!(report.wrong_objects[0].problem, ObjectProblem::Content { found: hash_bytes(b"woxels") });
    assert_eq!(report.bad_manifests.len(), 1);
    let spoiled = &report.bad_manifests[0];
    let expected = MissReason::DamagedObject { name: "image.nna".into(), digest };
    assert_eq!((spoiled.key, &spoiled.reason), (key("crop"), &expected));
}

#[test]
fn repair_turns_a_flipped_bit_into_a_miss_and_keeps_the_rest() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    publish(&fixture.store, "plan", b"patch size");
    flip_bit(&fixture.store.object_path(&hash_bytes(b"voxels")), 0);
    fixture.store.verify(true).unwrap();
    let results = ["crop", "plan"].map(|name| result_of(&fixture.store, name));
    assert_eq!(results, [None, Some(b"patch size".to_vec())]);
    assert!(fixture.store.verify(false).unwrap().is_clean());
}

#[test]
fn looking_removes_nothing() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    let path = fixture.store.object_path(&hash_bytes(b"voxels"));
    flip_bit(&path, 0);
    fixture.store.verify(false).unwrap();
    assert!(path.exists() && fixture.store.manifest_path(&key("crop")).exists());
}

#[test]
fn a_single_object_can_be_verified() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    flip_bit(&fixture.store.object_path(&digest), 0);
    let error = fixture.store.verify_object(&digest).unwrap_err();
    assert!(matches!(error, StoreError::WrongObject { found, .. } if found == hash_bytes(b"woxels")));
}

#[test]
fn a_flipped_bit_of_an_object_that_is_about_to_be_read_is_found() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    flip_bit(&fixture.store.object_path(&digest), 0);
    // Another process; this one has just written the object.
    let store = Store::open(fixture.store.root()).unwrap();
    let error = store.check_sound(&[digest]).unwrap_err();
    assert!(matches!(error, StoreError::WrongObject { found, .. } if found == hash_bytes(b"woxels")));
}

#[test]
fn an_object_is_read_once_to_be_checked() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    let store = Store::open(fixture.store.root()).unwrap();
    store.check_sound(&[digest]).unwrap();
    flip_bit(&store.object_path(&digest), 0);
    for store in [&store, &fixture.store] {
        store.check_sound(&[digest]).unwrap();
    }
}

#[test]
fn an_object_that_was_found_wrong_is_looked_at_again() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    flip_bit(&fixture.store.object_path(&digest), 0);
    let store = Store::open(fixture.store.root()).unwrap();
    store.check_sound(&[digest]).unwrap_err();
    flip_bit(&store.object_path(&digest), 0);
    store.check_sound(&[digest]).unwrap();
}

#[test]
fn a_stray_file_is_reported_and_left_alone() {
    let fixture = Fixture::new();
    let path = fixture.store.root().join("objects/ab/notes.txt");
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "mine").unwrap();
    assert_eq!(fixture.store.verify(true).unwrap().strays, [path.as_path()]);
    assert!(path.exists());
}

#[test]
fn a_manifest_whose_record_was_exchanged_is_found_by_verification() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    let path = fixture.store.manifest_path(&key("crop"));
    let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
    let (text, _) = text.rsplit_once(",\"checksum\"").unwrap();
    let forged = text.replace("\"name\":\"crop\"", "\"name\":\"plan\"");
    let checksum = hash_bytes(forged.as_bytes());
    replace(&path, format!("{forged},\"checksum\":\"{checksum}\"}}\n").as_bytes());
    assert_eq!(fixture.store.verify(false).unwrap().bad_manifests[0].reason, MissReason::Inconsistent);
}
