//! Loading: what is inherited, what wins, and what paths are relative to.

use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use super::fixtures::{HEAD, opened, opened_with, options};
use crate::workflow::{DatasetSource, Device, LoadOptions, SharedUse, Workflow, load};

/// A folder with files in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().expect("inside the folder")).expect("a folder");
            fs_err::write(path, text).expect("a file");
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, name: &str) -> Workflow {
        load(&self.path(name), &options()).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// Everything that is wrong with a file, the folder's name left out.
    fn errors(&self, name: &str) -> String {
        let errors = load(&self.path(name), &options()).expect_err("something is wrong").to_string();
        errors.replace(&self.0.path().display().to_string(), "FOLDER")
    }
}

fn dataset_path(workflow: &Workflow) -> &Path {
    match &workflow.dataset.as_ref().expect("a dataset").source {
        DatasetSource::Path(path) => path,
        other => panic!("a folder, not {other:?}"),
    }
}

fn epochs(workflow: &Workflow) -> serde_json::Value {
    workflow.stage("train").expect("a stage").with.to_json()["epochs"].clone()
}

#[test]
fn the_name_is_the_files_where_none_is_given() {
    let folder = Folder::with(&[("liver.toml", HEAD), ("named.toml", "name = \"spleen\"\nextends = \"base\"\n")]);
    assert_eq!(folder.load("liver.toml").name, "liver");
    assert_eq!(folder.load("named.toml").name, "spleen");
}

#[test]
fn a_name_is_not_inherited() {
    assert_eq!(opened("extends = \"slow\"\ndataset.path = \"data\"\n").0.name, "spleen");
}

#[test]
fn what_a_chain_of_recipes_says_is_inherited() {
    let (workflow, _) = opened("extends = \"slow\"\ndataset.path = \"data\"\n");
    assert_eq!(workflow.extends, ["recipe slow", "recipe base"]);
    assert_eq!((workflow.seed, epochs(&workflow)), (7, 2000.into()));
}

#[test]
fn the_nearest_layer_wins_and_set_wins_over_all() {
    let text = "extends = \"slow\"\ndataset.path = \"data\"\nseed = 8\n[stages.train.with]\nepochs = 10\n";
    let (workflow, _) = opened(text);
    assert_eq!((workflow.seed, epochs(&workflow)), (8, 10.into()));
    let (workflow, _) = opened_with(text, &["seed=9", "stages.train.with.epochs = 5", "name=other"]);
    assert_eq!((workflow.seed, epochs(&workflow), workflow.name.as_str()), (9, 5.into(), "other"));
}

#[test]
fn the_last_set_wins() {
    assert_eq!(opened_with(HEAD, &["seed=1", "seed=2"]).0.seed, 2);
}

#[test]
fn a_set_value_that_is_no_toml_is_a_text() {
    let (workflow, _) = opened_with(HEAD, &["name=liver 2", "dataset.cases=[\"a=b\"]", "settings.device=cuda:1"]);
    assert_eq!(workflow.name, "liver 2");
    assert_eq!(workflow.dataset.expect("a dataset").cases, Some(vec!["a=b".to_owned()]));
    assert_eq!(workflow.settings.device, Some(Device::Cuda(Some(1))));
}

#[test]
fn tables_merge_and_lists_are_replaced() {
    let (workflow, _) = opened(&format!("{HEAD}[axes]\nfold = [4]\n[stages.train.inputs]\nprevious = []\n"));
    let folds: Vec<_> =
        workflow.axis("fold").expect("an axis").values.iter().map(|value| value.name.as_str()).collect();
    assert_eq!(folds, ["4"]);
    let ports: Vec<_> =
        workflow.stage("train").expect("a stage").inputs.iter().map(|input| input.port.value.as_str()).collect();
    assert_eq!(ports, ["cases", "plan", "previous"]);
}

#[test]
fn inherited_stages_come_first() {
    let (workflow, _) = opened(&format!(
        "{HEAD}[stages.a]\nuses = \"show\"\ninputs.model = \"select\"\n[stages.train.with]\nepochs = 1\n"
    ));
    let names: Vec<_> = workflow.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names.first().zip(names.last()), Some((&"ingest", &"a")));
}

#[test]
fn a_disabled_stage_is_gone_and_can_be_enabled_again() {
    let text = format!("{HEAD}stages.select.enabled = false\n");
    assert!(opened(&text).0.stage("select").is_none());
    assert!(opened_with(&text, &["stages.select.enabled=true"]).0.stage("select").is_some());
}

