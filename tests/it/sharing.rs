//! Projects that share their results, as two machines would.

use std::collections::BTreeSet;
use std::path::Path;

use nnflow::engine::events::RunEvent;
use nnflow::engine::state::{Port, Slot};
use nnflow::session::{OpenOptions, Session};

use crate::s3_server::{BUCKET, S3Server};
use crate::support::{Ended, Project, Run, Running, WORKFLOW, copy, exit, set};

/// All that runs without a worker.
const PREPARE: [&str; 2] = ["--until", "resample"];

/// A folder between projects.
struct Folder(Project);

impl Folder {
    fn new() -> Self {
        Self(Project::empty())
    }

    fn path(&self) -> String {
        self.0.path("shared").to_str().expect("the path is valid Unicode").to_owned()
    }

    /// Runs the preparation of a project with this folder.
    fn prepare(&self, project: &Project, more: &[&str]) -> Run {
        let path = self.path();
        project.run(&[&PREPARE, ["--shared-store", &path].as_slice(), more].concat()).expect(exit::DONE)
    }

    /// The names and sizes of all files.
    fn files(&self) -> BTreeSet<(String, u64)> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.0.path("shared")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs_err::read_dir(&path).expect("the folder is there").flatten().map(|entry| entry.path()));
            } else {
                found.insert((path.display().to_string(), path.metadata().map_or(0, |metadata| metadata.len())));
            }
        }
        found
    }
}

/// The results and bytes that a run has fetched and pushed.
fn exchanged(run: &Run) -> (u64, u64) {
    let found = run.events.iter().find_map(|event| match event {
        RunEvent::Shared { fetched, pushed, .. } => Some((*fetched, *pushed)),
        _ => None,
    });
    found.expect("a run with a shared store tells what came and went")
}

fn warnings(run: &Run) -> Vec<&str> {
    let warnings = run.events.iter().filter_map(|event| match event {
        RunEvent::Warning { message } => Some(message.as_str()),
        _ => None,
    });
    warnings.collect()
}

#[test]
fn a_second_machine_finds_everything_and_runs_nothing() {
    let (folder, first, second) = (Folder::new(), Project::finished(), Project::fresh());
    first.output(&["cache", "push", "--shared-store", &folder.path()]);
    let run = second.run(&["--shared-store", &folder.path()]).expect(exit::DONE);
    assert_eq!(run.units(), set([]));
    assert_eq!(second.results(&[]), first.results(&[]));
    assert!(second.output(&["cache", "verify"]).contains("all of it is as it was published"));
}

#[test]
fn what_a_run_makes_is_there_for_the_next_machine() {
    let (folder, first, second) = (Folder::new(), Project::fresh(), Project::fresh());
    let made = folder.prepare(&first, &[]);
    assert!(!made.units().is_empty() && exchanged(&made).1 >= made.units().len() as u64);
    assert_eq!(folder.prepare(&second, &[]).units(), set([]));
}

#[test]
fn a_workflow_names_the_shared_store_beside_it() {
    let both = Project::empty();
    for name in ["first", "second"] {
        let project = Project::fresh();
        project.append("\n[settings]\nshared_store = \"../shared\"\n");
        copy(&project.path("."), &both.path(name));
    }
    let run = |name: &str| {
        let file = format!("{name}/{WORKFLOW}");
        both.nnflow(&["run", &file, PREPARE[0], PREPARE[1]])
    };
    assert_eq!((run("first").code, run("second").code), (exit::DONE, exit::DONE));
    let status = both.output(&["cache", "push", "plan", "--workflow", &format!("second/{WORKFLOW}")]);
    assert!(status.starts_with("pushed 0 results") && both.path("shared/VERSION").is_file(), "{status}");
}

#[test]
fn a_run_with_nothing_to_do_asks_nobody() {
    let server = S3Server::start();
    let project = Project::fresh();
    with_server(&server, &project, &[]).expect(exit::DONE);
    let before = server.requests().len();
    assert_eq!(with_server(&server, &project, &[]).expect(exit::DONE).units(), set([]));
    assert_eq!(server.requests().len(), before);
}

#[test]
fn a_server_is_shared_as_a_folder_is() {
    let server = S3Server::start();
    let (first, second, third) = (Project::fresh(), Project::fresh(), Project::fresh());
    with_server(&server, &first, &[]).expect(exit::DONE);
    assert!(server.objects().keys().all(|name| name.starts_with("group/")));
    assert_eq!(with_server(&server, &second, &[]).expect(exit::DONE).units(), set([]));
    let public = format!("{}/group", server.public_url());
    assert_eq!(
        third.run(&[&PREPARE, ["--shared-store", &public].as_slice()].concat()).expect(exit::DONE).units(),
        set([])
    );
    assert!(second.output(&["cache", "verify"]).contains("all of it is as it was published"));
}

