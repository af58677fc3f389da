//! Runs Slurm's programs, none of which may keep a run waiting for ever.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::SlurmError;

/// How long a program may take. With a controller that is gone each of them tries for some ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a program that has not ended yet is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Runs a program of Slurm's and gives what it prints.
pub(super) fn run(program: &str, arguments: &[String]) -> Result<String, SlurmError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Inside of a job, `sbatch` would take the job's own values for options.
    if std::env::var_os("SLURM_JOB_ID").is_some() {
        let inherited = std::env::vars_os().map(|(name, _)| name);
        let own = inherited.filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("SLURM_") && name != "SLURM_CONF"
        });
        own.for_each(|name| {
            command.env_remove(name);
        });
    }
    let start = |source| SlurmError::Start { program: program.to_owned(), source };
    let mut child = command.spawn().map_err(start)?;
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(start)? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                child.kill().and_then(|()| child.wait()).map_err(start)?;
                return Err(SlurmError::Silent { program: program.to_owned(), seconds: PATIENCE.as_secs() });
            }
            None => std::thread::sleep(LOOK_AGAIN),
        }
    };
    let (out, err) = (text(out), text(err));
    if status.success() {
        return Ok(out);
    }
    let message = if err.trim().is_empty() { format!("{status}") } else { err.trim().to_owned() };
    Err(SlurmError::Refused { program: program.to_owned(), message })
}

/// Reads in a thread of its own, lest a program wait for its pipe to be emptied.
fn read(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is all that there is to tell.
            stream.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}

fn text(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_a_program_prints_is_given_back_whole() {
        // More than a pipe holds, on both streams.
        let script = "head -c 200000 /dev/zero | tr '\\0' x; head -c 200000 /dev/zero >&2";
        assert_eq!(run("sh", &words(&["-c", script])).expect("the shell runs").len(), 200_000);
    }

    #[test]
    fn a_program_that_fails_is_told_with_its_words() {
        let error = run("sh", &words(&["-c", "echo no such thing >&2; exit 3"])).expect_err("it fails");
        assert_eq!(error.to_string(), "`sh` failed: no such thing");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_with_where_it_would_be() {
        let report = run("sbatch-of-nobody", &[]).expect_err("there is none").report();
        assert!(report.message.starts_with("`sbatch-of-nobody` cannot be started: "), "{}", report.message);
        assert!(report.hint.is_some_and(|hint| hint.contains("login node")));
    }
}
