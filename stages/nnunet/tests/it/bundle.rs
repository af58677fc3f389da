//! The stage `bundle`: what prediction finds in it.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bench, Finished, Made, MadeInTests};

fn written(bench: &Bench, name: &str, text: &str) -> std::path::PathBuf {
    let path = bench.fresh_folder().join(name);
    std::fs::write(&path, text).expect("written");
    path
}

fn document(bench: &Bench, name: &'static str, document: &Value) -> Made {
    let path = written(bench, name, &document.to_string());
    Made::artifact(&[(name, &path)], Some(name))
}

/// A network whose weights tell which one it is.
fn model(bench: &Bench, name: &str) -> Made {
    let (weights, record) = (written(bench, "weights", name), written(bench, "record", "{}"));
    let progress = written(bench, "progress", "epoch");
    let files: [(&str, &Path); 3] =
        [("weights.safetensors", &weights), ("model.json", &record), ("progress.csv", &progress)];
    Made::artifact(&files, Some("model.json"))
}

/// A plan with a cascade, as nnU-Net's planner makes it.
fn plan() -> Value {
    let mut plan = crate::vectors::json(&crate::vectors::folder("evaluate").join("labels").join("plans.json"));
    let mut configuration = plan["configurations"]["3d_fullres"].clone();
    configuration["next_stage"] = json!("3d_cascade_fullres");
    plan["configurations"]["3d_lowres"] = configuration.clone();
    configuration["next_stage"] = Value::Null;
    configuration["previous_stage"] = json!("3d_lowres");
    plan["configurations"]["3d_cascade_fullres"] = configuration;
    plan
}

fn bundle_of(bench: &Bench, members: &[&str], trained: &[(&str, &str)]) -> Finished {
    let axes: Vec<[(&str, &str); 2]> =
        trained.iter().map(|(configuration, fold)| [("configuration", *configuration), ("fold", *fold)]).collect();
    let models = trained
        .iter()
        .zip(&axes)
        .map(|((configuration, fold), axes)| (axes.as_slice(), model(bench, &format!("{configuration} {fold}"))));
    let models = Made::gathered(models.collect());
    let choice = json!({"version": 1, "members": members, "score": 0.5, "candidates": []});
    bench.node("bundle").try_run(&[
        ("models", &models),
        ("choice", &document(bench, "choice.json", &choice)),
        ("rules", &document(bench, "postprocessing.json", &json!({"version": 1, "steps": []}))),
        ("plan", &document(bench, "plans.json", &plan())),
        ("description", &document(bench, "dataset.json", &json!({}))),
    ])
}

fn names(finished: &Finished) -> Vec<String> {
    let Made::One(artifact, _) = finished.port("bundle") else { panic!("a bundle is one artifact") };
    artifact.files.iter().map(|file| file.name.clone()).collect()
}

const ALL: [(&str, &str); 6] = [
    ("2d", "0"),
    ("2d", "1"),
    ("3d_lowres", "0"),
    ("3d_lowres", "1"),
    ("3d_cascade_fullres", "0"),
    ("3d_cascade_fullres", "1"),
];

#[test]
fn a_bundle_holds_the_networks_of_its_members_and_the_documents() {
    assert_eq!(
        names(&bundle_of(&Bench::new(), &["2d"], &ALL)),
        [
            "bundle.json",
            "dataset.json",
            "models/2d/fold_0/model.json",
            "models/2d/fold_0/weights.safetensors",
            "models/2d/fold_1/model.json",
            "models/2d/fold_1/weights.safetensors",
            "plans.json",
            "postprocessing.json",
        ]
    );
}

#[test]
fn each_network_lies_where_its_name_says() {
    let bench = Bench::new();
    let finished = bundle_of(&bench, &["2d", "3d_lowres"], &ALL);
    let Made::One(artifact, _) = finished.port("bundle") else { panic!("a bundle is one artifact") };
    for file in artifact.files.iter().filter(|file| file.name.ends_with("weights.safetensors")) {
        let told = std::fs::read_to_string(&file.path).expect("weights");
        let (configuration, fold) = told.split_once(' ').expect("two words");
        assert_eq!(file.name, format!("models/{configuration}/fold_{fold}/weights.safetensors"));
    }
}

#[test]
fn a_cascade_brings_its_first_stage_along_which_is_no_member() {
    let bench = Bench::new();
    let finished = bundle_of(&bench, &["2d", "3d_cascade_fullres"], &ALL);
    let expected = json!({
        "version": 1,
        "recipe": "predict",
        "axes": {"configuration": ["3d_lowres", "2d", "3d_cascade_fullres"]},
        "members": ["2d", "3d_cascade_fullres"],
        "folds": {"2d": ["0", "1"], "3d_cascade_fullres": ["0", "1"], "3d_lowres": ["0", "1"]},
        "score": 0.5,
    });
    assert_eq!(finished.port("bundle").document(), expected);
}

#[test]
fn a_first_stage_that_is_a_member_itself_is_there_once() {
    let bench = Bench::new();
    let finished = bundle_of(&bench, &["3d_lowres", "3d_cascade_fullres"], &ALL);
    assert_eq!(finished.port("bundle").document()["axes"]["configuration"], json!(["3d_lowres", "3d_cascade_fullres"]));
}

#[test]
fn a_member_without_network_is_named() {
    let bench = Bench::new();
    let finished = bundle_of(&bench, &["3d_cascade_fullres"], &[("3d_cascade_fullres", "0")]);
    let report = finished.failure();
    assert_eq!(report.message, "the bundle lacks networks");
    assert_eq!(report.details, ["no model of configuration `3d_lowres` arrived"]);
}
