//! Notices a worker that does nothing any more.
//!
//! A worker may be silent for hours: predicting one case on a CPU takes that long. What is stuck computes nothing either, so
//! both together decide. Processes that the worker has started count with it, since it may be wrapped in a script.

use std::time::{Duration, Instant};

/// The share of one processor below which a process counts as idle. What waits for a lock or a device that does not answer
/// uses none; what reads a slow disk uses more.
const IDLE_SHARE: f64 = 0.01;

/// Ticks a second of the times in `/proc`, the same on every Linux that programs see (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

/// Looks whether a worker still does something.
#[derive(Debug)]
pub(super) struct Watch {
    group: u32,
    patience: Duration,
    since: Instant,
    /// The processor time at `since`, once it was looked at.
    ticks: Option<u64>,
}

impl Watch {
    /// A watch over the processes of a group, from now on.
    pub(super) fn over(group: u32, patience: Duration) -> Self {
        Self { group, patience, since: Instant::now(), ticks: None }
    }

    /// The worker has said something.
    pub(super) fn hear(&mut self) {
        (self.since, self.ticks) = (Instant::now(), None);
    }

    /// Whether the worker was silent and idle for longer than patience lasts; where the system does not tell who computes,
    /// silence alone is no proof.
    pub(super) fn is_stuck(&mut self) -> bool {
        let Some(before) = self.ticks else {
            self.ticks = group_ticks(self.group);
            return false;
        };
        let silent = self.since.elapsed();
        if silent < self.patience {
            return false;
        }
        let now = group_ticks(self.group);
        let stuck = now.is_some_and(|now| is_idle(now.abs_diff(before), silent));
        (self.since, self.ticks) = (Instant::now(), now);
        stuck
    }
}

fn is_idle(ticks: u64, within: Duration) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    let seconds = ticks as f64 / TICKS_A_SECOND;
    seconds < IDLE_SHARE * within.as_secs_f64()
}

/// The processor time of all processes of a group and of their children that have ended.
fn group_ticks(group: u32) -> Option<u64> {
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ticks = processes.filter_map(|process| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let (of, ticks) = group_and_ticks(&stat)?;
        (of == group).then_some(ticks)
    });
    Some(ticks.sum())
}

/// The group of a process and its processor time, with that of its children, from its line in `/proc` (proc(5)): the
/// program's name in parentheses may hold anything; the group is the fifth field, the times are the 14th to the 17th.
fn group_and_ticks(stat: &str) -> Option<(u32, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let group = fields.get(2)?.parse().ok()?;
    let times = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok());
    Some((group, times.sum::<Option<u64>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_and_times_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 40 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 20";
        assert_eq!(group_and_ticks(stat), Some((40, 5 + 6 + 7 + 8)));
    }

    #[test]
    fn one_percent_of_a_processor_is_not_idle() {
        assert!(is_idle(9, Duration::from_secs(10)));
        assert!(!is_idle(10, Duration::from_secs(10)));
    }

    #[test]
    fn a_process_that_only_waits_is_stuck() {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new("cat");
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).process_group(0);
        let mut child = command.spawn().expect("cat can be started");
        let mut watch = Watch::over(child.id(), Duration::ZERO);
        // The first look only says where the time stands; starting a program takes some of it.
        while !watch.is_stuck() {
            std::thread::yield_now();
        }
        child.kill().expect("cat can be ended");
        child.wait().expect("cat can be waited for");
    }

    #[test]
    fn a_process_that_computes_is_not_stuck() {
        let group = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
        let (group, _) = group_and_ticks(&group).expect("a process has a group");
        let mut watch = Watch::over(group, Duration::ZERO);
        assert!(!watch.is_stuck());
        let before = group_ticks(group).expect("this is Linux");
        while group_ticks(group).is_some_and(|now| now < before + 5) {
            std::hint::spin_loop();
        }
        assert!(!watch.is_stuck());
    }
}
