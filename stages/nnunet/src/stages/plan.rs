//! `plan`: from what a dataset is like to how it is preprocessed and which networks are trained on it.

mod parameters;

use nnflow_io::fingerprint::Fingerprint;
use nnflow_io::json;
use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameters, Phase, PhaseKind, Read, Runner, Stage, StageError, StageSpec,
};
use serde_json::Value;

use self::parameters::{PARAMETERS, settings};
use crate::documents::{dataset_description, slice, unknown_port};
use crate::planner::{PlannerError, plan};

/// The stage.
pub(crate) struct Plan;

/// Name of a dataset that has none.
const NAMELESS: &str = "dataset";
/// Keys of `dataset.json` that a plan depends on.
const KEYS: [&str; 7] = [
    "name",
    "channel_names",
    "labels",
    "regions_class_order",
    "numTraining",
    "file_ending",
    "overwrite_image_reader_writer",
];

static SPEC: StageSpec = StageSpec {
    name: "plan",
    version: 2,
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
            doc: "`dataset.json`; read are names, channels, labels, number of training cases, file ending and reader",
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
    resumes: false,
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
        let description = dataset_description(context.document("description")?)?;
        let (name, settings) = settings(context.parameters())?;
        let name = name.or_else(|| description.name.clone()).unwrap_or_else(|| NAMELESS.to_owned());
        let (plans, reasons) = plan(&name, &fingerprint, &description, &settings).map_err(unplanned)?;
        let n_cases = fingerprint.spacings.len();
        if let Some(declared) = description.training_cases.filter(|&declared| declared != n_cases) {
            context.log(format!(
                "`numTraining` of `dataset.json` is {declared}, but the fingerprint has {n_cases} cases: batches are planned \
                 for {declared} cases, as nnU-Net does"
            ));
        }
        let mut writer = context.output("plan");
        writer.bytes("plans.json", &text(&plans)?)?;
        writer.bytes("reasons.json", &text(&reasons)?)
    }
}

fn unplanned(error: PlannerError) -> StageError {
    let told = StageError::input(format!("the dataset cannot be planned: {error}"));
    match error.hint() {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}

fn text<T: serde::Serialize>(document: &T) -> Result<Vec<u8>, StageError> {
    json::to_vec(document).map_err(|error| StageError::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_keys_do_not_enter_the_key() {
        let document = json!({
            "channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "numTraining": 7,
            "file_ending": ".nii.gz", "licence": "CC0",
        });
        let sliced = Plan.slice("description", &document, &Axes::new(), &Parameters::default()).expect("valid");
        let expected = json!({
            "channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "numTraining": 7,
            "file_ending": ".nii.gz",
        });
        assert_eq!(sliced, expected);
    }
}
