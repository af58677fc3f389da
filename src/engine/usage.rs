//! What a unit of work takes of the machine: processor time and memory, for the record and for whoever watches.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a unit took, or several units of a node together. What could not be measured is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Time of the clock, in seconds.
    pub wall_seconds: f64,
    /// Time of processors, in seconds. Units that run side by side in one process share its time evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// The largest resident memory of the process that ran it, in bytes, while it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The largest memory of the GPU that tensors took, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_peak_memory_bytes: Option<u64>,
}

impl Usage {
    /// Adds what another unit took: times add up, of peaks the largest counts.
    pub fn add(&mut self, other: &Self) {
        let sum = |one: Option<f64>, other: Option<f64>| one.map_or(other, |one| Some(one + other.unwrap_or(0.0)));
        self.wall_seconds += other.wall_seconds;
        self.cpu_seconds = sum(self.cpu_seconds, other.cpu_seconds);
        self.peak_memory_bytes = self.peak_memory_bytes.max(other.peak_memory_bytes);
        self.gpu_peak_memory_bytes = self.gpu_peak_memory_bytes.max(other.gpu_peak_memory_bytes);
    }

    /// What a manifest says; nothing of what it does not say.
    #[must_use]
    pub fn from_stats(stats: &Value) -> Self {
        Self::deserialize(stats).unwrap_or_default()
    }

    /// What stands in a manifest beside a result.
    #[must_use]
    pub fn to_stats(&self, threads: usize, estimated_memory_bytes: u64) -> Value {
        let mut stats = json!(self);
        stats["threads"] = threads.into();
        stats["estimated_memory_bytes"] = estimated_memory_bytes.into();
        stats
    }
}

/// Processor time and memory of a process up to now.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    cpu_seconds: f64,
    /// The largest resident memory since the last reading, in bytes.
    peak_memory_bytes: u64,
}

/// Shares out what this process takes among the units that run in it.
#[derive(Debug, Default)]
pub struct Meter {
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Processor time of the process that is shared out already.
    told: f64,
    running: BTreeMap<u64, Usage>,
    begun: u64,
}

/// A unit that is being measured.
#[derive(Debug)]
#[must_use = "what is not ended is measured for ever"]
pub struct Measured {
    number: u64,
    start: Instant,
}

impl Meter {
    /// Begins to measure a unit.
    pub fn begin(&self) -> Measured {
        Measured { number: self.ledger().begin(read_own()), start: Instant::now() }
    }

    /// Ends it, and tells what it took.
    pub fn end(&self, measured: &Measured) -> Usage {
        let usage = self.ledger().end(measured.number, read_own());
        Usage { wall_seconds: measured.start.elapsed().as_secs_f64(), ..usage }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn begin(&mut self, reading: Option<Reading>) -> u64 {
        self.share_out(reading);
        self.begun += 1;
        self.running.insert(self.begun, Usage::default());
        self.begun
    }

    fn end(&mut self, number: u64, reading: Option<Reading>) -> Usage {
        self.share_out(reading);
        self.running.remove(&number).unwrap_or_default()
    }

    /// Gives each unit that runs its part of what was taken since the last reading.
    fn share_out(&mut self, reading: Option<Reading>) {
        let Some(reading) = reading else { return };
        #[expect(clippy::cast_precision_loss, reason = "a number of units")]
        let part = (reading.cpu_seconds - self.told) / self.running.len().max(1) as f64;
        self.told = reading.cpu_seconds;
        for usage in self.running.values_mut() {
            let peak_memory_bytes = Some(reading.peak_memory_bytes);
            usage.add(&Usage { cpu_seconds: Some(part), peak_memory_bytes, ..Usage::default() });
        }
    }
}

/// Begins a new peak of a process's resident memory. Where the system does not allow it, peaks are those since the process
/// began.
fn reset_peak(clear_refs: &File) {
    // 5 is the kernel's word for it, and the only one that leaves the pages themselves alone.
    clear_refs.write_at(b"5", 0).ok();
}

fn read_own() -> Option<Reading> {
    static CLEAR_REFS: std::sync::OnceLock<Option<File>> = std::sync::OnceLock::new();
    let usage = own_usage()?;
    if let Some(file) = CLEAR_REFS.get_or_init(|| File::options().write(true).open("/proc/self/clear_refs").ok()) {
        reset_peak(file);
    }
    Some(usage)
}

#[expect(unsafe_code, reason = "the standard library has no processor time")]
fn own_usage() -> Option<Reading> {
    // SAFETY: all zeros is a value of this structure of plain numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a structure of the kind that the function fills.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds and microseconds of a process fit")]
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let peak_memory_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024);
    Some(Reading { cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime), peak_memory_bytes })
}

