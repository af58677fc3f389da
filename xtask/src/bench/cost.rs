//! Runs a program and measures it: wall time, CPU time and memory of the whole process tree.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::process_tree::{Peak, ticks_of_ended_children};
use crate::error::Error;

/// Length of the ticks in which `/proc` counts: Linux shows a hundred a second, whatever the kernel's own timer does.
const TICK_SECONDS: f64 = 0.01;

/// Time between two glances at the memory of the program itself, which take some hundredths of a millisecond.
const PAUSE: Duration = Duration::from_millis(2);

/// From one look at the whole process tree to the next, at least this many times as long passes as the look took, which
/// bounds what looking takes from the program.
const PAUSE_FOR_LOOK: u32 = 40;

/// Lines of a program's output that are told when it fails.
const TOLD_LINES: usize = 15;

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// Seconds by the clock.
    pub(crate) wall: f64,
    /// Seconds of all processors together, in user and system mode; at least one tick.
    pub(crate) cpu: f64,
    /// Bytes of memory of the process tree at its peak; NaN of a program that was over before anybody looked.
    pub(crate) memory: f64,
}

/// Runs a program to its end, its output going to a file.
///
/// # Errors
/// If it cannot be started, or fails.
pub(crate) fn measure(command: &mut Command, log: &Path) -> Result<Cost, Error> {
    let output = File::create(log).map_err(Error::io("write", log))?;
    let errors = output.try_clone().map_err(Error::io("write", log))?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let ticks_before = ticks_of_ended_children();
    let start = Instant::now();
    let name = command_line(command);
    let start_failed = |source| Error::Start { program: name.clone(), source };
    let mut child = command.spawn().map_err(start_failed)?;
    let (status, wall, peak) = watch(&mut child, start);
    let status = status.map_err(start_failed)?;
    let ticks = ticks_of_ended_children().saturating_sub(ticks_before).max(1);
    if !status.success() {
        return Err(failed(&name, status, log));
    }
    let memory = if peak > 0 { peak as f64 } else { f64::NAN };
    // Where a part of a program is compared, its start is no part of that, and nobody but the program knows it.
    Ok(match told(&fs::read_to_string(log).unwrap_or_default()) {
        Some(wall) => Cost { wall, cpu: f64::NAN, memory },
        None => Cost { wall, cpu: ticks as f64 * TICK_SECONDS, memory },
    })
}

/// The seconds that a program tells of a part of itself, in its last line.
fn told(output: &str) -> Option<f64> {
    output.lines().last()?.strip_prefix("{\"wall_seconds\": ")?.strip_suffix('}')?.parse().ok()
}

/// Waits for the end of a program while another thread looks at its memory.
fn watch(child: &mut Child, start: Instant) -> (std::io::Result<ExitStatus>, f64, u64) {
    let (root, ended) = (child.id(), AtomicBool::new(false));
    thread::scope(|scope| {
        let watcher = scope.spawn(|| sample(root, &ended));
        let status = child.wait();
        let wall = start.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        (status, wall, watcher.join().unwrap_or(0))
    })
}

fn sample(root: u32, ended: &AtomicBool) -> u64 {
    let mut peak = Peak::default();
    let mut next_look = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        peak.glance(root);
        let start = Instant::now();
        if start >= next_look {
            peak.look(root);
            next_look = Instant::now() + start.elapsed() * PAUSE_FOR_LOOK;
        }
        thread::sleep(PAUSE);
    }
    peak.bytes()
}

fn failed(command: &str, status: ExitStatus, log: &Path) -> Error {
    let output = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = output.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(TOLD_LINES)).copied().collect::<Vec<_>>().join("\n  ");
    Error::Bench {
        message: format!("`{command}` failed ({status}); it said last\n  {last}"),
        remedy: Some(format!("all that it said stands in `{}`", log.display())),
    }
}

/// A command as one would type it.
pub(crate) fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Result<Cost, Error> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        measure(Command::new("sh").args(["-c", script]), &folder.path().join("log"))
    }

    #[test]
    fn a_program_that_ends_at_once_still_costs_a_tick() {
        let cost = run("true").expect("the shell does nothing");
        assert!(cost.cpu >= TICK_SECONDS && cost.wall > 0.0, "{cost:?}");
    }

    #[test]
    fn a_program_may_tell_how_long_the_part_took_that_is_compared() {
        let cost = run("echo loading; echo '{\"wall_seconds\": 0.25}'").expect("the shell does nothing");
        assert!(cost.wall == 0.25 && cost.cpu.is_nan(), "{cost:?}");
    }

    #[test]
    fn a_program_that_fails_is_told_with_its_last_words() {
        let error = run("echo no such dataset; exit 3").expect_err("the shell exits with 3");
        assert!(error.to_string().contains("no such dataset"), "{error}");
    }
}