#[test]
fn an_axis_is_replaced_as_a_whole() {
    let (workflow, graph) =
        opened(&format!("{HEAD}axes.pair = [\"2d+3d_lowres\"]\nstages.ensemble.inputs.probabilities = \"predict\"\n"));
    assert_eq!(workflow.axis("pair").expect("an axis").values.len(), 1);
    assert_eq!(graph.find("ensemble").expect("a node").len(), 1);
}

#[test]
fn a_derived_axis_follows_an_axis_that_is_narrowed() {
    let (workflow, _) = opened(&format!("{HEAD}axes.configuration = [\"2d\", \"3d_lowres\"]\n"));
    let pairs: Vec<_> =
        workflow.axis("pair").expect("an axis").values.iter().map(|value| value.name.as_str()).collect();
    assert_eq!(pairs, ["2d+3d_lowres"]);
}

#[test]
fn a_folder_replaces_an_inherited_address() {
    let digest = "0".repeat(64);
    let parent = format!(
        "extends = \"base\"\ndataset.fetch = {{ url = \"https://example.org/a.tar\", blake3 = \"{digest}\" }}\n"
    );
    let folder = Folder::with(&[
        ("parent.toml", &parent),
        ("child.toml", "extends = \"parent.toml\"\ndataset.path = \"here\"\n"),
    ]);
    let workflow = folder.load("parent.toml");
    let expected = DatasetSource::Fetch { url: "https://example.org/a.tar".to_owned(), blake3: digest };
    assert_eq!(workflow.dataset.expect("a dataset").source, expected);
    assert_eq!(dataset_path(&folder.load("child.toml")), folder.path("here"));
}

#[test]
fn a_phantom_replaces_an_inherited_folder() {
    let (workflow, _) = opened_with(HEAD, &["dataset.phantom.cases=12"]);
    let settings = serde_json::Map::from_iter([("cases".to_owned(), 12.into())]);
    assert_eq!(workflow.dataset.expect("a dataset").source, DatasetSource::Phantom { settings });
}

#[test]
fn a_path_is_relative_to_the_file_that_says_it() {
    let folder = Folder::with(&[
        ("site/base.toml", "extends = \"base\"\ndataset = { path = \"data\", split = \"splits.json\" }\n"),
        ("runs/liver.toml", "extends = \"../site/base.toml\"\nmodel.path = \"model\"\n"),
    ]);
    let workflow = folder.load("runs/liver.toml");
    assert_eq!(dataset_path(&workflow), folder.path("runs/../site/data"));
    assert_eq!(workflow.model.as_ref().expect("a model").path, folder.path("runs/model"));
    assert_eq!(workflow.folder, folder.path("runs"));
    assert_eq!(workflow.path, Some(folder.path("runs/liver.toml")));
    assert_eq!(
        workflow.dataset.expect("a dataset").split.expect("a split").value,
        folder.path("runs/../site/splits.json")
    );
}

#[test]
fn a_path_of_an_argument_is_relative_to_the_current_folder() {
    let (workflow, _) = opened_with(HEAD, &["dataset.path=elsewhere"]);
    assert_eq!(dataset_path(&workflow), std::path::absolute("elsewhere").expect("a path"));
}

#[test]
fn resources_and_settings_are_understood() {
    let text = "[stages.train.resources]\ngpu = 1\nmemory = \"12 GiB\"\nthreads = 4\ntime = \"24h\"\ndevice = \"auto\"\n\
                [settings]\nthreads = 8\nmemory = \"64 GB\"\ngpus = 2\ndevice = \"cpu\"\n\
                worker_silence = \"10m\"\n";
    let (workflow, _) = opened(&format!("{HEAD}{text}"));
    let resources = &workflow.stage("train").expect("a stage").resources;
    assert_eq!(resources.memory_bytes, Some(12_884_901_888));
    assert_eq!(resources.time.map(|time| time.as_secs()), Some(86400));
    assert_eq!((resources.gpu, resources.threads, resources.device), (Some(1), Some(4), Some(Device::Auto)));
    let settings = &workflow.settings;
    assert_eq!((settings.threads, settings.gpus, settings.memory_bytes), (Some(8), Some(2), Some(64_000_000_000)));
    assert_eq!(settings.device, Some(Device::Cpu));
    assert_eq!(settings.worker_silence.map(|time| time.as_secs()), Some(600));
}

#[test]
fn a_shared_folder_is_beside_the_file_that_names_it() {
    let text = "[settings]\nshared_store = \"../shared\"\nshared_store_mode = \"read-only\"\n";
    let (workflow, _) = opened(&format!("{HEAD}{text}"));
    let folder = workflow.folder.join("../shared");
    assert_eq!(workflow.settings.shared_store, Some(nnflow_shared::Address::Folder(folder)));
    assert_eq!(workflow.settings.shared_use, Some(SharedUse::ReadOnly));
}

