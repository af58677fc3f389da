//! What is wrong in a shared store, or with it, costs a result there and nothing else.

use nnflow_cache::{Key, hash_bytes};
use nnflow_shared::{Address, Mode, SharedError, SharedStore};

use crate::support::{Machine, Place, manifest_of, object};

const WEIGHTS: &[u8] = b"the weights of a network";

/// A shared store with one result, and its key.
fn pushed(place: &Place) -> (Machine, Key) {
    let here = Machine::new();
    let key = here.publish("train", &[WEIGHTS]);
    place.open(Mode::ReadWrite).push(&here.store, &[key]).unwrap();
    (here, key)
}

/// That the result cannot be fetched, that this is told once with a reason, and that the next push mends it.
fn check(place: &Place, here: &Machine, key: Key, reason: &str) {
    let there = Machine::new();
    let shared = place.open(Mode::ReadWrite);
    assert_eq!(shared.fetch(&there.store, &[key]), [None]);
    assert_eq!(shared.fetch(&there.store, &[key]), [None]);
    let warnings = shared.take_warnings();
    assert!(matches!(warnings.as_slice(), [warning] if warning.contains(reason)), "{warnings:?}");
    assert_eq!(there.contents(&key), None);
    assert!(there.store.verify(false).unwrap().is_clean());
    // The machine that found the flaw makes the result again and pushes it.
    there.publish("train", &[WEIGHTS]);
    shared.push(&there.store, &[key]).unwrap();
    let third = Machine::new();
    place.open(Mode::ReadOnly).fetch(&third.store, &[key]);
    assert_eq!(third.contents(&key), here.contents(&key));
}

#[test]
fn a_truncated_object_is_a_miss() {
    for place in Place::each() {
        let (here, key) = pushed(&place);
        place.put(&object(&hash_bytes(WEIGHTS)), Some(WEIGHTS[..10].to_vec()));
        check(&place, &here, key, "has 10 bytes, expected 24");
    }
}

#[test]
fn an_object_with_other_bytes_is_a_miss() {
    for place in Place::each() {
        let (here, key) = pushed(&place);
        let mut flipped = WEIGHTS.to_vec();
        flipped[7] ^= 1;
        place.put(&object(&hash_bytes(WEIGHTS)), Some(flipped));
        check(&place, &here, key, "has other bytes than its name says");
    }
}

#[test]
fn a_missing_object_is_a_miss() {
    for place in Place::each() {
        let (here, key) = pushed(&place);
        place.put(&object(&hash_bytes(WEIGHTS)), None);
        check(&place, &here, key, "is not there");
    }
}

#[test]
fn a_manifest_that_was_cut_short_is_a_miss() {
    for place in Place::each() {
        let (here, key) = pushed(&place);
        let mut bytes = place.read(&manifest_of(&key)).unwrap();
        bytes.truncate(bytes.len() / 2);
        place.put(&manifest_of(&key), Some(bytes));
        check(&place, &here, key, "does not end with a checksum");
    }
}

#[test]
fn the_manifest_of_another_key_is_a_miss() {
    for place in Place::each() {
        let (here, key) = pushed(&place);
        let other = here.publish("other", &[b"other"]);
        place.open(Mode::ReadWrite).push(&here.store, &[other]).unwrap();
        place.put(&manifest_of(&key), place.read(&manifest_of(&other)));
        check(&place, &here, key, "the manifest is that of key");
    }
}

#[test]
fn one_flawed_result_leaves_the_others_alone() {
    for place in Place::each() {
        let (here, there) = (Machine::new(), Machine::new());
        let keys = ["a", "b", "c"].map(|name| here.publish(name, &[name.as_bytes(), b"common"]));
        place.open(Mode::ReadWrite).push(&here.store, &keys).unwrap();
        place.put(&object(&hash_bytes(b"b")), Some(b"x".to_vec()));
        let fetched = place.open(Mode::ReadOnly).fetch(&there.store, &keys);
        assert_eq!(fetched.map_each(Option::is_some), [true, false, true]);
    }
}

/// So that a comparison with what is expected stays one line.
trait MapEach<T> {
    fn map_each<U>(&self, each: impl Fn(&T) -> U) -> Vec<U>;
}

impl<T> MapEach<T> for Vec<T> {
    fn map_each<U>(&self, each: impl Fn(&T) -> U) -> Vec<U> {
        self.iter().map(each).collect()
    }
}

