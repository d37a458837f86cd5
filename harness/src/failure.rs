//! How a cell ends if it does not finish.

use storage::cell_folder::FailedCell;

use crate::exit::{Exit, Stop};
use crate::panics::Panicked;

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
    /// A bug in the code of a cell.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// Anything else.
    #[error("{}", reason(_0))]
    Other(#[from] anyhow::Error),
}

/// An error with its causes, without the stack traces that Candle adds where `RUST_BACKTRACE` asks for them: they name
/// folders of the machine, and what is stored must not depend on it.
fn reason(error: &anyhow::Error) -> String {
    // `   7: a::function`, and below it `             at /a/file.rs:8:9`.
    let is_frame = |line: &str| {
        let digits = line.trim_start().split_once(": ").map(|(number, _)| number);
        line.starts_with(' ')
            && digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_place = |line: &str| line.starts_with("          ") && line.trim_start().starts_with("at ");
    let text = format!("{error:#}");
    let mut in_trace = false;
    let kept = text.lines().filter(|line| {
        in_trace = is_frame(line) || (in_trace && is_place(line));
        !in_trace
    });
    kept.collect::<Vec<_>>().join("\n")
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::Other(error.into())
    }
}

impl Failure {
    /// The same, but distinguishes the loss of a card from errors of a cell.
    pub(crate) fn or_lost(self) -> Self {
        let lost = match &self {
            Self::Other(error) => kernels::device::lost(error),
            Self::Panicked(panic) => kernels::device::lost(panic),
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
            Self::Memory { .. } | Self::Panicked(_) | Self::Other(_) => (false, false),
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

    #[test]
    fn what_is_stored_of_an_error_has_no_stack_trace() {
        let traced = candle_core::Error::WithBacktrace {
            inner: Box::new(candle_core::Error::Msg("shapes differ\nsomewhere".into())),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        let trace = traced.to_string();
        assert!(trace.lines().count() > 10 && trace.contains(".rs:"), "{trace}");
        let error = anyhow::Error::from(traced.context("in a layer")).context("cannot train");
        let stored = Failure::Other(error).record().unwrap().error;
        assert_eq!(stored, "cannot train: in a layer\nshapes differ\nsomewhere");
    }

    /// A fixed program or more memory may avoid the panic next time.
    #[test]
    fn a_panic_fails_its_cell_and_may_be_tried_again() {
        let panic = crate::panics::caught(|| panic!("no such row")).unwrap_err();
        let failed = Failure::from(panic).or_lost().record().unwrap();
        assert!(!failed.repeatable && !failed.integrity);
        assert!(
            failed.error.starts_with("panicked at ") && failed.error.contains("no such row"),
            "{}",
            failed.error
        );
        assert!(!failed.error.contains('\n'), "{}", failed.error);
        let lost = crate::panics::caught(|| panic!("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS)")).unwrap_err();
        assert!(matches!(Failure::from(lost).or_lost(), Failure::Lost(_)));
    }
}
