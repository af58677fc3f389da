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
