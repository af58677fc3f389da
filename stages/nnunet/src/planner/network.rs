//! How large a U-Net is: its activations, which stand for the memory of training it, and its parameters.
//!
//! Both are counted from the plan alone, without making a network, so that planning takes milliseconds and needs no
//! tensor library.

use nnflow_io::plans::{NetworkKind, UNetArguments};

use super::settings::{Network, PlannerSettings};
use super::topology::Topology;

/// The numbers that the size of a U-Net depends on; one entry a stage, from full resolution downwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSize {
    /// The kind of network.
    pub kind: NetworkKind,
    /// Channels.
    pub features: Vec<usize>,
    /// Extent of the kernels on each axis.
    pub kernels: Vec<Vec<usize>>,
    /// Stride on each axis with which a stage begins.
    pub strides: Vec<Vec<usize>>,
    /// Convolutions, or residual blocks, of each encoder stage.
    pub encoder: Vec<usize>,
    /// Convolutions of each decoder stage, one fewer than there are stages, from the lowest resolution upwards.
    pub decoder: Vec<usize>,
}

impl NetworkSize {
    /// The network that these settings give for a topology.
    #[must_use]
    pub fn planned(settings: &PlannerSettings, topology: &Topology) -> Self {
        let n_stages = topology.n_stages();
        let largest = settings.of_rank(topology.patch.len()).max_features;
        let doubled = std::iter::successors(Some(settings.base_features), |features| Some(features.saturating_mul(2)));
        Self {
            kind: settings.network.into(),
            features: doubled.map(|features| features.min(largest)).take(n_stages).collect(),
            kernels: topology.kernels.clone(),
            strides: topology.strides.clone(),
            encoder: repeat_last(&settings.n_conv_per_stage, n_stages),
            decoder: repeat_last(&settings.n_conv_per_stage_decoder, n_stages - 1),
        }
    }

    /// The network that a configuration describes.
    #[must_use]
    pub fn described(kind: NetworkKind, arguments: &UNetArguments) -> Self {
        Self {
            kind,
            features: arguments.features_per_stage.clone(),
            kernels: arguments.kernel_sizes.clone(),
            strides: arguments.strides.clone(),
            encoder: arguments.encoder_depths().to_vec(),
            decoder: arguments.n_conv_per_stage_decoder.clone(),
        }
    }

    /// Number of values that all convolutions put out for one patch, with `n_labels` channels in the last one.
    ///
    /// Equal to `compute_conv_feature_map_size` of `PlainConvUNet` and `ResidualEncoderUNet` without deep supervision
    /// (dynamic_network_architectures 0.4.4), which have no last convolution where they have no decoder. Exact below 2^53.
    #[must_use]
    pub fn conv_elements(&self, patch: &[usize], n_labels: usize) -> f64 {
        let sizes = self.map_sizes(patch);
        let encoder: f64 = (0..self.features.len()).map(|stage| self.encoder_elements(stage, patch, &sizes)).sum();
        let decoder: f64 = (0..self.decoder.len())
            .map(|step| {
                let stage = self.decoder.len() - 1 - step;
                // The transposed convolution puts out as much as each of the convolutions.
                (self.decoder[step] + 1) as f64 * self.elements(stage, &sizes)
            })
            .sum();
        let head = if self.decoder.is_empty() { 0.0 } else { n_labels as f64 * volume(&sizes[0]) };
        encoder + decoder + head
    }

    /// Number of weights, biases and scales, with a head for `n_heads` channels at each resolution of the decoder, or,
    /// in the network of 2018, at the full one only.
    #[must_use]
    pub fn parameters(&self, n_channels: usize, n_heads: usize) -> u64 {
        let encoder: usize = (0..self.features.len()).map(|stage| self.encoder_parameters(stage, n_channels)).sum();
        let decoder: usize = (0..self.decoder.len()).map(|step| self.decoder_parameters(step, n_heads)).sum();
        (encoder + decoder) as u64
    }

    fn elements(&self, stage: usize, sizes: &[Vec<usize>]) -> f64 {
        self.features[stage] as f64 * volume(&sizes[stage])
    }

