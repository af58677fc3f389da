//! Every command that only looks or helps: the line that matters of what it prints.

use crate::support::{CASES, DATASET, Project, WORKFLOW, exit, set};

#[test]
fn show_names_the_files_of_a_node() {
    let text = Project::finished().output(&["show", "plan"]);
    assert!(text.contains("plans.json") && text.contains("/.nnflow/objects/"), "{text}");
}

#[test]
fn show_counts_the_cases_of_a_node() {
    let text = Project::finished().output(&["show", "ingest"]);
    assert!(text.contains("5 cases (phantom_001, phantom_002, phantom_003 and 2 more)"), "{text}");
}

#[test]
fn show_writes_what_a_node_has_made() {
    let project = Project::finished();
    project.output(&["show", "postprocess", "--port", "labels", "--output", "labels"]);
    let written = fs_err::read_dir(project.path("labels")).expect("the folder is there").flatten();
    let names: Vec<String> = written.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let expected = CASES.map(|case| format!("{case}.nii.gz"));
    assert_eq!(set(names.iter().map(String::as_str)), set(expected.iter().map(String::as_str)));
}

#[test]
fn show_gives_the_reasons_of_a_plan() {
    let text = Project::finished().output(&["show", "plan", "--why"]);
    assert!(text.contains("configurations.2d.patch_size = ["), "{text}");
}

#[test]
fn show_tells_where_nothing_was_made() {
    let ended = Project::fresh().nnflow(&["show", "plan"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("`plan` has made nothing yet: unknown until `fingerprint` has run"), "{}", ended.err);
}

#[test]
fn logs_have_each_line_once() {
    let text = Project::finished().output(&["logs", "train[2d,0]"]);
    assert_eq!(text.matches("epoch 2 of 5: ").count(), 1, "{text}");
}

#[test]
fn graph_draws_in_three_forms() {
    let project = Project::fresh();
    for (form, beginning) in [("dot", "digraph "), ("mermaid", "flowchart "), ("svg", "<svg ")] {
        let text = project.output(&["graph", "--format", form]);
        assert!(
            text.starts_with(beginning) && text.contains(">resample<") || text.contains("\"resample[2d]\""),
            "{form}: {text}"
        );
    }
}

#[test]
fn an_expanded_workflow_is_the_same_workflow() {
    let project = Project::finished();
    let expanded = project.output(&["expand"]);
    project.write(WORKFLOW, expanded);
    assert!(project.output(&["check"]).contains("`tiny` is right: 25 nodes, 5 cases"));
    assert_eq!(project.run(&[]).expect(exit::DONE).nodes(), set([]));
}

#[test]
fn init_writes_a_workflow_that_is_right() {
    let project = Project::fresh();
    fs_err::remove_file(project.path(WORKFLOW)).expect("the workflow can be removed");
    assert!(project.output(&["init", DATASET]).contains("wrote tiny.toml; next: nnflow run tiny.toml"));
    let checked = project.output(&["check"]);
    assert!(checked.contains("`tiny` is right") && checked.contains("5 cases"), "{checked}");
}

#[test]
fn init_overwrites_nothing() {
    let project = Project::fresh();
    let ended = project.nnflow(&["init", DATASET, WORKFLOW]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("`workflow.toml` is there already"), "{}", ended.err);
}

#[test]
fn stages_are_listed_in_the_order_of_the_pipeline() {
    let text = Project::empty().output(&["stage", "list"]);
    let first: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).take(4).collect();
    assert_eq!(first, ["ingest", "crop", "fingerprint", "plan"]);
}

#[test]
fn a_stage_is_shown_with_ports_and_parameters() {
    let text = Project::empty().output(&["stage", "show", "train"]);
    assert!(text.contains("\n  epochs = 1000 epochs\n") && text.contains("\nInputs\n") && text.contains("\nOutputs\n"));
}

#[test]
fn every_stage_can_be_shown() {
    let project = Project::empty();
    let names = project.output(&["stage", "list"]);
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(project.output(&["stage", "show", name]).starts_with(&format!("{name} (version ")), "{name}");
    }
}

