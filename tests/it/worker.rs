//! Workers that cannot start, die, hang or talk nonsense: the run ends with a sentence, not with a hang.

use nnflow::engine::events::{NodeEnd, RunEvent};

use crate::roles;
use crate::support::{Project, Run, exit};

/// What a worker says when it is ready.
const READY: &str = r#"echo '{"reply":"ready","protocol":1,"version":"0.0.0","device":"CPU"}'"#;

/// The shortest patience with which a busy machine is still told from a worker that hangs.
const IMPATIENT: [&str; 2] = ["--set", "settings.worker_silence=\"2s\""];

/// Runs four trainings with a worker of one's own, which may take a second to say or do something.
fn train(script: &str, arguments: &[&str]) -> Run {
    let arguments = [&IMPATIENT, arguments].concat();
    Project::preparing_and_training().run_with_worker(script, &arguments)
}

fn fail_training(script: &str) -> Run {
    train(script, &[]).expect(exit::STAGE_FAILED)
}

/// A project whose run comes to the training at once.
fn prepared() -> Project {
    let project = Project::finished();
    project.replace("epochs = 5", "epochs = 2");
    project
}

#[test]
fn a_worker_that_is_not_there() {
    let project = Project::preparing_and_training();
    let ended = project.command(&["run"]).env("NNFLOW_TORCH", "nowhere/nnflow-torch").output().expect("nnflow starts");
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(exit::STAGE_FAILED));
    assert!(err.contains("0]: worker `nowhere/nnflow-torch` cannot be started: No such file"), "{err}");
    assert!(err.contains("hint: both programs must lie in one folder"), "{err}");
}

#[test]
fn a_worker_that_dies_at_once() {
    let run = fail_training("echo 'libtorch.so is missing' >&2; exit 3");
    assert!(run.err.contains("0]: the worker exited with status 3\n  libtorch.so is missing"), "{}", run.err);
}

#[test]
fn a_worker_that_says_nonsense_at_once() {
    let run = fail_training("echo 'Segmentation fault, sort of'; exec cat");
    let sentence = "0]: the worker broke the protocol and was ended";
    assert!(run.err.contains(sentence) && run.err.contains("Segmentation fault, sort of"), "{}", run.err);
}

#[test]
fn a_worker_that_says_nonsense_in_the_middle() {
    let run = fail_training(&format!("{READY}; read request; echo 'what?'; exec cat >&2"));
    let sentence = "0]: the worker broke the protocol and was ended";
    assert!(run.err.contains(sentence) && run.err.contains("in `what?`"), "{}", run.err);
}

#[test]
fn a_worker_that_dies_in_the_middle() {
    let run = fail_training(&format!("{READY}; read request; echo 'out of ideas' >&2; exit 4"));
    assert!(run.err.contains("0]: the worker exited with status 4"), "{}", run.err);
    assert_eq!(run.err.matches("out of ideas").count(), 1, "{}", run.err);
}

#[test]
fn a_worker_that_stops_without_being_asked() {
    let stopped = r#"{"reply":"failed","report":{"kind":"interrupted","message":"I was asked to stop"}}"#;
    let script = format!("{READY}; read request; echo '{stopped}'; exec cat");
    let run = train(&script, &[]).expect(exit::INTERRUPTED);
    assert!(run.err.contains("0]: I was asked to stop"), "{}", run.err);
}

