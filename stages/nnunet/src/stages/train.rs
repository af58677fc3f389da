//! `train`: a network for one configuration and one fold.

use nnflow_stage::{
    Axes, Context, InputPort, OutputPort, Parameters, Phase, PhaseKind, Read, ResourceQuery, Resources, Runner, Stage,
    StageError, StageSpec,
};
use serde_json::Value;

use crate::documents::unknown_port;
use crate::train::settings::{TRAINING_PARAMETERS, TrainingSettings};
use crate::train::slices::{Classes, FoldCases, TrainingPlan};

/// The stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Train;

/// Bytes of a checkpoint's weights, gradients, optimiser and activations for each voxel that the network sees, roughly:
/// used to keep other work from starting beside it, not to limit it.
const BYTES_A_VOXEL: u64 = 4096;

/// What libtorch itself takes.
const BASE_BYTES: u64 = 1 << 30;

static SPEC: StageSpec = StageSpec {
    name: "train",
    version: 2,
    summary: "trains a network for one configuration and one fold",
    docs: "Trains the network that the plan describes on the cases of a fold, from random weights.\n\
\n\
An epoch is `batches_per_epoch` batches of patches, each drawn from a random case; a share of them is centred on foreground.\n\
Patches are augmented (`augmentation`); which samples an epoch sees and what is done to them depends on the workflow's seed,\n\
the epoch and the sample's number alone, not on threads. The loss is Dice plus cross-entropy, for regions binary\n\
cross-entropy, with the outputs of lower resolutions weighted 1, 1/2, 1/4, … (`deep_supervision`). After each epoch the loss\n\
and the Dice over `validation_batches` batches of the fold's other cases are taken (nnU-Net's pseudo Dice), and a checkpoint\n\
is left, from which an interrupted training goes on; on the CPU it ends with the same weights, bit for bit.\n\
\n\
With `augment_on = \"device\"` the device of the network augments, by operations on tensors. What is drawn for a sample is the\n\
same, number by number, and so is what is done to it; what differs is rounding. Intensities agree to a thousandth of their\n\
range, and labels but where two of them weigh the same between voxels. Weights then differ as they do between two kinds of\n\
processors. In a cascade the threads augment the labels, whichever device has the image.\n\
\n\
With a model at the input `initial` the weights begin as that model's of the same configuration, of the same fold if it has\n\
it and else of its first; those of the output layers begin at random, since they may stand for other classes (nnU-Net's\n\
`-pretrained_weights`). The networks have to be the same but for their outputs: take the plan from the model too. The recipe\n\
`nnunet-v2-finetune` does all of this.\n\
\n\
The defaults are those of nnU-Net 2.8.1 (`nnUNetTrainer`). The recipe `nnunet-2018` sets those of arXiv:1809.10486.",
    runner: Runner::Torch,
    inputs: &[
        InputPort {
            name: "cases",
            kinds: &["prepared"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: false,
            doc: "all preprocessed training cases",
        },
        InputPort {
            name: "plan",
            kinds: &["plan"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "patch, batch, network and Dice mode of the configuration",
        },
        InputPort {
            name: "split",
            kinds: &["split"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "the cases of the fold",
        },
        InputPort {
            name: "description",
            kinds: &["description"],
            read: Read::Document,
            per_case: false,
            many: false,
            optional: false,
            doc: "channels, labels, regions",
        },
        InputPort {
            name: "previous",
            kinds: &["next_stage"],
            read: Read::Whole,
            per_case: true,
            many: false,
            optional: true,
            doc: "in a cascade, the segmentations of the stage before",
        },
        InputPort {
            name: "initial",
            kinds: &["bundle"],
            read: Read::Whole,
            per_case: false,
            many: false,
            optional: true,
            doc: "a trained model whose weights the training begins with, all but those of the outputs",
        },
    ],
    outputs: &[OutputPort {
        name: "model",
        kind: "model",
        per_case: false,
        optional: false,
        document: Some("model.json"),
        doc: "`weights.safetensors`, `model.json`; besides `progress.csv` and `curve.svg`",
    }],
    parameters: TRAINING_PARAMETERS,
    axes: &["configuration", "fold"],
    draws: true,
    resumes: true,
    phases: &[Phase {
        name: "train",
        kind: PhaseKind::Whole,
        reads: &["cases", "plan", "split", "description", "previous", "initial"],
        makes: &["model"],
        parameters: None,
    }],
};

impl Stage for Train {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn slice(&self, port: &str, document: &Value, axes: &Axes, _: &Parameters) -> Result<Value, StageError> {
        match port {
            "plan" => TrainingPlan::slice(document, axes),
            "split" => FoldCases::slice(document, axes),
            "description" => Classes::slice(document),
            _ => Err(unknown_port(port)),
        }
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let voxels = plan(query).map_or(0, |plan| plan.patch_size.iter().product::<usize>() * plan.batch_size) as u64;
        Resources { threads: 0, memory_bytes: voxels.saturating_mul(BYTES_A_VOXEL).saturating_add(BASE_BYTES) }
    }

    /// A GPU needs a sample of each batch at least.
    fn most_gpus(&self, query: &ResourceQuery<'_>) -> usize {
        let settings = query.parameters.parse::<TrainingSettings>().ok();
        let planned = || plan(query).map(|plan| plan.batch_size);
        settings.and_then(|settings| settings.batch_size).or_else(planned).unwrap_or(1).max(1)
    }

    fn run(&self, _: &mut Context<'_>) -> Result<(), StageError> {
        Err(StageError::internal("`train` runs in the worker `nnflow-torch`"))
    }
}

/// The plan, where it is there already.
fn plan(query: &ResourceQuery<'_>) -> Option<TrainingPlan> {
    serde_json::from_value(query.document("plan")?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nnflow_stage::{InputValue, Member, effective_parameters};
    use serde_json::{Map, json};

    use super::*;

    fn most_gpus(given: Value) -> usize {
        let document = json!({
            "patch_size": [16, 24, 24],
            "batch_size": 3,
            "batch_dice": true,
            "use_mask_for_norm": [false],
            "architecture": {},
            "cascade": false
        });
        let member = Member { axes: BTreeMap::new(), value: InputValue::Document(document) };
        let given: Map<String, Value> = given.as_object().cloned().unwrap_or_default();
        let parameters = effective_parameters(TRAINING_PARAMETERS, &given).expect("parameters of the stage");
        let inputs = BTreeMap::from([("plan".to_owned(), vec![member])]);
        Train.most_gpus(&ResourceQuery { phase: "train", parameters: &parameters, input_bytes: 0, inputs: &inputs })
    }

    #[test]
    fn a_training_can_use_a_gpu_for_each_sample_of_a_batch() {
        assert_eq!([most_gpus(json!({})), most_gpus(json!({ "batch_size": 5 }))], [3, 5]);
    }
}
