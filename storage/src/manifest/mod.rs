//! Manifests: what made a run (program, machine, matrix, data), and every file with its digest.
//!
//! Each invocation that computes something leaves a file of its own in `invocations`, so that several may work at the
//! same time; one that was killed has no end. `manifest.json` lists them with what they made. It is written last and
//! sealed: a digest of all its other bytes is its last entry. All of this guards against accidents and against edits by
//! hand, not against forgery; to vouch for a run, publish the manifest's digest.

mod document;
mod facts;
mod index;
mod recorder;

pub use self::document::{INVOCATIONS, MATRIX, Manifest, PLAN, forget, read_invocations, refresh};
pub use self::facts::{DatasetFacts, End, Invocation, Machine, MatrixFacts, PlanFacts, Program, Settings, digest};
pub use self::index::{FILE, is_derived, walk};
pub use self::recorder::{Ending, Origin, Recorder};
