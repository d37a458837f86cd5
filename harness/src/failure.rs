//! How a cell ends if it does not finish.

use crate::exit::{Exit, Stop};
use crate::folder::FailedCell;

/// Why a cell did not finish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A signal asked for an end. Nothing is lost.
    #[error("interrupted")]
    Interrupted,
    /// The loss became NaN or infinite. The same seed would do it again.
    #[error(
        "training diverged: the loss was {loss} at step {step} of epoch {epoch}; lower the learning rate or set `clip_gradient`"
    )]
    Diverged { loss: f32, step: u64, epoch: u64 },
    /// A result broke a rule that every honest result keeps.
    #[error("integrity: {0}")]
    Integrity(String),
    /// The device's memory is full. The cell may succeed where more is free.
    #[error(
        "out of GPU memory at a batch of {batch}; {}",
        fits.map_or_else(|| "not even one image fits, free the card".into(), |fits| format!("a batch of {fits} would fit now: set `recipe.batch`, or free the card"))
    )]
    Memory { batch: usize, fits: Option<usize> },
    /// The card is lost to this process. What was saved is good, and no other cell of this run can go on.
    #[error("the GPU was lost ({0}); what was saved is good: run the same command again to go on from there")]
    Lost(&'static str),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::Other(error.into())
    }
}

impl Failure {
    /// The same, with the loss of a card told from the errors of a cell.
    pub(crate) fn or_lost(self) -> Self {
        let lost = match &self {
            Self::Other(error) => kernels::device::lost(error),
            _ => None,
        };
        lost.map_or(self, Self::Lost)
    }

    /// The error that ends the program, with its exit code.
    pub(crate) fn into_stop(self) -> anyhow::Error {
        let exit = match &self {
            Self::Integrity(_) => Exit::Integrity,
            _ => Exit::Unexpected,
        };
        Stop {
            exit,
            message: self.to_string(),
        }
        .into()
    }

    /// What to record of it. `None`: nothing, the cell is only unfinished.
    pub(crate) fn record(&self) -> Option<FailedCell> {
        let (repeatable, integrity) = match self {
            Self::Interrupted | Self::Lost(_) => return None,
            Self::Diverged { .. } => (true, false),
            Self::Integrity(_) => (true, true),
            Self::Memory { .. } | Self::Other(_) => (false, false),
        };
        Some(FailedCell {
            error: self.to_string(),
            repeatable,
            integrity,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_card_fails_no_cell_and_says_how_to_go_on() {
        let lost = candle_core::Error::msg("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS)").context("training");
        let failure = Failure::from(lost).or_lost();
        let said = failure.to_string();
        assert!(
            said.contains("CUDA_ERROR_ILLEGAL_ADDRESS") && said.contains("run the same command again"),
            "{said}"
        );
        assert!(failure.record().is_none());
        // What a cell did wrong stays its own.
        let own = Failure::from(candle_core::Error::msg("shapes differ")).or_lost();
        assert!(matches!(own, Failure::Other(_)) && own.record().is_some());
    }
}
