//! Trains a network: epochs of batches, checkpoints, the learning curve.

mod setup;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nnflow_net::checkpoint::CheckpointError;
use nnflow_net::collective::{Collective, CollectiveError, Exchange};
use nnflow_net::network::Network;
use nnflow_net::training::{Batch, RunningEvaluation, RunningLoss, Trainer, TrainingError};
use nnflow_net::{TorchError, device::Device, shim};
use nnflow_nnunet::train::curve::{Epoch, Timing};
use nnflow_nnunet::train::loader::{BatchMaker, LoadedBatch, in_order};
use nnflow_nnunet::train::model::{MODEL_VERSION, ModelRecord, RECORD, TrainingSummary, WEIGHTS, weights_in_bundle};
use nnflow_nnunet::train::settings::Keep;
use nnflow_stage::{Context, Progress, StageError};

use setup::Setup;
pub(crate) use setup::processes;
use state::{CHECKPOINT, Counters};

use crate::serve::{GIBIBYTE, note_gpu_memory};

/// The weights of the best epoch so far, beside the checkpoint.
const BEST: &str = "best.safetensors";

/// The learning curve, as a table and as a picture.
const CURVE: &str = "progress.csv";
const PICTURE: &str = "curve.svg";

/// How often progress within an epoch is told, at most.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Batches that are made before they are needed, for each thread that makes them.
const AHEAD: usize = 2;

/// Runs the stage `train`, in this process alone or with others. The first one writes what is to be written; all others
/// make the same steps and write nothing.
pub(crate) fn train(context: &mut Context<'_>, others: Option<Arc<dyn Exchange>>) -> Result<(), StageError> {
    let (rank, ranks) = others.as_ref().map_or((0, 1), |others| (others.rank(), others.ranks()));
    let setup = Setup::new(context, rank, ranks)?;
    shim::reset_peak(setup.device).map_err(torch)?;
    let trained = train_with(context, &setup, others).and_then(|()| note_gpu_memory(context, setup.device));
    if ranks > 1 {
        // This process ends now. After an error it must not wait for its GPU, which may wait for others that are gone.
        return trained;
    }
    // Whatever the worker does next needs the memory in pieces of other sizes.
    let given_back = shim::give_back_memory(setup.device).map_err(torch);
    trained.and(given_back)
}

fn train_with(context: &mut Context<'_>, setup: &Setup, others: Option<Arc<dyn Exchange>>) -> Result<(), StageError> {
    let collective = others.map_or_else(|| Ok(Collective::alone()), |others| Collective::among(others, setup.device));
    let (mut trainer, mut counters) = begin(context, setup, collective.map_err(together)?)?;
    train_epochs(context, setup, &mut trainer, &mut counters)?;
    if trainer.collective().is_first() {
        write_model(context, setup, &trainer, &counters)?;
    }
    trainer.part().map_err(together)
}

/// The training before its next epoch.
fn begin(context: &Context<'_>, setup: &Setup, collective: Collective) -> Result<(Trainer, Counters), StageError> {
    let (rate, is_first) = (setup.settings.optimizer.learning_rate, collective.is_first());
    let network = match is_first {
        true => initial_network(context, setup)?,
        // It is given the weights of the first one.
        false => Network::new(&setup.architecture, context.seed(), setup.device).map_err(torch)?,
    };
    let trainer = Trainer::new(network, setup.options.clone()).map_err(training)?;
    let mut trainer = trainer.together(collective, setup.batch_size());
    let mut counters = Counters::new(rate);
    let ranks = trainer.collective().ranks();
    if is_first && ranks > 1 {
        context.log(format!("{ranks} processes share each batch of {} patches", setup.batch_size()));
    }
    if is_first {
        fs_create(context.work())?;
        counters = state::resume(context, &mut trainer, rate)?;
        context.log(format!("`{CURVE}` and `{PICTURE}` are written after each epoch to {}", context.work().display()));
    }
    trainer.align().map_err(training)?;
    let counters = counters.shared(trainer.collective())?;
    Ok((trainer, counters))
}

fn train_epochs(
    context: &Context<'_>,
    setup: &Setup,
    trainer: &mut Trainer,
    counters: &mut Counters,
) -> Result<(), StageError> {
    let between = Duration::from_secs_f64(60.0 * setup.settings.checkpoint_minutes);
    let mut saved = Instant::now();
    while counters.stopped.is_none() && counters.epochs() < setup.settings.epochs {
        epoch(context, setup, trainer, counters)?;
        let last = counters.stopped.is_some() || counters.epochs() == setup.settings.epochs;
        let is_due = counters.epochs().is_multiple_of(setup.settings.checkpoint_every) && saved.elapsed() >= between;
        if trainer.collective().is_first() && (last || is_due) {
            counters.save(trainer, &context.work().join(CHECKPOINT))?;
            saved = Instant::now();
        }
    }
    Ok(())
}

