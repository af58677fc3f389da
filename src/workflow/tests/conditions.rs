//! Conditions: what they mean, and what is asked of a run to tell.

use std::cell::RefCell;
use std::convert::Infallible;

use nnflow_stage::Axes;

use crate::workflow::condition_parser::parse;
use crate::workflow::{Condition, Facts, Members, Verdict};

/// A run in which the document at `plan` names some values, and that remembers what it was asked.
struct Run {
    named: &'static [&'static str],
    every: bool,
    asked: RefCell<Vec<String>>,
}

impl Run {
    fn naming(named: &'static [&'static str]) -> Self {
        Self { named, every: true, asked: RefCell::new(Vec::new()) }
    }
}

impl Facts for Run {
    type Error = Infallible;

    fn names(&self, input: &str, value: &str) -> Result<bool, Infallible> {
        self.asked.borrow_mut().push(format!("{input} {value}"));
        Ok(self.named.contains(&value))
    }

    fn every(&self, input: &str) -> Result<bool, Infallible> {
        self.asked.borrow_mut().push(input.to_owned());
        Ok(self.every)
    }
}

fn condition(text: &str) -> Condition {
    parse(text).expect("a condition").condition
}

fn axes(values: &[(&str, &str)]) -> Axes {
    values.iter().map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned())).collect()
}

/// Whether a condition over `a` and `b` holds for these values.
fn holds(text: &str, a: &str, b: &str) -> bool {
    condition(text).decided(&axes(&[("a", a), ("b", b)])).expect("axes alone decide")
}

/// Why a condition does not hold.
fn reason(text: &str, node: &[(&str, &str)], members: &Members, run: &Run) -> Option<String> {
    match condition(text).verdict(&axes(node), members, run) {
        Ok(Verdict::Run) => None,
        Ok(Verdict::Skip { reason }) => Some(reason),
        Err(never) => match never {},
    }
}

#[test]
fn comparisons_look_at_the_value() {
    assert!(holds("a == '1'", "1", "2"));
    assert!(!holds("a == '1'", "2", "1"));
    assert!(holds("a != '1'", "2", "1"));
    assert!(holds("a in ['1', '2']", "2", "3"));
    assert!(!holds("a not in ['1', '2']", "2", "3"));
    assert!(holds("a == 1", "1", "2"));
}

#[test]
fn and_binds_more_tightly_than_or() {
    assert!(holds("a == '1' or a == '2' and b == '9'", "1", "0"));
    assert!(!holds("(a == '1' or a == '2') and b == '9'", "1", "0"));
}

#[test]
fn not_binds_more_tightly_than_and() {
    assert!(!holds("not a == '1' and b == '2'", "1", "3"));
    assert!(holds("not (a == '1' and b == '2')", "1", "3"));
}

#[test]
fn what_is_printed_means_the_same() {
    for text in [
        "a == '1'",
        "a not in ['1', '2']",
        "not (a in plan) and every models",
        "(a == '1' or b == '2') and (a != '3' or not (every x and every y))",
    ] {
        let once = condition(text);
        assert_eq!(condition(&once.to_string()), once, "{text}");
    }
}

#[test]
fn a_plan_that_does_not_name_the_value_skips_the_node() {
    let run = Run::naming(&["2d"]);
    let why = reason("configuration in plan", &[("configuration", "3d")], &Members::new(), &run);
    assert_eq!(why.as_deref(), Some("`plan` does not name `3d`"));
    assert_eq!(reason("configuration in plan", &[("configuration", "2d")], &Members::new(), &run), None);
}

#[test]
fn a_pair_is_named_if_both_members_are() {
    let members = Members::from([("pair".to_owned(), vec!["2d".to_owned(), "3d".to_owned()])]);
    let node = [("pair", "2d+3d")];
    assert_eq!(reason("pair in plan", &node, &members, &Run::naming(&["2d", "3d"])), None);
    let why = reason("pair in plan", &node, &members, &Run::naming(&["2d", "2d+3d"]));
    assert_eq!(why.as_deref(), Some("`plan` does not name `3d`"));
}

#[test]
fn a_skipped_producer_skips_the_node() {
    let run = Run { every: false, ..Run::naming(&[]) };
    assert_eq!(
        reason("every models", &[], &Members::new(), &run).as_deref(),
        Some("a producer of `models` was skipped")
    );
    assert_eq!(reason("not every models", &[], &Members::new(), &run), None);
}

#[test]
fn what_the_axes_decide_asks_nothing_of_the_run() {
    let run = Run::naming(&[]);
    let node = [("configuration", "2d")];
    let why = reason("every models and configuration != '2d'", &node, &Members::new(), &run);
    assert_eq!(why.as_deref(), Some("`configuration` is `2d`"));
    assert_eq!(reason("every models or configuration == '2d'", &node, &Members::new(), &run), None);
    assert_eq!(run.asked.borrow().as_slice(), &[] as &[String]);
}

#[test]
fn all_reasons_are_told_where_one_would_do() {
    let run = Run::naming(&[]);
    let why = reason("a in plan or a == '2'", &[("a", "1")], &Members::new(), &run);
    assert_eq!(why.as_deref(), Some("`plan` does not name `1`, and `a` is `1`"));
}

#[test]
fn the_inputs_of_a_condition_are_those_it_looks_at() {
    let inputs = condition("a in plan and (every models or not every labels) and a == '1'");
    assert_eq!(inputs.inputs().into_iter().collect::<Vec<_>>(), ["labels", "models", "plan"]);
}

#[test]
fn deep_nesting_is_refused_and_does_not_use_up_the_stack() {
    let deep = format!("{}a == '1'{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(parse(&deep).is_err());
    assert!(parse(&"not ".repeat(100_000)).is_err());
}
