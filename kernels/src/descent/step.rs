//! How far a step of gradient descent goes, and where to.

/// The numbers of one step of gradient descent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub rate: f64,
    /// Share of the last direction in the next; 0: no memory.
    pub momentum: f64,
    /// Weight decay.
    pub decay: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// Whether there was no step before: what the buffer holds does not matter.
    pub first: bool,
}