    fn encoder_elements(&self, stage: usize, patch: &[usize], sizes: &[Vec<usize>]) -> f64 {
        let elements = self.elements(stage, sizes);
        if self.kind != NetworkKind::ResidualEncoder {
            return self.encoder[stage] as f64 * elements;
        }
        let stem = if stage == 0 { self.features[0] as f64 * volume(patch) } else { 0.0 };
        let (channels, size) = match stage.checked_sub(1) {
            Some(above) => (self.features[above], sizes[above].as_slice()),
            None => (self.features[0], patch),
        };
        let projection = if channels != self.features[stage] || size != sizes[stage] { elements } else { 0.0 };
        stem + 2.0 * self.encoder[stage] as f64 * elements + projection
    }

    fn encoder_parameters(&self, stage: usize, n_channels: usize) -> usize {
        let features = self.features[stage];
        let kernel: usize = self.kernels[stage].iter().product();
        if self.kind != NetworkKind::ResidualEncoder {
            let incoming = stage.checked_sub(1).map_or(n_channels, |above| self.features[above]);
            return convolutions(self.encoder[stage], incoming, features, kernel);
        }
        let stem = if stage == 0 { convolutions(1, n_channels, features, kernel) } else { 0 };
        let incoming = stage.checked_sub(1).map_or(features, |above| self.features[above]);
        // The projection of a block that changes the channels has no bias, only its normalisation.
        let projection = if incoming == features { 0 } else { incoming * features + 2 * features };
        stem + convolutions(2 * self.encoder[stage], incoming, features, kernel) + projection
    }

    fn decoder_parameters(&self, step: usize, n_heads: usize) -> usize {
        let stage = self.decoder.len() - 1 - step;
        let (features, below) = (self.features[stage], self.features[stage + 1]);
        let kernel: usize = self.kernels[stage].iter().product();
        let stride: usize = self.strides[stage + 1].iter().product();
        let upsampling = below * features * stride + features;
        let has_head = stage == 0 || self.kind != NetworkKind::Unet2018;
        let head = if has_head { (features + 1) * n_heads } else { 0 };
        upsampling + convolutions(self.decoder[step], 2 * features, features, kernel) + head
    }

    fn map_sizes(&self, patch: &[usize]) -> Vec<Vec<usize>> {
        let mut size = patch.to_vec();
        let halve = |stride: &Vec<usize>| {
            size = size.iter().zip(stride).map(|(extent, stride)| extent / stride).collect();
            size.clone()
        };
        self.strides.iter().map(halve).collect()
    }
}

impl From<Network> for NetworkKind {
    fn from(network: Network) -> Self {
        match network {
            Network::Plain => Self::Plain,
            Network::ResidualEncoder => Self::ResidualEncoder,
            Network::Unet2018 => Self::Unet2018,
        }
    }
}

/// Parameters of convolutions in a row, each with a bias and a normalisation with scale and offset.
fn convolutions(count: usize, incoming: usize, features: usize, kernel: usize) -> usize {
    let weights = incoming * features * kernel + count.saturating_sub(1) * features * features * kernel;
    weights + count * 3 * features
}

fn volume(size: &[usize]) -> f64 {
    size.iter().map(|&extent| extent as f64).product()
}

