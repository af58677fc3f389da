use super::*;

fn parse(text: &str) -> Result<DatasetDescription, DescriptionError> {
    let name = Path::new("dataset.json");
    DatasetDescription::from_value(json::from_slice(text.as_bytes(), name)?, name)
}

fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Err(DescriptionError::Problems { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("expected problems, found {other:?}"),
    }
}

const HIPPOCAMPUS: &str = r#"{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
    "numTraining": 210, "file_ending": ".nii.gz", "name": "Hippocampus", "licence": "CC-BY-SA 4.0"}"#;

#[test]
fn a_plain_dataset_is_read() {
    assert_eq!(parse(HIPPOCAMPUS).expect("parses").labels.foreground(), [1, 2]);
}

#[test]
fn unknown_keys_are_kept() {
    assert_eq!(parse(HIPPOCAMPUS).expect("parses").extra["licence"], "CC-BY-SA 4.0");
}

#[test]
fn what_is_written_reads_as_the_same_description() {
    let text = r#"{"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "whole": [1, 2], "core": 2,
        "ignore": 3}, "regions_class_order": [1, 2], "numTraining": 1, "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO", "dataset": {"a": {"images": ["i/a0.png", "i/a1.png"],
        "label": "l/a.png"}}, "more": [1]}"#;
    let description = parse(text).expect("parses");
    let again = DatasetDescription::from_value(description.to_value(), Path::new("again.json")).expect("parses");
    assert_eq!(again, description);
}

#[test]
fn channels_are_ordered_by_number_not_by_place() {
    let text = HIPPOCAMPUS.replace(r#"{"0": "MRI"}"#, r#"{"1": "CT", "0": "MRI"}"#);
    assert_eq!(parse(&text).expect("parses").channel_names, ["MRI", "CT"]);
}

#[test]
fn the_old_key_modality_is_read() {
    let text = HIPPOCAMPUS.replace("channel_names", "modality");
    assert_eq!(parse(&text).expect("parses").channel_names, ["MRI"]);
}

#[test]
fn a_missing_key_names_the_key_that_was_meant() {
    let text = HIPPOCAMPUS.replace("file_ending", "file_endings");
    assert_eq!(
        problems(&text),
        ["`file_ending` is missing: expected the images' file ending with its dot, such as `.nii.gz` \
          (hint: `file_endings` is there: rename it to `file_ending`)"]
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    assert_eq!(problems(r#"{"labels": {"background": 1, "tumor": 1.5}, "numTraining": "1"}"#).len(), 4);
}

#[test]
fn the_number_of_training_cases_may_be_missing() {
    let text = HIPPOCAMPUS.replace(r#""numTraining": 210,"#, "");
    let description = parse(&text).expect("parses");
    assert_eq!((description.training_cases, description.to_value().get("numTraining")), (None, None));
}

#[test]
fn a_fractional_label_is_refused() {
    let text = HIPPOCAMPUS.replace(r#""Anterior": 1"#, r#""Anterior": 1.5"#);
    assert_eq!(
        problems(&text),
        ["`labels.Anterior`: expected a whole number from 0 to 32767, or a list of them for a region, found `1.5`"]
    );
}

#[test]
fn labels_in_the_order_of_the_decathlon_are_explained() {
    let text = HIPPOCAMPUS.replace(r#""background": 0, "Anterior": 1"#, r#""0": "background", "1": "Anterior""#);
    assert!(problems(&text)[0].contains("turn each entry around"), "{:?}", problems(&text));
}

#[test]
fn regions_need_an_order_of_classes() {
    let text = HIPPOCAMPUS.replace(r#""Anterior": 1"#, r#""Anterior": [1, 2]"#);
    assert_eq!(problems(&text), ["`regions_class_order` is missing: expected a list of 2 labels, one for each region"]);
}

#[test]
fn the_ignore_label_must_be_the_highest() {
    let text = HIPPOCAMPUS.replace(r#""Posterior": 2"#, r#""ignore": 1, "Posterior": 2"#);
    assert_eq!(problems(&text), ["`labels.ignore`: expected 3, one above the highest label, found `1`"]);
}

#[test]
fn a_listed_file_outside_the_dataset_is_refused() {
    let cases = r#""dataset": {"a": {"images": ["../../secret.nii.gz"], "label": "a.nii.gz"}}, "name""#;
    let text = HIPPOCAMPUS.replace(r#""name""#, cases);
    assert!(problems(&text)[0].contains("../../secret.nii.gz"), "{:?}", problems(&text));
}

#[test]
fn a_case_name_cannot_leave_its_folder() {
    let cases = r#""dataset": {"../a": {"images": ["a.nii.gz"], "label": "a.nii.gz"}}, "name""#;
    let text = HIPPOCAMPUS.replace(r#""name""#, cases);
    assert!(problems(&text)[0].contains("without path separators"), "{:?}", problems(&text));
}

#[test]
fn no_json_at_all_is_an_error_with_a_place() {
    let error = parse("{\"labels\": ").expect_err("cut off");
    assert!(error.to_string().starts_with("cannot use `dataset.json` (line 1, column 11)"), "{error}");
}

#[test]
fn arbitrary_values_never_panic() {
    arbtest::arbtest(|source| {
        let mut text = HIPPOCAMPUS.to_owned();
        let (from, to) = (source.choose_index(text.len())?, source.choose_index(text.len())?);
        let replacement: String = source.arbitrary()?;
        text.replace_range(from.min(to)..from.max(to), &replacement);
        drop(parse(&text));
        Ok(())
    });
}
