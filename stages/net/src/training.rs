//! One step of training, and one of validation.
//!
//! Nothing here waits for the device: losses and counts stay where they were computed until somebody reads them, once an
//! epoch, say. Which batches, at which learning rate and for how long is decided elsewhere.

mod batch;
mod division;
mod running;
mod scale;
mod state;
#[cfg(test)]
mod tests;

use std::ops::Range;

use nnflow_kernels::augment::PendingSample;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

pub use batch::{Batch, BatchError};
pub use division::Division;
pub use running::{BatchLoss, ClassCounts, Evaluation, RunningEvaluation, RunningLoss};

use crate::augment::{Augmented, Augmenter};
use crate::collective::{Collective, CollectiveError};
use crate::device::Device;
use crate::error::TorchError;
use crate::loss::{Loss, Sums, deep_supervision_weights};
use crate::network::{Network, Topology, leaves};
use crate::optimizer::{Optimizer, OptimizerOptions, clip};
use crate::parallel::map_in_order;
use crate::precision::Precision;
use batch::{Piece, check_pending, cut_pending};
use scale::{LossScale, keep_if};

/// What a training makes small, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingOptions {
    /// What is made small.
    pub loss: Loss,
    /// How.
    pub optimizer: OptimizerOptions,
    /// The largest norm of a gradient; longer ones are scaled down to it.
    pub clip_norm: Option<f64>,
    /// What the network computes in.
    pub precision: Precision,
}

/// Why a step was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The network has other outputs than the loss.
    #[error("the network has {found} outputs, expected {expected}")]
    Outputs {
        /// What the loss is of.
        expected: String,
        /// Outputs of the network.
        found: usize,
    },
    /// The batch does not fit the network.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The processes of the training cannot work together.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// A network in training.
#[derive(Debug)]
pub struct Trainer {
    network: Network,
    options: TrainingOptions,
    optimizer: Optimizer,
    /// Weights of the supervised outputs in the loss.
    weights: Vec<f64>,
    /// Where gradients are of 16 bits.
    loss_scale: Option<LossScale>,
    collective: Collective,
    /// Samples of a batch of all processes, where there are several.
    whole_batch: Option<usize>,
}

/// What the threads that work on a batch share; it holds no tensor.
#[derive(Clone, Copy)]
struct Task<'a> {
    topology: &'a Topology,
    loss: &'a Loss,
    weights: &'a [f64],
    device: Device,
    precision: Precision,
}

/// A piece of a batch between its forward and its backward pass.
struct Forwarded {
    parameters: Vec<Tensor>,
    /// Of each supervised output.
    sums: Vec<Sums>,
}

/// The place of a process' samples in a batch.
struct Share {
    /// The first one.
    first: usize,
    /// Samples of the batch.
    whole: usize,
    /// The pieces of the process' samples, counted from its first one.
    cut: Vec<Range<usize>>,
}

impl Trainer {
    /// A training of `network` from its first step.
    ///
    /// # Errors
    /// [`TrainingError::Outputs`] where the loss is of other outputs than the network's, [`TorchError::OutOfMemory`] where
    /// the optimiser's state does not fit on the device.
    pub fn new(network: Network, options: TrainingOptions) -> Result<Self, TrainingError> {
        let architecture = network.architecture();
        if let Err(expected) = options.loss.check(architecture.outputs) {
            return Err(TrainingError::Outputs { expected, found: architecture.outputs });
        }
        let n_supervised = architecture.n_supervised();
        let n_outputs = if architecture.deep_supervision { architecture.n_stages() - 1 } else { 1 };
        let mut weights = deep_supervision_weights(n_outputs);
        weights.truncate(n_supervised);
        let trained = trained_part(&network)?;
        let optimizer = Optimizer::new(options.optimizer.clone(), &trained)?;
        let scaled = options.precision == Precision::Float16;
        let loss_scale = scaled.then(|| LossScale::new(network.device())).transpose()?;
        let collective = Collective::alone();
        Ok(Self { network, options, optimizer, weights, loss_scale, collective, whole_batch: None })
    }

    /// The same training on several processes, with batches of `samples` samples in all. Each process is given its
    /// [share](Division::share) of each batch, and all of them make the same steps as one process with whole batches: on
    /// CPUs to the bit.
    #[must_use]
    pub fn together(self, collective: Collective, samples: usize) -> Self {
        Self { collective, whole_batch: Some(samples), ..self }
    }

