//! Disks that are full and folders that belong to someone else, for real.
//!
//! Root may write everywhere, and only root may mount a small disk, so these tests do their work in another
//! process: one that gave up its rights, or one with mounts of its own. Where the system refuses either, the
//! test says so; the same failures are injected at every step in `crash`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use nnflow_cache::{Hint, Store};

use crate::child;
use crate::support::{Fixture, publish};

/// A user who owns nothing.
const NOBODY: u32 = 65534;

/// The child's part: opens the store, tries to write, and prints the hint of the error.
pub(crate) fn write(root: &Path) {
    let hint = Store::open(root).and_then(|store| store.put_bytes(b"x").map(|_| ())).map_err(|error| error.hint());
    println!("answer: {hint:?}");
}

/// The child's part: writes until the disk is full, and prints whether the store is still sound.
pub(crate) fn fill(root: &Path) {
    let store = Store::open(root).unwrap();
    for index in 0..10_000_u32 {
        let content = index.to_le_bytes().repeat(64 * 1024);
        let Err(error) = store.put_bytes(&content) else { continue };
        let report = store.verify(false).unwrap();
        println!("answer: {:?} {} {}", error.hint(), report.is_clean(), report.objects == u64::from(index));
        return;
    }
    println!("answer: never full");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

/// Starts a child as a user who may not write to the store.
fn run_without_rights(role: &str, root: &Path) -> Option<Output> {
    let mut command = child::command(role, root, "");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().ok()
}

#[test]
fn a_store_of_someone_else_is_told_apart() {
    let fixture = Fixture::new();
    publish(&fixture.store, "crop", b"voxels");
    let folders = [fixture.folder.path().to_owned(), fixture.store.root().to_owned()];
    folders.iter().for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap());
    let staging = fixture.store.root().join("tmp");
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o555)).unwrap();
    match run_without_rights("write", fixture.store.root()) {
        Some(output) => assert_eq!(child::answer(&output), format!("Err({:?})", Some(Hint::Permission))),
        None => eprintln!("skipped: this test program cannot be started as another user"),
    }
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a child in a folder that is a disk of its own, as long as the child runs.
fn run_on_small_disk(role: &str, folder: &Path, options: &str) -> Option<Output> {
    let child = child::command(role, &folder.join("store"), "");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o {options} tmpfs \"$0\" || exit 99; exec \"$@\"")).arg(folder);
    command.arg(child.get_program()).args(child.get_args());
    command.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().ok().filter(|output| output.status.success())
}

#[test]
fn a_full_disk_is_told_apart_and_leaves_every_stored_object_sound() {
    let folder = tempfile::tempdir().unwrap();
    match run_on_small_disk("fill", folder.path(), "size=4m") {
        Some(output) => assert_eq!(child::answer(&output), format!("{:?} true true", Some(Hint::DiskFull))),
        None => eprintln!("skipped: this user may not mount a small disk"),
    }
}

#[test]
fn a_read_only_file_system_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    match run_on_small_disk("write", folder.path(), "size=4m,ro") {
        Some(output) => assert_eq!(child::answer(&output), format!("Err({:?})", Some(Hint::ReadOnly))),
        None => eprintln!("skipped: this user may not mount a read-only disk"),
    }
}
