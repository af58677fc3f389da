//! Many processes on one store, and collections among them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nnflow::engine::events::RunEvent;

use crate::roles;
use crate::support::{Project, Running, exit, make_fifo};

/// Another workflow that has much in common with the project's own.
const OTHER: [&str; 2] = ["--set", "stages.resample.with.image_order=1"];

/// What sets both workflows apart.
const BOTH: [&[&str]; 2] = [&[], &OTHER];

/// How many processes run at a time, half of them the other workflow.
const PROCESSES: usize = 8;

/// A collection that takes all that it may.
const COLLECT: [&str; 6] = ["cache", "gc", "--max-size", "0", "--grace", "0"];

/// The same with a grace time, in hours, that is longer than these tests: processes that begin and end meanwhile need one.
const COLLECT_AMONG_MANY: [&str; 6] = ["cache", "gc", "--max-size", "0", "--grace", "0.1"];

/// The results of both workflows, each made by one process that has its store to itself.
fn expected() -> &'static [BTreeMap<String, String>; 2] {
    static EXPECTED: OnceLock<[BTreeMap<String, String>; 2]> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        BOTH.map(|sets| {
            let project = Project::preparing();
            project.run(sets).expect(exit::DONE);
            project.results(sets)
        })
    })
}

/// Runs both workflows in eight processes at a time; all must end well.
fn run_all(project: &Project) {
    let running: Vec<Running> = (0..PROCESSES).map(|number| project.start(BOTH[number % 2])).collect();
    running.into_iter().for_each(|running| drop(running.wait().expect(exit::DONE)));
}

fn assert_same_results(project: &Project) {
    assert_eq!([project.results(&[]), project.results(&OTHER)], *expected());
    assert!(project.output(&["cache", "verify"]).contains("all of it is as it was published"));
}

/// Ends the collections when it is dropped.
struct EndsCollections<'a>(&'a AtomicBool);

impl Drop for EndsCollections<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn eight_processes_end_with_the_results_of_one() {
    let project = Project::preparing();
    run_all(&project);
    assert_same_results(&project);
}

#[test]
fn collections_take_nothing_from_under_eight_processes() {
    let project = Project::preparing();
    let ended = AtomicBool::new(false);
    let collections = std::thread::scope(|scope| {
        // Also when a run ends otherwise than it should.
        let end = EndsCollections(&ended);
        let collecting = scope.spawn(|| {
            let mut collections = 0;
            while !ended.load(Ordering::Relaxed) {
                // Before the first run has made the store there is nothing to collect.
                if project.path(".nnflow/VERSION").is_file() {
                    project.output(&COLLECT_AMONG_MANY);
                    collections += 1;
                }
            }
            collections
        });
        // The first ones find nothing, the others what the collections have left of it.
        (0..3).for_each(|_| run_all(&project));
        drop(end);
        collecting.join().expect("the collections end well")
    });
    assert!(collections > 3, "only {collections} collections");
    BOTH.iter().for_each(|sets| drop(project.run(sets).expect(exit::DONE)));
    assert_same_results(&project);
}

#[test]
fn a_collection_leaves_what_a_run_has_found_and_not_yet_read() {
    let project = Project::preparing_and_training();
    project.run(&["--until", "resample", "--until", "split"]).expect(exit::DONE);
    let gate = project.path("gate");
    make_fifo(&gate);
    // The run has found everything, and reads it when its worker may go on.
    let script = format!("mkdir first 2>/dev/null && read _ < gate\n{}", roles::worker_script());
    let mut running = project.start_with_worker(&script, &[]);
    running.wait_for(|event| matches!(event, RunEvent::UnitStarted { node, .. } if node.starts_with("train")));
    let told = project.output(&COLLECT);
    fs_err::write(&gate, "\n").expect("the worker waits at the gate");
    running.wait().expect(exit::DONE);
    assert!(told.contains(" 0 objects"), "{told}");
}

#[test]
fn a_collection_takes_what_nobody_uses() {
    let project = Project::prepared();
    project.output(&COLLECT);
    let left = fs_err::read_dir(project.path(".nnflow/objects")).expect("the store has the folder").flatten();
    let left = left.flat_map(|folder| fs_err::read_dir(folder.path()).expect("it is a folder")).count();
    assert_eq!(left, 0);
}
