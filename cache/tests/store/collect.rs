//! What a collection takes, and what it must never take.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use nnflow_cache::{Acquired, GcOptions, GcReport, hash_bytes};

use crate::child;
use crate::support::{Fixture, age, key, publish, result_of};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Publishes a result that was last used some days ago.
fn publish_old(fixture: &Fixture, name: &str, content: &[u8], days: u32) {
    publish(&fixture.store, name, content);
    age(&fixture.store.manifest_path(&key(name)), days * DAY);
    age(&fixture.store.object_path(&hash_bytes(content)), days * DAY);
}

fn collect(fixture: &Fixture, options: GcOptions) -> GcReport {
    fixture.store.gc(&options).unwrap()
}

/// Which of some results are left.
fn left<const N: usize>(fixture: &Fixture, names: [&str; N]) -> [bool; N] {
    names.map(|name| result_of(&fixture.store, name).is_some())
}

fn older_than(days: u32) -> GcOptions {
    GcOptions { max_age: Some(days * DAY), ..GcOptions::default() }
}

fn at_most(bytes: u64) -> GcOptions {
    GcOptions { max_bytes: Some(bytes), ..GcOptions::default() }
}

#[test]
fn without_limits_every_result_stays() {
    let fixture = Fixture::new();
    publish_old(&fixture, "crop", b"voxels", 1000);
    collect(&fixture, GcOptions::default());
    assert_eq!(left(&fixture, ["crop"]), [true]);
}

#[test]
fn what_was_not_used_for_long_goes_with_its_bytes() {
    let fixture = Fixture::new();
    publish_old(&fixture, "crop", b"voxels", 20);
    publish_old(&fixture, "plan", b"patch size", 5);
    let report = collect(&fixture, older_than(10));
    assert_eq!(left(&fixture, ["crop", "plan"]), [false, true]);
    assert_eq!((report.dropped_manifests, report.dropped_objects, report.dropped_bytes), (1, 1, 6));
    assert!(!fixture.store.has(&hash_bytes(b"voxels")));
}

#[test]
fn within_a_size_the_newest_use_stays() {
    let fixture = Fixture::new();
    publish_old(&fixture, "a", b"aaaa", 3);
    publish_old(&fixture, "b", b"bbbb", 1);
    publish_old(&fixture, "c", b"cccc", 2);
    let report = collect(&fixture, at_most(8));
    assert_eq!(left(&fixture, ["a", "b", "c"]), [false, true, true]);
    assert_eq!(report.kept_bytes, 8);
}

#[test]
fn bytes_that_two_results_share_count_once() {
    let fixture = Fixture::new();
    publish_old(&fixture, "a", b"same", 1);
    publish_old(&fixture, "b", b"same", 2);
    collect(&fixture, at_most(4));
    assert_eq!(left(&fixture, ["a", "b"]), [true, true]);
}

#[test]
fn a_shared_object_stays_while_one_result_needs_it() {
    let fixture = Fixture::new();
    publish_old(&fixture, "old", b"same", 20);
    publish_old(&fixture, "new", b"same", 1);
    age(&fixture.store.object_path(&hash_bytes(b"same")), 20 * DAY);
    collect(&fixture, older_than(10));
    assert_eq!(left(&fixture, ["old", "new"]), [false, true]);
}

#[test]
fn what_is_young_stays_even_beyond_the_size() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    collect(&fixture, at_most(0));
    assert_eq!(left(&fixture, ["crop"]), [true]);
}

#[test]
fn a_young_object_that_no_manifest_names_yet_stays() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"about to be published").unwrap();
    collect(&fixture, at_most(0));
    assert!(fixture.store.has(&digest));
}

#[test]
fn an_old_object_that_is_put_again_is_young() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"voxels").unwrap();
    age(&fixture.store.object_path(&digest), 20 * DAY);
    fixture.store.put_bytes(b"voxels").unwrap();
    collect(&fixture, GcOptions::default());
    assert!(fixture.store.has(&digest));
}

#[test]
fn an_old_object_that_no_manifest_names_goes() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"left by a crash").unwrap();
    age(&fixture.store.object_path(&digest), DAY);
    collect(&fixture, GcOptions::default());
    assert!(!fixture.store.has(&digest));
}

#[test]
fn a_pinned_result_stays() {
    let fixture = Fixture::new();
    publish_old(&fixture, "baseline", b"voxels", 1000);
    collect(&fixture, GcOptions { pins: vec![key("baseline")], max_bytes: Some(0), ..older_than(1) });
    assert_eq!(left(&fixture, ["baseline"]), [true]);
}

#[test]
fn what_a_living_lease_reads_stays() {
    let fixture = Fixture::new();
    publish_old(&fixture, "resample", b"voxels", 1000);
    let Acquired::Lease(_lease) = fixture.store.acquire_lease(&key("train"), &[key("resample")]).unwrap() else {
        panic!("nobody else can hold the lease");
    };
    collect(&fixture, GcOptions { max_bytes: Some(0), ..older_than(1) });
    assert_eq!(left(&fixture, ["resample"]), [true]);
}

/// A collection without any grace.
fn at_once() -> GcOptions {
    GcOptions { max_bytes: Some(0), grace: Duration::ZERO, ..GcOptions::default() }
}

/// Starts a process that has found a result and may still need it.
fn start_using(fixture: &Fixture, name: &str) -> std::process::Child {
    let mut command = child::command("use", fixture.store.root(), name);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().ends_with("answer: true")).expect("the child finds the result").unwrap();
    child
}

