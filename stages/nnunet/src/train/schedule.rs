//! The rules by which the learning rate falls.

use serde::{Deserialize, Serialize};

/// How the learning rate falls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    /// `poly` or `plateau`.
    pub name: ScheduleName,
    /// Of `poly`.
    pub exponent: f64,
    /// Of `plateau`: what the rate is multiplied by.
    pub factor: f64,
    /// Of `plateau`: epochs without improvement before the rate falls.
    pub patience: u32,
    /// Of `plateau`: by how much the loss must fall to count as an improvement.
    pub threshold: f64,
    /// Of `plateau`: the share of the old value in the moving average of the training loss.
    pub smoothing: f64,
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleName {
    /// `rate · (1 - epoch / epochs)^exponent`, as `PolyLRScheduler` of nnU-Net 2.8.1.
    Poly,
    /// The rate falls when the training loss no longer does, as in nnU-Net's paper of 2018.
    Plateau,
}

/// A moving average that remembers when it last improved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    average: Option<f64>,
    best: Option<f64>,
    epochs_without: u32,
}

impl Plateau {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self { average: None, best: None, epochs_without: 0 }
    }

    /// Takes an epoch's loss; `smoothing` is the share of the old average.
    pub fn take(&mut self, loss: f64, smoothing: f64, threshold: f64) {
        let average = self.average.map_or(loss, |average| smoothing * average + (1.0 - smoothing) * loss);
        self.average = Some(average);
        if self.best.is_none_or(|best| average < best - threshold) {
            self.best = Some(average);
            self.epochs_without = 0;
        } else {
            self.epochs_without += 1;
        }
    }

    /// Epochs since the average last improved.
    #[must_use]
    pub fn epochs_without(&self) -> u32 {
        self.epochs_without
    }

    /// Counts anew from here.
    pub fn restart(&mut self) {
        self.epochs_without = 0;
    }
}

impl Default for Plateau {
    fn default() -> Self {
        Self::new()
    }
}

/// The learning rate over a training; its state belongs into checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    rate: f64,
    plateau: Plateau,
}

impl Schedule {
    /// The schedule before the first epoch.
    #[must_use]
    pub fn new(initial_rate: f64) -> Self {
        Self { rate: initial_rate, plateau: Plateau::new() }
    }

    /// The rate of an epoch.
    #[must_use]
    pub fn rate(&self, settings: &ScheduleSettings, initial_rate: f64, epoch: u32, epochs: u32) -> f64 {
        match settings.name {
            ScheduleName::Poly => poly(initial_rate, epoch, epochs, settings.exponent),
            ScheduleName::Plateau => self.rate,
        }
    }

    /// Takes the training loss of an epoch.
    pub fn take(&mut self, settings: &ScheduleSettings, training_loss: f64) {
        if settings.name != ScheduleName::Plateau {
            return;
        }
        self.plateau.take(training_loss, settings.smoothing, settings.threshold);
        if self.plateau.epochs_without() > settings.patience {
            self.rate *= settings.factor;
            self.plateau.restart();
        }
    }
}

/// `rate · (1 - epoch / epochs)^exponent`; proven equal to `PolyLRScheduler` of nnU-Net 2.8.1.
#[must_use]
pub fn poly(rate: f64, epoch: u32, epochs: u32, exponent: f64) -> f64 {
    rate * (1.0 - f64::from(epoch) / f64::from(epochs)).powf(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plateau(patience: u32) -> ScheduleSettings {
        ScheduleSettings {
            name: ScheduleName::Plateau,
            exponent: 0.9,
            factor: 0.2,
            patience,
            threshold: 0.005,
            smoothing: 0.0,
        }
    }

    fn after(losses: &[f64], settings: &ScheduleSettings) -> f64 {
        let mut schedule = Schedule::new(1.0);
        losses.iter().for_each(|loss| schedule.take(settings, *loss));
        schedule.rate(settings, 1.0, 0, 1)
    }

    #[test]
    fn the_rate_falls_from_the_first_epoch_to_behind_the_last() {
        assert_eq!([0, 3, 4].map(|epoch| poly(0.5, epoch, 4, 0.5)), [0.5, 0.25, 0.0]);
    }

    #[test]
    fn the_rate_stays_while_the_loss_falls() {
        assert_eq!(after(&[1.0, 0.9, 0.8, 0.7], &plateau(1)), 1.0);
    }

    #[test]
    fn the_rate_falls_once_patience_is_exceeded() {
        assert_eq!(after(&[1.0, 1.0, 1.0], &plateau(2)), 1.0);
        assert_eq!(after(&[1.0, 1.0, 1.0, 1.0], &plateau(2)), 0.2);
    }

    #[test]
    fn an_improvement_below_the_threshold_is_none() {
        assert_eq!(after(&[1.0, 0.999, 0.998], &plateau(1)), 0.2);
    }

    #[test]
    fn the_average_follows_slowly() {
        let mut plateau = Plateau::new();
        plateau.take(1.0, 0.9, 0.0);
        plateau.take(0.0, 0.9, 0.0);
        assert_eq!(plateau.average, Some(0.9));
    }
}
