//! Who a process is, and whether it still lives: for leases, staging folders and attempts.
//!
//! A process number alone says little: it is used again after the process ends, it means another process
//! in another container, and nothing at all on another host. So a process is remembered with the time it
//! started, the boot of the machine, and its process namespace, and where these do not match the answer
//! is "unknown" rather than a guess.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::digest::hash_bytes;

/// A process, as precisely as the system lets it be named.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessIdentity {
    /// Name of the host.
    pub host: String,
    /// The kernel's name for the time since the machine was started; empty where it has none.
    pub boot_id: String,
    /// The namespace in which `pid` means something; empty where the system has none.
    pub pid_namespace: String,
    /// Number of the process.
    pub pid: u32,
    /// When it started, in ticks of the system's clock since the machine was started.
    pub started: Option<u64>,
}

/// What can be said about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It runs.
    Alive,
    /// It has ended, or its machine was started anew.
    Dead,
    /// It is on another host or in another container, so only its heartbeat can tell.
    Unknown,
}

impl ProcessIdentity {
    /// This process.
    pub fn current() -> &'static Self {
        static CURRENT: OnceLock<ProcessIdentity> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let pid = std::process::id();
            Self {
                host: kernel_text("hostname"),
                boot_id: kernel_text("random/boot_id"),
                pid_namespace: pid_namespace(),
                pid,
                started: process_status(pid).map(|status| status.started),
            }
        })
    }

    /// The text of a file that says whose a folder is.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: an identity is plain text and numbers")
    }

    /// Reads a file that says whose a folder is; `None` if there is none or it cannot be understood.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Whether the process still runs, as far as this process can see.
    pub fn liveness(&self) -> Liveness {
        self.liveness_seen_by(Self::current(), process_status)
    }

    fn liveness_seen_by(&self, observer: &Self, status: impl Fn(u32) -> Option<ProcessStatus>) -> Liveness {
        if observer.boot_id.is_empty() || self.host != observer.host {
            return Liveness::Unknown;
        }
        if self.boot_id != observer.boot_id {
            return Liveness::Dead;
        }
        if self.pid_namespace != observer.pid_namespace {
            return Liveness::Unknown;
        }
        match status(self.pid) {
            Some(status) if !status.ended && self.started.is_none_or(|started| started == status.started) => {
                Liveness::Alive
            }
            _ => Liveness::Dead,
        }
    }
}

/// A short text that no other call on any host returns, for names of folders and leases.
pub(crate) fn unique_name() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let identity = ProcessIdentity::current();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let seed = format!(
        "{} {} {} {} {:?} {now} {}",
        identity.host,
        identity.boot_id,
        identity.pid_namespace,
        identity.pid,
        identity.started,
        CALLS.fetch_add(1, Ordering::Relaxed)
    );
    hash_bytes(seed.as_bytes()).short()
}

#[derive(Debug, Clone, Copy)]
struct ProcessStatus {
    started: u64,
    ended: bool,
}

fn kernel_text(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    text.trim().to_owned()
}

fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().into_owned()
}

/// Reads the state and the start time of a process; `None` if there is no such process.
fn process_status(pid: u32) -> Option<ProcessStatus> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field of the text is the program's name in parentheses and may hold anything, even
/// parentheses and blanks; the state is the third field and the start time the 22nd (proc(5)).
fn parse_status(text: &str) -> Option<ProcessStatus> {
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let started = fields.nth(18)?.parse().ok()?;
    Some(ProcessStatus { started, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer() -> ProcessIdentity {
        ProcessIdentity {
            host: "gpu1".into(),
            boot_id: "b1".into(),
            pid_namespace: "pid:[1]".into(),
            pid: 10,
            started: Some(5),
        }
    }

    fn check(process: ProcessIdentity, status: Option<ProcessStatus>, expected: Liveness) {
        assert_eq!(process.liveness_seen_by(&observer(), |_| status), expected);
    }

    fn running(started: u64) -> Option<ProcessStatus> {
        Some(ProcessStatus { started, ended: false })
    }

    #[test]
    fn this_process_is_alive() {
        assert_eq!(ProcessIdentity::current().liveness(), Liveness::Alive);
    }

    #[test]
    fn a_process_with_the_same_start_is_alive() {
        check(observer(), running(5), Liveness::Alive);
    }

    #[test]
    fn a_number_that_was_used_again_is_a_dead_process() {
        check(observer(), running(6), Liveness::Dead);
    }

    #[test]
    fn a_process_that_nobody_waited_for_is_dead() {
        check(observer(), Some(ProcessStatus { started: 5, ended: true }), Liveness::Dead);
    }

    #[test]
    fn a_process_from_before_the_last_boot_is_dead() {
        check(ProcessIdentity { boot_id: "b0".into(), ..observer() }, running(5), Liveness::Dead);
    }

    #[test]
    fn a_process_of_another_host_is_unknown() {
        check(ProcessIdentity { host: "gpu2".into(), ..observer() }, None, Liveness::Unknown);
    }

    #[test]
    fn a_process_of_another_container_is_unknown() {
        check(ProcessIdentity { pid_namespace: "pid:[2]".into(), ..observer() }, None, Liveness::Unknown);
    }

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) Z (b) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 20";
        let status = parse_status(text).unwrap();
        assert_eq!((status.started, status.ended), (987_654, false));
    }

    #[test]
    fn unique_names_differ() {
        assert_ne!(unique_name(), unique_name());
    }
}
