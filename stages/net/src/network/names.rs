//! The names of parameters in nnU-Net's checkpoints.
//!
//! nnU-Net stores every tensor of a block twice, as a member and in the list `all_modules`, and the whole encoder a second
//! time below the decoder. A strict loader of Python wants all of them; ours wants one.

const CONVOLUTION: (&str, &str) = (".conv.", ".all_modules.0.");
const NORM: (&str, &str) = (".norm.", ".all_modules.1.");
const ENCODER: &str = "encoder.";
const DECODER: &str = "decoder.";

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