/// The network before its first step: random, or with the weights of a model.
fn initial_network(context: &Context<'_>, setup: &Setup) -> Result<Network, StageError> {
    let Some(bundle) = context.optional_artifact("initial")? else {
        return Network::new(&setup.architecture, context.seed(), setup.device).map_err(torch);
    };
    let axis = |name: &str| context.axes().get(name).map(String::as_str).unwrap_or_default();
    let weights = weights_in_bundle(bundle, axis("configuration"), axis("fold"))?;
    context.log(format!("the weights begin as those in `{}`", weights.name));
    Network::pretrained(&weights.path, &setup.architecture, context.seed(), setup.device).map_err(|error| match error {
        CheckpointError::Missing { .. } | CheckpointError::Unknown { .. } | CheckpointError::Shape { .. } => {
            StageError::input(format!("the model's network is not the planned one: {error}"))
                .with_hint("take the plan from the model as well, as the recipe `nnunet-v2-finetune` does")
        }
        other => checkpoint(other),
    })
}

/// One epoch: train, validate, take stock.
fn epoch(
    context: &Context<'_>,
    setup: &Setup,
    trainer: &mut Trainer,
    counters: &mut Counters,
) -> Result<(), StageError> {
    let settings = &setup.settings;
    let epoch = counters.epochs();
    let rate = counters.schedule.rate(&settings.schedule, settings.optimizer.learning_rate, epoch, settings.epochs);
    let start = Instant::now();
    let maker = setup.batch_maker();
    let mut pass = Pass { context, setup, epoch, waited: Duration::ZERO, told: start };
    let training_loss = pass.train(&maker, trainer, rate)?;
    let evaluation = pass.validate(&maker, trainer)?;
    let timing = Timing { seconds: start.elapsed().as_secs_f64(), waited: pass.waited.as_secs_f64() };
    if trainer.collective().is_first() {
        take_stock(context, setup, trainer, counters, &Passed { rate, training_loss, evaluation, timing })?;
    }
    *counters = counters.clone().shared(trainer.collective())?;
    Ok(())
}

/// What an epoch gave.
struct Passed {
    rate: f64,
    training_loss: f64,
    evaluation: RunningEvaluation,
    timing: Timing,
}

/// Takes note of an epoch, keeps the network if it is the best so far, and tells how far the training has come.
fn take_stock(
    context: &Context<'_>,
    setup: &Setup,
    trainer: &Trainer,
    counters: &mut Counters,
    passed: &Passed,
) -> Result<(), StageError> {
    let (settings, epoch) = (&setup.settings, counters.epochs());
    let validation_loss = passed.evaluation.mean_loss().map_err(torch)?.unwrap_or(0.0);
    let counts = passed.evaluation.counts().map_err(torch)?;
    let dice: Vec<Option<f64>> = counts.iter().map(|counts| counts.dice()).collect();
    let present: Vec<f64> = dice.iter().flatten().copied().collect();
    let mean_dice = (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64);
    counters.schedule.take(&settings.schedule, passed.training_loss);
    let next = counters.schedule.rate(&settings.schedule, settings.optimizer.learning_rate, epoch + 1, settings.epochs);
    counters.stopped = counters.stopping.take(&settings.stop, validation_loss, next);
    let row = Epoch {
        epoch: epoch + 1,
        learning_rate: passed.rate,
        training_loss: passed.training_loss,
        validation_loss,
        dice,
        mean_dice,
        average_dice: None,
    };
    if counters.curve.add(row, passed.timing, settings.dice_smoothing) {
        counters.best_epoch = Some(epoch + 1);
        if settings.keep == Keep::Best {
            trainer.network().save(&context.work().join(BEST)).map_err(checkpoint)?;
        }
    }
    let (table, picture) = curve(context, setup, counters);
    write(&context.work().join(CURVE), &table)?;
    write(&context.work().join(PICTURE), &picture)?;
    tell_epoch(context, setup, counters, &passed.timing)
}

/// The learning curve as a table and as a picture.
fn curve(context: &Context<'_>, setup: &Setup, counters: &Counters) -> (String, String) {
    (counters.curve.to_csv(&setup.classes.foreground_names()), counters.curve.to_svg(context.node()))
}

