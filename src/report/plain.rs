//! Plain lines, for a log file or a CI job.

use std::io::Write;
use std::time::Instant;

use super::failure::render_failure;
use super::text::duration;
use crate::engine::drive::Failure;
use crate::engine::events::{Listener, NodeEnd, RunEvent};

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

/// The line that an event is worth, on a terminal or elsewhere.
pub(super) fn line_of(event: &RunEvent) -> Option<String> {
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
                NodeEnd::Done { wall_seconds } => format!("  done   {node}{cases}  {}", duration(*wall_seconds)),
                NodeEnd::Skipped { reason } => format!("  skip   {node}: {reason}"),
                NodeEnd::Failed => format!("  failed {node}: {} of {} units", tally.lost, tally.total),
                NodeEnd::Blocked { reason } => format!("  not run {node}: {reason}"),
            })
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