/// What another process takes, from when this was made.
#[derive(Debug)]
pub struct Watched {
    process: u32,
    cpu_seconds: Option<f64>,
    start: Instant,
}

impl Watched {
    /// Begins to watch a process with this number.
    #[must_use]
    pub fn begin(process: u32) -> Self {
        if let Ok(file) = File::options().write(true).open(format!("/proc/{process}/clear_refs")) {
            reset_peak(&file);
        }
        Self { process, cpu_seconds: cpu_seconds_of(process), start: Instant::now() }
    }

    /// What it took since.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let now = cpu_seconds_of(self.process);
        Usage {
            wall_seconds: self.start.elapsed().as_secs_f64(),
            cpu_seconds: self.cpu_seconds.zip(now).map(|(before, now)| now - before),
            peak_memory_bytes: peak_memory_of(self.process),
            gpu_peak_memory_bytes: None,
        }
    }
}

/// The kernel counts processor time in hundredths of a second where a program can see it.
const TICKS_A_SECOND: f64 = 100.0;

fn cpu_seconds_of(process: u32) -> Option<f64> {
    cpu_seconds_in(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Processor time in the text of `/proc/N/stat`: that of the process and of its children that have ended.
fn cpu_seconds_in(stat: &str) -> Option<f64> {
    // The name of the program stands in parentheses and may hold anything; the third field is the first after it.
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    let ticks: Option<Vec<f64>> = fields.skip(11).take(4).map(|field| field.parse().ok()).collect();
    ticks.filter(|ticks| ticks.len() == 4).map(|ticks| ticks.iter().sum::<f64>() / TICKS_A_SECOND)
}

fn peak_memory_of(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(cpu_seconds: f64, peak_memory_bytes: u64) -> Option<Reading> {
        Some(Reading { cpu_seconds, peak_memory_bytes })
    }

    fn taken(cpu_seconds: f64, peak_memory_bytes: u64) -> Usage {
        let (cpu_seconds, peak_memory_bytes) = (Some(cpu_seconds), Some(peak_memory_bytes));
        Usage { cpu_seconds, peak_memory_bytes, ..Usage::default() }
    }

    #[test]
    fn units_side_by_side_share_the_processor_time_evenly() {
        let mut ledger = Ledger::default();
        let one = ledger.begin(reading(10.0, 5));
        let two = ledger.begin(reading(11.0, 7));
        let (one, two) = (ledger.end(one, reading(15.0, 9)), ledger.end(two, reading(16.0, 6)));
        assert_eq!((one, two), (taken(1.0 + 2.0, 9), taken(2.0 + 1.0, 9)));
    }

    #[test]
    fn time_in_which_nothing_ran_is_nobodys() {
        let mut ledger = Ledger::default();
        let one = ledger.begin(reading(10.0, 5));
        ledger.end(one, reading(11.0, 5));
        let two = ledger.begin(reading(20.0, 100));
        assert_eq!(ledger.end(two, reading(21.0, 3)), taken(1.0, 3));
    }

    #[test]
    fn of_several_units_times_add_up_and_the_largest_peak_counts() {
        let mut sum = Usage::default();
        for usage in [taken(1.0, 30), Usage { wall_seconds: 2.0, ..taken(3.0, 20) }, Usage::default()] {
            sum.add(&usage);
        }
        assert_eq!(sum, Usage { wall_seconds: 2.0, ..taken(4.0, 30) });
    }

    #[test]
    fn the_name_of_a_program_cannot_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 20 10 20 0 4 0 1234 0 0";
        assert_eq!(cpu_seconds_in(stat), Some(3.3));
    }

    #[test]
    fn a_process_that_is_not_there_took_an_unknown_amount() {
        let usage = Watched::begin(u32::MAX).usage();
        assert_eq!((usage.cpu_seconds, usage.peak_memory_bytes), (None, None));
    }

    #[test]
    fn memory_that_a_unit_used_and_gave_back_is_in_its_peak() {
        let meter = Meter::default();
        let unit = meter.begin();
        let block = std::hint::black_box(vec![1_u8; 96 << 20]);
        drop(block);
        let peak = meter.end(&unit).peak_memory_bytes;
        assert!(peak.is_some_and(|peak| peak >= 96 << 20), "{peak:?}");
    }
}