/// A pass over the batches of an epoch.
struct Pass<'a, 'c> {
    context: &'a Context<'c>,
    setup: &'a Setup,
    epoch: u32,
    waited: Duration,
    told: Instant,
}

impl Pass<'_, '_> {
    fn train(&mut self, maker: &BatchMaker<'_>, trainer: &mut Trainer, rate: f64) -> Result<f64, StageError> {
        let (context, epoch, setup) = (self.context, self.epoch, self.setup);
        let mut running = RunningLoss::default();
        let batches = setup.settings.batches_per_epoch as usize;
        match &setup.augmenter {
            None => self.batches(batches, &|index| maker.training_batch(epoch, index), |batch| {
                check_cancelled(context, trainer)?;
                let loss = trainer.step(&borrowed(batch), rate).map_err(training)?;
                running.add(&loss).map_err(torch)
            })?,
            Some(augmenter) => self.batches(batches, &|index| maker.training_samples(epoch, index), |samples| {
                check_cancelled(context, trainer)?;
                let loss = trainer.step_augmented(samples, augmenter, rate).map_err(training)?;
                running.add(&loss).map_err(torch)
            })?,
        }
        let loss = running.mean().map_err(torch)?.unwrap_or(0.0);
        // One process says it for all of them, which have the same loss.
        if loss.is_finite() || !trainer.collective().is_first() {
            return Ok(loss);
        }
        Err(StageError::input(format!(
            "the training loss is `{loss}` in epoch {}: the training has diverged",
            epoch + 1
        ))
        .with_hint("try a lower `optimizer.learning_rate`, and look for broken images with `nnflow check`"))
    }

    fn validate(&mut self, maker: &BatchMaker<'_>, trainer: &Trainer) -> Result<RunningEvaluation, StageError> {
        let (context, epoch) = (self.context, self.epoch);
        let mut running = RunningEvaluation::default();
        let batches = self.setup.settings.validation_batches as usize;
        self.batches(batches, &|index| maker.validation_batch(epoch, index), |batch| {
            check_cancelled(context, trainer)?;
            let evaluation = trainer.evaluate(&borrowed(batch)).map_err(training)?;
            running.add(&evaluation).map_err(torch)
        })?;
        Ok(running)
    }

    fn batches<B: Send>(
        &mut self,
        count: usize,
        make: &(dyn Fn(usize) -> Result<B, StageError> + Sync),
        mut take: impl FnMut(&B) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let threads = self.setup.loader_threads;
        let (context, waited, told) = (self.context, &mut self.waited, &mut self.told);
        in_order(count, threads, threads * AHEAD, make, |index, batch, wait| {
            *waited += wait;
            if told.elapsed() >= TELL_EVERY {
                *told = Instant::now();
                context.progress(Progress {
                    done: u64::from(self.epoch),
                    total: Some(u64::from(self.setup.settings.epochs)),
                    unit: "epoch".to_owned(),
                    message: format!("batch {index}/{count}"),
                });
            }
            take(&batch)
        })
    }
}

/// Ends the training early if that was asked for: all processes before the same batch.
fn check_cancelled(context: &Context<'_>, trainer: &Trainer) -> Result<(), StageError> {
    trainer.collective().meet().map_err(together)?;
    context.check_cancelled()
}

fn borrowed(batch: &LoadedBatch) -> Batch<'_> {
    Batch { shape: batch.shape.clone(), image: &batch.image, labels: batch.labels.iter().map(Vec::as_slice).collect() }
}

fn tell_epoch(context: &Context<'_>, setup: &Setup, counters: &Counters, timing: &Timing) -> Result<(), StageError> {
    let Some(epoch) = counters.curve.epochs.last() else { return Ok(()) };
    let dice = epoch.average_dice.map_or_else(|| "dice -".to_owned(), |dice| format!("dice {dice:.3}"));
    let waits = 100.0 * timing.waited / timing.seconds.max(1e-9);
    let memory = shim::memory(setup.device).map_err(torch)?;
    let memory = memory.map_or_else(String::new, |memory| format!("  {:.1} GiB", memory.peak as f64 / GIBIBYTE));
    let recent = counters.curve.recent();
    let message = format!("{dice} {recent}  {:.1} s/epoch  waits {waits:.0} %{memory}", timing.seconds);
    context.log(format!(
        "epoch {} of {}: rate {:.2e}, loss {:.4}, validation {:.4}, {message}",
        epoch.epoch, setup.settings.epochs, epoch.learning_rate, epoch.training_loss, epoch.validation_loss
    ));
    context.progress(Progress {
        done: u64::from(epoch.epoch),
        total: Some(u64::from(setup.settings.epochs)),
        unit: "epoch".to_owned(),
        message,
    });
    Ok(())
}

