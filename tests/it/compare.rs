//! `nnflow compare`: from workflows, folders and files to means, intervals and p-values.

use serde_json::Value;

use crate::support::{Project, exit};

const FIRST: &str = "case,label,dice,hd95\n\
    one,1,0.5,4\ntwo,1,0.6,5\nthree,1,0.7,6\nfour,1,0.8,3\none,2,0.9,1\ntwo,2,0.8,\nthree,2,0.7,2\nfour,2,0.5,4\n";
const SECOND: &str = "case,label,dice,hd95\n\
    one,1,0.75,3\ntwo,1,0.7,3\nthree,1,0.8,5\nfour,1,0.9,1\none,2,0.8,1\ntwo,2,0.8,9\nthree,2,1,1\nfive,1,1,0\n";

/// A folder with two tables and, as `summary.json`, what nnU-Net would write about the first one's first label.
fn project() -> Project {
    let project = Project::empty();
    project.write("first/statistics/cases.csv", FIRST);
    project.write("second.csv", SECOND);
    let metrics = r#"{"Dice": 0.5, "FN": 1, "FP": 1, "IoU": 0.25, "TN": 1, "TP": 1, "n_pred": 2, "n_ref": 2}"#;
    let case = |name: &str| {
        format!(r#"{{"metrics": {{"1": {metrics}}}, "prediction_file": "/x/{name}.nii.gz", "reference_file": "y"}}"#)
    };
    let summary = format!(
        r#"{{"foreground_mean": {metrics}, "mean": {{"1": {metrics}}}, "metric_per_case": [{}, {}]}}"#,
        case("one"),
        case("two")
    );
    project.write("nnunet/summary.json", summary);
    project
}

/// What is said of a comparison that cannot be made.
fn refused(project: &Project, arguments: &[&str]) -> String {
    let ended = project.nnflow(arguments);
    assert_eq!(ended.code, exit::WRONG_INPUT, "{}", ended.err);
    project.redact(&ended.err)
}

#[test]
fn two_runs_are_compared_label_by_label() {
    insta::assert_snapshot!(project().output(&["compare", "first", "second.csv"]), @r"
    4 cases that both runs have

    dice            cases     first    second difference  95% interval                 p better  worse  equal
    1                   4    0.6500    0.7875    +0.1375  [+0.1000, +0.2125]      0.1250      4      0      0
    2                   3    0.8000    0.8667    +0.0667  [-0.1000, +0.3000]      1.0000      1      1      1
    foreground_mean     4    0.7250    0.8271    +0.1021  [+0.0375, +0.2000]      0.1250      4      0      0

    hd95            cases     first    second difference  95% interval                 p better  worse  equal
    1                   4    4.5000    3.0000    -1.5000  [-2.0000, -1.0000]      0.1250      4      0      0
    2                   2    1.5000    1.0000    -0.5000  [-1.0000, +0.0000]      1.0000      1      0      1
    foreground_mean     4    3.0000    2.0000    -1.0000  [-1.3750, -0.6250]      0.1250      4      0      0

    The difference is the second run less the first, case by case; its interval is a percentile bootstrap over cases.
    p: two-sided sign-flip permutation test of no difference, not corrected for the number of rows.
    ");
}

#[test]
fn cases_of_one_run_only_are_told() {
    let ended = project().nnflow(&["compare", "first", "second.csv"]);
    insta::assert_snapshot!(ended.err, @"warning: cases of the second run only are left out: five");
}

#[test]
fn a_program_gets_json() {
    let text = project().output(&["compare", "--json", "--measure", "hd95", "first", "second.csv"]);
    let comparison: Value = serde_json::from_str(&text).expect("JSON");
    let row = &comparison["rows"][0];
    assert_eq!((&row["measure"], &row["label"], &row["better"]), (&"hd95".into(), &"1".into(), &4.into()));
    assert_eq!((&row["difference"], &row["p_value"]), (&(-1.5).into(), &0.125.into()));
}

#[test]
fn nnunets_summary_is_a_run() {
    let text = project().output(&["compare", "--json", "nnunet", "second.csv"]);
    let comparison: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&comparison["cases"], &comparison["rows"][0]["second"]), (&2.into(), &0.725.into()));
}

#[test]
fn a_measure_that_does_not_exist_is_told() {
    insta::assert_snapshot!(refused(&project(), &["compare", "--measure", "hd59", "first", "second.csv"]), @r"
    error: there is no measure `hd59`
    hint: did you mean `hd95`?
    ");
}

#[test]
fn runs_without_a_common_case_cannot_be_compared() {
    let project = project();
    project.write("other.csv", "case,label,dice\nsix,1,1\n");
    insta::assert_snapshot!(refused(&project, &["compare", "first", "other.csv"]), @r"
    error: the two runs have no case in common
    hint: cases are told apart by their names, which are those of the label images
    ");
}

#[test]
fn a_folder_without_measures_is_told() {
    let project = project();
    project.write("empty/readme.txt", "");
    insta::assert_snapshot!(refused(&project, &["compare", "first", "empty"]), @r"
    error: `empty` holds neither `cases.csv` nor `summary.json`
    hint: `nnflow show evaluate --output DIR` writes such a folder
    ");
}

#[test]
fn a_workflow_is_a_run_as_is_what_it_wrote() {
    let project = Project::finished();
    project.output(&["show", "evaluate", "--output", "results"]);
    let text = project.output(&["compare", "--json", "workflow.toml", "results"]);
    let comparison: Value = serde_json::from_str(&text).expect("JSON");
    let rows = comparison["rows"].as_array().expect("rows");
    assert!(comparison["cases"] == 5 && rows.iter().any(|row| row["measure"] == "hd95"), "{text}");
    assert!(rows.iter().all(|row| row["difference"] == 0.0 && row["p_value"] == 1.0), "{text}");
}

#[test]
fn a_workflow_that_has_not_run_is_told() {
    insta::assert_snapshot!(refused(&Project::fresh(), &["compare", "workflow.toml", "workflow.toml"]), @r"
    error: `evaluate` of `workflow.toml` has no `cases.csv`
    hint: `nnflow run workflow.toml --until evaluate` makes it, if the node is an evaluation
    ");
}
