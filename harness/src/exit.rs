//! Exit codes, the same for every command.

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for is there.
    Success = 0,
    /// Something nobody foresaw.
    Unexpected = 1,
    /// A mistake on the command line, in the matrix or in the data it names.
    Usage = 2,
    /// Some cells failed or are not finished; the others are finished and stored.
    CellsFailed = 3,
    /// A filter selected no cell.
    NothingSelected = 4,
    /// A result moved further than its tolerance.
    Regression = 5,
    /// A result broke a rule that every honest result keeps, such as the threat model's ball.
    Integrity = 6,
    /// Stopped by a signal. Run the same command again to go on.
    Interrupted = 130,
}

/// An error that decides the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Stop {
    /// The code.
    pub(crate) exit: Exit,
    /// What to tell the user.
    pub(crate) message: String,
}

impl Stop {
    /// A mistake of the user's.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self {
            exit: Exit::Usage,
            message: message.into(),
        }
        .into()
    }
}