#[test]
fn projects_that_run_at_the_same_time_agree() {
    let folder = Folder::new();
    let projects: Vec<Project> = (0..4).map(|_| Project::fresh()).collect();
    let path = folder.path();
    let start = |project: &Project| project.start(&[&PREPARE, ["--shared-store", &path].as_slice()].concat());
    let running: Vec<Running> = projects.iter().map(start).collect();
    for run in running {
        assert_eq!(warnings(&run.wait().expect(exit::DONE)), Vec::<&str>::new());
    }
    let results = projects[0].results(&[]);
    assert!(!results.is_empty() && projects.iter().all(|project| project.results(&[]) == results));
    assert_eq!(folder.prepare(&Project::fresh(), &[]).units(), set([]));
}

#[test]
fn a_damaged_object_costs_the_unit_that_makes_it() {
    let (folder, first) = (Folder::new(), Project::fresh());
    folder.prepare(&first, &[]);
    let object = object_of(&first, "resample[2d]", "phantom_002");
    let path = Path::new(&folder.path()).join(object);
    let mut bytes = fs_err::read(&path).expect("the object was pushed");
    let last = bytes.last_mut().expect("the object is not empty");
    *last ^= 1;
    fs_err::write(&path, bytes).expect("the object can be damaged");
    let second = Project::fresh();
    let run = folder.prepare(&second, &[]);
    // Both configurations may have made the same bytes of the case.
    assert!(run.units().contains("resample[2d]/phantom_002"), "{:?}", run.units());
    assert!(run.units().iter().all(|unit| unit.starts_with("resample[") && unit.ends_with("/phantom_002")));
    let told = warnings(&run);
    assert!(told.iter().any(|warning| warning.contains("has other bytes than its name says")), "{told:?}");
    // What was made again has taken the place of what was damaged.
    assert_eq!(folder.prepare(&Project::fresh(), &[]).units(), set([]));
}

#[test]
fn a_store_that_is_only_read_stays_as_it_is() {
    let (folder, first, second) = (Folder::new(), Project::fresh(), Project::fresh());
    folder.prepare(&first, &[]);
    let before = folder.files();
    let run = folder.prepare(
        &second,
        &["--set", "seed=2", "--set", "stages.plan.with.base_features=8", "--shared-store-mode", "read-only"],
    );
    assert!(run.stages().contains("plan") && !run.stages().contains("crop"), "{:?}", run.units());
    assert_eq!(folder.files(), before);
}