#[test]
fn a_worker_of_another_version() {
    let run = fail_training(r#"echo '{"reply":"ready","protocol":99,"version":"9.9.9","device":"CPU"}'; exec cat"#);
    assert!(run.err.contains("9.9.9 speaks protocol 99, expected 1"), "{}", run.err);
}

#[test]
fn an_interrupt_ends_the_wait_for_a_worker_that_never_speaks() {
    let project = Project::preparing_and_training();
    let running = project.start_with_worker("kill -TERM $PPID; exec cat", &[]);
    running.wait().expect(exit::INTERRUPTED);
}

#[test]
fn a_second_interrupt_ends_the_wait_for_a_worker_that_does_not_stop() {
    let deaf = "read request; kill -TERM $PPID; read cancel; kill -TERM $PPID; exec cat >/dev/null";
    let project = Project::preparing_and_training();
    let running = project.start_with_worker(&format!("{READY}; {deaf}"), &[]);
    running.wait().expect(exit::INTERRUPTED);
}

#[test]
fn what_does_not_depend_on_a_failure_is_done_where_asked() {
    let once = "if mkdir failed 2>/dev/null; then exit 3; fi; exec \"$NNFLOW_WORKER\" \"$@\"";
    let run = prepared().run_with_worker(once, &["--keep-going"]).expect(exit::STAGE_FAILED);
    assert!(matches!(run.end_of("train[2d,0]"), Some(NodeEnd::Failed)), "{}", run.err);
    assert!(matches!(run.end_of("validate[3d_fullres]"), Some(NodeEnd::Done { .. })), "{}", run.err);
    assert!(matches!(run.end_of("evaluate"), Some(NodeEnd::Blocked { .. })), "{}", run.err);
}

#[test]
fn nothing_new_is_started_after_a_failure() {
    let once = "if mkdir failed 2>/dev/null; then exit 3; fi; exec \"$NNFLOW_WORKER\" \"$@\"";
    let run = prepared().run_with_worker(once, &[]).expect(exit::STAGE_FAILED);
    assert!(!run.nodes().contains("predict[3d_fullres,1]"), "{:?}", run.nodes());
}

const STUCK: &str = "the worker said nothing and computed nothing for 2.0 s and was ended";

#[test]
fn a_worker_that_hangs_before_it_is_ready() {
    let run = fail_training("echo 'looking for a GPU' >&2; exec cat");
    assert!(run.err.contains(&format!("{STUCK}\n  looking for a GPU")), "{}", run.err);
    assert!(run.err.contains("hint: `worker_silence` in `[settings]`"), "{}", run.err);
}

#[test]
fn a_worker_that_hangs_in_the_middle() {
    let run = fail_training(&format!("{READY}; read request; echo 'epoch 1' >&2; exec cat"));
    assert!(run.err.contains(STUCK) && run.err.contains("the end of its log:\n  | epoch 1"), "{}", run.err);
}

#[test]
fn a_worker_that_was_stopped_hangs() {
    let run = fail_training(&format!("{READY}; read request; kill -STOP $$"));
    assert!(run.err.contains(STUCK), "{}", run.err);
}

#[test]
fn what_a_worker_that_hangs_has_started_ends_with_it() {
    let project = Project::preparing_and_training();
    let fifo = project.path("alive");
    crate::support::make_fifo(&fifo);
    // Not the process that the engine has started, and none that would notice that the engine has given it up.
    let script = format!("{READY}; read request; sleep 1000 9<>alive; true");
    let running = project.start_with_worker(&script, &IMPATIENT);
    let mut alive = fs_err::File::open(&fifo).expect("the fifo is there");
    let run = running.wait().expect(exit::STAGE_FAILED);
    assert!(run.err.contains(STUCK), "{}", run.err);
    assert_eq!(std::io::copy(&mut alive, &mut std::io::sink()).expect("the fifo can be read"), 0);
}

#[test]
fn a_worker_that_computes_in_silence_is_waited_for() {
    // Two and a half seconds of a processor, in ticks of ten milliseconds; then it does what it is there for.
    let used = "read -r _ _ _ _ _ _ _ _ _ _ _ _ _ user system rest </proc/$$/stat";
    let busy = format!("user=0 system=0; while [ $((user + system)) -lt 250 ]; do {used}; done");
    train(&format!("{busy}; {}", roles::worker_script()), &[]).expect(exit::DONE);
}

#[test]
fn a_worker_that_is_killed_each_time_lacks_memory() {
    let run = fail_training(&format!("{READY}; read request; echo 'epoch 1' >&2; kill -KILL $$"));
    let killed = "the worker was killed (signal 9), which is what the system does when memory runs out";
    let failed = run.events.iter().find_map(|event| match event {
        RunEvent::UnitFailed { node, .. } => Some(node),
        _ => None,
    });
    let node = failed.expect("a training has failed");
    assert_eq!(run.err.matches(&format!("`{node}` is tried again: {killed}")).count(), 2, "{}", run.err);
    let end = format!("error: {node}: {killed}\n  the end of its log:\n  | epoch 1");
    assert!(run.err.contains(&end), "{}", run.err);
}

#[test]
fn a_worker_that_writes_bytes_that_are_no_text() {
    let run = fail_training(&format!("{READY}; read request; printf '\\377\\000\\033[31m\\n'; exec cat >/dev/null"));
    assert!(run.err.contains("0]: the worker broke the protocol and was ended"), "{}", run.err);
    assert!(run.err.contains("in `\u{fffd}\\0\\u{1b}[31m`"), "{}", run.err);
}

#[test]
fn a_worker_that_writes_a_line_without_end() {
    let run = fail_training(&format!("{READY}; read request; yes 'a line' | tr '\\n' ' '"));
    assert!(run.err.contains("a line of more than 67108864 bytes that begins `a line a line"), "{}", run.err);
}

#[test]
fn a_worker_that_answers_twice_is_not_asked_again() {
    // Each answer comes twice, so that the second one would be taken for that of the next training.
    let script = format!("({}) | sed -u '/\"done\"/p'", roles::worker_script());
    let twice = Project::preparing_and_training();
    twice.run_with_worker(&script, &[]).expect(exit::DONE);
    let once = Project::preparing_and_training();
    once.run_with_worker(&roles::worker_script(), &[]).expect(exit::DONE);
    assert_eq!(twice.results(&[]), once.results(&[]));
}

#[test]
fn a_worker_that_has_ended_between_two_trainings_is_replaced() {
    let script = format!("export {}=1; {}", roles::TASKS, roles::worker_script());
    train(&script, &[]).expect(exit::DONE);
}

#[test]
fn what_does_not_depend_on_a_worker_that_hangs_is_done_where_asked() {
    let once = format!("if mkdir failed 2>/dev/null; then exec cat; fi; {}", roles::worker_script());
    let run = train(&once, &["--keep-going"]).expect(exit::STAGE_FAILED);
    let failed = run.events.iter().filter(|event| matches!(event, RunEvent::NodeEnded { end: NodeEnd::Failed, .. }));
    assert_eq!(failed.count(), 1, "{}", run.err);
    assert_eq!(run.units().iter().filter(|unit| unit.starts_with("train")).count(), 3, "{}", run.err);
}

/// A workflow whose trainings may take a second.
const SHORT: [&str; 2] = ["--set", "stages.train.resources.time=\"1s\""];

const LATE: &str = "0]: it did not end within its time of 1.0 s";

#[test]
fn a_training_whose_time_is_up_is_asked_to_stop() {
    let stopped = r#"echo '{"reply":"failed","report":{"kind":"interrupted","message":"the run was asked to stop"}}'"#;
    let script = format!("{READY}; read request; read cancel; {stopped}; exec cat >/dev/null");
    let run = train(&script, &SHORT).expect(exit::STAGE_FAILED);
    assert!(run.err.contains(LATE) && run.err.contains("hint: raise `resources.time` of the stage"), "{}", run.err);
}

#[test]
fn a_training_that_does_not_stop_when_its_time_is_up_is_ended() {
    let script = format!("{READY}; read request; while :; do :; done");
    let run = train(&script, &SHORT).expect(exit::STAGE_FAILED);
    assert!(run.err.contains(LATE), "{}", run.err);
}

#[test]
fn what_a_worker_tells_of_a_gpus_memory_is_in_the_record() {
    let told = r#"s/"outcome":{/"outcome":{"gpu_peak_memory_bytes":1234567890,/"#;
    let script = format!("\"$NNFLOW_WORKER\" \"$@\" | sed -u '{told}'");
    let run = prepared().run_with_worker(&script, &["--until", "train[2d,0]"]).expect(exit::DONE);
    let Some(NodeEnd::Done { usage }) = run.end_of("train[2d,0]") else { panic!("{}", run.err) };
    assert_eq!(usage.gpu_peak_memory_bytes, Some(1_234_567_890));
}
