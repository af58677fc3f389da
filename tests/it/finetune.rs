//! Trainings that begin with the weights of a trained model.

use crate::support::{Project, exit};

const FILE: &str = "tuned.toml";

/// A short training on the same images; the model is that of the project's own workflow.
const WORKFLOW: &str = r#"name = "tuned"
extends = "nnunet-v2-finetune"

[dataset]
path = "data/Dataset001_Tiny"

[model]
path = "workflow.toml"

[axes]
configuration = ["2d"]
fold = [1]

[stages.split.with]
folds = 2

[stages.train.with]
epochs = 1
batches_per_epoch = 1
validation_batches = 1
"#;

/// Another plan than the model's, for a wider network.
const OTHER_PLAN: &str = r#"
[stages.fingerprint]
enabled = true
[stages.plan]
enabled = true
with = { base_features = 8, max_features_2d = 16 }
[stages.train.inputs]
plan = "plan"
"#;

fn project(more: &str) -> Project {
    let project = Project::finished();
    project.write(FILE, format!("{WORKFLOW}{more}"));
    project
}

#[test]
fn a_fold_begins_with_the_weights_of_the_same_fold_of_the_model() {
    let project = project("");
    let run = project.nnflow(&["run", FILE, "--until", "predict"]);
    assert_eq!(run.code, exit::DONE, "{}", run.err);
    let log = project.output(&["logs", "train[2d,1]", "--workflow", FILE]);
    assert!(log.contains("the weights begin as those in `models/2d/fold_1/weights.safetensors`"), "{log}");
}

#[test]
fn a_model_of_another_network_is_refused_with_what_differs() {
    let run = project(OTHER_PLAN).nnflow(&["run", FILE, "--until", "train"]);
    assert_eq!(run.code, exit::WRONG_INPUT, "{}", run.err);
    let expected = "the model's network is not the planned one: tensor `encoder.stages.0.0.convs.0.conv.weight`";
    assert!(run.err.contains(expected) && run.err.contains("`nnunet-v2-finetune`"), "{}", run.err);
}