#[test]
fn an_unknown_stage_has_a_neighbour() {
    let ended = Project::empty().nnflow(&["stage", "show", "resampel"]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("`resample`"), "{}", ended.err);
}

#[test]
fn label_images_are_judged_by_other_label_images() {
    let project = Project::empty();
    project.output(&[
        "phantom",
        "data",
        "--cases",
        "3",
        "--test-cases",
        "0",
        "--shape",
        "16,24,24",
        "--shape-variation",
        "0",
    ]);
    let (labels, references) = ("--input=labels=data/labelsTr", "--input=references=data/labelsTr");
    let description = "--input=description=data/dataset.json";
    project.output(&["stage", "run", "evaluate", labels, references, description, "--threads=3", "--output=judged"]);
    let summary: serde_json::Value =
        serde_json::from_str(&project.read("judged/summary/summary.json")).expect("a summary of whole numbers is JSON");
    assert_eq!(summary["foreground_mean"]["Dice"], 1.0);
    assert_eq!(summary["metric_per_case"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_stage_runs_by_itself() {
    let project = Project::finished();
    let description = format!("description={DATASET}/dataset.json");
    project.output(&[
        "stage",
        "run",
        "ingest",
        "--input",
        &format!("files={DATASET}"),
        "--input",
        &description,
        "-o",
        "read",
    ]);
    project.output(&["stage", "run", "crop", "--input", "cases=read/cases", "--output", "cropped"]);
    project.output(&["show", "crop", "--output", "from-the-run"]);
    for case in CASES {
        let file = format!("{case}/crop.json");
        assert_eq!(project.read(&format!("cropped/crop/{file}")), project.read(&format!("from-the-run/{file}")));
    }
}

#[test]
fn cache_counts_what_is_there() {
    let text = Project::finished().output(&["cache", "stats"]);
    assert!(text.lines().any(|line| line.trim_start().starts_with("objects") && !line.contains(" 0 ")), "{text}");
}

#[test]
fn cache_verify_finds_a_bit_that_flipped_and_repairs_it() {
    let project = Project::finished();
    assert!(project.output(&["cache", "verify"]).contains("all of it is as it was published"));
    let shown = project.output(&["show", "plan"]);
    let object = shown.split_whitespace().find(|word| word.contains("/objects/")).expect("the object is shown");
    let mut bytes = fs_err::read(object).expect("the object can be read");
    bytes[10] ^= 1;
    fs_err::remove_file(object).expect("the object can be removed");
    fs_err::write(object, bytes).expect("the object can be written");
    assert_eq!(project.nnflow(&["cache", "verify"]).code, exit::STORAGE);
    project.output(&["cache", "verify", "--repair"]);
    assert_eq!(project.run(&[]).expect(exit::DONE).units(), set(["bundle", "plan"]));
}

#[test]
fn a_dry_collection_removes_nothing() {
    let project = Project::finished();
    assert!(project.output(&["cache", "gc", "--max-size", "0", "--dry-run"]).starts_with("would remove "));
    assert_eq!(project.run(&[]).expect(exit::DONE).nodes(), set([]));
}

#[test]
fn completions_know_the_commands() {
    let text = Project::empty().output(&["completions", "bash"]);
    assert!(text.contains("_nnflow()") && text.contains("predict"));
}

#[test]
fn a_phantom_overwrites_nothing() {
    let project = Project::fresh();
    let ended = project.nnflow(&["phantom", DATASET]);
    assert_eq!(ended.code, exit::WRONG_INPUT);
    assert!(ended.err.contains("is there already"), "{}", ended.err);
}

#[test]
fn a_phantom_takes_its_shape_as_numbers_with_commas() {
    let project = Project::empty();
    let text = project.output(&["phantom", "dataset", "--cases", "2", "--test-cases", "0", "--shape", "16,16,18"]);
    assert!(text.contains("wrote 2 training and 0 test cases to dataset; next: nnflow init dataset"), "{text}");
}
