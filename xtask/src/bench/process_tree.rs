//! What a program and all the processes that it starts use of memory, read from `/proc`.
//!
//! nnU-Net works with worker processes that share pages with each other, so that the sum of their resident sets counts
//! some pages several times. The proportional set size (PSS) divides each page by those who share it: its sum over the
//! tree is what the tree takes.

use std::fs;

/// Bytes in what `/proc` calls a kB.
const KILO: u64 = 1024;

/// The largest memory that was seen of a tree.
#[derive(Debug, Default)]
pub(crate) struct Peak {
    sampled: u64,
    largest_resident: u64,
    had_children: bool,
}

/// What one look at a tree has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Look {
    processes: usize,
    proportional: u64,
}

impl Peak {
    /// Looks at the root alone: `VmHWM` is the most that it ever had resident.
    pub(crate) fn glance(&mut self, root: u32) {
        self.note_resident(kilobytes(&read(root, "status"), "VmHWM:").unwrap_or(0));
    }

    /// Looks at the whole tree below a process.
    pub(crate) fn look(&mut self, root: u32) {
        self.note(look(root));
    }

    fn note(&mut self, look: Look) {
        self.sampled = self.sampled.max(look.proportional);
        self.had_children |= look.processes > 1;
    }

    fn note_resident(&mut self, bytes: u64) {
        self.largest_resident = self.largest_resident.max(bytes);
    }

    /// Bytes.
    ///
    /// A program that stays one process may be over between two looks. Its own record of its largest resident set is
    /// taken then, which is at least as much as its proportional one.
    pub(crate) fn bytes(&self) -> u64 {
        if self.had_children { self.sampled } else { self.sampled.max(self.largest_resident) }
    }
}

fn look(root: u32) -> Look {
    let tree = descendants(&parents(), root);
    let proportional = tree.iter().filter_map(|process| kilobytes(&read(*process, "smaps_rollup"), "Pss:"));
    Look { processes: tree.len(), proportional: proportional.sum() }
}

/// A file of `/proc` about a process; empty if the process is gone.
fn read(process: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default()
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |process| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        Some((process, u32::try_from(field(&stat, PARENT)?).ok()?))
    };
    processes.filter_map(parent).collect()
}

/// A process and all that came from it.
fn descendants(parents: &[(u32, u32)], root: u32) -> Vec<u32> {
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&process) = tree.get(next) {
        let children = parents.iter().filter(|(_, parent)| *parent == process).map(|(child, _)| *child);
        tree.extend(children.filter(|child| *child != root));
        next += 1;
    }
    tree
}

/// The value of a line such as `Pss:    231 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(KILO)
}

/// Fields of `/proc/PID/stat`, counted as in proc(5).
const PARENT: usize = 4;
const CHILDRENS_USER_TIME: usize = 16;
const CHILDRENS_SYSTEM_TIME: usize = 17;

/// A number in `/proc/PID/stat`. The second field is the program's name in parentheses, which may hold any character.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// Clock ticks in user and system mode of all processes that ended and were waited for, and of all that these waited for.
pub(crate) fn ticks_of_ended_children() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = [CHILDRENS_USER_TIME, CHILDRENS_SYSTEM_TIME].map(|number| field(&stat, number).unwrap_or(0));
    ticks.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b (c)) S 7 42 42 0 -1 4194560 900 800 0 0 11 12 13 14 20 0 1 0 100 0 0";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let fields = [PARENT, CHILDRENS_USER_TIME, CHILDRENS_SYSTEM_TIME].map(|number| field(STAT, number));
        assert_eq!(fields, [Some(7), Some(13), Some(14)]);
    }

    #[test]
    fn the_proportional_size_is_read_in_bytes() {
        let rollup = "55-7f ---p 0 00:00 0 [rollup]\nRss:    1748 kB\nPss:     231 kB\nPss_Dirty:   112 kB\n";
        assert_eq!(kilobytes(rollup, "Pss:"), Some(231 * 1024));
    }

    #[test]
    fn grandchildren_belong_to_the_tree_and_strangers_do_not() {
        assert_eq!(descendants(&[(2, 1), (3, 2), (4, 3), (5, 1), (6, 3)], 2), [2, 3, 4, 6]);
    }

    #[test]
    fn a_single_process_cannot_hide_its_peak_between_two_looks() {
        let mut peak = Peak::default();
        peak.note(Look { processes: 1, proportional: 10 });
        peak.note_resident(90);
        assert_eq!(peak.bytes(), 90);
    }

    #[test]
    fn shared_pages_of_several_processes_count_once() {
        let mut peak = Peak::default();
        peak.note_resident(100);
        peak.note(Look { processes: 1, proportional: 10 });
        peak.note(Look { processes: 3, proportional: 40 });
        assert_eq!(peak.bytes(), 40);
    }

    #[test]
    fn this_process_has_memory() {
        let mut peak = Peak::default();
        peak.look(std::process::id());
        assert!(peak.bytes() > 100 * KILO, "{peak:?}");
    }
}
