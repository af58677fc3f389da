//! What a run makes of the states of its jobs that a cluster of one machine cannot be brought into: Slurm's programs are
//! scripts that say what the test wants to hear.

use std::path::Path;

use crate::support::{Project, Run, exit};

/// What stands for `sbatch`: notes how it was called, and runs the jobs whose numbers are in `RUN` at once; the others end
/// in the state `STATE`.
const SBATCH: &str = r#"
n=$(($(cat slurm/count 2>/dev/null || echo 0) + 1))
echo $n >slurm/count
echo "$*" >>slurm/calls
for argument; do
  case $argument in --comment=*) comment=${argument#--comment=} ;; esac
done
state=$STATE
case " $RUN " in *" $n "*)
  SLURM_ARRAY_JOB_ID=$n SLURM_ARRAY_TASK_ID=0 sh "$argument" >/dev/null 2>&1
  state=COMPLETED
esac
echo "${n}_0|$state|None|n7|$comment" >>slurm/queue
echo $n"#;

/// A worker that trains nothing, but leaves a model.
const WORKER: &str = r#"echo '{"reply":"ready","protocol":1,"version":"0.0.0","device":"CPU"}'
while read -r request; do
  output=$(printf %s "$request" | sed 's/.*"output":"\([^"]*\)".*/\1/')
  mkdir -p "$output" && echo '{}' >"$output/model.json"
  file="{\"name\":\"model.json\",\"source\":{\"written\":{\"path\":\"$output/model.json\"}},\"incidental\":false}"
  echo "{\"reply\":\"done\",\"outcome\":{\"outputs\":{\"model\":{\"one\":[$file]}}}}"
done"#;

/// Runs the training of one fold where jobs end in `state`, but those in `run` are done.
fn run(state: &str, run: &str) -> (Project, Run) {
    let project = Project::fresh();
    project.script("worker", WORKER);
    project.script("slurm/sbatch", SBATCH);
    project.script("slurm/squeue", "cat slurm/queue 2>/dev/null; true");
    project.script("slurm/scontrol", "echo MaxArraySize = 10 ExitCode=0:9");
    project.script("slurm/scancel", "true");
    project.script("slurm/sacct", "exit 1");
    let ran = start(&project, state, run, &[]);
    (project, ran)
}

