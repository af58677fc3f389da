//! The rule by which training ends before its last epoch.

use serde::{Deserialize, Serialize};

use super::schedule::Plateau;

/// When training ends before its last epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopSettings {
    /// Which of the two conditions end it.
    pub stop_when: StopWhen,
    /// Epochs without improvement of the validation loss.
    pub patience: u32,
    /// By how much the moving average must fall to count as an improvement.
    pub threshold: f64,
    /// The learning rate below which there is nothing to gain.
    pub minimum_learning_rate: f64,
    /// The share of the old value in the moving average of the validation loss.
    pub smoothing: f64,
}

/// How the two conditions are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopWhen {
    /// Training runs to its last epoch, as in nnU-Net v2.
    Never,
    /// The validation loss no longer falls, or the learning rate is low.
    Either,
    /// The validation loss no longer falls and the learning rate is low, as the paper of 2018 has it.
    Both,
}

/// Watches the validation loss; its state belongs into checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stopping {
    plateau: Plateau,
}

impl Stopping {
    /// Takes the validation loss of an epoch and the rate of the next one; tells why training ends, if it does.
    pub fn take(&mut self, settings: &StopSettings, validation_loss: f64, learning_rate: f64) -> Option<String> {
        if settings.stop_when == StopWhen::Never {
            return None;
        }
        self.plateau.take(validation_loss, settings.smoothing, settings.threshold);
        let flat = self.plateau.epochs_without() >= settings.patience;
        let low = learning_rate < settings.minimum_learning_rate;
        let flat_reason =
            || format!("the validation loss has not fallen by {} in {} epochs", settings.threshold, settings.patience);
        let low_reason =
            || format!("the learning rate {learning_rate:e} is below {:e}", settings.minimum_learning_rate);
        match (settings.stop_when, flat, low) {
            (StopWhen::Both, true, true) => Some(format!("{} and {}", flat_reason(), low_reason())),
            (StopWhen::Either, true, _) => Some(flat_reason()),
            (StopWhen::Either, false, true) => Some(low_reason()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(stop_when: StopWhen, losses: &[f64], rate: f64) -> bool {
        let settings =
            StopSettings { stop_when, patience: 2, threshold: 0.005, minimum_learning_rate: 1e-6, smoothing: 0.0 };
        let mut stopping = Stopping::default();
        losses.iter().map(|loss| stopping.take(&settings, *loss, rate)).last().flatten().is_some()
    }

    const FLAT: &[f64] = &[1.0, 1.0, 1.0];

    #[test]
    fn either_condition_is_enough_for_either() {
        assert!(ends(StopWhen::Either, FLAT, 1e-3));
        assert!(ends(StopWhen::Either, &[1.0], 1e-7));
        assert!(!ends(StopWhen::Either, &[1.0, 0.9, 0.8], 1e-3));
    }

    #[test]
    fn both_conditions_are_needed_for_both() {
        assert!(!ends(StopWhen::Both, FLAT, 1e-3));
        assert!(!ends(StopWhen::Both, &[1.0], 1e-7));
        assert!(ends(StopWhen::Both, FLAT, 1e-7));
    }

    #[test]
    fn never_is_never() {
        assert!(!ends(StopWhen::Never, FLAT, 1e-9));
    }
}
