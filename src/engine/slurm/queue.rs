//! How jobs stand, as `squeue` and `sacct` tell it.
//!
//! One call asks for all jobs of the user. Fields are separated by `|` in both, a form that has not changed for many
//! versions, unlike their JSON. The controller forgets a job some minutes after its end; accounting remembers it, where
//! a cluster has accounting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::command;
use super::error::SlurmError;

/// How far back accounting is asked.
const SINCE: &str = "now-7days";

/// The number of an array's job and of one of its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    /// The array's job.
    pub array: u64,
    /// The element.
    pub element: u32,
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}_{}", self.array, self.element)
    }
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It waits in the queue.
    Pending,
    /// It has nodes.
    Running,
    /// It is being cleared away; how it ended is not final.
    Ending,
    /// It has ended.
    Ended(Ending),
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With exit code 0.
    Completed,
    /// With another exit code, or by a signal.
    Failed,
    /// Somebody cancelled it, or a job that it depends on failed.
    Cancelled,
    /// At its time limit.
    Timeout,
    /// At the deadline that somebody had given it.
    Deadline,
    /// It used more memory than it had asked for.
    OutOfMemory,
    /// Its node failed.
    NodeFailed,
    /// It had to make room for another job.
    Preempted,
}

/// An element of an array, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its number.
    pub id: JobId,
    /// How it stands.
    pub standing: Standing,
    /// Why it waits, or how it ended, in Slurm's word.
    pub reason: String,
    /// Its nodes.
    pub nodes: String,
}

impl Sighting {
    /// Why it waits, as the end of a sentence; nothing where Slurm has not said yet.
    pub(super) fn because(&self) -> String {
        if self.reason == "None" { String::new() } else { format!(": {}", self.reason) }
    }
}

/// All elements that were seen, by the comment that their job was submitted with and their number in the array.
pub type Sightings = BTreeMap<(String, u32), Sighting>;

/// Asks the controller for all jobs of this user; of several with the same comment the newest one counts.
///
/// # Errors
/// If `squeue` fails.
pub fn look() -> Result<Sightings, SlurmError> {
    let arguments = ["--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%N|%k"];
    Ok(parse_queue(&command::run("squeue", &arguments.map(str::to_owned))?))
}

/// Asks accounting for arrays.
///
/// # Errors
/// If `sacct` fails, as it does on clusters without accounting.
pub fn look_back(arrays: &BTreeSet<u64>) -> Result<BTreeMap<JobId, Sighting>, SlurmError> {
    let numbers: Vec<String> = arrays.iter().map(u64::to_string).collect();
    let arguments = [
        "--allocations".to_owned(),
        "--noheader".to_owned(),
        "--parsable2".to_owned(),
        format!("--starttime={SINCE}"),
        "--format=JobID,State,NodeList".to_owned(),
        format!("--jobs={}", numbers.join(",")),
    ];
    Ok(parse_accounting(&command::run("sacct", &arguments)?))
}

/// The signal that ended a job, if one did and the controller still knows.
pub(super) fn ending_signal(id: JobId) -> Option<i32> {
    parse_signal(
        &command::run("scontrol", &["--oneliner".to_owned(), "show".into(), "job".into(), id.to_string()]).ok()?,
    )
}

fn parse_queue(text: &str) -> Sightings {
    let mut sightings = Sightings::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.splitn(5, '|').map(str::trim).collect();
        let [id, state, reason, nodes, comment] = fields[..] else { continue };
        let Some(id) = parse_id(id) else { continue };
        let place = (comment.to_owned(), id.element);
        let is_newer = sightings.get(&place).is_none_or(|other| other.id < id);
        if is_newer {
            sightings.insert(place, sighting(id, state, reason, nodes));
        }
    }
    sightings
}

fn parse_accounting(text: &str) -> BTreeMap<JobId, Sighting> {
    let sighted = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        let [id, state, nodes] = fields[..] else { return None };
        let id = parse_id(id)?;
        Some((id, sighting(id, state, "", nodes)))
    });
    sighted.collect()
}

fn parse_signal(text: &str) -> Option<i32> {
    let codes = text.split_whitespace().find_map(|field| field.strip_prefix("ExitCode="))?;
    codes.split_once(':')?.1.parse().ok().filter(|signal| *signal != 0)
}

fn sighting(id: JobId, state: &str, reason: &str, nodes: &str) -> Sighting {
    let reason = if reason.is_empty() { state } else { reason };
    Sighting { id, standing: standing(state), reason: reason.to_owned(), nodes: nodes.to_owned() }
}

