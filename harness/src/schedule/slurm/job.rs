//! A job that Slurm was given, and what jobs do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A job array.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) id: String,
    /// Keys of the tasks' cells.
    pub(super) tasks: BTreeMap<u32, String>,
}

/// What a job does, for the resources it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Train,
    Attack,
    Tables,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Attack => "attack",
            Self::Tables => "tables",
        }
    }
}