#[test]
fn what_a_living_process_has_found_stays_with_its_bytes() {
    let fixture = Fixture::new();
    publish_old(&fixture, "resample", b"voxels", 1000);
    publish_old(&fixture, "crop", b"box", 1000);
    let mut child = start_using(&fixture, "resample");
    let report = collect(&fixture, at_once());
    let bytes = fixture.store.has(&hash_bytes(b"voxels"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((report.kept_manifests, report.dropped_manifests, bytes), (1, 1, true));
}

#[test]
fn what_a_killed_process_has_found_goes() {
    let fixture = Fixture::new();
    publish_old(&fixture, "resample", b"voxels", 1000);
    let mut child = start_using(&fixture, "resample");
    child.kill().unwrap();
    child.wait().unwrap();
    // Finding it was a use, and what was used as late as the collection begins would stay for that alone.
    age(&fixture.store.manifest_path(&key("resample")), DAY);
    collect(&fixture, at_once());
    assert_eq!(left(&fixture, ["resample"]), [false]);
}

#[test]
fn what_was_put_since_a_living_process_began_stays() {
    let fixture = Fixture::new();
    publish(&fixture.store, "plan", b"patch size");
    let mut child = start_using(&fixture, "plan");
    let (digest, _) = fixture.store.put_bytes(b"about to be named").unwrap();
    collect(&fixture, at_once());
    let stays = fixture.store.has(&digest);
    child.kill().unwrap();
    child.wait().unwrap();
    collect(&fixture, at_once());
    assert_eq!((stays, fixture.store.has(&digest)), (true, false));
}

#[test]
fn what_is_written_while_a_collection_runs_stays() {
    let fixture = Fixture::new();
    let (digest, _) = fixture.store.put_bytes(b"about to be named").unwrap();
    // By the clock of the file system it came after the collection had begun.
    let path = fixture.store.object_path(&digest);
    fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::now() + DAY).unwrap();
    collect(&fixture, at_once());
    assert!(fixture.store.has(&digest));
}

#[test]
fn a_looked_up_result_is_used() {
    let fixture = Fixture::new();
    publish_old(&fixture, "crop", b"voxels", 20);
    fixture.store.lookup(&key("crop")).unwrap();
    collect(&fixture, older_than(10));
    assert_eq!(left(&fixture, ["crop"]), [true]);
}

#[test]
fn a_manifest_that_cannot_be_read_goes_when_it_is_old() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    let path = fixture.store.manifest_path(&key("crop"));
    crate::support::replace(&path, b"{");
    age(&path, DAY);
    collect(&fixture, GcOptions::default());
    assert!(!path.exists());
}

#[test]
fn a_dry_run_reports_the_same_and_takes_nothing() {
    let fixture = Fixture::new();
    publish_old(&fixture, "crop", b"voxels", 20);
    publish_old(&fixture, "plan", b"patch size", 5);
    let dry = collect(&fixture, GcOptions { dry_run: true, ..older_than(10) });
    assert!(fixture.store.manifest_path(&key("crop")).exists() && fixture.store.has(&hash_bytes(b"voxels")));
    assert_eq!(dry, collect(&fixture, older_than(10)));
}

#[test]
fn a_checkpoint_of_a_dead_process_stays_until_its_result_is_published() {
    let fixture = Fixture::new();
    child::run("hold lease", fixture.store.root(), "train");
    collect(&fixture, GcOptions::default());
    let unpublished = fixture.store.attempts(&key("train")).unwrap().len();
    publish(&fixture.store, "train", b"weights");
    let report = collect(&fixture, GcOptions::default());
    assert_eq!((unpublished, fixture.store.attempts(&key("train")).unwrap().len()), (1, 0));
    assert_eq!((report.dropped_attempts, report.dropped_attempt_bytes), (1, "weights".len() as u64));
}

#[test]
fn an_old_checkpoint_of_a_dead_process_goes() {
    let fixture = Fixture::new();
    child::run("hold lease", fixture.store.root(), "train");
    collect(&fixture, GcOptions { work_age: Duration::ZERO, ..GcOptions::default() });
    assert_eq!(fixture.store.attempts(&key("train")).unwrap(), []);
}

#[test]
fn work_of_a_living_process_stays() {
    let fixture = Fixture::new();
    publish(&fixture.store, "train", b"weights");
    let attempt = fixture.store.new_attempt(&key("train")).unwrap();
    collect(&fixture, GcOptions { work_age: Duration::ZERO, ..GcOptions::default() });
    assert!(attempt.folder.is_dir());
}

#[test]
fn the_lease_of_a_dead_process_goes() {
    let fixture = Fixture::new();
    child::run("hold lease", fixture.store.root(), "train");
    assert_eq!(collect(&fixture, GcOptions::default()).dropped_leases, 1);
    assert_eq!(fs::read_dir(fixture.store.root().join("leases")).unwrap().count(), 0);
}

#[test]
fn an_emptied_staging_folder_does_not_stop_its_process() {
    let fixture = Fixture::new();
    fixture.store.put_bytes(b"a").unwrap();
    fs::remove_dir_all(fixture.store.root().join("tmp")).unwrap();
    fixture.store.put_bytes(b"b").unwrap();
    assert!(fixture.store.has(&hash_bytes(b"b")));
}
