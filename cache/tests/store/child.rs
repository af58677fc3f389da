//! Other processes: this test program, started again to do one thing and end, in whatever way.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nnflow_cache::{Acquired, Store};

use crate::support::{key, manifest};

/// Names what the process shall do; without it, this is no child.
const ROLE: &str = "NNFLOW_CACHE_TEST_ROLE";
const ROOT: &str = "NNFLOW_CACHE_TEST_ROOT";
const ARGUMENT: &str = "NNFLOW_CACHE_TEST_ARGUMENT";

/// The command that starts a child in a role.
pub(crate) fn command(role: &str, root: &Path, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child::entry", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(ROOT, root).env(ARGUMENT, argument).env("RUST_BACKTRACE", "0");
    command
}

pub(crate) fn run(role: &str, root: &Path, argument: &str) -> Output {
    command(role, root, argument).output().unwrap()
}

pub(crate) fn start(role: &str, root: &Path, argument: &str) -> Child {
    command(role, root, argument).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What follows a marker in what a child printed.
pub(crate) fn answer(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = text.lines().find_map(|line| line.split_once("answer: ").map(|(_, answer)| answer.to_owned()));
    answer.unwrap_or_else(|| panic!("no answer in {text} {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn entry() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let root = std::env::var_os(ROOT).unwrap();
    let argument = std::env::var(ARGUMENT).unwrap();
    let root = Path::new(&root);
    match role.as_str() {
        "publish and die" => crate::crash::publish_and_die(root, argument.parse().unwrap()),
        "publish" => publish(root, &argument),
        "hold lease" => hold_lease(root, &argument),
        "use" => use_until_told(root, &argument),
        "write" => crate::limits::write(root),
        "fill" => crate::limits::fill(root),
        other => panic!("no role `{other}`"),
    }
}

/// Publishes the same fifty keys as everyone else, each with bytes of its own, and prints who won.
fn publish(root: &Path, name: &str) {
    let store = Store::open(root).unwrap();
    let winners = (0..50).map(|index| {
        let object = store.put_bytes(format!("{name} {index}").as_bytes()).unwrap();
        let published = store.publish(manifest(&format!("race {index}"), object)).unwrap();
        let winner = published.manifest.files().next().unwrap().digest;
        winner.short()
    });
    println!("answer: {}", winners.collect::<Vec<_>>().join(" "));
}

/// Claims what it uses, finds a result, says so, and waits for the end of its standard input.
fn use_until_told(root: &Path, name: &str) {
    let store = Store::open(root).unwrap();
    store.claim_what_is_used().unwrap();
    let found = store.lookup(&key(name)).unwrap().hit().is_some();
    println!("answer: {found}");
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).unwrap();
}

/// Takes a lease and an attempt's folder, and ends without giving either back.
fn hold_lease(root: &Path, name: &str) {
    let store = Store::open(root).unwrap();
    let Acquired::Lease(_lease) = store.acquire_lease(&key(name), &[]).unwrap() else { panic!("held") };
    let attempt = store.new_attempt(&key(name)).unwrap();
    std::fs::write(attempt.folder.join("checkpoint"), "weights").unwrap();
    std::process::abort();
}
