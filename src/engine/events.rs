//! What happens in a run, as data: what a terminal shows, a log holds and a program reads.

use nnflow_stage::{ErrorReport, Progress};
use serde::{Deserialize, Serialize};

use super::usage::Usage;

/// The version of the events' form.
pub const EVENTS_VERSION: u32 = 1;

/// How many units of a node stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All that are known of.
    pub total: usize,
    /// Found in the store.
    pub found: usize,
    /// Run in this run.
    pub made: usize,
    /// Failed, or blocked by one that failed.
    pub lost: usize,
}

impl Tally {
    /// How many have ended.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.found + self.made + self.lost
    }
}

/// How a node ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum NodeEnd {
    /// Everything was found in the store.
    Fresh,
    /// It ran, in part or as a whole.
    Done {
        /// What its units took. Of the clock's time, that in which at least one of them was running.
        #[serde(flatten)]
        usage: Usage,
    },
    /// It did not take part.
    Skipped {
        /// Why.
        reason: String,
    },
    /// At least one unit failed.
    Failed,
    /// A node before it failed.
    Blocked {
        /// Which.
        reason: String,
    },
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The run began.
    Started {
        /// [`EVENTS_VERSION`].
        version: u32,
        /// The workflow's name.
        workflow: String,
        /// One line about what is run.
        summary: String,
    },
    /// Something is odd without being wrong.
    Warning {
        /// One sentence.
        message: String,
    },
    /// A unit began.
    UnitStarted {
        /// The node.
        node: String,
        /// The case, in a per-case phase.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        case: Option<String>,
        /// Why it runs.
        reason: String,
    },
    /// A unit has come further.
    UnitProgress {
        /// The node.
        node: String,
        /// The case, in a per-case phase.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        case: Option<String>,
        /// How far.
        progress: Progress,
    },
    /// A unit says something for its node's log.
    Log {
        /// The node.
        node: String,
        /// The case, in a per-case phase.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        case: Option<String>,
        /// The line.
        line: String,
    },
    /// A unit ended well.
    UnitDone {
        /// The node.
        node: String,
        /// The case, in a per-case phase.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        case: Option<String>,
        /// What it took.
        #[serde(flatten)]
        usage: Usage,
        /// How the node's units stand now.
        tally: Tally,
    },
    /// A unit failed.
    UnitFailed {
        /// The node.
        node: String,
        /// The case, in a per-case phase.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        case: Option<String>,
        /// Why.
        report: ErrorReport,
        /// The last lines of the node's log, where they may help.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        log_end: Vec<String>,
    },
    /// A node ended.
    NodeEnded {
        /// The node.
        node: String,
        /// How.
        #[serde(flatten)]
        end: NodeEnd,
        /// How its units stand.
        tally: Tally,
    },
    /// What came from the shared store, and what went there.
    Shared {
        /// Where it is.
        address: String,
        /// Results that came.
        fetched: u64,
        /// Bytes that came with them.
        fetched_bytes: u64,
        /// Results that went.
        pushed: u64,
        /// Bytes that went with them.
        pushed_bytes: u64,
    },
    /// The run ended.
    Ended {
        /// Whether everything that was asked for is at hand.
        success: bool,
        /// Whether it was asked to stop.
        interrupted: bool,
        /// Nodes that ran, in part or as a whole.
        run: usize,
        /// Nodes that were found in the store.
        fresh: usize,
        /// Nodes that did not take part.
        skipped: usize,
        /// Nodes that failed, were blocked or did not get their turn.
        failed: usize,
        /// From start to end.
        wall_seconds: f64,
    },
}

/// Who hears of what happens.
pub trait Listener: Send {
    /// Hears of an event.
    fn hear(&mut self, event: &RunEvent);
}

/// Several listeners as one.
#[derive(Default)]
pub struct Listeners(pub Vec<Box<dyn Listener>>);

