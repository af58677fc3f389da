//! `plan`: from what a dataset is like to how it is preprocessed and which networks are trained on it.

mod parameters;

use nnflow_io::dataset::DatasetDescription;
use nnflow_io::fingerprint::Fingerprint;
use nnflow_io::json;
use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameters, Phase, PhaseKind, Read, Runner, Stage, StageError, StageSpec,
};
use serde_json::{Value, json};

use self::parameters::{PARAMETERS, settings};
use crate::documents::{dataset_description, slice, unknown_port};
use crate::planner::plan;

/// The stage.
pub(crate) struct Plan;

/// Name of a dataset that has none.
const NAMELESS: &str = "dataset";
/// Keys of `dataset.json` that a plan depends on. The number of training cases is that of the fingerprint, because nnU-Net
/// sizes its batches by what `dataset.json` says even where that is wrong.
const KEYS: [&str; 6] =
    ["name", "channel_names", "labels", "regions_class_order", "file_ending", "overwrite_image_reader_writer"];

static SPEC: StageSpec = StageSpec {
    name: "plan",
    version: 1,
    summary: "plans preprocessing, networks, patches and batches from the fingerprint",
    docs: include_str!("plan/docs.md"),
    runner: Runner::Native,
    inputs: &[
        InputPort {
            name: "fingerprint",
            kinds: &["fingerprint"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`dataset_fingerprint.json`, read as a whole",
        },
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "`dataset.json`; read are names, channels, labels, file ending and reader",
        },
    ],
    outputs: &[OutputPort {
        name: "plan",
        kind: "plan",
        per_case: false,
        optional: false,
        document: Some("plans.json"),
        doc: "`plans.json`, as nnU-Net writes it, and `reasons.json`, which says for every number of it why it is so",
    }],
    parameters: PARAMETERS,
    axes: &[],
    draws: false,
    phases: &[Phase {
        name: "plan",
        kind: PhaseKind::Whole,
        reads: &["fingerprint", "description"],
        makes: &["plan"],
        parameters: None,
    }],
};

impl Stage for Plan {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, _: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "fingerprint" => Ok(document.clone()),
            "description" => {
                let read = dataset_description(document)?.to_value();
                let kept = KEYS.iter().filter_map(|key| Some(((*key).to_owned(), read.get(*key)?.clone())));
                slice(&kept.collect::<serde_json::Map<_, _>>())
            }
            _ => Err(unknown_port(port)),
        }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let fingerprint: Fingerprint = context.parsed("fingerprint")?;
        let description = described(context.document("description")?, fingerprint.spacings.len())?;
        let (name, settings) = settings(context.parameters())?;
        let name = name.or_else(|| description.name.clone()).unwrap_or_else(|| NAMELESS.to_owned());
        let (plans, reasons) = plan(&name, &fingerprint, &description, &settings)
            .map_err(|error| StageError::input(format!("the dataset cannot be planned: {error}")))?;
        let mut writer = context.output("plan");
        writer.bytes("plans.json", &text(&plans)?)?;
        writer.bytes("reasons.json", &text(&reasons)?)
    }
}

/// The description with the number of cases that are really there.
fn described(document: &Value, n_cases: usize) -> Result<DatasetDescription, StageError> {
    let mut document = document.clone();
    if let Some(keys) = document.as_object_mut() {
        keys.insert("numTraining".to_owned(), json!(n_cases));
    }
    dataset_description(&document)
}

fn text<T: serde::Serialize>(document: &T) -> Result<Vec<u8>, StageError> {
    json::to_vec(document).map_err(|error| StageError::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_cases_and_unknown_keys_do_not_enter_the_key() {
        let document = json!({
            "channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "numTraining": 7,
            "file_ending": ".nii.gz", "licence": "CC0",
        });
        let sliced = Plan.slice("description", &document, &Axes::new(), &Parameters::default()).expect("valid");
        let expected = json!({
            "channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz",
        });
        assert_eq!(sliced, expected);
    }
}
