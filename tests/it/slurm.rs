//! Runs on a real cluster of one node, which each test starts; where there is no Slurm they say that they are skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use nnflow::engine::events::{NodeEnd, RunEvent};

use crate::cluster::Cluster;
use crate::support::{Ended, LONG_TRAINING, Project, Run, Running, exit, signal};

/// A worker that makes something like a model at once; `$fold` is known to what goes in the middle.
fn worker(middle: &str) -> String {
    let file = |name: &str| {
        format!(
            r#"{{\"name\":\"{name}\",\"source\":{{\"written\":{{\"path\":\"$output/{name}\"}}}},\"incidental\":false}}"#
        )
    };
    let files = format!("{},{}", file("model.json"), file("weights"));
    format!(
        r#"echo '{{"reply":"ready","protocol":1,"version":"0.0.0","device":"CPU"}}'
say() {{ echo "{{\"reply\":\"event\",\"event\":{{\"event\":\"log\",\"line\":\"$1\"}}}}"; }}
while read -r request; do
  output=$(printf %s "$request" | sed 's/.*"output":"\([^"]*\)".*/\1/')
  fold=$(printf %s "$request" | sed 's/.*"fold":"\([0-9]*\)".*/\1/')
  {middle}
  mkdir -p "$output" && echo '{{}}' >"$output/model.json" && echo "fold $fold" >"$output/weights"
  echo "{{\"reply\":\"done\",\"outcome\":{{\"outputs\":{{\"model\":{{\"one\":[{files}]}}}}}}}}"
done"#
    )
}

/// What all runs here are given: jobs that fit the cluster, and a look at them every half second.
const SETTINGS: [&str; 10] = [
    "--set",
    "axes.configuration=[\"2d\"]",
    "--set",
    "stages.train.resources.threads=1",
    "--set",
    "stages.train.resources.memory=\"300 MiB\"",
    "--set",
    "stages.predict.resources={ threads = 1, memory = \"300 MiB\" }",
    "--set",
    "executor.slurm.poll=\"0.5s\"",
];

/// A project with a worker of its own, whose runs are for its trainings in five folds.
struct Site {
    cluster: Cluster,
    project: Project,
}

impl Site {
    fn new(middle: &str) -> Option<Self> {
        let site = Self { cluster: Cluster::start()?, project: Project::fresh() };
        site.project.script("worker", &worker(middle));
        site.project.replace("fold = [0, 1]", "fold = [0, 1, 2, 3, 4]");
        site.project.replace("folds = 2", "folds = 5");
        Some(site)
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let (configuration, worker) = (self.cluster.configuration(), self.project.path("worker"));
        let environment: [(&str, &Path); 2] = [("SLURM_CONF", &configuration), ("NNFLOW_TORCH", &worker)];
        self.project.start_within(&environment, &[&["--executor", "slurm"], &SETTINGS[..], arguments].concat())
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.start(arguments).wait()
    }

    /// Runs another command of nnflow with the settings.
    fn nnflow(&self, command: &str, arguments: &[&str]) -> Ended {
        let mut command: Command = self.project.command(&[&[command], &SETTINGS[..], arguments].concat());
        command.env("SLURM_CONF", self.cluster.configuration()).env("NNFLOW_TORCH", self.project.path("worker"));
        Ended::of(&mut command)
    }

    /// Makes a pipe that a worker waits for; it goes on when this is opened for writing and closed.
    fn gate(&self) -> PathBuf {
        let gate = self.project.path("gate");
        let made = Command::new("mkfifo").arg(&gate).status();
        assert!(made.expect("mkfifo can be started").success());
        gate
    }
}

/// What a worker does that waits for the gate to be opened.
const AT_THE_GATE: &str = "say 'at the gate'; cat gate >/dev/null";

/// What a worker does that stops when it is asked to, having done nothing.
const OBEDIENT: &str = r#"say 'at the gate'; read -r cancel
  echo '{"reply":"failed","report":{"kind":"interrupted","message":"stopped"}}'; continue"#;

fn open(gate: &Path) {
    drop(fs_err::File::options().write(true).open(gate).expect("somebody waits at the gate"));
}

/// The number of the job that a node was submitted as.
fn job_of(run: &Run, node: &str) -> String {
    let lines = run.log(node);
    let job = lines.iter().find_map(|line| line.strip_prefix("submitted as job "));
    job.unwrap_or_else(|| panic!("`{node}` was not submitted: {lines:?}")).to_owned()
}

#[test]
fn five_folds_are_one_array_on_the_gpus_of_the_cluster() {
    let Some(site) = Site::new("say \"on GPU $CUDA_VISIBLE_DEVICES\"") else { return };
    let run = site.run(&["--until", "train"]).expect(exit::DONE);
    let jobs: Vec<String> = (0..5).map(|fold| job_of(&run, &format!("train[2d,{fold}]"))).collect();
    let array = jobs[0].split('_').next().unwrap_or_default();
    assert_eq!(jobs, (0..5).map(|fold| format!("{array}_{fold}")).collect::<Vec<_>>());
    for fold in 0..5 {
        let lines = run.log(&format!("train[2d,{fold}]")).join("\n");
        assert!(lines.contains("on GPU 0") || lines.contains("on GPU 1"), "{lines}");
    }
}

