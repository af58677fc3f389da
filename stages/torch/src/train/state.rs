//! What a training remembers from epoch to epoch, and how it goes on where an earlier attempt was interrupted.

use std::path::Path;

use nnflow_net::collective::Collective;
use nnflow_net::training::Trainer;
use nnflow_nnunet::train::curve::Curve;
use nnflow_nnunet::train::schedule::Schedule;
use nnflow_nnunet::train::stop::Stopping;
use nnflow_stage::{Context, StageError};
use serde::{Deserialize, Serialize};

use super::{checkpoint, take_best, together};

/// The checkpoint's file in the folder of an attempt.
pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";

/// Everything but the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counters {
    pub(super) curve: Curve,
    pub(super) schedule: Schedule,
    pub(super) stopping: Stopping,
    pub(super) best_epoch: Option<u32>,
    pub(super) stopped: Option<String>,
}

impl Counters {
    pub(super) fn new(learning_rate: f64) -> Self {
        Self {
            curve: Curve::default(),
            schedule: Schedule::new(learning_rate),
            stopping: Stopping::default(),
            best_epoch: None,
            stopped: None,
        }
    }

    /// Epochs that were trained.
    pub(super) fn epochs(&self) -> u32 {
        u32::try_from(self.curve.epochs.len()).unwrap_or(u32::MAX)
    }

    /// What the first process has; the others take it over.
    pub(super) fn shared(self, collective: &Collective) -> Result<Self, StageError> {
        if collective.ranks() == 1 {
            return Ok(self);
        }
        let unreadable =
            |error| StageError::internal(format!("the state of the training does not reach all processes: {error}"));
        let text = serde_json::to_string(&self).map_err(unreadable)?;
        serde_json::from_str(&collective.tell(&text).map_err(together)?).map_err(unreadable)
    }

    pub(super) fn save(&self, trainer: &Trainer, path: &Path) -> Result<(), StageError> {
        let counters = serde_json::to_value(self)
            .map_err(|error| StageError::internal(format!("the state of the training cannot be written: {error}")))?;
        trainer.checkpoint(path, &counters).map_err(checkpoint)
    }
}

/// Goes on from the newest checkpoint of an earlier attempt that can be used, or else begins.
///
/// A checkpoint that cannot be used is told of and passed over: what it would have saved is computed again.
pub(super) fn resume(context: &Context<'_>, trainer: &mut Trainer, learning_rate: f64) -> Result<Counters, StageError> {
    for attempt in context.earlier_attempts() {
        let path = attempt.join(CHECKPOINT);
        if !path.is_file() {
            continue;
        }
        let resumed = trainer.resume(&path).map_err(checkpoint).and_then(|counters| {
            serde_json::from_value::<Counters>(counters)
                .map_err(|error| StageError::storage(format!("the state of the training cannot be read: {error}")))
        });
        match resumed {
            Ok(counters) => {
                take_best(attempt, context.work())?;
                context.log(format!("going on after epoch {}", counters.epochs()));
                return Ok(counters);
            }
            Err(error) => context.log(format!("the checkpoint of an earlier attempt is passed over: {error}")),
        }
    }
    Ok(Counters::new(learning_rate))
}
