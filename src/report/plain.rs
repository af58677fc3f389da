//! Plain lines, for a log file or a CI job.

use std::io::Write;
use std::time::Instant;

use super::failure::render_failure;
use super::text::{duration, size};
use crate::engine::drive::Failure;
use crate::engine::events::{Listener, NodeEnd, RunEvent};
use crate::engine::usage::Usage;

/// The shortest time between two lines about the progress of one node, in seconds.
const PROGRESS_EVERY: f64 = 10.0;

/// Writes one line for each node that ends and each unit that fails, and now and then one about progress.
pub struct Plain<W> {
    out: W,
    last_progress: Option<Instant>,
    broken: bool,
}

impl<W: Write + Send> Plain<W> {
    /// Lines to `out`.
    pub fn new(out: W) -> Self {
        Self { out, last_progress: None, broken: false }
    }

    /// A closed pipe ends the lines, not the run.
    fn line(&mut self, line: &str) {
        self.broken = self.broken || writeln!(self.out, "{line}").is_err();
    }

    fn is_due(&mut self) -> bool {
        let due = self.last_progress.is_none_or(|last| last.elapsed().as_secs_f64() >= PROGRESS_EVERY);
        if due {
            self.last_progress = Some(Instant::now());
        }
        due
    }
}

impl<W: Write + Send> Listener for Plain<W> {
    fn hear(&mut self, event: &RunEvent) {
        if let RunEvent::UnitProgress { node, case, progress } = event {
            if self.is_due() {
                let case = case.as_ref().map_or_else(String::new, |case| format!(" {case}"));
                let total = progress.total.map_or_else(String::new, |total| format!("/{total}"));
                let line =
                    format!("  ...    {node}{case}  {} {}{total}  {}", progress.unit, progress.done, progress.message);
                self.line(line.trim_end());
            }
        } else if let Some(line) = line_of(event) {
            self.line(&line);
        }
    }
}

/// Shorter work than this, in seconds, is not worth more than its time.
const LONG: f64 = 1.0;

/// What a node took: `0.4 s`, or `12 s, 1.9 processors, 2.5 GiB`.
fn taken(usage: &Usage) -> String {
    let mut words = vec![duration(usage.wall_seconds)];
    if usage.wall_seconds >= LONG {
        words.extend(usage.cpu_seconds.map(|cpu| format!("{:.1} processors", cpu / usage.wall_seconds)));
        words.extend(usage.peak_memory_bytes.map(size));
        words.extend(usage.gpu_peak_memory_bytes.map(|bytes| format!("{} of the GPU", size(bytes))));
    }
    words.join(", ")
}

/// The line that an event is worth, on a terminal or elsewhere.
pub(crate) fn line_of(event: &RunEvent) -> Option<String> {
    match event {
        RunEvent::Started { summary, .. } => Some(summary.clone()),
        RunEvent::Warning { message } => Some(format!("warning: {message}")),
        RunEvent::UnitFailed { node, case, report, log_end } => {
            let failure = Failure { node: node.clone(), case: case.clone(), report: report.clone() };
            let mut text = render_failure(&failure);
            if !log_end.is_empty() {
                text.push_str("\n  the end of its log:");
                log_end.iter().for_each(|line| text.push_str(&format!("\n  | {line}")));
            }
            Some(text)
        }
        RunEvent::NodeEnded { node, end, tally } => {
            let cases =
                if tally.total > 1 { format!("  {} units, {} found", tally.total, tally.found) } else { String::new() };
            Some(match end {
                NodeEnd::Fresh => format!("  fresh  {node}"),
                NodeEnd::Done { usage } => format!("  done   {node}{cases}  {}", taken(usage)),
                NodeEnd::Skipped { reason } => format!("  skip   {node}: {reason}"),
                NodeEnd::Failed => format!("  failed {node}: {} of {} units", tally.lost, tally.total),
                NodeEnd::Blocked { reason } => format!("  not run {node}: {reason}"),
            })
        }
        RunEvent::Shared { fetched: 0, pushed: 0, .. } => None,
        RunEvent::Shared { address, fetched, fetched_bytes, pushed, pushed_bytes } => {
            let (fetched_bytes, pushed_bytes) = (size(*fetched_bytes), size(*pushed_bytes));
            Some(format!(
                "shared store {address}: {fetched} results fetched ({fetched_bytes}), {pushed} pushed ({pushed_bytes})"
            ))
        }
        RunEvent::Ended { success, interrupted, run, fresh, skipped, failed, wall_seconds } => {
            let word = match (success, interrupted) {
                (true, _) => "done",
                (false, true) => "interrupted (run again to go on)",
                (false, false) => "ended",
            };
            let failed = if *failed > 0 { format!(", {failed} not done") } else { String::new() };
            Some(format!(
                "{word} after {}: {run} run, {fresh} fresh, {skipped} skipped{failed}",
                duration(*wall_seconds)
            ))
        }
        RunEvent::UnitStarted { .. }
        | RunEvent::UnitProgress { .. }
        | RunEvent::UnitDone { .. }
        | RunEvent::Log { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::events::Tally;

    fn ended(end: NodeEnd, total: usize) -> String {
        let tally = Tally { total, found: 1, made: 1, lost: 2 };
        line_of(&RunEvent::NodeEnded { node: "crop".to_owned(), end, tally }).unwrap_or_default()
    }

    fn done(wall_seconds: f64) -> NodeEnd {
        let usage = Usage { cpu_seconds: Some(3.0), peak_memory_bytes: Some(5 << 29), ..Usage::default() };
        NodeEnd::Done { usage: Usage { wall_seconds, ..usage } }
    }

    #[test]
    fn of_long_work_it_is_told_what_it_took() {
        assert_eq!(ended(done(2.0), 1), "  done   crop  2.0 s, 1.5 processors, 2.5 GiB");
    }

    #[test]
    fn every_end_of_a_node_has_a_word() {
        let reason = || "why".to_owned();
        assert_eq!(ended(NodeEnd::Fresh, 4), "  fresh  crop");
        assert_eq!(ended(done(0.4), 1), "  done   crop  0.4 s");
        assert_eq!(ended(done(0.4), 4), "  done   crop  4 units, 1 found  0.4 s");
        assert_eq!(ended(NodeEnd::Skipped { reason: reason() }, 0), "  skip   crop: why");
        assert_eq!(ended(NodeEnd::Failed, 4), "  failed crop: 2 of 4 units");
        assert_eq!(ended(NodeEnd::Blocked { reason: reason() }, 0), "  not run crop: why");
    }

    #[test]
    fn the_end_of_an_interrupted_run_tells_what_to_do() {
        let event = RunEvent::Ended {
            success: false,
            interrupted: true,
            run: 1,
            fresh: 2,
            skipped: 3,
            failed: 4,
            wall_seconds: 5.0,
        };
        let expected = "interrupted (run again to go on) after 5.0 s: 1 run, 2 fresh, 3 skipped, 4 not done";
        assert_eq!(line_of(&event).as_deref(), Some(expected));
    }

    /// A pipe whose reader has gone, which counts how often it was tried.
    struct Closed<'a>(&'a mut usize);

    impl Write for Closed<'_> {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            *self.0 += 1;
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_not_written_to_again() {
        let mut tried = 0;
        let mut plain = Plain::new(Closed(&mut tried));
        for _ in 0..3 {
            plain.hear(&RunEvent::Warning { message: "odd".to_owned() });
        }
        assert_eq!(tried, 1);
    }
}