#[test]
fn a_stage_that_the_workflow_names_makes_the_same_on_the_cluster() {
    let Some(site) = Site::new("") else { return };
    let named = ["--until", "resample", "--set", "executor.slurm.stages=[\"resample\"]"];
    let run = site.run(&named).expect(exit::DONE);
    job_of(&run, "resample[2d]");
    let here = Project::fresh();
    here.run(&["--until", "resample[2d]"]).expect(exit::DONE);
    let results = |project: &Project| {
        let results = project.results(&["--set", "axes.configuration=[\"2d\"]"]).into_iter();
        results.filter(|(name, _)| name.starts_with("resample[")).collect::<Vec<_>>()
    };
    assert!(!results(&here).is_empty());
    assert_eq!(results(&site.project), results(&here));
}

#[test]
fn what_was_made_on_the_cluster_is_found_without_it() {
    let Some(site) = Site::new("") else { return };
    site.run(&["--until", "train"]).expect(exit::DONE);
    let again = site.project.run(&[&SETTINGS[..], &["--until", "train"]].concat()).expect(exit::DONE);
    assert!(again.units().is_empty(), "{:?}", again.units());
}

#[test]
fn a_job_that_went_well_leaves_no_folder() {
    let Some(site) = Site::new("") else { return };
    site.run(&["--until", "train"]).expect(exit::DONE);
    let left = fs_err::read_dir(site.project.path(".nnflow/work/jobs")).expect("the folder is there").count();
    assert_eq!(left, 0);
}

#[test]
fn a_fold_that_fails_is_told_with_its_log_and_the_others_go_on() {
    let Some(site) = Site::new("if [ $fold = 2 ]; then echo 'out of ideas' >&2; exit 3; fi") else { return };
    let run = site.run(&["--until", "train", "--keep-going"]).expect(exit::STAGE_FAILED);
    assert!(run.err.contains("error: train[2d,2]: the worker exited with status 3"), "{}", run.err);
    assert!(run.err.contains("| out of ideas"), "{}", run.err);
    for fold in [0, 1, 3, 4] {
        let end = run.end_of(&format!("train[2d,{fold}]"));
        assert!(matches!(end, Some(NodeEnd::Done { .. })), "{fold}: {end:?}");
    }
}

#[test]
fn a_job_whose_time_is_up_leaves_a_checkpoint_and_goes_on() {
    let Some(cluster) = Cluster::start() else { return };
    let project = Project::fresh();
    let configuration = cluster.configuration();
    let arguments = [&LONG_TRAINING[..], &SETTINGS[..], &["--executor", "slurm", "--device", "cpu"]].concat();
    let mut running = project.start_within(&[("SLURM_CONF", &configuration)], &arguments);
    running.wait_for_log("train[2d,0]", "epoch 3 of 40");
    let job = cluster.slurm("squeue", &["-h", "-r", "-t", "running", "-o", "%i"]);
    let job = job.lines().find(|job| job.ends_with("_0")).expect("the first fold runs").to_owned();
    // What Slurm itself does some time before the limit, which is at least a minute away.
    cluster.slurm("scancel", &["--signal=USR1", "--batch", &job]);
    running.wait_for(|event| matches!(event, RunEvent::Log { line, .. } if line.ends_with(": BeginTime")));
    cluster.slurm("scontrol", &["update", &format!("jobid={job}"), "starttime=now"]);
    let run = running.wait().expect(exit::DONE);
    let log = run.log("train[2d,0]");
    assert!(log.iter().any(|line| line.starts_with("going on after epoch ")), "{log:?}");
    assert_eq!(project.results(&LONG_TRAINING), Project::undisturbed().results(&LONG_TRAINING));
}

#[test]
fn a_job_that_comes_no_further_within_its_time_fails() {
    let Some(site) = Site::new(OBEDIENT) else { return };
    let mut running = site.start(&["--until", "train[2d,0]", "--set", "stages.train.resources.time=\"20m\""]);
    running.wait_for_log("train[2d,0]", "at the gate");
    let job = site.cluster.slurm("squeue", &["-h", "-r", "-o", "%i"]);
    site.cluster.slurm("scancel", &["--signal=USR1", "--batch", &job]);
    let run = running.wait().expect(exit::EXECUTOR);
    let sentence = "train[2d,0]: the job did not come any further within its time limit of 20 min 00 s";
    assert!(run.err.contains(sentence), "{}", run.err);
    assert!(run.err.contains("hint: raise `resources.time` of the stage"), "{}", run.err);
}