#[test]
fn expectations_are_understood() {
    let text = "[expect]\n\"evaluate.foreground_mean.dice\" = \">= 0.88\"\n\
                \"train[2d,*].wall_seconds\" = { min = 1, max = 7200, severity = \"warn\" }\n\
                \"ensemble[2d+3d_lowres].a\" = \"< 3\"\n";
    let (workflow, _) = opened(&format!("{HEAD}{text}"));
    let [dice, seconds, pair] = workflow.expectations.as_slice() else { panic!("three expectations") };
    assert_eq!(
        (dice.node.value.to_string().as_str(), dice.metric.join("/").as_str()),
        ("evaluate", "foreground_mean/dice")
    );
    assert!(dice.met_by(0.88) && !dice.met_by(0.8799) && !dice.met_by(f64::NAN));
    assert!(seconds.met_by(1.0) && seconds.met_by(7200.0) && !seconds.met_by(0.5) && !seconds.met_by(7201.0));
    assert_eq!(seconds.severity, crate::diagnostic::Severity::Warning);
    assert!(!pair.met_by(3.0));
}

#[test]
fn a_file_that_extends_itself_is_refused() {
    let folder = Folder::with(&[("a.toml", "extends = \"sub/b.toml\"\n"), ("sub/b.toml", "extends = \"../a.toml\"\n")]);
    assert_snapshot!(folder.errors("a.toml"), @r#"
    error: a workflow extends itself: FOLDER/a.toml → FOLDER/sub/b.toml → FOLDER/a.toml
     --> FOLDER/sub/b.toml:1:11
      |
    1 | extends = "../a.toml"
      |           ^^^^^^^^^^^ this closes the circle
    "#);
}

#[test]
fn a_file_that_does_not_exist_is_told_with_its_neighbour() {
    let folder = Folder::with(&[("hippocampus.toml", HEAD), ("child.toml", "extends = \"./hipocampus.toml\"\n")]);
    assert_snapshot!(folder.errors("hippocampu.toml"), @r"
    error: workflow `FOLDER/hippocampu.toml` cannot be read: there is no such file
     |
     = hint: did you mean `FOLDER/hippocampus.toml`?
    ");
    assert_snapshot!(folder.errors("child.toml"), @r#"
    error: workflow `FOLDER/hipocampus.toml` cannot be read: there is no such file
     --> FOLDER/child.toml:1:11
      |
    1 | extends = "./hipocampus.toml"
      |           ^^^^^^^^^^^^^^^^^^^ extended here
      |
      = hint: did you mean `FOLDER/hippocampus.toml`?
    "#);
}

#[test]
fn a_folder_is_no_workflow() {
    let folder = Folder::with(&[("runs/liver.toml", HEAD)]);
    assert_snapshot!(folder.errors("runs"), @r"
    error: workflow `FOLDER/runs` cannot be read: it is a folder
     |
     = hint: did you mean `FOLDER/runs/liver.toml`?
    ");
}

#[test]
fn what_is_no_text_is_no_workflow() {
    let folder = Folder::with(&[]);
    fs_err::write(folder.path("image.toml"), [b'a', b' ', 0xff, 0xfe]).expect("a file");
    assert_snapshot!(folder.errors("image.toml"), @"error: workflow `FOLDER/image.toml` cannot be read: byte 2 is not UTF-8 text");
}

#[test]
fn an_image_is_no_workflow() {
    let folder = Folder::with(&[]);
    fs_err::write(folder.path("image.nii"), vec![0_u8; 5 << 20]).expect("a file");
    assert_snapshot!(folder.errors("image.nii"), @"error: workflow `FOLDER/image.nii` cannot be read: it has 5242880 bytes; a workflow has at most 4194304");
}

#[test]
fn an_error_in_an_extended_file_names_that_file() {
    let folder = Folder::with(&[
        ("child.toml", "extends = \"./parent.toml\"\nsede = 1\n"),
        ("parent.toml", "sed = 1\nextends = \"base\"\n"),
    ]);
    assert_snapshot!(folder.errors("child.toml"), @r"
    error: a workflow has no key `sede`
     --> FOLDER/child.toml:2:1
      |
    2 | sede = 1
      | ^^^^ unknown key
      |
      = hint: did you mean `seed`?

    error: a workflow has no key `sed`
     --> FOLDER/parent.toml:1:1
      |
    1 | sed = 1
      | ^^^ unknown key
      |
      = hint: did you mean `seed`?
    ");
}

#[test]
fn options_are_empty_by_default() {
    let options = LoadOptions::default();
    assert!(options.sets.is_empty() && options.recipes.is_empty() && options.axis_values.is_empty());
}