#[test]
fn a_damaged_local_object_is_not_passed_on() {
    for place in Place::each() {
        let here = Machine::new();
        let key = here.publish("train", &[WEIGHTS]);
        let path = here.store.object_path(&hash_bytes(WEIGHTS));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, WEIGHTS.to_ascii_uppercase()).unwrap();
        let report = place.open(Mode::ReadWrite).push(&here.store, &[key]).unwrap();
        assert!(matches!(report.unpushed[0].error, Some(SharedError::DamagedHere { .. })), "{report:?}");
        assert_eq!(place.names(), ["VERSION"]);
    }
}

#[test]
fn a_server_that_is_not_there_is_told_of_once() {
    let variables = Place::s3().server().variables();
    let there = Machine::new();
    let address: Address = "s3://results/group".parse().unwrap();
    let shared = SharedStore::with_variables(address, Mode::ReadOnly, variables).unwrap();
    let keys: Vec<Key> = (0..200).map(|number: i32| Key::of(&number.into())).collect();
    assert!(shared.fetch(&there.store, &keys).iter().all(Option::is_none));
    assert!(shared.fetch(&there.store, &keys).iter().all(Option::is_none));
    let warnings = shared.take_warnings();
    let is_clear = |warning: &String| warning.starts_with("the shared store `s3://results/group` cannot be reached");
    assert!(warnings.len() == 1 && warnings.iter().all(is_clear), "{warnings:?}");
}

#[test]
fn a_folder_that_is_not_there_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Folder(folder.path().join("unmounted/shared"));
    for mode in [Mode::ReadOnly, Mode::ReadWrite] {
        let shared = SharedStore::new(address.clone(), mode).unwrap();
        assert_eq!(shared.fetch(&Machine::new().store, &[Key::of(&1.into())]), [None]);
        assert!(shared.take_warnings()[0].contains("unmounted/shared"));
    }
    assert!(!folder.path().join("unmounted").exists());
}

/// Three results, two objects each, one of which they have in common.
fn three(here: &Machine) -> [Key; 3] {
    ["a", "b", "c"].map(|name| here.publish(name, &[name.as_bytes(), b"common"]))
}

/// Does something for each number of requests after which a server may die; at the same time, since a dead server is waited for.
fn for_each_death(requests: std::ops::Range<i64>, check: impl Fn(i64) + Sync) {
    std::thread::scope(|scope| {
        for number in requests {
            let check = &check;
            scope.spawn(move || check(number));
        }
    });
}

#[test]
fn a_server_that_dies_while_results_are_pushed_leaves_no_manifest_without_its_objects() {
    // The number of requests after which it dies runs over all that a push of three results makes.
    for_each_death(0..24, |requests| {
        let place = Place::s3();
        let (here, there) = (Machine::new(), Machine::new());
        let keys = three(&here);
        place.server().die_after(requests);
        let pushed =
            place.open(Mode::ReadWrite).push(&here.store, &keys).is_ok_and(|report| report.unpushed.is_empty());
        place.server().die_after(i64::MAX);
        let shared = place.open(Mode::ReadOnly);
        let fetched = shared.fetch(&there.store, &keys);
        assert!(!pushed || fetched.iter().all(Option::is_some), "after {requests} requests");
        assert_eq!(shared.take_warnings(), Vec::<String>::new(), "after {requests} requests");
    });
}

#[test]
fn a_server_that_dies_while_results_are_fetched_leaves_a_clean_local_store() {
    for_each_death(0..9, |requests| {
        let place = Place::s3();
        let (here, there) = (Machine::new(), Machine::new());
        let keys = three(&here);
        place.open(Mode::ReadWrite).push(&here.store, &keys).unwrap();
        place.server().die_after(requests);
        let fetched = place.open(Mode::ReadOnly).fetch(&there.store, &keys);
        for (key, manifest) in keys.iter().zip(&fetched) {
            assert_eq!(there.contents(key).is_some(), manifest.is_some(), "after {requests} requests");
        }
        assert!(there.store.verify(false).unwrap().is_clean(), "after {requests} requests");
    });
}

#[test]
fn a_store_of_another_format_is_left_alone() {
    for place in Place::each() {
        let (here, key) = pushed(&place);
        place.put("VERSION", Some(b"7\n".to_vec()));
        let shared = place.open(Mode::ReadWrite);
        assert_eq!(shared.fetch(&Machine::new().store, &[key]), [None]);
        assert!(shared.take_warnings()[0].contains("has format `7`, expected `1`"));
        assert!(shared.push(&here.store, &[key]).is_err());
    }
}