    /// What this process has in common with the others.
    #[must_use]
    pub fn collective(&self) -> &Collective {
        &self.collective
    }

    /// Parts from the other processes in good order; all of them have to come here.
    ///
    /// # Errors
    /// [`CollectiveError`] where they are gone, or NCCL fails.
    pub fn part(self) -> Result<(), CollectiveError> {
        self.collective.part()
    }

    /// The network as it is now.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Makes one step on a batch and returns its loss, to be read later.
    ///
    /// On the CPU the result does not depend on the number of threads, to the bit.
    ///
    /// # Errors
    /// [`TrainingError`] where the batch does not fit the network, or the device's memory.
    pub fn step(&mut self, batch: &Batch<'_>, learning_rate: f64) -> Result<BatchLoss, TrainingError> {
        batch.check(self.network.architecture(), &self.options.loss.target)?;
        let share = self.share(batch.shape[0], batch.voxels())?;
        let pieces = self.with_parameters(batch.cut(self.network.architecture(), &share.cut))?;
        self.step_on(pieces, &share, learning_rate)
    }

    /// Makes one step on samples that the device augments first, as [`Trainer::step`] does on a batch.
    ///
    /// # Errors
    /// [`TrainingError`] where the samples do not fit the network, or the device's memory.
    pub fn step_augmented(
        &mut self,
        samples: &[PendingSample],
        augmenter: &Augmenter,
        learning_rate: f64,
    ) -> Result<BatchLoss, TrainingError> {
        check_pending(samples, augmenter, self.network.architecture(), &self.options.loss.target)?;
        let share = self.share(samples.len(), augmenter.extents().iter().product())?;
        let pieces = self.with_parameters(cut_pending(samples, augmenter, &share.cut))?;
        self.step_on(pieces, &share, learning_rate)
    }

    fn step_on(
        &mut self,
        pieces: Vec<(Piece<'_>, Vec<Tensor>)>,
        share: &Share,
        learning_rate: f64,
    ) -> Result<BatchLoss, TrainingError> {
        let task = self.task();
        let threads = task.device.threads();
        let forwarded = all(map_in_order(threads, pieces, |(piece, parameters)| task.forward(&piece, parameters)))?;
        let (loss, gradients) = self.loss(&forwarded, share)?;
        let factor = || self.loss_scale.as_ref().map(LossScale::factor).transpose();
        let work = forwarded.into_iter().zip(gradients).map(|(piece, gradients)| Ok((piece, gradients, factor()?)));
        let work = work.collect::<Result<Vec<_>, TorchError>>()?;
        let gradients = all(map_in_order(threads, work, |(piece, gradients, factor)| {
            task.backward(&piece, &gradients, factor.as_ref())
        }))?;
        // The order of the pieces, not that of their ends, decides the sum.
        self.descend(self.collective.sum(gradients)?, learning_rate)?;
        Ok(BatchLoss(loss))
    }

    /// A step against a gradient; none against one that has overflowed.
    fn descend(&mut self, mut gradient: Tensor, learning_rate: f64) -> Result<(), TorchError> {
        let _guard = tch::no_grad_guard();
        let mut trained = trained_part(&self.network)?;
        let Some(scale) = &mut self.loss_scale else {
            gradient = clipped(gradient, self.options.clip_norm)?;
            return self.optimizer.step(&mut trained, gradient, learning_rate);
        };
        let (gradient, finite) = scale.unscale(&gradient)?;
        scale.update(&finite)?;
        let before = trained.f_detach_copy()?;
        let states = self.optimizer.state().map(|(_, state)| state.f_detach_copy()).collect::<Result<Vec<_>, _>>()?;
        let gradient = clipped(gradient, self.options.clip_norm)?;
        self.optimizer.step(&mut trained, gradient, learning_rate)?;
        keep_if(&finite, &mut trained, &before)?;
        self.optimizer.tensors().zip(&states).try_for_each(|(state, before)| keep_if(&finite, state, before))
    }

    /// The loss of a batch, and true and false positives and negatives at the full resolution, to be read later.
    ///
    /// # Errors
    /// [`TrainingError`] where the batch does not fit the network, or the device's memory.
    pub fn evaluate(&self, batch: &Batch<'_>) -> Result<Evaluation, TrainingError> {
        let task = self.task();
        batch.check(self.network.architecture(), &self.options.loss.target)?;
        let share = self.share(batch.shape[0], batch.voxels())?;
        let pieces = self.with_parameters(batch.cut(self.network.architecture(), &share.cut))?;
        let results = all(map_in_order(task.device.threads(), pieces, |(piece, parameters)| {
            let _guard = tch::no_grad_guard();
            task.evaluate(&piece, parameters)
        }))?;
        let (forwarded, counts): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        let (loss, _) = self.loss(&forwarded, &share)?;
        Ok(Evaluation { loss: BatchLoss(loss), counts: self.collective.sum(counts)? })
    }

    fn task(&self) -> Task<'_> {
        Task {
            topology: self.network.topology(),
            loss: &self.options.loss,
            weights: &self.weights,
            device: self.network.device(),
            precision: self.options.precision,
        }
    }