impl Listener for Listeners {
    fn hear(&mut self, event: &RunEvent) {
        for listener in &mut self.0 {
            listener.hear(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::json;

    use super::*;

    const TALLY: Tally = Tally { total: 5, found: 3, made: 1, lost: 1 };

    fn check(event: &RunEvent, expected: &serde_json::Value) {
        assert_eq!(&serde_json::to_value(event).expect("an event is JSON"), expected);
        assert_eq!(&serde_json::from_value::<RunEvent>(expected.clone()).expect("an event can be read"), event);
    }

    #[test]
    fn a_unit_of_a_whole_phase_has_no_case() {
        let event = RunEvent::UnitStarted { node: "plan".to_owned(), case: None, reason: "why".to_owned() };
        check(&event, &json!({ "event": "unit_started", "node": "plan", "reason": "why" }));
    }

    #[test]
    fn the_end_of_a_node_is_told_beside_its_name() {
        let end = NodeEnd::Skipped { reason: "why".to_owned() };
        let event = RunEvent::NodeEnded { node: "plan".to_owned(), end, tally: TALLY };
        let tally = json!({ "total": 5, "found": 3, "made": 1, "lost": 1 });
        check(
            &event,
            &json!({ "event": "node_ended", "node": "plan", "state": "skipped", "reason": "why", "tally": tally }),
        );
    }

    /// One event of each kind, with everything in it that an event of its kind can have.
    fn samples() -> Vec<RunEvent> {
        let text = || "text".to_owned();
        let (node, case) = (text(), Some(text()));
        let usage = Usage {
            wall_seconds: 1.0,
            cpu_seconds: Some(1.0),
            peak_memory_bytes: Some(1),
            gpu_peak_memory_bytes: Some(1),
        };
        let progress = Progress { done: 1, total: None, unit: text(), message: text() };
        let ends = [NodeEnd::Done { usage }, NodeEnd::Skipped { reason: text() }];
        let report = ErrorReport::new(nnflow_stage::ErrorKind::Input, "text");
        let mut samples = vec![
            RunEvent::Started { version: EVENTS_VERSION, workflow: text(), summary: text() },
            RunEvent::Warning { message: text() },
            RunEvent::UnitStarted { node: node.clone(), case: case.clone(), reason: text() },
            RunEvent::UnitProgress { node: node.clone(), case: case.clone(), progress },
            RunEvent::Log { node: node.clone(), case: case.clone(), line: text() },
            RunEvent::UnitDone { node: node.clone(), case: case.clone(), usage, tally: TALLY },
            RunEvent::UnitFailed { node: node.clone(), case, report, log_end: vec![text()] },
            RunEvent::Shared { address: text(), fetched: 1, fetched_bytes: 1, pushed: 1, pushed_bytes: 1 },
            RunEvent::Ended {
                success: true,
                interrupted: false,
                run: 1,
                fresh: 1,
                skipped: 1,
                failed: 1,
                wall_seconds: 1.0,
            },
        ];
        samples.extend(ends.map(|end| RunEvent::NodeEnded { node: node.clone(), end, tally: TALLY }));
        samples
    }

    /// The fields that the page about events has for an event.
    fn documented(event: &str) -> BTreeSet<&'static str> {
        let page = include_str!("../../docs/events.md");
        let section = page.split("\n### ").find_map(|section| section.strip_prefix(&format!("`{event}`\n")));
        let rows = section.into_iter().flat_map(str::lines).filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| row.split('`').next()).collect()
    }

    #[test]
    fn the_page_about_events_has_every_event_with_every_field() {
        let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for sample in samples() {
            let serde_json::Value::Object(mut event) = json!(sample) else { panic!("an event is an object") };
            let name = event.remove("event").and_then(|name| Some(name.as_str()?.to_owned())).expect("it has a name");
            fields.entry(name).or_default().extend(event.into_iter().map(|(field, _)| field));
        }
        for (event, fields) in fields {
            let fields: BTreeSet<&str> = fields.iter().map(String::as_str).collect();
            assert_eq!(documented(&event), fields, "{event}");
        }
    }

    #[test]
    fn what_was_found_made_or_lost_has_ended() {
        assert_eq!(TALLY.ended(), 5);
    }
}
