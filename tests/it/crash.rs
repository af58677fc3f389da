//! Whatever ends a run before its time, the next one goes on and ends with the same results.

use nnflow::engine::events::RunEvent;

use crate::support::{LONG_TRAINING, Project, Run, Running, exit, make_fifo, signal};

const RESUMED: &str = "going on after epoch ";

fn start(project: &Project) -> Running {
    project.start(&LONG_TRAINING)
}

/// Starts a run and waits until the training of the first fold is under way and has left checkpoints.
fn start_training(project: &Project) -> Running {
    let mut running = start(project);
    running.wait_for_log("train[2d,0]", "epoch 3 of 40");
    running
}

/// Runs again and compares everything that was made with a run that nobody has disturbed.
fn go_on(project: &Project) -> Run {
    let run = project.run(&LONG_TRAINING).expect(exit::DONE);
    assert_eq!(project.results(&LONG_TRAINING), Project::undisturbed().results(&LONG_TRAINING));
    run
}

/// That the training of the first fold went on, with the loss of one epoch at most.
fn assert_resumed(run: &Run) {
    let log = run.log("train[2d,0]");
    let resumed: Vec<u32> = log.iter().filter_map(|line| line.strip_prefix(RESUMED)?.parse().ok()).collect();
    assert!(matches!(resumed.as_slice(), [epoch] if *epoch >= 2), "{log:?}");
}

#[test]
fn the_engine_killed_in_preprocessing() {
    let project = Project::fresh();
    let mut running = start(&project);
    running.wait_for(|event| matches!(event, RunEvent::UnitDone { node, .. } if node == "crop"));
    signal("KILL", &[running.driver()]);
    let done = running.wait().units();
    let again = go_on(&project).units();
    assert!(again.is_disjoint(&done), "{:?} ran twice", again.intersection(&done).collect::<Vec<_>>());
}

#[test]
fn the_engine_killed_again_and_again() {
    let project = Project::fresh();
    // Each of these nodes needs the one before it, so that none of them can have ended when it is waited for.
    for name in ["ingest", "crop", "resample[2d]", "train[2d,0]", "predict[2d,0]", "select", "postprocess"] {
        let mut running = start(&project);
        running.wait_for(|event| matches!(event, RunEvent::UnitStarted { node, .. } if node == name));
        signal("KILL", &[running.driver()]);
        running.wait();
    }
    go_on(&project);
}

#[test]
fn two_runs_at_once() {
    let project = Project::fresh();
    let both = [start(&project), start(&project)];
    both.into_iter().for_each(|running| drop(running.wait().expect(exit::DONE)));
    assert_eq!(project.results(&LONG_TRAINING), Project::undisturbed().results(&LONG_TRAINING));
}

#[test]
fn engine_and_worker_killed_in_training() {
    let project = Project::fresh();
    let running = start_training(&project);
    let workers = running.workers();
    assert_eq!(workers.len(), 1, "one worker trains");
    signal("KILL", &[&[running.driver()], &*workers].concat());
    running.wait();
    assert_resumed(&go_on(&project));
}

#[test]
fn the_engine_killed_alone_in_training() {
    let project = Project::fresh();
    let running = start_training(&project);
    signal("KILL", &[running.driver()]);
    running.wait();
    assert_resumed(&go_on(&project));
}

#[test]
fn a_worker_whose_engine_was_killed_ends() {
    let project = Project::fresh();
    let fifo = project.path("alive");
    make_fifo(&fifo);
    // The worker keeps the fifo open for as long as it lives, and reading it ends when the worker has ended.
    let mut running = project.start_with_worker("exec \"$NNFLOW_WORKER\" \"$@\" 9<>alive", &LONG_TRAINING);
    running.wait_for_log("train[2d,0]", "epoch 3 of 40");
    let mut alive = fs_err::File::open(&fifo).expect("the worker holds the fifo");
    signal("KILL", &[running.driver()]);
    assert_eq!(std::io::copy(&mut alive, &mut std::io::sink()).expect("the fifo can be read"), 0);
}

#[test]
fn the_worker_killed_in_training_is_replaced_in_the_same_run() {
    let project = Project::fresh();
    let running = start_training(&project);
    signal("KILL", &running.workers());
    let run = running.wait().expect(exit::DONE);
    assert_resumed(&run);
    assert!(run.err.contains("`train[2d,0]` is tried again: the worker was killed (signal 9)"), "{}", run.err);
    assert_eq!(project.results(&LONG_TRAINING), Project::undisturbed().results(&LONG_TRAINING));
}

#[test]
fn an_interrupt_leaves_a_checkpoint() {
    for name in ["INT", "TERM"] {
        let project = Project::fresh();
        let running = start_training(&project);
        signal(name, &[running.driver()]);
        let run = running.wait().expect(exit::INTERRUPTED);
        assert!(run.err.contains("interrupted (run again to go on)"), "{}", run.err);
        assert_resumed(&go_on(&project));
    }
}

#[test]
fn an_interrupt_in_preprocessing() {
    let project = Project::fresh();
    let mut running = start(&project);
    running.wait_for(|event| matches!(event, RunEvent::UnitDone { node, .. } if node == "ingest"));
    signal("INT", &[running.driver()]);
    let done = running.wait().expect(exit::INTERRUPTED).units();
    assert!(go_on(&project).units().is_disjoint(&done));
}

#[test]
fn status_tells_what_an_interrupted_run_has_left() {
    let project = Project::fresh();
    let running = start_training(&project);
    signal("TERM", &[running.driver()]);
    running.wait().expect(exit::INTERRUPTED);
    let status = project.output(&[&["status"], &LONG_TRAINING[..]].concat());
    let line = |node: &str| status.lines().find(|line| line.starts_with(node)).unwrap_or_default().to_owned();
    assert!(line("resample[2d]").ends_with(" cached"), "{status}");
    assert!(line("train[2d,0]").contains("will run: it has not run before"), "{status}");
    assert!(line("predict[2d,0]").ends_with("unknown until `train[2d,0]` has run"), "{status}");
}
