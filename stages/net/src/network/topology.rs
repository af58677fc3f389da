//! From an architecture to its layers.

use tch::Tensor;

use super::layers::{Convolution, ConvolutionBlock, InstanceNorm, ResidualBlock, Unit, maximum_pool};
use super::parameters::{Initial, Layout, Specification};
use crate::architecture::{Description, NetworkKind, Pooling};
use crate::error::TorchError;

/// The layers of a network and the layout of their parameters; it holds no tensor.
#[derive(Debug)]
pub(crate) struct Topology {
    layout: Layout,
    stem: Option<ConvolutionBlock>,
    encoder: Vec<EncoderStage>,
    /// From the lowest resolution.
    decoder: Vec<DecoderStage>,
    /// Number of parameters before those of the heads, which come last, full resolution first.
    headless: usize,
}

#[derive(Debug)]
struct EncoderStage {
    pool: Option<Vec<i64>>,
    units: Vec<Unit>,
}

#[derive(Debug)]
struct DecoderStage {
    up: Convolution,
    blocks: Vec<ConvolutionBlock>,
    head: Convolution,
}

impl Topology {
    pub(crate) fn new(description: &Description) -> Self {
        let mut builder = Builder { description, layout: Layout::default() };
        let stem = builder.stem();
        let encoder = (0..description.n_stages()).map(|stage| builder.encoder_stage(stage)).collect();
        let steps = description.n_stages() - 1;
        let blocks: Vec<_> = (0..steps).map(|step| builder.decoder_blocks(step)).collect();
        let ups: Vec<_> = (0..steps).map(|step| builder.up(step)).collect();
        let headless = builder.layout.specifications().len();
        // Training may leave out the heads of the lowest resolutions; here they end the buffer, so that what is trained
        // is one piece of it.
        let mut heads: Vec<_> = (0..steps).rev().map(|step| builder.head(step)).collect();
        heads.reverse();
        let stages = ups.into_iter().zip(blocks).zip(heads);
        let decoder = stages.map(|((up, blocks), head)| DecoderStage { up, blocks, head }).collect();
        Self { layout: builder.layout, stem, encoder, decoder, headless }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of parameters that the first `n_outputs` outputs depend on; they are the first of the layout.
    pub(crate) fn n_used(&self, n_outputs: usize) -> usize {
        // A head is a weight and, but for the network of 2018, a bias.
        let heads = self.layout.specifications().len() - self.headless;
        self.headless + heads / self.decoder.len() * n_outputs.min(self.decoder.len())
    }

    /// The first `n_outputs` outputs, from the full resolution down.
    ///
    /// `input`: `[batch, channel, (z,) y, x]`, each extent a multiple of the architecture's divisors.
    pub(crate) fn forward(
        &self,
        parameters: &[Tensor],
        input: &Tensor,
        n_outputs: usize,
    ) -> Result<Vec<Tensor>, TorchError> {
        let mut skips = self.encode(parameters, input)?;
        let mut features = match skips.pop() {
            Some(bottleneck) => bottleneck,
            None => input.shallow_clone(),
        };
        let mut outputs = Vec::with_capacity(n_outputs);
        for (step, stage) in self.decoder.iter().enumerate() {
            features = stage.up.forward(parameters, &features)?;
            if let Some(skip) = skips.pop() {
                features = Tensor::f_cat(&[&features, &skip], 1)?;
            }
            for block in &stage.blocks {
                features = block.forward(parameters, &features)?;
            }
            if self.decoder.len() - step <= n_outputs {
                outputs.push(stage.head.forward(parameters, &features)?);
            }
        }
        outputs.reverse();
        Ok(outputs)
    }

    /// What each stage of the encoder hands to the decoder, from the highest resolution.
    fn encode(&self, parameters: &[Tensor], input: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        let mut features = input.shallow_clone();
        if let Some(stem) = &self.stem {
            features = stem.forward(parameters, &features)?;
        }
        let mut skips = Vec::with_capacity(self.encoder.len());
        for stage in &self.encoder {
            if let Some(window) = &stage.pool {
                features = maximum_pool(&features, window)?;
            }
            for unit in &stage.units {
                features = unit.forward(parameters, &features)?;
            }
            skips.push(features.shallow_clone());
        }
        Ok(skips)
    }
}

/// Makes layers and adds their parameters to the layout, in the order and under the names of nnU-Net.
struct Builder<'a> {
    description: &'a Description,
    layout: Layout,
}

