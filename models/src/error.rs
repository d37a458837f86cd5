//! What can be wrong with a network or its parameters.

/// Why a network cannot be built or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// There is no network of that name.
    #[error("no network is called `{name}`{}; known: {known}", suggestion.as_ref().map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest existing name.
        suggestion: Option<String>,
        /// All existing names.
        known: String,
    },
    /// A depth or width that the family does not have.
    #[error("`{name}` does not exist: {reason}")]
    Size {
        /// What was asked for.
        name: String,
        /// Why there is none.
        reason: String,
    },
    /// The network cannot take images of this size, or needs more classes.
    #[error("`{name}` cannot map images {image:?} to {classes} classes: {reason}")]
    Task {
        /// The network.
        name: String,
        /// Channels, height, width.
        image: [usize; 3],
        /// Classes.
        classes: usize,
        /// Why not.
        reason: String,
    },
    /// A state dictionary of another network.
    #[error("the state does not fit `{name}`: {}", problems.join("; "))]
    State {
        /// The network.
        name: String,
        /// One line per entry that does not fit.
        problems: Vec<String>,
    },
    /// Candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