/// `12_3`; jobs that are no arrays are none of ours, and neither are steps of jobs.
fn parse_id(written: &str) -> Option<JobId> {
    let (array, element) = written.split_once('_')?;
    Some(JobId { array: array.parse().ok()?, element: element.parse().ok()? })
}

/// Accounting adds who has cancelled a job: `CANCELLED by 1000`.
fn standing(state: &str) -> Standing {
    match state.split_whitespace().next().unwrap_or_default().trim_end_matches('+') {
        "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => Standing::Pending,
        "COMPLETING" | "STAGE_OUT" => Standing::Ending,
        "COMPLETED" => Standing::Ended(Ending::Completed),
        "FAILED" => Standing::Ended(Ending::Failed),
        "CANCELLED" | "REVOKED" => Standing::Ended(Ending::Cancelled),
        "TIMEOUT" => Standing::Ended(Ending::Timeout),
        "DEADLINE" => Standing::Ended(Ending::Deadline),
        "OUT_OF_MEMORY" => Standing::Ended(Ending::OutOfMemory),
        "NODE_FAIL" | "BOOT_FAIL" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => Standing::Ended(Ending::NodeFailed),
        "PREEMPTED" => Standing::Ended(Ending::Preempted),
        // A state that a later version has added is not taken for an end.
        _ => Standing::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The forms of squeue(1) and sacct(1).
    const QUEUE: &str = "\
17_0|RUNNING|None|n1|nnflow-train-1.abc
17_1|PENDING|Resources||nnflow-train-1.abc
16_0|COMPLETED|None|n1|nnflow-train-1.abc
18|RUNNING|None|n2|somebody's own
19_2|FAILED|NonZeroExitCode|n2|nnflow|with a bar
";

    fn seen(comment: &str, element: u32) -> Option<Sighting> {
        parse_queue(QUEUE).remove(&(comment.to_owned(), element))
    }

    #[test]
    fn an_element_that_runs_is_seen_with_its_node() {
        let id = JobId { array: 17, element: 0 };
        let expected = Sighting { id, standing: Standing::Running, reason: "None".to_owned(), nodes: "n1".to_owned() };
        assert_eq!(seen("nnflow-train-1.abc", 0), Some(expected));
    }

    #[test]
    fn an_element_that_waits_is_seen_with_the_reason() {
        let sighting = seen("nnflow-train-1.abc", 1).expect("it is there");
        assert_eq!((sighting.standing, sighting.reason.as_str()), (Standing::Pending, "Resources"));
    }

    #[test]
    fn a_job_that_is_no_array_is_not_ours() {
        assert_eq!(parse_queue(QUEUE).len(), 3);
    }

    #[test]
    fn a_comment_may_hold_the_separator() {
        assert_eq!(
            seen("nnflow|with a bar", 2).map(|sighting| sighting.standing),
            Some(Standing::Ended(Ending::Failed))
        );
    }

    #[test]
    fn accounting_tells_who_cancelled_and_that_is_no_part_of_the_state() {
        let text = "24_4|CANCELLED by 1000|n1\n24_3|OUT_OF_MEMORY|n1\n24_3.batch|OUT_OF_MEMORY|n1\n24_[5-6]|PENDING|\n";
        let told: Vec<_> = parse_accounting(text).into_iter().map(|(id, seen)| (id.element, seen.standing)).collect();
        assert_eq!(told, [(3, Standing::Ended(Ending::OutOfMemory)), (4, Standing::Ended(Ending::Cancelled))]);
    }

    #[test]
    fn every_state_of_the_manual_is_known() {
        // squeue(1), "JOB STATE CODES".
        let active = ["CONFIGURING", "RESIZING", "RUNNING", "SIGNALING", "STOPPED", "SUSPENDED"];
        assert!(active.iter().all(|state| standing(state) == Standing::Running));
        let failed = ["BOOT_FAIL", "NODE_FAIL"];
        assert!(failed.iter().all(|state| standing(state) == Standing::Ended(Ending::NodeFailed)));
        assert_eq!(standing("PREEMPTED"), Standing::Ended(Ending::Preempted));
        let waiting = ["PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"];
        assert!(waiting.iter().all(|state| standing(state) == Standing::Pending));
        assert!(["COMPLETING", "STAGE_OUT"].iter().all(|state| standing(state) == Standing::Ending));
    }

    #[test]
    fn the_signal_that_ended_a_job_is_the_second_of_its_codes() {
        let told = |codes: &str| parse_signal(&format!("JobId=9 JobName=x JobState=FAILED {codes} RunTime=00:00:02"));
        assert_eq!([told("ExitCode=0:9"), told("ExitCode=3:0"), told("")], [Some(9), None, None]);
    }
}
