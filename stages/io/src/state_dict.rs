//! The parameters of nnU-Net's networks, as their checkpoints name them.
//!
//! nnU-Net stores every tensor of a block twice, as a member and in the list `all_modules`, and the whole encoder a second
//! time below the decoder. A strict loader of Python wants all of these names; ours wants one, the canonical one.
//!
//! A checkpoint of somebody else's is checked against [`parameters`] before anything is done with it, on machines without
//! libtorch too; that is why this stands here and not with the networks.
//!
//! Reference: dynamic_network_architectures 0.4.4 (`PlainConvUNet`, `ResidualEncoderUNet`), what nnU-Net 2.8.1 builds;
//! `tests/golden/network` holds the lists.

use crate::plans::{NetworkKind, UNetArguments};

const CONVOLUTION: (&str, &str) = (".conv.", ".all_modules.0.");
const NORM: (&str, &str) = (".norm.", ".all_modules.1.");
const ENCODER: &str = "encoder.";
const DECODER: &str = "decoder.";

/// What the names of the outputs' layers have in common; fine-tuning leaves these layers out.
pub const HEADS: &str = ".seg_layers.";

/// All names that nnU-Net's state dict has for the parameter of this canonical name, itself first.
#[must_use]
pub fn aliases(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    for (member, listed) in [CONVOLUTION, NORM] {
        if name.contains(member) {
            names.push(name.replace(member, listed));
        }
    }
    if name.starts_with(ENCODER) {
        names.extend(names.clone().iter().map(|name| format!("{DECODER}{name}")));
    }
    names
}

/// The canonical name of the parameter that nnU-Net's state dict has under `name`.
#[must_use]
pub fn canonical_name(name: &str) -> String {
    let repeated = name.strip_prefix(DECODER).filter(|rest| rest.starts_with(ENCODER));
    let mut canonical = repeated.unwrap_or(name).to_owned();
    for (member, listed) in [CONVOLUTION, NORM] {
        canonical = canonical.replace(listed, member);
    }
    canonical
}

/// Canonical name and shape of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its canonical name.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
}

/// All parameters of a network, each once; none for [`NetworkKind::Unet2018`], which nnU-Net does not have.
///
/// The arguments are those of a checked configuration ([`Plans::configuration`](crate::plans::Plans::configuration)).
#[must_use]
pub fn parameters(
    kind: NetworkKind,
    arguments: &UNetArguments,
    input_channels: usize,
    outputs: usize,
) -> Vec<Parameter> {
    let mut list = List { arguments, parameters: Vec::new() };
    match kind {
        NetworkKind::Plain => list.plain_encoder(input_channels),
        NetworkKind::ResidualEncoder => list.residual_encoder(input_channels),
        NetworkKind::Unet2018 => return Vec::new(),
    }
    list.decoder(outputs);
    list.parameters
}

struct List<'a> {
    arguments: &'a UNetArguments,
    parameters: Vec<Parameter>,
}

