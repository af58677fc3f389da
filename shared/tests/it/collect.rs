//! Collection of a shared store.

use std::collections::HashSet;
use std::time::Duration;

use nnflow_cache::{Key, hash_bytes};
use nnflow_shared::{Mode, SharedGcOptions, SharedGcReport};

use crate::support::{Machine, Place, manifest_of, object};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A server with results `old` and `new`, which have an object in common, and an object that no manifest names. Everything
/// but `new` is ten days old.
fn place() -> (Place, [Key; 2]) {
    let place = Place::s3();
    let here = Machine::new();
    let keys = ["old", "new"].map(|name| here.publish(name, &[name.as_bytes(), b"common"]));
    let stray = here.publish("stray", &[b"stray"]);
    let shared = place.open(Mode::ReadWrite);
    shared.push(&here.store, &[keys[0], stray]).unwrap();
    place.put(&manifest_of(&stray), None);
    for stored in place.server().objects().values_mut() {
        stored.modified -= 10 * DAY;
    }
    shared.push(&here.store, &[keys[1]]).unwrap();
    (place, keys)
}

fn collect(place: &Place, options: &SharedGcOptions) -> SharedGcReport {
    place.open(Mode::ReadWrite).gc(options).unwrap()
}

fn has(place: &Place, content: &str) -> bool {
    place.names().contains(&object(&hash_bytes(content.as_bytes())))
}

#[test]
fn without_an_age_only_what_no_result_names_goes() {
    let (place, keys) = place();
    let report = collect(&place, &SharedGcOptions::default());
    let expected =
        SharedGcReport { kept_results: 2, kept_bytes: 12, dropped_results: 0, dropped_objects: 1, dropped_bytes: 5 };
    assert_eq!(report, expected);
    assert!(!has(&place, "stray") && has(&place, "old") && has(&place, "common"));
    let there = Machine::new();
    assert!(place.open(Mode::ReadOnly).fetch(&there.store, &keys).iter().all(Option::is_some));
}

#[test]
fn an_old_result_goes_with_the_objects_that_only_it_names() {
    let (place, keys) = place();
    let report = collect(&place, &SharedGcOptions { max_age: Some(5 * DAY), ..SharedGcOptions::default() });
    assert_eq!((report.kept_results, report.dropped_results, report.dropped_objects), (1, 1, 2));
    assert!(!has(&place, "old") && has(&place, "new") && has(&place, "common"));
    let there = Machine::new();
    let shared = place.open(Mode::ReadOnly);
    let fetched = shared.fetch(&there.store, &keys);
    assert_eq!(fetched.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    assert_eq!(shared.take_warnings(), Vec::<String>::new());
}

#[test]
fn a_pinned_result_stays_whatever_its_age() {
    let (place, keys) = place();
    let pins = HashSet::from([keys[0]]);
    let report = collect(&place, &SharedGcOptions { max_age: Some(5 * DAY), pins, ..SharedGcOptions::default() });
    assert_eq!((report.kept_results, report.dropped_results), (2, 0));
    assert!(has(&place, "old"));
}

#[test]
fn within_the_grace_time_nothing_goes() {
    let (place, _) = place();
    let before = place.names();
    let options = SharedGcOptions { max_age: Some(Duration::ZERO), grace: 20 * DAY, ..SharedGcOptions::default() };
    assert_eq!(collect(&place, &options).dropped_results, 0);
    assert_eq!(place.names(), before);
}

#[test]
fn a_dry_run_tells_the_same_and_removes_nothing() {
    let (place, _) = place();
    let before = place.names();
    let options = SharedGcOptions { max_age: Some(5 * DAY), ..SharedGcOptions::default() };
    let told = collect(&place, &SharedGcOptions { dry_run: true, ..options.clone() });
    assert_eq!(place.names(), before);
    assert_eq!(collect(&place, &options), told);
}

#[test]
fn a_damaged_manifest_goes_when_it_is_old() {
    let (place, keys) = place();
    place.put(&manifest_of(&keys[0]), Some(b"{".to_vec()));
    place.put(&manifest_of(&keys[1]), Some(b"{".to_vec()));
    collect(&place, &SharedGcOptions::default());
    let names = place.names();
    assert!(!names.contains(&manifest_of(&keys[0])) && names.contains(&manifest_of(&keys[1])));
}

#[test]
fn a_server_that_does_not_answer_loses_nothing() {
    let (place, _) = place();
    let before = place.names();
    for requests in 0..4 {
        place.server().die_after(requests);
        place.open(Mode::ReadWrite).gc(&SharedGcOptions::default()).unwrap_err();
        assert_eq!(place.names(), before, "after {requests} requests");
    }
}

#[test]
fn a_folder_is_collected_as_well() {
    let place = Place::folder();
    let here = Machine::new();
    let key = here.publish("train", &[b"weights"]);
    place.open(Mode::ReadWrite).push(&here.store, &[key]).unwrap();
    let options =
        SharedGcOptions { max_age: Some(Duration::ZERO), grace: Duration::ZERO, ..SharedGcOptions::default() };
    let report = collect(&place, &options);
    assert_eq!((report.dropped_results, report.dropped_objects, report.dropped_bytes), (1, 1, 7));
    assert_eq!(place.names(), ["VERSION"]);
}