#[test]
fn a_server_that_is_not_there_costs_a_warning() {
    let server = S3Server::start();
    server.die_after(0);
    let run = with_server(&server, &Project::fresh(), &["--until", "crop"]).expect(exit::DONE);
    let told = warnings(&run);
    assert!(told[0].contains("cannot be reached") && told[0].contains("the run goes on without it"), "{told:?}");
    assert!(told.iter().any(|warning| warning.contains("`nnflow cache push` puts them there")), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn what_a_dying_server_did_not_take_is_pushed_later() {
    let server = S3Server::start();
    let (first, second) = (Project::fresh(), Project::fresh());
    server.die_after(60);
    with_server(&server, &first, &[]).expect(exit::DONE);
    server.die_after(i64::MAX);
    let text = output_with_server(&server, &first, &["cache", "push"]);
    assert!(!text.starts_with("pushed 0 results"), "{text}");
    assert_eq!(with_server(&server, &second, &[]).expect(exit::DONE).units(), set([]));
}

#[test]
fn what_is_pulled_needs_the_shared_store_no_more() {
    let (folder, first, second) = (Folder::new(), Project::fresh(), Project::fresh());
    folder.prepare(&first, &[]);
    let dry = second.output(&["cache", "pull", "resample", "--dry-run", "--shared-store", &folder.path()]);
    assert!(dry.starts_with("would pull "), "{dry}");
    second.output(&["cache", "pull", "resample", "--shared-store", &folder.path()]);
    let before = folder.files();
    fs_err::rename(folder.0.path("shared"), folder.0.path("away")).expect("the folder can be moved");
    let run = second.run(&PREPARE).expect(exit::DONE);
    assert_eq!(run.units(), set([]));
    // Each case has a result of its own, so that one that changes is the only one that runs.
    let other = Folder::new();
    second.output(&["cache", "push", "resample", "--shared-store", &other.path()]);
    let names = |files: BTreeSet<(String, u64)>, folder: &Folder| {
        let prefix = folder.path();
        files.into_iter().map(|(name, bytes)| (name.replace(&prefix, ""), bytes)).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(other.files(), &other), names(before, &folder));
}

#[test]
fn without_what_remembers_cases_together_each_case_is_found() {
    // Both configurations normalise alike, so that their cases have keys in common.
    let (folder, first, second) = (Folder::new(), Project::fresh(), Project::fresh());
    folder.prepare(&first, &[]);
    let is_summary = |name: &str| {
        name.ends_with(".json")
            && fs_err::read_to_string(name).expect("a manifest is a text").contains("\"stats\":{\"keys\"")
    };
    let names = folder.files().into_iter().map(|(name, _)| name);
    let summaries: Vec<String> = names.filter(|name| is_summary(name)).collect();
    assert!(!summaries.is_empty(), "there is nothing that remembers cases together");
    summaries.iter().for_each(|name| fs_err::remove_file(name).expect("the manifest can be removed"));
    let text = second.output(&["cache", "pull", "resample", "--shared-store", &folder.path()]);
    assert!(text.contains("; 8 of 8 nodes are complete"), "{text}");
}

#[test]
fn without_a_shared_store_a_push_says_how_to_name_one() {
    let ended = Project::fresh().nnflow(&["cache", "push"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(
        ended.err.contains("no shared store is named") && ended.err.contains("--shared-store URL"),
        "{}",
        ended.err
    );
}

#[test]
fn a_push_that_fails_says_so() {
    let server = S3Server::start();
    server.die_after(0);
    let project = Project::fresh();
    project.run(&["--until", "split"]).expect(exit::DONE);
    let ended = Ended::of(&mut command(&server, &project, &["cache", "push"]));
    assert_eq!(ended.code, exit::STORAGE);
    assert!(ended.err.contains("cannot be reached"), "{}", ended.err);
}

#[test]
fn a_web_server_takes_no_results() {
    let options = ["--shared-store", "https://example.org/results", "--shared-store-mode", "read-write"];
    let ended = Project::fresh().nnflow(&[["run"].as_slice(), &options].concat());
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("`https://example.org/results` is only read from"), "{}", ended.err);
}

#[test]
fn a_pinned_node_survives_a_collection() {
    let project = Project::fresh();
    project.run(&["--until", "plan"]).expect(exit::DONE);
    let limits = ["cache", "gc", "--max-age", "0", "--grace", "0"];
    let dry = project.output(&[&limits, ["--dry-run"].as_slice()].concat());
    assert!(dry.starts_with("would remove ") && !dry.starts_with("would remove 0 "), "{dry}");
    project.output(&[&limits, ["--pin", "crop"].as_slice()].concat());
    let run = project.run(&["--until", "plan"]).expect(exit::DONE);
    assert_eq!(run.stages(), set(["fingerprint", "plan"]));
}

#[test]
fn within_the_grace_time_a_collection_takes_nothing() {
    let project = Project::fresh();
    project.run(&["--until", "crop"]).expect(exit::DONE);
    let text = project.output(&["cache", "gc", "--max-age", "0", "--grace", "2"]);
    assert!(text.starts_with("removed 0 results with 0 objects"), "{text}");
}

#[test]
fn a_shared_store_is_collected_by_age() {
    let (folder, project) = (Folder::new(), Project::fresh());
    folder.prepare(&project, &[]);
    let path = folder.path();
    let gc = |more: &[&str]| {
        let limits = ["cache", "gc", "--shared-store", &path, "--max-age", "0", "--grace", "0"];
        project.output(&[&limits, more].concat())
    };
    let before = folder.files();
    let kept = gc(&["--pin", "crop", "--dry-run"]);
    assert!(kept.starts_with("would remove ") && !kept.contains("kept 0 results"), "{kept}");
    assert_eq!(folder.files(), before);
    gc(&["--pin", "crop"]);
    let run = folder.prepare(&Project::fresh(), &["--shared-store-mode", "read-only"]);
    assert!(run.stages().contains("plan") && !run.stages().contains("crop"), "{:?}", run.units());
    gc(&[]);
    assert_eq!(folder.files().len(), 1, "only the format is left");
}

fn command(server: &S3Server, project: &Project, arguments: &[&str]) -> std::process::Command {
    let address = format!("s3://{BUCKET}/group");
    let mut command = project.command(&[arguments, &["--shared-store", &address]].concat());
    command.envs(server.variables());
    command
}

/// Runs the preparation of a project with a server.
fn with_server(server: &S3Server, project: &Project, more: &[&str]) -> Run {
    let until: &[&str] = if more.contains(&"--until") { &[] } else { &PREPARE };
    Running::of(&mut command(server, project, &["run"]), &[until, more].concat()).wait()
}

fn output_with_server(server: &S3Server, project: &Project, arguments: &[&str]) -> String {
    let ended = Ended::of(&mut command(server, project, arguments));
    assert_eq!(ended.code, exit::DONE, "{}", ended.err);
    ended.out
}

/// Where a shared store has the file that a node made of a case.
fn object_of(project: &Project, node: &str, case: &str) -> String {
    let session =
        Session::open(&project.path(WORKFLOW), &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let state = session.settled().unwrap_or_else(|report| panic!("{}", report.message));
    let index = session.graph.order().iter().find(|index| session.graph.node(**index).name == node);
    let ports = &state.nodes[index.expect("there is such a node").index()].ports;
    let digest = ports.values().find_map(|port| match port {
        Port::Items(Some(slots)) => match slots.get(case) {
            Some(Slot::Made(held)) => Some(held.artifact.files().first().expect("the artifact has a file").digest),
            _ => None,
        },
        _ => None,
    });
    let hex = digest.expect("the node has made something of the case").to_hex();
    format!("objects/{}/{}", &hex[..2], &hex[2..])
}