#[test]
fn a_run_that_was_killed_is_followed_by_one_that_waits_for_its_jobs() {
    let Some(site) = Site::new(AT_THE_GATE) else { return };
    let gate = site.gate();
    let mut running = site.start(&["--until", "train[2d,0]"]);
    running.wait_for_log("train[2d,0]", "at the gate");
    signal("KILL", &[running.driver()]);
    running.wait();
    let mut again = site.start(&["--until", "train[2d,0]"]);
    again.wait_for(|event| matches!(event, RunEvent::Log { line, .. } if line.ends_with("is at it already")));
    open(&gate);
    again.wait().expect(exit::DONE);
    assert_eq!(site.cluster.arrays().len(), 1);
}

#[test]
fn a_run_outlives_the_controller() {
    let Some(site) = Site::new(AT_THE_GATE) else { return };
    let gate = site.gate();
    let mut running = site.start(&["--until", "train[2d,0]"]);
    running.wait_for_log("train[2d,0]", "at the gate");
    site.cluster.kill_controller();
    running.wait_for(
        |event| matches!(event, RunEvent::Warning { message } if message.starts_with("how the jobs stand is not known")),
    );
    site.cluster.start_controller();
    open(&gate);
    running.wait().expect(exit::DONE);
}

#[test]
fn a_unit_that_becomes_ready_while_the_controller_is_away_is_submitted_when_it_is_back() {
    let Some(site) = Site::new("") else { return };
    site.cluster.kill_controller();
    let mut running = site.start(&["--until", "train[2d,0]"]);
    running.wait_for(|event| matches!(event, RunEvent::Warning { message } if message.ends_with("it is tried again")));
    site.cluster.start_controller();
    running.wait().expect(exit::DONE);
}

#[test]
fn an_interrupt_cancels_the_jobs() {
    let Some(site) = Site::new(AT_THE_GATE) else { return };
    site.gate();
    let mut running = site.start(&["--until", "train[2d,0]"]);
    running.wait_for_log("train[2d,0]", "at the gate");
    signal("INT", &[running.driver()]);
    running.wait().expect(exit::INTERRUPTED);
    site.cluster.wait_for_all();
    assert!(site.cluster.states().contains(&"CANCELLED".to_owned()), "{:?}", site.cluster.states());
}

#[test]
fn an_interrupt_leaves_the_jobs_where_asked_to() {
    let Some(site) = Site::new(AT_THE_GATE) else { return };
    let gate = site.gate();
    let mut running = site.start(&["--until", "train[2d,0]", "--detach"]);
    running.wait_for_log("train[2d,0]", "at the gate");
    signal("INT", &[running.driver()]);
    let run = running.wait().expect(exit::INTERRUPTED);
    assert!(run.err.contains("1 jobs go on"), "{}", run.err);
    open(&gate);
    site.cluster.wait_for_all();
    let run = site.run(&["--until", "train[2d,0]"]).expect(exit::DONE);
    assert!(run.units().is_empty(), "{:?}", run.units());
}

#[test]
fn a_submitted_graph_runs_without_anybody() {
    let Some(site) = Site::new("") else { return };
    let submitted = site.nnflow("submit", &["--until", "train"]);
    assert_eq!(submitted.code, exit::DONE, "{}", submitted.err);
    assert!(submitted.out.contains("11 jobs submitted"), "{}", submitted.out);
    site.cluster.wait_for_all();
    let status = site.nnflow("status", &[]).out;
    for fold in 0..5 {
        let node = format!("train[2d,{fold}]");
        assert!(status.lines().any(|line| line.starts_with(&node) && line.ends_with(" cached")), "{status}");
    }
}

#[test]
fn a_graph_that_is_submitted_twice_keeps_its_jobs() {
    let Some(site) = Site::new(AT_THE_GATE) else { return };
    let gate = site.gate();
    site.nnflow("submit", &["--until", "train[2d,0]"]);
    let arrays = site.cluster.arrays();
    let again = site.nnflow("submit", &["--until", "train[2d,0]"]);
    assert!(again.out.contains("0 jobs submitted") || again.out.contains("(was there already)"), "{}", again.out);
    assert_eq!(site.cluster.arrays(), arrays);
    open(&gate);
    site.cluster.wait_for_all();
}

#[test]
fn what_waits_for_a_job_that_has_failed_is_cancelled_and_said() {
    let Some(site) = Site::new("if [ $fold = 2 ]; then echo 'out of ideas' >&2; exit 3; fi") else { return };
    let submitted = site.nnflow("submit", &["--until", "predict[2d,2]"]);
    assert_eq!(submitted.code, exit::DONE, "{}", submitted.err);
    site.cluster.wait_for_all();
    let status = site.nnflow("status", &[]).out;
    let line = |node: &str| status.lines().find(|line| line.starts_with(node)).unwrap_or_default();
    assert!(line("train[2d,2]").contains(": the worker exited with status 3)"), "{status}");
    assert!(line("predict[2d,2]").ends_with("was cancelled, since what it waited for failed)"), "{status}");
}