fn repeat_last(values: &[usize], count: usize) -> Vec<usize> {
    (0..count).filter_map(|index| values.get(index).or(values.last())).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::Preset;

    fn size(preset: Preset, strides: &[&[usize]], kernels: Option<Vec<Vec<usize>>>) -> NetworkSize {
        let rank = strides[0].len();
        let topology = Topology {
            patch: vec![0; rank],
            poolings: vec![0; rank],
            strides: strides.iter().map(|axes| axes.to_vec()).collect(),
            kernels: kernels.unwrap_or_else(|| vec![vec![3; rank]; strides.len()]),
        };
        NetworkSize::planned(&PlannerSettings::preset(preset), &topology)
    }

    const HALVED_3: &[&[usize]] = &[&[1, 1, 1], &[2, 2, 2], &[2, 2, 2], &[2, 2, 2]];
    const HALVED_5: &[&[usize]] = &[&[1, 1, 1], &[2, 2, 2], &[2, 2, 2], &[2, 2, 2], &[2, 2, 2], &[2, 2, 2]];

    // The expected counts are those of PyTorch for nnU-Net's networks on the tasks of the Decathlon.

    #[test]
    fn the_network_for_hippocampus_has_5_603_177_parameters() {
        assert_eq!(size(Preset::Default, HALVED_3, None).parameters(1, 3), 5_603_177);
    }

    #[test]
    fn the_2d_network_for_hippocampus_has_1_928_489_parameters() {
        let halved: &[&[usize]] = &[&[1, 1], &[2, 2], &[2, 2], &[2, 2]];
        assert_eq!(size(Preset::Default, halved, None).parameters(1, 3), 1_928_489);
    }

    #[test]
    fn the_network_for_liver_has_31_196_399_parameters() {
        assert_eq!(size(Preset::Default, HALVED_5, None).parameters(1, 3), 31_196_399);
    }

    #[test]
    fn the_2d_network_for_liver_has_46_326_581_parameters() {
        let halved: Vec<&[usize]> = std::iter::once(&[1, 1][..]).chain([&[2, 2][..]; 7]).collect();
        assert_eq!(size(Preset::Default, &halved, None).parameters(1, 3), 46_326_581);
    }

    #[test]
    fn the_network_for_four_channels_has_31_199_796_parameters() {
        assert_eq!(size(Preset::Default, HALVED_5, None).parameters(4, 4), 31_199_796);
    }

    #[test]
    fn the_network_for_prostate_has_44_578_770_parameters() {
        let strides: &[&[usize]] =
            &[&[1, 1, 1], &[1, 2, 2], &[1, 2, 2], &[2, 2, 2], &[2, 2, 2], &[1, 2, 2], &[1, 2, 2]];
        let kernels = [[1, 3, 3], [1, 3, 3], [3; 3], [3; 3], [3; 3], [3; 3], [3; 3]].map(Vec::from).to_vec();
        assert_eq!(size(Preset::Default, strides, Some(kernels)).parameters(2, 3), 44_578_770);
    }

    #[test]
    fn the_residual_network_for_liver_has_102_350_575_parameters() {
        assert_eq!(size(Preset::ResidualEncoderM, HALVED_5, None).parameters(1, 3), 102_350_575);
    }

    #[test]
    fn the_residual_network_for_hippocampus_has_25_895_593_parameters() {
        assert_eq!(size(Preset::ResidualEncoderM, HALVED_3, None).parameters(1, 3), 25_895_593);
    }

    // nnU-Net's source states 558 319 104 and 129 793 792 activations with a head of 3 channels at each resolution of
    // the decoder; only the head at full resolution counts here.

    #[test]
    fn activations_of_the_residual_network_are_nnu_nets() {
        let lower_heads = 3 * [64, 32, 16, 8].map(|edge: u64| edge.pow(3)).iter().sum::<u64>();
        let elements = size(Preset::ResidualEncoderM, HALVED_5, None).conv_elements(&[128; 3], 3);
        assert_eq!(elements, (558_319_104 - lower_heads) as f64);
    }

    #[test]
    fn activations_of_the_2d_residual_network_are_nnu_nets() {
        let halved: Vec<&[usize]> = std::iter::once(&[1, 1][..]).chain([&[2, 2][..]; 6]).collect();
        let lower_heads = 3 * [256, 128, 64, 32, 16].map(|edge: u64| edge.pow(2)).iter().sum::<u64>();
        let elements = size(Preset::ResidualEncoderM, &halved, None).conv_elements(&[512; 2], 3);
        assert_eq!(elements, (129_793_792 - lower_heads) as f64);
    }

    #[test]
    fn a_single_resolution_has_no_head() {
        // `PlainConvUNet(…, n_stages=1, …, num_classes=122).compute_conv_feature_map_size((1161, 9))`.
        let elements = size(Preset::Default, &[&[1, 1]], None).conv_elements(&[1161, 9], 122);
        assert_eq!(elements, 668_736.0);
    }

    #[test]
    fn the_network_of_2018_has_one_head() {
        let halved: &[&[usize]] = &[&[1, 1], &[2, 2], &[2, 2]];
        let network = size(Preset::Y2018, halved, None);
        let (one, two) = (network.parameters(1, 2), network.parameters(1, 3));
        assert_eq!(two - one, 31, "30 weights and a bias for one more class");
    }
}
