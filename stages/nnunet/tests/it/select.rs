//! The stage `select`: who wins, and what is passed on.

use ndarray::Array3;
use serde_json::{Value, json};

use crate::harness::{Bench, Finished, Made, MadeInTests};
use crate::labelled::{drawn, united};

/// A summary of two cases with this mean foreground Dice.
fn summary(bench: &Bench, dice: &str) -> Made {
    let means = format!(
        r#"{{"Dice": {dice}, "FN": 0.0, "FP": 0.0, "IoU": 0.5, "TN": 0.0, "TP": 1.0, "n_pred": 1.0, "n_ref": 1.0}}"#
    );
    let case = r#"{"metrics": {}, "prediction_file": "a.nii.gz", "reference_file": "a.nii.gz"}"#;
    let text =
        format!(r#"{{"foreground_mean": {means}, "mean": {{"1": {means}}}, "metric_per_case": [{case}, {case}]}}"#);
    let path = bench.fresh_folder().join("summary.json");
    std::fs::write(&path, text).expect("written");
    Made::artifact(&[("summary.json", &path)], Some("summary.json"))
}

/// A label image with one label everywhere, by which it is told from others.
fn image(bench: &Bench, case: &str, label: i16) -> Made {
    drawn(bench, case, &Array3::from_elem((1, 1, 2), label))
}

/// Two configurations with two folds each, and their pair.
struct Candidates {
    bench: Bench,
    scores: [&'static str; 3],
}

impl Candidates {
    fn new(scores: [&'static str; 3]) -> Self {
        Self { bench: Bench::new(), scores }
    }

    fn singles(&self) -> (Made, Made) {
        let [first, second, _] = self.scores;
        let summaries = Made::gathered(vec![
            (&[("configuration", "2d")], summary(&self.bench, first)),
            (&[("configuration", "3d_fullres")], summary(&self.bench, second)),
        ]);
        let labels = Made::gathered(vec![
            (&[("configuration", "2d"), ("fold", "0")], image(&self.bench, "a", 1)),
            (&[("configuration", "2d"), ("fold", "1")], image(&self.bench, "b", 2)),
            (&[("configuration", "3d_fullres"), ("fold", "0")], image(&self.bench, "a", 3)),
            (&[("configuration", "3d_fullres"), ("fold", "1")], image(&self.bench, "b", 4)),
        ]);
        (summaries, labels)
    }

    fn select(&self, parameters: Value) -> Finished {
        let (singles, single_labels) = self.singles();
        let pair = [("pair", "2d+3d_fullres")];
        let pairs = Made::gathered(vec![(&pair, summary(&self.bench, self.scores[2]))]);
        let images = united([image(&self.bench, "a", 5), image(&self.bench, "b", 6)]);
        let pair_labels = Made::gathered(vec![(&pair, images)]);
        self.bench.node("select").with(parameters).try_run(&[
            ("singles", &singles),
            ("single_labels", &single_labels),
            ("pairs", &pairs),
            ("pair_labels", &pair_labels),
        ])
    }
}

fn label_of(finished: &Finished, case: &str) -> i16 {
    crate::labelled::labels_of(finished.port("labels"), case)[[0, 0, 0]]
}

#[test]
fn the_choice_names_the_winner_and_all_candidates() {
    let finished = Candidates::new(["0.5", "0.75", "0.625"]).select(json!({}));
    let expected = json!({
        "version": 1,
        "members": ["3d_fullres"],
        "score": 0.75,
        "candidates": [
            {"members": ["2d"], "score": 0.5},
            {"members": ["3d_fullres"], "score": 0.75},
            {"members": ["2d", "3d_fullres"], "score": 0.625},
        ],
    });
    assert_eq!(finished.port("choice").document(), expected);
}

#[test]
fn the_folds_of_the_winner_are_united() {
    let finished = Candidates::new(["0.5", "0.75", "0.625"]).select(json!({}));
    assert_eq!((label_of(&finished, "a"), label_of(&finished, "b")), (3, 4));
}

#[test]
fn a_pair_that_wins_passes_its_own_labels_on() {
    let finished = Candidates::new(["0.5", "0.75", "0.875"]).select(json!({}));
    assert_eq!(finished.port("choice").document()["members"], json!(["2d", "3d_fullres"]));
    assert_eq!((label_of(&finished, "a"), label_of(&finished, "b")), (5, 6));
}

#[test]
fn only_what_is_made_of_named_configurations_is_considered() {
    let finished = Candidates::new(["0.5", "0.75", "0.875"]).select(json!({"restrict": ["2d"]}));
    assert_eq!(finished.port("choice").document()["members"], json!(["2d"]));
}

#[test]
fn a_restriction_that_leaves_nothing_names_what_there_is() {
    let finished = Candidates::new(["0.5", "0.75", "0.875"]).select(json!({"restrict": ["3d"]}));
    assert_eq!(
        finished.failure().message,
        "`restrict` leaves no candidate: expected some of `2d`, `3d_fullres`, `2d+3d_fullres`, found [\"3d\"]"
    );
}

#[test]
fn nan_never_wins_over_a_number() {
    let finished = Candidates::new(["NaN", "0.125", "NaN"]).select(json!({}));
    assert_eq!(finished.port("choice").document()["members"], json!(["3d_fullres"]));
}

#[test]
fn one_configuration_needs_no_pairs() {
    let candidates = Candidates::new(["0.5", "0.5", "0.5"]);
    let singles = Made::gathered(vec![(&[("configuration", "2d")], summary(&candidates.bench, "0.5"))]);
    let (_, labels) = candidates.singles();
    let finished = candidates.bench.node("select").run(&[("singles", &singles), ("single_labels", &labels)]);
    assert_eq!((label_of(&finished, "a"), label_of(&finished, "b")), (1, 2));
}

#[test]
fn label_images_of_fewer_cases_than_were_judged_are_told() {
    let candidates = Candidates::new(["0.5", "0.5", "0.5"]);
    let singles = Made::gathered(vec![(&[("configuration", "2d")], summary(&candidates.bench, "0.5"))]);
    let labels = Made::gathered(vec![(&[("configuration", "2d"), ("fold", "0")], image(&candidates.bench, "a", 1))]);
    let finished = candidates.bench.node("select").try_run(&[("singles", &singles), ("single_labels", &labels)]);
    assert_eq!(finished.failure().message, "`2d` was judged on 2 cases, but has label images of 1");
}
