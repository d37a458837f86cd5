//! How a cell ends if it does not finish.

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
    /// What to record of it. `None`: nothing, the cell is only unfinished.
    pub(crate) fn record(&self) -> Option<FailedCell> {
        let (repeatable, integrity) = match self {
            Self::Interrupted => return None,
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
