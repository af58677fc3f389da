//! A training that goes over several processes makes the bits that one process makes, and survives what happens to them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::support::{Project, Run, Running, exit, signal};

/// Four patches of 16x20x24 voxels in a batch, which are three pieces: of one, one and two patches.
const SHORT: [&str; 8] = [
    "--set",
    "axes.configuration=[\"3d_fullres\"]",
    "--set",
    "stages.train.with.epochs=6",
    "--set",
    "stages.train.with.batches_per_epoch=4",
    "--set",
    "stages.train.with.batch_size=4",
];

const NODE: &str = "train[3d_fullres,0]";

fn arguments(processes: &str) -> Vec<&str> {
    let set = match processes {
        "1" => "stages.train.resources.processes=1",
        "2" => "stages.train.resources.processes=2",
        _ => "stages.train.resources.processes=4",
    };
    [&SHORT[..], &["--set", set]].concat()
}

/// What one process makes that nobody disturbs.
fn expected() -> &'static BTreeMap<String, String> {
    static EXPECTED: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let project = Project::fresh();
        project.run(&arguments("1")).expect(exit::DONE);
        project.results(&SHORT)
    })
}

/// Starts a training by two processes and waits until it has left checkpoints.
fn start(project: &Project) -> Running {
    let mut running = project.start(&arguments("2"));
    running.wait_for_log(NODE, "epoch 2 of 6");
    running
}

/// That a run has come to its end with what one process makes.
fn assert_done(project: &Project, running: Running) -> Run {
    let run = running.wait().expect(exit::DONE);
    assert_eq!(&project.results(&SHORT), expected());
    run
}

#[test]
fn two_processes_make_the_bits_of_one() {
    let project = Project::fresh();
    let run = assert_done(&project, project.start(&arguments("2")));
    assert!(run.log(NODE).contains(&"2 processes share each batch of 4 patches"), "{:?}", run.log(NODE));
}

#[test]
fn no_more_processes_are_used_than_a_batch_keeps_busy() {
    let project = Project::fresh();
    let run = assert_done(&project, project.start(&arguments("4")));
    let line = "a batch of 4 patches keeps 3 of 4 processes busy, so that no more are used";
    assert!(run.log(NODE).contains(&line), "{:?}", run.log(NODE));
}

#[test]
fn the_number_of_processes_makes_nothing_run_again() {
    let project = Project::fresh();
    project.run(&arguments("2")).expect(exit::DONE);
    assert!(project.run(&arguments("1")).expect(exit::DONE).units().is_empty());
}

#[test]
fn a_process_that_is_killed_is_told_and_the_training_goes_on() {
    let project = Project::fresh();
    let running = start(&project);
    signal("KILL", &running.ranks()[1..]);
    let run = assert_done(&project, running);
    let sentence = "is tried again: process 2 of 2 was killed (signal 9)";
    assert!(run.err.contains(sentence), "{}", run.err);
    assert!(run.log(NODE).iter().any(|line| line.starts_with("going on after epoch ")), "{:?}", run.log(NODE));
}

#[test]
fn nobody_waits_for_a_process_that_waits_for_a_dead_one() {
    let project = Project::fresh();
    let running = start(&project);
    let ranks = running.ranks();
    // It is as deaf as one that waits for others on a GPU.
    signal("STOP", &ranks[..1]);
    signal("KILL", &ranks[1..]);
    assert_done(&project, running);
}

#[test]
fn an_interrupted_training_goes_on_with_any_number_of_processes() {
    for processes in ["1", "2"] {
        let project = Project::fresh();
        let running = start(&project);
        signal("TERM", &[running.driver()]);
        running.wait().expect(exit::INTERRUPTED);
        let run = assert_done(&project, project.start(&arguments(processes)));
        assert!(run.log(NODE).iter().any(|line| line.starts_with("going on after epoch ")), "{:?}", run.log(NODE));
    }
}

#[test]
fn a_training_of_one_process_goes_on_with_two() {
    let project = Project::fresh();
    let mut running = project.start(&arguments("1"));
    running.wait_for_log(NODE, "epoch 2 of 6");
    signal("TERM", &[running.driver()]);
    running.wait().expect(exit::INTERRUPTED);
    assert_done(&project, project.start(&arguments("2")));
}

#[test]
fn processes_whose_engine_was_killed_end() {
    let project = Project::fresh();
    let fifo = project.path("alive");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo can be started").success());
    // Worker and processes keep the fifo open for as long as one of them lives.
    let mut running = project.start_with_worker("exec \"$NNFLOW_WORKER\" \"$@\" 9<>alive", &arguments("2"));
    running.wait_for_log(NODE, "epoch 2 of 6");
    let mut alive = fs_err::File::open(&fifo).expect("the worker holds the fifo");
    signal("KILL", &[running.driver()]);
    assert_eq!(std::io::copy(&mut alive, &mut std::io::sink()).expect("the fifo can be read"), 0);
}

#[test]
fn what_a_process_reports_is_told_with_its_number() {
    let project = Project::fresh();
    let diverging = ["--set", "stages.train.with.optimizer.learning_rate=1e30"];
    let run = project.run(&[arguments("2"), diverging.to_vec()].concat());
    assert!(run.err.contains("the training has diverged"), "{}", run.err);
    assert!(run.err.contains("in process 1 of 2"), "{}", run.err);
}
