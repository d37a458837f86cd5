//! Errors that the user has to correct.

/// A mistake in the user's request, such as a folder that belongs to another run. It is treated differently from
/// errors of the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UserError(pub String);

impl UserError {
    /// An error with this message.
    pub(crate) fn raise(message: impl Into<String>) -> anyhow::Error {
        Self(message.into()).into()
    }
}