/// What a convolution needs to know.
struct ConvolutionPlan<'a> {
    name: &'a str,
    inputs: usize,
    outputs: usize,
    kernel: &'a [usize],
    stride: &'a [usize],
    bias: bool,
    transposed: bool,
}

impl Builder<'_> {
    /// Channels that enter the first stage.
    fn stem_channels(&self) -> usize {
        match self.description.kind {
            NetworkKind::ResidualEncoderUNet => self.description.features_per_stage[0],
            NetworkKind::PlainConvUNet | NetworkKind::Unet2018 => self.description.input_channels,
        }
    }

    fn stem(&mut self) -> Option<ConvolutionBlock> {
        if self.description.kind != NetworkKind::ResidualEncoderUNet {
            return None;
        }
        let ones = vec![1; self.description.dimension()];
        let channels = (self.description.input_channels, self.description.features_per_stage[0]);
        let kernel = &self.description.kernel_sizes[0];
        Some(self.block("encoder.stem.convs.0", channels, kernel, &ones))
    }

    fn encoder_stage(&mut self, stage: usize) -> EncoderStage {
        let description = self.description;
        let stride = &description.strides[stage];
        let ones = vec![1; stride.len()];
        let pool = description.pooling == Pooling::Maximum && stage > 0;
        let mut channels = match stage.checked_sub(1) {
            Some(previous) => description.features_per_stage[previous],
            None => self.stem_channels(),
        };
        let features = description.features_per_stage[stage];
        let mut units = Vec::with_capacity(description.units_per_stage[stage]);
        for index in 0..description.units_per_stage[stage] {
            let stride = if index == 0 && !pool { stride } else { &ones };
            units.push(self.unit(stage, index, (channels, features), stride));
            channels = features;
        }
        EncoderStage { pool: pool.then(|| signed(stride)), units }
    }

    fn unit(&mut self, stage: usize, index: usize, channels: (usize, usize), stride: &[usize]) -> Unit {
        let kernel = &self.description.kernel_sizes[stage];
        match self.description.kind {
            NetworkKind::ResidualEncoderUNet => {
                let name = format!("encoder.stages.{stage}.blocks.{index}");
                Unit::Residual(Box::new(self.residual_block(&name, channels, kernel, stride)))
            }
            NetworkKind::PlainConvUNet | NetworkKind::Unet2018 => {
                let name = format!("encoder.stages.{stage}.0.convs.{index}");
                Unit::Convolution(self.block(&name, channels, kernel, stride))
            }
        }
    }

    fn residual_block(
        &mut self,
        name: &str,
        (inputs, outputs): (usize, usize),
        kernel: &[usize],
        stride: &[usize],
    ) -> ResidualBlock {
        let ones = vec![1; stride.len()];
        let first = self.block(&format!("{name}.conv1"), (inputs, outputs), kernel, stride);
        let convolution = self.block_convolution(&format!("{name}.conv2"), (outputs, outputs), kernel, &ones);
        // A block that starts as its shortcut: nnU-Net initialises its last normalisation with 0.
        let norm = self.norm(&format!("{name}.conv2"), outputs, Initial::Zeros);
        let second = ConvolutionBlock { convolution, norm, activated: false };
        let average = stride.iter().any(|&step| step != 1).then(|| signed(stride));
        let projection = (inputs != outputs).then(|| {
            // nnU-Net's shortcut is a list, in which the average comes first where there is one.
            let name = format!("{name}.skip.{}", usize::from(average.is_some()));
            let (kernel, stride) = (ones.as_slice(), ones.as_slice());
            let plan = ConvolutionPlan { name: &name, inputs, outputs, kernel, stride, bias: false, transposed: false };
            let convolution = self.inner_convolution(&plan);
            ConvolutionBlock { convolution, norm: self.norm(&name, outputs, Initial::Ones), activated: false }
        });
        ResidualBlock { first, second, average, projection }
    }

    fn decoder_blocks(&mut self, step: usize) -> Vec<ConvolutionBlock> {
        let description = self.description;
        let stage = description.n_stages() - 2 - step;
        let features = description.features_per_stage[stage];
        let ones = vec![1; description.dimension()];
        let count = description.convolutions_per_decoder_stage[step];
        let inputs = |index| if index == 0 { 2 * features } else { features };
        let name = |index| format!("decoder.stages.{step}.convs.{index}");
        let kernel = &description.kernel_sizes[stage];
        (0..count).map(|index| self.block(&name(index), (inputs(index), features), kernel, &ones)).collect()
    }

    fn up(&mut self, step: usize) -> Convolution {
        let description = self.description;
        let below = description.n_stages() - 1 - step;
        let stride = &description.strides[below];
        self.convolution(&ConvolutionPlan {
            name: &format!("decoder.transpconvs.{step}"),
            inputs: description.features_per_stage[below],
            outputs: description.features_per_stage[below - 1],
            kernel: stride,
            stride,
            bias: description.convolution_bias && description.kind != NetworkKind::Unet2018,
            transposed: true,
        })
    }

    fn head(&mut self, step: usize) -> Convolution {
        let description = self.description;
        let ones = vec![1; description.dimension()];
        self.convolution(&ConvolutionPlan {
            name: &format!("decoder.seg_layers.{step}"),
            inputs: description.features_per_stage[description.n_stages() - 2 - step],
            outputs: description.outputs,
            kernel: &ones,
            stride: &ones,
            bias: description.kind != NetworkKind::Unet2018,
            transposed: false,
        })
    }

    fn block(&mut self, name: &str, channels: (usize, usize), kernel: &[usize], stride: &[usize]) -> ConvolutionBlock {
        let convolution = self.block_convolution(name, channels, kernel, stride);
        ConvolutionBlock { convolution, norm: self.norm(name, channels.1, Initial::Ones), activated: true }
    }

    fn block_convolution(
        &mut self,
        name: &str,
        (inputs, outputs): (usize, usize),
        kernel: &[usize],
        stride: &[usize],
    ) -> Convolution {
        let bias = self.description.convolution_bias;
        self.inner_convolution(&ConvolutionPlan { name, inputs, outputs, kernel, stride, bias, transposed: false })
    }

    /// A convolution that a block holds under the name `conv`.
    fn inner_convolution(&mut self, plan: &ConvolutionPlan<'_>) -> Convolution {
        self.convolution(&ConvolutionPlan { name: &format!("{}.conv", plan.name), ..*plan })
    }

    fn convolution(&mut self, plan: &ConvolutionPlan<'_>) -> Convolution {
        let volume: usize = plan.kernel.iter().product();
        let (first, second) = if plan.transposed { (plan.inputs, plan.outputs) } else { (plan.outputs, plan.inputs) };
        let shape = [&[first, second], plan.kernel].concat();
        // PyTorch counts the fan-in from the second axis of a weight, which for a transposed convolution is the outputs.
        let initial = Initial::Kaiming { fan_in: second * volume };
        let weight = self.parameter(format!("{}.weight", plan.name), shape, initial);
        let bias = plan.bias.then(|| self.parameter(format!("{}.bias", plan.name), vec![plan.outputs], Initial::Zeros));
        let padding = plan.kernel.iter().map(|&size| if plan.transposed { 0 } else { (size as i64 - 1) / 2 });
        let padding = padding.collect();
        Convolution { weight, bias, stride: signed(plan.stride), padding, transposed: plan.transposed }
    }

    fn norm(&mut self, block: &str, features: usize, initial: Initial) -> InstanceNorm {
        let weight = self.parameter(format!("{block}.norm.weight"), vec![features], initial);
        let bias = self.parameter(format!("{block}.norm.bias"), vec![features], Initial::Zeros);
        InstanceNorm { weight, bias, epsilon: self.description.norm_epsilon }
    }

    fn parameter(&mut self, name: String, shape: Vec<usize>, initial: Initial) -> usize {
        self.layout.push(Specification { name, shape, initial })
    }
}

fn signed(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&size| size as i64).collect()
}