    /// The place of so many samples of so many voxels in the batch of all processes, and how they are cut.
    fn share(&self, found: usize, voxels: usize) -> Result<Share, TrainingError> {
        let (rank, ranks) = (self.collective.rank(), self.collective.ranks());
        let whole = self.whole_batch.unwrap_or(found);
        let division = Division::new(self.network.device(), whole, voxels);
        let share = division.share(rank, ranks);
        if share.len() != found {
            return Err(BatchError::Share { expected: share.len(), found }.into());
        }
        Ok(Share { first: share.start, whole, cut: division.cut(rank, ranks) })
    }

    /// Pieces, each with views of the parameters of its own: a tensor belongs to one thread.
    fn with_parameters<'a>(&self, pieces: Vec<Piece<'a>>) -> Result<Vec<(Piece<'a>, Vec<Tensor>)>, TorchError> {
        let parameters = |piece| Ok((piece, leaves(self.network.topology(), self.network.buffer())?));
        pieces.into_iter().map(parameters).collect()
    }

    /// The loss of the whole batch, and its gradient by the sums of each piece and output.
    fn loss(&self, forwarded: &[Forwarded], share: &Share) -> Result<(Tensor, Vec<Vec<Tensor>>), TrainingError> {
        let sums = (0..self.weights.len()).map(|output| below_each_other(forwarded, output));
        let sums = self.of_all_processes(sums.collect::<Result<_, _>>()?, share)?;
        let (loss, gradients) = self.task().loss(&sums)?;
        let mut first = share.first as i64;
        let mut of_pieces = Vec::with_capacity(forwarded.len());
        for piece in forwarded {
            let samples = piece.sums[0].predicted.size()[0];
            let part = |gradient: &Tensor| Ok(gradient.f_narrow(0, first, samples)?);
            of_pieces.push(gradients.iter().map(part).collect::<Result<Vec<_>, TorchError>>()?);
            first += samples;
        }
        Ok((loss, of_pieces))
    }

    /// The sums of all samples of the whole batch, from those of this process: all the loss needs to be that of one process
    /// with the whole batch, the Dice of the batch included.
    fn of_all_processes(&self, sums: Vec<Sums>, share: &Share) -> Result<Vec<Sums>, TrainingError> {
        if self.collective.ranks() == 1 {
            return Ok(sums);
        }
        let columns: Vec<&Tensor> = sums.iter().flat_map(|sums| [&sums.predicted, &sums.target]).collect();
        let columns = Tensor::f_cat(&columns, 1).map_err(TorchError::from)?;
        let rows = self.collective.rows(&columns, share.first, share.whole)?;
        let mut first = 0;
        let mut next = |like: &Tensor| -> Result<Tensor, TorchError> {
            let width = like.size()[1];
            first += width;
            Ok(rows.f_narrow(1, first - width, width)?.f_contiguous()?)
        };
        let parts = sums.iter().map(|own| Ok(Sums { predicted: next(&own.predicted)?, target: next(&own.target)? }));
        Ok(parts.collect::<Result<_, TorchError>>()?)
    }
}

