//! nnU-Net's postprocessing: `postprocessing.json`, or the pickle beside it.

use std::path::Path;

use nnflow_io::json;
use nnflow_io::pickle::{Document, Pickled, Value as Pickle};
use nnflow_stage::StageError;
use serde_json::{Map, Value, json};

use crate::stages::postprocess::rules::Step;

/// nnU-Net's one function of postprocessing, and the module that it is in.
const KEEP_LARGEST: &str = "remove_all_but_largest_component_from_segmentation";
const MODULE: &str = "nnunetv2.postprocessing.remove_connected_components";
/// Its argument.
const LABELS: &str = "labels_or_regions";
/// A region within a list of regions is the deepest that nnU-Net writes.
const NESTING: usize = 3;

/// The steps in a `postprocessing.json`.
pub(super) fn from_json(bytes: &[u8], name: &str) -> Result<Vec<Step>, StageError> {
    let document: Value =
        json::from_slice(bytes, Path::new(name)).map_err(|error| StageError::input(error.to_string()))?;
    let list = |key: &str| document.get(key).and_then(Value::as_array).ok_or_else(|| unknown(name, key));
    let (functions, arguments) = (list("postprocessing_fns")?, list("postprocessing_kwargs")?);
    if functions.len() != arguments.len() || functions.iter().any(|function| function != KEEP_LARGEST) {
        return Err(unknown(name, "postprocessing_fns"));
    }
    let step = |arguments: &Value| {
        let known = arguments.as_object().is_some_and(|arguments| arguments.keys().all(|key| key == LABELS));
        let mut labels = Vec::new();
        let all = known && arguments.get(LABELS).is_some_and(|value| collect_json(value, NESTING, &mut labels));
        all.then(|| keep_largest(labels)).ok_or_else(|| unknown(name, "postprocessing_kwargs"))
    };
    arguments.iter().map(step).collect()
}

/// The steps in a `postprocessing.pkl`, a pair of functions and their arguments; no function is called.
pub(super) fn from_pickle(bytes: &[u8], name: &str) -> Result<Vec<Step>, StageError> {
    let document =
        Document::parse(bytes).map_err(|error| StageError::input(format!("`{name}` cannot be used: {error}")))?;
    let mut parts = document.root().items().into_iter().flatten();
    let mut list = || parts.next().and_then(Pickle::items).ok_or_else(|| unknown(name, "the pair of lists"));
    let (mut functions, arguments) = (list()?, list()?);
    if functions.len() != arguments.len() || functions.any(|function| function.as_name() != Some(KEEP_LARGEST)) {
        return Err(unknown(name, "the functions"));
    }
    let step = |arguments: Pickle<'_>| {
        let known = arguments.entries().is_some_and(|mut entries| entries.all(|(key, _)| key == LABELS));
        let mut labels = Vec::new();
        let all = known && arguments.get(LABELS).is_some_and(|value| collect_pickle(value, NESTING, &mut labels));
        all.then(|| keep_largest(labels)).ok_or_else(|| unknown(name, "the arguments"))
    };
    arguments.map(step).collect()
}

/// The two files that nnU-Net keeps of these steps: the JSON without scores, and the pickle.
pub(super) fn written(steps: &[Step]) -> (Value, Pickled) {
    let functions = vec![Pickled::Name(MODULE, KEEP_LARGEST); steps.len()];
    let arguments: Vec<Value> = steps.iter().map(|step| json!({ LABELS: step.labels })).collect();
    let document = json!({
        "postprocessing_fns": vec![KEEP_LARGEST; steps.len()],
        "postprocessing_kwargs": arguments,
        "input_folder": Map::new(),
        "postprocessed": Map::new(),
    });
    let arguments = arguments.iter().map(Pickled::from).collect();
    (document, Pickled::Tuple(vec![Pickled::List(functions), Pickled::List(arguments)]))
}

fn keep_largest(mut labels: Vec<i16>) -> Step {
    labels.sort_unstable();
    labels.dedup();
    Step::keep_largest(&labels)
}

/// All labels in a label, a region, or a list of these: nnU-Net takes their union.
fn collect_json(value: &Value, depth: usize, labels: &mut Vec<i16>) -> bool {
    match value {
        Value::Array(items) if depth > 0 => items.iter().all(|item| collect_json(item, depth - 1, labels)),
        other => add(other.as_i64(), labels),
    }
}

fn collect_pickle(value: Pickle<'_>, depth: usize, labels: &mut Vec<i16>) -> bool {
    match value.items() {
        Some(mut items) if depth > 0 => items.all(|item| collect_pickle(item, depth - 1, labels)),
        _ => add(value.as_i64(), labels),
    }
}

fn add(label: Option<i64>, labels: &mut Vec<i16>) -> bool {
    let label = label.and_then(|label| i16::try_from(label).ok());
    labels.extend(label);
    label.is_some()
}

fn unknown(name: &str, what: &str) -> StageError {
    StageError::input(format!(
        "{what} of `{name}` is none of nnU-Net's postprocessing: expected `{KEEP_LARGEST}` with `{LABELS}`"
    ))
    .with_hint("`--no-postprocessing` imports the model without it")
}

#[cfg(test)]
mod tests {
    use nnflow_io::pickle::to_vec;

    use super::*;

    const DOCUMENT: &str = r#"{
        "input_folder": {"foreground_mean": {"Dice": NaN}},
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation",
                               "remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{"labels_or_regions": [2, [1, 3]]}, {"labels_or_regions": 2}]
    }"#;

    #[test]
    fn steps_keep_the_union_of_their_labels() {
        let steps = from_json(DOCUMENT.as_bytes(), "postprocessing.json").expect("nnU-Net's form");
        assert_eq!(steps, [Step::keep_largest(&[1, 2, 3]), Step::keep_largest(&[2])]);
    }

    #[test]
    fn both_files_that_are_written_are_read_back() {
        let steps = [Step::keep_largest(&[1, 2]), Step::keep_largest(&[2])];
        let (document, pickle) = written(&steps);
        assert_eq!(from_json(document.to_string().as_bytes(), "a").expect("just written"), steps);
        assert_eq!(from_pickle(&to_vec(&pickle), "b").expect("just written"), steps);
    }

    #[test]
    fn another_function_is_refused() {
        let other = DOCUMENT.replacen(KEEP_LARGEST, "fill_holes", 1);
        let error = from_json(other.as_bytes(), "postprocessing.json").expect_err("another function");
        assert!(error.to_string().contains("`postprocessing.json` is none of nnU-Net's postprocessing"), "{error}");
    }

    #[test]
    fn another_background_is_refused() {
        let other = DOCUMENT.replace("\"labels_or_regions\": 2", "\"labels_or_regions\": 2, \"background_label\": 1");
        from_json(other.as_bytes(), "postprocessing.json").expect_err("removed voxels would become label 1");
    }
}
