//! Hands a job to Slurm.

use std::path::Path;

use super::command;
use super::error::SlurmError;
use super::folder::{Folder, JobFile};
use super::queue::JobId;
use super::settings::SlurmSettings;

/// How many elements an array has at most where the controller does not tell.
const LONGEST_ARRAY: usize = 1000;

/// How long an array may be on this cluster.
///
/// # Errors
/// If the controller cannot be asked.
pub fn longest_array() -> Result<usize, SlurmError> {
    let config = command::run("scontrol", &["show".to_owned(), "config".to_owned()])?;
    Ok(parse_longest_array(&config).unwrap_or(LONGEST_ARRAY).max(1))
}

/// Submits a job whose folder is written; gives the number of its array.
///
/// # Errors
/// What `sbatch` says.
pub fn submit(
    folder: &Folder,
    job: &JobFile,
    settings: &SlurmSettings,
    dependency: Option<&str>,
) -> Result<u64, SlurmError> {
    let script = folder.write("script.sh", script(folder, job, settings).as_bytes())?;
    let mut arguments = options(folder, job, settings);
    arguments.extend(dependency.map(|condition| format!("--dependency={condition}")));
    arguments.extend(settings.options.iter().cloned());
    arguments.push(script.to_string_lossy().into_owned());
    let answer = command::run("sbatch", &arguments)?;
    parse_number(&answer).ok_or_else(|| SlurmError::Answer {
        program: "sbatch".to_owned(),
        answer: answer.trim().to_owned(),
        expected: "the number of a job",
    })
}

/// Cancels elements of arrays; those that have ended are no error.
///
/// # Errors
/// What `scancel` says.
pub fn cancel(ids: &[JobId]) -> Result<(), SlurmError> {
    let ids: Vec<String> = ids.iter().map(JobId::to_string).collect();
    if ids.is_empty() { Ok(()) } else { command::run("scancel", &ids).map(drop) }
}

/// Puts an element in the queue again, which ends it first.
///
/// # Errors
/// What `scontrol` says.
pub fn requeue(id: &str) -> Result<(), SlurmError> {
    command::run("scontrol", &["requeue".to_owned(), id.to_owned()]).map(drop)
}

fn options(folder: &Folder, job: &JobFile, settings: &SlurmSettings) -> Vec<String> {
    let last = job.elements.len().saturating_sub(1);
    let throttle = settings.parallel.map_or_else(String::new, |parallel| format!("%{parallel}"));
    // Slurm takes a percent sign in the name of a log for one of its own abbreviations.
    let logs = folder.path().to_string_lossy().replace('%', "%%");
    let mut options = vec![
        "--parsable".to_owned(),
        format!("--job-name={}", job.name),
        format!("--comment={}", folder.comment()),
        format!("--array=0-{last}{throttle}"),
        format!("--output={logs}/%a.log"),
        "--open-mode=append".to_owned(),
        "--ntasks=1".to_owned(),
        "--requeue".to_owned(),
        // Else a job that waits for one that has failed would wait for ever.
        "--kill-on-invalid-dep=yes".to_owned(),
    ];
    options.extend(job.request.options(settings));
    options
}

/// The last line becomes the job itself, so that it gets the signals that are meant for the batch script.
fn script(folder: &Folder, job: &JobFile, settings: &SlurmSettings) -> String {
    let mut lines = vec!["#!/bin/bash".to_owned()];
    lines.extend(settings.prolog.iter().cloned());
    let program = std::env::current_exe().map_or_else(|_| "nnflow".to_owned(), |path| quoted(&path));
    lines.push(format!("export NNFLOW_TORCH={}", quoted(&job.worker)));
    lines.push(format!("exec {program} work {} \"$SLURM_ARRAY_TASK_ID\"", quoted(folder.path())));
    lines.join("\n") + "\n"
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// The last line is `12` or, where there are several clusters, `12;cluster`. Sites print greetings before it.
fn parse_number(answer: &str) -> Option<u64> {
    let last = answer.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    last.split(';').next()?.parse().ok()
}

fn parse_longest_array(config: &str) -> Option<usize> {
    let value = config.lines().find_map(|line| line.trim_start().strip_prefix("MaxArraySize"))?;
    value.trim_start_matches([' ', '=']).trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::folder::{Element, JOB_VERSION, Work};
    use super::super::settings::{Request, SlurmWishes};
    use super::*;
    use crate::workflow::SlurmDeclaration;

    fn job(elements: usize) -> JobFile {
        let element = |fold| Element { node: format!("train[2d,{fold}]"), work: Work::Units(Vec::new()) };
        JobFile {
            version: JOB_VERSION,
            name: "nnflow-train-1".to_owned(),
            store: PathBuf::from("store"),
            request: Request { threads: 2, memory_bytes: None, gpus: 1, time: None },
            device: "cuda".to_owned(),
            worker: PathBuf::from("it's/nnflow-torch"),
            requeues: 3,
            elements: (0..elements).map(element).collect(),
        }
    }

    fn settings(declared: &SlurmDeclaration) -> SlurmSettings {
        SlurmSettings::new(declared, &SlurmWishes::default(), "cuda".to_owned(), PathBuf::from("nnflow-torch"))
    }

    #[test]
    fn a_job_is_an_array_that_is_found_again_and_goes_on() {
        let folder = Folder::at(PathBuf::from("jobs/100%/nnflow-train-1.abc"));
        let declared = SlurmDeclaration { parallel: Some(2), ..SlurmDeclaration::default() };
        let options = options(&folder, &job(5), &settings(&declared));
        let expected = [
            "--parsable",
            "--job-name=nnflow-train-1",
            "--comment=nnflow-train-1.abc",
            "--array=0-4%2",
            "--output=jobs/100%%/nnflow-train-1.abc/%a.log",
            "--open-mode=append",
            "--ntasks=1",
            "--requeue",
            "--kill-on-invalid-dep=yes",
            "--cpus-per-task=2",
            "--gres=gpu:1",
            "--signal=B:USR1@300",
        ];
        assert_eq!(options, expected);
    }

    #[test]
    fn the_script_prepares_what_the_site_needs_and_becomes_the_job() {
        let declared = SlurmDeclaration { prolog: vec!["module load cuda".to_owned()], ..SlurmDeclaration::default() };
        let script = script(&Folder::at(PathBuf::from("jobs/a b")), &job(1), &settings(&declared));
        let lines: Vec<&str> = script.lines().collect();
        assert_eq!(lines[..3], ["#!/bin/bash", "module load cuda", r"export NNFLOW_TORCH='it'\''s/nnflow-torch'"]);
        assert!(lines[3].starts_with("exec '") && lines[3].ends_with(" work 'jobs/a b' \"$SLURM_ARRAY_TASK_ID\""));
    }

    #[test]
    fn the_number_of_a_job_is_found_behind_greetings_and_before_a_cluster() {
        assert_eq!(parse_number("12\n"), Some(12));
        assert_eq!(parse_number("Welcome to the cluster!\n12;alps\n\n"), Some(12));
        assert_eq!(parse_number("Submitted\n"), None);
    }

    #[test]
    fn the_longest_array_is_what_the_controller_says() {
        assert_eq!(parse_longest_array("MaxArraySize            = 1001\nMaxDBDMsgs = 20008\n"), Some(1001));
        assert_eq!(parse_longest_array("MaxDBDMsgs = 20008\n"), None);
    }
}
