//! What can be seen of a run: while it is under way, and when it has ended.

use nnflow::engine::events::{NodeEnd, RunEvent};
use nnflow::engine::state::UnitState;
use nnflow::session::{OpenOptions, Session};
use nnflow_cache::Key;

use crate::support::{CASES, Ended, LONG_TRAINING, Project, Running, WORKFLOW, exit};

const TRAINING: &str = "train[2d,0]";

/// A run in which the first fold is being trained.
fn training(project: &Project) -> Running {
    let mut running = project.start(&LONG_TRAINING);
    running.wait_for_log(TRAINING, "epoch 2 of 40");
    running
}

#[test]
fn the_status_of_a_run_under_way_is_seen_from_elsewhere() {
    let project = Project::fresh();
    let running = training(&project);
    let status = project.output(&[&["status"], LONG_TRAINING.as_slice()].concat());
    assert!(status.starts_with(&format!("a run is under way: process {} on ", running.driver())), "{status}");
    let line = status.lines().find(|line| line.starts_with(TRAINING)).expect("every node has a line");
    assert!(line.contains(" running"), "{line}");
    running.wait().expect(exit::DONE);
    let status = project.output(&[&["status"], LONG_TRAINING.as_slice()].concat());
    assert!(!status.contains("under way") && !status.contains("running"), "{status}");
}

#[test]
fn the_log_of_a_run_under_way_is_followed_to_its_end() {
    let project = Project::fresh();
    let running = training(&project);
    let arguments = [&["logs", TRAINING, "--follow"], LONG_TRAINING.as_slice()].concat();
    let mut command = project.command(&arguments);
    let following = std::thread::spawn(move || Ended::of(&mut command));
    running.wait().expect(exit::DONE);
    let followed = following.join().expect("the log was followed");
    assert_eq!(followed.code, exit::DONE, "{}", followed.err);
    let lines: Vec<&str> = followed.out.lines().filter(|line| line.starts_with("epoch ")).collect();
    assert_eq!(lines.len(), 40, "{}", followed.out);
}

#[test]
fn what_a_unit_took_stands_in_its_event_and_in_that_of_its_node() {
    let project = Project::fresh();
    let run = project.run(&["--until", TRAINING]).expect(exit::DONE);
    let Some(NodeEnd::Done { usage }) = run.end_of(TRAINING) else { panic!("the training ran") };
    // libtorch alone takes more than this.
    assert!(usage.peak_memory_bytes.is_some_and(|peak| peak > 50 << 20), "{usage:?}");
    assert!(usage.cpu_seconds.is_some_and(|seconds| seconds > 0.0), "{usage:?}");
    let units = run.events.iter().filter(|event| matches!(event, RunEvent::UnitDone { node, .. } if node == "crop"));
    let peaks = units.map(|event| match event {
        RunEvent::UnitDone { usage, .. } => usage.peak_memory_bytes,
        _ => None,
    });
    assert!(peaks.into_iter().all(|peak| peak.is_some()));
}

#[test]
fn the_record_of_a_result_has_the_estimate_beside_what_it_took() {
    let project = Project::finished();
    let session = Session::open(&project.path(WORKFLOW), &OpenOptions::default()).expect("the workflow is right");
    let state = session.settled().expect("the dataset can be read");
    let node = session.graph.find("ingest").expect("the name is right")[0];
    let units = state.nodes[node.index()].phases[0].units.iter().flatten();
    let keys: Vec<Key> = units
        .filter_map(|(_, unit)| match unit {
            UnitState::Done { key, .. } => Some(*key),
            _ => None,
        })
        .collect();
    assert!(keys.len() >= CASES.len(), "{keys:?}");
    for key in keys {
        let stats = session.store.lookup(&key).expect("the store can be read").hit().expect("it was made").stats;
        for field in ["wall_seconds", "cpu_seconds", "peak_memory_bytes", "estimated_memory_bytes", "threads"] {
            assert!(stats[field].is_number(), "{field} in {stats}");
        }
    }
}

#[test]
fn what_a_node_took_can_be_expected() {
    let project = Project::finished();
    project.append("\n[expect]\n\"train[2d,0].peak_memory_bytes\" = \"<= 1000\"\n");
    let run = project.run(&[]).expect(exit::EXPECTATION_NOT_MET);
    assert!(run.out.contains("train[2d,0].peak_memory_bytes"), "{}", run.out);
}

#[test]
fn a_workflow_that_can_never_fit_is_refused_before_anything_runs() {
    let project = Project::fresh();
    project.append("\n[stages.train.resources]\nmemory = \"900 GiB\"\n");
    let run = project.run(&["--memory", "8"]).expect(exit::WRONG_INPUT);
    assert!(run.units().is_empty());
    insta::assert_snapshot!(run.err, @r#"
error: the workflow asks for more than this run has
  `train[2d,0]` asks for 900.0 GiB of memory, and there are 8.0 GiB
  `train[2d,1]` asks for 900.0 GiB of memory, and there are 8.0 GiB
  `train[3d_fullres,0]` asks for 900.0 GiB of memory, and there are 8.0 GiB
  `train[3d_fullres,1]` asks for 900.0 GiB of memory, and there are 8.0 GiB
hint: ask for less, as with `--set stages.STAGE.resources.memory=8GiB`, give the run more with `--memory` or `--gpus`, or run it on another machine, as with `--executor slurm`
"#);
}

#[test]
fn a_unit_that_is_thought_too_large_is_warned_of_and_runs_alone() {
    let project = Project::fresh();
    let run = project.run(&["--until", "crop", "--memory", "0.001"]).expect(exit::DONE);
    let warnings: Vec<&str> = run
        .events
        .iter()
        .filter_map(|event| match event {
            RunEvent::Warning { message } => Some(message.as_str()),
            _ => None,
        })
        .collect();
    assert!(warnings.iter().any(|warning| warning.starts_with("`ingest` is thought to need ")), "{warnings:?}");
}

#[test]
fn a_summary_is_added_to_what_the_file_has_already() {
    let project = Project::finished();
    project.write("summary.md", "# Benchmark\n");
    project.run(&["--summary", "summary.md"]).expect(exit::DONE);
    let page = project.read("summary.md");
    assert!(page.starts_with("# Benchmark\n## tiny\n"), "{page}");
    assert!(page.contains("| `evaluate.foreground_mean.dice` |") && page.contains("| `plan` | cached |"), "{page}");
}

#[test]
fn a_refusal_stands_in_the_summary_too() {
    let project = Project::finished();
    project.replace("epochs = 5", "epochs = 6");
    project.run(&["--locked", "--summary", "summary.md"]).expect(exit::LOCK_DIFFERS);
    assert!(project.read("summary.md").contains("train"), "{}", project.read("summary.md"));
}
