//! How a process ended that somebody talked to.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use crate::ErrorKind;

/// How often a wait looks whether a process has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The signal by which the system ends a process when memory runs out.
const SIGKILL: i32 = 9;

/// Waits so long for a process to end, and ends it if it does not. Returns how it ended, in words that follow its name,
/// and who has to act.
pub fn obituary(child: &mut Child, patience: Duration) -> (ErrorKind, String) {
    let deadline = Instant::now() + patience;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
    }
    let ended_here = matches!(child.try_wait(), Ok(None)) && child.kill().is_ok();
    match child.wait() {
        _ if ended_here => (ErrorKind::Internal, "broke the protocol and was ended".to_owned()),
        Ok(status) => ending(status),
        Err(error) => (ErrorKind::Internal, format!("ended, and how cannot be told: {error}")),
    }
}

/// How a process ended, in words that follow its name, and who has to act.
#[must_use]
pub fn ending(status: ExitStatus) -> (ErrorKind, String) {
    match (status.signal(), status.code()) {
        (Some(SIGKILL), _) => (
            ErrorKind::Resource,
            "was killed (signal 9), which is what the system does when memory runs out".to_owned(),
        ),
        (Some(signal), _) => (ErrorKind::Internal, format!("was ended by signal {signal}")),
        (None, Some(code)) => (ErrorKind::Internal, format!("exited with status {code}")),
        (None, None) => (ErrorKind::Internal, "ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_told_in_words() {
        // The status that wait(2) gives: a signal in the low byte, an exit code in the next one.
        let words = [9, 11, 3 << 8].map(|status| ending(ExitStatus::from_raw(status)));
        let killed = "was killed (signal 9), which is what the system does when memory runs out";
        assert_eq!(words[0], (ErrorKind::Resource, killed.to_owned()));
        assert_eq!(words[1], (ErrorKind::Internal, "was ended by signal 11".to_owned()));
        assert_eq!(words[2], (ErrorKind::Internal, "exited with status 3".to_owned()));
    }

    #[test]
    fn a_process_that_does_not_end_is_ended() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("every system has sleep");
        let expected = (ErrorKind::Internal, "broke the protocol and was ended".to_owned());
        assert_eq!(obituary(&mut child, Duration::ZERO), expected);
    }
}
