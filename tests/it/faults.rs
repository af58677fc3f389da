//! Disks that are full or protected, and stores of which something was lost or has changed: an exact error, or the work is
//! done again; never a wrong result, and never a panic.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use insta::assert_snapshot;
use nnflow::engine::lock::Lock;
use nnflow_cache::Store;
use nnflow_kernels::random::CounterRandom;

use crate::support::{Ended, Project, exit};

/// What decides which bits flip.
const SEED: u64 = 20_260_102;

/// A user who owns nothing.
const NOBODY: u32 = 65534;

/// What makes all images be read again from what is in the store.
const CHANGED: [&str; 2] = ["--set", "stages.resample.with.image_order=1"];

/// What a script exits with that may not mount.
const NOT_ALLOWED: i32 = 99;

/// Runs a shell script in a project's folder with mounts of its own, in which `$NNFLOW` is the program; nothing, and a word
/// about it, where that is not allowed.
fn with_mounts(project: &Project, script: &str) -> Option<Ended> {
    let nnflow = project.command(&[]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).current_dir(project.path("."));
    command.env("NNFLOW", nnflow.get_program());
    command.envs(nnflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = Ended::if_started(&mut command);
    let ended = ended.filter(|ended| ended.code != NOT_ALLOWED && !ended.err.contains("unshare: "));
    if ended.is_none() {
        eprintln!("skipped: this user may not mount a disk");
    }
    ended
}

/// The text without this project's folder and without the names that differ from process to process.
fn redact(project: &Project, text: &str) -> String {
    let text = project.redact(text);
    let words = text.split_inclusive([' ', '/', '`', '\n']).map(|word| {
        let name = word.trim_end_matches([' ', '/', '`', '\n']);
        let hexadecimal = name.len() >= 16 && name.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-');
        if hexadecimal { word.replace(name, "[name]") } else { word.to_owned() }
    });
    words.collect()
}

fn assert_no_panic(ended: &Ended) {
    assert!(!ended.err.contains("panicked") && ended.code != 101, "{}", ended.err);
}

#[test]
fn a_disk_that_fills_up_is_told_and_loses_nothing() {
    let lock = Project::prepared().read("workflow.lock");
    let script = |size: u32| {
        format!(
            "mkdir -p disk; mount -t tmpfs -o size={size}k tmpfs disk || exit {NOT_ALLOWED}
            $NNFLOW run --quiet --threads 1 --store disk/store; first=$?
            mount -o remount,size=64m disk || exit {NOT_ALLOWED}
            echo 'with more room:' >&2
            $NNFLOW run --quiet --store disk/store && $NNFLOW cache verify --store disk/store >/dev/null || exit 1
            exit $first"
        )
    };
    let mut codes = Vec::new();
    for size in [64, 128, 256, 400, 600, 900, 1400, 65_536] {
        let project = Project::preparing();
        let Some(ended) = with_mounts(&project, &script(size)) else { return };
        assert_no_panic(&ended);
        assert!(matches!(ended.code, exit::DONE | exit::STORAGE), "{size} KiB: {} {}", ended.code, ended.err);
        let (first, second) = ended.err.split_once("with more room:\n").expect("the script says so");
        assert_eq!(
            (second, first.contains("No space left on device")),
            ("", ended.code == exit::STORAGE),
            "{size} KiB: {first}"
        );
        assert_eq!(project.read("workflow.lock"), lock, "{size} KiB");
        codes.push(ended.code);
    }
    assert_eq!((codes.first(), codes.last()), (Some(&exit::STORAGE), Some(&exit::DONE)), "{codes:?}");
}

#[test]
fn a_disk_without_room_for_a_store() {
    let project = Project::preparing();
    let script = format!(
        "mkdir disk; mount -t tmpfs -o size=4k tmpfs disk || exit {NOT_ALLOWED}
        $NNFLOW run --store disk/store"
    );
    let Some(ended) = with_mounts(&project, &script) else { return };
    assert_eq!(ended.code, exit::STORAGE);
    assert_snapshot!(redact(&project, &ended.err), @"
    error: cannot write `[project]/disk/store/tmp/[name]/0`
      because: No space left on device (os error 28)
    hint: free some space, for instance with `nnflow cache gc`, or put the store elsewhere with `--store`
    ");
}

/// Makes the store of a project in a script read-only.
fn read_only() -> String {
    format!("mount --bind .nnflow .nnflow && mount -o remount,bind,ro .nnflow || exit {NOT_ALLOWED}\n")
}

#[test]
fn a_read_only_store_gives_what_it_has() {
    let project = Project::prepared();
    let Some(ended) = with_mounts(&project, &(read_only() + "$NNFLOW run --quiet")) else { return };
    assert_eq!(ended.code, exit::DONE, "{}", ended.err);
}

#[test]
fn a_read_only_store_takes_nothing() {
    let project = Project::prepared();
    let script = read_only() + "$NNFLOW run --quiet --set stages.resample.with.image_order=1";
    let Some(ended) = with_mounts(&project, &script) else { return };
    assert_eq!(ended.code, exit::STORAGE);
    assert_snapshot!(redact(&project, &ended.err), @"
    error: cannot create the folder `[project]/.nnflow/tmp/[name]`
      because: Read-only file system (os error 30)
    hint: put the store where it can be written with `--store`
    ");
}

/// Runs a command as somebody who may read everything in the project and write nothing.
fn as_nobody(project: &Project, arguments: &[&str]) -> Option<Ended> {
    let is_root = fs_err::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
    let readable = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(project.path("."), readable).expect("the folder's mode can be set");
    let mut command = project.command(arguments);
    command.uid(NOBODY).gid(NOBODY);
    let ended = if is_root { Ended::if_started(&mut command) } else { None };
    if ended.is_none() {
        eprintln!("skipped: this user may not become another one, or that one may not see the project");
    }
    ended
}

#[test]
fn a_store_of_someone_else_gives_what_it_has() {
    let project = Project::prepared();
    let Some(ended) = as_nobody(&project, &["run", "--quiet"]) else { return };
    assert_eq!(ended.code, exit::DONE, "{}", ended.err);
}

#[test]
fn a_store_of_someone_else_takes_nothing() {
    let project = Project::prepared();
    let Some(ended) = as_nobody(&project, &[&["run", "--quiet"], &CHANGED[..]].concat()) else { return };
    assert_eq!(ended.code, exit::STORAGE);
    assert_snapshot!(redact(&project, &ended.err), @"
    error: cannot create the folder `[project]/.nnflow/tmp/[name]`
      because: Permission denied (os error 13)
    hint: ask the owner for access, or use a store of your own with `--store`
    ");
}

#[test]
fn an_object_that_may_not_be_read() {
    let project = Project::prepared();
    for object in files(&project.path(".nnflow/objects")) {
        fs_err::set_permissions(&object, std::fs::Permissions::from_mode(0o000)).expect("the mode can be set");
    }
    let Some(ended) = as_nobody(&project, &["run", "--quiet", "--store", ".nnflow"]) else { return };
    assert_no_panic(&ended);
    assert_eq!(ended.code, exit::STORAGE, "{}", ended.err);
    assert!(ended.err.contains("Permission denied"), "{}", ended.err);
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).expect("a folder can be read").flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

/// Flips a bit of a file, whatever its mode; returns what it held before.
fn flip(path: &Path, dice: &mut CounterRandom) -> Vec<u8> {
    let before = fs_err::read(path).expect("the file can be read");
    let mut bytes = before.clone();
    let byte = dice.next_u32() as usize % bytes.len();
    bytes[byte] ^= 1 << (dice.next_u32() % 8);
    put(path, &bytes);
    before
}

fn put(path: &Path, bytes: &[u8]) {
    fs_err::remove_file(path).expect("the file can be removed");
    fs_err::write(path, bytes).expect("the file can be written");
}

fn results(project: &Project) -> BTreeMap<String, String> {
    project.results(&[])
}

fn verify(project: &Project) -> bool {
    let store = Store::open(project.path(".nnflow")).expect("the store can be opened");
    store.verify(false).expect("the store can be read").is_clean()
}

#[test]
fn any_object_that_is_gone_is_made_again() {
    let project = Project::prepared();
    let before = results(&project);
    for object in files(&project.path(".nnflow/objects")).iter().step_by(3) {
        fs_err::remove_file(object).expect("the object can be removed");
        let run = project.run(&["--quiet"]).expect(exit::DONE);
        assert!(!run.units().is_empty() && object.is_file(), "{}", object.display());
    }
    assert_eq!(results(&project), before);
}

#[test]
fn a_flipped_bit_of_an_object_is_found_before_it_is_read() {
    let changed = Project::prepared();
    changed.run(&CHANGED).expect(exit::DONE);
    let (expected, mut dice, mut found) = (changed.results(&CHANGED), CounterRandom::new(SEED, [0, 0, 0]), 0);
    let objects = files(&Project::prepared().path(".nnflow/objects")).len();
    for number in (0..objects).step_by(4) {
        let project = Project::prepared();
        let object = &files(&project.path(".nnflow/objects"))[number];
        flip(object, &mut dice);
        let run = project.run(&CHANGED);
        match run.code {
            Some(exit::STORAGE) => {
                found += 1;
                assert!(run.err.contains("is damaged: its content has the digest"), "{}", run.err);
                assert!(run.err.contains("hint: run `nnflow cache verify --repair`, then run again"), "{}", run.err);
                project.output(&["cache", "verify", "--repair"]);
                project.run(&CHANGED).expect(exit::DONE);
            }
            // Nothing that has run reads it.
            code => assert_eq!(code, Some(exit::DONE), "{}", run.err),
        }
        assert_eq!(project.results(&CHANGED), expected, "{}", object.display());
    }
    assert!(found > 3, "only {found} of {objects} objects were read");
}

#[test]
fn a_flipped_bit_of_any_manifest_only_costs_time() {
    let project = Project::prepared();
    let (before, mut dice) = (results(&project), CounterRandom::new(SEED, [1, 0, 0]));
    for manifest in files(&project.path(".nnflow/manifests")) {
        flip(&manifest, &mut dice);
    }
    let run = project.run(&[]).expect(exit::DONE);
    assert!(run.stages().contains("ingest") && run.stages().contains("resample"), "{:?}", run.stages());
    assert_eq!((results(&project), verify(&project)), (before, true));
}

#[test]
fn a_flipped_bit_of_what_is_only_remembered_changes_nothing() {
    let project = Project::prepared();
    let (before, mut dice) = (results(&project), CounterRandom::new(SEED, [2, 0, 0]));
    for folder in ["index", "history", "runs"] {
        for file in files(&project.path(".nnflow").join(folder)) {
            if fs_err::metadata(&file).expect("the file is there").len() > 0 {
                flip(&file, &mut dice);
            }
        }
    }
    assert!(project.run(&[]).expect(exit::DONE).units().is_empty());
    project.output(&["explain", "plan"]);
    assert_eq!(results(&project), before);
}

#[test]
fn a_flipped_bit_of_the_stores_version() {
    let project = Project::prepared();
    put(&project.path(".nnflow/VERSION"), b"3\n");
    let run = project.run(&[]).expect(exit::STORAGE);
    assert_snapshot!(redact(&project, &run.err), @"
    error: store `[project]/.nnflow` has format `3`, expected `1`
    hint: use the version of nnflow that made the store, or another store with `--store`
    ");
}

#[test]
fn a_flipped_bit_of_the_lock_is_a_difference_or_no_lock() {
    let project = Project::prepared();
    let (path, mut dice, mut codes) = (project.path("workflow.lock"), CounterRandom::new(SEED, [3, 0, 0]), [0; 3]);
    let lock = Lock::read(&path).expect("the run has written a lock");
    let promises = |lock: &Lock| {
        let outputs = lock.nodes.iter().map(|(name, node)| (name.clone(), node.outputs.clone()));
        (lock.sources.clone(), outputs.collect::<BTreeMap<_, _>>())
    };
    for _ in 0..60 {
        let before = flip(&path, &mut dice);
        let flipped = fs_err::read(&path).expect("the lock is there");
        let run = project.run(&["--locked"]);
        assert_eq!(fs_err::read(&path).expect("the lock is there"), flipped, "a locked run has written");
        match run.code {
            // Comments, and keys, which follow from all else.
            Some(exit::DONE) => {
                codes[0] += 1;
                assert_eq!(promises(&Lock::read(&path).expect("it was read")), promises(&lock));
            }
            Some(exit::WRONG_INPUT) => {
                codes[1] += 1;
                assert!(run.err.contains("workflow.lock` "), "{}", run.err);
            }
            code => {
                codes[2] += 1;
                assert_eq!(code, Some(exit::LOCK_DIFFERS), "{}", run.err);
            }
        }
        put(&path, &before);
    }
    assert!(codes.iter().all(|count| *count > 0), "{codes:?}");
}