fn write_model(
    context: &mut Context<'_>,
    setup: &Setup,
    trainer: &Trainer,
    counters: &Counters,
) -> Result<(), StageError> {
    let last = counters.curve.epochs.last().ok_or_else(|| StageError::internal("no epoch was trained"))?;
    let best = context.work().join(BEST);
    let kept_epoch = match (setup.settings.keep, counters.best_epoch) {
        (Keep::Best, Some(epoch)) => epoch,
        _ => counters.epochs(),
    };
    let record = ModelRecord {
        version: MODEL_VERSION,
        architecture: setup.plan.architecture.clone(),
        input_channels: setup.input_channels(),
        outputs: setup.classes.outputs(),
        deep_supervision: setup.architecture.deep_supervision,
        patch_size: setup.plan.patch_size.clone(),
        mirror_axes: setup.mirror_axes(),
        classes: setup.classes.clone(),
        training: TrainingSummary {
            epochs: counters.epochs(),
            kept_epoch,
            average_dice: last.average_dice,
            mean_dice: last.mean_dice,
            training_loss: Some(last.training_loss),
            validation_loss: Some(last.validation_loss),
            stopped: counters.stopped.clone(),
        },
    };
    let (table, picture) = curve(context, setup, counters);
    let mut output = context.output("model");
    output.json(RECORD, &record)?;
    let weights = output.file(WEIGHTS)?;
    let (csv, svg) = (output.incidental_file(CURVE)?, output.incidental_file(PICTURE)?);
    write(&csv, &table)?;
    write(&svg, &picture)?;
    if setup.settings.keep == Keep::Best && best.is_file() {
        return std::fs::copy(&best, &weights).map(|_| ()).map_err(|error| storage(&best, &error));
    }
    trainer.network().save(&weights).map_err(checkpoint)
}

fn write(path: &Path, text: &str) -> Result<(), StageError> {
    std::fs::write(path, text).map_err(|error| storage(path, &error))
}

fn fs_create(folder: &Path) -> Result<(), StageError> {
    std::fs::create_dir_all(folder).map_err(|error| storage(folder, &error))
}

fn storage(path: &Path, error: &std::io::Error) -> StageError {
    StageError::storage(format!("`{}`: {error}", path.display()))
}

/// Copies the weights of the best epoch from an earlier attempt, which a resumed training may still need.
fn take_best(from: &Path, to: &Path) -> Result<(), StageError> {
    let (from, to): (PathBuf, PathBuf) = (from.join(BEST), to.join(BEST));
    if from.is_file() {
        std::fs::copy(&from, &to).map_err(|error| storage(&from, &error))?;
    }
    Ok(())
}

/// An error of libtorch; lack of memory may pass.
pub(crate) fn torch(error: TorchError) -> StageError {
    match &error {
        TorchError::OutOfMemory { .. } => StageError::resource(error.to_string()).with_hint(
            "give the plan less memory (`stages.plan.with.gpu_memory_target`), or train smaller patches or batches",
        ),
        _ => StageError::internal(error.to_string()).with_source(error),
    }
}

fn training(error: TrainingError) -> StageError {
    match error {
        TrainingError::Torch(error) => torch(error),
        TrainingError::Collective(error) => together(error),
        other => StageError::input(other.to_string()),
    }
}

/// An error of several processes.
fn together(error: CollectiveError) -> StageError {
    let hint = error.hint();
    let error = match error {
        CollectiveError::Torch(error) => torch(error),
        CollectiveError::Library { .. } => StageError::input(error.to_string()),
        other => StageError::internal(other.to_string()).with_source(other),
    };
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

pub(crate) fn checkpoint(error: CheckpointError) -> StageError {
    match error {
        CheckpointError::Torch(error) => torch(error),
        CheckpointError::NotFinite { .. } => StageError::input(error.to_string())
            .with_hint("the training has diverged: try a lower `optimizer.learning_rate`"),
        other => {
            let message = other.to_string();
            StageError::storage(message).with_source(other)
        }
    }
}

/// Threads that make batches: beside a GPU all that there are, beside a CPU that computes one.
fn loader_threads(device: Device, threads: usize) -> usize {
    match device {
        Device::Cuda(_) => threads.max(1),
        Device::Cpu { .. } => 1,
    }
}
