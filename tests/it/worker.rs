//! Workers that cannot start, die or talk nonsense: the run ends with a sentence, not with a hang.

use nnflow::engine::events::NodeEnd;

use crate::support::{Project, Run, exit};

/// A project whose run comes to the training at once.
fn prepared() -> Project {
    let project = Project::finished();
    project.replace("epochs = 5", "epochs = 2");
    project
}

fn fail(script: &str) -> Run {
    prepared().run_with_worker(script, &[]).expect(exit::STAGE_FAILED)
}

#[test]
fn a_worker_that_is_not_there() {
    let project = prepared();
    let ended = project.command(&["run"]).env("NNFLOW_TORCH", "nowhere/nnflow-torch").output().expect("nnflow starts");
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(exit::STAGE_FAILED));
    assert!(err.contains("train[2d,0]: worker `nowhere/nnflow-torch` cannot be started: No such file"), "{err}");
    assert!(err.contains("hint: both programs must lie in one folder"), "{err}");
}

#[test]
fn a_worker_that_dies_at_once() {
    let run = fail("echo 'libtorch.so is missing' >&2; exit 3");
    assert!(run.err.contains("train[2d,0]: the worker exited with status 3\n  libtorch.so is missing"), "{}", run.err);
}

#[test]
fn a_worker_that_says_nonsense_at_once() {
    let run = fail("echo 'Segmentation fault, sort of'; exec cat");
    let sentence = "train[2d,0]: the worker broke the protocol and was ended";
    assert!(run.err.contains(sentence) && run.err.contains("Segmentation fault, sort of"), "{}", run.err);
}

#[test]
fn a_worker_that_says_nonsense_in_the_middle() {
    let ready = r#"{"reply":"ready","protocol":1,"version":"0.0.0","device":"CPU"}"#;
    let run = fail(&format!("echo '{ready}'; read request; echo 'what?'; exec cat >&2"));
    let sentence = "train[2d,0]: the worker broke the protocol and was ended";
    assert!(run.err.contains(sentence) && run.err.contains("in `what?`"), "{}", run.err);
}

#[test]
fn a_worker_that_dies_in_the_middle() {
    let ready = r#"{"reply":"ready","protocol":1,"version":"0.0.0","device":"CPU"}"#;
    let run = fail(&format!("echo '{ready}'; read request; echo 'out of ideas' >&2; exit 4"));
    assert!(run.err.contains("train[2d,0]: the worker exited with status 4"), "{}", run.err);
    assert_eq!(run.err.matches("out of ideas").count(), 1, "{}", run.err);
}

#[test]
fn a_worker_that_stops_without_being_asked() {
    let ready = r#"{"reply":"ready","protocol":1,"version":"0.0.0","device":"CPU"}"#;
    let stopped = r#"{"reply":"failed","report":{"kind":"interrupted","message":"I was asked to stop"}}"#;
    let script = format!("echo '{ready}'; read request; echo '{stopped}'; exec cat");
    let run = prepared().run_with_worker(&script, &[]).expect(exit::INTERRUPTED);
    assert!(run.err.contains("error: train[2d,0]: I was asked to stop"), "{}", run.err);
}

#[test]
fn a_worker_of_another_version() {
    let run = fail(r#"echo '{"reply":"ready","protocol":99,"version":"9.9.9","device":"CPU"}'; exec cat"#);
    assert!(run.err.contains("9.9.9 speaks protocol 99, expected 1"), "{}", run.err);
}

#[test]
fn an_interrupt_ends_the_wait_for_a_worker_that_never_speaks() {
    let project = prepared();
    let running = project.start_with_worker("kill -TERM $PPID; exec cat", &[]);
    running.wait().expect(exit::INTERRUPTED);
}

#[test]
fn a_second_interrupt_ends_the_wait_for_a_worker_that_does_not_stop() {
    let ready = r#"{"reply":"ready","protocol":1,"version":"0.0.0","device":"CPU"}"#;
    let deaf = "read request; kill -TERM $PPID; read cancel; kill -TERM $PPID; exec cat >/dev/null";
    let project = prepared();
    let running = project.start_with_worker(&format!("echo '{ready}'; {deaf}"), &[]);
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
