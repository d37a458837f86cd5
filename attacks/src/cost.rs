//! What an attack costs.

/// Passes through the network, summed over examples: a batch of B forward is B forwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Forward passes.
    pub forwards: u64,
    /// Backward passes to the images.
    pub backwards: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.forwards = self.forwards.saturating_add(other.forwards);
        self.backwards = self.backwards.saturating_add(other.backwards);
    }
}
