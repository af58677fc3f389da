//! How the nodes of a run that is under way stand, from its events.

use std::collections::{BTreeMap, BTreeSet};

use nnflow_stage::Progress;

use crate::engine::events::{RunEvent, Tally};

/// What is under way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Live {
    nodes: BTreeMap<String, LiveNode>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct LiveNode {
    /// The units under way, by their cases; none stands for a unit that has no case.
    running: BTreeSet<Option<String>>,
    progress: Option<Progress>,
    tally: Tally,
}

impl Live {
    /// What follows from the events of a run.
    pub fn of(events: impl Iterator<Item = RunEvent>) -> Self {
        let mut live = Self::default();
        events.for_each(|event| live.take(event));
        live
    }

    fn take(&mut self, event: RunEvent) {
        match event {
            RunEvent::UnitStarted { node, case, .. } => drop(self.node(node).running.insert(case)),
            RunEvent::UnitProgress { node, progress, .. } => self.node(node).progress = Some(progress),
            RunEvent::UnitDone { node, case, tally, .. } => {
                let node = self.node(node);
                node.running.remove(&case);
                (node.tally, node.progress) = (tally, None);
            }
            RunEvent::UnitFailed { node, case, .. } => drop(self.node(node).running.remove(&case)),
            RunEvent::NodeEnded { node, .. } => drop(self.nodes.remove(&node)),
            RunEvent::Started { .. }
            | RunEvent::Warning { .. }
            | RunEvent::Log { .. }
            | RunEvent::Shared { .. }
            | RunEvent::Ended { .. } => {}
        }
    }

    fn node(&mut self, name: String) -> &mut LiveNode {
        self.nodes.entry(name).or_default()
    }

    /// How far a node is, if it runs: `running: epoch 37/250  dice 0.884`.
    #[must_use]
    pub fn describe(&self, node: &str) -> Option<String> {
        let node = self.nodes.get(node).filter(|node| !node.running.is_empty())?;
        let mut words = Vec::new();
        if node.tally.total > 1 {
            words.push(format!("case {}/{}", node.tally.ended(), node.tally.total));
        } else {
            words.extend(node.running.iter().flatten().next().cloned());
        }
        if let Some(progress) = &node.progress {
            let total = progress.total.map_or_else(String::new, |total| format!("/{total}"));
            words.push(format!("{} {}{total}", progress.unit, progress.done));
            words.extend((!progress.message.is_empty()).then(|| progress.message.clone()));
        }
        Some(if words.is_empty() { "running".to_owned() } else { format!("running: {}", words.join("  ")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::usage::Usage;

    fn started(case: Option<&str>) -> RunEvent {
        RunEvent::UnitStarted {
            node: "train".to_owned(),
            case: case.map(str::to_owned),
            reason: "its result is not in the store".to_owned(),
        }
    }

    fn progress(done: u64) -> RunEvent {
        let progress = Progress { done, total: Some(250), unit: "epoch".to_owned(), message: "dice 0.884".to_owned() };
        RunEvent::UnitProgress { node: "train".to_owned(), case: None, progress }
    }

    fn done(case: Option<&str>, made: usize, total: usize) -> RunEvent {
        let tally = Tally { total, found: 0, made, lost: 0 };
        RunEvent::UnitDone { node: "train".to_owned(), case: case.map(str::to_owned), usage: Usage::default(), tally }
    }

    fn described(events: Vec<RunEvent>) -> Option<String> {
        Live::of(events.into_iter()).describe("train")
    }

    #[test]
    fn the_last_word_of_a_unit_counts() {
        let events = vec![started(None), progress(1), progress(37)];
        assert_eq!(described(events).as_deref(), Some("running: epoch 37/250  dice 0.884"));
    }

    #[test]
    fn of_cases_it_is_told_how_many_have_ended() {
        let events = vec![started(Some("a")), started(Some("b")), done(Some("a"), 1, 5)];
        assert_eq!(described(events).as_deref(), Some("running: case 1/5"));
    }

    #[test]
    fn a_node_without_a_unit_under_way_does_not_run() {
        assert_eq!(described(vec![started(None), done(None, 1, 1)]), None);
    }
}
