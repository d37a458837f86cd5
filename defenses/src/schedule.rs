//! The schedule of the learning rate.

use attacks::Invalid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Length;

/// How the learning rate falls. Places are counted in the unit of the recipe's length. Epochs are counted
/// from 1: place 75 is reached when the 75th epoch begins, as in the scripts of TRADES and MART. Steps are
/// counted from 0: place 20000 is reached when 20000 steps have been made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// It does not.
    Constant {},
    /// Multiplied by `factor` once for each place that has been reached.
    Steps {
        /// Where it falls.
        at: Vec<u64>,
        /// By what it is multiplied there.
        factor: f64,
    },
    /// Multiplied by the factor of the last place that has been reached.
    Piecewise {
        /// Where it changes.
        at: Vec<u64>,
        /// By what the full rate is multiplied from there on, one for each place.
        factors: Vec<f64>,
    },
    /// Half a cosine from the full rate to 0, updated every step.
    Cosine {},
}

impl Schedule {
    /// The learning rate of the step after `step` steps and `epoch` whole epochs, of which each has
    /// `steps_per_epoch`. `base` is the rate before any schedule.
    pub fn rate(&self, base: f64, epoch: u64, step: u64, steps_per_epoch: u64, length: Length) -> f64 {
        let reached = |at: &[u64]| {
            let place = match length {
                Length::Epochs(_) => epoch + 1,
                Length::Steps(_) => step,
            };
            at.iter().filter(|&&at| at <= place).count()
        };
        match self {
            Self::Constant {} => base,
            Self::Steps { at, factor } => base * factor.powi(reached(at) as i32),
            Self::Piecewise { at, factors } => match reached(at) {
                0 => base,
                count => base * factors[count - 1],
            },
            Self::Cosine {} => {
                let steps = match length {
                    Length::Epochs(epochs) => epochs * steps_per_epoch,
                    Length::Steps(steps) => steps,
                };
                let done = step as f64 / steps.max(1) as f64;
                base * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }

    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let (at, factors) = match self {
            Self::Constant {} | Self::Cosine {} => return Ok(()),
            Self::Steps { at, factor } => (at, std::slice::from_ref(factor)),
            Self::Piecewise { at, factors } => {
                if at.len() != factors.len() {
                    let message = format!("{} places but {} factors", at.len(), factors.len());
                    return Err(Invalid::new("schedule.factors", message));
                }
                (at, factors.as_slice())
            }
        };
        if at.windows(2).any(|pair| pair[0] >= pair[1]) {
            let message = format!("the places {at:?} do not ascend");
            return Err(Invalid::new("schedule.at", message));
        }
        if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
            let message = format!("the rate cannot be multiplied by {factor}; write a factor above 0, such as 0.1");
            let field = if matches!(self, Self::Steps { .. }) {
                "schedule.factor"
            } else {
                "schedule.factors"
            };
            return Err(Invalid::new(field, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCHS: Length = Length::Epochs(120);

    #[test]
    fn steps_fall_where_the_scripts_say() {
        let schedule = Schedule::Steps {
            at: vec![75, 90, 100],
            factor: 0.1,
        };
        // Epochs counted from 1, as in train_resnet.py of MART.
        let check = |epoch: u64, expected: f64| {
            let rate = schedule.rate(0.01, epoch - 1, 0, 391, EPOCHS);
            assert!((rate - expected).abs() < 1e-15, "epoch {epoch}: {rate}");
        };
        check(1, 1e-2);
        check(74, 1e-2);
        check(75, 1e-3);
        check(89, 1e-3);
        check(90, 1e-4);
        check(100, 1e-5);
        check(120, 1e-5);
    }

    #[test]
    fn pieces_and_cosines() {
        let steps = Length::Steps(50_000);
        let pieces = Schedule::Piecewise {
            at: vec![20_000, 30_000],
            factors: vec![0.3, 0.1],
        };
        let rate = |step| pieces.rate(0.3, 0, step, 10, steps);
        assert_eq!([rate(0), rate(19_999)], [0.3, 0.3]);
        assert!((rate(20_000) - 0.09).abs() < 1e-15 && (rate(30_000) - 0.03).abs() < 1e-15);
        let cosine = |epoch, step| Schedule::Cosine {}.rate(0.1, epoch, step, 10, Length::Epochs(2));
        assert!((cosine(0, 0) - 0.1).abs() < 1e-15);
        assert!((cosine(0, 5) - 0.05 * (1.0 + 0.5f64.sqrt())).abs() < 1e-15);
        assert!((cosine(1, 10) - 0.05).abs() < 1e-15);
        assert!(cosine(2, 20).abs() < 1e-15);
        assert_eq!(Schedule::Constant {}.rate(0.1, 5, 50, 10, steps), 0.1);
    }
}