fn start(project: &Project, state: &str, run: &str, more: &[&str]) -> Run {
    let mut path = vec![project.path("slurm")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(path).expect("no folder has a colon in its name");
    let worker = project.path("worker");
    let environment: [(&str, &Path); 4] =
        [("PATH", Path::new(&path)), ("NNFLOW_TORCH", &worker), ("STATE", Path::new(state)), ("RUN", Path::new(run))];
    let arguments = [
        "--executor=slurm",
        "--until=train[2d,0]",
        "--set=stages.train.resources={ threads = 1, memory = \"500 MiB\", time = \"2h\" }",
        "--set=executor.slurm={ poll = \"0.05s\", requeues = 3 }",
    ];
    project.start_within(&environment, &[&arguments[..], more].concat()).wait()
}

/// What `sbatch` was called with, each time.
fn calls(project: &Project) -> Vec<String> {
    project.read("slurm/calls").lines().map(str::to_owned).collect()
}

#[test]
fn a_job_asks_for_what_the_workflow_says() {
    let (project, run) = run("COMPLETED", "1");
    run.expect(exit::DONE);
    let calls = calls(&project);
    let options =
        ["--cpus-per-task=1", "--mem=500M", "--gres=gpu:1", "--time=120", "--signal=B:USR1@300", "--array=0-0"];
    assert!(calls.len() == 1 && options.iter().all(|option| calls[0].contains(option)), "{calls:?}");
}

#[test]
fn a_job_that_ran_out_of_memory_is_submitted_with_more() {
    let (project, run) = run("OUT_OF_MEMORY", "3");
    let run = run.expect(exit::DONE);
    assert!(run.err.contains("`train[2d,0]` is tried again: job 1_0 was ended for lack of memory"), "{}", run.err);
    let calls = calls(&project);
    assert_eq!(calls.len(), 3);
    for (call, memory) in calls.iter().zip(["--mem=500M", "--mem=1000M", "--mem=2000M"]) {
        assert!(call.contains(memory), "{call}");
    }
}

#[test]
fn memory_is_not_raised_for_ever() {
    let (project, run) = run("OUT_OF_MEMORY", "");
    let run = run.expect(exit::STAGE_FAILED);
    assert!(run.err.contains("was ended for lack of memory: it had 2.0 GiB"), "{}", run.err);
    assert!(run.err.contains("hint: raise `resources.memory` of the stage"), "{}", run.err);
    assert_eq!(calls(&project).len(), 3);
}

#[test]
fn a_kill_without_a_word_counts_as_lack_of_memory() {
    let (_, run) = run("FAILED", "2");
    assert!(run.expect(exit::DONE).err.contains("is tried again: job 1_0 was ended for lack of memory"));
}

#[test]
fn a_job_whose_node_failed_is_submitted_again_for_other_nodes() {
    let (project, run) = run("NODE_FAIL", "2");
    run.expect(exit::DONE);
    let calls = calls(&project);
    assert!(!calls[0].contains("--exclude") && calls[1].contains("--exclude=n7"), "{calls:?}");
}

#[test]
fn a_job_that_was_preempted_is_submitted_again_and_again_and_not_for_ever() {
    let (project, run) = run("PREEMPTED", "");
    let run = run.expect(exit::EXECUTOR);
    assert!(run.err.contains("train[2d,0]: the job was cut short 4 times"), "{}", run.err);
    assert_eq!(calls(&project).len(), 4);
}

#[test]
fn a_job_at_its_time_limit_that_came_no_further_fails() {
    let (project, run) = run("TIMEOUT", "");
    let run = run.expect(exit::EXECUTOR);
    let sentence = "train[2d,0]: the job did not come any further within its time limit of 2 h 00 min";
    assert!(run.err.contains(sentence), "{}", run.err);
    assert_eq!(calls(&project).len(), 1);
}

#[test]
fn a_job_that_somebody_cancelled_is_told_of() {
    let (_, run) = run("CANCELLED", "");
    let run = run.expect(exit::EXECUTOR);
    assert!(run.err.contains("train[2d,0]: job 1_0 was cancelled\nhint: run again to submit it anew"), "{}", run.err);
}

#[test]
fn a_partition_that_is_not_there_is_told_in_the_words_of_sbatch() {
    let project = Project::fresh();
    project.script("slurm/scontrol", "echo MaxArraySize = 10");
    project.script("slurm/squeue", "true");
    let words = "sbatch: error: invalid partition specified: gpus";
    project.script("slurm/sbatch", &format!("echo \"$*\" >slurm/calls; echo '{words}' >&2; exit 1"));
    project.script("worker", WORKER);
    let run = start(&project, "", "", &["--partition=gpus"]).expect(exit::EXECUTOR);
    assert!(run.err.contains(&format!("train[2d,0]: `sbatch` failed: {words}\nhint: `sinfo` lists")), "{}", run.err);
    assert!(calls(&project)[0].contains("--partition=gpus"));
}

#[test]
fn a_machine_without_slurm_is_told_so() {
    let project = Project::fresh();
    let nowhere = project.path("nowhere");
    let arguments = ["--executor=slurm", "--until=train[2d,0]"];
    let run = project.start_within(&[("PATH", &nowhere)], &arguments).wait().expect(exit::EXECUTOR);
    assert!(run.err.contains("train[2d,0]: `scontrol` cannot be started: No such file"), "{}", run.err);
    assert!(run.err.contains("such as the cluster's login node"), "{}", run.err);
}

#[test]
fn options_of_slurm_are_refused_where_everything_runs_here() {
    let ended = Project::fresh().nnflow(&["run", "--partition", "gpu"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("hint: add `--executor slurm`"), "{}", ended.err);
}
