//! Failures, as a person reads them.

use nnflow_stage::ErrorReport;

use crate::engine::drive::Failure;

/// A failure with its node and case, every problem, the causes and the hint.
#[must_use]
pub fn render_failure(failure: &Failure) -> String {
    let place = match &failure.case {
        Some(case) => format!("{}, case `{case}`", failure.node),
        None => failure.node.clone(),
    };
    format!("error: {place}: {}", render_report(&failure.report))
}

/// An error's message, every problem, the causes and the hint.
#[must_use]
pub fn render_report(report: &ErrorReport) -> String {
    let mut text = report.message.clone();
    for detail in &report.details {
        for line in detail.lines() {
            text.push_str("\n  ");
            text.push_str(line);
        }
    }
    for cause in report.causes.iter().filter(|cause| !report.message.contains(cause.as_str())) {
        text.push_str("\n  because: ");
        text.push_str(cause);
    }
    if let Some(hint) = &report.hint {
        text.push_str("\nhint: ");
        text.push_str(hint);
    }
    text
}

#[cfg(test)]
mod tests {
    use nnflow_stage::ErrorKind;

    use super::*;

    #[test]
    fn a_failure_tells_place_problems_causes_and_hint() {
        let report = ErrorReport {
            details: vec!["one\nof two lines".to_owned(), "two".to_owned()],
            causes: vec!["no space".to_owned()],
            hint: Some("make room".to_owned()),
            ..ErrorReport::new(ErrorKind::Storage, "it cannot be written")
        };
        let failure = Failure { node: "crop".to_owned(), case: Some("a".to_owned()), report };
        let expected = "error: crop, case `a`: it cannot be written\n  one\n  of two lines\n  two\n  because: no space\n\
                        hint: make room";
        assert_eq!(render_failure(&failure), expected);
    }

    #[test]
    fn a_cause_that_the_message_tells_already_is_not_repeated() {
        let report = ErrorReport {
            causes: vec!["no space".to_owned()],
            ..ErrorReport::new(ErrorKind::Storage, "failed: no space")
        };
        assert_eq!(render_report(&report), "failed: no space");
    }
}
