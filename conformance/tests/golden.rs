//! The whole comparison, on the vectors of the checkout or on those that `NNFLOW_GOLDEN` names.

use std::io::Write;

use nnflow_conformance::{Surroundings, compare, golden_folder};

#[test]
fn every_golden_vector_is_met() {
    let report = compare(&golden_folder(), &Surroundings::found()).expect("a folder of vectors");
    // Not `println!`, which the test harness would swallow: the deviations are worth seeing where everything is met.
    writeln!(std::io::stdout(), "{report}").expect("an output that is open");
    assert!(report.is_met(), "the report above says what is not met");
}