impl Task<'_> {
    fn forward(&self, piece: &Piece<'_>, parameters: Vec<Tensor>) -> Result<Forwarded, TorchError> {
        let Augmented { image, labels } = piece.load(self.device)?;
        let outputs = self.outputs(&image, &parameters)?;
        let sums = self.sums(&labels, &outputs)?;
        Ok(Forwarded { parameters, sums })
    }

    fn evaluate(&self, piece: &Piece<'_>, parameters: Vec<Tensor>) -> Result<(Forwarded, Tensor), TorchError> {
        let Augmented { image, labels } = piece.load(self.device)?;
        let outputs = self.outputs(&image, &parameters)?;
        let sums = self.sums(&labels, &outputs)?;
        let counts = self.loss.target.counts(&outputs[0], &labels[0].f_to_kind(Kind::Int64)?)?;
        Ok((Forwarded { parameters, sums }, counts))
    }

    fn outputs(&self, image: &Tensor, parameters: &[Tensor]) -> Result<Vec<Tensor>, TorchError> {
        self.precision.run(self.device, || self.topology.forward(parameters, image, self.weights.len()))
    }

    fn sums(&self, labels: &[Tensor], outputs: &[Tensor]) -> Result<Vec<Sums>, TorchError> {
        let sums = |(output, labels): (&Tensor, &Tensor)| self.loss.sums(output, &labels.f_to_kind(Kind::Int64)?);
        outputs.iter().zip(labels).map(sums).collect()
    }

    /// The loss of a batch by the sums of each output, and its gradient by those that depend on the logits.
    fn loss(&self, sums: &[Sums]) -> Result<(Tensor, Vec<Tensor>), TorchError> {
        let mut predicted = Vec::with_capacity(sums.len());
        let mut loss: Option<Tensor> = None;
        for (sums, &weight) in sums.iter().zip(self.weights) {
            let leaf = sums.predicted.f_detach()?.f_set_requires_grad(true)?;
            let sums = Sums { predicted: leaf, target: sums.target.shallow_clone() };
            let term = self.loss.of_sums(&sums)?.f_mul_scalar(weight)?;
            predicted.push(sums.predicted);
            loss = Some(match loss {
                Some(loss) => loss.f_add(&term)?,
                None => term,
            });
        }
        let loss = loss.expect("invariant: a network has an output with a weight");
        let gradients = Tensor::f_run_backward(&[&loss], &predicted, false, false)?;
        Ok((loss.f_detach()?, gradients))
    }

    /// The gradient by the parameters, times `factor`, as one buffer.
    fn backward(&self, piece: &Forwarded, gradients: &[Tensor], factor: Option<&Tensor>) -> Result<Tensor, TorchError> {
        // The gradient of the scalar product with a constant is that constant, carried back through the sums.
        let product = |(sums, gradient): (&Sums, &Tensor)| {
            let product = sums.predicted.f_mul(gradient)?.f_sum(Kind::Float)?;
            factor.map_or_else(|| Ok(product.shallow_clone()), |factor| product.f_mul(factor))
        };
        let products = piece.sums.iter().zip(gradients).map(product).collect::<Result<Vec<_>, tch::TchError>>()?;
        let n_used = self.topology.n_used(self.weights.len());
        let gradients = Tensor::f_run_backward(&products, &piece.parameters[..n_used], false, false)?;
        let _guard = tch::no_grad_guard();
        self.topology.layout().gather(&gradients)
    }
}

/// The sums of all samples of this process for one output, without what they came from.
fn below_each_other(forwarded: &[Forwarded], output: usize) -> Result<Sums, TorchError> {
    let predicted: Vec<_> = forwarded.iter().map(|piece| &piece.sums[output].predicted).collect();
    let target: Vec<_> = forwarded.iter().map(|piece| &piece.sums[output].target).collect();
    Ok(Sums { predicted: Tensor::f_cat(&predicted, 0)?.f_detach()?, target: Tensor::f_cat(&target, 0)? })
}

/// The part of the parameters that the loss depends on.
fn trained_part(network: &Network) -> Result<Tensor, TorchError> {
    let n_used = network.topology().n_used(network.architecture().n_supervised());
    Ok(network.buffer().f_narrow(0, 0, network.layout().len_of_first(n_used) as i64)?)
}

fn clipped(gradient: Tensor, norm: Option<f64>) -> Result<Tensor, TorchError> {
    match norm {
        Some(norm) => clip(gradient, norm),
        None => Ok(gradient),
    }
}

fn all<T>(results: Vec<Result<T, TorchError>>) -> Result<Vec<T>, TorchError> {
    results.into_iter().collect()
}