impl List<'_> {
    fn plain_encoder(&mut self, input_channels: usize) {
        let arguments = self.arguments;
        let mut inputs = input_channels;
        for (stage, &features) in arguments.features_per_stage.iter().enumerate() {
            for index in 0..arguments.encoder_depths()[stage] {
                let name = format!("encoder.stages.{stage}.0.convs.{index}");
                self.block(&name, inputs, features, &arguments.kernel_sizes[stage], arguments.conv_bias);
                inputs = features;
            }
        }
    }

    fn residual_encoder(&mut self, input_channels: usize) {
        let arguments = self.arguments;
        let (features, kernels, bias) = (&arguments.features_per_stage, &arguments.kernel_sizes, arguments.conv_bias);
        self.block("encoder.stem.convs.0", input_channels, features[0], &kernels[0], bias);
        let mut inputs = features[0];
        for (stage, &outputs) in features.iter().enumerate() {
            for index in 0..arguments.encoder_depths()[stage] {
                let name = format!("encoder.stages.{stage}.blocks.{index}");
                self.block(&format!("{name}.conv1"), inputs, outputs, &kernels[stage], bias);
                self.block(&format!("{name}.conv2"), outputs, outputs, &kernels[stage], bias);
                if inputs != outputs {
                    let strides = &arguments.strides[stage];
                    // The shortcut is a list, in which an average comes first where the block has a stride.
                    let place = usize::from(index == 0 && strides.iter().any(|step| *step != 1));
                    self.block(&format!("{name}.skip.{place}"), inputs, outputs, &vec![1; strides.len()], false);
                }
                inputs = outputs;
            }
        }
    }

    fn decoder(&mut self, outputs: usize) {
        let arguments = self.arguments;
        let (features, bias) = (&arguments.features_per_stage, arguments.conv_bias);
        for (step, &convolutions) in arguments.n_conv_per_stage_decoder.iter().enumerate() {
            let below = arguments.n_stages - 1 - step;
            let (lower, own) = (features[below], features[below - 1]);
            let strides = &arguments.strides[below];
            self.convolution(&format!("decoder.transpconvs.{step}"), [lower, own], strides, bias.then_some(own));
            for index in 0..convolutions {
                let inputs = if index == 0 { 2 * own } else { own };
                let kernel = &arguments.kernel_sizes[below - 1];
                self.block(&format!("decoder.stages.{step}.convs.{index}"), inputs, own, kernel, bias);
            }
            let ones = vec![1; strides.len()];
            self.convolution(&format!("decoder.seg_layers.{step}"), [outputs, own], &ones, Some(outputs));
        }
    }

    /// A convolution and its instance norm.
    fn block(&mut self, name: &str, inputs: usize, outputs: usize, kernel: &[usize], bias: bool) {
        self.convolution(&format!("{name}.conv"), [outputs, inputs], kernel, bias.then_some(outputs));
        for part in ["weight", "bias"] {
            self.add(format!("{name}.norm.{part}"), vec![outputs]);
        }
    }

    fn convolution(&mut self, name: &str, channels: [usize; 2], kernel: &[usize], bias: Option<usize>) {
        self.add(format!("{name}.weight"), [&channels, kernel].concat());
        if let Some(outputs) = bias {
            self.add(format!("{name}.bias"), vec![outputs]);
        }
    }

    fn add(&mut self, name: String, shape: Vec<usize>) {
        self.parameters.push(Parameter { name, shape });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    use serde_json::Value;

    use super::*;
    use crate::plans::Architecture;

    #[test]
    fn a_parameter_of_the_encoder_has_four_names() {
        assert_eq!(
            aliases("encoder.stem.convs.0.norm.bias"),
            [
                "encoder.stem.convs.0.norm.bias",
                "encoder.stem.convs.0.all_modules.1.bias",
                "decoder.encoder.stem.convs.0.norm.bias",
                "decoder.encoder.stem.convs.0.all_modules.1.bias",
            ]
        );
    }

    #[test]
    fn a_head_has_one_name() {
        assert_eq!(aliases("decoder.seg_layers.0.weight"), ["decoder.seg_layers.0.weight"]);
    }

    #[test]
    fn every_alias_leads_back_to_its_canonical_name() {
        for name in ["encoder.stages.1.blocks.0.skip.1.conv.weight", "decoder.stages.0.convs.1.norm.bias"] {
            assert!(aliases(name).iter().all(|alias| canonical_name(alias) == name));
        }
    }

    /// The networks that the real nnU-Net built.
    fn vectors() -> Vec<Value> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let folder = std::env::var_os("NNFLOW_GOLDEN").map_or(own, PathBuf::from).join("network");
        let entries = std::fs::read_dir(&folder).expect("the vectors are there").flatten();
        let files = entries.map(|entry| entry.path().join("network.json")).filter(|path| path.is_file());
        let vectors: Vec<Value> = files.map(|path| crate::json::read(&path).expect("a vector can be read")).collect();
        assert!(!vectors.is_empty(), "no vector of a network in {}", folder.display());
        vectors
    }

    fn listed(vector: &Value) -> Vec<Parameter> {
        let architecture: Architecture =
            serde_json::from_value(vector["architecture"].clone()).expect("an architecture");
        let count = |key: &str| usize::try_from(vector[key].as_u64().expect("a count")).expect("small");
        let arguments = architecture.unet("vector").expect("a U-Net");
        let kind = architecture.network().expect("one of nnU-Net's");
        parameters(kind, &arguments, count("input_channels"), count("output_channels"))
    }

    #[test]
    fn names_are_those_of_the_state_dict() {
        for vector in vectors() {
            let ours: BTreeSet<String> =
                listed(&vector).iter().flat_map(|parameter| aliases(&parameter.name)).collect();
            let keys = vector["state_dict_keys"].as_array().expect("a list").iter();
            assert_eq!(ours, keys.map(|key| key.as_str().expect("a name").to_owned()).collect());
        }
    }

    #[test]
    fn shapes_are_those_of_the_network() {
        for vector in vectors() {
            let ours = listed(&vector).into_iter().map(|parameter| (parameter.name, parameter.shape));
            let theirs: BTreeMap<String, Vec<usize>> =
                serde_json::from_value(vector["parameters"].clone()).expect("names and shapes");
            assert_eq!(ours.collect::<BTreeMap<_, _>>(), theirs);
        }
    }
}
