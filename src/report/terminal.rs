//! Progress bars, for a person at a terminal.

use std::collections::HashMap;
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use nnflow_stage::Progress;

use super::plain::line_of;
use super::text::duration;
use crate::engine::events::{Listener, NodeEnd, RunEvent, Tally};

/// One bar for each node under way; nodes that have ended leave a line above.
pub struct Terminal {
    bars: MultiProgress,
    nodes: HashMap<String, Node>,
    fresh: Vec<String>,
}

struct Node {
    bar: ProgressBar,
    started: Instant,
}

impl Terminal {
    /// Bars on the terminal that standard error is.
    #[must_use]
    pub fn new() -> Self {
        Self { bars: MultiProgress::new(), nodes: HashMap::new(), fresh: Vec::new() }
    }

    fn print(&self, line: &str) {
        // A terminal that is gone ends the lines, not the run.
        if self.bars.println(line).is_err() {
            self.bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
    }

    /// Nodes that were fresh are told together, in one line.
    fn print_fresh(&mut self) {
        if !self.fresh.is_empty() {
            let names = std::mem::take(&mut self.fresh);
            let nodes = if names.len() == 1 { "node" } else { "nodes" };
            self.print(&format!("  fresh  {}  {} {nodes}", together(&names), names.len()));
        }
    }

    fn node(&mut self, name: &str) -> &mut Node {
        let bars = &self.bars;
        self.nodes.entry(name.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template("  run    {prefix:32} {bar:20} {msg}")
                .expect("invariant: the template is valid");
            let bar = bars.add(ProgressBar::new(1).with_style(style).with_prefix(name.to_owned()));
            Node { bar, started: Instant::now() }
        })
    }

    fn show_cases(&mut self, name: &str, tally: &Tally) {
        let node = self.node(name);
        if tally.total < 2 {
            return;
        }
        node.bar.set_length(tally.total as u64);
        node.bar.set_position(tally.ended() as u64);
        let (done, left) = (tally.made, tally.total - tally.ended());
        let remaining = left_over(node.started.elapsed().as_secs_f64(), done as u64, left as u64);
        node.bar.set_message(format!("case {}/{}  {remaining}", tally.ended(), tally.total));
    }

    fn show_progress(&mut self, name: &str, case: Option<&str>, progress: &Progress) {
        let node = self.node(name);
        let mut words = vec![match progress.total {
            Some(total) => format!("{} {}/{total}", progress.unit, progress.done),
            None => format!("{} {}", progress.unit, progress.done),
        }];
        words.extend(case.map(str::to_owned));
        if !progress.message.is_empty() {
            words.push(progress.message.clone());
        }
        if let (Some(total), None) = (progress.total, case) {
            node.bar.set_length(total);
            node.bar.set_position(progress.done);
            let left = total.saturating_sub(progress.done);
            words.push(left_over(node.started.elapsed().as_secs_f64(), progress.done, left));
        }
        node.bar.set_message(words.join("  "));
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Listener for Terminal {
    fn hear(&mut self, event: &RunEvent) {
        match event {
            RunEvent::UnitStarted { node, .. } => {
                self.print_fresh();
                self.node(node);
            }
            RunEvent::UnitProgress { node, case, progress } => self.show_progress(node, case.as_deref(), progress),
            RunEvent::UnitDone { node, tally, .. } => self.show_cases(node, tally),
            RunEvent::NodeEnded { node, end: NodeEnd::Fresh, .. } => self.fresh.push(node.clone()),
            RunEvent::NodeEnded { node, .. } => {
                if let Some(ended) = self.nodes.remove(node) {
                    ended.bar.finish_and_clear();
                }
                self.print_fresh();
                self.print(&line_of(event).unwrap_or_default());
            }
            RunEvent::Ended { .. } => {
                self.print_fresh();
                self.nodes.drain().for_each(|(_, node)| node.bar.finish_and_clear());
                self.print(&line_of(event).unwrap_or_default());
            }
            other => {
                if let Some(line) = line_of(other) {
                    self.print(&line);
                }
            }
        }
    }
}

fn left_over(elapsed: f64, done: u64, left: u64) -> String {
    if done == 0 || left == 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate for a person")]
    let seconds = elapsed / done as f64 * left as f64;
    format!("{} left", duration(seconds))
}

/// Names of nodes with those of one stage drawn together: `crop  train[3d_fullres,*]` instead of each fold.
fn together(names: &[String]) -> String {
    let mut stages: Vec<(&str, usize)> = Vec::new();
    for name in names {
        let stage = name.split('[').next().unwrap_or(name);
        match stages.last_mut() {
            Some((last, count)) if *last == stage => *count += 1,
            _ => stages.push((stage, 1)),
        }
    }
    let shown: Vec<String> = stages
        .iter()
        .map(|(stage, count)| if *count > 1 { format!("{stage} x{count}") } else { (*stage).to_owned() })
        .collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_stage_are_told_together() {
        let names = ["crop", "train[2d,0]", "train[2d,1]", "train[3d_fullres,0]", "select"].map(str::to_owned);
        assert_eq!(together(&names), "crop train x3 select");
    }

    #[test]
    fn what_is_left_is_told_from_what_was_done() {
        assert_eq!([left_over(30.0, 3, 6), left_over(30.0, 0, 6), left_over(30.0, 3, 0)], ["1 min 00 s left", "", ""]);
    }
}
